//! Common code of the tests of bad input: a separate host for each test, and a forge that creates
//! and signs good and bad bundles.
//!
//! The forge does not use the program's writer for tar files. So the program accepts the forge's
//! bundles only if both follow the format. The forge can break any rule of the format.

pub mod upstream;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read, Write};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use test_kit::peak::{self, Measured};
use test_kit::process::{Run, busy_here};
use trivy_ferry::bundle::payload::Blob;
use trivy_ferry::bundle::{Dataset, MANIFEST, PAYLOAD_TYPE, SUMS};
use trivy_ferry::dataset::check::UnpackLimits;
use trivy_ferry::dataset::vex::{self, ArchiveFormat};
use trivy_ferry::dataset::{Contents, Discard, Kind, Name, catalogue, layer};
use trivy_ferry::digest::Digest;
use trivy_ferry::oci;
use trivy_ferry::trust::key::{PublicKey, SigningKey};
use trivy_ferry::trust::message::pae;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_trivy-ferry");

/// The memory limit of the program, in KiB.
const MAX_MEMORY: u64 = 128 << 10;

/// A host that trusts one exporter. The test has the exporter's key.
pub struct Host {
    host: test_kit::host::Host,
    pub key: SigningKey,
}

impl Deref for Host {
    type Target = test_kit::host::Host;

    fn deref(&self) -> &Self::Target {
        &self.host
    }
}

impl Host {
    pub fn new() -> Self {
        Host::with_key(&SigningKey::generate().unwrap())
    }

    /// Returns another host that trusts the same exporter.
    pub fn with_key(key: &SigningKey) -> Self {
        let key = SigningKey::from_pem(&key.to_pem(None).unwrap(), None).unwrap();
        let host = Host { host: test_kit::host::Host::bare(PROGRAM), key };
        for dir in ["home", "keys", "inbox", "out"] {
            host.dir(dir);
        }
        host.trust("exporter", &host.key.public());
        host
    }

    /// Writes a public key to `keys/NAME.pub` for `--trust`.
    pub fn trust(&self, name: &str, key: &PublicKey) -> String {
        self.file(&format!("keys/{name}.pub"), key.to_pem());
        self.at(format!("keys/{name}.pub"))
    }

    /// Returns the program, with directories for everything that it may write.
    pub fn command(&self) -> Command {
        let mut command = self.program();
        command.env("HOME", self.path("home"));
        command.env("XDG_STATE_HOME", self.path("xdg-state")).env("XDG_CONFIG_HOME", self.path("xdg-config"));
        command.env("XDG_CACHE_HOME", self.path("xdg-cache")).env("XDG_DATA_HOME", self.path("xdg-data"));
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        let mut command = self.command();
        command.args(args);
        run(command)
    }

    /// Runs the program and asserts that it stays below the memory limit.
    #[track_caller]
    pub fn bounded(&self, args: &[&str]) -> Measured {
        let mut command = self.command();
        command.args(args);
        peak::bounded(&command)
    }

    /// Writes a signed bundle and returns its path.
    pub fn bundle(&self, name: &str, bundle: &Bundle) -> PathBuf {
        self.file(name, bundle.signed(&self.key))
    }

    /// Returns the command of an export of upstream's datasets with the key of [`Host::write_key`].
    /// The output is `out` unless `more` has another one.
    pub fn export_command(&self, upstream: &upstream::Upstream, more: &[&str]) -> Command {
        let mut command = self.command();
        command.args(["export", "--key", "exporter.key", "--state-dir", "state", "--format", "json"]);
        if !more.contains(&"--output") {
            command.args(["--output", "out"]);
        }
        command.args(upstream.flags()).args(more);
        command
    }

    /// Runs an export of upstream's datasets.
    pub fn export(&self, upstream: &upstream::Upstream, more: &[&str]) -> Run {
        run(self.export_command(upstream, more))
    }

