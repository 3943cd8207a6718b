//! `rehearse`: makes a complete trip on this host, with sample data and without network access.
//!
//! It runs the same operations as a real trip, in a temporary directory. It uses no state, configuration or cache
//! of the user.

pub(crate) mod sample;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Serialize;

use crate::bundle::{BundleError, Stream};
use crate::error::Error;
use crate::export::Exporter;
use crate::export::options::ExportOptions;
use crate::import::Importer;
use crate::import::options::ImportOptions;
use crate::import::report::ImportReport;
use crate::intake::verify::{VerifyOptions, VerifyReport, verify};
use crate::progress::{Progress, Silent};
use crate::scanner::installed::trivy_on_path;
use crate::serve::http::{EndsAt, Server, ServerOptions};
use crate::trust::key::SigningKey;
use crate::trust::key_files;
use crate::trust::signer::Signer;
use crate::util::dir::FileMode;
use crate::util::fs::{self, Durability};
use crate::util::text::escape;

/// The result of a rehearsal.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RehearsalReport {
    /// The number of datasets that were collected.
    pub collected: usize,
    /// The size of the bundle in bytes.
    pub bundle_size: u64,
    /// The reason why the damaged copy was rejected.
    pub refused: String,
    /// The number of members of the intact bundle that were verified.
    pub members: usize,
    /// The duration of the import in seconds.
    pub imported_seconds: f64,
    /// The result of the scan; `None` if there is no `trivy` on the `PATH`.
    pub scan: Option<Scan>,
    /// The directory in which everything is kept, if the user named one.
    pub kept: Option<PathBuf>,
}

/// The result of a scan of the sample project.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Scan {
    /// The version of Trivy.
    pub trivy_version: String,
    /// The vulnerabilities that it found.
    pub found: Vec<String>,
}

/// Makes a complete trip on this host with sample data. `keep` names a new directory in which everything is kept.
///
/// # Errors
/// If a step does not work on this host. The later steps are not run.
pub fn rehearse(keep: Option<&Path>, progress: &dyn Progress) -> Result<RehearsalReport, Error> {
    let temporary = fs::tempdir_in(&std::env::temp_dir(), "trivy-ferry-")
        .map_err(Error::unexpected("creating a temporary directory"))?;
    let place = match keep {
        Some(dir) => {
            fs::create_dir(dir, 0o755).map_err(|error| {
                Error::usage(
                    format!("{} cannot be created: {error}", dir.display()),
                    "Name a directory that does not exist yet.",
                )
            })?;
            dir.canonicalize().map_err(Error::unexpected("resolving the path of the new directory"))?
        }
        None => temporary.path().to_path_buf(),
    };
    let rehearsal = Rehearsal { place };
    progress.info("Rehearsing …");
    rehearsal.make_key()?;
    let (bundle, collected) = rehearsal.export()?;
    let refused = rehearsal.damage(&bundle)?;
    let members = rehearsal.verify(&bundle)?;
    let begun = Instant::now();
    let imported = rehearsal.import(&bundle)?;
    let imported_seconds = begun.elapsed().as_secs_f64();
    Ok(RehearsalReport {
        collected,
        bundle_size: std::fs::metadata(&bundle).map_or(0, |metadata| metadata.len()),
        refused,
        members,
        imported_seconds,
        scan: rehearsal.scan(&imported)?,
        kept: keep.map(|_| rehearsal.place.clone()),
    })
}

struct Rehearsal {
    place: PathBuf,
}

impl Rehearsal {
    fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    fn directory(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path(name);
        fs::create_dir_all(&path, 0o755)
            .map_err(Error::unexpected(format!("creating {}", path.display())))?;
        Ok(path)
    }

    fn make_key(&self) -> Result<(), Error> {
        let failed = Error::unexpected("generating a key");
        let key = SigningKey::generate().map_err(failed)?;
        Ok(key_files::write_pair(&self.path("ferry.key"), &self.path("ferry.pub"), &key, None)?)
    }

    /// Runs the connected side, with a registry on loopback in place of the internet.
    fn export(&self) -> Result<(PathBuf, usize), Error> {
        let listener = Server::bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = listener.local_addr().map_err(Error::unexpected("starting a registry on loopback"))?;
        let url = format!("http://{address}");
        let options =
            ServerOptions { tls: None, url, fixed: true, log: Box::new(drop), until: EndsAt::Dropped };
        let _server = Server::start(listener, sample::site(address), options)?;
        let repository = |index: usize| {
            let name = sample::REPOSITORIES.get(index).map_or("", |(name, _)| name);
            vec![format!("{address}/{name}")]
        };
        let bundle = self.directory("usb")?.join("rehearsal.tar");
        let mut options = ExportOptions::new(stream()?, bundle.clone());
        options.sources.db_repository = repository(0);
        options.sources.java_db_repository = repository(1);
        options.sources.checks_bundle_repository = repository(2);
        options.vex = vec![format!("default=http://{address}")];
        options.remote.plain_http = true;
        options.state_dir = Some(self.path("state-connected"));
        let open = || -> Result<Box<dyn Signer>, Error> {
            let failed = || Error::unexpected("reading the new key");
            let pem = fs::read(self.path("ferry.key")).map_err(failed())?;
            let pem = String::from_utf8_lossy(&pem);
            let bad = |_| std::io::Error::other("it is not a key");
            Ok(Box::new(SigningKey::from_pem(&pem, None).map_err(bad).map_err(failed())?))
        };
        let collected = Exporter::new(options).run_with(&open, &Silent)?.datasets.len();
        Ok((bundle, collected))
    }

