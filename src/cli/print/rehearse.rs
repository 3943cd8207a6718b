//! The text of the report of `rehearse`.

use std::fmt;

use crate::rehearse::RehearsalReport;
use crate::util::text::format_size;

/// The vulnerability that the sample's VEX repository declares harmless.
const SETTLED: &str = "CVE-2099-0002";

impl fmt::Display for RehearsalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Rehearsing a complete trip on this machine, with sample data and no network.")?;
        writeln!(
            f,
            "  1. connected side    {} datasets collected from a temporary registry:",
            self.collected
        )?;
        writeln!(
            f,
            "                       one bundle, {}, signed with a throw-away key",
            format_size(self.bundle_size)
        )?;
        writeln!(f, "  2. in transit        one bit flipped: rejected ({})", self.refused)?;
        writeln!(
            f,
            "  3. air-gapped side   signature and {} members verified, imported in {:.2} s",
            self.members, self.imported_seconds
        )?;
        match &self.scan {
            Some(scan) => {
                writeln!(
                    f,
                    "  4. trivy {:<11} found {} in Gemfile.lock, offline;",
                    scan.trivy_version,
                    scan.found.join(", ")
                )?;
                writeln!(f, "                       {} was suppressed by a VEX document", SETTLED)?;
            }
            None => {
                writeln!(f, "  4. scan              skipped: there is no `trivy` on the PATH")?;
                writeln!(f, "                       (install it from https://trivy.dev to include a scan)")?;
            }
        }
        if let Some(kept) = &self.kept {
            writeln!(f, "All files are kept in {}.", kept.display())?;
        }
        writeln!(f, "It works here. Next, on the connected side:")?;
        writeln!(f, "  trivy-ferry keygen --name ferry")?;
        writeln!(f, "  trivy-ferry export --key ferry.key --output /media/usb")?;
        writeln!(f, "  cp ferry.pub /media/usb")?;
        writeln!(f, "Then, on the air-gapped side:")?;
        writeln!(f, "  trivy-ferry trust add /media/usb/ferry.pub        (compare the fingerprint)")?;
        writeln!(f, "  trivy-ferry import /media/usb --write-env settings.env")
    }
}
