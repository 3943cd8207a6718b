//! `rehearse`: the whole trip on this machine, with sample data and no network.
//!
//! Uses the very commands that a real trip uses, in a temporary folder. Touches no state,
//! configuration or cache of the user.

pub(crate) mod sample;

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Serialize;

use crate::bundle::BundleError;
use crate::cli::Outcome;
use crate::cli::args::{
    Acceptance, Export, Import, Keygen, Layout, Overrides, Persistence, RegistryFlags, Rehearse, Selection,
    Signing, Sources, TrustedKeys, WriteSettings,
};
use crate::cli::run::keygen;
use crate::error::Error;
use crate::intake::verify::{VerifyOptions, VerifyReport, verify};
use crate::progress::{Progress, Silent};
use crate::scanner::installed::trivy_on_path;
use crate::serve::http::{Options, Server, Until};
use crate::util::text::{safe, size};
use crate::{export, import};

#[derive(Serialize)]
struct Report {
    collected: usize,
    bundle_size: u64,
    refused: String,
    members: usize,
    imported_seconds: f64,
    /// What the scan found; `None` where there is no `trivy` on the PATH.
    scan: Option<Scan>,
    kept: Option<PathBuf>,
}

#[derive(Serialize)]
struct Scan {
    trivy_version: String,
    found: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Rehearsing the whole trip on this machine, with sample data and no network.")?;
        writeln!(
            f,
            "  1. connected side    {} datasets collected from a registry started for this:",
            self.collected
        )?;
        writeln!(
            f,
            "                       one bundle, {}, signed by a throw-away key",
            size(self.bundle_size)
        )?;
        writeln!(f, "  2. on the way        one bit flipped: refused ({})", self.refused)?;
        writeln!(
            f,
            "  3. air-gapped side   signature good, {} members good, imported in {:.2} s",
            self.members, self.imported_seconds
        )?;
        match &self.scan {
            Some(scan) => {
                writeln!(
                    f,
                    "  4. trivy {:<11} found {} in Gemfile.lock, offline;",
                    scan.trivy_version,
                    scan.found.join(", ")
                )?;
                writeln!(
                    f,
                    "                       {} was left out by the VEX document that came along",
                    sample::SETTLED
                )?;
            }
            None => {
                writeln!(f, "  4. scan              left out: there is no `trivy` on the PATH")?;
                writeln!(
                    f,
                    "                       (install it from https://trivy.dev to see it find something)"
                )?;
            }
        }
        if let Some(kept) = &self.kept {
            writeln!(f, "Everything is kept in {}.", kept.display())?;
        }
        writeln!(f, "It works here. For real, on the connected side:")?;
        writeln!(f, "  trivy-ferry keygen --out ferry")?;
        writeln!(f, "  trivy-ferry export --key ferry.key --output /media/usb")?;
        writeln!(f, "and on the air-gapped side:")?;
        writeln!(f, "  trivy-ferry trust add ferry.pub        (compare the fingerprint)")?;
        writeln!(f, "  trivy-ferry import /media/usb")
    }
}

pub(crate) fn run(args: &Rehearse, progress: &dyn Progress) -> Result<Outcome, Error> {
    let temporary = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .map_err(Error::unexpected("making a temporary folder"))?;
    let place = match &args.keep {
        Some(dir) => {
            DirBuilder::new().mode(0o755).create(dir).map_err(|error| {
                Error::usage(
                    format!("{} cannot be made: {error}", dir.display()),
                    "Name a folder that does not exist yet.",
                )
            })?;
            dir.canonicalize().map_err(Error::unexpected("looking at the new folder"))?
        }
        None => temporary.path().to_path_buf(),
    };
    let rehearsal = Rehearsal { place };
    progress.note("Rehearsing …");
    rehearsal.make_key()?;
    let (bundle, collected) = rehearsal.export()?;
    let refused = rehearsal.damage(&bundle)?;
    let members = rehearsal.verify(&bundle)?;
    let begun = Instant::now();
    let imported = rehearsal.import(&bundle)?;
    let imported_seconds = begun.elapsed().as_secs_f64();
    let report = Report {
        collected,
        bundle_size: fs::metadata(&bundle).map_or(0, |metadata| metadata.len()),
        refused,
        members,
        imported_seconds,
        scan: rehearsal.scan(&imported)?,
        kept: args.keep.as_ref().map(|_| rehearsal.place.clone()),
    };
    Ok(Outcome::done(&report))
}

struct Rehearsal {
    place: PathBuf,
}

