//! The options of an export: what it collects, and how and where it writes.

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

/// What an export collects, and how and where it writes.
#[derive(Clone)]
#[non_exhaustive]
pub struct ExportOptions {
    /// A directory or a new file; further directories take the volumes for which those before have no room.
    pub output: Vec<PathBuf>,
    /// Splits a larger bundle into volumes of this size.
    pub volume_size: Option<ByteSize>,
    /// How much parity is written beside the bundle.
    pub parity: Option<Percent>,
    /// The stream that the bundle belongs to.
    pub stream: Stream,
    /// Where datasets come from.
    pub sources: SourceOptions,
    /// VEX repositories, as `NAME=URL` or `NAME=DIR`; if there are none, VEX Hub.
    pub vex: Vec<String>,
    /// Images that are carried as well.
    pub image: Vec<CarriedImage>,
    /// Of each image only what is for this platform.
    pub platform: Option<Platform>,
    /// What the bundle must hold to be written; if there is nothing, trivy-db. The rest is left out if its source
    /// fails.
    pub require: Vec<Requirement>,
    /// Datasets that are signed although much of them is gone since the last bundle, or cannot be used.
    pub accept: Vec<Name>,
    /// Refuses to sign data that is older.
    pub max_age: Option<MaxAge>,
    /// Importers reject the bundle this long after its creation.
    pub expires: Option<Age>,
    /// Dates the bundle by this host's clock although the stream's last one is dated later.
    pub allow_earlier_date: bool,
    /// How many registries of different origin must name the same manifest.
    pub quorum: u32,
    /// How long registries that lag behind are waited for.
    pub quorum_wait: Option<Age>,
    /// Writes nothing if the last bundle of the stream has all of it.
    pub if_changed: bool,
    /// Reads the bundle back from its medium before it gets its name.
    pub verify_after_write: bool,
    /// How many bundles of the stream the directory keeps; `None` for all.
    pub keep: Option<u32>,
    /// A directory into which a copy is put at the end.
    pub drop_into: Option<PathBuf>,
    /// How many of the newest bundles are put there.
    pub repeat: u32,
    /// Writes a heartbeat at each run.
    pub heartbeat: bool,
    /// A shell command that runs at the end.
    pub exec_after: Option<String>,
    /// How sources are reached.
    pub remote: RemoteOptions,
    /// How long sources are retried.
    pub limits: RetryLimits,
    /// Where this host keeps its state; `None` for the default.
    pub state_dir: Option<PathBuf>,
}

impl ExportOptions {
    /// Options that carry all datasets of a stream from where Trivy finds them into a directory.
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

    /// Whether the options make sense by themselves.
    ///
    /// # Errors
    /// If there is no place to write to, or a number that counts something is zero.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.output.is_empty() {
            return Err(Error::usage(
                "there is no place to write the bundle to",
                "Name a folder or a new file with --output DIR|FILE.",
            ));
        }
        let zero = [
            (self.quorum == 0, "--quorum"),
            (self.repeat == 0, "--repeat"),
            (self.keep == Some(0), "--keep"),
        ];
        if let Some((_, flag)) = zero.iter().find(|(is_zero, _)| *is_zero) {
            return Err(Error::usage(format!("{flag} is 0"), "Give at least 1."));
        }
        Ok(())
    }
}
