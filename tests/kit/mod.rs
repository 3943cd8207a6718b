//! What the stories are told with: hosts, upstream's registry and VEX Hub, and the real Trivy.
//!
//! A host is a home of its own with a clean environment, so that nothing of the machine that runs
//! the tests gets in, and nothing of the tests gets out. Paths are strings without spaces, so that
//! command lines can be written as people type them.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use trivy_ferry::digest::Digest;

mod distribution;
pub use distribution::{Distribution, write_certificates};

/// The folder of the real tools; `None` where nobody asked for the tests that need them. Asked
/// for and not there is a failure: a skipped test must not look like a passed one.
pub fn tools() -> Option<String> {
    if std::env::var_os("TRIVY_FERRY_E2E").is_none_or(|value| value != "1") {
        println!(
            "skipped what needs other tools: set TRIVY_FERRY_E2E=1 and TRIVY_FERRY_TOOLS, as tests/run does"
        );
        return None;
    }
    let tools =
        std::env::var("TRIVY_FERRY_TOOLS").expect("TRIVY_FERRY_TOOLS names the folder of the real tools");
    for tool in ["trivy", "crane", "regctl", "registry", "actionlint", "kube"] {
        assert!(Path::new(&tools).join(tool).is_file(), "{tool} is missing in {tools}");
    }
    Some(tools)
}

/// Whether a test that only root can run may run. A failure where everything was asked for.
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("TRIVY_FERRY_E2E").is_none(), "this test needs root");
    if !root {
        println!("skipped: this test needs root");
    }
    root
}

