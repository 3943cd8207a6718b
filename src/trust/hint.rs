//! The hints for the errors of keys and state, and for rejected bundles.

use std::path::Path;

use crate::hint::Hint;
use crate::trust::error::{Rejection, TrustError};
use crate::util::text::escape;

impl Hint for TrustError {
    fn hint(&self) -> String {
        match self {
            TrustError::File { .. } => "Check that the file exists and that you have permission to use it.".into(),
            TrustError::NotANumber { .. } => {
                "Set the number again with `trivy-ferry trust require NUMBER`.".into()
            }
            TrustError::NotAKey { wanted, .. } => format!(
                "Give {wanted}; `trivy-ferry keygen` creates a pair: NAME.key (private) and NAME.pub (public)."
            ),
            TrustError::Passphrase { .. } => {
                "Enter the passphrase in a terminal, or write it into the first line of a file and give --passphrase-file FILE.".into()
            }
            TrustError::Signing { .. } => "Fix the error that the signer reports, and run the command again.".into(),
            TrustError::WrongSignature { .. } => {
                "The signer must sign the message itself, not a hash of it, with Ed25519 and this key.".into()
            }
            TrustError::Signer { .. } => {
                "Run it by hand on a file: it must print the 64 bytes of an Ed25519 signature of that file, made with the key that --signer-key names."
                    .into()
            }
            TrustError::NoRoom { .. } => {
                "Export again, and sign only with the keys that are needed.".into()
            }
            TrustError::Exists { .. } => {
                "Choose another name with --name, or move the old key away first.".into()
            }
            TrustError::NameTaken { .. } => "Give this one another name with --name.".into(),
            TrustError::Writable { path, .. } => {
                let is_key = path.extension().is_some_and(|extension| extension == "pub");
                let take = if is_key { "; `trivy-ferry trust add` accepts a key in any directory" } else { "" };
                format!(
                    "Make {} owned and writable only by root or yourself (`chown`, `chmod go-w`; a directory that is shared with a group of yours needs its setgid bit), or use another one{take}.",
                    path.display()
                )
            }
            TrustError::NoTrustedKeys { .. } => {
                "Add the exporter's public key with `trivy-ferry trust add FILE`, or give --trust FILE."
                    .into()
            }
            TrustError::FewKeys { limited, .. } if !limited.is_empty() => {
                "Trust another key for the stream with `trivy-ferry trust add FILE --stream NAME` (a key of other streams works too), or require fewer with `trivy-ferry trust require`."
                    .into()
            }
            TrustError::FewKeys { wanted: 1, .. } => "Add a key with `trivy-ferry trust add FILE`.".into(),
            TrustError::FewKeys { .. } => {
                "Add the other keys with `trivy-ferry trust add FILE` or --trust FILE, or require fewer with `trivy-ferry trust require` or --min-signers."
                    .into()
            }
            TrustError::NewerState { .. }
            | TrustError::State { .. }
            | TrustError::StateFull { .. }
            | TrustError::StateHeld { .. }
            | TrustError::NoStateDir { .. } => hint_of_state(self).into(),
        }
    }
}

/// Returns the hint for an error of the state.
fn hint_of_state(error: &TrustError) -> &'static str {
    match error {
        TrustError::NewerState { .. } => {
            "Use the newer trivy-ferry that wrote it, or restore the file from a backup made before the upgrade."
        }
        TrustError::State { path, .. } if is_of_exports(path) => {
            "Restore the file from a backup, or move it away: the next export then numbers the stream's bundles from 1 again and cannot compare dates with earlier exports."
        }
        TrustError::State { .. } => {
            "Restore the file from a backup, or move it away: the next import is then treated as the first."
        }
        TrustError::StateFull { .. } => {
            "Use a separate --state-dir for the registries with most images, or import fewer images; the file was not changed."
        }
        TrustError::StateHeld { .. } => {
            "Wait until it has ended, or name another directory with --state-dir."
        }
        TrustError::NoStateDir { .. } => "Name a writable directory with --state-dir DIR.",
        _ => "",
    }
}

fn is_of_exports(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("export"))
}