    fn trusted(&self) -> Vec<PathBuf> {
        vec![self.path("ferry.pub")]
    }

    fn check(&self, bundle: &Path) -> Result<VerifyReport, Error> {
        let mut options = VerifyOptions::new(vec![bundle.into()]);
        options.trust = self.trusted();
        verify(&options, &Silent)
    }

    /// Writes a damaged copy with one flipped bit near its end, in the last layer, and returns the reason for its
    /// rejection.
    fn damage(&self, bundle: &Path) -> Result<String, Error> {
        let damaged = self.path("damaged.tar");
        let spoil = || -> std::io::Result<()> {
            let mut bytes = fs::read(bundle)?;
            let at = bytes.len().saturating_sub(2048);
            bytes[at] ^= 1;
            fs::write_new(&damaged, &bytes, FileMode::AtMost(0o644), Durability::Unsynced)
        };
        spoil().map_err(Error::unexpected("copying the bundle"))?;
        match self.check(&damaged) {
            Err(Error::Bundle(BundleError::Member { member, why, .. })) => {
                let member = member.to_string();
                let (name, digest) = member.split_at(member.len().saturating_sub(64));
                Ok(format!("{name}{}… {why}", &digest[..digest.len().min(4)]))
            }
            Err(error) => Err(error),
            Ok(_) => {
                Err(Error::unexpected("checking a damaged copy")(std::io::Error::other("it was accepted")))
            }
        }
    }

    fn verify(&self, bundle: &Path) -> Result<usize, Error> {
        let report = self.check(bundle)?;
        // The report does not count the envelope, which is a member too.
        Ok(report.bundles.first().map_or(0, |bundle| bundle.members) + 1)
    }

    /// Runs the air-gapped side.
    fn import(&self, bundle: &Path) -> Result<ImportReport, Error> {
        let mut options = ImportOptions::new(stream()?);
        options.trust = self.trusted();
        options.cache_dirs = vec![self.path("cache")];
        options.data_home = Some(self.directory("home")?);
        options.state_dir = Some(self.path("state-air-gapped"));
        Importer::new(options).run(&[bundle.into()], &Silent)
    }

    /// Scans the sample project with the `trivy` on the `PATH` and the settings from the import. A
    /// proxy that does not exist blocks all network access.
    fn scan(&self, imported: &ImportReport) -> Result<Option<Scan>, Error> {
        let Some(version) = trivy_on_path() else { return Ok(None) };
        let project = self.directory("project")?;
        let doing = || Error::unexpected("scanning with the `trivy` on the PATH");
        let lock = project.join("Gemfile.lock");
        fs::write_new(lock, sample::LOCK_FILE, FileMode::AtMost(0o644), Durability::Unsynced)
            .map_err(doing())?;
        let mut command = Command::new("trivy");
        command.args(["fs", "--scanners", "vuln", "--format", "json"]).arg(&project).stdin(Stdio::null());
        command.env("HOME", self.path("home")).env("XDG_DATA_HOME", self.path("home"));
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env(variable, "http://127.0.0.1:9");
        }
        let environment = imported.targets.iter().flat_map(|target| &target.environment);
        command.envs(environment.map(|(name, value)| (name, value)));
        let output = command.output().map_err(doing())?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            return Err(doing()(std::io::Error::other(escape(last))));
        }
        let json: serde_json::Value =
            serde_json::from_slice(&output.stdout).map_err(|e| doing()(e.into()))?;
        let results = json["Results"].as_array().into_iter().flatten();
        let vulnerabilities =
            results.flat_map(|result| result["Vulnerabilities"].as_array().into_iter().flatten());
        let found: Vec<String> =
            vulnerabilities.filter_map(|v| v["VulnerabilityID"].as_str()).map(escape).collect();
        if found != [sample::FOUND] {
            let what = format!("it found {found:?} instead of {}", sample::FOUND);
            return Err(doing()(std::io::Error::other(what)));
        }
        Ok(Some(Scan { trivy_version: escape(&version), found }))
    }
}

fn stream() -> Result<Stream, Error> {
    "rehearsal"
        .parse()
        .map_err(|_| Error::usage("\"rehearsal\" is not a valid stream", "This is a bug; report it."))
}
