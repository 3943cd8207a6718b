//! The errors of bundles: they cannot be read, are damaged, or are not signed by a trusted key.

use std::path::{Path, PathBuf};

use crate::util::text::{Unverified, format_size};

/// A bundle that cannot be read, is damaged, or is not signed by a trusted key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file cannot be opened.
    #[error("{path} cannot be opened: {error}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A folder, a link, a FIFO or a device.
    #[error("{path} is {what}, not a regular file")]
    NotAFile {
        /// Which path.
        path: PathBuf,
        /// What stands there.
        what: &'static str,
    },
    /// The file does not begin as a bundle does.
    #[error("{path} is not a trivy-ferry bundle: {why}")]
    NotABundle {
        /// Which file.
        path: PathBuf,
        /// What was found instead.
        why: Unverified,
    },
    /// The file begins as a bundle does, and its manifest is damaged.
    #[error("{path} has a damaged manifest: {why}")]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// What was found instead.
        why: Unverified,
    },
    /// The file begins as a bundle does, and ends within its manifest.
    #[error("{path} has a damaged manifest: the file ends after {have} bytes")]
    CutOff {
        /// Which file.
        path: PathBuf,
        /// Its length in bytes.
        have: u64,
    },
    /// The medium failed while it was read.
    #[error("{path} could not be read: {error}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is shorter than its signed length.
    #[error("{path} ends after {have} bytes ({}); the signed manifest says {wanted}", format_size(*.have))]
    Short {
        /// Which file.
        path: PathBuf,
        /// Its length in bytes.
        have: u64,
        /// Its signed length in bytes.
        wanted: u64,
    },
    /// The file is longer than its signed length.
    #[error("{path} has {extra} bytes more than the signed manifest says")]
    Long {
        /// Which file.
        path: PathBuf,
        /// How many bytes are too many.
        extra: u64,
    },
    /// Volumes of it are missing, or are not what was signed.
    #[error("{} is {}: {}", path.display(), state(.missing), volumes(.all, .missing, .damaged))]
    Volumes {
        /// The head volume.
        path: PathBuf,
        /// How many volumes it has, the head included.
        all: usize,
        /// The names of those that are missing.
        missing: Vec<String>,
        /// Those that are damaged, each with what is wrong.
        damaged: Vec<String>,
        /// Whether one of these is shorter than was signed.
        short: bool,
    },
    /// Volumes are there, and not the head that says what they are.
    #[error("{} is missing, the head volume of {parts} files that are here", path.display())]
    NoHead {
        /// How it would be called.
        path: PathBuf,
        /// How many files of its bundle are there.
        parts: usize,
    },
    /// It was waited for in vain.
    #[error("{bundle} never became whole: {why}")]
    NeverComplete {
        /// Its name.
        bundle: String,
        /// What is missing.
        why: String,
    },
    /// Fewer trusted keys signed it than are required.
    #[error("{path} is signed by {}, and {wanted} are required{}", keys(*.have, .stream, .others), also(.others))]
    FewSigners {
        /// Which file.
        path: PathBuf,
        /// How many keys signed it that are trusted for its stream.
        have: usize,
        /// How many must.
        wanted: u32,
        /// Its stream.
        stream: String,
        /// The trusted keys that signed it and are trusted only for other streams, with these.
        others: Vec<String>,
    },
    /// The trusted keys that signed it are not trusted for its stream.
    #[error("{path} is of stream {stream:?}, for which the key that signed it is not trusted: {}", others.join(", "))]
    NotForStream {
        /// Which file.
        path: PathBuf,
        /// Its stream.
        stream: String,
        /// The trusted keys that signed it, with the streams for which they are trusted.
        others: Vec<String>,
    },
    /// More is lost than there is parity for.
    #[error("{} cannot be made whole: {why}", path.display())]
    BeyondParity {
        /// The bundle, or the first of its files that is there.
        path: PathBuf,
        /// How much is lost, and how much parity there is.
        why: String,
    },
    /// A parity file cannot be used.
    #[error("{} is no parity file that can be used: {why}", path.display())]
    Parity {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: Unverified,
    },
    /// A file that is named as a heartbeat and is none.
    #[error("{} is no heartbeat: {why}", path.display())]
    Heartbeat {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: Unverified,
    },
    /// None of the trusted keys signed it.
    #[error("{path} is not signed by a trusted key ({})", claimed_keys(.claimed))]
    Untrusted {
        /// Which file.
        path: PathBuf,
        /// The key identifiers that its envelope claims.
        claimed: Vec<Unverified>,
    },
    /// It names a trusted key, whose signature does not fit what is signed.
    #[error("{path} is signed in the name of a trusted key ({}), and the signature does not fit", claimed_keys(.claimed))]
    InvalidSignature {
        /// Which file.
        path: PathBuf,
        /// The trusted keys' identifiers.
        claimed: Vec<Unverified>,
    },
    /// It needs something that this version does not know.
    #[error("{path} needs {feature:?}, which this version of trivy-ferry does not know")]
    Unknown {
        /// Which file.
        path: PathBuf,
        /// What it needs.
        feature: Unverified,
    },
    /// The signed payload contradicts itself or the rules of the format.
    #[error("{path} has a manifest that breaks the format's rules: {why}")]
    Payload {
        /// Which file.
        path: PathBuf,
        /// Which rule, and how.
        why: Unverified,
    },
    /// A member is not what the signed manifest says.
    #[error("{path}: {member} {why}")]
    Member {
        /// Which file.
        path: PathBuf,
        /// Which member.
        member: Unverified,
        /// In what it differs.
        why: Unverified,
    },
}

