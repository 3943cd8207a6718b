//! Upstream: the sources of an export, whose responses a test can break.

use std::ops::Deref;

use jiff::Timestamp;
use serde_json::json;
use test_kit::authority::Authority;
use test_kit::files::{Fault, Files};
use test_kit::noise::Noise;
use trivy_ferry::dataset::Kind;
use trivy_ferry::digest::Digest;

use super::{Archive, bolt, checks_layer, days, java_db_layer, manifest_of, metadata_json, vex_archive};

/// A server of all four datasets. It ends when dropped.
pub struct Upstream(Files);

impl Deref for Upstream {
    type Target = Files;

    fn deref(&self) -> &Files {
        &self.0
    }
}

impl Upstream {
    /// Changes the host name to one that only a proxy can resolve.
    pub fn named(mut self, name: &str) -> Self {
        self.rename(name);
        self
    }

    /// Changes the host name in its flags and its VEX manifest.
    pub fn rename(&mut self, name: &str) {
        self.0.host = self.0.host.replace("127.0.0.1", name);
    }

    /// Starts a server that uses HTTP.
    pub fn new(faults: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Upstream(Files::over(None, faults))
    }

    /// Starts a server. With an authority, it uses HTTPS with a certificate of that authority, and
    /// requires a client certificate.
    pub fn with(
        authority: Option<&Authority>,
        faults: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        Upstream(Files::over(authority.map(|authority| authority.server(true)), faults))
    }

    /// Starts a server that uses HTTPS and requires no client certificate.
    pub fn behind_tls(
        authority: &Authority,
        faults: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        Upstream(Files::over(Some(authority.server(false)), faults))
    }

    fn artifact(&self, name: &str, kind: Kind, layer: Vec<u8>, date: Timestamp) {
        let manifest = manifest_of(kind.layer_media_type().unwrap(), &layer, Some(date));
        self.put(&format!("/v2/{name}/manifests/1"), manifest);
        self.put(&format!("/v2/{name}/blobs/{}", Digest::of(b"{}")), &b"{}"[..]);
        self.put(&format!("/v2/{name}/blobs/{}", Digest::of(&layer)), layer);
    }

    /// Publishes all four datasets. trivy-db gets additional bytes that do not compress.
    pub fn publish(&self, generation: u64, noise: usize) {
        self.publish_with(generation, &Noise::new(generation + 1).bytes(noise));
    }

    /// Publishes all four datasets. trivy-db has 400 KB that do not compress, of which each generation changes 8 bytes.
    pub fn publish_similar(&self, generation: u64) {
        let mut noise = Noise::new(1).bytes(400_000);
        for number in 0..=generation {
            let at = 1000 * (number as usize + 1);
            noise[at..at + 8].copy_from_slice(&number.to_be_bytes());
        }
        self.publish_with(generation, &noise);
    }

    fn publish_with(&self, generation: u64, noise: &[u8]) {
        let date = days(-3) + jiff::SignedDuration::from_mins(generation as i64);
        let mut bolt = bolt();
        bolt.extend(noise);
        let db = Archive::new().file("trivy.db", &bolt).file("metadata.json", &metadata_json(2, date)).pack();
        self.artifact("db", Kind::TrivyDb, db, date);
        self.artifact("java", Kind::TrivyJavaDb, java_db_layer(date), date);
        self.artifact("checks", Kind::TrivyChecks, checks_layer(&generation.to_string()), date);
        self.publish_vex(generation);
    }

    /// Publishes trivy-db's layer as trivy-java-db's.
    pub fn publish_db_as_java_db(&self) {
        let files = self.files();
        let manifest = String::from_utf8(files["/v2/db/manifests/1"].to_vec()).unwrap();
        let types = [Kind::TrivyDb, Kind::TrivyJavaDb].map(|kind| kind.layer_media_type().unwrap());
        let manifest = manifest.replace(types[0], types[1]);
        for (path, bytes) in files.iter().filter(|(path, _)| path.starts_with("/v2/db/blobs/")) {
            self.put(&path.replace("/db/", "/java/"), bytes.clone());
        }
        self.put("/v2/java/manifests/1", manifest);
    }

    /// Publishes a trivy-db with a correct digest, but with content that Trivy cannot use.
    pub fn publish_rubbish_db(&self, generation: u64) {
        let date = days(-3) + jiff::SignedDuration::from_mins(generation as i64);
        let db = Archive::new().file("trivy.db", &Noise::new(1).bytes(2_000_000)).pack();
        self.artifact("db", Kind::TrivyDb, db, date);
    }

    /// Publishes a trivy-java-db with a correct digest, but with content that Trivy cannot use.
    pub fn publish_rubbish_java_db(&self, generation: u64) {
        let date = days(-3) + jiff::SignedDuration::from_mins(generation as i64);
        let db = Archive::new().file("trivy-java.db", &Noise::new(1).bytes(2_000_000)).pack();
        self.artifact("java", Kind::TrivyJavaDb, db, date);
    }

    pub fn publish_vex(&self, generation: u64) {
        let date = days(-3) + jiff::SignedDuration::from_mins(generation as i64);
        let location = format!("{}://{}/vex.tar.gz", self.scheme, self.host);
        let vex = json!({"name": "x", "description": "", "versions": [
            {"spec_version": "0.1", "locations": [{"url": location}], "update_interval": "24h"}]});
        self.put("/.well-known/vex-repository.json", vex.to_string());
        self.put("/vex.tar.gz", vex_archive(".", date));
    }

    /// Returns the flags that name it as the source of all datasets.
    pub fn flags(&self) -> Vec<String> {
        let host = &self.host;
        let flags = [
            format!("--db-repository={host}/db:1"),
            format!("--java-db-repository={host}/java:1"),
            format!("--checks-bundle-repository={host}/checks:1"),
            format!("--vex=default={}://{host}", self.scheme),
        ];
        let plain = (self.scheme == "http").then(|| "--plain-http".into());
        flags.into_iter().chain(plain).collect()
    }
}