/// A file of the sample data.
pub fn sample(path: &str) -> String {
    format!("{}/fixtures/sample/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// A file's bytes.
pub fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// A file's text.
pub fn text(path: impl AsRef<Path>) -> String {
    String::from_utf8(read(path)).unwrap()
}

/// A file's JSON.
pub fn json_file(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&read(path)).unwrap()
}

/// The paths of all files below a folder, relative and sorted.
pub fn files(folder: &str) -> Vec<String> {
    let entries = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    let files = entries.filter(|entry| !entry.file_type().is_dir());
    let mut names: Vec<String> =
        files.map(|file| file.path().strip_prefix(folder).unwrap().display().to_string()).collect();
    names.sort();
    names
}

/// A computer of one of the users.
pub struct Host {
    home: TempDir,
    tools: Option<String>,
}

impl Host {
    /// One without any tool but ours.
    pub fn bare() -> Host {
        let home = tempfile::Builder::new().prefix("host").tempdir().unwrap();
        fs::create_dir(home.path().join("tmp")).unwrap();
        Host { home, tools: None }
    }

    /// One that has the real tools on its PATH.
    pub fn with(tools: &str) -> Host {
        Host { tools: Some(tools.into()), ..Host::bare() }
    }

    /// A path in its home.
    pub fn at(&self, name: &str) -> String {
        let path = self.home.path().join(name).display().to_string();
        assert!(!path.contains(char::is_whitespace), "command lines are split at spaces: {path}");
        path
    }

    /// A new folder in its home.
    pub fn folder(&self, name: &str) -> String {
        let path = self.at(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A command with this host's environment and nothing of ours.
    pub fn command(&self, program: &str) -> Command {
        let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let path = self.tools.as_ref().map_or_else(|| system.into(), |tools| format!("{tools}:{system}"));
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.home.path()).env("TMPDIR", self.at("tmp")).env("PATH", path);
        // Root's default is the system's, which all hosts here would share.
        command.env("TRIVY_FERRY_STATE_DIR", self.at("state"));
        // What fails here fails on purpose.
        command.env("TRIVY_FERRY_RETRIES", "1");
        command.current_dir(self.home.path()).stdin(Stdio::null());
        command
    }

    /// Our program, ready to run. It sees a `trivy` only on a host with tools.
    pub fn ferry_command(&self, line: &str) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_trivy-ferry"));
        command.env("PATH", self.tools.as_deref().unwrap_or("/nonexistent"));
        command.args(line.split_whitespace());
        command
    }

    /// Runs our program.
    pub fn ferry(&self, line: &str) -> Run {
        Run::of(&mut self.ferry_command(line), &format!("trivy-ferry {line}"))
    }

    /// Runs a shell line.
    pub fn sh(&self, line: &str) -> Run {
        Run::of(self.command("sh").args(["-c", line]), line)
    }

    /// Runs a shell line where there is no network: not even loopback is up.
    pub fn offline(&self, line: &str) -> Run {
        let mut command = self.command("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        Run::of(command.args(["--net", "sh", "-c", line]), line)
    }

    /// A key pair; the names of the private and the public file.
    pub fn keygen(&self) -> (String, String) {
        self.ferry("keygen --out ferry").exits(0);
        (self.at("ferry.key"), self.at("ferry.pub"))
    }

    /// Exports into a folder and returns the bundle's path.
    pub fn export(&self, folder: &str, flags: &str) -> String {
        self.export_with(&self.at("ferry.key"), folder, flags)
    }

    /// The same with another key.
    pub fn export_with(&self, key: &str, folder: &str, flags: &str) -> String {
        let run = self.ferry(&format!("export --format json --key {key} --output {folder} {flags}")).exits(0);
        run.json()["bundle"]["path"].as_str().unwrap().to_owned()
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Run {
    line: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(command: &mut Command, line: &str) -> Run {
        let output = command.output().unwrap_or_else(|e| panic!("{line}: {e}"));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run {
            line: line.into(),
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The exit code must be this one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Run {
        assert!(self.code == Some(code), "exit {:?}, not {code}\n{self}", self.code);
        self
    }

    /// It must have failed.
    #[track_caller]
    pub fn fails(self) -> Run {
        assert!(self.code != Some(0), "this should have failed\n{self}");
        self
    }

    /// Something that the user must have read, on stdout or stderr.
    #[track_caller]
    pub fn says(self, what: &str) -> Run {
        assert!(self.stdout.contains(what) || self.stderr.contains(what), "{what:?} is not in\n{self}");
        self
    }

    /// Something that the user must not have read.
    #[track_caller]
    pub fn does_not_say(self, what: &str) -> Run {
        assert!(!self.stdout.contains(what) && !self.stderr.contains(what), "{what:?} is in\n{self}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}\n{self}"))
    }

    /// What an import with `--format json` says of one of its targets.
    #[track_caller]
    pub fn target(&self, index: usize) -> Value {
        self.json()["targets"][index].clone()
    }

    /// What became of each dataset in an import with `--format json`, as `name status`.
    #[track_caller]
    pub fn statuses(&self) -> Vec<String> {
        let target = self.target(0);
        let rows = target["datasets"].as_array().unwrap();
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let mut rows: Vec<String> =
            rows.iter().map(|row| format!("{} {}", word(&row["name"]), word(&row["status"]))).collect();
        rows.sort();
        rows
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "$ {}\n{}\n--- stderr, exit {:?}\n{}", self.line, self.stdout, self.code, self.stderr)
    }
}

/// All four datasets with one status.
pub fn all_four(status: &str) -> Vec<String> {
    ["trivy-checks", "trivy-db", "trivy-java-db", "vex-hub"]
        .iter()
        .map(|name| format!("{name} {status}"))
        .collect()
}

/// The forms that upstream's manifests have had over the years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A configuration of no bytes.
    ZeroByteConfig,
    /// The artifact's type as the configuration's, whose body is `{}`.
    TypedConfig,
    /// The empty configuration of OCI 1.1, and an artifactType.
    ArtifactType,
}

/// An OCI artifact as upstream publishes it.
#[derive(Debug, Clone)]
pub struct Artifact {
    pub dataset: &'static str,
    pub tag: String,
    pub layer: Vec<u8>,
    pub form: Form,
    /// When it was built, as its manifest says.
    pub created: Option<&'static str>,
}

impl Artifact {
    fn new(dataset: &'static str, tag: &str, layer: Vec<u8>) -> Artifact {
        Artifact { dataset, tag: tag.into(), layer, form: Form::ArtifactType, created: None }
    }

    pub fn db() -> Artifact {
        Artifact::new("trivy-db", "2", read(sample("trivy-db/db.tar.gz")))
    }

    pub fn older_db() -> Artifact {
        Artifact::new("trivy-db", "2", read(sample("trivy-db/db-older.tar.gz")))
    }

    pub fn java_db() -> Artifact {
        Artifact::new("trivy-java-db", "1", read(sample("trivy-java-db/javadb.tar.gz")))
    }

    pub fn older_java_db() -> Artifact {
        Artifact::new("trivy-java-db", "1", read(sample("trivy-java-db/javadb-older.tar.gz")))
    }

    pub fn checks(major: &str) -> Artifact {
        Artifact::new("trivy-checks", major, read(sample("trivy-checks/bundle.tar.gz")))
    }

    pub fn in_form(self, form: Form) -> Artifact {
        Artifact { form, ..self }
    }

    pub fn created(self, date: &'static str) -> Artifact {
        Artifact { created: Some(date), ..self }
    }

    /// The artifact's type, the layer's type, and the layer's file name.
    fn types(&self) -> [&'static str; 3] {
        let aquasec = "application/vnd.aquasec.trivy.config.v1+json";
        match self.dataset {
            "trivy-db" => [aquasec, "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip", "db.tar.gz"],
            "trivy-java-db" => {
                [aquasec, "application/vnd.aquasec.trivy.javadb.layer.v1.tar+gzip", "javadb.tar.gz"]
            }
            _ => [
                "application/vnd.cncf.openpolicyagent.config.v1+json",
                "application/vnd.cncf.openpolicyagent.layer.v1.tar+gzip",
                "bundle.tar.gz",
            ],
        }
    }

    fn config(&self) -> &'static [u8] {
        if self.form == Form::ZeroByteConfig { b"" } else { b"{}" }
    }

    /// Made by hand, so that each form is what it is said to be.
    pub fn manifest(&self) -> Vec<u8> {
        let [artifact_type, layer_type, title] = self.types();
        let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len() });
        let empty = "application/vnd.oci.empty.v1+json";
        let config_type = if self.form == Form::ArtifactType { empty } else { artifact_type };
        let mut layer = descriptor(layer_type, &self.layer);
        layer["annotations"] = json!({ "org.opencontainers.image.title": title });
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(config_type, self.config()),
            "layers": [layer],
        });
        if self.form == Form::ArtifactType {
            manifest["artifactType"] = artifact_type.into();
        }
        if self.dataset == "trivy-checks" {
            manifest["annotations"] =
                json!({ "org.opencontainers.image.version": format!("{}.0.0", self.tag) });
        }
        if let Some(date) = self.created {
            manifest["annotations"]["org.opencontainers.image.created"] = date.into();
        }
        serde_json::to_vec(&manifest).unwrap()
    }

    pub fn digest(&self) -> String {
        Digest::of(&self.manifest()).to_string()
    }

    /// Puts it into an OCI layout below a folder, as another tool would have fetched it.
    pub fn lay_out(&self, upstream: &str) {
        let folder = format!("{upstream}/{}", self.dataset);
        fs::create_dir_all(format!("{folder}/blobs/sha256")).unwrap();
        fs::write(format!("{folder}/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let manifest = self.manifest();
        for bytes in [&manifest[..], self.config(), &self.layer] {
            fs::write(format!("{folder}/blobs/sha256/{}", Digest::of(bytes).hex()), bytes).unwrap();
        }
        let path = format!("{folder}/index.json");
        let mut index = fs::read(&path).map_or_else(
            |_| json!({ "schemaVersion": 2, "manifests": [] }),
            |bytes| serde_json::from_slice(&bytes).unwrap(),
        );
        let entries = index["manifests"].as_array_mut().unwrap();
        let name = json!({ "org.opencontainers.image.ref.name": self.tag });
        entries.retain(|entry| entry["annotations"] != name);
        entries.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": self.digest(),
            "size": manifest.len(),
            "annotations": name,
        }));
        fs::write(path, index.to_string()).unwrap();
    }
}

