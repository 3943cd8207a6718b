//! Shared parts of this module's tests: a registry with one artifact, and networks.

use std::path::PathBuf;
use std::time::Duration;

use test_kit::answers::{ok, status};
use test_kit::authority::Authority;
use test_kit::http::Server;

use crate::digest::Digest;
use crate::oci::{self, Descriptor};
use crate::progress::Silent;
use crate::remote::login::LoginFiles;
use crate::remote::{RemoteOptions, RetryLimits};
use crate::source::ArtifactSource;
use crate::source::artifact::Artifact;
use crate::source::network::Network;

/// A registry without login that has one artifact: `r:2` with the layer `content`.
pub(crate) fn registry(content: &'static [u8]) -> Server {
    let manifest = manifest(content);
    Server::new(move |seen| match seen.path.as_str() {
        "/v2/r/manifests/2" => ok(manifest.clone()),
        path if path == format!("/v2/r/blobs/{}", Digest::of(content)) => ok(content),
        _ => status(404),
    })
}

/// A server that uses TLS with a certificate of a private authority and returns the same answer to every
/// request, and the authority's certificate.
pub(crate) fn tls_server(answer: Vec<u8>) -> (Server, String) {
    let authority = Authority::new();
    (Server::over(Some(authority.server(false)), move |_| ok(answer.clone())), authority.pem)
}

/// `r:2` on a server.
pub(crate) fn source(server: &Server) -> ArtifactSource {
    ArtifactSource::parse(&format!("{}/r:2", server.host), "1").unwrap()
}

/// A limit that is exceeded only if a server never answers, even on a slow machine.
const GENEROUS: Duration = Duration::from_secs(60);

/// A network without credentials.
pub(crate) fn network() -> Network<'static> {
    network_with(RemoteOptions::default(), None)
}

pub(crate) fn network_with(options: RemoteOptions, config: Option<PathBuf>) -> Network<'static> {
    network_that_retries(0, options, config)
}

pub(crate) fn network_that_retries(
    retries: u32,
    options: RemoteOptions,
    config: Option<PathBuf>,
) -> Network<'static> {
    let mut network =
        Network::new(options, RetryLimits { retries, ..RetryLimits::default() }.begin(), &Silent).unwrap();
    network.remote.http.timeouts.connect = GENEROUS;
    network.remote.http.timeouts.first_byte = GENEROUS;
    network.remote.http.timeouts.stall = GENEROUS;
    network.remote.registries.files = config.map(LoginFiles::only).unwrap_or_default();
    network
}

/// A network that soon fails if a body stalls.
pub(crate) fn network_that_soon_gives_up() -> Network<'static> {
    let mut network = network();
    network.remote.http.timeouts.stall = Duration::from_millis(300);
    network
}

/// The bytes of a manifest with one layer.
pub(crate) fn manifest(content: &[u8]) -> Vec<u8> {
    let layer = descriptor(content);
    let config = descriptor(b"{}");
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": [layer],
    }))
    .unwrap()
}

pub(crate) fn descriptor(content: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "application/octet-stream".into(),
        digest: Digest::of(content),
        size: content.len() as u64,
        annotations: Default::default(),
    }
}

pub(crate) fn layer(artifact: &Artifact) -> &Descriptor {
    &artifact.manifest.layers[0]
}
