//! The options of an export.
//!
//! This module validates each option on its own. It reads no file and contacts no host.

use std::path::PathBuf;

use crate::bundle::Stream;
use crate::bundle::parity::Percent;
use crate::collect::images::CarriedImage;
use crate::collect::options::SourceOptions;
use crate::collect::requirement::Requirement;
use crate::dataset::Name;
use crate::error::Error;
use crate::oci::Platform;
use crate::remote::{RemoteOptions, RetryLimits};
use crate::trust::max_age::MaxAge;
use crate::util::age::Age;
use crate::util::byte_size::ByteSize;

/// The options of an export: its content, its sources, its destinations and its rules.
#[derive(Clone)]
#[non_exhaustive]
pub struct ExportOptions {
    /// A directory or a new file. Further directories take the volumes that do not fit into the earlier ones.
    pub output: Vec<PathBuf>,
    /// Splits a larger bundle into volumes of this size.
    pub volume_size: Option<ByteSize>,
    /// The size of the parity files relative to the bundle.
    pub parity: Option<Percent>,
    /// The stream that the bundle belongs to.
    pub stream: Stream,
    /// The sources of datasets.
    pub sources: SourceOptions,
    /// VEX repositories, as `NAME=URL` or `NAME=DIR`; if empty, VEX Hub.
    pub vex: Vec<String>,
    /// Images to carry as well.
    pub image: Vec<CarriedImage>,
    /// Carries each image for this platform only.
    pub platform: Option<Platform>,
    /// Items that the bundle must hold to be written; if empty, trivy-db. Other items are omitted if their
    /// source fails.
    pub require: Vec<Requirement>,
    /// Datasets that are signed even if they are empty, if they lost 1/3 of their bytes or entries since the
    /// stream's last bundle, or if Trivy cannot read 1/3 of their documents.
    pub accept: Vec<Name>,
    /// Rejects data that is older than this.
    pub max_age: Option<MaxAge>,
    /// The age after which importers reject the bundle.
    pub expires: Option<Age>,
    /// Dates the bundle by this host's clock even if the stream's last bundle is dated later.
    pub allow_earlier_date: bool,
    /// The number of independent registries that must have the same data.
    pub quorum: u32,
    /// The time to wait for registries that lag behind.
    pub quorum_wait: Option<Age>,
    /// Writes nothing if the stream's last bundle already holds everything.
    pub if_changed: bool,
    /// Reads the bundle back from the medium before it gets its name.
    pub verify_after_write: bool,
    /// Puts the program of this process beside the bundle, with its digest and a signature.
    pub with_self: bool,
    /// Carries the databases as differences from earlier bundles of the stream; `None` carries them whole.
    pub delta: Option<DeltaOptions>,
    /// The number of the stream's bundles to keep in the directory; `None` for all.
    pub keep: Option<u32>,
    /// A directory that gets a copy of the bundle at the end.
    pub drop_into: Option<PathBuf>,
    /// The number of newest bundles to copy there.
    pub repeat: u32,
    /// Writes a heartbeat on every run.
    pub heartbeat: bool,
    /// A shell command that runs at the end.
    pub exec_after: Option<String>,
    /// Settings for connections to sources.
    pub remote: RemoteOptions,
    /// Limits for retries and time.
    pub limits: RetryLimits,
    /// The state directory of this host; `None` for the default.
    pub state_dir: Option<PathBuf>,
}

/// The options for deltas.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeltaOptions {
    /// When the databases are carried whole, although a difference is possible.
    pub full_every: FullEvery,
    /// The directory for the layers that deltas start from; `None` for one below the state directory.
    pub base_store: Option<PathBuf>,
}

/// When the next bundle carries the databases whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullEvery {
    /// If the last such bundle is this old.
    Age(Age),
    /// After this number of exports.
    Exports(u32),
}

impl std::str::FromStr for FullEvery {
    type Err = crate::util::age::InvalidAge;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(number) => Ok(FullEvery::Exports(number)),
            Err(_) => text.parse().map(FullEvery::Age),
        }
    }
}

impl DeltaOptions {
    /// Creates options with the default directory.
    #[must_use]
    pub fn new(full_every: FullEvery) -> Self {
        DeltaOptions { full_every, base_store: None }
    }
}

impl ExportOptions {
    /// Creates options that carry all datasets from Trivy's default sources to a directory.
    #[must_use]
    pub fn new(stream: Stream, output: PathBuf) -> Self {
        ExportOptions {
            output: vec![output],
            volume_size: None,
            parity: None,
            stream,
            sources: SourceOptions::default(),
            vex: Vec::new(),
            image: Vec::new(),
            platform: None,
            require: Vec::new(),
            accept: Vec::new(),
            max_age: None,
            expires: None,
            allow_earlier_date: false,
            quorum: 1,
            quorum_wait: None,
            if_changed: false,
            verify_after_write: false,
            with_self: false,
            delta: None,
            keep: None,
            drop_into: None,
            repeat: 1,
            heartbeat: false,
            exec_after: None,
            remote: RemoteOptions::default(),
            limits: RetryLimits::default(),
            state_dir: None,
        }
    }

    /// Validates each option on its own.
    ///
    /// # Errors
    /// If there is no output, or if a count is 0.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.output.is_empty() {
            return Err(Error::usage(
                "no output is given",
                "Give a directory or a new file with --output DIR|FILE.",
            ));
        }
        let zero = [
            (self.quorum == 0, "--quorum"),
            (self.repeat == 0, "--repeat"),
            (self.keep == Some(0), "--keep"),
        ];
        if self.drop_into.is_some() && self.keep.is_some_and(|keep| keep < self.repeat) {
            return Err(Error::usage(
                "--keep keeps fewer bundles than --repeat sends",
                "Give --keep at least the number of --repeat.",
            ));
        }
        if let Some((_, flag)) = zero.iter().find(|(is_zero, _)| *is_zero) {
            return Err(Error::usage(format!("{flag} is 0"), "Give at least 1."));
        }
        Ok(())
    }
}
