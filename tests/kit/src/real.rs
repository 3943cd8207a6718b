//! Real registries on loopback.

mod distribution;

use std::fs;
use std::process::Command;

use crate::artifact::{Artifact, from_upstream};
use crate::host::{Host, text};
use crate::process::{Process, wait_for};

pub use distribution::{Distribution, write_certificates};

/// A real registry on loopback.
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// The host that pushes with regctl.
    pub publisher: Host,
    _process: Process,
}

impl Registry {
    /// Starts CNCF distribution v3. `users` are lines of an htpasswd file.
    pub fn distribution(tools: &str, users: Option<&str>) -> Registry {
        Distribution { users, ..Distribution::default() }.start(tools)
    }

    /// Starts crane's registry, another implementation that keeps its content in memory.
    pub fn crane(tools: &str) -> Registry {
        Registry::start_with(tools, "disabled", "serving on port ", |host| {
            let mut command = host.command(format!("{tools}/crane"));
            command.args(["registry", "serve", "--address", "127.0.0.1:0"]);
            command
        })
    }

    /// Starts a registry on a free port, and reads the address from its log: the word after `said`. `tls` is regctl's
    /// TLS setting for it.
    fn start_with(tools: &str, tls: &str, said: &str, command: impl FnOnce(&Host) -> Command) -> Registry {
        let publisher = Host::only_with(tools);
        let log = fs::File::create(publisher.path("log")).unwrap();
        let mut process = Process::start(command(&publisher).stdout(log.try_clone().unwrap()).stderr(log));
        let port = wait_for("the registry's port", || {
            let log = text(publisher.path("log"));
            assert!(process.is_running(), "the registry has ended:\n{log}");
            let words = &log[log.find(said)? + said.len()..];
            let word = words.split_once(|c: char| c != ':' && c != '.' && !c.is_ascii_digit())?.0;
            word.rsplit(':').next().map(str::to_owned)
        });
        let address = format!("127.0.0.1:{port}");
        publisher.sh(&format!("regctl registry set --skip-check --tls {tls} {address}")).exits(0);
        Registry { address, publisher, _process: process }
    }

    /// Returns the address of a repository, as tools accept it.
    pub fn repository(&self, artifact: &Artifact) -> String {
        format!("{}/aquasec/{}", self.address, artifact.dataset)
    }

    /// Returns the digest of a manifest, as another client reads it.
    pub fn digest_of(&self, reference: &str) -> String {
        let line = format!("crane digest --insecure {}/{reference}", self.address);
        self.publisher.sh(&line).exits(0).out.trim().to_owned()
    }

    /// Publishes an artifact with regctl's own manifest, and returns the manifest's digest.
    pub fn publish(&self, artifact: &Artifact) -> String {
        let [artifact_type, layer_type, title] = artifact.types();
        fs::write(self.publisher.path(title), &artifact.layer).unwrap();
        let reference = format!("{}:{}", self.repository(artifact), artifact.tag);
        let version = match artifact.dataset {
            "trivy-checks" => format!("--annotation org.opencontainers.image.version={}.0.0", artifact.tag),
            _ => String::new(),
        };
        let put = format!(
            "regctl artifact put --artifact-type {artifact_type} --file-media-type {layer_type} \
             --file {title} --file-title --strip-dirs {version} {reference}"
        );
        self.publisher.sh(&put).exits(0);
        self.publisher.sh(&format!("crane digest --insecure {reference}")).exits(0).out.trim().to_owned()
    }

    /// Publishes the exact bytes of a manifest with regctl.
    pub fn publish_as_it_is(&self, artifact: &Artifact) {
        let repository = self.repository(artifact);
        for bytes in [artifact.config(), &artifact.layer] {
            fs::write(self.publisher.path("blob"), bytes).unwrap();
            self.publisher.sh(&format!("regctl blob put {repository} <blob")).exits(0);
        }
        fs::write(self.publisher.path("manifest"), artifact.manifest()).unwrap();
        let put = format!(
            "regctl manifest put --content-type application/vnd.oci.image.manifest.v1+json {repository}:{} <manifest",
            artifact.tag
        );
        self.publisher.sh(&put).exits(0);
    }

    /// Returns the flags that name it as upstream.
    pub fn flags(&self) -> String {
        from_upstream(&format!("{}/aquasec", self.address))
    }
}
