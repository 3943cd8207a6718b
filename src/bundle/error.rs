//! The errors of bundles and of the files that belong to them: heartbeats and parity files.

use std::path::{Path, PathBuf};

use crate::trust::key::grouped;
use crate::util::text::{Unverified, format_count, format_size};

/// A bundle that cannot be read, is damaged, or is not signed by a trusted key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file cannot be opened.
    #[error("{path} cannot be opened: {error}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: std::io::Error,
    },
    /// The path is a directory, a link, a FIFO or a device.
    #[error("{path} is {what}, not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// The type of the file, with an article.
        what: &'static str,
    },
    /// The file does not begin like a bundle.
    #[error("{path} is not a trivy-ferry bundle: {why}")]
    NotABundle {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: Unverified,
    },
    /// The file begins like a bundle, but its manifest is damaged.
    #[error("{path} has a damaged manifest: {why}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: Unverified,
    },
    /// The file begins like a bundle, but ends within its manifest.
    #[error("{path} has a damaged manifest: the file ends after {have} bytes")]
    CutOff {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        have: u64,
    },
    /// The file could not be read.
    #[error("{path} could not be read: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: std::io::Error,
    },
    /// The file is shorter than its signed length.
    #[error("{path} ends after {have} bytes ({}); the signed manifest says {wanted}", format_size(*.have))]
    Short {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        have: u64,
        /// Its signed length in bytes.
        wanted: u64,
    },
    /// The file is longer than its signed length.
    #[error("{path} has {extra} bytes more than the signed manifest says")]
    Long {
        /// The file.
        path: PathBuf,
        /// The number of surplus bytes.
        extra: u64,
    },
    /// Volumes of the bundle are missing, or do not match the signed manifest.
    #[error("{} is {}: {}", path.display(), state(.missing), volumes(.all, .missing, .damaged))]
    Volumes {
        /// The head volume.
        path: PathBuf,
        /// The number of its volumes, the head included.
        all: usize,
        /// The names of the missing volumes.
        missing: Vec<String>,
        /// The damaged volumes, each with its fault.
        damaged: Vec<String>,
        /// Whether a damaged volume is shorter than its signed length.
        short: bool,
    },
    /// Volumes of a bundle were found without their head volume, which describes them.
    #[error("head volume {} is missing; other files of the same bundle that were found: {parts}", path.display())]
    NoHead {
        /// The expected path of the head volume.
        path: PathBuf,
        /// The number of files of its bundle that were found.
        parts: usize,
    },
    /// The bundle did not become complete in time.
    #[error("{bundle} was never completed: {why}")]
    NeverComplete {
        /// The name of the bundle.
        bundle: String,
        /// The reason.
        why: String,
    },
    /// Fewer trusted keys signed the bundle than are required.
    #[error("{path} is signed by {}, but {wanted} are required{}", keys(*.have, .stream, .others), also(.others))]
    FewSigners {
        /// The file.
        path: PathBuf,
        /// The number of its signers that are trusted for its stream.
        have: usize,
        /// The required number.
        wanted: u32,
        /// The stream of the bundle.
        stream: String,
        /// Its signers that are trusted only for other streams, with those streams.
        others: Vec<String>,
    },
    /// The trusted keys that signed the bundle are not trusted for its stream.
    #[error("{path} belongs to stream {stream:?}, but the key that signed it is not trusted for this stream: {}", others.join(", "))]
    NotForStream {
        /// The file.
        path: PathBuf,
        /// The stream of the bundle.
        stream: String,
        /// Its signers, with the streams for which they are trusted.
        others: Vec<String>,
    },
    /// More of the bundle is lost than its parity can rebuild, or the parity claims more bytes than the disk can hold.
    #[error("{} cannot be rebuilt: {why}", path.display())]
    BeyondParity {
        /// The bundle, or the first of its files that was found.
        path: PathBuf,
        /// The amount that is lost and the amount of parity, or the claim.
        why: String,
    },
    /// A dataset is carried as a difference from versions that the target does not hold.
    #[error("{}: {dataset} cannot be made, because {target} holds none of the versions that it is a difference from: {bases}", path.display())]
    NoBase {
        /// The bundle.
        path: PathBuf,
        /// The name of the dataset.
        dataset: String,
        /// The target.
        target: String,
        /// The dates of the versions.
        bases: String,
    },
    /// A dataset is carried as a difference, and the target needs its layer.
    #[error("{}: {dataset} is carried as a difference, which {target} cannot take", path.display())]
    NeedsLayer {
        /// The bundle.
        path: PathBuf,
        /// The name of the dataset.
        dataset: String,
        /// The kind of the target.
        target: String,
    },
    /// A parity file cannot be used.
    #[error("parity file {} cannot be used: {why}", path.display())]
    Parity {
        /// The file.
        path: PathBuf,
        /// Its fault.
        why: Unverified,
    },
    /// A file that is named like a heartbeat is not a valid one.
    #[error("{} is not a valid heartbeat: {why}", path.display())]
    Heartbeat {
        /// The file.
        path: PathBuf,
        /// Its fault.
        why: Unverified,
    },
    /// No trusted key signed the file.
    #[error("{path} is not signed by a trusted key ({})", claimed_keys(.claimed))]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// The key identifiers that its envelope claims.
        claimed: Vec<Unverified>,
    },
    /// The file names a trusted key, but the signature is invalid.
    #[error("{path} names a trusted key, but its signature is invalid ({})", claimed_keys(.claimed))]
    InvalidSignature {
        /// The file.
        path: PathBuf,
        /// The identifiers of the trusted keys.
        claimed: Vec<Unverified>,
    },
    /// The file needs a feature that this version does not support.
    #[error("{path} needs {feature:?}, which this version of trivy-ferry does not support")]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The feature.
        feature: Unverified,
    },
    /// The signed payload contradicts itself or the rules of the format.
    #[error("{path} has a manifest that breaks the rules of the bundle format: {why}")]
    Payload {
        /// The file.
        path: PathBuf,
        /// The rule that it breaks.
        why: Unverified,
    },
    /// A member does not match the signed manifest.
    #[error("{path}: {member} {why}")]
    Member {
        /// The file.
        path: PathBuf,
        /// The member.
        member: Unverified,
        /// The difference.
        why: Unverified,
    },
}