    /// Writes the key for an export, `exporter.key`.
    pub fn write_key(&self) {
        let path = self.file("exporter.key", self.key.to_pem(None).unwrap().as_bytes());
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Runs `import` into `cache`, with the state in `state`.
    pub fn import(&self, input: &Path, more: &[&str]) -> Run {
        self.import_to("cache", input, more)
    }

    /// Runs `import` into another cache.
    pub fn import_to(&self, cache: &str, input: &Path, more: &[&str]) -> Run {
        let (input, cache, state) = (input.to_str().unwrap(), self.at(cache), self.at("state"));
        let key = self.at("keys/exporter.pub");
        let mut args = vec!["import", input, "--cache-dir", &cache, "--state-dir", &state];
        if !more.contains(&"--trust") {
            args.extend(["--trust", &key]);
        }
        args.extend(more);
        self.run(&args)
    }

    pub fn verify(&self, input: &Path, more: &[&str]) -> Run {
        let key = self.at("keys/exporter.pub");
        let mut args = vec!["verify", input.to_str().unwrap()];
        if !more.contains(&"--trust") {
            args.extend(["--trust", &key]);
        }
        args.extend(more);
        self.run(&args)
    }

    /// Returns everything that a rejected bundle must not change: the cache with its working
    /// directory, and the state.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for directory in ["cache", "cache-2", "state", "out"] {
            look(&self.path(directory), directory, &mut snapshot);
        }
        snapshot
    }

    /// Returns the date in a database's installed `metadata.json`.
    pub fn installed(&self, cache: &str, database: &str) -> Option<String> {
        let bytes = fs::read(self.path(cache).join(database).join("metadata.json")).ok()?;
        let metadata: Value = serde_json::from_slice(&bytes).unwrap();
        Some(metadata["UpdatedAt"].as_str().unwrap().into())
    }

    /// Returns the state of the only target of a stream.
    pub fn state(&self, stream: &str) -> Value {
        let bytes = fs::read(self.path(format!("state/import-{stream}.json"))).unwrap();
        let state: Value = serde_json::from_slice(&bytes).unwrap();
        state["targets"][format!("cache:{}", self.path("cache").canonicalize().unwrap().display())].clone()
    }

    /// Returns the names in the cache's working directory that exist only while an import runs.
    pub fn staged(&self, cache: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(cache).join(".trivy-ferry")) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| !["lock", "previous", "journal.json", "journal"].contains(&name.as_str()))
            .collect()
    }
}

/// Runs a program to its end, and asserts that it stays below the memory limit.
#[track_caller]
pub fn run(mut command: Command) -> Run {
    let args = command.get_args().map(|arg| arg.to_string_lossy());
    let line =
        std::iter::once(command.get_program().to_string_lossy()).chain(args).collect::<Vec<_>>().join(" ");
    let run = Run::of(&mut command, &line);
    assert!(run.peak < MAX_MEMORY, "{} KiB: {run}", run.peak);
    run
}

/// Every path below some directories with type, mode, owner and digest.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Snapshot(pub BTreeMap<String, String>);

/// Returns the bytes of a file, or `None` for a state of imports without accepted data. Omits the
/// use and the failure of each target from a state of imports, because every run records them.
fn accepted(name: &str, bytes: Vec<u8>) -> Option<Vec<u8>> {
    if !name.starts_with("state/import-") {
        return Some(bytes);
    }
    let Ok(mut state) = serde_json::from_slice::<Value>(&bytes) else { return Some(bytes) };
    let Some(targets) = state["targets"].as_object_mut() else { return Some(bytes) };
    for target in targets.values_mut().filter_map(Value::as_object_mut) {
        target.retain(|field, _| !["used", "beside", "failure"].contains(&field.as_str()));
    }
    let is_empty = |value: &Value| {
        value.as_object().is_some_and(|o| o.values().all(|v| *v == json!([]) || *v == json!({})))
    };
    targets.retain(|_, target| !is_empty(target));
    let nothing = targets.is_empty() && state.get("heard").is_none();
    (!nothing).then(|| state.to_string().into_bytes())
}

fn look(path: &Path, name: &str, snapshot: &mut Snapshot) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    // Rejected bundles are logged there.
    if name == "state/imports.jsonl" {
        return;
    }
    let kind = metadata.file_type();
    let content = match kind.is_file() {
        true => match accepted(name, fs::read(path).unwrap()) {
            Some(bytes) => Digest::of(&bytes).hex(),
            None => return,
        },
        false => format!("{kind:?}"),
    };
    let entry = format!("{:o} {} {}", metadata.mode(), metadata.uid(), content);
    snapshot.0.insert(name.into(), entry);
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            look(&entry.path(), &format!("{name}/{}", entry.file_name().to_str().unwrap()), snapshot);
        }
    }
}

