//! `repair`: what is missing or damaged of a bundle is made again where it belongs.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bundle::names::under_way;
use crate::bundle::{UnverifiedBundle, VerifiedBundle};
use crate::cli::Outcome;
use crate::cli::args::Repair;
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::file_sets::Inputs;
use crate::intake::rebuild::{Mended, mend, shown};
use crate::intake::verify::check_bytes;
use crate::progress::Progress;
use crate::trust::keyring::Keyring;
use crate::util::files;
use crate::util::text::{line, size};

#[derive(Serialize)]
struct Report {
    bundles: Vec<Row>,
    errors: Vec<serde_json::Value>,
}

#[derive(Serialize)]
struct Row {
    /// The bundle, or its head.
    #[serde(serialize_with = "crate::util::text::path")]
    path: PathBuf,
    identity: Digest,
    length: u64,
    /// The files that were made again.
    #[serde(serialize_with = "crate::util::text::paths")]
    made: Vec<PathBuf>,
    /// How many shards were missing or damaged.
    shards: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.bundles {
            let path = line(&row.path.display().to_string());
            match row.made.as_slice() {
                [] => writeln!(f, "{path} is whole: {}, every byte as signed.", size(row.length))?,
                made => {
                    writeln!(f, "{path} is whole again: {}, every byte as signed.", size(row.length))?;
                    for made in made {
                        writeln!(f, "  made again from parity: {}", line(&made.display().to_string()))?;
                    }
                }
            }
            writeln!(f, "  payload {}", row.identity)?;
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Repair, progress: &dyn Progress) -> Result<Outcome, Error> {
    let keyring = Keyring::load(&args.keys.trust)?;
    let there = Inputs::read(&args.bundle)?;
    let keys: Vec<&str> = there.with_parity().collect();
    if keys.is_empty() {
        return Err(Error::usage(
            "there is no parity here, and nothing else to repair with",
            "Copy the files that are named .par.001 and so on; `trivy-ferry export --parity 10%` makes them.",
        ));
    }
    let mut report = Report { bundles: Vec::new(), errors: Vec::new() };
    let mut errors = Vec::new();
    for key in keys {
        match repair(&there, key, &keyring, progress) {
            Ok(row) => report.bundles.push(row),
            Err(error) => errors.push(error),
        }
    }
    if report.bundles.is_empty() && errors.len() == 1 {
        return Err(errors.remove(0));
    }
    report.errors = errors.iter().map(Error::to_json).collect();
    Ok(Outcome { errors, ..Outcome::done(&report) })
}

fn repair(there: &Inputs, key: &str, keyring: &Keyring, progress: &dyn Progress) -> Result<Row, Error> {
    let Some(mended) = mend(there, key, keyring, &|path| under_way(path))? else {
        // Parity is not to be believed about that either.
        let signed = UnverifiedBundle::open(&shown(there, key))?.signed(keyring)?;
        let bundle = there.complete(signed)?;
        check_bytes(&bundle, progress)?;
        return Ok(row(&bundle, bundle.path(), Vec::new(), 0));
    };
    let Mended { bundle, made, shards } = mended;
    let kept = check_bytes(&bundle, progress).map_err(Error::from).and_then(|()| keep(&made));
    if let Err(error) = kept {
        for (path, _) in &made {
            let _ = files::remove_file(path);
        }
        return Err(error);
    }
    let head = made.iter().find(|(path, _)| path == bundle.path()).map_or(bundle.path(), |(_, name)| name);
    Ok(row(&bundle, head, made.iter().map(|(_, name)| name.clone()).collect(), shards))
}

fn row(bundle: &VerifiedBundle, head: &Path, made: Vec<PathBuf>, shards: usize) -> Row {
    let length = bundle.payload().length;
    Row { path: head.into(), identity: bundle.identity(), length, made, shards }
}

/// Puts what was made in the place of what was lost.
fn keep(made: &[(PathBuf, PathBuf)]) -> Result<(), Error> {
    for (path, name) in made {
        let folder = name.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let rename = || {
            File::open(path)?.sync_all()?;
            files::rename(path, name)?;
            File::open(folder)?.sync_all()
        };
        rename().map_err(|error: std::io::Error| Error::Destination {
            path: name.clone(),
            what: format!("it was made again, and could not be put in its place: {error}"),
            next: "Check that the medium may be written, or copy all of it to a folder that may, and repair it there.".into(),
        })?;
    }
    Ok(())
}
