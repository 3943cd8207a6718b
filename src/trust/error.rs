//! The errors of keys and state, and the reasons for which a bundle is rejected.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::digest::Digest;
use crate::util::text::{escape, format_distinct, format_minute, format_second, format_size};

/// A key, a trust directory or the state cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
        why: String,
    },
    /// The command that should sign did not.
    #[error("`{command}` did not sign: {why}")]
    Signer {
        /// The command.
        command: String,
        /// What it did instead.
        why: String,
    },
    /// A signer of another program failed; [`Signer`](crate::Signer) implementations return it.
    #[error("the signature could not be made: {why}")]
    Signing {
        /// What happened.
        why: String,
    },
    /// A signer returned something that its own key does not verify.
    #[error("the signer returned bytes that are no signature of its key {fingerprint}")]
    WrongSignature {
        /// The fingerprint of the key.
        fingerprint: String,
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
    /// More signatures are required than keys are trusted.
    #[error("{wanted} different keys must sign, and {}", trusted_here(*.have, .stream.as_deref(), .limited))]
    FewKeys {
        /// How many must sign.
        wanted: u32,
        /// How many are trusted for the stream, or for any one stream.
        have: usize,
        /// The stream, if it is known.
        stream: Option<String>,
        /// The names of keys that are trusted only for some streams, and these.
        limited: Vec<String>,
    },
    /// The state is there and cannot be understood.
    #[error("the state in {path} cannot be read: {why}")]
    State {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer version of the program wrote the state.
    #[error("the state in {path} is of format {format}, and this version (trivy-ferry {}) knows formats up to {known}", env!("CARGO_PKG_VERSION"))]
    NewerState {
        /// Which file.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The newest format that is known.
        known: u32,
    },
    /// The state would be larger than what is read.
    #[error("the state in {path} would be larger than {}", format_size(*most))]
    StateFull {
        /// Which file.
        path: PathBuf,
        /// The most that is read, in bytes.
        most: u64,
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

/// Why a bundle that is genuine is not accepted. Exit code 5; every one names the flag that
/// overrides it and what that flag risks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
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
    #[error("{bundle} was created {}, before the last one accepted ({}{})", format_second(*.created), format_second(*.floor), ahead_of_clock(*.ahead_of))]
    Rollback {
        /// The bundle's file name.
        bundle: String,
        /// When it was created.
        created: Timestamp,
        /// The creation time of the last accepted bundle.
        floor: Timestamp,
        /// What this host's clock says, if the last accepted bundle is ahead of it.
        ahead_of: Option<Timestamp>,
    },
    /// Two bundles of one stream and moment with different contents.
    #[error("{bundle} has the creation time of the last one accepted ({}) and another content", format_second(*.created))]
    Equivocation {
        /// The bundle's file name.
        bundle: String,
        /// When both were created.
        created: Timestamp,
        /// The identity of the one accepted before.
        accepted: Digest,
    },
    /// Created well after now.
    #[error("{bundle} was created {}, more than a day after this host's clock ({})", format_minute(*.created), format_minute(*.now))]
    Future {
        /// The bundle's file name.
        bundle: String,
        /// When it was created.
        created: Timestamp,
        /// What this host's clock says.
        now: Timestamp,
    },
    /// This host's clock is behind what this host has accepted or written down.
    #[error("this host's clock says {}, and {what} is of {}", format_minute(*.now), format_minute(*.evidence))]
    ClockBehind {
        /// What this host's clock says.
        now: Timestamp,
        /// What is ahead of it.
        what: String,
        /// Its time.
        evidence: Timestamp,
        /// Whether this host's own clock said so before, so that no other clock can be wrong.
        own: bool,
    },
    /// A source serves data that is dated after this host's clock.
    #[error("this host's clock says {}, and {dataset} from {source_name} is dated {}", format_distinct(*.now, *.updated_at).0, format_distinct(*.now, *.updated_at).1)]
    AheadOfClock {
        /// The dataset.
        dataset: String,
        /// Where it came from.
        source_name: String,
        /// Its date.
        updated_at: Timestamp,
        /// What this host's clock says.
        now: Timestamp,
    },
    /// The stream's last bundle is dated so far ahead of this host's clock that importers would refuse the next one.
    #[error("the stream's last export is dated {}, and this host's clock says {}", format_minute(*.last), format_minute(*.now))]
    LastExportAhead {
        /// When the last bundle was created.
        last: Timestamp,
        /// What this host's clock says.
        now: Timestamp,
    },
    /// A heartbeat that is no newer than the last one.
    #[error("{heartbeat} was made {}, and the last one that came {}", format_second(*.created), format_second(*.last))]
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
    #[error("the bundle of stream {stream:?} of {} has not come{}", format_minute(*.created), into(.not_in))]
    NotHere {
        /// The stream.
        stream: String,
        /// When it was made.
        created: Timestamp,
        /// The targets that have not accepted it, if others have.
        not_in: Vec<String>,
    },
    /// Its exporter gave it a date after which it must not be used.
    #[error("{bundle} expired {}", format_minute(*.expires))]
    Expired {
        /// The bundle's file name.
        bundle: String,
        /// The exporter's date.
        expires: Timestamp,
    },
    /// What is installed has passed its exporter's date, and nothing newer came.
    #[error("what is installed from stream {stream:?} expired {}", format_minute(*.expires))]
    InstalledExpired {
        /// The stream.
        stream: String,
        /// The exporter's date.
        expires: Timestamp,
    },
    /// A source serves older data than this stream has signed before.
    #[error("{source_name} serves {dataset} of {}, and this stream has carried {} already", format_second(*.updated_at), format_second(*.floor))]
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
    /// A source serves much less than this stream has signed before, or nothing.
    #[error("{source_name} serves a {dataset} that would hide vulnerabilities: {why}")]
    Suspect {
        /// The dataset.
        dataset: String,
        /// Where it came from.
        source_name: String,
        /// What is odd about it.
        why: String,
    },
    /// Nothing is in place, and what came is older than what was accepted before.
    #[error("{dataset} is missing here, and the bundle's, of {}, is older than the last one accepted ({})", format_second(*.date), format_second(*.floor))]
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
    /// A dataset for which there is an age is not there at all.
    #[error("{dataset} is not there, and --max-age asks for it")]
    Absent {
        /// The dataset.
        dataset: String,
    },
    /// A dataset is older than `--max-age` allows.
    #[error("{dataset} is of {}, {age} old, and --max-age allows {allowed}", format_minute(*.updated_at))]
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

fn trusted_here(have: usize, stream: Option<&str>, limited: &[String]) -> String {
    let are = if have == 1 { "1 is".into() } else { format!("{have} are") };
    let limited = limited.join(", ");
    match stream {
        _ if limited.is_empty() => format!("{are} trusted here"),
        Some(stream) => format!("{are} trusted here for stream {stream:?}; there is also {limited}"),
        None => format!("at most {are} trusted here for one stream; there is {limited}"),
    }
}

fn into(targets: &[String]) -> String {
    if targets.is_empty() { String::new() } else { format!(" into {}", escape(&targets.join(", "))) }
}

fn ahead_of_clock(now: Option<Timestamp>) -> String {
    now.map_or_else(String::new, |now| {
        format!(", which is ahead of this host's clock, {}", format_minute(now))
    })
}

fn since(last: Option<Timestamp>) -> String {
    last.map_or_else(|| "yet".into(), |last| format!("since {}", format_minute(last)))
}
