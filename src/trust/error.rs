//! What can go wrong with keys and state, and why a bundle is refused.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::digest::Digest;
use crate::error::Next;
use crate::util::text::{moment, second};

/// A key, a trust directory or the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file could not be read or written.
    #[error("{path} cannot be used: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is not a key of the kind that is wanted.
    #[error("{path} is not {wanted}: {why}")]
    NotAKey {
        /// Which file.
        path: PathBuf,
        /// The kind of key that is wanted.
        wanted: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The private key is encrypted, and no passphrase or a wrong one was given.
    #[error("{path} is encrypted, and {why}")]
    Passphrase {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        why: &'static str,
    },
    /// The command that should sign did not.
    #[error("`{command}` did not sign: {why}")]
    Signer {
        /// The command.
        command: String,
        /// What it did instead.
        why: String,
    },
    /// There is no room for a further signature.
    #[error("the bundle carries {most} signatures, which is all that it has room for")]
    NoRoom {
        /// So many.
        most: usize,
    },
    /// A file that is never overwritten exists.
    #[error("{path} exists already, and a key is never overwritten")]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// Another key is trusted under the name.
    #[error("another key is trusted as {path} already")]
    NameTaken {
        /// Which file.
        path: PathBuf,
    },
    /// Somebody else could have changed a file that decisions rest on.
    #[error("{path} can be changed by others ({why}), so nothing can rest on it")]
    Writable {
        /// Which file or folder.
        path: PathBuf,
        /// Whom and how.
        why: String,
    },
    /// There is no trusted key at all.
    #[error("no key is trusted here yet, so nothing can be verified")]
    NoTrustedKeys {
        /// The folders that were looked in.
        looked_in: Vec<PathBuf>,
    },
    /// The state is there and cannot be understood.
    #[error("the state in {path} cannot be read: {why}")]
    State {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another run works with the state, and does not end.
    #[error("another run has held the state in {path} for a minute")]
    StateHeld {
        /// The state's folder.
        path: PathBuf,
    },
    /// No folder for the state can be written.
    #[error("no folder for the state can be written; tried {}", .tried.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoStateDir {
        /// The folders that were tried.
        tried: Vec<PathBuf>,
    },
}

impl Next for TrustError {
    fn next(&self) -> String {
        match self {
            TrustError::File { .. } => "Check that the file is there and that you may use it.".into(),
            TrustError::NotAKey { wanted, .. } => format!(
                "Give {wanted}: `trivy-ferry keygen` makes a pair, NAME.key (private) and NAME.pub (public)."
            ),
            TrustError::Passphrase { .. } => {
                "Run it in a terminal to be asked for the passphrase, or give --passphrase-file FILE.".into()
            }
            TrustError::Signer { .. } => {
                "Run it by hand on a file: it must print the 64 bytes of an Ed25519 signature of that file, by the key that --signer-key names."
                    .into()
            }
            TrustError::NoRoom { .. } => {
                "Export again with the keys that are needed now.".into()
            }
            TrustError::Exists { .. } => {
                "Choose another name with --out, or move the old key away first.".into()
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
            TrustError::State { .. } => {
                "Restore the file from a copy, or move it away: the next import is then treated as the first."
                    .into()
            }
            TrustError::StateHeld { .. } => {
                "Wait until it has ended, or name another folder with --state-dir.".into()
            }
            TrustError::NoStateDir { .. } => "Name a folder that you may write with --state-dir DIR.".into(),
        }
    }
}

/// Why a bundle that is genuine is not accepted. Exit code 5; every one names the flag that
/// overrides it and what that flag risks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bundle belongs to another stream.
    #[error("{bundle} belongs to stream {found:?}, and only stream {wanted:?} is accepted here")]
    Stream {
        /// The bundle's file name.
        bundle: String,
        /// Its stream.
        found: String,
        /// The stream of this import.
        wanted: String,
    },
    /// An older bundle than the last one accepted, and never seen before.
    #[error("{bundle} was created {}, before the last one accepted ({})", second(*.created), second(*.floor))]
    Rollback {
        /// The bundle's file name.
        bundle: String,
        /// When it was created.
        created: Timestamp,
        /// The creation time of the last accepted bundle.
        floor: Timestamp,
    },
    /// Two bundles of one stream and moment with different contents.
    #[error("{bundle} has the creation time of the last one accepted ({}) and another content", second(*.created))]
    Equivocation {
        /// The bundle's file name.
        bundle: String,
        /// When both were created.
        created: Timestamp,
        /// The identity of the one accepted before.
        accepted: Digest,
    },
    /// Created well after now.
    #[error("{bundle} was created {}, more than a day after this host's clock", moment(*.created))]
    Future {
        /// The bundle's file name.
        bundle: String,
        /// When it was created.
        created: Timestamp,
    },
    /// A heartbeat that is no newer than the last one.
    #[error("{heartbeat} was made {}, and the last one that came {}", second(*.created), second(*.last))]
    Late {
        /// The heartbeat's file name.
        heartbeat: String,
        /// When it was made.
        created: Timestamp,
        /// When the last one was made.
        last: Timestamp,
    },
    /// No heartbeat came for too long.
    #[error("no heartbeat of stream {stream:?} has come {}", since(*.last))]
    Silent {
        /// The stream.
        stream: String,
        /// When the last one was made, where there was any.
        last: Option<Timestamp>,
    },
    /// A heartbeat has told of a bundle that did not come.
    #[error("the bundle of stream {stream:?} of {} has not come", moment(*.created))]
    NotHere {
        /// The stream.
        stream: String,
        /// When it was made.
        created: Timestamp,
    },
    /// Its exporter gave it a date after which it must not be used.
    #[error("{bundle} expired {}", moment(*.expires))]
    Expired {
        /// The bundle's file name.
        bundle: String,
        /// The exporter's date.
        expires: Timestamp,
    },
    /// What is installed has passed its exporter's date, and nothing newer came.
    #[error("what is installed from stream {stream:?} expired {}", moment(*.expires))]
    InstalledExpired {
        /// The stream.
        stream: String,
        /// The exporter's date.
        expires: Timestamp,
    },
    /// A source serves older data than this stream has signed before.
    #[error("{source_name} serves {dataset} of {}, and this stream has carried {} already", second(*.updated_at), second(*.floor))]
    OlderThanSigned {
        /// The dataset.
        dataset: String,
        /// Where it came from.
        source_name: String,
        /// Its date.
        updated_at: Timestamp,
        /// The date that was signed before.
        floor: Timestamp,
    },
    /// Nothing is in place, and what came is older than what was accepted before.
    #[error("{dataset} is missing here, and the bundle's, of {}, is older than the last one accepted ({})", second(*.date), second(*.floor))]
    MissingAndOlder {
        /// The dataset.
        dataset: String,
        /// The date of what came.
        date: Timestamp,
        /// The date of what was accepted before.
        floor: Timestamp,
    },
    /// The tag that an image would get names something that trivy-ferry did not put there.
    #[error("{image} is not pushed: {reference} names {found}, which trivy-ferry did not set")]
    ForeignTag {
        /// The image's name.
        image: String,
        /// The tag.
        reference: String,
        /// The digest of the manifest that it names.
        found: Digest,
    },
    /// An image would go into the repository of a dataset.
    #[error("{image} is not pushed: {reference} is in the repository of {dataset}")]
    DatasetPlace {
        /// The image's name.
        image: String,
        /// Where it would go.
        reference: String,
        /// The dataset.
        dataset: String,
    },
    /// Two images would go to one place.
    #[error("{image} is not {what}: {reference} is already the place of {other}")]
    SamePlace {
        /// The image's name.
        image: String,
        /// What it is not: pushed, or served.
        what: &'static str,
        /// Where both would go.
        reference: String,
        /// The other image's name.
        other: String,
    },
    /// A dataset is older than `--max-age` allows.
    #[error("{dataset} is of {}, {age} old, and --max-age allows {allowed}", moment(*.updated_at))]
    TooOld {
        /// The dataset.
        dataset: String,
        /// Its date.
        updated_at: Timestamp,
        /// Its age, for people.
        age: String,
        /// The age that was allowed.
        allowed: String,
    },
}

