//! The errors of keys and state, and the reasons why a bundle is rejected.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::digest::Digest;
use crate::util::text::{escape, format_count, format_distinct, format_minute, format_second, format_size};

/// The reason why a key, a trust directory or the state cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// A file could not be read or written.
    #[error("{path} cannot be used: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: std::io::Error,
    },
    /// The file is not a key of the kind that is wanted.
    #[error("{path} is not {wanted}: {why}")]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// The kind of key that is wanted.
        wanted: &'static str,
        /// The reason.
        why: String,
    },
    /// The file that requires a number of signers has no valid number.
    #[error("{path} has no valid number of signers: {why}")]
    NotANumber {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The private key is encrypted, and no passphrase or a wrong one was given.
    #[error("{path} is encrypted, and {why}")]
    Passphrase {
        /// The file.
        path: PathBuf,
        /// The reason: no passphrase or a wrong one.
        why: String,
    },
    /// The signing command failed.
    #[error("`{command}` did not sign: {why}")]
    Signer {
        /// The command.
        command: String,
        /// The reason.
        why: String,
    },
    /// A signer of another program failed; [`Signer`](crate::Signer) implementations return it.
    #[error("the signature could not be made: {why}")]
    Signing {
        /// The reason.
        why: String,
    },
    /// A signer returned a signature that its own key does not verify.
    #[error("the signer returned an invalid signature: its key {fingerprint} does not verify it")]
    WrongSignature {
        /// The fingerprint of the key.
        fingerprint: String,
    },
    /// The bundle has no room for a further signature.
    #[error("the bundle has {most} signatures already, which is the maximum")]
    NoRoom {
        /// The maximum.
        most: usize,
    },
    /// A key file exists; it is never overwritten.
    #[error("{path} exists already, and a key is never overwritten")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Another key is trusted under this name.
    #[error("another key is trusted as {path} already")]
    NameTaken {
        /// The file.
        path: PathBuf,
    },
    /// A file or directory that trust depends on is writable by others.
    #[error("{path} is writable by others ({why}), so it cannot be trusted")]
    Writable {
        /// The file or directory.
        path: PathBuf,
        /// The reason: the owner or the mode.
        why: String,
    },
    /// No key is trusted.
    #[error("no key is trusted here yet, so nothing can be verified")]
    NoTrustedKeys {
        /// The directories that were searched.
        looked_in: Vec<PathBuf>,
    },
    /// More signatures are required than keys are trusted.
    #[error("{} must sign, and {}", format_count(*.wanted as usize, "different key"), trusted_here(*.have, .stream.as_deref(), .limited))]
    FewKeys {
        /// The number of keys that must sign.
        wanted: u32,
        /// The number of keys that are trusted for the stream, or for any one stream.
        have: usize,
        /// The stream, if it is known.
        stream: Option<String>,
        /// The names of keys that are trusted only for some streams, with these streams.
        limited: Vec<String>,
    },
    /// The state is damaged or has an unknown form.
    #[error("the state in {path} cannot be read: {why}")]
    State {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A newer version of the program wrote the state.
    #[error("the state in {path} is of format {format}, and this version (trivy-ferry {}) supports formats up to {known}", env!("CARGO_PKG_VERSION"))]
    NewerState {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The newest supported format.
        known: u32,
    },
    /// The state would be larger than the size limit.
    #[error("the state in {path} would be larger than {}", format_size(*most))]
    StateFull {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        most: u64,
    },
    /// Another run has held the lock of the state for 60 s.
    #[error("another run has held the state in {path} for 60 s")]
    StateHeld {
        /// The state directory.
        path: PathBuf,
    },
    /// No state directory can be written.
    #[error("no state directory can be written; tried {}", .tried.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoStateDir {
        /// The directories that were tried.
        tried: Vec<PathBuf>,
    },
}

