//! The complete trip through the public API alone: a key, an export, its import into two targets of
//! which one fails, and bundles that are rejected. Everything is read from typed reports and errors.
//!
//! This test uses only items that the root of `trivy_ferry` exports.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::slice::from_ref;

use test_kit::artifact::{Artifact, sample};
use trivy_ferry::{
    BundleServer, Category, DeliveryStatus, Error, ExportOptions, Exporter, Hint, ImportOptions, Importer,
    Keyring, Message, PublicKey, ServeOptions, Signer, SigningKey, Silent, StatusOptions, TargetId,
    TrustError, VerifyOptions, inspect, repair, sign, status, verify, write_key_pair,
};

/// A connected host and an air-gapped one, in a temporary directory.
struct Trip {
    dir: tempfile::TempDir,
    key: SigningKey,
}

impl Trip {
    fn new() -> Trip {
        let trip = Trip { dir: tempfile::tempdir().unwrap(), key: SigningKey::generate().unwrap() };
        write_key_pair(&trip.path("ferry.key"), &trip.path("ferry.pub"), &trip.key, Some("a passphrase"))
            .unwrap();
        for name in ["usb", "home", "upstream"] {
            fs::create_dir(trip.path(name)).unwrap();
        }
        trip
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Options that export trivy-db and the sample VEX repository.
    fn export(&self, db: &Artifact) -> ExportOptions {
        let upstream = self.path("upstream").display().to_string();
        db.lay_out(&upstream);
        let mut options = ExportOptions::new("weekly".parse().unwrap(), self.path("usb"));
        options.sources.db_repository = vec![format!("oci-layout:{upstream}/trivy-db:{}", db.tag)];
        options.sources.selection.only = vec!["trivy-db".parse().unwrap(), "vex-hub".parse().unwrap()];
        options.vex = vec![format!("default={}", sample("vex-hub"))];
        options.state_dir = Some(self.path("state-connected"));
        options
    }

    /// Exports, and returns the file of the bundle.
    fn exported(&self, db: &Artifact) -> PathBuf {
        let report = Exporter::new(self.export(db)).run(&self.key, &Silent).unwrap();
        assert!(
            report.errors.is_empty() && report.warnings.iter().all(|warning| warning.contains("days old"))
        );
        report.bundle.unwrap().path
    }

    /// Options that import into a cache.
    fn import(&self) -> ImportOptions {
        let mut options = ImportOptions::new("weekly".parse().unwrap());
        options.trust = vec![self.path("ferry.pub")];
        options.cache_dirs = vec![self.path("cache")];
        options.data_home = Some(self.path("home"));
        options.state_dir = Some(self.path("state-air-gapped"));
        options
    }

    fn imported(&self, bundle: &Path) -> Result<trivy_ferry::ImportReport, Error> {
        Importer::new(self.import()).run(&[bundle.to_path_buf()], &Silent)
    }
}

/// Returns the address of a registry at which no server listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_bundle_arrives_in_a_cache() {
    let trip = Trip::new();
    let report = Exporter::new(trip.export(&Artifact::db())).run(&trip.key, &Silent).unwrap();
    let names: Vec<&str> = report.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
    assert_eq!(names, ["trivy-db", "vex-hub"]);
    let bundle = report.bundle.unwrap();
    assert_eq!((bundle.sequence, bundle.stream.as_str()), (Some(1), "weekly"));
    assert_eq!(bundle.fingerprint, trip.key.public().id().fingerprint());

    let imported = trip.imported(&bundle.path).unwrap();
    let [target] = &imported.targets[..] else { panic!("{} targets", imported.targets.len()) };
    let TargetId::Cache(dir) = &target.target else { panic!("{}", target.target) };
    assert!(dir.join("db/trivy.db").is_file() && dir.join("vex/repositories/default").is_dir());
    assert_eq!(target.bundles[0].identity, bundle.identity);
    assert!(target.bundles[0].first_import);
    for dataset in &target.datasets {
        assert_eq!(dataset.status, DeliveryStatus::Installed, "{}", dataset.name);
    }
    assert_eq!(imported.errors().count(), 0);

    let again = trip.imported(&bundle.path).unwrap();
    assert!(again.targets[0].datasets.iter().all(|dataset| dataset.status == DeliveryStatus::Unchanged));
    assert!(!again.targets[0].bundles[0].first_import);

    let mut options = StatusOptions::default();
    options.state_dir = Some(trip.path("state-air-gapped"));
    let status = status(&options, &Silent).unwrap();
    assert_eq!(status.imports[0].target, target.target);
    assert_eq!(status.imports[0].bundle.as_ref().unwrap().identity, bundle.identity);
}