/// Returns the hint for a wrong clock or missing heartbeats; `None` for any other reason.
fn hint_of_time(rejection: &Rejection) -> Option<String> {
    let hint: String = match rejection {
            Rejection::Rollback { ahead_of: Some(_), .. } => {
                "One of the clocks was or is wrong: if this host's clock is right, admit this bundle with --allow-rollback; later bundles are then compared with its date."
                    .into()
            }
            Rejection::Future { .. } => {
                "Compare both clocks with the true time: correct this host's clock and import again, or the exporter's and export again; --allow-future admits the bundle, but the age of the data is then not checked."
                    .into()
            }
            Rejection::ClockBehind { own: true, .. } => {
                "This host's clock was set back: correct it (`timedatectl`) or, if it is now right, import the last bundle again or wait for the next bundle or heartbeat; until then, ages are counted from the later time."
                    .into()
            }
            Rejection::ClockBehind { own: false, .. } => {
                "This host's clock is slow, or the exporter's is fast: compare both with the true time; until then, ages are counted from the later time."
                    .into()
            }
            Rejection::AheadOfClock { dataset, .. } => format!(
                "Check this host's clock, which looks slow (`timedatectl`); if it is right, the source serves a wrong date: use another source, or skip the dataset with --skip {dataset}."
            ),
            Rejection::LastExportAhead { .. } => {
                "Correct this host's clock or, if it is now right and was fast before, export once with --allow-earlier-date: importers that accepted the later bundle then need --allow-rollback once."
                    .into()
            }
            Rejection::NotHere { stream, not_in, .. } if !not_in.is_empty() => format!(
                "Import it there as well, or retire a target that is no longer used with `trivy-ferry forget TARGET --stream {}`.",
                escape(stream)
            ),
            Rejection::NotHere { .. } => {
                "Send its files from the exporter's output directory again, the head volume last.".into()
            }
            Rejection::Silent { stream, .. } => format!(
                "Check that the diode or the gateway works, and that the exporter runs with --heartbeat; if nothing sends this stream anymore, retire its targets with `trivy-ferry forget TARGET --stream {}`.",
                escape(stream)
            ),
            _ => return None,
    };
    Some(hint)
}

impl Hint for Rejection {
    fn hint(&self) -> String {
        if let Some(hint) = hint_of_time(self) {
            return hint;
        }
        match self {
            Rejection::Stream { found, .. } => format!(
                "To accept it, import with --stream {found}; mixing streams lets one exporter roll back another's data."
            ),
            Rejection::Rollback { .. } => {
                "Use a newer bundle, or admit this one with --allow-rollback: scans then miss vulnerabilities found since."
                    .into()
            }
            Rejection::Equivocation { .. } => {
                "Ask the exporter's owner which one is right, because the key may have been misused; --allow-rollback admits this one."
                    .into()
            }
            Rejection::Late { .. } => {
                "You need not do anything: the heartbeat was late, or was sent twice.".into()
            }
            Rejection::Expired { .. } => {
                "Import a newer bundle, or admit this one with --allow-expired: scans then use data that its exporter considers too old."
                    .into()
            }
            Rejection::InstalledExpired { .. } => {
                "Bring a newer bundle; --allow-expired hides this error, but scans still use data that is too old.".into()
            }
            Rejection::MissingAndOlder { .. } => {
                "Import the newer bundle again, or admit the older data with --allow-rollback: scans then miss vulnerabilities found since."
                    .into()
            }
            Rejection::ForeignTag { .. } => {
                "Push the image to another reference with --image NAME=HOST/PATH:TAG, or replace the tag with --replace-image-tags: users of the tag then get the bundle's image."
                    .into()
            }
            Rejection::DatasetPlace { .. } => {
                "Push it to another reference with --image NAME=HOST/PATH:TAG; no flag allows an image in a dataset's repository, because scanners would download it as data."
                    .into()
            }
            Rejection::SamePlace { .. } => {
                "Request only one of the two with --image, or export one under another name: users of one image would get the other."
                    .into()
            }
            Rejection::OlderThanSigned { dataset, .. } => format!(
                "Use a source that is up to date, or skip the dataset with --skip {dataset}: importers would reject the older data."
            ),
            Rejection::Suspect { dataset, .. } => format!(
                "Compare it with another source and, if the change is intended, sign it with --accept {dataset}: scanners then miss the vulnerabilities that it lacks."
            ),
            Rejection::Absent { .. } => "Import a bundle that has it, or remove it from --max-age.".into(),
            Rejection::TooOld { dataset, .. } => format!(
                "Use a newer source or bundle, skip the dataset with --skip {dataset}, or raise --max-age: older data lacks newer vulnerabilities."
            ),
            Rejection::Future { .. }
            | Rejection::ClockBehind { .. }
            | Rejection::AheadOfClock { .. }
            | Rejection::LastExportAhead { .. }
            | Rejection::NotHere { .. }
            | Rejection::Silent { .. } => String::new(),
        }
    }
}