/// Checks metrics with Prometheus' checker.
pub fn promtool(metrics: &Path) {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(fs::File::open(metrics).unwrap());
    let checked = promtool.output().unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
}

/// Reads a file of the samples.
pub fn sample(name: &str) -> Vec<u8> {
    test_kit::host::read(test_kit::artifact::sample(name))
}

/// Returns a time some hours away from the first call, in whole seconds, so that the dates of a
/// test agree.
pub fn hours(away: i64) -> Timestamp {
    static NOW: OnceLock<Timestamp> = OnceLock::new();
    let now = *NOW.get_or_init(|| Timestamp::from_second(Timestamp::now().as_second()).unwrap());
    now + SignedDuration::from_hours(away)
}

pub fn days(away: i64) -> Timestamp {
    hours(away * 24)
}

/// A gzipped tar archive, entry by entry.
pub struct Archive(tar::Builder<GzEncoder<Vec<u8>>>);

impl Archive {
    pub fn new() -> Self {
        Archive(tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast())))
    }

    pub fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.entry(b'0', name, bytes.len() as u64, bytes)
    }

    /// Adds an entry of any type whose header may have a wrong size.
    pub fn entry(mut self, kind: u8, name: &str, size: u64, bytes: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(0o644);
        header.set_size(size);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if matches!(kind, b'1' | b'2') {
            header.as_old_mut().linkname[..8].copy_from_slice(b"/etc/pwd");
        }
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    pub fn pack(self) -> Vec<u8> {
        self.0.into_inner().unwrap().finish().unwrap()
    }

    /// Returns the archive without its end blocks, so that more can follow.
    pub fn open_end(mut self) -> Vec<u8> {
        let encoder = std::mem::replace(self.0.get_mut(), GzEncoder::new(Vec::new(), Compression::fast()));
        encoder.finish().unwrap()
    }
}

/// Returns gzipped zeros as gzip members of 64 MiB.
pub fn zeros(gibibytes: usize) -> Vec<u8> {
    const STEP: usize = 64 << 20;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(&vec![0; STEP]).unwrap();
    encoder.finish().unwrap().repeat(gibibytes * ((1 << 30) / STEP))
}

/// Returns the processor time for decompressing some gibibytes of [`zeros`] on this machine.
pub fn inflating(gibibytes: u32) -> Duration {
    static ONE: LazyLock<Duration> = LazyLock::new(|| {
        let packed = zeros(1);
        let before = busy_here();
        let mut inflated = MultiGzDecoder::new(packed.as_slice());
        assert_eq!(std::io::copy(&mut inflated, &mut std::io::sink()).unwrap(), 1 << 30);
        busy_here() - before
    });
    *ONE * gibibytes
}

/// Returns an uncompressed tar archive.
pub fn plain_tar(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    put(&mut file, name, bytes);
    file.extend_from_slice(&[0; 1024]);
    file
}

/// Returns a file of a sample layer.
pub fn from_layer(packed: &[u8], name: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_str() == Some(name) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            return bytes;
        }
    }
    panic!("no {name}")
}

pub fn metadata_json(schema: u32, updated_at: Timestamp) -> Vec<u8> {
    let next_update = updated_at + SignedDuration::from_hours(24);
    let json = json!({
        "Version": schema, "NextUpdate": next_update, "UpdatedAt": updated_at, "DownloadedAt": "0001-01-01T00:00:00Z",
    });
    json.to_string().into_bytes()
}

pub fn bolt() -> Vec<u8> {
    from_layer(&sample("trivy-db/db.tar.gz"), "trivy.db")
}

pub fn sqlite() -> Vec<u8> {
    from_layer(&sample("trivy-java-db/javadb.tar.gz"), "trivy-java.db")
}

/// Returns the sample database with another date.
pub fn db_layer(updated_at: Timestamp) -> Vec<u8> {
    Archive::new().file("trivy.db", &bolt()).file("metadata.json", &metadata_json(2, updated_at)).pack()
}

