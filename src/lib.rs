//! trivy-ferry carries what Trivy downloads to hosts without internet: trivy-db, trivy-java-db,
//! trivy-checks and VEX repositories, in one signed and checksummed bundle.
//!
//! [`cli`] turns flags into options and reports into text. The modules below it do the work and know neither.
//! A module imports modules of lower layers only; `tests/architecture.rs` reads this table and checks that.
//!
//! | layer | modules | what they are for |
//! |---|---|---|
//! | 0 | `digest`, `hint`, `progress`, `util` | what the standard library lacks |
//! | 1 | `content_digest`, `oci` | what OCI and the bundle say of content |
//! | 2 | `dataset`, `remote`, `serve/http` | what Trivy uses; how servers are talked to; a server that knows no bundle |
//! | 3 | `source`, `trust`, `targets` | where bytes come from, whom to believe, where bytes go |
//! | 4 | `bundle`, `scanner` | the format that `bundle-format.md` specifies; what Trivy has to be told |
//! | 5 | `error` | the error of a whole run |
//! | 6 | `hook`, `intake`, `collect` | the command of the operator; bundles on media; datasets from their sources |
//! | 7 | `export`, `delivery` | writing a bundle; what `import`, `mirror` and `serve` share |
//! | 8 | `status` | what this host has |
//! | 9 | `import`, `mirror`, `serve` | taking datasets to targets |
//! | 10 | `watch`, `rehearse` | commands that run others |
//! | 11 | `cli` | the command line |
//! | 12 | `main` | the program |
//!
//! `export` is dataset + source → bundle; `import` is bundle + trust → target. `mirror` takes the
//! short way where one host reaches both sides: dataset + source → target.

pub mod bundle;
#[cfg(feature = "cli")]
pub mod cli;
pub(crate) mod collect;
pub mod content_digest;
pub mod dataset;
pub(crate) mod delivery;
pub mod digest;
pub mod error;
pub(crate) mod export;
pub mod hint;
pub(crate) mod hook;
pub(crate) mod import;
pub(crate) mod intake;
pub(crate) mod mirror;
pub mod oci;
pub mod progress;
pub(crate) mod rehearse;
pub mod remote;
pub mod scanner;
pub(crate) mod serve;
pub mod source;
pub(crate) mod status;
pub mod targets;
pub mod trust;
pub mod util;
pub(crate) mod watch;

pub use error::Error;
