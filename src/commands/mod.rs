//! The verbs: each gathers what it needs, joins the rooms, and reports.

use std::fmt::Display;

use serde::Serialize;

use crate::cli::Verb;
use crate::error::Error;
use crate::progress::Progress;
use crate::trust::secret;

mod admission;
mod admitted;
mod after;
pub mod age;
mod best_source;
pub mod byte_size;
pub mod carried_image;
mod checked;
mod choice;
mod collect;
mod completions;
mod destination;
mod drift;
mod drop_folder;
mod export;
mod export_report;
mod fan_out;
mod fate;
mod heard;
mod heartbeats;
mod hot_folder;
pub mod image_pattern;
mod image_place;
mod import;
mod import_cache;
mod import_log;
mod import_registry;
mod import_report;
mod import_web;
mod inbox;
mod inputs;
mod inspect;
mod keygen;
mod man;
mod memory;
mod mend;
mod metrics;
mod mirror;
mod mirror_site;
mod namesakes;
mod offer;
mod partial;
mod parts;
mod passphrase;
pub mod place;
mod push;
mod push_images;
mod quorum;
mod registries;
pub mod registry_mirror;
mod rehearse;
mod repair;
mod resumed;
mod retention;
mod sample;
mod serve;
mod serve_site;
mod sign;
mod site;
mod spool;
mod staging;
mod status;
mod straight;
mod trust;
mod unload;
mod verify;
mod watch;
mod watch_notes;
mod watch_report;
pub mod web_url;
mod write_behind;

/// What a verb has to say at its end.
#[derive(Debug)]
pub struct Outcome {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: serde_json::Value,
    /// What people have to know beside the text: it goes to stderr. The JSON holds it already.
    pub warnings: Vec<String>,
    /// What went wrong beside it: one bad bundle of several, one target of two.
    pub errors: Vec<Error>,
    /// What goes on once this was said.
    pub then: Option<Then>,
}

type Work = dyn FnOnce(&dyn Progress) -> Result<(), Error>;

/// Work that lasts, such as a server's.
pub struct Then(Box<Work>);

impl Then {
    /// Does it, until it ends.
    ///
    /// # Errors
    /// Whatever ends it too early.
    pub fn go_on(self, progress: &dyn Progress) -> Result<(), Error> {
        (self.0)(progress)
    }
}

impl std::fmt::Debug for Then {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Then")
    }
}

impl Outcome {
    /// The outcome of a verb that did what it was asked to.
    fn done(report: &(impl Display + Serialize)) -> Self {
        // JSON knows no names that are not UTF-8; it says so rather than nothing.
        let json = serde_json::to_value(report).unwrap_or_else(|error| {
            serde_json::json!({ "errors": [{
                "kind": "unexpected",
                "exit_code": 1,
                "what": format!("the report cannot be written as JSON: {error}"),
                "next": "Use --format text, or names that are UTF-8.",
            }] })
        });
        Outcome { text: report.to_string(), json, warnings: Vec::new(), errors: Vec::new(), then: None }
    }

    /// The exit code. Of several errors the gravest decides: a failed target before damage, damage
    /// before refusals.
    pub fn exit_code(&self) -> u8 {
        gravest(&self.errors)
    }
}

/// The exit code of some errors.
fn gravest(errors: &[Error]) -> u8 {
    let codes: Vec<u8> = errors.iter().map(Error::exit_code).collect();
    [7, 4, 6, 5, 3, 2, 1].into_iter().find(|code| codes.contains(code)).unwrap_or(0)
}

/// Runs a verb.
///
/// # Errors
/// Whatever kept it from doing what it was asked to.
pub fn run(verb: &Verb, progress: &dyn Progress) -> Result<Outcome, Error> {
    if holds_key(verb) {
        secret::keep_out_of_dumps().map_err(Error::unexpected("keeping keys out of core dumps"))?;
    }
    match verb {
        Verb::Keygen(args) => keygen::run(args),
        Verb::Trust(args) => trust::run(args),
        Verb::Export(args) => export::run(args, progress),
        Verb::Sign(args) => sign::run(args, progress),
        Verb::Verify(args) => verify::run(args, progress),
        Verb::Inspect(args) => inspect::run(args, progress),
        Verb::Repair(args) => repair::run(args, progress),
        Verb::Import(args) => import::run(args, progress),
        Verb::Watch(args) => watch::run(args, progress),
        Verb::Status(args) => status::run(args, progress),
        Verb::Serve(args) => serve::run(args, progress),
        Verb::Mirror(args) => mirror::run(args, progress),
        Verb::Rehearse(args) => rehearse::run(args, progress),
        Verb::Completions(args) => Ok(completions::run(args)),
        Verb::Man(args) => man::run(args),
    }
}

/// Whether a command holds a private key or its passphrase.
fn holds_key(verb: &Verb) -> bool {
    match verb {
        Verb::Keygen(_) | Verb::Export(_) | Verb::Sign(_) => true,
        Verb::Serve(args) => args.tls_key.is_some(),
        Verb::Import(args) => args.import.registry.connection.client_cert.is_some(),
        Verb::Watch(args) => args.import.registry.connection.client_cert.is_some(),
        Verb::Mirror(args) => args.registry.connection.client_cert.is_some(),
        Verb::Status(args) => args.connection.client_cert.is_some(),
        // The key of a rehearsal is used for nothing else.
        Verb::Rehearse(_)
        | Verb::Trust(_)
        | Verb::Verify(_)
        | Verb::Inspect(_)
        | Verb::Repair(_)
        | Verb::Completions(_)
        | Verb::Man(_) => false,
    }
}
