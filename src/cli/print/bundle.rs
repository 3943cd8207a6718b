//! The text of the reports of `verify`, `inspect`, `repair` and `sign`.

use std::fmt;

use crate::bundle::Dataset;
use crate::bundle::payload::delta::Delta;
use crate::bundle::volumes::VolumeNumber;
use crate::intake::inspect::{InspectReport, InspectedBundle};
use crate::intake::repair::RepairReport;
use crate::intake::sign::SignReport;
use crate::intake::signer::SignerInfo;
use crate::intake::verify::VerifyReport;
use crate::util::redacted::Redacted;
use crate::util::text::{Unverified, escape, escape_line, format_age, format_minute, format_size};

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.bundles {
            let signers: Vec<String> = row.signers.iter().map(SignerInfo::to_string).collect();
            writeln!(
                f,
                "{}   signed by {}, created {} ago",
                escape_line(&row.path.display().to_string()),
                signers.join(" and "),
                format_age(row.created, row.checked_at)
            )?;
            writeln!(
                f,
                "  good: {} members, {}, content as signed: {}",
                row.members + 1,
                format_size(row.length),
                row.datasets.join(", ")
            )?;
            if !row.images.is_empty() {
                writeln!(f, "  images: {}", row.images.join(", "))?;
            }
            for item in &row.missing_items {
                writeln!(f, "  missing: {item}: {}", escape(&item.why))?;
            }
            writeln!(f, "  payload {}", row.identity)?;
        }
        for ignored in &self.ignored {
            writeln!(f, "skipped: {}: {}", ignored.name, ignored.why)?;
        }
        Ok(())
    }
}

impl fmt::Display for SignReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.unchanged { "Signed by this key before" } else { "Verified, signed, synced" };
        writeln!(f, "{done}: {}", escape_line(&self.path.display().to_string()))?;
        writeln!(f, "Signed by {}", self.fingerprint)?;
        writeln!(f, "Payload {}", self.identity)
    }
}

impl fmt::Display for InspectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.bundles {
            fmt::Display::fmt(row, f)?;
        }
        for ignored in &self.ignored {
            writeln!(f, "skipped: {}: {}", ignored.name, ignored.why)?;
        }
        Ok(())
    }
}

impl fmt::Display for InspectedBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", escape_line(&self.path.display().to_string()))?;
        self.write_signatures(f)?;
        self.write_head(f)?;
        self.write_volumes(f)?;
        for dataset in &self.payload.datasets {
            self.write_dataset(f, dataset)?;
        }
        for image in &self.payload.images {
            writeln!(f, "\n  image {}   {}", escape(&image.name), format_size(image.size()))?;
            writeln!(f, "    from       {}", escape(&Redacted::new(&image.source).to_string()))?;
            writeln!(f, "    manifest   {}", image.manifest.digest)?;
        }
        for item in &self.payload.missing {
            writeln!(f, "\n  missing {item}   {}", escape(&item.why))?;
        }
        writeln!(f, "\n  members")?;
        for member in &self.payload.members {
            writeln!(f, "    {} {:>12} {}", member.digest.hex(), member.size, member.path)?;
        }
        Ok(())
    }
}