/// The reason why a bundle with a valid signature is not accepted, or data in use is not
/// acceptable.
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
    /// The bundle is older than the last one accepted, and was never accepted before.
    #[error("{bundle} was created {}, before the last one accepted ({}{})", format_second(*.created), format_second(*.floor), ahead_of_clock(*.ahead_of))]
    Rollback {
        /// The bundle's file name.
        bundle: String,
        /// When it was created.
        created: Timestamp,
        /// The creation time of the last accepted bundle.
        floor: Timestamp,
        /// The time of this host's clock, if the last accepted bundle is ahead of it.
        ahead_of: Option<Timestamp>,
    },
    /// Two bundles of one stream have the same creation time but different content.
    #[error("{bundle} has the same creation time as the last accepted bundle ({}) but different content", format_second(*.created))]
    Equivocation {
        /// The bundle's file name.
        bundle: String,
        /// When both were created.
        created: Timestamp,
        /// The identity of the one accepted before.
        accepted: Digest,
    },
    /// The bundle was created more than 24 h after now.
    #[error("{bundle} was created {}, more than 24 h after this host's clock ({})", format_minute(*.created), format_minute(*.now))]
    Future {
        /// The bundle's file name.
        bundle: String,
        /// When it was created.
        created: Timestamp,
        /// The time of this host's clock.
        now: Timestamp,
    },
    /// This host's clock is behind the time of a bundle, heartbeat or line that this host has
    /// recorded.
    #[error("this host's clock says {}, but {what} is dated {}", format_minute(*.now), format_minute(*.evidence))]
    ClockBehind {
        /// The time of this host's clock.
        now: Timestamp,
        /// The item that is ahead of it.
        what: String,
        /// Its time.
        evidence: Timestamp,
        /// Whether this host's own clock set that time, so that no other clock can be wrong.
        own: bool,
    },
    /// A source serves data that is dated after this host's clock.
    #[error("this host's clock says {}, and {dataset} from {source_name} is dated {}", format_distinct(*.now, *.updated_at).0, format_distinct(*.now, *.updated_at).1)]
    AheadOfClock {
        /// The dataset.
        dataset: String,
        /// The source that it came from.
        source_name: String,
        /// Its date.
        updated_at: Timestamp,
        /// The time of this host's clock.
        now: Timestamp,
    },
    /// The stream's last bundle is dated so far ahead of this host's clock that importers would reject the next one.
    #[error("the stream's last export is dated {}, and this host's clock says {}", format_minute(*.last), format_minute(*.now))]
    LastExportAhead {
        /// When the last bundle was created.
        last: Timestamp,
        /// The time of this host's clock.
        now: Timestamp,
    },
    /// The heartbeat is not newer than the last one.
    #[error("{heartbeat} was created {}, and the last heartbeat received was created {}", format_second(*.created), format_second(*.last))]
    Late {
        /// The heartbeat's file name.
        heartbeat: String,
        /// When it was created.
        created: Timestamp,
        /// When the last one was created.
        last: Timestamp,
    },
    /// No heartbeat was received for too long.
    #[error("no heartbeat of stream {stream:?} was received {}", since(*.last))]
    Silent {
        /// The stream.
        stream: String,
        /// When the last one was created, if there was one.
        last: Option<Timestamp>,
    },
    /// A heartbeat announced a bundle that was not received.
    #[error("the bundle of stream {stream:?} of {} was not imported{}", format_minute(*.created), into(.not_in))]
    NotHere {
        /// The stream.
        stream: String,
        /// When it was created.
        created: Timestamp,
        /// The targets that have not accepted it, if others have.
        not_in: Vec<String>,
    },
    /// The bundle has passed the expiry date that its exporter set.
    #[error("{bundle} expired {}", format_minute(*.expires))]
    Expired {
        /// The bundle's file name.
        bundle: String,
        /// The expiry date.
        expires: Timestamp,
    },
    /// The installed data has expired, and no newer bundle was accepted.
    #[error("the installed data of stream {stream:?} expired {}", format_minute(*.expires))]
    InstalledExpired {
        /// The stream.
        stream: String,
        /// The expiry date.
        expires: Timestamp,
    },
    /// A source serves older data than this stream has signed before.
    #[error("{source_name} serves {dataset} of {}, but this stream has carried newer data, of {}", format_second(*.updated_at), format_second(*.floor))]
    OlderThanSigned {
        /// The dataset.
        dataset: String,
        /// The source that it came from.
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
        /// The source that it came from.
        source_name: String,
        /// The reason for the suspicion.
        why: String,
    },
    /// The target lacks a dataset, and the bundle's version is older than the one accepted before.
    #[error("{dataset} is missing here, and the version in the bundle ({}) is older than the last one accepted ({})", format_second(*.date), format_second(*.floor))]
    MissingAndOlder {
        /// The dataset.
        dataset: String,
        /// The date of the version in the bundle.
        date: Timestamp,
        /// The date of the version that was accepted before.
        floor: Timestamp,
    },
    /// The image's tag names a manifest that trivy-ferry did not push.
    #[error("{image} is not pushed: {reference} names {found}, which trivy-ferry did not set")]
    ForeignTag {
        /// The image's name.
        image: String,
        /// The tag.
        reference: String,
        /// The digest of the manifest that it names.
        found: Digest,
    },
    /// The image would be pushed into the repository of a dataset.
    #[error("{image} is not pushed: {reference} is in the repository of {dataset}")]
    DatasetPlace {
        /// The image's name.
        image: String,
        /// The reference it would get.
        reference: String,
        /// The dataset.
        dataset: String,
    },
    /// Two images would get the same reference.
    #[error("{image} is not {what}: {reference} is already used by {other}")]
    SamePlace {
        /// The image's name.
        image: String,
        /// The action that is not done: `pushed` or `served`.
        what: &'static str,
        /// The reference of both.
        reference: String,
        /// The other image's name.
        other: String,
    },
    /// A dataset that `--max-age` names is missing.
    #[error("{dataset} is missing, and --max-age requires it")]
    Absent {
        /// The dataset.
        dataset: String,
    },
    /// A dataset is older than `--max-age` allows.
    #[error("{dataset} of {} is {age} old, and --max-age allows {allowed}", format_minute(*.updated_at))]
    TooOld {
        /// The dataset.
        dataset: String,
        /// Its date.
        updated_at: Timestamp,
        /// Its age, for people.
        age: String,
        /// The allowed age.
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