/// The flags that name upstream: `oci-layout:FOLDER`, or `HOST:PORT/aquasec`.
pub fn from_upstream(prefix: &str) -> String {
    let mut flags = String::new();
    for (flag, repository) in [
        ("--db-repository", "trivy-db"),
        ("--java-db-repository", "trivy-java-db"),
        ("--checks-bundle-repository", "trivy-checks"),
    ] {
        write!(flags, "{flag} {prefix}/{repository} ").unwrap();
    }
    flags
}

/// The sample datasets in OCI layouts, and the flags that export them with the VEX repository.
/// Needs no tool.
pub fn laid_out(host: &Host) -> String {
    let upstream = host.folder("upstream");
    for artifact in [Artifact::db(), Artifact::java_db(), Artifact::checks("2")] {
        artifact.lay_out(&upstream);
    }
    flags_of(&upstream)
}

/// The flags for layouts in a folder.
pub fn flags_of(upstream: &str) -> String {
    format!("{} --vex default={}", from_upstream(&format!("oci-layout:{upstream}")), sample("vex-hub"))
}

/// A process that ends with the test.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Process {
        Process(command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", command.get_program())))
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Tells it to end, and waits for its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A real registry on loopback.
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// Who pushes, with regctl.
    pub publisher: Host,
    _process: Process,
}

impl Registry {
    /// CNCF distribution v3. `users` are lines of an htpasswd file.
    pub fn distribution(tools: &str, users: Option<&str>) -> Registry {
        Distribution { users, ..Distribution::default() }.start(tools)
    }

    /// crane's registry: another make, in memory.
    pub fn crane(tools: &str) -> Registry {
        Registry::start_with(tools, "disabled", |host, address| {
            let mut command = host.command(&format!("{tools}/crane"));
            command.args(["registry", "serve", "--address", address]);
            command
        })
    }

