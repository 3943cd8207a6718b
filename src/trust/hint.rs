//! What to do about the errors of keys and state, and about rejected bundles.

use std::path::Path;

use crate::hint::Hint;
use crate::trust::error::{Rejection, TrustError};
use crate::util::text::escape;

impl Hint for TrustError {
    fn hint(&self) -> String {
        match self {
            TrustError::File { .. } => "Check that the file is there and that you may use it.".into(),
            TrustError::NotAKey { wanted, .. } => format!(
                "Give {wanted}: `trivy-ferry keygen` makes a pair, NAME.key (private) and NAME.pub (public)."
            ),
            TrustError::Passphrase { .. } => {
                "Run it in a terminal to be asked for the passphrase, or give --passphrase-file FILE.".into()
            }
            TrustError::Signing { .. } => "See what the signer says, and run the command again.".into(),
            TrustError::WrongSignature { .. } => {
                "The signer must sign the message as it is, with Ed25519 and this key.".into()
            }
            TrustError::Signer { .. } => {
                "Run it by hand on a file: it must print the 64 bytes of an Ed25519 signature of that file, by the key that --signer-key names."
                    .into()
            }
            TrustError::NoRoom { .. } => {
                "Export again with the keys that are needed now.".into()
            }
            TrustError::Exists { .. } => {
                "Choose another name with --name, or move the old key away first.".into()
            }
            TrustError::NameTaken { .. } => "Give this one another name with --name.".into(),
            TrustError::Writable { path, .. } => {
                let is_key = path.extension().is_some_and(|extension| extension == "pub");
                let take = if is_key { "; `trivy-ferry trust add` takes a key from anywhere" } else { "" };
                format!(
                    "Let only root or yourself own and write {} (`chown`, `chmod go-w`; a directory that a group shares also has its setgid bit, and you are in the group), or use another place{take}.",
                    path.display()
                )
            }
            TrustError::NoTrustedKeys { .. } => {
                "Add the exporter's public key with `trivy-ferry trust add FILE`, or give --trust FILE."
                    .into()
            }
            TrustError::FewKeys { limited, .. } if !limited.is_empty() => {
                "Trust another key for the stream (`trivy-ferry trust add FILE --stream NAME`, also one that is trusted for other streams), or require fewer with `trust require`."
                    .into()
            }
            TrustError::FewKeys { .. } => {
                "Add the other keys with `trivy-ferry trust add FILE`, or require fewer with `trust require`."
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

/// What to do about the state.
fn hint_of_state(error: &TrustError) -> &'static str {
    match error {
        TrustError::NewerState { .. } => {
            "Use the newer trivy-ferry that wrote it, or restore the file from before the upgrade."
        }
        TrustError::State { path, .. } if is_of_exports(path) => {
            "Restore the file from a copy, or move it away: the next export then begins the stream's numbers anew, and knows no earlier dates."
        }
        TrustError::State { .. } => {
            "Restore the file from a copy, or move it away: the next import is then treated as the first."
        }
        TrustError::StateFull { .. } => {
            "The file is as it was. Give the registries with most images a state of their own (--state-dir), or import fewer images."
        }
        TrustError::StateHeld { .. } => "Wait until it has ended, or name another folder with --state-dir.",
        TrustError::NoStateDir { .. } => "Name a folder that you may write with --state-dir DIR.",
        _ => "",
    }
}

fn is_of_exports(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("export"))
}

/// What to do about a clock that is wrong, or about silence; `None` for any other reason.
fn hint_of_time(rejection: &Rejection) -> Option<String> {
    let hint: String = match rejection {
            Rejection::Rollback { ahead_of: Some(_), .. } => {
                "One of the clocks was or is wrong. If this host's is right, admit this bundle with --allow-rollback: its date is the floor from then on."
                    .into()
            }
            Rejection::Future { .. } => {
                "Compare both clocks with the true time: correct this host's and import again, or the exporter's and export again. --allow-future admits the bundle; the age of the data is then not checked."
                    .into()
            }
            Rejection::ClockBehind { own: true, .. } => {
                "This host's clock has gone back: correct it (`timedatectl`). If it is right now, the next bundle or heartbeat ends this, also the last bundle once more; until then, ages are counted from the later time."
                    .into()
            }
            Rejection::ClockBehind { own: false, .. } => {
                "This host's clock is slow, or the exporter's is fast: compare both with the true time. Until then, ages are counted from the later time."
                    .into()
            }
            Rejection::AheadOfClock { dataset, .. } => format!(
                "Check this host's clock first (`timedatectl`): it looks slow. If it is right, the source serves a wrong date: name another, or leave it out with --skip {dataset}."
            ),
            Rejection::LastExportAhead { .. } => {
                "Correct this host's clock. If it is right, and was fast back then, export once with --allow-earlier-date: importers that accepted the later bundle then need --allow-rollback once."
                    .into()
            }
            Rejection::NotHere { stream, not_in, .. } if !not_in.is_empty() => format!(
                "Import it there as well; a target that no run uses any more is retired by `trivy-ferry forget TARGET --stream {}`.",
                escape(stream)
            ),
            Rejection::NotHere { .. } => {
                "Have it sent again: its files are in the exporter's folder, and the head comes last.".into()
            }
            Rejection::Silent { stream, .. } => format!(
                "Look whether the diode or the gateway works, and whether the exporter runs with --heartbeat. If nothing sends this stream any more, retire its targets: `trivy-ferry forget TARGET --stream {}`.",
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
                "Accept it with --stream {found} if you mean to; mixing streams lets one exporter roll back another's data."
            ),
            Rejection::Rollback { .. } => {
                "Use a newer bundle, or admit this one with --allow-rollback: vulnerabilities found since may then go unseen."
                    .into()
            }
            Rejection::Equivocation { .. } => {
                "Ask the exporter's owner which is right: a key that signs two is misused. --allow-rollback admits it all the same."
                    .into()
            }
            Rejection::Late { .. } => {
                "Nothing has to be done: it was late, or came twice.".into()
            }
            Rejection::Expired { .. } => {
                "Fetch a newer bundle, or admit it with --allow-expired: scans then use data that its exporter called too old."
                    .into()
            }
            Rejection::InstalledExpired { .. } => {
                "Bring a newer bundle; --allow-expired silences this, and scans go on with data that is too old.".into()
            }
            Rejection::MissingAndOlder { .. } => {
                "Import the newer bundle again, or take the older data with --allow-rollback: vulnerabilities found since go unseen."
                    .into()
            }
            Rejection::ForeignTag { .. } => {
                "Push the image to another place with --image NAME=HOST/PATH:TAG, or replace the tag with --replace-image-tags: whoever uses it then gets the bundle's image."
                    .into()
            }
            Rejection::DatasetPlace { .. } => {
                "Give it another place with --image NAME=HOST/PATH:TAG; no flag lets an image into a dataset's repository, because scanners would download it as data."
                    .into()
            }
            Rejection::SamePlace { .. } => {
                "Request only one of the two with --image, or export one under another name; users of the one would get the other."
                    .into()
            }
            Rejection::OlderThanSigned { dataset, .. } => format!(
                "Use a source that is up to date, or leave it out with --skip {dataset}: importers would refuse it as older."
            ),
            Rejection::Suspect { dataset, .. } => format!(
                "Compare it with another source; if it is meant to be so, sign it with --accept {dataset}: scanners find nothing that it lacks."
            ),
            Rejection::Absent { .. } => "Import a bundle that has it, or leave it out of --max-age.".into(),
            Rejection::TooOld { dataset, .. } => format!(
                "Use a newer source or bundle, leave it out with --skip {dataset}, or raise --max-age: older data misses newer vulnerabilities."
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
