//! Tests of the registry client against well-behaved and misbehaving servers.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use test_kit::answers::*;
use test_kit::http::{ClosedPort, Response, Seen, Server};

use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci;
use crate::progress::Silent;
use crate::remote::{RemoteError, RemoteOptions, RetryLimits, Unreachable};
use crate::source::tests::testing::*;
use crate::source::*;

const CONTENT: &[u8] = b"the layer's content";

fn read(blob: Result<Blob, SourceError>) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    match blob?.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(SourceError::from_io(error).unwrap()),
    }
}

/// A Docker configuration with the user `me` and the password `secret` for one host.
fn login_at(host: &str) -> (tempfile::TempDir, PathBuf) {
    configuration(host, serde_json::json!({"username": "me", "password": "secret"}))
}

/// A Docker configuration with an identity token for one host.
fn identity_token_at(host: &str, token: &str) -> (tempfile::TempDir, PathBuf) {
    configuration(host, serde_json::json!({"identitytoken": token}))
}

fn configuration(host: &str, entry: serde_json::Value) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    let config = serde_json::json!({"auths": {host: entry}});
    std::fs::write(&path, config.to_string()).unwrap();
    (directory, path)
}

/// base64 of `me:secret`.
const BASIC: &str = "Basic bWU6c2VjcmV0";