    /// Starts one that listens at an address. `tls` is how regctl is to speak to it.
    fn start_with(tools: &str, tls: &str, command: impl Fn(&Host, &str) -> Command) -> Registry {
        // Between choosing a port and using it another process can take it: then another is tried.
        for _ in 0..5 {
            let publisher = Host::with(tools);
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
            let log = fs::File::create(publisher.at("log")).unwrap();
            let mut command = command(&publisher, &address);
            command.stdout(log.try_clone().unwrap()).stderr(log);
            let mut process = Process::start(&mut command);
            let deadline = Instant::now() + Duration::from_secs(20);
            while Instant::now() < deadline && process.is_running() {
                if TcpStream::connect(&address).is_ok() {
                    publisher.sh(&format!("regctl registry set --skip-check --tls {tls} {address}")).exits(0);
                    return Registry { address, publisher, _process: process };
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("the registry does not start");
    }

    /// The address of a repository, as all tools take it.
    pub fn repository(&self, artifact: &Artifact) -> String {
        format!("{}/aquasec/{}", self.address, artifact.dataset)
    }

    /// Where a manifest is now: its digest, as another client reads it.
    pub fn digest_of(&self, reference: &str) -> String {
        let line = format!("crane digest --insecure {}/{reference}", self.address);
        self.publisher.sh(&line).exits(0).stdout.trim().to_owned()
    }

    /// Publishes with regctl's own idea of an artifact, and returns the manifest's digest.
    pub fn publish(&self, artifact: &Artifact) -> String {
        let [artifact_type, layer_type, title] = artifact.types();
        fs::write(self.publisher.at(title), &artifact.layer).unwrap();
        let reference = format!("{}:{}", self.repository(artifact), artifact.tag);
        let version = match artifact.dataset {
            "trivy-checks" => format!("--annotation org.opencontainers.image.version={}.0.0", artifact.tag),
            _ => String::new(),
        };
        self.publisher
            .sh(&format!(
                "regctl artifact put --artifact-type {artifact_type} --file-media-type {layer_type} \
                 --file {title} --file-title --strip-dirs {version} {reference}"
            ))
            .exits(0);
        self.publisher.sh(&format!("crane digest --insecure {reference}")).exits(0).stdout.trim().to_owned()
    }

    /// Publishes the very bytes of a manifest, with regctl.
    pub fn publish_as_it_is(&self, artifact: &Artifact) {
        let repository = self.repository(artifact);
        for bytes in [artifact.config(), &artifact.layer] {
            fs::write(self.publisher.at("blob"), bytes).unwrap();
            self.publisher.sh(&format!("regctl blob put {repository} <blob")).exits(0);
        }
        fs::write(self.publisher.at("manifest"), artifact.manifest()).unwrap();
        let put = format!(
            "regctl manifest put --content-type application/vnd.oci.image.manifest.v1+json {repository}:{} <manifest",
            artifact.tag
        );
        self.publisher.sh(&put).exits(0);
    }

    /// The flags that name it as upstream.
    pub fn flags(&self) -> String {
        from_upstream(&format!("{}/aquasec", self.address))
    }
}

/// VEX Hub on a web server of one's own: the manifest where Trivy looks for it, and the archive.
/// Serves until the test ends.
pub fn vex_hub_over_http() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let archive = read(sample("vex-hub/main.tar.gz"));
    let mut manifest = json_file(sample("vex-hub/vex-repository.json"));
    manifest["versions"][0]["locations"][0]["url"] = format!("{address}/main.tar.gz//vexhub-main").into();
    let manifest = manifest.to_string().into_bytes();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().and_then(Result::ok).unwrap_or_default();
            // The answer may only follow the whole request, or closing would reset the connection.
            lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            let (status, body) = match request.split(' ').nth(1) {
                Some("/.well-known/vex-repository.json") => ("200 OK", &manifest),
                Some("/main.tar.gz") => ("200 OK", &archive),
                _ => ("404 Not Found", &Vec::new()),
            };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    address
}

/// What a scan found, sorted: identifiers, and `suppressed CVE-…` for what VEX took away.
#[track_caller]
pub fn findings(run: &Run) -> Vec<String> {
    let report = run.json();
    let mut found = Vec::new();
    for result in report["Results"].as_array().into_iter().flatten() {
        let list = |key: &str| result[key].as_array().into_iter().flatten();
        let id = |value: &Value| value.as_str().unwrap().to_owned();
        found.extend(list("Vulnerabilities").map(|finding| id(&finding["VulnerabilityID"])));
        found.extend(list("Misconfigurations").map(|finding| id(&finding["ID"])));
        found.extend(
            list("ExperimentalModifiedFindings")
                .map(|finding| format!("suppressed {}", id(&finding["Finding"]["VulnerabilityID"]))),
        );
    }
    found.sort();
    found.dedup();
    found
}
