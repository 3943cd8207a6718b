//! `sign`: adds a signature to a bundle that carries one of a trusted key.
//!
//! For two who must agree, and for the days on which one key follows another. Nothing of the bundle
//! changes but the room that was left for signatures.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::bundle::UnverifiedBundle;
use crate::bundle::sign::SignError;
use crate::cli::args::Sign;
use crate::cli::{Outcome, prompt};
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::verify::check_bytes;
use crate::progress::Progress;
use crate::trust::keyring::Keyring;
use crate::util::text::line;

#[derive(Serialize)]
struct Report {
    #[serde(serialize_with = "crate::util::text::path")]
    path: PathBuf,
    identity: Digest,
    fingerprint: String,
    /// Whether the key had signed it before.
    unchanged: bool,
    errors: Vec<serde_json::Value>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.unchanged { "Signed before" } else { "Checked, signed, synced" };
        writeln!(f, "{done}: {}", line(&self.path.display().to_string()))?;
        writeln!(f, "Signed by {}", self.fingerprint)?;
        writeln!(f, "Payload {}, for your log.", self.identity)
    }
}

pub(crate) fn run(args: &Sign, progress: &dyn Progress) -> Result<Outcome, Error> {
    let keyring = Keyring::load(&args.keys.trust)?;
    let signer = prompt::signer(&args.signing)?;
    let signable = UnverifiedBundle::open(&args.bundle)?.signable(&keyring)?;
    // A signature vouches for every byte.
    check_bytes(signable.bundle(), progress)?;
    let identity = signable.bundle().identity();
    let added = signable.sign(&*signer).map_err(|error| match error {
        SignError::Bundle(error) => Error::from(error),
        SignError::Trust(error) => error.into(),
        SignError::Write(error) => Error::Destination {
            path: args.bundle.clone(),
            what: format!("the signature could not be added: {error}"),
            next: "Check that the medium is there and may be written; until then the bundle is as it was."
                .into(),
        },
    })?;
    Ok(Outcome::done(&Report {
        path: args.bundle.clone(),
        identity,
        fingerprint: signer.public().id().fingerprint(),
        unchanged: !added,
        errors: Vec::new(),
    }))
}