impl InspectedBundle {
    /// Writes the signers of the bundle, or the reason why it is not verified.
    fn write_signatures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(why) = &self.why else {
            for signer in &self.signers {
                writeln!(f, "  signed by  {} ({})", signer.fingerprint, escape(&signer.name))?;
            }
            // Anyone can add such a signature, so it says nothing about the bundle's origin.
            for keyid in self.untrusted_keyids() {
                writeln!(f, "  also by    a key that is not trusted here: {}", escape(keyid))?;
            }
            return Ok(());
        };
        writeln!(f, "  NOT VERIFIED: {why}")?;
        if self.signers.is_empty() {
            return writeln!(f, "  The file claims the following.");
        }
        let names: Vec<String> = self.signers.iter().map(SignerInfo::to_string).collect();
        writeln!(f, "  The following is signed by {}.", names.join(" and "))
    }

    /// Returns the key IDs in the envelope that do not belong to trusted keys.
    fn untrusted_keyids(&self) -> impl Iterator<Item = &str> {
        let is_trusted = |keyid: &str| self.signers.iter().any(|signer| signer.keyid == keyid);
        self.claimed_keyids.iter().map(Unverified::raw).filter(move |keyid| !is_trusted(keyid))
    }

    /// Writes the properties of the bundle.
    fn write_head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = &self.payload;
        writeln!(f, "  payload    {}", self.identity)?;
        writeln!(f, "  stream     {}", payload.stream)?;
        writeln!(
            f,
            "  created    {} ({} ago)",
            format_minute(payload.created),
            format_age(payload.created, self.inspected_at)
        )?;
        if let Some(expires) = payload.expires {
            writeln!(f, "  expires    {}", format_minute(expires))?;
        }
        if let Some(sequence) = payload.sequence {
            writeln!(f, "  sequence   {sequence}")?;
        }
        writeln!(f, "  producer   {}", escape(&payload.producer))?;
        writeln!(f, "  length     {} in {} members", format_size(payload.length), payload.members.len() + 1)
    }

    /// Lists the volumes after the head volume, if there are any.
    fn write_volumes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = &self.payload;
        if payload.volumes.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "  volumes    {}, the head with {}",
            payload.volumes.len() + 1,
            format_size(payload.head_length())
        )?;
        for (index, volume) in payload.volumes.iter().enumerate() {
            let number = VolumeNumber::at(index).map(|number| number.to_string()).unwrap_or_default();
            writeln!(f, "    {} {:>12} {number}", volume.digest.hex(), volume.size)?;
        }
        Ok(())
    }

    /// Describes a dataset: its age or version, its source, its blobs and its files.
    fn write_dataset(&self, f: &mut fmt::Formatter<'_>, dataset: &Dataset) -> fmt::Result {
        let contents = &dataset.contents;
        let date = contents
            .updated_at
            .map(|date| format!("{} ({} old)", format_minute(date), format_age(date, self.inspected_at)));
        let version = dataset.version.as_deref().map(escape);
        let what = date.or(version).unwrap_or_default();
        writeln!(f, "\n  {} {}   {what}", dataset.name, dataset.tag)?;
        writeln!(f, "    from       {}", escape(&Redacted::new(&dataset.source).to_string()))?;
        writeln!(f, "    manifest   {}", dataset.manifest.digest)?;
        let carried = if dataset.delta.is_some() { ", not in this bundle" } else { "" };
        for layer in &dataset.layers {
            writeln!(f, "    layer      {} {}{carried}", layer.digest, format_size(layer.size))?;
        }
        for base in dataset.delta.iter().flat_map(Delta::bases) {
            let date = base.updated_at.map_or_else(|| "an unknown date".into(), format_minute);
            writeln!(
                f,
                "    from       {} of {date}, patch of {}",
                base.digest,
                format_size(base.patch.size)
            )?;
        }
        for file in &contents.files {
            writeln!(f, "    file       {} {} {}", file.digest, format_size(file.size), file.path)?;
        }
        if let Some(tree) = &contents.tree {
            writeln!(f, "    tree       {} {} in {} files", tree.digest, format_size(tree.size), tree.files)?;
        }
        Ok(())
    }
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.bundles {
            let path = escape_line(&row.path.display().to_string());
            match row.made.as_slice() {
                [] => writeln!(f, "{path} is complete: {}, every byte as signed.", format_size(row.length))?,
                made => {
                    writeln!(
                        f,
                        "{path} is complete again: {}, every byte as signed.",
                        format_size(row.length)
                    )?;
                    for made in made {
                        writeln!(f, "  rebuilt from parity: {}", escape_line(&made.display().to_string()))?;
                    }
                }
            }
            writeln!(f, "  payload {}", row.identity)?;
        }
        Ok(())
    }
}

impl fmt::Display for SignerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (trusted: {})", self.short, self.name)
    }
}