impl Rehearsal {
    fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    fn folder(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path(name);
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&path);
        made.map_err(Error::unexpected(format!("making {}", path.display())))?;
        Ok(path)
    }

    fn make_key(&self) -> Result<(), Error> {
        keygen::run(&Keygen { out: self.path("ferry"), encrypt: false, passphrase_file: None }).map(|_| ())
    }

    /// The connected side: a registry on loopback stands for the internet.
    fn export(&self) -> Result<(PathBuf, usize), Error> {
        let listener = Server::bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = listener.local_addr().map_err(Error::unexpected("starting a registry on loopback"))?;
        let url = format!("http://{address}");
        let options = Options { tls: None, url, fixed: true, log: Box::new(drop), until: Until::Dropped };
        let _server = Server::start(listener, sample::site(address), options)?;
        let repository = |index: usize| {
            let name = sample::REPOSITORIES.get(index).map_or("", |(name, _)| name);
            vec![format!("{address}/{name}")]
        };
        let bundle = self.folder("usb")?.join("rehearsal.tar");
        let outcome = export::run(
            &Export {
                heartbeat: false,
                signing: Signing { key: Some(self.path("ferry.key")), ..Signing::default() },
                output: vec![bundle.clone()],
                volume_size: None,
                parity: None,
                stream: "rehearsal".parse().map_err(|_| Error::usage("no stream", ""))?,
                sources: Sources {
                    db_repository: repository(0),
                    java_db_repository: repository(1),
                    checks_bundle_repository: repository(2),
                    ..Sources::default()
                },
                vex: vec![format!("default=http://{address}")],
                image: Vec::new(),
                also: None,
                platform: None,
                max_age: None,
                expires: None,
                quorum: 1,
                quorum_wait: None,
                if_changed: false,
                verify_after_write: false,
                keep: None,
                drop_into: None,
                repeat: 1,
                exec_after: None,
                dry_run: false,
                insecure: false,
                plain_http: true,
                cacert: None,
                client_cert: None,
                persistence: Persistence::default(),
                state_dir: Some(self.path("state-connected")),
            },
            &Silent,
        )?;
        let collected = outcome.json["datasets"].as_array().map_or(0, Vec::len);
        Ok((bundle, collected))
    }

    fn keys(&self) -> TrustedKeys {
        TrustedKeys { trust: vec![self.path("ferry.pub")] }
    }

    fn check(&self, bundle: &Path) -> Result<VerifyReport, Error> {
        let mut options = VerifyOptions::new(vec![bundle.into()]);
        options.trust = self.keys().trust;
        verify(&options, &Silent)
    }

    /// On the way: a copy with one bit flipped near its end, inside the last layer.
    fn damage(&self, bundle: &Path) -> Result<String, Error> {
        let damaged = self.path("damaged.tar");
        let spoil = || -> std::io::Result<()> {
            let mut bytes = fs::read(bundle)?;
            let at = bytes.len().saturating_sub(2048);
            bytes[at] ^= 1;
            fs::write(&damaged, bytes)
        };
        spoil().map_err(Error::unexpected("copying the bundle"))?;
        match self.check(&damaged) {
            Err(Error::Bundle(BundleError::Member { member, why, .. })) => {
                let member = member.to_string();
                let (name, digest) = member.split_at(member.len().saturating_sub(64));
                Ok(format!("{name}{}… {why}", &digest[..digest.len().min(4)]))
            }
            Err(error) => Err(error),
            Ok(_) => Err(Error::unexpected("checking a damaged copy")(std::io::Error::other("it passed"))),
        }
    }

    fn verify(&self, bundle: &Path) -> Result<usize, Error> {
        let report = self.check(bundle)?;
        // The envelope is one, too.
        Ok(report.bundles.first().map_or(0, |bundle| bundle.members) + 1)
    }

    /// The air-gapped side.
    fn import(&self, bundle: &Path) -> Result<Outcome, Error> {
        import::run_on(
            &Import {
                keys: self.keys(),
                cache_dir: Some(self.path("cache")),
                layout: Layout::Trivy,
                owner: None,
                keep_previous: 1,
                registry: RegistryFlags::default(),
                web_root: None,
                web_url: None,
                image: Vec::new(),
                also: None,
                replace_image_tags: false,
                selection: Selection::default(),
                acceptance: Acceptance {
                    stream: "rehearsal".parse().map_err(|_| Error::usage("no stream", ""))?,
                    max_age: None,
                    overrides: Overrides::default(),
                },
                trivy_version: None,
                settings: WriteSettings::default(),
                clear_scan_cache: false,
                exec_after: None,
                metrics: None,
                data_home: Some(self.folder("home")?),
                state_dir: Some(self.path("state-air-gapped")),
            },
            &[bundle.into()],
            false,
            &Silent,
        )
    }

    /// Scans the sample project with the `trivy` on the PATH, with the settings that the import
    /// gave and every way out closed.
    fn scan(&self, imported: &Outcome) -> Result<Option<Scan>, Error> {
        let Some(version) = trivy_on_path() else { return Ok(None) };
        let project = self.folder("project")?;
        let doing = || Error::unexpected("scanning with the trivy on the PATH");
        fs::write(project.join("Gemfile.lock"), sample::LOCK_FILE).map_err(doing())?;
        let mut command = Command::new("trivy");
        command.args(["fs", "--scanners", "vuln", "--format", "json"]).arg(&project).stdin(Stdio::null());
        command.env("HOME", self.path("home")).env("XDG_DATA_HOME", self.path("home"));
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env(variable, "http://127.0.0.1:9");
        }
        for pair in imported.json["targets"][0]["environment"].as_array().into_iter().flatten() {
            if let (Some(name), Some(value)) = (pair[0].as_str(), pair[1].as_str()) {
                command.env(name, value);
            }
        }
        let output = command.output().map_err(doing())?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            return Err(doing()(std::io::Error::other(safe(last))));
        }
        let json: serde_json::Value =
            serde_json::from_slice(&output.stdout).map_err(|e| doing()(e.into()))?;
        let results = json["Results"].as_array().into_iter().flatten();
        let vulnerabilities =
            results.flat_map(|result| result["Vulnerabilities"].as_array().into_iter().flatten());
        let found: Vec<String> =
            vulnerabilities.filter_map(|v| v["VulnerabilityID"].as_str()).map(safe).collect();
        if found != [sample::FOUND] {
            let what = format!("it found {found:?} instead of {}", sample::FOUND);
            return Err(doing()(std::io::Error::other(what)));
        }
        Ok(Some(Scan { trivy_version: safe(&version), found }))
    }
}
