//! What to do about the errors of bundles.

use crate::bundle::error::BundleError;
use crate::hint::Hint;

/// What hints say of `repair`: of no use to whoever has just run it.
pub(crate) const REPAIR_ADVICE: [&str; 3] = [
    "; where its parity lies beside it, `trivy-ferry repair` makes it again",
    "; with parity beside them, `trivy-ferry repair` makes it again",
    "; where there is enough parity, `trivy-ferry repair` makes them again",
];
/// What hints say of `verify`.
pub(crate) const VERIFY_ADVICE: [&str; 2] =
    [" (`trivy-ferry verify` says whether the others are good)", " (`trivy-ferry verify` names them)"];

impl Hint for BundleError {
    fn hint(&self) -> String {
        match self {
            BundleError::Open { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied => {
                "Run the command as a user who may read it, or change its mode.".into()
            }
            BundleError::Open { .. } => {
                "Name a bundle or the folder that holds it, and check that the medium is mounted.".into()
            }
            BundleError::NotAFile { .. } => "Copy the bundle to a plain file, and name that.".into(),
            BundleError::NotABundle { .. } => {
                "Name a file that `trivy-ferry export` wrote; if it was one, copy it again.".into()
            }
            BundleError::Manifest { .. }
            | BundleError::CutOff { .. }
            | BundleError::Read { .. }
            | BundleError::Short { .. } => {
                let repair = REPAIR_ADVICE[0];
                format!("Nothing of it was used; copy the file again, and wait for the medium before unplugging it{repair}.")
            }
            BundleError::Heartbeat { .. } => "Nothing has to be done: the next export sends another.".into(),
            BundleError::Parity { .. } => {
                "Copy it again, or do without: it is needed only where something else is lost.".into()
            }
            BundleError::NeverComplete { .. } => {
                "Send it again, or what is missing of it; for a link that loses much, export with more --parity."
                    .into()
            }
            BundleError::BeyondParity { .. } => {
                let verify = VERIFY_ADVICE[1];
                format!("Copy the volumes again that are missing or damaged{verify}, or more parity files.")
            }
            BundleError::NoHead { .. } => {
                let repair = REPAIR_ADVICE[1];
                format!("Copy it too, into the folder of the others: it is written last, when the bundle is whole{repair}.")
            }
            BundleError::Volumes { .. } => {
                let (verify, repair) = (VERIFY_ADVICE[0], REPAIR_ADVICE[2]);
                format!("Copy these volumes again, under any name, into the folder of those that are here, or name both folders{verify}{repair}.")
            }
            BundleError::Long { .. } | BundleError::Member { .. } | BundleError::InvalidSignature { .. } => {
                let repair = REPAIR_ADVICE[0];
                format!("Nothing of it was used; copy the file again, and if that does not help, export anew{repair}.")
            }
            BundleError::Untrusted { .. } => {
                "Compare the exporter's fingerprint over another channel, then `trivy-ferry trust add FILE` or --trust FILE."
                    .into()
            }
            BundleError::FewSigners { stream, others, .. } => how_more_sign(stream, others),
            BundleError::NotForStream { stream, .. } => format!(
                "If its exporter is meant to make this stream, trust the key for it too: `trivy-ferry trust add FILE --stream {stream}`."
            ),
            BundleError::Unknown { .. } => "Use the version of trivy-ferry that wrote it, or a newer one.".into(),
            BundleError::Payload { .. } => {
                "Export anew with the current version; the exporter that signed this one has a fault.".into()
            }
        }
    }
}

/// What to do about a bundle that too few trusted keys signed; `others` are trusted for other streams alone.
fn how_more_sign(stream: &str, others: &[String]) -> String {
    if others.is_empty() {
        return "Have another trusted key sign it (`trivy-ferry sign`), on the connected side or here; `trust require` and --min-signers say how many must.".into();
    }
    format!(
        "If that key is meant to sign this stream, `trivy-ferry trust add FILE --stream {stream}` trusts it for it; otherwise have another key of this stream sign it (`trivy-ferry sign`)."
    )
}
