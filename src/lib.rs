//! trivy-ferry carries Trivy's databases to hosts without internet: trivy-db, trivy-java-db, trivy-checks
//! and VEX repositories, in one signed and checksummed bundle.
//!
//! The library does everything that the program does, without a command line and without a terminal. Each operation
//! takes options, reports its progress to a [`Progress`], and returns a report or an [`Error`]. Reports are plain
//! data that can be written as JSON. An error has a [`Category`] for decisions of the caller, and a [`Hint`] that says
//! what to do next.
//!
//! ```
//! use trivy_ferry::{DeliveryStatus, ExportOptions, Exporter, ImportOptions, Importer, Silent, SigningKey};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # let path = |name: &str| temporary.path().join(name);
//! # let vex = path("vex");
//! # std::fs::create_dir_all(&vex)?;
//! # std::fs::write(
//! #     vex.join("vex-repository.json"),
//! #     r#"{ "name": "corp", "description": "", "versions": [{ "spec_version": "0.1", "update_interval": "24h",
//! #         "locations": [{ "url": "https://vex.example/main.zip" }] }] }"#,
//! # )?;
//! # std::fs::write(vex.join("index.json"), r#"{ "updated_at": "2026-01-01T00:00:00Z", "packages": [] }"#)?;
//! // On the connected host: collect, and write one signed bundle.
//! let key = SigningKey::generate()?;
//! let mut options = ExportOptions::new("weekly".parse()?, path("weekly.tar"));
//! options.vex = vec![format!("corp={}", vex.display())];
//! options.sources.selection.only = vec!["vex-corp".parse()?];
//! options.state_dir = Some(path("state-of-exports"));
//! let exported = Exporter::new(options).run(&key, &Silent)?;
//! let bundle = exported.bundle.ok_or("nothing was written")?;
//!
//! // On the host without internet, which trusts the public key: verify it, and fill Trivy's cache.
//! std::fs::write(path("exporter.pub"), key.public().to_pem())?;
//! let mut options = ImportOptions::new("weekly".parse()?);
//! options.trust = vec![path("exporter.pub")];
//! options.cache_dirs = vec![path("cache")];
//! options.data_home = Some(path("home"));
//! options.state_dir = Some(path("state-of-imports"));
//! let imported = Importer::new(options).run(&[bundle.path], &Silent)?;
//! assert_eq!(imported.gravest(), None, "no target failed");
//! assert_eq!(imported.targets[0].datasets[0].status, DeliveryStatus::Installed);
//! # Ok(())
//! # }
//! ```
//!
//! # The layers
//!
//! [`cli`] turns flags into options and reports into text. The modules below it do the work. They
//! depend neither on flags nor on a terminal. A module imports modules of lower layers only;
//! `tests/architecture.rs` reads this table and checks that.
//!
//! | layer | modules | purpose |
//! |---|---|---|
//! | 0 | `digest`, `hint`, `progress`, `util` | general helpers |
//! | 1 | `content_digest`, `oci` | digests and manifests |
//! | 2 | `dataset`, `remote`, `serve/http` | Trivy's datasets; the HTTP client; an HTTP server that does not depend on bundles |
//! | 3 | `source`, `trust`, `targets`, `delta` | sources of data; keys, acceptance and state; targets of data; differences between files |
//! | 4 | `bundle`, `scanner` | the format that `bundle-format.md` specifies; scanner settings |
//! | 5 | `error` | the error of a command |
//! | 6 | `hook`, `intake`, `collect` | the operator's command; bundles on media; datasets from their sources |
//! | 7 | `export`, `delivery` | writing a bundle; the common parts of `import`, `mirror` and `serve` |
//! | 8 | `status` | the data and the ledger of this host |
//! | 9 | `import`, `mirror`, `serve` | delivering datasets to targets |
//! | 10 | `watch`, `rehearse` | commands that run others |
//! | 11 | `cli` | the command line |
//! | 12 | `main` | the program |
//!
//! Terms in the code: a *stream* is the sequence of bundles of one exporter. A *head volume* holds the signed
//! manifest, and a *parity file* rebuilds volumes. The *ledger* records the earlier imports of a
//! host, by target, and a *floor* in it is the date that data must not be older than. An
//! *admission* accepts a bundle, and a *decision* accepts or rejects a dataset of it. A *slot* is
//! the place of a dataset in Trivy's cache, and a *switch* puts data there.
//!
//! `export` is dataset + source → bundle; `import` is bundle + trust → target. `mirror` is dataset + source →
//! target, for a host that reaches both sides.