fn since(last: Option<Timestamp>) -> String {
    last.map_or_else(|| "yet".into(), |last| format!("since {}", moment(last)))
}

impl Next for Refusal {
    fn next(&self) -> String {
        match self {
            Refusal::Stream { found, .. } => format!(
                "Accept it with --stream {found} if you mean to; mixing streams lets one exporter roll back another's data."
            ),
            Refusal::Rollback { .. } => {
                "Use a newer bundle, or admit this one with --allow-rollback: vulnerabilities found since may then go unseen."
                    .into()
            }
            Refusal::Equivocation { .. } => {
                "Ask the exporter's owner which is right: a key that signs two is misused. --allow-rollback admits it all the same."
                    .into()
            }
            Refusal::NotHere { .. } => {
                "Have it sent again: its files are in the exporter's folder, and the head comes last.".into()
            }
            Refusal::Silent { .. } => {
                "Look whether the diode or the gateway works, and whether the exporter runs with --heartbeat.".into()
            }
            Refusal::Late { .. } => {
                "Nothing has to be done: it was late, or came twice.".into()
            }
            Refusal::Future { .. } => {
                "Correct the clock on either side, or admit it with --allow-future: the age of the data is then not checked."
                    .into()
            }
            Refusal::Expired { .. } => {
                "Fetch a newer bundle, or admit it with --allow-expired: scans then use data that its exporter called too old."
                    .into()
            }
            Refusal::InstalledExpired { .. } => {
                "Bring a newer bundle; --allow-expired silences this, and scans go on with data that is too old.".into()
            }
            Refusal::MissingAndOlder { .. } => {
                "Import the newer bundle again, or take the older data with --allow-rollback: vulnerabilities found since go unseen."
                    .into()
            }
            Refusal::ForeignTag { .. } => {
                "Push the image to another place with --image NAME=HOST/PATH:TAG, or replace the tag with --replace-image-tags: whoever uses it then gets the bundle's image."
                    .into()
            }
            Refusal::DatasetPlace { .. } => {
                "Give it another place with --image NAME=HOST/PATH:TAG; no flag lets an image into a dataset's repository, because scanners would download it as data."
                    .into()
            }
            Refusal::SamePlace { .. } => {
                "Request only one of the two with --image, or export one under another name; users of the one would get the other."
                    .into()
            }
            Refusal::OlderThanSigned { dataset, .. } => format!(
                "Use a source that is up to date, or leave it out with --skip {dataset}: importers would refuse it as older."
            ),
            Refusal::TooOld { dataset, .. } => format!(
                "Use a newer source or bundle, leave it out with --skip {dataset}, or raise --max-age: older data misses newer vulnerabilities."
            ),
        }
    }
}