fn keys(count: usize, stream: &str, others: &[String]) -> String {
    match others {
        [] => format_count(count, "trusted key"),
        _ => format!("{} trusted for stream {stream:?}", format_count(count, "key")),
    }
}

fn also(others: &[String]) -> String {
    if others.is_empty() {
        return String::new();
    }
    format!("; it is also signed by {}", others.join(", "))
}

fn state(missing: &[String]) -> &'static str {
    if missing.is_empty() { "damaged" } else { "incomplete" }
}

fn volumes(all: &usize, missing: &[String], damaged: &[String]) -> String {
    let missing = match missing {
        [] => None,
        [one] => Some(format!("volume {one} is missing ({all} in total)")),
        many => Some(format!("{} of {all} volumes are missing: {}", many.len(), some(many, ", "))),
    };
    let damaged = (!damaged.is_empty()).then(|| some(damaged, "; "));
    [missing, damaged].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Lists the names. Beyond the first 20 it only counts them, so that the message stays readable.
fn some(names: &[String], between: &str) -> String {
    const MAX: usize = 20;
    let more = names.len().saturating_sub(MAX);
    let named = names[..names.len() - more].join(between);
    if more == 0 { named } else { format!("{named}{between}and {more} more") }
}

fn claimed_keys(keyids: &[Unverified]) -> String {
    match keyids {
        [] => "it has no signature".into(),
        [one] => format!("it claims the key {}", full(one)),
        many => {
            format!("it claims the keys {}", many.iter().map(short).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Formats an unverified key identifier like a fingerprint. An identifier of another form is shortened.
fn full(keyid: &Unverified) -> String {
    let text = keyid.to_string();
    match text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => grouped(&text),
        false => short(keyid),
    }
}

/// Formats the beginning of an unverified key identifier like a fingerprint.
fn short(keyid: &Unverified) -> String {
    let head: String = keyid.to_string().to_uppercase().chars().take(8).collect();
    match head.split_at_checked(4) {
        Some((first, second)) => format!("{first} {second} …"),
        None => head,
    }
}

impl BundleError {
    /// Returns the file that the error is about, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            BundleError::Open { path, .. }
            | BundleError::NotAFile { path, .. }
            | BundleError::NotABundle { path, .. }
            | BundleError::Manifest { path, .. }
            | BundleError::Read { path, .. }
            | BundleError::Short { path, .. }
            | BundleError::CutOff { path, .. }
            | BundleError::Long { path, .. }
            | BundleError::Volumes { path, .. }
            | BundleError::NoHead { path, .. }
            | BundleError::BeyondParity { path, .. }
            | BundleError::NoBase { path, .. }
            | BundleError::NeedsLayer { path, .. }
            | BundleError::FewSigners { path, .. }
            | BundleError::NotForStream { path, .. }
            | BundleError::Parity { path, .. }
            | BundleError::Heartbeat { path, .. }
            | BundleError::Untrusted { path, .. }
            | BundleError::InvalidSignature { path, .. }
            | BundleError::Unknown { path, .. }
            | BundleError::Payload { path, .. }
            | BundleError::Member { path, .. } => Some(path),
            BundleError::NeverComplete { .. } => None,
        }
    }

    /// Whether the path is at fault and not the bundle: exit code 2 instead of 4.
    pub fn is_usage(&self) -> bool {
        matches!(self, BundleError::Open { .. })
    }

    /// Whether the file is signed by a trusted key, so that only the owner of the key can cause the error.
    pub fn is_signed(&self) -> bool {
        matches!(
            self,
            BundleError::Short { .. }
                | BundleError::FewSigners { .. }
                | BundleError::NoBase { .. }
                | BundleError::NeedsLayer { .. }
                | BundleError::NotForStream { .. }
                | BundleError::Long { .. }
                | BundleError::Volumes { .. }
                | BundleError::Unknown { .. }
                | BundleError::Payload { .. }
                | BundleError::Member { .. }
        )
    }

    /// Whether a file is shorter than it should be. It may still grow, for example while it is copied.
    pub fn is_short(&self) -> bool {
        matches!(
            self,
            BundleError::Short { .. } | BundleError::CutOff { .. } | BundleError::Volumes { short: true, .. }
        )
    }

    /// Whether files are missing that may still arrive: exit code 6 instead of 4.
    pub fn is_incomplete(&self) -> bool {
        match self {
            BundleError::Volumes { missing, .. } => !missing.is_empty(),
            BundleError::NoHead { .. }
            | BundleError::BeyondParity { .. }
            | BundleError::NoBase { .. }
            | BundleError::NeedsLayer { .. }
            | BundleError::NeverComplete { .. } => true,
            _ => false,
        }
    }
}