#[test]
fn a_failed_target_does_not_affect_the_other() {
    let trip = Trip::new();
    let bundle = trip.exported(&Artifact::db());
    let mut options = trip.import();
    options.registry.places = vec![nowhere().parse().unwrap()];
    options.registry.remote.plain_http = true;
    let report = Importer::new(options).run(&[bundle], &Silent).unwrap();
    let [cache, registry] = &report.targets[..] else { panic!("{} targets", report.targets.len()) };
    assert!(cache.errors.is_empty());
    assert!(cache.datasets.iter().all(|dataset| dataset.status == DeliveryStatus::Installed));
    assert!(matches!(registry.target, TargetId::Registry(_)));
    let failed = registry.datasets.iter().find(|dataset| dataset.name.as_str() == "trivy-db").unwrap();
    assert_eq!(failed.status, DeliveryStatus::Failed);
    assert_eq!(registry.errors[0].category(), Category::Target);
    assert!(!registry.errors[0].hint().is_empty());
    assert!(registry.errors[0].is_transient(), "a retry is sufficient");
    assert_eq!(report.gravest(), Some(Category::Target));
}

#[test]
fn a_damaged_bundle_is_rejected_and_changes_nothing() {
    let trip = Trip::new();
    let bundle = trip.exported(&Artifact::db());
    let mut bytes = fs::read(&bundle).unwrap();
    let at = bytes.len() - 2048;
    bytes[at] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let error = trip.imported(&bundle).err().unwrap();
    assert_eq!(error.category(), Category::Verification, "{error}");
    assert!(!trip.path("cache/db/trivy.db").exists());
    let mut options = VerifyOptions::new(vec![bundle]);
    options.trust = vec![trip.path("ferry.pub")];
    assert_eq!(verify(&options, &Silent).err().unwrap().category(), Category::Verification);
}

#[test]
fn a_bundle_of_an_unknown_key_is_rejected() {
    let trip = Trip::new();
    let bundle = trip.exported(&Artifact::db());
    let stranger = SigningKey::generate().unwrap();
    write_key_pair(&trip.path("other.key"), &trip.path("other.pub"), &stranger, None).unwrap();
    let mut options = trip.import();
    options.trust = vec![trip.path("other.pub")];
    let error = Importer::new(options.clone()).run(from_ref(&bundle), &Silent).err().unwrap();
    assert_eq!(error.category(), Category::Verification, "{error}");
    assert!(!inspect(from_ref(&bundle), &options.trust).unwrap().bundles[0].verified);

    // A second signature, by a signer who trusts the first key, makes it acceptable.
    let keyring = Keyring::load(&[trip.path("ferry.pub")]).unwrap();
    let signed = sign(&bundle, &keyring, &stranger, &Silent).unwrap();
    assert_eq!(signed.fingerprint, stranger.public().id().fingerprint());
    let report = Importer::new(options).run(&[bundle], &Silent).unwrap();
    assert_eq!(report.targets[0].bundles[0].signers[0].fingerprint, signed.fingerprint);
}

#[test]
fn an_older_bundle_is_rejected_after_a_newer_one() {
    let trip = Trip::new();
    let older = trip.exported(&Artifact::older_db());
    let newer = trip.exported(&Artifact::db());
    assert_eq!(trip.imported(&newer).unwrap().gravest(), None);
    let error = trip.imported(&older).err().unwrap();
    assert_eq!(error.category(), Category::Rejected, "{error}");

    let mut options = trip.import();
    options.acceptance.allow_rollback = true;
    let report = Importer::new(options).run(&[older], &Silent).unwrap();
    assert_eq!(report.targets[0].bundles[0].overrides, ["--allow-rollback"]);
    let db = report.targets[0].datasets.iter().find(|dataset| dataset.name.as_str() == "trivy-db").unwrap();
    assert_eq!(db.status, DeliveryStatus::Installed);
    assert!(db.was > db.updated_at, "the data is older than before");
}

#[test]
fn a_lost_volume_is_rebuilt() {
    let trip = Trip::new();
    let mut options = trip.export(&Artifact::db());
    options.volume_size = Some("20KiB".parse().unwrap());
    options.parity = Some("50%".parse().unwrap());
    let written = Exporter::new(options).run(&trip.key, &Silent).unwrap().bundle.unwrap();
    assert!(written.files.len() > 1, "{:?}", written.files);
    let lost = &written.files[1];
    let content = fs::read(lost).unwrap();
    fs::remove_file(lost).unwrap();
    let report = repair(&[trip.path("usb")], &[trip.path("ferry.pub")], &Silent).unwrap();
    assert_eq!(report.bundles[0].made, from_ref(lost));
    assert_eq!(fs::read(lost).unwrap(), content);
}