fn keys(count: usize, stream: &str, others: &[String]) -> String {
    let s = if count == 1 { "" } else { "s" };
    match others {
        [] => format!("{count} trusted key{s}"),
        _ => format!("{count} key{s} trusted for stream {stream:?}"),
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
        [one] => Some(format!("of its {all} volumes {one} is missing")),
        many => Some(format!("of its {all} volumes {} are missing: {}", many.len(), some(many, ", "))),
    };
    let damaged = (!damaged.is_empty()).then(|| some(damaged, "; "));
    [missing, damaged].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// So many that nobody would read them are counted.
fn some(names: &[String], between: &str) -> String {
    const MAX: usize = 20;
    let more = names.len().saturating_sub(MAX);
    let named = names[..names.len() - more].join(between);
    if more == 0 { named } else { format!("{named}{between}and {more} more") }
}

fn claimed_keys(keyids: &[Unverified]) -> String {
    match keyids {
        [] => "it has no signature".into(),
        [one] => format!("it claims the key {}", short(one)),
        many => {
            format!("it claims the keys {}", many.iter().map(short).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A key identifier that anyone may have written, in the form in which fingerprints are shown.
fn short(keyid: &Unverified) -> String {
    let head: String = keyid.to_string().to_uppercase().chars().take(8).collect();
    match head.split_at_checked(4) {
        Some((first, second)) => format!("{first} {second} …"),
        None => head,
    }
}

impl BundleError {
    /// The file that it is about, where it is about one.
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

    /// Whether the path is at fault and not the bundle: exit code 2 and not 4.
    pub fn is_usage(&self) -> bool {
        matches!(self, BundleError::Open { .. })
    }

    /// Whether a trusted key signed what it is about: nobody else can bring it about.
    pub fn is_signed(&self) -> bool {
        matches!(
            self,
            BundleError::Short { .. }
                | BundleError::FewSigners { .. }
                | BundleError::NotForStream { .. }
                | BundleError::Long { .. }
                | BundleError::Volumes { .. }
                | BundleError::Unknown { .. }
                | BundleError::Payload { .. }
                | BundleError::Member { .. }
        )
    }

    /// Whether a file is shorter than it should be, as where its copy has come to a halt: it may still grow.
    pub fn is_short(&self) -> bool {
        matches!(
            self,
            BundleError::Short { .. } | BundleError::CutOff { .. } | BundleError::Volumes { short: true, .. }
        )
    }

    /// Whether something is missing that may still come: exit code 6 and not 4.
    pub fn is_incomplete(&self) -> bool {
        match self {
            BundleError::Volumes { missing, .. } => !missing.is_empty(),
            BundleError::NoHead { .. }
            | BundleError::BeyondParity { .. }
            | BundleError::NeverComplete { .. } => true,
            _ => false,
        }
    }
}
