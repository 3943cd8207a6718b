//! Registries that reject or mishandle a push in all possible ways. Each failure has one sentence
//! that names the failure and one with the next step, and no tag names incomplete content.

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use test_kit::answers::{header, ok, status};
use test_kit::authority::{Authority, NAME};
use test_kit::http::{Body, ClosedPort, Method, Response, Seen, each_connection, read_head, relay};
use test_kit::process::Run;
use test_kit::registry::Registry;

use crate::forge::{self, Bundle, Host, Part, days};

/// Returns a host with a bundle of all datasets.
fn importer() -> (Host, PathBuf) {
    let host = Host::new();
    let bundle = Bundle::of(days(-1), &Part::all(days(-1)));
    let path = host.file("bundle.tar", bundle.signed(&host.key));
    (host, path)
}

/// Pushes into a registry.
fn push(host: &Host, bundle: &std::path::Path, registry: &str) -> Run {
    push_to(host, bundle, &format!("{registry}/p"))
}

/// Pushes into these places.
fn push_to(host: &Host, bundle: &std::path::Path, places: &str) -> Run {
    let (key, state) = (host.at("keys/exporter.pub"), host.at("state"));
    let bundle = bundle.to_str().unwrap();
    let import = ["import", bundle, "--trust", &key, "--state-dir", &state, "--registry", places];
    host.run(&[&import[..], &ONCE].concat())
}

/// The flags for no retry, because these failures are permanent.
const ONCE: [&str; 2] = ["--retries", "0"];

fn is_upload(seen: &Seen) -> bool {
    seen.method == Method::POST
}

fn is_blob(seen: &Seen) -> bool {
    seen.method == Method::PUT && seen.path.contains("/blobs/")
}

fn is_manifest(seen: &Seen) -> bool {
    seen.method == Method::PUT && seen.path.contains("/manifests/")
}

const ALL: [&str; 3] = ["p/trivy-checks:2", "p/trivy-db:2", "p/trivy-java-db:1"];

#[test]
fn a_good_registry_gets_everything_once() {
    let (host, bundle) = importer();
    let registry = Registry::new(|_| None);
    push(&host, &bundle, &registry.host).good();
    assert_eq!(registry.tags(), ALL);
    let sent = |registry: &Registry| registry.seen().iter().filter(|seen| is_blob(seen)).count();
    let first = sent(&registry);
    // There are three layers and one configuration for all three datasets, which is mounted into
    // the other repositories.
    assert_eq!(first, 4);
    let mounted = registry.seen().iter().filter(|seen| seen.query.starts_with("mount=")).count();
    assert_eq!(mounted, 2);
    // A tag is pushed after everything that its manifest names.
    let seen = registry.seen();
    let last_blob = seen.iter().rposition(is_blob).unwrap();
    assert!(seen.iter().position(is_manifest).unwrap() > last_blob, "tags are pushed last");
    push(&host, &bundle, &registry.host).good();
    assert_eq!(sent(&registry), first, "nothing is sent twice");
    // The blobs exist, but the tags were removed, so only the tags are pushed.
    registry.forget_tags();
    push(&host, &bundle, &registry.host).good();
    assert_eq!((sent(&registry), registry.tags().len()), (first, 3));
}

/// Returns the number of uploads into the repositories below `prefix`, and the number of those that
/// began as a mount.
fn uploads(registry: &Registry, prefix: &str) -> (usize, usize) {
    let below = format!("/v2/{prefix}/");
    let begun = registry.seen().into_iter().filter(|seen| is_upload(seen) && seen.path.starts_with(&below));
    let mounts: Vec<bool> = begun.map(|seen| seen.query.starts_with("mount=")).collect();
    (mounts.len(), mounts.iter().filter(|mount| **mount).count())
}

#[test]
fn blobs_of_one_place_are_mounted_into_the_next_on_the_same_host() {
    let (host, bundle) = importer();
    let (registry, other) = (Registry::new(|_| None), Registry::new(|_| None));
    let places = format!("{0}/a,{1}/elsewhere,{0}/b", registry.host, other.host);
    push_to(&host, &bundle, &places).good();
    // There are three layers, and one configuration in each of three repositories.
    assert_eq!(uploads(&registry, "b"), (6, 6), "{:#?}", registry.seen());
    assert!(!registry.seen().iter().any(|seen| is_blob(seen) && seen.path.starts_with("/v2/b/")));
    assert_eq!(registry.tags().iter().filter(|tag| tag.starts_with("b/")).count(), 3);
    // Another host cannot mount blobs of this one.
    assert!(other.seen().iter().all(|seen| !seen.query.contains("from=a/")), "{:#?}", other.seen());
    // Blobs that the first place has already are mounted as well.
    push_to(&host, &bundle, &format!("{0}/a,{0}/c", registry.host)).good();
    assert_eq!(uploads(&registry, "c").1, 6, "{:#?}", registry.seen());
}

#[test]
fn a_mount_that_is_rejected_becomes_an_upload() {
    for code in [400, 401, 403, 404, 405, 500] {
        println!("{code}");
        let (host, bundle) = importer();
        let registry = Registry::new(move |seen| seen.query.starts_with("mount=").then(|| status(code)));
        push(&host, &bundle, &registry.host).good();
        assert_eq!(registry.tags(), ALL);
    }
}