/// A signer, such as one for a key in an HSM, that signs something other than the message.
struct Confused(SigningKey);

impl Signer for Confused {
    fn public(&self) -> PublicKey {
        self.0.public()
    }

    fn sign(&self, message: &Message) -> Result<[u8; 64], TrustError> {
        Ok(self.0.sign(&message.as_bytes()[1..]))
    }
}

#[test]
fn with_a_signer_that_signs_something_else_no_bundle_is_written() {
    let trip = Trip::new();
    let error = Exporter::new(trip.export(&Artifact::db()))
        .run(&Confused(SigningKey::generate().unwrap()), &Silent)
        .err()
        .unwrap();
    assert!(matches!(error, Error::Trust(TrustError::WrongSignature { .. })), "{error}");
    let tars = fs::read_dir(trip.path("usb")).unwrap().flatten();
    let tars: Vec<_> =
        tars.filter(|entry| entry.path().extension().is_some_and(|end| end == "tar")).collect();
    assert!(tars.is_empty(), "{tars:?}");
}

#[test]
fn options_that_do_nothing_are_errors() {
    let trip = Trip::new();
    let bundle = trip.exported(&Artifact::db());
    let mut options = trip.import();
    options.cache_dirs.clear();
    options.web_root = Some(trip.path("usb"));
    let error = Importer::new(options).run(from_ref(&bundle), &Silent).err().unwrap();
    assert_eq!(error.category(), Category::Usage, "{error}");
    assert_eq!(Importer::new(trip.import()).run(&[], &Silent).err().unwrap().category(), Category::Usage);
    let mut options = trip.export(&Artifact::db());
    options.repeat = 0;
    let error = Exporter::new(options).run(&trip.key, &Silent).err().unwrap();
    assert_eq!(error.category(), Category::Usage, "{error}");
}

#[test]
fn a_server_answers_until_it_is_dropped() {
    let trip = Trip::new();
    let bundle = trip.exported(&Artifact::db());
    let mut options = ServeOptions::new("weekly".parse().unwrap(), vec![bundle], ([127, 0, 0, 1], 0).into());
    options.trust = vec![trip.path("ferry.pub")];
    options.state_dir = Some(trip.path("state-air-gapped"));
    let (report, server) = BundleServer::open(&options, &Silent).unwrap();
    assert!(report.datasets.iter().all(|dataset| dataset.status == DeliveryStatus::Served));
    let address = server.address();
    let running = server.start().unwrap();
    let mut answer = String::new();
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(running);
    assert!(TcpStream::connect(address).is_err(), "the port is free again");
}

/// Trivy uses the first repository of its configuration if two repositories have statements about
/// one product.
#[test]
fn the_order_of_vex_repositories_does_not_depend_on_earlier_imports() {
    let trip = Trip::new();
    let export = |repositories: &[&str]| {
        let mut options = trip.export(&Artifact::db());
        options.sources.selection.only = vec!["vex-hub".parse().unwrap(), "vex-security".parse().unwrap()];
        options.vex = repositories.iter().map(|name| format!("{name}={}", sample("vex-hub"))).collect();
        options.sources.selection.only.truncate(repositories.len());
        Exporter::new(options).run(&trip.key, &Silent).unwrap().bundle.unwrap().path
    };
    let config = trip.path("home/.trivy/vex/repository.yaml");
    let order = || {
        let text = fs::read_to_string(&config).unwrap();
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("- name: "));
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    // The order is the same if one repository is there already, and if both are new.
    let first = export(&["default"]);
    let both = export(&["security", "default"]);
    assert_eq!(trip.imported(&first).unwrap().gravest(), None);
    fs::remove_file(&config).unwrap();
    assert_eq!(trip.imported(&both).unwrap().gravest(), None);
    let grown = order();
    fs::remove_dir_all(trip.path("cache")).unwrap();
    fs::remove_dir_all(trip.path("state-air-gapped")).unwrap();
    fs::remove_file(&config).unwrap();
    assert_eq!(trip.imported(&both).unwrap().gravest(), None);
    assert_eq!(order(), grown);
    assert_eq!(grown, ["default", "security"]);
}