/// A registry that requires the token `t`, which its own token service issues for `me` (and for anonymous
/// clients if `public`).
fn guarded(public: bool) -> Server {
    Server::new(move |seen| {
        let authorization = seen.authorization.as_deref();
        if seen.target.starts_with("/token?") {
            return match authorization {
                Some(BASIC) => ok(r#"{"token":"t"}"#),
                None if public => ok(r#"{"access_token":"t"}"#),
                _ => status(401),
            };
        }
        if authorization != Some("Bearer t") {
            let challenge = format!(r#"Bearer realm="http://{}/token?a=b",service="s""#, seen.host);
            return header(status(401), "www-authenticate", &challenge);
        }
        if seen.target.contains("/manifests/") { ok(manifest(CONTENT)) } else { ok(CONTENT) }
    })
}

fn serving_blob(answer: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Server {
    Server::new(
        move |seen| {
            if seen.target.contains("/manifests/") { ok(manifest(CONTENT)) } else { answer(seen) }
        },
    )
}

fn blob_error(server: &Server) -> SourceError {
    let network = network();
    read(network.blob(&source(server), &descriptor(CONTENT))).unwrap_err()
}

fn resolve_error(answer: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> SourceError {
    network().resolve(&source(&Server::new(answer))).unwrap_err()
}

#[test]
fn a_manifest_and_its_layer_arrive_as_they_are() {
    let server = registry(CONTENT);
    let network = network();
    let artifact = network.resolve(&source(&server)).unwrap();
    assert_eq!(artifact.manifest_bytes, manifest(CONTENT));
    assert_eq!(artifact.manifest_digest, Digest::of(&manifest(CONTENT)));
    assert_eq!(artifact.manifest_media_type, oci::MANIFEST);
    assert_eq!(read(network.blob(&artifact.source, layer(&artifact))).unwrap(), CONTENT);
    assert_eq!(server.seen().len(), 2, "no more than is needed: {:?}", server.seen());
}

#[test]
fn a_token_is_fetched_with_the_credentials_and_kept() {
    let server = guarded(false);
    let (_directory, config) = login_at(&server.host);
    let network = network_with(RemoteOptions::default(), Some(config));
    let artifact = network.resolve(&source(&server)).unwrap();
    assert_eq!(read(network.blob(&artifact.source, layer(&artifact))).unwrap(), CONTENT);
    let seen = server.seen();
    assert_eq!(seen[1].target, "/token?a=b&service=s&scope=repository%3Ar%3Apull");
    let sent: Vec<Option<&str>> = seen.iter().map(|seen| seen.authorization.as_deref()).collect();
    assert_eq!(sent, [None, Some(BASIC), Some("Bearer t"), Some("Bearer t")]);
    assert!(network.take_warnings().is_empty());
}

#[test]
fn a_refresh_token_is_posted_and_not_redirected() {
    let elsewhere = Server::new(|_| ok(r#"{"token":"t"}"#));
    let away = elsewhere.url("/token");
    let server = Server::new(move |seen| match (seen.target.as_str(), seen.authorization.as_deref()) {
        ("/token", _) if seen.text().contains("scope=repository%3Ar%3Apull") => ok(r#"{"token":"t"}"#),
        ("/token", _) => redirect(&away),
        (_, Some("Bearer t")) => ok(manifest(CONTENT)),
        _ => {
            let realm = format!(
                r#"Bearer realm="http://{}/token",scope="repository:{}:pull""#,
                seen.host,
                if seen.target.contains("/r/") { "r" } else { "away" }
            );
            header(status(401), "www-authenticate", &realm)
        }
    });
    let (_directory, config) = identity_token_at(&server.host, "refresh");
    let network = network_with(RemoteOptions::default(), Some(config));
    network.resolve(&source(&server)).unwrap();
    let posted = server.seen().into_iter().find(|seen| seen.target == "/token").unwrap();
    assert_eq!((posted.method.as_str(), posted.authorization.as_deref()), ("POST", None));
    assert!(
        posted.text().contains("refresh_token=refresh") && posted.text().contains("grant_type=refresh_token")
    );
    let other = ArtifactSource::parse(&format!("{}/x:2", server.host), "1").unwrap();
    assert!(matches!(
        network.resolve(&other).unwrap_err(),
        SourceError::Remote(RemoteError::Status { status: 307, .. })
    ));
    assert!(elsewhere.seen().is_empty(), "{:?}", elsewhere.seen());
}

#[test]
fn an_identity_token_that_a_token_service_repeats_is_not_shown() {
    let server = Server::new(|seen| match seen.target.as_str() {
        "/token" => {
            let said = format!(r#"{{"errors":[{{"code":"DENIED","message":"bad {}"}}]}}"#, seen.text());
            with(ok(said), 400)
        }
        _ => {
            let challenge = format!(r#"Bearer realm="http://{}/token""#, seen.host);
            header(status(401), "www-authenticate", &challenge)
        }
    });
    let (_directory, config) = identity_token_at(&server.host, "s3cret/t0ken");
    let network = network_with(RemoteOptions::default(), Some(config));
    let shown = format!("{} {:?}", network.resolve(&source(&server)).unwrap_err(), network.take_warnings());
    assert!(shown.contains("refresh_token=…"), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn a_failure_behind_a_redirect_names_the_host_that_failed() {
    let closed = ClosedPort::new();
    let to = format!("http://{}/storage", closed.address());
    let server = serving_blob(move |_| redirect(&to));
    let error = network().blob(&source(&server), &descriptor(CONTENT)).map(|_| ()).unwrap_err();
    let SourceError::Remote(RemoteError::Unreachable { host, .. }) = &error else { panic!("{error}") };
    assert_eq!(*host, closed.address());
}

#[test]
fn rejected_credentials_do_not_block_access_to_public_data() {
    let server = Server::new(|seen| match (seen.target.as_str(), seen.authorization.as_deref()) {
        (path, Some(_)) if path.starts_with("/token") => status(403),
        (path, None) if path.starts_with("/token") => ok(r#"{"token":"t"}"#),
        (_, Some("Bearer t")) => ok(manifest(CONTENT)),
        _ => {
            let challenge = format!(r#"Bearer realm="http://{}/token""#, seen.host);
            header(status(401), "www-authenticate", &challenge)
        }
    });
    let (_directory, config) = login_at(&server.host);
    let network = network_with(RemoteOptions::default(), Some(config));
    network.resolve(&source(&server)).unwrap();
    let warnings = network.take_warnings();
    assert!(warnings.len() == 1 && warnings[0].contains(&server.host), "{warnings:?}");
    assert!(network.take_warnings().is_empty());
}

#[test]
fn basic_logins_work_without_a_token_service() {
    let server = Server::new(|seen| match seen.authorization.as_deref() {
        Some(BASIC) => ok(manifest(CONTENT)),
        _ => header(status(401), "www-authenticate", r#"Basic realm="x""#),
    });
    let (_directory, config) = login_at(&server.host);
    network_with(RemoteOptions::default(), Some(config)).resolve(&source(&server)).unwrap();
    let error = network().resolve(&source(&server)).unwrap_err();
    assert!(matches!(error, SourceError::Remote(RemoteError::Denied { status: 401, .. })), "{error}");
    assert!(error.hint().contains(&format!("docker login {}", server.host)));
}

#[test]
fn nothing_secret_follows_a_redirect_to_another_host() {
    let cdn = Server::new(|_| ok(CONTENT));
    let to = cdn.url("/file?signature=x");
    let server = Server::new(move |seen| {
        if seen.authorization.as_deref() != Some(BASIC) {
            header(status(401), "www-authenticate", r#"Basic realm="x""#)
        } else if seen.target.contains("/manifests/") {
            ok(manifest(CONTENT))
        } else {
            redirect(&to)
        }
    });
    let (_directory, config) = login_at(&server.host);
    let network = network_with(RemoteOptions::default(), Some(config));
    let artifact = network.resolve(&source(&server)).unwrap();
    assert_eq!(read(network.blob(&artifact.source, layer(&artifact))).unwrap(), CONTENT);
    assert_eq!(server.seen().last().unwrap().authorization.as_deref(), Some(BASIC));
    let seen = cdn.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].authorization, None);
}

#[test]
fn a_challenge_from_behind_a_redirect_is_not_answered() {
    let evil = Server::new(|seen| match seen.target.as_str() {
        "/catch" => {
            let challenge = format!(r#"Bearer realm="http://{}/token""#, seen.host);
            header(status(401), "www-authenticate", &challenge)
        }
        _ => ok(r#"{"token":"t"}"#),
    });
    let to = evil.url("/catch");
    let server = Server::new(move |_| redirect(&to));
    let (_directory, config) = login_at(&server.host);
    let error = network_with(RemoteOptions::default(), Some(config)).resolve(&source(&server)).unwrap_err();
    assert!(
        matches!(&error, SourceError::Remote(RemoteError::Elsewhere { by, .. }) if *by == evil.host),
        "{error}"
    );
    assert_eq!(evil.seen().len(), 1, "its token service is not asked: {:?}", evil.seen());
}

#[test]
fn an_evil_token_service_gets_no_password() {
    let evil = Server::new(|_| ok(r#"{"token":"t"}"#));
    // The same machine under another name: for a client it is another host.
    let realm = format!(r#"Bearer realm="http://localhost:{}/token""#, evil.host.rsplit(':').next().unwrap());
    let server = Server::new(move |_| header(status(401), "www-authenticate", &realm));
    let (_directory, config) = login_at(&server.host);
    let error = network_with(RemoteOptions::default(), Some(config)).resolve(&source(&server)).unwrap_err();
    assert!(matches!(error, SourceError::Remote(RemoteError::Realm { .. })), "{error}");
    assert!(evil.seen().is_empty());
}

#[test]
fn errors_name_the_status_and_the_message_of_the_registry() {
    let said = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no \u001b[2Jsuch"}]}"#;
    let error = resolve_error(move |_| with(ok(said), 404));
    assert!(
        matches!(&error, SourceError::Remote(RemoteError::NotFound { said, .. }) if said == "MANIFEST_UNKNOWN, no \\u{1b}[2Jsuch")
    );
    let error = resolve_error(|_| status(401));
    assert!(matches!(error, SourceError::Remote(RemoteError::Denied { status: 401, .. })));
    let error = resolve_error(|_| status(403));
    assert!(matches!(error, SourceError::Remote(RemoteError::Denied { status: 403, .. })));
    let error = resolve_error(|_| header(status(429), "retry-after", "17"));
    assert!(
        matches!(error, SourceError::Remote(RemoteError::RateLimited { retry_after: Some(time), .. }) if time.as_secs() == 17)
    );
    let error = resolve_error(|_| status(500));
    assert!(matches!(error, SourceError::Remote(RemoteError::Status { status: 500, .. })));
    assert!(error.hint().contains("later"));
}

#[test]
fn answers_that_are_not_manifests_are_rejected() {
    let error = resolve_error(|_| header(ok("<html>login"), "content-type", "text/html; charset=utf-8"));
    assert!(matches!(error, SourceError::Remote(RemoteError::Html { .. })), "{error}");
    let error = resolve_error(|_| ok(" <!DOCTYPE html>"));
    assert!(matches!(error, SourceError::Remote(RemoteError::Html { .. })), "{error}");
    let error = resolve_error(|_| ok(vec![b' '; oci::MAX_MANIFEST as usize + 1]));
    assert!(matches!(error, SourceError::Remote(RemoteError::TooLarge { .. })), "{error}");
    let error = resolve_error(|_| chunked(vec![&[b' '; 1 << 20]; 5]));
    assert!(matches!(error, SourceError::Remote(RemoteError::TooLarge { .. })), "{error}");
    let error = resolve_error(|_| ok(r#"{"schemaVersion":2,"manifests":[]}"#));
    assert!(error.to_string().contains("index"), "{error}");
    let other = Digest::of(b"other").to_string();
    let error = resolve_error(move |_| header(ok(manifest(CONTENT)), "docker-content-digest", &other));
    assert!(matches!(error, SourceError::Digest { .. }), "{error}");
    let server = Server::new(|_| ok(manifest(CONTENT)));
    let pinned = format!("{}/r@{}", server.host, Digest::of(b"other"));
    let error = network().resolve(&ArtifactSource::parse(&pinned, "2").unwrap()).unwrap_err();
    assert!(matches!(error, SourceError::Digest { .. }), "{error}");
}

#[test]
fn blobs_that_differ_are_errors() {
    let error = blob_error(&serving_blob(|_| breaking(b"the", CONTENT.len())));
    assert!(matches!(error, SourceError::Remote(RemoteError::Lost { got: 3, .. })), "{error}");
    let error = blob_error(&serving_blob(|_| chunked(vec![b"the "])));
    assert!(matches!(error, SourceError::Short { got: 4, wanted: 19, .. }), "{error}");
    let error = blob_error(&serving_blob(|_| chunked(vec![CONTENT, b"!"])));
    assert!(matches!(error, SourceError::Long { .. }), "{error}");
    let error = blob_error(&serving_blob(|_| ok("another layer's one")));
    assert!(matches!(error, SourceError::Digest { .. }), "{error}");
    let error = blob_error(&serving_blob(|_| ok("short")));
    assert!(matches!(error, SourceError::Length { announced: 5, .. }), "{error}");
    let error = blob_error(&serving_blob(|_| header(ok("<html>"), "content-type", "text/html")));
    assert!(matches!(error, SourceError::Remote(RemoteError::Html { .. })), "{error}");
    let error = blob_error(&serving_blob(|_| with(ok(CONTENT), 206)));
    assert!(matches!(error, SourceError::Remote(RemoteError::Status { status: 206, .. })), "{error}");
}

#[test]
fn the_last_piece_of_a_wrong_blob_is_not_returned() {
    let server = serving_blob(|_| ok("another layer's one"));
    let network = network();
    let mut blob = network.blob(&source(&server), &descriptor(CONTENT)).unwrap();
    let mut out = [0; 64];
    assert!(blob.read(&mut out).is_err());
    assert!(blob.read(&mut out).is_err(), "every read after an error fails");
}

#[test]
fn a_transfer_that_stalls_fails() {
    let server = serving_blob(|_| stalling(b"the", CONTENT.len()));
    let hasty = network_that_soon_gives_up();
    let mut blob = hasty.blob(&source(&server), &descriptor(CONTENT)).unwrap();
    let error = SourceError::from_io(blob.read_to_end(&mut Vec::new()).unwrap_err()).unwrap();
    assert!(matches!(error, SourceError::Remote(RemoteError::Stalled { got: ..=3, .. })), "{error}");
    // No connection is accepted, so neither TLS nor HTTP gets an answer.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut network = network();
    network.remote.http.timeouts.connect = Duration::from_millis(200);
    network.remote.http.timeouts.first_byte = Duration::from_millis(400);
    let source = format!("{}/r:2", listener.local_addr().unwrap());
    let error = network.resolve(&ArtifactSource::parse(&source, "2").unwrap()).unwrap_err();
    let timed_out = |e: &SourceError| {
        matches!(e, SourceError::Remote(RemoteError::Unreachable { why: Unreachable::Timeout(_), .. }))
    };
    assert!(timed_out(&error), "{error}");
}

#[test]
fn a_body_that_stalls_until_the_deadline_ends_with_it() {
    let server = serving_blob(|_| stalling(b"the", CONTENT.len()));
    let limits = RetryLimits { deadline: Some(Duration::from_secs(1)), ..RetryLimits::default() };
    let network = Network::new(RemoteOptions::default(), limits.begin(), &Silent).unwrap();
    let error = read(network.blob(&source(&server), &descriptor(CONTENT))).unwrap_err();
    let SourceError::Remote(RemoteError::Deadline { deadline, host: Some(host) }) = error else {
        panic!("{error}");
    };
    assert_eq!((Some(deadline), host), (limits.deadline, server.host.clone()));
}

#[test]
fn a_transfer_that_is_too_slow_fails_like_one_that_stalls() {
    // Fast bytes before the stall do not extend the limit.
    for start in [0, 100_000] {
        // The complete blob would take at least 1 minute.
        drips(start, start + 6000);
    }
}

fn drips(start: usize, length: usize) {
    let server = serving_blob(move |_| dripping(start, length));
    let network = network_that_soon_gives_up();
    let mut blob = network.blob(&source(&server), &descriptor(&vec![b'x'; length])).unwrap();
    let error = SourceError::from_io(blob.read_to_end(&mut Vec::new()).unwrap_err()).unwrap();
    assert!(matches!(error, SourceError::Remote(RemoteError::Stalled { .. })), "{error}");
}

#[test]
fn hosts_that_do_not_answer_are_named() {
    let closed = ClosedPort::new();
    let free = closed.address();
    let source = ArtifactSource::parse(&format!("{free}/r:2"), "2").unwrap();
    let error = network().resolve(&source).unwrap_err();
    assert!(
        matches!(error, SourceError::Remote(RemoteError::Unreachable { why: Unreachable::Refused, .. })),
        "{error}"
    );
    assert!(error.to_string().contains(&free));
    let plain = RemoteOptions { plain_http: true, ..Default::default() };
    let source = ArtifactSource::parse("no-such-host.invalid/r:2", "2").unwrap();
    let error = network_with(plain, None).resolve(&source).unwrap_err();
    assert!(
        matches!(error, SourceError::Remote(RemoteError::Unreachable { why: Unreachable::Name, .. })),
        "{error}"
    );
}

#[test]
fn certificates_are_verified_unless_insecure() {
    let (server, certificate) = tls_server(manifest(CONTENT));
    let source = ArtifactSource::parse(&format!("{}/r:2", server.host), "2").unwrap();
    let error = network().resolve(&source).unwrap_err();
    assert!(matches!(error, SourceError::Remote(RemoteError::Certificate { .. })), "{error}");
    assert!(error.hint().contains("--cacert"));
    let insecure = RemoteOptions { insecure: true, ..Default::default() };
    network_with(insecure, None).resolve(&source).unwrap();
    let directory = crate::util::fs::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    crate::util::fs::put(&path, format!("# a remark\n{certificate}"));
    let trusting = RemoteOptions { ca_cert: Some(path), ..Default::default() };
    network_with(trusting, None).resolve(&source).unwrap();
}

#[test]
fn a_ca_file_without_certificates_is_a_usage_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for text in [None, Some(""), Some("garbage"), Some(broken)] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let options = RemoteOptions { ca_cert: Some(path.clone()), ..Default::default() };
        let Err(error) = Network::new(options, RetryLimits::default().begin(), &Silent) else {
            panic!("{text:?} is accepted as a CA file")
        };
        assert!(error.is_usage(), "{text:?}: {error}");
    }
}
