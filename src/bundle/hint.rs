//! The hints for the errors of bundles.

use crate::bundle::error::BundleError;
use crate::hint::Hint;

/// The advice to run `repair`. The command `repair` removes it from its own errors.
pub(crate) const REPAIR_ADVICE: [&str; 3] = [
    " (`trivy-ferry repair` can rebuild it if its parity files are beside it)",
    " (`trivy-ferry repair` can rebuild it if there are parity files beside them)",
    " (`trivy-ferry repair` can rebuild them if there is enough parity)",
];
/// The advice to run `verify`. The command `verify` removes it from its own errors.
pub(crate) const VERIFY_ADVICE: [&str; 2] =
    [" (`trivy-ferry verify` checks the others)", " (`trivy-ferry verify` names them)"];

impl Hint for BundleError {
    fn hint(&self) -> String {
        match self {
            BundleError::Open { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied => {
                "Run the command as a user who can read the file, or change the mode of the file.".into()
            }
            BundleError::Open { .. } => {
                "Name a bundle or the directory that holds it, and check that the medium is mounted.".into()
            }
            BundleError::NotAFile { .. } => "Copy the bundle to a regular file, and name that file.".into(),
            BundleError::NotABundle { .. } => {
                "Name a file that `trivy-ferry export` wrote; if it is one, copy it again.".into()
            }
            BundleError::Manifest { .. }
            | BundleError::CutOff { .. }
            | BundleError::Read { .. }
            | BundleError::Short { .. } => {
                let repair = REPAIR_ADVICE[0];
                format!("Copy it again and eject the medium before you unplug it{repair}; no data from the file was used.")
            }
            BundleError::Heartbeat { .. } => "You need not do anything: the next export sends another heartbeat.".into(),
            BundleError::Parity { .. } => {
                "Copy it again; it is needed only if other files of the bundle are lost or damaged.".into()
            }
            BundleError::NeverComplete { .. } => {
                "Send the missing files again; if the link often loses files, export with more --parity."
                    .into()
            }
            BundleError::BeyondParity { .. } => {
                let verify = VERIFY_ADVICE[1];
                format!("Copy the missing or damaged volumes again{verify}, or copy more parity files.")
            }
            BundleError::NoBase { .. } | BundleError::NeedsLayer { .. } => WHOLE_ADVICE.into(),
            BundleError::NoHead { .. } => {
                let repair = REPAIR_ADVICE[1];
                format!("Copy it into the directory of the others{repair}; an export writes the head volume last.")
            }
            BundleError::Volumes { .. } => {
                let (verify, repair) = (VERIFY_ADVICE[0], REPAIR_ADVICE[2]);
                format!("Copy these volumes again, under any name, into the directory of the others{verify}, or name both directories{repair}.")
            }
            BundleError::Long { .. } | BundleError::Member { .. } | BundleError::InvalidSignature { .. } => {
                let repair = REPAIR_ADVICE[0];
                format!("Copy it again and, if that does not help, export again{repair}; no data from the file was used.")
            }
            BundleError::Untrusted { .. } => {
                "Compare the fingerprint with the exporter's over another channel: if they are equal, run `trivy-ferry trust add FILE` with its public key; if not, do not use the bundle."
                    .into()
            }
            BundleError::FewSigners { stream, others, .. } => how_more_sign(stream, others),
            BundleError::NotForStream { stream, .. } => format!(
                "If this exporter should write this stream, trust its key for the stream too: `trivy-ferry trust add FILE --stream {stream}`."
            ),
            BundleError::Unknown { .. } => "Use the version of trivy-ferry that wrote it, or a newer one.".into(),
            BundleError::Payload { .. } => {
                "Export again with the current version: the exporter that signed this bundle has a bug.".into()
            }
        }
    }
}

/// The advice for a dataset that is carried as a difference, which this target cannot use.
const WHOLE_ADVICE: &str =
    "Bring a bundle of this stream that carries the dataset whole: `export` without --delta writes one.";

/// Returns the hint for a bundle that too few trusted keys signed. `others` are trusted only for other streams.
fn how_more_sign(stream: &str, others: &[String]) -> String {
    if others.is_empty() {
        return "Sign it with another trusted key (`trivy-ferry sign`), on the connected side or here; `trust require` and --min-signers set the required number.".into();
    }
    format!(
        "If that key should sign this stream, run `trivy-ferry trust add FILE --stream {stream}`; otherwise sign the bundle with another key of this stream (`trivy-ferry sign`)."
    )
}