/// Reading needs no login, writing needs one, and mounts are rejected (issues 217 and 328 of
/// sonatype/nexus-public, 219 and 778 of getnora-io/nora; pull requests 204 and 206 of the
/// distribution specification: a registry that cannot mount begins an upload).
#[test]
fn a_registry_with_anonymous_reads_and_a_login_for_writes_gets_all_data() {
    for (mounts, bearer) in [(false, false), (false, true), (true, false), (true, true)] {
        println!("mounts {mounts}, bearer {bearer}");
        let (host, bundle) = importer();
        let own = Arc::new(Mutex::new(String::new()));
        let address = own.clone();
        let registry = Registry::new(move |seen| {
            let basic = seen.authorization.as_deref() == Some("Basic dXNlcjpzZXNhbWU=");
            if seen.path == "/token" {
                return Some(if basic { Response::new(Body::from(r#"{"token":"t"}"#)) } else { status(401) });
            }
            let reads = matches!(seen.method, Method::GET | Method::HEAD);
            let writes = if bearer { seen.authorization.as_deref() == Some("Bearer t") } else { basic };
            if !reads && !writes {
                let asks = match bearer {
                    true => format!(r#"Bearer realm="http://{}/token",service="s""#, address.lock().unwrap()),
                    false => r#"Basic realm="r""#.to_owned(),
                };
                return Some(header(status(401), "www-authenticate", &asks));
            }
            let begins = !mounts && seen.query.starts_with("mount=");
            begins.then(|| header(status(202), "location", &format!("{}1?state=x", seen.path)))
        });
        own.lock().unwrap().clone_from(&registry.host);
        let config = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZXNhbWU="}}}}}}"#, registry.host);
        host.file("home/.docker/config.json", config);
        push_to(&host, &bundle, &format!("{0}/p,{0}/q", registry.host)).good();
        assert_eq!(registry.tags().len(), 2 * ALL.len(), "{:#?}", registry.tags());
    }
}

/// Other clients accept these statuses as success (containers/image, issue 381 and pull request
/// 382: Quay answered 202; containerd, pull request 3750).
#[test]
fn any_success_status_for_a_stored_manifest_is_accepted() {
    for code in [200, 201, 202] {
        let (host, bundle) = importer();
        let registry = Registry::new(|_| None);
        registry.answer_manifests_with(code);
        push(&host, &bundle, &registry.host).good();
        assert_eq!(registry.tags(), ALL, "{code}");
    }
    // These registries did not store the manifest, so it is missing afterwards.
    for code in [202, 204, 302] {
        let (host, bundle) = importer();
        let registry = Registry::new(move |seen| is_manifest(seen).then(|| status(code)));
        push(&host, &bundle, &registry.host).exits(7);
        assert!(registry.tags().is_empty(), "{code}");
    }
}

/// A registry behind a proxy that terminates TLS and does not set `X-Forwarded-Proto`: the registry
/// returns `http://` URLs (issues 3933, 20530 and 3114 of goharbor/harbor).
#[test]
fn http_urls_of_a_registry_behind_a_tls_proxy_are_corrected() {
    let authority = Authority::new();
    for with_port in [false, true] {
        let (host, bundle) = importer();
        let ca = host.file("ca.pem", &authority.pem);
        let own = Arc::new(Mutex::new(String::new()));
        let address = own.clone();
        let registry = Registry::over(Some(authority.server(false)), move |seen| {
            let name = match with_port {
                true => address.lock().unwrap().clone(),
                false => "127.0.0.1".to_owned(),
            };
            if seen.path == "/token" {
                return Some(Response::new(Body::from(r#"{"token":"t"}"#)));
            }
            if seen.authorization.is_none() {
                let asks = format!(r#"Bearer realm="http://{name}/token",service="s""#);
                return Some(header(status(401), "www-authenticate", &asks));
            }
            let location = format!("http://{name}{}1?state=x", seen.path);
            is_upload(seen).then(|| header(status(202), "location", &location))
        });
        own.lock().unwrap().clone_from(&registry.host);
        let (key, state) = (host.at("keys/exporter.pub"), host.at("state"));
        let (bundle, ca) = (bundle.to_str().unwrap(), ca.to_str().unwrap());
        let place = format!("{}/p", registry.host);
        let import = ["import", bundle, "--trust", &key, "--state-dir", &state, "--registry", &place];
        host.run(&[&import[..], &["--cacert", ca]].concat()).good();
        assert_eq!(registry.tags(), ALL);
    }
    // A URL of another host is not corrected.
    let (host, bundle) = importer();
    let ca = host.file("ca.pem", &authority.pem);
    let registry = Registry::over(Some(authority.server(false)), |seen| {
        is_upload(seen).then(|| header(status(202), "location", "http://elsewhere.test/uploads/1"))
    });
    let (key, state) = (host.at("keys/exporter.pub"), host.at("state"));
    let (bundle, ca) = (bundle.to_str().unwrap(), ca.to_str().unwrap());
    let import = ["import", bundle, "--trust", &key, "--state-dir", &state, "--registry", &registry.host];
    host.run(&[&import[..], &["--cacert", ca]].concat())
        .exits(7)
        .warns("http://elsewhere.test/uploads/1 is plain HTTP")
        .warns("X-Forwarded-Proto");
    assert!(registry.tags().is_empty());
}

/// GHCR, Docker Hub and registries on object stores return a manifest only some time after they
/// have stored it (issue 429 of p2pool-starter-stack/pithead, 857 of
/// int128/docker-manifest-create-action; pull request 220 of openshift/image-registry: up to 3 s).
#[test]
fn a_registry_may_return_a_stored_manifest_with_a_delay() {
    let (host, bundle) = importer();
    let pushed: Mutex<Vec<String>> = Mutex::default();
    let registry = Registry::new(move |seen| {
        if !seen.path.contains("/manifests/") {
            return None;
        }
        let mut pushed = pushed.lock().unwrap();
        if is_manifest(seen) {
            // The next two requests do not get it: the first gets status 404, and the second an old
            // manifest.
            pushed.extend([seen.path.clone(), seen.path.clone()]);
            return None;
        }
        let hidden = pushed.iter().position(|path| *path == seen.path)?;
        pushed.remove(hidden);
        Some(match pushed.contains(&seen.path) {
            true => status(404),
            false => Response::new(Body::from(r#"{"schemaVersion":2}"#)),
        })
    });
    push(&host, &bundle, &registry.host).good();
    assert_eq!(registry.tags(), ALL);
}

#[test]
fn each_rejection_has_a_hint() {
    type Where = fn(&Seen) -> bool;
    let cases: [(Where, u16, &str, &str); 12] = [
        (is_upload, 401, "status 401", "docker login"),
        (is_upload, 403, "status 403", "may push"),
        (is_upload, 404, "status 404", "Create the project"),
        (is_upload, 429, "limits the rate of requests", "Wait"),
        (is_upload, 500, "status 500", "could not store the data"),
        (is_upload, 502, "status 502", "run the command again later"),
        (is_blob, 413, "status 413", "client_max_body_size"),
        (is_blob, 507, "status 507", "check its disk"),
        (is_blob, 503, "status 503", "it skips existing data"),
        (is_manifest, 412, "status 412", "immutable"),
        (is_manifest, 400, "status 400", "rejected the data"),
        (is_manifest, 403, "status 403", "may push"),
    ];
    for (place, code, what, next) in cases {
        println!("{code}");
        let (host, bundle) = importer();
        let registry = Registry::new(move |seen| place(seen).then(|| status(code)));
        let ran = push(&host, &bundle, &registry.host);
        assert_eq!(ran.code, 7, "{ran:#?}");
        assert!(ran.err.contains(what) && ran.err.contains(next), "{ran:#?}");
        assert!(registry.tags().is_empty(), "{:?}", registry.tags());
        // The rejected bundle does not count as accepted, so it can be pushed into another
        // registry.
        let good = Registry::new(|_| None);
        push(&host, &bundle, &good.host).good();
        assert_eq!(good.tags(), ALL);
    }
}

#[test]
fn a_failure_of_one_dataset_does_not_affect_the_others() {
    let (host, bundle) = importer();
    let registry =
        Registry::new(|seen| (is_blob(seen) && seen.path.contains("trivy-java-db")).then(|| status(413)));
    let ran = push(&host, &bundle, &registry.host);
    ran.exits(7)
        .prints("trivy-db        pushed")
        .prints("trivy-java-db   failed")
        .prints("trivy-checks    pushed");
    assert!(ran.err.contains("client_max_body_size"), "{ran:#?}");
    assert_eq!(registry.tags(), ["p/trivy-checks:2", "p/trivy-db:2"]);
    // The next run sends only the missing data.
    let before = registry.seen().iter().filter(|seen| is_manifest(seen)).count();
    assert_eq!(push(&host, &bundle, &registry.host).code, 7);
    assert_eq!(registry.seen().iter().filter(|seen| is_manifest(seen)).count(), before);
}

#[test]
fn uploads_follow_the_location_of_the_registry_and_the_login_does_not() {
    let (host, bundle) = importer();
    let storage = Registry::new(|_| None);
    let elsewhere = storage.host.clone();
    let registry = Registry::new(move |seen| {
        if seen.authorization.is_none() {
            return Some(header(status(401), "www-authenticate", "Basic realm=\"r\""));
        }
        is_upload(seen)
            .then(|| header(status(202), "location", &format!("http://{elsewhere}/v2/x/blobs/uploads/1")))
    });
    let auth = "dXNlcjpzZXNhbWU="; // user:sesame
    let config = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.host);
    host.file("home/.docker/config.json", config);
    // The registry never finds the blobs, so that all are sent to the other host.
    let ran = push(&host, &bundle, &registry.host);
    ran.good();
    assert_eq!(registry.tags(), ALL);
    let there: Vec<Seen> = storage.seen();
    assert!(!there.is_empty() && there.iter().all(|seen| seen.authorization.is_none()), "{there:#?}");
    assert!(there.iter().all(|seen| seen.host == storage.host));
    assert!(
        !ran.out.contains("sesame") && !ran.err.contains("sesame") && !ran.err.contains(auth),
        "{ran:#?}"
    );
}

#[test]
fn an_upload_without_a_usable_location_fails() {
    for location in [None, Some("ftp://127.0.0.1/x"), Some("http://[::bad")] {
        println!("{location:?}");
        let (host, bundle) = importer();
        let registry = Registry::new(move |seen| {
            is_upload(seen).then(|| match location {
                Some(location) => header(status(202), "location", location),
                None => status(202),
            })
        });
        let ran = push(&host, &bundle, &registry.host);
        assert!(
            ran.code == 7 && ran.err.contains("did not return a usable upload URL in Location"),
            "{ran:#?}"
        );
        assert!(registry.tags().is_empty());
    }
    // Redirects of requests that change something are not followed.
    let (host, bundle) = importer();
    let other = Registry::new(|_| None);
    let to = format!("http://{}/v2/x/blobs/uploads/", other.host);
    let registry = Registry::new(move |seen| is_upload(seen).then(|| header(status(307), "location", &to)));
    assert_eq!(push(&host, &bundle, &registry.host).code, 7);
    assert!(other.seen().is_empty());
}

#[test]
fn an_upload_that_failed_is_canceled_at_the_registry_and_nowhere_else() {
    let deleted = |registry: &Registry| {
        let seen = registry.seen().into_iter().filter(|seen| seen.method == Method::DELETE);
        seen.map(|seen| (seen.path, seen.query)).collect::<Vec<_>>()
    };
    // As in distribution, the location changes with each state of an upload.
    let (host, bundle) = importer();
    let registry = Registry::new(|seen| {
        let asked = seen.method == Method::GET && seen.path.ends_with("/uploads/1");
        let asked = asked.then(|| header(status(204), "location", &format!("{}?state=last", seen.path)));
        asked.or_else(|| (is_blob(seen) && seen.path.contains("trivy-db")).then(|| status(500)))
    });
    assert_eq!(push(&host, &bundle, &registry.host).code, 7);
    assert_eq!(deleted(&registry), [("/v2/p/trivy-db/blobs/uploads/1".to_owned(), "state=last".to_owned())]);
    assert_eq!(registry.tags(), ["p/trivy-checks:2", "p/trivy-java-db:1"]);

    let (host, bundle) = importer();
    let other = Registry::new(|seen| is_blob(seen).then(|| status(500)));
    let to = format!("http://{}/v2/x/blobs/uploads/1", other.host);
    let registry = Registry::new(move |seen| is_upload(seen).then(|| header(status(202), "location", &to)));
    assert_eq!(push(&host, &bundle, &registry.host).code, 7);
    assert!(other.seen().iter().any(is_blob) && deleted(&other).is_empty(), "{:#?}", other.seen());
}

#[test]
fn a_tag_that_names_another_manifest_after_the_push_is_an_error() {
    let (host, bundle) = importer();
    let registry = Registry::new(|seen| {
        let read_back = seen.method == Method::GET && seen.path.ends_with("trivy-db/manifests/2");
        read_back.then(|| Response::new(Body::from(r#"{"schemaVersion":2}"#)))
    });
    push(&host, &bundle, &registry.host)
        .exits(7)
        .prints("trivy-db        failed")
        .prints("trivy-java-db   pushed");
}

#[test]
fn a_registry_that_fails_during_an_upload_has_no_tag() {
    let (host, bundle) = importer();
    // The registry returns an upload location that refuses connections.
    let closed = ClosedPort::new();
    let upload = format!("http://{}/v2/x/blobs/uploads/1", closed.address());
    let registry =
        Registry::new(move |seen| is_upload(seen).then(|| header(status(202), "location", &upload)));
    let ran = push(&host, &bundle, &registry.host);
    assert_eq!(ran.code, 7, "{ran:#?}");
    assert!(ran.err.contains("cannot be reached"), "{ran:#?}");
    assert!(registry.tags().is_empty());
}

/// Artifactory with one host for each repository redirects to another host, which requires a login
/// (containerd/containerd, issues 6339 and 2628).
#[test]
fn a_login_that_a_redirect_target_requires_is_named() {
    for asks in ["Basic realm=\"r\"", "Bearer realm=\"https://auth.example/token\",service=\"s\""] {
        let (host, bundle) = importer();
        let behind = Registry::new(move |_| Some(header(status(401), "www-authenticate", asks)));
        let to = format!("http://{}", behind.host);
        let registry =
            Registry::new(move |seen| Some(header(status(307), "location", &format!("{to}{}", seen.path))));
        let config = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZXNhbWU="}}}}}}"#, registry.host);
        host.file("home/.docker/config.json", config);
        push(&host, &bundle, &registry.host)
            .exits(7)
            .warns(&format!("to {}, which requires its own login", behind.host))
            .warns(&format!("Give {} instead of {}", behind.host, registry.host));
        assert!(behind.seen().iter().all(|seen| seen.authorization.is_none()), "{:#?}", behind.seen());
        // The same error occurs for a source.
        let from = format!("{}/db:1", registry.host);
        let mirror = ["mirror", "--registry", &registry.host, "--only", "trivy-db", "--from-plain-http"];
        host.run(&[&mirror[..], &["--db-repository", &from], &ONCE].concat())
            .exits(3)
            .warns("which requires its own login");
    }
}

/// A registry redirects uploads to storage on another host, as clouds and CDNs do. The login is
/// only for the registry, even if that host requires one.
#[test]
fn a_storage_host_for_uploads_never_gets_the_login() {
    for bearer in [true, false] {
        let (host, bundle) = importer();
        let storage = Registry::new(move |seen| {
            let challenge = format!(r#"Bearer realm="http://{}/token",service="s""#, seen.host);
            let asks = if bearer { challenge } else { r#"Basic realm="r""#.into() };
            let is_token = seen.path.starts_with("/token");
            Some(if is_token {
                ok(r#"{"token":"evil"}"#)
            } else {
                header(status(401), "www-authenticate", &asks)
            })
        });
        let to = format!("http://{}", storage.host);
        let registry = Registry::new(move |seen| match &seen.authorization {
            None => Some(header(status(401), "www-authenticate", r#"Basic realm="r""#)),
            Some(_) => {
                is_upload(seen).then(|| header(status(202), "location", &format!("{to}{}1", seen.path)))
            }
        });
        let config = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZXNhbWU="}}}}}}"#, registry.host);
        host.file("home/.docker/config.json", config);
        let (key, place) = (host.at("keys/exporter.pub"), format!("{}/p", registry.host));
        let import = ["import", bundle.to_str().unwrap(), "--trust", &key, "--state-dir", "state"];
        let ran = host.run(&[&import[..], &["--registry", &place, "--retries", "3"]].concat());
        ran.exits(7).warns(&format!("to {}, which requires its own login", storage.host));
        assert!(!ran.err.contains(&format!("docker login {}", storage.host)), "{ran:#?}");
        assert!(!storage.seen().is_empty());
        for seen in storage.seen() {
            assert!(seen.authorization.is_none() && !seen.path.starts_with("/token"), "{seen:#?}");
        }
        let evil = |seen: &Seen| seen.authorization.as_ref().is_some_and(|header| header.contains("evil"));
        assert!(!registry.seen().iter().any(evil), "the token of the storage host is not for the registry");
    }
}

/// A registry that builds its URLs from the host name that a proxy uses for it (distribution,
/// issues 479 and 2225; goharbor/harbor, issue 61).
#[test]
fn an_unreachable_internal_upload_location_is_named() {
    let (host, bundle) = importer();
    let closed = ClosedPort::new();
    let inner = format!("http://{}", closed.address());
    let to = inner.clone();
    let registry = Registry::new(move |seen| {
        is_upload(seen).then(|| header(status(202), "location", &format!("{to}{}1?state=secret", seen.path)))
    });
    let ran = push(&host, &bundle, &registry.host);
    ran.exits(7)
        .warns(&format!("{} redirects the upload to {inner}/v2/p/", registry.host))
        .warns("which cannot be reached")
        .warns("uses a wrong external address");
    assert!(!ran.err.contains("secret"), "{ran:#?}");
    assert!(registry.tags().is_empty());
}

/// The token service of Harbor has a doubled slash in its URL if the external URL ends with a slash
/// (goharbor/harbor, issue 3114).
#[test]
fn the_url_of_a_token_service_with_a_doubled_slash_is_not_changed() {
    let (host, bundle) = importer();
    let own = Arc::new(Mutex::new(String::new()));
    let address = own.clone();
    let registry = Registry::new(move |seen| {
        if seen.path == "/v2//service/token" {
            return Some(Response::new(Body::from(r#"{"token":"t"}"#)));
        }
        let asks =
            format!(r#"Bearer realm="http://{}/v2//service/token",service="s""#, address.lock().unwrap());
        (seen.authorization.as_deref() != Some("Bearer t"))
            .then(|| header(status(401), "www-authenticate", &asks))
    });
    own.lock().unwrap().clone_from(&registry.host);
    push(&host, &bundle, &registry.host).good();
    assert_eq!(registry.tags(), ALL);
}

#[test]
fn a_token_is_requested_with_the_right_to_push() {
    let (host, bundle) = importer();
    let own = Arc::new(Mutex::new(String::new()));
    let address = own.clone();
    let registry = Registry::new(move |seen| {
        if seen.path == "/token" {
            let good = seen.authorization.as_deref() == Some("Basic dXNlcjpzZXNhbWU=")
                && seen.query.contains("pull%2Cpush");
            return Some(if good { Response::new(Body::from(r#"{"token":"t"}"#)) } else { status(401) });
        }
        let asks = format!(r#"Bearer realm="http://{}/token",service="s""#, address.lock().unwrap());
        (seen.authorization.as_deref() != Some("Bearer t"))
            .then(|| header(status(401), "www-authenticate", &asks))
    });
    own.lock().unwrap().clone_from(&registry.host);
    push(&host, &bundle, &registry.host).fails_with(7, &["docker login"]);
    let config = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZXNhbWU="}}}}}}"#, registry.host);
    host.file("home/.docker/config.json", config);
    push(&host, &bundle, &registry.host).good();
    assert_eq!(registry.tags(), ALL);
}

#[test]
fn a_token_for_a_mount_is_valid_for_both_repositories() {
    // One account can read all repositories, and the other can only use the repositories to which
    // it pushes.
    for (reads_elsewhere, sent) in [(true, 4), (false, 6)] {
        let (host, bundle) = importer();
        let own = Arc::new(Mutex::new(String::new()));
        let address = own.clone();
        let registry = Registry::new(move |seen| {
            let scopes = |query: &str| query.split("scope=").nth(1).unwrap().replace("%2F", "/");
            if seen.path == "/token" {
                let scopes = scopes(&seen.query);
                let both = scopes.matches("repository").count() > 1;
                let token = format!(r#"{{"token":"{scopes}"}}"#);
                return Some(if both && !reads_elsewhere {
                    status(401)
                } else {
                    Response::new(token.into())
                });
            }
            // As in distribution, a push needs both rights, and a mount also needs the right to
            // read the other repository.
            let token = seen.authorization.as_deref().unwrap_or_default();
            let path = seen.path.replace("/manifests/", "/blobs/");
            let own = path.trim_start_matches("/v2/").split("/blobs/").next().unwrap();
            let pushes = token.contains(&format!("{own}%3Apull%2Cpush"));
            let from = seen.query.split("from=").nth(1);
            let reads = from.is_none_or(|from| token.contains(&format!("{from}%3Apull")));
            let asks = format!(r#"Bearer realm="http://{}/token",service="s""#, address.lock().unwrap());
            (!pushes || !reads).then(|| header(status(401), "www-authenticate", &asks))
        });
        own.lock().unwrap().clone_from(&registry.host);
        push(&host, &bundle, &registry.host).good();
        assert_eq!(registry.tags(), ALL);
        let seen = registry.seen();
        assert_eq!(seen.iter().filter(|seen| is_blob(seen)).count(), sent, "{seen:#?}");
    }
}

#[test]
fn a_credential_helper_that_hangs_or_prints_invalid_output_is_ignored() {
    let (host, bundle) = importer();
    let registry = Registry::new(|seen| {
        seen.authorization.is_none().then(|| header(status(401), "www-authenticate", "Basic realm=\"r\""))
    });
    let scripts = [("hangs", "exec /bin/sleep 60"), ("raves", "echo '{\"Secret\": 17, sesame'")];
    for (name, line) in scripts {
        host.script(&format!("bin/docker-credential-{name}"), &format!("#!/bin/sh\n{line}\n"));
        let config = format!(r#"{{"credHelpers":{{"{}":"{name}"}}}}"#, registry.host);
        host.file("home/.docker/config.json", config);
        let mut command = host.command();
        command.env("PATH", host.path("bin")).args(["import", "--registry", &registry.host]).arg(&bundle);
        command.args(["--trust", &host.at("keys/exporter.pub"), "--state-dir", &host.at("state")]);
        let ran = forge::run(command);
        assert_eq!(ran.code, 7, "{ran:#?}");
        assert!(ran.err.contains("docker login") && !ran.err.contains("sesame"), "{ran:#?}");
        assert!(ran.err.contains("continuing without a login"), "{ran:#?}");
    }
}

#[test]
fn a_bundle_with_a_damaged_layer_creates_no_tag() {
    let (host, bundle) = importer();
    let mut bytes = std::fs::read(&bundle).unwrap();
    let layer = bytes.len() - 1024 - 700;
    bytes[layer] ^= 1;
    let damaged = host.file("damaged.tar", &bytes);
    let registry = Registry::new(|_| None);
    push(&host, &damaged, &registry.host).fails_with(4, &["does not match"]);
    assert!(registry.tags().is_empty());
    // A good bundle in the same directory is still pushed.
    let older = Bundle::of(days(-3), &Part::all(days(-3)));
    host.file("inbox/a.tar", older.signed(&host.key));
    host.file("inbox/b.tar", &bytes);
    let ran = push(&host, &host.path("inbox"), &registry.host);
    ran.exits(4).prints("trivy-db        pushed");
    assert_eq!(registry.tags(), ALL);
}

#[test]
fn older_data_is_rejected_for_a_registry_as_for_a_cache() {
    let (host, bundle) = importer();
    let registry = Registry::new(|_| None);
    push(&host, &bundle, &registry.host).good();
    let old = Bundle::of(days(-5), &Part::all(days(-5)));
    let old = host.file("old.tar", old.signed(&host.key));
    push(&host, &old, &registry.host).fails_with(5, &["old.tar", "--allow-rollback"]);
    // The older dataset of a newer bundle is skipped.
    let mixed = [Part::db(days(-4)), Part::java_db(hours_ago(2)), Part::checks("new")];
    let mixed = host.file("mixed.tar", Bundle::of(hours_ago(1), &mixed).signed(&host.key));
    let ran = push(&host, &mixed, &registry.host);
    ran.good().prints("trivy-db        skipped").prints("trivy-java-db   pushed").warns("--allow-rollback");
}

fn hours_ago(count: i64) -> jiff::Timestamp {
    forge::hours(-count)
}

#[test]
fn a_registry_with_a_false_success_status_does_not_affect_other_places() {
    let host = Host::new();
    let inbox = host.path("inbox");
    for age in [2, 1] {
        // The layer is so large that the response arrives before all of it has been sent.
        let layer: Vec<u8> =
            (0..8u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ age as u8).collect();
        let contents = Part::java_db(days(-age)).dataset.contents;
        let parts = [Part::db(days(-age)), Part::saying("trivy-java-db", "1", layer, contents)];
        host.file(&format!("inbox/{age}.tar"), Bundle::of(days(-age), &parts).signed(&host.key));
    }
    let evil = Registry::new(|seen| is_blob(seen).then(|| status(201)));
    let good = Registry::new(|_| None);
    let ran = push_to(&host, &inbox, &format!("{}/p,{}/p", evil.host, good.host));
    ran.exits(7).warns("claims to have it before it was sent");
    assert!(!evil.tags().contains(&"p/trivy-java-db:1".into()), "a dataset that was not sent gets no tag");
    let newest = Part::db(days(-1)).manifest;
    assert_eq!(good.manifest("p/trivy-db:2"), newest, "{ran:#?}");
}

/// Serves one connection as a registry with all blobs or none. Responds to a PUT to a path that
/// contains `part` before it has read the body. Closes the connection with unread bytes, so that
/// the system resets it.
fn answers_early(mut stream: TcpStream, part: &str, code: u16, blobs: u16) {
    loop {
        let Some(head) = read_head(&mut stream) else { return };
        let head = String::from_utf8(head).unwrap();
        let (method, path) = (head.split(' ').next().unwrap(), head.split(' ').nth(1).unwrap());
        let (status, location) = match method {
            "PUT" | "PATCH" if path.contains(part) => (code, String::new()),
            "POST" => (202, format!("location: {path}1\r\n")),
            "GET" | "HEAD" if path.contains("/blobs/sha256:") => (blobs, String::new()),
            "GET" | "HEAD" => (404, String::new()),
            _ => (500, String::new()),
        };
        let has_body = ["PUT", "PATCH"].contains(&method);
        if has_body {
            stream.peek(&mut [0]).unwrap();
        }
        let length = if method == "HEAD" { "" } else { "content-length: 0\r\n" };
        stream.write_all(format!("HTTP/1.1 {status} X\r\n{length}{location}\r\n").as_bytes()).unwrap();
        if has_body {
            return;
        }
    }
}

#[test]
fn the_response_of_a_registry_that_closes_before_it_has_read_the_body_is_reported() {
    let host = Host::new();
    // The layer is larger than the buffers of both ends.
    let layer: Vec<u8> = (0..8u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let contents = Part::java_db(days(-1)).dataset.contents;
    let parts = [Part::saying("trivy-java-db", "1", layer, contents)];
    let bundle = host.file("bundle.tar", Bundle::of(days(-1), &parts).signed(&host.key));
    for (part, code, blobs, words) in [
        ("/blobs/", 413, 404, ["status 413", "client_max_body_size"]),
        ("/blobs/", 403, 404, ["status 403", "may push"]),
        ("/blobs/", 507, 404, ["status 507", "check its disk"]),
        (
            "/blobs/",
            201,
            404,
            ["claims to have it before it was sent", "Check that the address is that of a registry"],
        ),
        ("/manifests/", 412, 200, ["status 412", "immutable"]),
    ] {
        let address = each_connection(move |stream| answers_early(stream, part, code, blobs));
        for _ in 0..5 {
            let ran = push(&host, &bundle, &address);
            assert_eq!(ran.code, 7, "{ran:#?}");
            assert!(words.iter().all(|word| ran.err.contains(word)), "{code}: {ran:#?}");
        }
    }
}

#[test]
fn no_password_is_sent_to_another_port_of_a_registry_over_plain_http() {
    let (host, bundle) = importer();
    let service = Registry::new(|_| Some(Response::new(Body::from(r#"{"token":"t"}"#))));
    for realm in [format!("http://{}/token", service.host), "http://[::ffff:7f00:1]:1/token".to_owned()] {
        let asks = format!(r#"Bearer realm="{realm}",service="s""#);
        let registry = Registry::new(move |seen| {
            (seen.authorization.is_none()).then(|| header(status(401), "www-authenticate", &asks))
        });
        // Even without a login, the registry could read the response of a service in the internal
        // network.
        let words = ["names the token service", realm.as_str(), "another host or port", "over HTTPS"];
        let ran = push(&host, &bundle, &registry.host);
        words.iter().fold(ran.exits(7), |ran, word| ran.warns(word));
        let config = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZXNhbWU="}}}}}}"#, registry.host);
        host.file("home/.docker/config.json", config);
        let ran = push(&host, &bundle, &registry.host);
        words.iter().fold(ran.exits(7), |ran, word| ran.warns(word));
        assert!(registry.seen().iter().all(|seen| seen.authorization.is_none()), "{:#?}", registry.seen());
    }
    assert!(service.seen().is_empty(), "{:#?}", service.seen());
}

#[test]
fn redirects_of_a_token_service_are_not_followed() {
    let (host, bundle) = importer();
    let internal = Registry::new(|_| Some(Response::new(Body::from(r#"{"token":"t"}"#))));
    let (own, to) = (Arc::new(Mutex::new(String::new())), format!("http://{}/token", internal.host));
    let address = own.clone();
    let registry = Registry::new(move |seen| {
        if seen.path == "/token" {
            return Some(header(status(302), "location", &to));
        }
        let asks = format!(r#"Bearer realm="http://{}/token",service="s""#, address.lock().unwrap());
        seen.authorization.is_none().then(|| header(status(401), "www-authenticate", &asks))
    });
    own.lock().unwrap().clone_from(&registry.host);
    push(&host, &bundle, &registry.host)
        .exits(7)
        .warns("names the token service")
        .warns("another host or port");
    assert!(internal.seen().is_empty(), "{:#?}", internal.seen());
    assert!(registry.seen().iter().all(|seen| seen.authorization.is_none()), "{:#?}", registry.seen());
}

/// Starts a proxy that requires a login and tunnels all connections to one place. Returns its
/// address.
fn tunnels_to(place: String) -> String {
    each_connection(move |mut client| {
        let Some(head) = read_head(&mut client) else { return };
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let is_known = head.contains("proxy-authorization: basic yw5uonnly3jlda=="); // ann:secret
        if !head.starts_with(&format!("connect {NAME}:")) || !is_known {
            let _ = client.write_all(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n");
            return;
        }
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        relay(client, TcpStream::connect(&place).unwrap());
    })
}

#[test]
fn uploads_use_a_proxy_as_all_other_requests_do() {
    let (host, bundle) = importer();
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&["client"]);
    let (ca, client) = (host.file("ca.pem", &authority.pem), host.file("client.pem", certificate + &key));
    let push = |variable: &str, proxy: &str, registry: &str, more: &[&str]| {
        let mut command = host.command();
        command.env(variable, format!("http://{proxy}")).args(["import", "--registry", registry]).args(more);
        command.args(["--trust", &host.at("keys/exporter.pub"), "--state-dir", &host.at("state")]);
        command.arg(&bundle);
        forge::run(command)
    };
    // With plain HTTP, the proxy gets the complete URL.
    let registry = Registry::new(|_| None);
    push("HTTP_PROXY", &registry.host, "r.example/p", &["--plain-http"]).good();
    assert_eq!(registry.tags(), ALL);
    assert!(registry.seen().iter().all(|seen| seen.host == "r.example"), "{:#?}", registry.seen());
    // With HTTPS, the proxy opens a tunnel, and the server requires a client certificate.
    let (ca, client) = (ca.to_str().unwrap(), client.to_str().unwrap());
    let flags = ["--cacert", ca, "--client-cert", client];
    let registry = Registry::over(Some(authority.server(true)), |_| None);
    let place = registry.host.replace("127.0.0.1", NAME) + "/p";
    let proxy = tunnels_to(registry.host.clone());
    push("HTTPS_PROXY", &proxy, &place, &flags).exits(7).warns("The proxy requires a login");
    push("HTTPS_PROXY", &format!("ann:secret@{proxy}"), &place, &flags).good();
    assert_eq!(registry.tags(), ALL);
    // Early responses are also received through TLS and a tunnel.
    let registry = Registry::over(Some(authority.server(true)), |seen| is_blob(seen).then(|| status(413)));
    let proxy = tunnels_to(registry.host.clone());
    for _ in 0..3 {
        let ran = push("HTTPS_PROXY", &format!("ann:secret@{proxy}"), &place, &flags);
        ran.exits(7).warns("status 413").warns("client_max_body_size");
    }
}

#[test]
fn a_remote_registry_cannot_redirect_to_an_address_of_this_host() {
    let (host, bundle) = importer();
    let own = Registry::new(|_| None);
    let port = own.host.rsplit(':').next().unwrap().to_owned();
    for (address, what) in [
        ("127.0.0.1", "an address of this host"),
        ("0.0.0.0", "an address of this host"),
        ("2130706433", "an address of this host"),
        ("[::ffff:127.0.0.1]", "an address of this host"),
        ("localhost", "an address of this host"),
        ("169.254.169.254", "a link-local address"),
    ] {
        println!("{address}");
        let place = format!("http://{address}:{port}/v2/x/blobs/uploads/1");
        // This server is both the proxy and the registry behind it.
        let proxy =
            Registry::new(move |seen| is_upload(seen).then(|| header(status(202), "location", &place)));
        let mut command = host.command();
        command.env("HTTP_PROXY", format!("http://{}", proxy.host)).args(["import", "--plain-http"]);
        command.args(["--registry", "r.example/p"]).arg(&bundle);
        command.args(["--trust", &host.at("keys/exporter.pub"), "--state-dir", &host.at("state")]);
        let ran = forge::run(command);
        assert!(
            ran.code == 7
                && ran.err.contains("r.example directs the request for blob")
                && ran.err.contains(what),
            "{ran:#?}"
        );
        assert!(proxy.seen().iter().all(|seen| seen.host == "r.example"), "{:#?}", proxy.seen());
    }
    assert!(own.seen().is_empty(), "{:#?}", own.seen());
}

#[test]
fn blobs_that_a_registry_has_lost_are_sent_again() {
    let (host, bundle) = importer();
    let registry = Registry::new(|_| None);
    push(&host, &bundle, &registry.host).good();
    let sent = |registry: &Registry| registry.seen().iter().filter(|seen| is_blob(seen)).count();
    let first = sent(&registry);
    assert!(first > 3, "{first}");
    registry.forget_blobs();
    push(&host, &bundle, &registry.host).good();
    assert_eq!(sent(&registry), 2 * first);
}

#[test]
fn a_damaged_blob_that_a_registry_keeps_is_named() {
    let (host, bundle) = importer();
    let asks = |seen: &Seen| {
        [Method::HEAD, Method::GET].contains(&seen.method) && seen.path.contains("/blobs/sha256:")
    };
    let registry = Registry::new(move |seen| asks(seen).then(|| header(status(200), "content-length", "1")));
    let ran = push(&host, &bundle, &registry.host);
    ran.exits(7)
        .warns("is damaged in the registry")
        .warns("did not replace it: it should have")
        .warns("Delete the blob");
    assert!(registry.tags().is_empty(), "{:?}", registry.tags());
}

#[test]
fn a_forbidden_repository_does_not_affect_others() {
    let (host, bundle) = importer();
    let registry = Registry::new(|seen| seen.path.contains("trivy-checks").then(|| status(403)));
    let ran = push(&host, &bundle, &registry.host);
    ran.exits(7)
        .prints("trivy-db        pushed")
        .prints("trivy-java-db   pushed")
        .prints("trivy-checks    failed");
    assert_eq!(registry.tags(), ["p/trivy-db:2", "p/trivy-java-db:1"]);
}

/// Returns a bundle with images beside its datasets. All images have the manifest of the checks of
/// this generation.
fn with_images(created: jiff::Timestamp, generation: &str, names: &[&str]) -> Bundle {
    let mut bundle = Bundle::of(created, &[Part::db(created), Part::checks(generation)]);
    bundle.edit(|payload| {
        let checks =
            payload["datasets"].as_array().unwrap().iter().find(|d| d["name"] == "trivy-checks").unwrap();
        let blobs = [checks["config"].clone(), checks["layers"][0].clone()];
        let image = |name: &&str| {
            serde_json::json!({
                "name": name, "source": "x", "manifest": checks["manifest"], "blobs": blobs,
            })
        };
        payload["images"] = names.iter().map(image).collect();
    });
    bundle
}

/// Returns the manifest of an image in such a bundle.
fn image_of(generation: &str) -> Vec<u8> {
    Part::checks(generation).manifest
}

/// The manifest under a tag that the site has set itself.
const SITES: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;

/// Imports a bundle into a registry, with further flags.
fn bring(host: &Host, bundle: &Bundle, places: &str, more: &[&str]) -> Run {
    let path = host.file("bundle.tar", bundle.signed(&host.key));
    let (key, state) = (host.at("keys/exporter.pub"), host.at("state"));
    let path = path.to_str().unwrap();
    let line = ["import", path, "--trust", &key, "--state-dir", &state, "--registry", places];
    host.run(&[&line[..], &ONCE, more].concat())
}

/// Returns the ledger of a registry.
fn ledger(host: &Host, place: &str) -> serde_json::Value {
    let bytes = std::fs::read(host.path("state/import-default.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    state["targets"][format!("registry:{place}")].clone()
}

#[test]
fn no_image_is_pushed_unless_it_is_requested() {
    let host = Host::new();
    let registry = Registry::new(|_| None);
    registry.name("shop/app:prod", SITES.to_vec());
    let bundle = with_images(days(-1), "a", &["evil.example/shop/app:prod"]);
    let ran = bring(&host, &bundle, &registry.host, &[]);
    ran.good().prints("evil.example/shop/app:prod   not requested").prints("trivy-db        pushed");
    assert_eq!(registry.tags(), ["shop/app:prod", "trivy-checks:2", "trivy-db:2"]);
    assert_eq!(registry.manifest("shop/app:prod"), SITES);
    assert!(
        !registry.seen().iter().any(|seen| seen.path.contains("shop/app")),
        "the image was not requested"
    );
    let ran = bring(&host, &bundle, &registry.host, &["--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.good().out).unwrap();
    assert_eq!(json["targets"][0]["images"][0]["status"], "not-requested", "{json:#}");
    // A requested image is pushed to a tag that does not exist there.
    bring(&host, &bundle, &registry.host, &["--image", "evil.example/*"])
        .good()
        .exits(0)
        .prints(&format!("pushed   {}/evil.example/shop/app:prod", registry.host));
    assert_eq!(registry.manifest("evil.example/shop/app:prod"), image_of("a"));
    assert_eq!(registry.manifest("shop/app:prod"), SITES);
    bring(&host, &bundle, &registry.host, &["--image", "evil.example/*"]).good().prints("unchanged");
}

#[test]
fn a_requested_image_is_pushed_below_its_source_host_or_to_a_chosen_place() {
    let host = Host::new();
    let registry = Registry::new(|_| None);
    let names = ["quay.example:5000/a/b:1", "library/alpine:3", "[::1]:5000/c:1", "other.example/d:1"];
    let bundle = with_images(days(-1), "a", &names);
    let place = format!("{}/p", registry.host);
    let chosen = format!("other.example/d={}/tools/d", registry.host);
    bring(
        &host,
        &bundle,
        &place,
        &["--image", "quay.example:5000/a/b:1,alpine*,library/alpine,[::1]:5000/*", "--image", &chosen],
    )
    .exits(0)
    .warns("warning: no bundle here holds an image alpine*");
    let mut wanted = [
        "p/0-0-0-0-0-0-0-1-5000/c:1",
        "p/docker.io/library/alpine:3",
        "p/quay.example-5000/a/b:1",
        "p/trivy-checks:2",
        "p/trivy-db:2",
        "tools/d:1",
    ];
    wanted.sort_unstable();
    assert_eq!(registry.tags(), wanted);
    // The name of a missing image may be misspelled, so this is an error. Everything else is
    // imported.
    let other = Registry::new(|_| None);
    bring(&host, &bundle, &other.host, &["--image", "quay.example:5000/a/c,library/alpine:3"])
        .exits(2)
        .warns("no bundle here holds an image quay.example:5000/a/c")
        .prints("library/alpine:3");
    assert_eq!(other.tags(), ["docker.io/library/alpine:3", "trivy-checks:2", "trivy-db:2"]);
    // A chosen place must be on a registry of the command line.
    bring(&host, &bundle, &other.host, &["--image", &chosen])
        .fails_with(2, &["no --registry names that host"]);
    let inbox = ["watch", "inbox", "--once", "--trust", "keys/exporter.pub", "--registry", &other.host];
    host.run(&[&inbox[..], &["--image", &chosen]].concat()).fails_with(2, &["no --registry names that host"]);
    let only = format!("trivy-db={}/x", other.host);
    bring(&host, &bundle, &only, &["--image", "other.example/d"])
        .fails_with(2, &["no --registry is for images"]);
}

/// Quay rejects a configuration with a custom media type. Images other than Trivy's databases have
/// such types, too (deckhouse-cli, pull request 55).
#[test]
fn a_strict_registry_gets_images_in_a_form_that_it_accepts() {
    let host = Host::new();
    let registry = Registry::new(|_| None);
    let (name, at) = ("ghcr.example/bdu:1", "p/ghcr.example/bdu:1");
    let place = format!("{}/p", registry.host);
    let bundle = with_images(days(-1), "a", &[name]);
    let flags = ["--image", name, "--compat"];
    bring(&host, &bundle, &place, &flags)
        .good()
        .prints("bdu:1   pushed")
        .prints("its manifests were rewritten for this registry");
    let (pushed, upstream) = [registry.manifest(at), image_of("a")]
        .map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).unwrap())
        .into();
    assert_eq!(pushed["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    assert_eq!(pushed["layers"], upstream["layers"]);
    assert!(
        !registry
            .seen()
            .iter()
            .any(|seen| is_blob(seen) && seen.path.contains("bdu") && seen.length == Some(2))
    );
    // The importer recognizes the image, and so does a check of the registry.
    bring(&host, &bundle, &place, &flags).good().prints("bdu:1   unchanged");
    let status = ["status", "--check-registries", "--state-dir", &host.at("state"), "--format", "json"];
    let ran = host.run(&status);
    let report: serde_json::Value = serde_json::from_str(&ran.good().out).unwrap();
    assert!(report.to_string().contains("in-place"), "{report:#}");
    assert!(!report.to_string().contains("differs"), "{report:#}");
    // A newer image replaces it, because trivy-ferry set the tag. Without `--compat`, the image
    // keeps upstream's own bytes.
    bring(&host, &with_images(hours_ago(20), "b", &[name]), &place, &flags).good().prints("bdu:1   pushed");
    bring(&host, &with_images(hours_ago(19), "c", &[name]), &place, &flags[..2]).good();
    assert_eq!(registry.manifest(at), image_of("c"));
}

#[test]
fn a_foreign_tag_is_kept_unless_a_flag_replaces_it() {
    let host = Host::new();
    let registry = Registry::new(|_| None);
    let (name, at) = ("ghcr.example/a/b:1", "p/ghcr.example/a/b:1");
    let place = format!("{}/p", registry.host);
    registry.name(at, SITES.to_vec());
    let first = with_images(days(-3), "a", &[name]);
    let kept = |ran: Run, manifest: &[u8]| {
        ran.exits(5)
            .prints("b:1   refused")
            .warns("which trivy-ferry did not set")
            .warns("--replace-image-tags")
            .warns("--image NAME=HOST/PATH:TAG");
        assert_eq!(registry.manifest(at), manifest);
        assert!(!registry.seen().iter().any(|seen| is_upload(seen) && seen.path.contains("ghcr.example")));
    };
    let ran = bring(&host, &first, &place, &["--image", name]);
    kept(ran, SITES);
    assert_eq!(
        registry.manifest("p/trivy-db:2"),
        Part::db(days(-3)).manifest,
        "everything else is delivered"
    );
    // No environment variable can set the flag.
    let mut command = host.command();
    command.args(["import", "bundle.tar", "--registry", &place, "--image", name]);
    command.args(["--trust", "keys/exporter.pub"]).env("TRIVY_FERRY_REPLACE_IMAGE_TAGS", "true");
    kept(forge::run(command), SITES);
    assert_eq!(ledger(&host, &place)["overrides"], serde_json::Value::Null);
    // With the flag, the import replaces the tag, and the override is recorded.
    bring(&host, &first, &place, &["--image", name, "--replace-image-tags"])
        .exits(0)
        .prints("replaced image tags because of --replace-image-tags")
        .prints("b:1   pushed");
    assert_eq!(registry.manifest(at), image_of("a"));
    assert_eq!(ledger(&host, &place)["overrides"][0]["flags"][0], "--replace-image-tags");
    let log = std::fs::read_to_string(host.path("state/imports.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(last["overrides"], serde_json::json!(["--replace-image-tags"]), "{log}");
    // The tag now counts as set by trivy-ferry, so a newer bundle replaces it without a flag.
    let second = with_images(days(-2), "b", &[name]);
    bring(&host, &second, &place, &["--image", name]).good().prints("b:1   pushed");
    assert_eq!(registry.manifest(at), image_of("b"));
    assert_eq!(ledger(&host, &place)["overrides"].as_array().unwrap().len(), 1, "no flag was needed");
    // A tag that another client has set is kept, even if that client restored the earlier manifest.
    registry.name(at, image_of("a"));
    let third = with_images(days(-1), "c", &[name]);
    bring(&host, &third, &place, &["--image", name]).exits(5).warns("which trivy-ferry did not set");
    assert_eq!(registry.manifest(at), image_of("a"));
}

#[test]
fn a_foreign_tag_that_already_names_the_image_stays_foreign() {
    let (host, registry) = (Host::new(), Registry::new(|_| None));
    let other = Host::with_key(&host.key);
    let (name, at) = ("ghcr.example/a/b:1", "p/ghcr.example/a/b:1");
    let place = format!("{}/p", registry.host);
    let first = with_images(days(-2), "a", &[name]);
    bring(&other, &first, &place, &["--image", name]).good();
    bring(&host, &first, &place, &["--image", name]).good().prints("b:1   unchanged");
    // Blobs of the image that the registry has lost are sent again.
    registry.forget_blobs();
    bring(&host, &first, &place, &["--image", name]).good().prints("b:1   restored");
    let second = with_images(days(-1), "b", &[name]);
    bring(&host, &second, &place, &["--image", name]).exits(5).warns("which trivy-ferry did not set");
    assert_eq!(registry.manifest(at), image_of("a"));
    bring(&other, &second, &place, &["--image", name]).good().prints("b:1   pushed");
}

#[test]
fn a_tag_that_an_interrupted_run_has_set_is_recognized() {
    let host = Host::new();
    let (name, at) = ("ghcr.example/a/b:1", "/v2/p/ghcr.example/a/b/manifests/1");
    let was_put = Arc::new(Mutex::new(false));
    let put = was_put.clone();
    let registry = Registry::new(move |seen| {
        let mut put = put.lock().unwrap();
        if seen.path == at && is_manifest(seen) {
            *put = true;
            return None;
        }
        // The manifest of the tag cannot be read, so the run cannot verify that the tag was set.
        (seen.path == at && *put).then(|| status(500))
    });
    let place = format!("{}/p", registry.host);
    let more = ["--image", name];
    for (age, generation) in [(-4, "a"), (-3, "b"), (-2, "c")] {
        *was_put.lock().unwrap() = false;
        let bundle = with_images(days(age), generation, &[name]);
        bring(&host, &bundle, &place, &more).exits(7).prints("b:1   failed");
        assert_eq!(registry.manifest("p/ghcr.example/a/b:1"), image_of(generation));
    }
    // The result is the same if the tag was not set, and still names the earlier manifest.
    registry.name("p/ghcr.example/a/b:1", image_of("b"));
    let state = ledger(&host, &place)["images"][format!("{place}/ghcr.example/a/b:1")].clone();
    assert_eq!(state["before"], trivy_ferry::digest::Digest::of(&image_of("b")).to_string(), "{state}");
    *was_put.lock().unwrap() = false;
    let bundle = with_images(days(-1), "d", &[name]);
    bring(&host, &bundle, &place, &more).exits(7).prints("b:1   failed");
    assert_eq!(registry.manifest("p/ghcr.example/a/b:1"), image_of("d"));
}

#[test]
fn a_tag_that_another_client_sets_during_the_upload_is_kept() {
    let host = Host::new();
    let (name, at) = ("ghcr.example/a/b:1", "p/ghcr.example/a/b:1");
    let own: Arc<Mutex<Option<Arc<Registry>>>> = Arc::default();
    let site = own.clone();
    let registry = Arc::new(Registry::new(move |seen| {
        if is_blob(seen) && seen.path.contains("/a/b/") {
            let site = site.lock().unwrap();
            site.as_ref().unwrap().name(at, SITES.to_vec());
        }
        None
    }));
    *own.lock().unwrap() = Some(registry.clone());
    let place = format!("{}/p", registry.host);
    // No blob can be mounted, so that the blobs of the image are sent.
    let bundle = with_images(days(-1), "a", &[name]);
    let ran = bring(&host, &bundle, &place, &["--image", name, "--skip", "trivy-checks"]);
    ran.exits(5).prints("b:1   refused").warns("which trivy-ferry did not set");
    assert_eq!(registry.manifest(at), SITES);
    own.lock().unwrap().take();
}

#[test]
fn no_image_replaces_a_dataset() {
    let host = Host::new();
    let names = ["x/trivy-db:2", "evil.example/trivy-db:2", "good.example/tools/x:1"];
    let bundle = with_images(days(-1), "a", &names);
    let registry = Registry::new(|_| None);
    let at = &registry.host;
    let place = format!("{at}/p");
    bring(&host, &bundle, &place, &["--image", "*"]).good();
    assert_eq!(
        registry.tags(),
        [
            "p/docker.io/x/trivy-db:2",
            "p/evil.example/trivy-db:2",
            "p/good.example/tools/x:1",
            "p/trivy-checks:2",
            "p/trivy-db:2"
        ]
    );
    let is_kept = || assert_eq!(registry.manifest("p/trivy-db:2"), Part::db(days(-1)).manifest);
    is_kept();
    // The image is also rejected if the operator chooses that place, under any tag.
    for tag in ["2", "latest"] {
        let chosen = format!("x/trivy-db:2={place}/trivy-db:{tag}");
        let more = ["--image", &chosen, "--image", "good.example/*", "--replace-image-tags"];
        bring(&host, &bundle, &place, &more)
            .exits(5)
            .warns("x/trivy-db:2 is not pushed")
            .warns("is in the repository of trivy-db")
            .prints("x:1   unchanged");
        is_kept();
        assert!(!registry.tags().contains(&"p/trivy-db:latest".into()));
    }
    // An image is also rejected for the place of a dataset that another flag has set, in this run
    // or in an earlier one.
    let own = format!("{at}/q,trivy-db={at}/q/evil.example/trivy-db");
    bring(&host, &bundle, &own, &["--image", "evil.example/*", "--replace-image-tags"])
        .exits(5)
        .warns("is in the repository of trivy-db");
    assert_eq!(registry.manifest("q/evil.example/trivy-db:2"), Part::db(days(-1)).manifest);
    let later = format!("{at}/q");
    bring(&host, &bundle, &later, &["--image", "evil.example/*", "--replace-image-tags"])
        .exits(5)
        .warns("is in the repository of trivy-db");
    let key = host.at("keys/exporter.pub");
    let mut command = host.command();
    command.args(["import", "bundle.tar", "--registry", &later, "--trust", &key, "--stream", "other"]);
    command.args(["--image", "evil.example/*"]);
    let path = host.file("bundle.tar", bundle.with("stream", "other").signed(&host.key));
    assert!(path.is_file());
    forge::run(command).exits(5).warns("is in the repository of trivy-db");
    assert_eq!(registry.manifest("q/evil.example/trivy-db:2"), Part::db(days(-1)).manifest);
}

#[test]
fn no_image_replaces_data_that_another_importer_put_there() {
    let (host, registry) = (Host::new(), Registry::new(|_| None));
    let other = Host::with_key(&host.key);
    let mut bundle = with_images(days(-1), "a", &["x/trivy-db:2"]);
    // This is an image. The other images of these tests have the form of checks.
    bundle.edit(|payload| {
        payload["images"][0]["blobs"][1]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into();
    });
    bring(&other, &bundle, &format!("{}/sec", registry.host), &[]).good();
    // The state of this importer does not contain that repository.
    let chosen = format!("x/trivy-db:2={}/sec/trivy-db:2", registry.host);
    let place = format!("{}/p", registry.host);
    bring(&host, &bundle, &place, &["--image", &chosen]).exits(5).warns("which trivy-ferry did not set");
    bring(&host, &bundle, &place, &["--image", &chosen, "--replace-image-tags"])
        .exits(5)
        .warns("is in the repository of Trivy's data");
    assert_eq!(registry.manifest("sec/trivy-db:2"), Part::db(days(-1)).manifest);
}

#[test]
fn an_image_does_not_inherit_the_tag_of_another_one() {
    let (host, registry) = (Host::new(), Registry::new(|_| None));
    let names = ["ghcr.example/a:1", "ghcr.example/b:1"];
    let place = format!("{}/p", registry.host);
    let at = |name: &str| format!("{name}={}/tools/t:1", registry.host);
    bring(&host, &with_images(days(-2), "a", &names), &place, &["--image", &at(names[0])]).good();
    let newer = with_images(days(-1), "b", &names);
    bring(&host, &newer, &place, &["--image", &at(names[1])]).exits(5).warns("which trivy-ferry did not set");
    assert_eq!(registry.manifest("tools/t:1"), image_of("a"));
    bring(&host, &newer, &place, &["--image", &at(names[0])]).good();
    assert_eq!(registry.manifest("tools/t:1"), image_of("b"));
}

#[test]
fn only_one_of_two_images_with_the_same_target_is_pushed() {
    let host = Host::new();
    let registry = Registry::new(|_| None);
    let bundle = with_images(days(-1), "a", &["a.example-5000/b:1", "a.example:5000/b:1", "c.example/b:1"]);
    bring(&host, &bundle, &registry.host, &["--image", "*"])
        .exits(5)
        .warns("is already used by a.example-5000/b:1")
        .prints("c.example/b:1   pushed");
}

#[test]
fn a_watch_keeps_a_foreign_tag_and_the_bundle_is_processed() {
    let host = Host::new();
    let registry = Registry::new(|_| None);
    let (name, at) = ("ghcr.example/a/b:1", "p/ghcr.example/a/b:1");
    registry.name(at, SITES.to_vec());
    host.file("inbox/bundle.tar", with_images(days(-1), "a", &[name]).signed(&host.key));
    let mut command = host.command();
    command.args(["watch", "inbox", "--once", "--settle", "1ms", "--trust", "keys/exporter.pub"]);
    command.args(["--registry", &format!("{}/p", registry.host), "--image", name, "--format", "json"]);
    let ran = forge::run(command);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:#?}"));
    assert_eq!(json["outcomes"][0]["outcome"], "processed", "{json:#}");
    assert_eq!(json["outcomes"][0]["exit_code"], 5, "{json:#}");
    assert_eq!(registry.manifest(at), SITES);
    assert_eq!(registry.manifest("p/trivy-db:2"), Part::db(days(-1)).manifest);
}

#[test]
fn a_manifest_that_names_other_data_than_the_signed_data_is_rejected() {
    let host = Host::new();
    let mut part = Part::db(days(-1));
    // The data in the payload is good, but the manifest for a registry names older data.
    part.manifest = Part::db(days(-37)).manifest;
    part.dataset.manifest.digest = trivy_ferry::digest::Digest::of(&part.manifest);
    part.dataset.manifest.size = part.manifest.len() as u64;
    let path = host.file("bundle.tar", Bundle::of(days(-1), &[part]).signed(&host.key));
    let registry = Registry::new(|_| None);
    push(&host, &path, &registry.host).fails_with(4, &["names other blobs than the signed ones"]);
    assert!(registry.tags().is_empty());
    host.verify(&path, &[]).fails_with(4, &["names other blobs than the signed ones"]);
}
