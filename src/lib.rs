//! trivy-ferry carries what Trivy downloads to hosts without internet: trivy-db, trivy-java-db,
//! trivy-checks and VEX repositories, in one signed and checksummed bundle.
//!
//! Two pipelines meet at a file. Data flows one way, and so do the imports:
//!
//! - [`dataset`]: what Trivy uses and what valid content looks like. No I/O.
//! - [`remote`]: how servers are talked to.
//! - [`source`]: where bytes come from.
//! - [`bundle`]: the format, its writer and its reader. `bundle-format.md` specifies it.
//! - [`trust`]: keys, signatures, and whether a bundle is acceptable.
//! - [`target`]: where bytes go.
//! - [`commands`]: one file a verb; each joins the rooms above.
//!
//! `export` is dataset + source → bundle; `import` is bundle + trust → target. `mirror` takes the
//! short way where one host reaches both sides: dataset + source → target.

pub mod bundle;
pub mod cli;
pub mod commands;
pub mod content_digest;
pub mod dataset;
pub mod digest;
pub mod error;
mod held_lock;
pub mod json;
pub mod oci;
pub mod pipe;
pub mod progress;
pub mod redacted;
pub mod remote;
mod serve;
pub mod source;
pub mod target;
pub mod terminal;
pub mod text;
mod threads;
pub mod trust;
mod util;

pub use error::Error;