pub fn java_db_layer(updated_at: Timestamp) -> Vec<u8> {
    Archive::new()
        .file("trivy-java.db", &sqlite())
        .file("metadata.json", &metadata_json(1, updated_at))
        .pack()
}

/// Returns a layer with a check and its library. `generation` makes its bytes unique.
pub fn checks_layer(generation: &str) -> Vec<u8> {
    Archive::new()
        .file("policies/docker/lib/sample.rego", b"package lib.sample\n")
        .file("policies/docker/policies/sample.rego", format!("package sample\n# {generation}\n").as_bytes())
        .pack()
}

/// Returns a VEX archive with its repository in `top`.
pub fn vex_archive(top: &str, updated_at: Timestamp) -> Vec<u8> {
    let index = json!({"updated_at": updated_at, "packages": [{"id": "pkg:gem/x", "location": "x.json", "format": "openvex"}]});
    Archive::new()
        .entry(b'5', &format!("{top}/"), 0, b"")
        .file(&format!("{top}/index.json"), index.to_string().as_bytes())
        .file(&format!("{top}/x.json"), br#"{"@context":"https://openvex.dev/ns/v0.2.0","statements":[]}"#)
        .pack()
}

/// A dataset with all its bytes.
#[derive(Clone)]
pub struct Part {
    pub dataset: Dataset,
    pub manifest: Vec<u8>,
    /// Configuration and layers.
    pub blobs: Vec<Vec<u8>>,
}

impl Part {
    /// Returns the dataset of a layer.
    pub fn of(name: &str, tag: &str, packed: Vec<u8>) -> Part {
        let kind = name.parse::<Name>().unwrap().kind();
        let contents = layer::unpack(kind, &packed[..], UnpackLimits::of(kind), &mut Discard).unwrap();
        Part::saying(name, tag, packed, contents)
    }

    /// Returns the dataset of a layer with these contents, which may be wrong.
    pub fn saying(name: &str, tag: &str, packed: Vec<u8>, contents: Contents) -> Part {
        let name: Name = name.parse().unwrap();
        let media_type = name.kind().layer_media_type().unwrap();
        let manifest = manifest(media_type, &packed);
        Part::made(name, tag, manifest, vec![(media_type, packed)], None, contents)
    }

    pub fn db(updated_at: Timestamp) -> Part {
        Part::of("trivy-db", "2", db_layer(updated_at))
    }

    pub fn java_db(updated_at: Timestamp) -> Part {
        Part::of("trivy-java-db", "1", java_db_layer(updated_at))
    }

    pub fn checks(generation: &str) -> Part {
        Part::of("trivy-checks", "2", checks_layer(generation))
    }

    pub fn vex(updated_at: Timestamp) -> Part {
        let archive = vex_archive("vexhub-main", updated_at);
        let contents = vex::unpack(
            ArchiveFormat::TarGzip,
            Cursor::new(&archive),
            "vexhub-main",
            UnpackLimits::of(Kind::Vex),
            &mut Discard,
        );
        Part::vex_saying(archive, "vexhub-main", contents.unwrap())
    }

    pub fn vex_saying(archive: Vec<u8>, subdir: &str, contents: Contents) -> Part {
        let json = sample("vex-hub/vex-repository.json");
        let archive_type = match ArchiveFormat::of(&archive) {
            Some(ArchiveFormat::Zip) => catalogue::VEX_ZIP_LAYER,
            _ => catalogue::VEX_TAR_LAYER,
        };
        let layers = vec![(archive_type, archive), (catalogue::VEX_MANIFEST_LAYER, json)];
        let descriptor = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
            "layers": layers.iter().map(|(media_type, bytes)| descriptor(media_type, bytes)).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        Part::made("vex-hub".parse().unwrap(), "0.1", manifest, layers, Some(subdir), contents)
    }

    fn made(
        name: Name,
        tag: &str,
        manifest: Vec<u8>,
        layers: Vec<(&str, Vec<u8>)>,
        subdir: Option<&str>,
        contents: Contents,
    ) -> Part {
        let blob = |media_type: &str, bytes: &[u8]| Blob {
            media_type: media_type.into(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        };
        let dataset = Dataset {
            name,
            tag: tag.into(),
            source: "registry.example/x:1".into(),
            manifest: blob(oci::MANIFEST, &manifest),
            config: blob("application/vnd.oci.empty.v1+json", b"{}"),
            layers: layers.iter().map(|(media_type, bytes)| blob(media_type, bytes)).collect(),
            delta: None,
            version: None,
            subdir: subdir.map(|subdir| subdir.parse().unwrap()),
            contents,
        };
        let blobs = [b"{}".to_vec()].into_iter().chain(layers.into_iter().map(|(_, bytes)| bytes)).collect();
        Part { dataset, manifest, blobs }
    }

    /// Returns all four datasets. Their bytes are unique for each generation.
    pub fn all(updated_at: Timestamp) -> Vec<Part> {
        vec![
            Part::db(updated_at),
            Part::java_db(updated_at),
            Part::checks(&updated_at.to_string()),
            Part::vex(updated_at),
        ]
    }
}

/// Returns an artifact's manifest as upstream publishes it.
pub fn manifest(media_type: &str, packed: &[u8]) -> Vec<u8> {
    manifest_of(media_type, packed, None)
}

/// Returns such a manifest with its creation time.
pub fn manifest_of(media_type: &str, packed: &[u8], created: Option<Timestamp>) -> Vec<u8> {
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": oci::MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"), "size": 2},
        "layers": [{
            "mediaType": media_type, "digest": Digest::of(packed), "size": packed.len(),
            "annotations": {oci::TITLE: "layer.tar.gz"},
        }],
    });
    if let Some(created) = created {
        manifest["annotations"] = json!({ oci::CREATED: created });
    }
    manifest.to_string().into_bytes()
}