// Hidden modules are not part of the API: the program and the project's own tests use them.
#[doc(hidden)]
pub mod bundle;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub(crate) mod collect;
#[doc(hidden)]
pub mod content_digest;
#[doc(hidden)]
pub mod dataset;
pub(crate) mod delivery;
#[doc(hidden)]
pub mod delta;
#[doc(hidden)]
pub mod digest;
pub(crate) mod error;
pub(crate) mod export;
#[doc(hidden)]
pub mod hint;
pub(crate) mod hook;
pub(crate) mod import;
pub(crate) mod intake;
pub(crate) mod mirror;
#[doc(hidden)]
pub mod oci;
#[doc(hidden)]
pub mod progress;
pub(crate) mod rehearse;
#[doc(hidden)]
pub mod remote;
#[doc(hidden)]
pub mod scanner;
pub(crate) mod serve;
#[doc(hidden)]
pub mod source;
pub(crate) mod status;
#[doc(hidden)]
pub mod targets;
#[doc(hidden)]
pub mod trust;
#[doc(hidden)]
pub mod util;
pub(crate) mod watch;

// Operations, with their options and reports.
pub use export::Exporter;
pub use export::options::ExportOptions;
pub use export::report::{
    ExportReport, ExportResult, ExportedDataset, ExportedImage, WrittenBundle, WrittenParity,
};
pub use export::run::OpenSigner;
pub use import::Importer;
pub use import::options::ImportOptions;
pub use import::report::ImportReport;
pub use intake::inspect::{InspectReport, InspectedBundle, inspect};
pub use intake::rebuild::Rebuilt;
pub use intake::repair::{RepairReport, RepairedBundle, repair};
pub use intake::sign::{SignReport, sign};
pub use intake::verify::{ValidBundle, VerifyOptions, VerifyReport, verify};
pub use mirror::options::MirrorOptions;
pub use mirror::{Mirror, MirrorReport};
pub use rehearse::{RehearsalReport, Scan, rehearse};
pub use serve::options::ServeOptions;
pub use serve::{BundleServer, RunningServer};
pub use status::floors::reset as reset_floors;
pub use status::forget::{ForgetOptions, ForgetReport, ForgottenTarget, forget};
pub use status::options::StatusOptions;
pub use status::report::{
    AcceptedBundle, ExportStatus, HeartbeatStatus, ItemStatus, RecentRejection, StatusReport, TargetStatus,
};
pub use status::status;
pub use watch::Watcher;
pub use watch::options::WatchOptions;
pub use watch::report::{BundleOutcome, WaitingBundle, WatchReport};

// Errors and progress.
pub use bundle::BundleError;
pub use error::{Category, Error};
pub use hint::Hint;
pub use progress::{Progress, Silent, Step};
pub use remote::{RemoteError, Service, Unreachable};
pub use serve::http::ServeError;
pub use source::SourceError;
pub use targets::TargetError;
pub use trust::{Rejection, TrustError};

// Keys.
pub use trust::key::{BadKey, KeyId, PublicKey, SigningKey};
pub use trust::key_files::write_pair as write_key_pair;
pub use trust::keyring::{
    Keyring, TrustedKey, add as trust_key, directories as trusted_directories, remove as distrust_key,
};
pub use trust::message::Message;
pub use trust::signer::{ExternalSigner, Signer};

// Types in options.
pub use bundle::Stream;
pub use bundle::parity::Percent;
pub use collect::images::{CarriedImage, InvalidImage};
pub use collect::options::SourceOptions;
pub use collect::registry_mirror::RegistryMirror;
pub use collect::requirement::Requirement;
pub use dataset::catalogue::TrivyVersion;
pub use dataset::{Name, Selection};
pub use delivery::image_pattern::{ChosenPlace, ImagePattern, InvalidPattern, WantedImage};
pub use delivery::options::{AcceptanceOptions, RegistryOptions, SettingsOptions};
pub use delivery::registry_place::{InvalidPlace, RegistryPlace};
pub use delivery::web_url::{InvalidWebUrl, WebUrl};
pub use oci::Platform;
pub use remote::{RemoteOptions, RetryLimits};
pub use targets::{Layout, Owner};
pub use trust::max_age::MaxAge;
pub use util::age::Age;
pub use util::byte_size::ByteSize;

// Types in reports.
pub use bundle::Payload;
pub use bundle::volumes::Volume;
pub use collect::artifact::SkippedSource;
pub use dataset::MissingItem;
pub use delivery::admitted::AdmittedBundle;
pub use delivery::report::{DatasetResult, DeliveryStatus, Fetched, ImageResult, TargetReport};
pub use delivery::target_id::TargetId;
pub use digest::Digest;
pub use import::heartbeat::HeartbeatResult;
pub use intake::signer::SignerInfo;
pub use intake::skipped::SkippedFile;
pub use status::drift::DriftState;
pub use trust::state::{Failure, Origin, ReceivedHeartbeat};
pub use util::redacted::Redacted;
pub use util::text::Unverified;
pub use watch::reason::Disposition;