/// Writes a dataset as an OCI image layout and returns it as a source.
pub fn image_layout(directory: &Path, tag: &str, manifest: &[u8], blobs: &[&[u8]]) -> String {
    let store = directory.join("blobs/sha256");
    fs::create_dir_all(&store).unwrap();
    for blob in blobs.iter().chain([&manifest]) {
        fs::write(store.join(Digest::of(blob).hex()), blob).unwrap();
    }
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": oci::MANIFEST, "digest": Digest::of(manifest), "size": manifest.len(),
        "annotations": {oci::REF_NAME: tag},
    }]});
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
    format!("oci-layout:{}:{tag}", directory.display())
}

/// A bundle before it is signed: a payload and the members after the manifest. A test can change
/// either.
#[derive(Clone)]
pub struct Bundle {
    pub payload: Vec<u8>,
    pub payload_type: String,
    pub members: Vec<(String, Vec<u8>)>,
    /// The space for the envelope, in bytes.
    pub capacity: usize,
}

/// The position of a member in a file.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: String,
    pub start: usize,
    pub content: usize,
    pub size: usize,
    pub end: usize,
}

impl Bundle {
    /// Returns a valid bundle of these datasets.
    pub fn of(created: Timestamp, parts: &[Part]) -> Bundle {
        let index = json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": parts.iter().map(|part| json!({
            "mediaType": oci::MANIFEST, "digest": part.dataset.manifest.digest, "size": part.manifest.len(),
            "annotations": {oci::REF_NAME: part.dataset.reference()},
        })).collect::<Vec<_>>()});
        let mut members = vec![
            (SUMS.to_owned(), Vec::new()),
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ];
        let (large, small): (Vec<&Part>, Vec<&Part>) =
            parts.iter().partition(|part| part.dataset.name.kind().is_large());
        let early = large.iter().map(|part| vec![&part.manifest, &part.blobs[0]]);
        let middle = small.iter().map(|part| std::iter::once(&part.manifest).chain(&part.blobs).collect());
        let late = large.iter().map(|part| part.blobs[1..].iter().collect());
        for bytes in early.chain(middle).chain(late).flat_map(|blobs: Vec<&Vec<u8>>| blobs) {
            let path = format!("blobs/sha256/{}", Digest::of(bytes).hex());
            if !members.iter().any(|(have, _)| *have == path) {
                members.push((path, bytes.clone()));
            }
        }
        let payload = json!({
            "format": 1, "requires": [], "producer": "forge", "stream": "default", "created": created,
            "length": 0, "members": [], "datasets": parts.iter().map(|part| &part.dataset).collect::<Vec<_>>(),
        });
        let payload_type = PAYLOAD_TYPE.as_str().to_owned();
        let mut bundle =
            Bundle { payload: payload.to_string().into(), payload_type, members, capacity: 16 << 10 };
        bundle.relist();
        bundle
    }

    /// Changes the payload.
    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) -> &mut Self {
        let mut payload = serde_json::from_slice(&self.payload).unwrap();
        change(&mut payload);
        self.payload = payload.to_string().into_bytes();
        self
    }

    /// Sets one field of the payload.
    pub fn with(mut self, field: &str, value: impl serde::Serialize) -> Self {
        self.edit(|payload| payload[field] = serde_json::to_value(value).unwrap());
        self
    }

    /// Updates the payload's list of members: checksums, sizes, digests, length.
    pub fn relist(&mut self) {
        let lines = self.members[1..].iter();
        let sums: String =
            lines.map(|(path, bytes)| format!("{}  {path}\n", Digest::of(bytes).hex())).collect();
        if self.members[0].0 == SUMS {
            self.members[0].1 = sums.into_bytes();
        }
        let list: Vec<Value> = self
            .members
            .iter()
            .map(|(path, bytes)| json!({"path": path, "size": bytes.len(), "digest": Digest::of(bytes)}))
            .collect();
        let members: usize =
            self.members.iter().map(|(_, bytes)| 512 + bytes.len().next_multiple_of(512)).sum();
        let length = 512 + self.capacity + members + 1024;
        self.edit(|payload| {
            payload["members"] = list.into();
            payload["length"] = length.into();
        });
    }

    /// Returns the payload's identity, as in the state.
    pub fn identity(&self) -> String {
        Digest::of(&self.payload).to_string()
    }

    /// Returns the signature of a key.
    pub fn signature(&self, key: &SigningKey) -> Value {
        let signature = key.sign(&pae(&self.payload_type, &self.payload));
        json!({"keyid": key.public().id().hex(), "sig": STANDARD.encode(signature)})
    }

    /// Returns the envelope's bytes without padding.
    pub fn envelope(&self, signatures: &[Value]) -> Vec<u8> {
        let payload = STANDARD.encode(&self.payload);
        let envelope =
            json!({"payloadType": self.payload_type, "payload": payload, "signatures": signatures});
        envelope.to_string().into_bytes()
    }

    /// Returns the file with these signatures.
    pub fn file(&self, signatures: &[Value]) -> Vec<u8> {
        let mut envelope = self.envelope(signatures);
        assert!(envelope.len() <= self.capacity, "{} bytes", envelope.len());
        envelope.resize(self.capacity, b' ');
        let mut file = Vec::new();
        put(&mut file, MANIFEST, &envelope);
        for (name, bytes) in &self.members {
            put(&mut file, name, bytes);
        }
        file.extend_from_slice(&[0; 1024]);
        file
    }

    /// Returns the file, signed by one key.
    pub fn signed(&self, key: &SigningKey) -> Vec<u8> {
        self.file(&[self.signature(key)])
    }

    /// Returns the position of each member in the file, the manifest first.
    pub fn spans(&self) -> Vec<Span> {
        let sizes = self.members.iter().map(|(name, bytes)| (name.as_str(), bytes.len()));
        let mut at = 0;
        std::iter::once((MANIFEST, self.capacity))
            .chain(sizes)
            .map(|(name, size)| {
                let (start, content) = (at, at + 512);
                at = content + size.next_multiple_of(512);
                Span { name: name.into(), start, content, size, end: at }
            })
            .collect()
    }
}

fn put(file: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    file.extend_from_slice(&header(name, bytes.len() as u64, b'0'));
    file.extend_from_slice(bytes);
    file.resize(file.len().next_multiple_of(512), 0);
}

/// Returns a member's header as the format defines it, with any name and type.
pub fn header(name: &str, size: u64, kind: u8) -> [u8; 512] {
    let mut header = [0; 512];
    let mut set = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    set(0, name);
    set(100, "0000644\0");
    set(108, "0000000\0");
    set(116, "0000000\0");
    set(124, &format!("{size:011o}\0"));
    set(136, &format!("{:011o}\0", 315_532_800));
    set(257, "ustar\x0000");
    header[156] = kind;
    fix_checksum(&mut header);
    header
}

/// Corrects the checksum of a changed header.
pub fn fix_checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
}
