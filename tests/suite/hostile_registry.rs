//! Registries that do not take what they are given, in every way that they have. Each failure is one
//! sentence that names what failed and one that helps, and no tag names anything that is not whole.

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

/// A host with a bundle of all datasets.
fn importer() -> (Host, PathBuf) {
    let host = Host::new();
    let bundle = Bundle::of(days(-1), &Part::all(days(-1)));
    let path = host.file("bundle.tar", bundle.signed(&host.key));
    (host, path)
}

/// A push into a registry.
fn push(host: &Host, bundle: &std::path::Path, registry: &str) -> Run {
    push_to(host, bundle, &format!("{registry}/p"))
}

/// A push into these places.
fn push_to(host: &Host, bundle: &std::path::Path, places: &str) -> Run {
    let (key, state) = (host.at("keys/exporter.pub"), host.at("state"));
    let bundle = bundle.to_str().unwrap();
    let import = ["import", bundle, "--trust", &key, "--state-dir", &state, "--registry", places];
    host.run(&[&import[..], &ONCE].concat())
}

/// What fails is not tried again: here it never passes.
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
    // Three layers, and the configuration that all three have: it is mounted in the others.
    assert_eq!(first, 4);
    let mounted = registry.seen().iter().filter(|seen| seen.query.starts_with("mount=")).count();
    assert_eq!(mounted, 2);
    // Before any tag, everything that it names.
    let seen = registry.seen();
    let last_blob = seen.iter().rposition(is_blob).unwrap();
    assert!(seen.iter().position(is_manifest).unwrap() > last_blob, "tags come last");
    push(&host, &bundle, &registry.host).good();
    assert_eq!(sent(&registry), first, "nothing is sent twice");
    // The blobs are there, the tags are gone: only they are pushed.
    registry.forget_tags();
    push(&host, &bundle, &registry.host).good();
    assert_eq!((sent(&registry), registry.tags().len()), (first, 3));
}

/// The uploads that were begun in the repositories below `prefix`, and how many of them as a mount.
fn uploads(registry: &Registry, prefix: &str) -> (usize, usize) {
    let below = format!("/v2/{prefix}/");
    let begun = registry.seen().into_iter().filter(|seen| is_upload(seen) && seen.path.starts_with(&below));
    let mounts: Vec<bool> = begun.map(|seen| seen.query.starts_with("mount=")).collect();
    (mounts.len(), mounts.iter().filter(|mount| **mount).count())
}

#[test]
fn what_one_place_got_is_mounted_in_the_next_of_its_host() {
    let (host, bundle) = importer();
    let (registry, other) = (Registry::new(|_| None), Registry::new(|_| None));
    let places = format!("{0}/a,{1}/elsewhere,{0}/b", registry.host, other.host);
    push_to(&host, &bundle, &places).good();
    // Three layers, and a configuration for each of three repositories.
    assert_eq!(uploads(&registry, "b"), (6, 6), "{:#?}", registry.seen());
    assert!(!registry.seen().iter().any(|seen| is_blob(seen) && seen.path.starts_with("/v2/b/")));
    assert_eq!(registry.tags().iter().filter(|tag| tag.starts_with("b/")).count(), 3);
    // Another host cannot mount what this one has.
    assert!(other.seen().iter().all(|seen| !seen.query.contains("from=a/")), "{:#?}", other.seen());
    // What the first place has already is mounted as well.
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

/// Everybody reads, a login writes, and nothing is mounted (issues 217 and 328 of sonatype/nexus-public, 219 and 778 of
/// getnora-io/nora; pull requests 204 and 206 of the distribution specification: who cannot mount begins an upload).
#[test]
fn a_registry_that_everybody_reads_and_a_login_writes_gets_all_of_it() {
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

/// Other clients take these as success (containers/image, issue 381 and pull request 382: Quay answered 202;
/// containerd, pull request 3750).
#[test]
fn what_a_registry_says_of_a_manifest_that_it_took_does_not_matter() {
    for code in [200, 201, 202] {
        let (host, bundle) = importer();
        let registry = Registry::new(|_| None);
        registry.answer_manifests_with(code);
        push(&host, &bundle, &registry.host).good();
        assert_eq!(registry.tags(), ALL, "{code}");
    }
    // What it did not take is not there afterwards.
    for code in [202, 204, 302] {
        let (host, bundle) = importer();
        let registry = Registry::new(move |seen| is_manifest(seen).then(|| status(code)));
        push(&host, &bundle, &registry.host).exits(7);
        assert!(registry.tags().is_empty(), "{code}");
    }
}

/// A registry behind a proxy that ends TLS, and does not tell it so with X-Forwarded-Proto, names addresses of plain
/// HTTP (issues 3933, 20530 and 3114 of goharbor/harbor).
#[test]
fn a_registry_that_does_not_know_of_its_tls_is_meant_all_the_same() {
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
    // Another host is not the registry.
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

/// GHCR, Docker Hub and registries on object stores show a manifest a moment after they have taken it (issue 429 of
/// p2pool-starter-stack/pithead, 857 of int128/docker-manifest-create-action; pull request 220 of
/// openshift/image-registry: up to 3 s).
#[test]
fn a_registry_may_take_a_second_until_it_shows_what_it_took() {
    let (host, bundle) = importer();
    let pushed: Mutex<Vec<String>> = Mutex::default();
    let registry = Registry::new(move |seen| {
        if !seen.path.contains("/manifests/") {
            return None;
        }
        let mut pushed = pushed.lock().unwrap();
        if is_manifest(seen) {
            // Hidden from the next two looks: once missing, once as it was before.
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
fn each_refusal_has_a_sentence_that_helps() {
    type Where = fn(&Seen) -> bool;
    let cases: [(Where, u16, &str, &str); 12] = [
        (is_upload, 401, "status 401", "docker login"),
        (is_upload, 403, "status 403", "may push"),
        (is_upload, 404, "status 404", "Create the project"),
        (is_upload, 429, "limits the rate of requests", "Wait"),
        (is_upload, 500, "status 500", "could not store it"),
        (is_upload, 502, "status 502", "run the command again later"),
        (is_blob, 413, "status 413", "client_max_body_size"),
        (is_blob, 507, "status 507", "check its disk"),
        (is_blob, 503, "status 503", "It skips what is already there"),
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
        // What was refused was not accepted: the same bundle again is as good as new.
        let good = Registry::new(|_| None);
        push(&host, &bundle, &good.host).good();
        assert_eq!(good.tags(), ALL);
    }
}

#[test]
fn what_one_dataset_meets_keeps_no_other_from_its_own() {
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
    // The next run sends what is missing, and nothing else.
    let before = registry.seen().iter().filter(|seen| is_manifest(seen)).count();
    assert_eq!(push(&host, &bundle, &registry.host).code, 7);
    assert_eq!(registry.seen().iter().filter(|seen| is_manifest(seen)).count(), before);
}

#[test]
fn uploads_go_where_the_registry_says_and_the_login_does_not() {
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
    // The blobs are never found here, so that every one is sent there.
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
fn an_upload_without_a_usable_place_is_given_up() {
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
    // Redirects of what changes something are not followed.
    let (host, bundle) = importer();
    let other = Registry::new(|_| None);
    let to = format!("http://{}/v2/x/blobs/uploads/", other.host);
    let registry = Registry::new(move |seen| is_upload(seen).then(|| header(status(307), "location", &to)));
    assert_eq!(push(&host, &bundle, &registry.host).code, 7);
    assert!(other.seen().is_empty());
}

#[test]
fn an_upload_that_failed_is_cancelled_at_the_registry_and_nowhere_else() {
    let deleted = |registry: &Registry| {
        let seen = registry.seen().into_iter().filter(|seen| seen.method == Method::DELETE);
        seen.map(|seen| (seen.path, seen.query)).collect::<Vec<_>>()
    };
    // As distribution: each state of an upload has a place of its own.
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
fn a_tag_that_names_something_else_afterwards_is_an_error() {
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
fn a_registry_that_dies_in_the_middle_leaves_no_tag() {
    let (host, bundle) = importer();
    // A registry that begins an upload at a place that refuses connections.
    let closed = ClosedPort::new();
    let upload = format!("http://{}/v2/x/blobs/uploads/1", closed.address());
    let registry =
        Registry::new(move |seen| is_upload(seen).then(|| header(status(202), "location", &upload)));
    let ran = push(&host, &bundle, &registry.host);
    assert_eq!(ran.code, 7, "{ran:#?}");
    assert!(ran.err.contains("cannot be reached"), "{ran:#?}");
    assert!(registry.tags().is_empty());
}

/// Artifactory behind a host for each repository redirects, and the host behind that asks for a login
/// (containerd/containerd, issues 6339 and 2628).
#[test]
fn a_login_that_is_asked_for_behind_a_redirect_is_named() {
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
        // A source likewise.
        let from = format!("{}/db:1", registry.host);
        let mirror = ["mirror", "--registry", &registry.host, "--only", "trivy-db", "--from-plain-http"];
        host.run(&[&mirror[..], &["--db-repository", &from], &ONCE].concat())
            .exits(3)
            .warns("which requires its own login");
    }
}

/// A registry sends its uploads to storage elsewhere, as clouds and CDNs do. Whatever that asks for, the login belongs
/// to the registry.
#[test]
fn a_host_that_takes_uploads_gets_no_login_whatever_it_asks_for() {
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
        assert!(!registry.seen().iter().any(evil), "its token is not the registry's");
    }
}

/// A registry that builds its addresses from the name that a proxy asks it by (distribution, issues 479 and 2225;
/// goharbor/harbor, issue 61).
#[test]
fn an_upload_address_that_only_the_inside_knows_is_named() {
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
        .warns("does not know its own address");
    assert!(!ran.err.contains("secret"), "{ran:#?}");
    assert!(registry.tags().is_empty());
}

/// Harbor names its token service with a doubled slash if its external URL ends with one (goharbor/harbor, issue 3114).
#[test]
fn a_token_service_with_a_doubled_slash_is_asked_as_it_is_named() {
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
fn a_token_is_asked_for_with_the_right_to_push() {
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
fn a_token_for_a_mount_is_good_for_both_repositories() {
    // An account that may read everywhere, and one that the token service knows only where it pushes.
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
            // As distribution: pushing needs both rights, and a mount the right to read there as well.
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
fn a_credential_helper_that_hangs_or_prints_rubbish_is_done_without() {
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
fn a_bundle_that_is_damaged_deep_inside_makes_no_tag() {
    let (host, bundle) = importer();
    let mut bytes = std::fs::read(&bundle).unwrap();
    let layer = bytes.len() - 1024 - 700;
    bytes[layer] ^= 1;
    let damaged = host.file("damaged.tar", &bytes);
    let registry = Registry::new(|_| None);
    push(&host, &damaged, &registry.host).fails_with(4, &["does not match"]);
    assert!(registry.tags().is_empty());
    // A good one beside it is pushed all the same.
    let older = Bundle::of(days(-3), &Part::all(days(-3)));
    host.file("inbox/a.tar", older.signed(&host.key));
    host.file("inbox/b.tar", &bytes);
    let ran = push(&host, &host.path("inbox"), &registry.host);
    ran.exits(4).prints("trivy-db        pushed");
    assert_eq!(registry.tags(), ALL);
}

#[test]
fn older_data_stays_out_of_a_registry_as_out_of_a_cache() {
    let (host, bundle) = importer();
    let registry = Registry::new(|_| None);
    push(&host, &bundle, &registry.host).good();
    let old = Bundle::of(days(-5), &Part::all(days(-5)));
    let old = host.file("old.tar", old.signed(&host.key));
    push(&host, &old, &registry.host).fails_with(5, &["old.tar", "--allow-rollback"]);
    // A newer bundle with one older dataset: that one is left alone.
    let mixed = [Part::db(days(-4)), Part::java_db(hours_ago(2)), Part::checks("new")];
    let mixed = host.file("mixed.tar", Bundle::of(hours_ago(1), &mixed).signed(&host.key));
    let ran = push(&host, &mixed, &registry.host);
    ran.good()
        .prints("trivy-db        left alone")
        .prints("trivy-java-db   pushed")
        .warns("--allow-rollback");
}

fn hours_ago(count: i64) -> jiff::Timestamp {
    forge::hours(-count)
}

#[test]
fn a_registry_that_claims_to_have_it_harms_no_other_place() {
    let host = Host::new();
    let inbox = host.path("inbox");
    for age in [2, 1] {
        // Large enough that the answer comes while there is more to send.
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
    assert!(!evil.tags().contains(&"p/trivy-java-db:1".into()), "no tag for what was not sent");
    let newest = Part::db(days(-1)).manifest;
    assert_eq!(good.manifest("p/trivy-db:2"), newest, "{ran:#?}");
}

/// Serves one connection as a registry that has no blobs (or all), and that answers a PUT to a path with
/// `part` in it before it has read the body. It closes with bytes that it has not read, so that the
/// system resets the connection.
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
fn a_registry_that_closes_before_it_has_read_the_body_is_heard() {
    let host = Host::new();
    // More than the buffers of both ends hold.
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
fn a_password_goes_to_no_other_port_of_a_registry_over_plain_http() {
    let (host, bundle) = importer();
    let service = Registry::new(|_| Some(Response::new(Body::from(r#"{"token":"t"}"#))));
    for realm in [format!("http://{}/token", service.host), "http://[::ffff:7f00:1]:1/token".to_owned()] {
        let asks = format!(r#"Bearer realm="{realm}",service="s""#);
        let registry = Registry::new(move |seen| {
            (seen.authorization.is_none()).then(|| header(status(401), "www-authenticate", &asks))
        });
        // Without a login, the registry would get what a service of the internal network answers.
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
fn a_token_service_leads_to_no_other() {
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

/// A proxy that opens a tunnel to one place, whatever was asked for, for whoever shows the login. Says where
/// it is.
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
fn uploads_go_through_a_proxy_as_everything_else() {
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
    // Plain HTTP: the proxy gets the whole address.
    let registry = Registry::new(|_| None);
    push("HTTP_PROXY", &registry.host, "r.example/p", &["--plain-http"]).good();
    assert_eq!(registry.tags(), ALL);
    assert!(registry.seen().iter().all(|seen| seen.host == "r.example"), "{:#?}", registry.seen());
    // HTTPS: a tunnel, behind which the server wants a certificate.
    let (ca, client) = (ca.to_str().unwrap(), client.to_str().unwrap());
    let flags = ["--cacert", ca, "--client-cert", client];
    let registry = Registry::over(Some(authority.server(true)), |_| None);
    let place = registry.host.replace("127.0.0.1", NAME) + "/p";
    let proxy = tunnels_to(registry.host.clone());
    push("HTTPS_PROXY", &proxy, &place, &flags).exits(7).warns("The proxy requires a login");
    push("HTTPS_PROXY", &format!("ann:secret@{proxy}"), &place, &flags).good();
    assert_eq!(registry.tags(), ALL);
    // Early answers are heard through TLS and a tunnel as well.
    let registry = Registry::over(Some(authority.server(true)), |seen| is_blob(seen).then(|| status(413)));
    let proxy = tunnels_to(registry.host.clone());
    for _ in 0..3 {
        let ran = push("HTTPS_PROXY", &format!("ann:secret@{proxy}"), &place, &flags);
        ran.exits(7).warns("status 413").warns("client_max_body_size");
    }
}

#[test]
fn a_registry_elsewhere_leads_to_no_address_of_this_host() {
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
        // The registry, as a proxy shows it.
        let proxy =
            Registry::new(move |seen| is_upload(seen).then(|| header(status(202), "location", &place)));
        let mut command = host.command();
        command.env("HTTP_PROXY", format!("http://{}", proxy.host)).args(["import", "--plain-http"]);
        command.args(["--registry", "r.example/p"]).arg(&bundle);
        command.args(["--trust", &host.at("keys/exporter.pub"), "--state-dir", &host.at("state")]);
        let ran = forge::run(command);
        assert!(
            ran.code == 7 && ran.err.contains("r.example leads blob") && ran.err.contains(what),
            "{ran:#?}"
        );
        assert!(proxy.seen().iter().all(|seen| seen.host == "r.example"), "{:#?}", proxy.seen());
    }
    assert!(own.seen().is_empty(), "{:#?}", own.seen());
}

#[test]
fn what_a_registry_lost_under_a_good_tag_is_sent_again() {
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
fn what_is_forbidden_for_one_repository_is_forbidden_for_that_one() {
    let (host, bundle) = importer();
    let registry = Registry::new(|seen| seen.path.contains("trivy-checks").then(|| status(403)));
    let ran = push(&host, &bundle, &registry.host);
    ran.exits(7)
        .prints("trivy-db        pushed")
        .prints("trivy-java-db   pushed")
        .prints("trivy-checks    failed");
    assert_eq!(registry.tags(), ["p/trivy-db:2", "p/trivy-java-db:1"]);
}

/// A bundle with images beside its datasets. All are made of what the checks of this generation are.
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

/// What an image of such a bundle is.
fn image_of(generation: &str) -> Vec<u8> {
    Part::checks(generation).manifest
}

/// What the site has under a tag of its own.
const SITES: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;

/// An import of a bundle into a registry, with further flags.
fn bring(host: &Host, bundle: &Bundle, places: &str, more: &[&str]) -> Run {
    let path = host.file("bundle.tar", bundle.signed(&host.key));
    let (key, state) = (host.at("keys/exporter.pub"), host.at("state"));
    let path = path.to_str().unwrap();
    let line = ["import", path, "--trust", &key, "--state-dir", &state, "--registry", places];
    host.run(&[&line[..], &ONCE, more].concat())
}

/// The state of a registry that data was brought to.
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
    assert!(!registry.seen().iter().any(|seen| seen.path.contains("shop/app")), "nobody asked for it");
    let ran = bring(&host, &bundle, &registry.host, &["--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.good().out).unwrap();
    assert_eq!(json["targets"][0]["images"][0]["status"], "not-requested", "{json:#}");
    // Requested, it goes where the site has nothing of its own.
    bring(&host, &bundle, &registry.host, &["--image", "evil.example/*"])
        .good()
        .exits(0)
        .prints(&format!("pushed   {}/evil.example/shop/app:prod", registry.host));
    assert_eq!(registry.manifest("evil.example/shop/app:prod"), image_of("a"));
    assert_eq!(registry.manifest("shop/app:prod"), SITES);
    bring(&host, &bundle, &registry.host, &["--image", "evil.example/*"]).good().prints("unchanged");
}

#[test]
fn a_requested_image_goes_below_its_sources_host_or_to_the_place_that_was_chosen() {
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
    // What is not there may be misspelled. Everything else is delivered.
    let other = Registry::new(|_| None);
    bring(&host, &bundle, &other.host, &["--image", "quay.example:5000/a/c,library/alpine:3"])
        .exits(2)
        .warns("no bundle here holds an image quay.example:5000/a/c")
        .prints("library/alpine:3");
    assert_eq!(other.tags(), ["docker.io/library/alpine:3", "trivy-checks:2", "trivy-db:2"]);
    // A place is on a registry that the command line names.
    bring(&host, &bundle, &other.host, &["--image", &chosen])
        .fails_with(2, &["no --registry names that host"]);
    let inbox = ["watch", "inbox", "--once", "--trust", "keys/exporter.pub", "--registry", &other.host];
    host.run(&[&inbox[..], &["--image", &chosen]].concat()).fails_with(2, &["no --registry names that host"]);
    let only = format!("trivy-db={}/x", other.host);
    bring(&host, &bundle, &only, &["--image", "other.example/d"])
        .fails_with(2, &["no --registry is for images"]);
}

/// Quay refuses a configuration of its own type, whose databases are not only Trivy's (deckhouse-cli, pull request 55).
#[test]
fn a_strict_registry_gets_images_that_it_takes() {
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
    // It is known again, here and by the registry's own word.
    bring(&host, &bundle, &place, &flags).good().prints("bdu:1   unchanged");
    let status = ["status", "--check-registries", "--state-dir", &host.at("state"), "--format", "json"];
    let ran = host.run(&status);
    let report: serde_json::Value = serde_json::from_str(&ran.good().out).unwrap();
    assert!(report.to_string().contains("in-place"), "{report:#}");
    assert!(!report.to_string().contains("differs"), "{report:#}");
    // A newer one replaces it, since the tag is our own; without the flag, upstream's own bytes do.
    bring(&host, &with_images(hours_ago(20), "b", &[name]), &place, &flags).good().prints("bdu:1   pushed");
    bring(&host, &with_images(hours_ago(19), "c", &[name]), &place, &flags[..2]).good();
    assert_eq!(registry.manifest(at), image_of("c"));
}

#[test]
fn a_tag_that_somebody_else_set_is_kept_unless_a_flag_replaces_it() {
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
    // No environment variable stands for the flag.
    let mut command = host.command();
    command.args(["import", "bundle.tar", "--registry", &place, "--image", name]);
    command.args(["--trust", "keys/exporter.pub"]).env("TRIVY_FERRY_REPLACE_IMAGE_TAGS", "true");
    kept(forge::run(command), SITES);
    assert_eq!(ledger(&host, &place)["overrides"], serde_json::Value::Null);
    // The flag replaces it, and that is recorded.
    bring(&host, &first, &place, &["--image", name, "--replace-image-tags"])
        .exits(0)
        .prints("replaced image tags because of --replace-image-tags")
        .prints("b:1   pushed");
    assert_eq!(registry.manifest(at), image_of("a"));
    assert_eq!(ledger(&host, &place)["overrides"][0]["flags"][0], "--replace-image-tags");
    let log = std::fs::read_to_string(host.path("state/imports.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(last["overrides"], serde_json::json!(["--replace-image-tags"]), "{log}");
    // From now on it is ours: a newer bundle replaces it, and needs no flag.
    let second = with_images(days(-2), "b", &[name]);
    bring(&host, &second, &place, &["--image", name]).good().prints("b:1   pushed");
    assert_eq!(registry.manifest(at), image_of("b"));
    assert_eq!(ledger(&host, &place)["overrides"].as_array().unwrap().len(), 1, "no flag was needed");
    // Until somebody else replaces it, even by what it was before.
    registry.name(at, image_of("a"));
    let third = with_images(days(-1), "c", &[name]);
    bring(&host, &third, &place, &["--image", name]).exits(5).warns("which trivy-ferry did not set");
    assert_eq!(registry.manifest(at), image_of("a"));
}

#[test]
fn a_tag_that_names_the_image_already_stays_with_whoever_set_it() {
    let (host, registry) = (Host::new(), Registry::new(|_| None));
    let other = Host::with_key(&host.key);
    let (name, at) = ("ghcr.example/a/b:1", "p/ghcr.example/a/b:1");
    let place = format!("{}/p", registry.host);
    let first = with_images(days(-2), "a", &[name]);
    bring(&other, &first, &place, &["--image", name]).good();
    bring(&host, &first, &place, &["--image", name]).good().prints("b:1   unchanged");
    // What the registry lost below the tag is sent again.
    registry.forget_blobs();
    bring(&host, &first, &place, &["--image", name]).good().prints("b:1   restored");
    let second = with_images(days(-1), "b", &[name]);
    bring(&host, &second, &place, &["--image", name]).exits(5).warns("which trivy-ferry did not set");
    assert_eq!(registry.manifest(at), image_of("a"));
    bring(&other, &second, &place, &["--image", name]).good().prints("b:1   pushed");
}

#[test]
fn a_tag_that_was_set_before_a_run_was_cut_short_is_known_as_our_own() {
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
        // What the tag names now cannot be read: for all that the run knows, it may not have been set.
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
    // Also if the tag was not reached: then it is what it was before.
    registry.name("p/ghcr.example/a/b:1", image_of("b"));
    let state = ledger(&host, &place)["images"][format!("{place}/ghcr.example/a/b:1")].clone();
    assert_eq!(state["before"], trivy_ferry::digest::Digest::of(&image_of("b")).to_string(), "{state}");
    *was_put.lock().unwrap() = false;
    let bundle = with_images(days(-1), "d", &[name]);
    bring(&host, &bundle, &place, &more).exits(7).prints("b:1   failed");
    assert_eq!(registry.manifest("p/ghcr.example/a/b:1"), image_of("d"));
}

#[test]
fn a_tag_that_somebody_sets_during_the_upload_is_kept() {
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
    // Nothing to mount: the image's blobs are sent.
    let bundle = with_images(days(-1), "a", &[name]);
    let ran = bring(&host, &bundle, &place, &["--image", name, "--skip", "trivy-checks"]);
    ran.exits(5).prints("b:1   refused").warns("which trivy-ferry did not set");
    assert_eq!(registry.manifest(at), SITES);
    own.lock().unwrap().take();
}

#[test]
fn no_image_takes_the_place_of_a_dataset() {
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
    // Nor if the operator chooses its place, under any tag.
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
    // Nor the place that a dataset has by another flag, in this run or in an earlier one.
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
    // An image, and no checks as the images of these tests are otherwise.
    bundle.edit(|payload| {
        payload["images"][0]["blobs"][1]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into();
    });
    bring(&other, &bundle, &format!("{}/sec", registry.host), &[]).good();
    // This importer's state knows nothing of it.
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
fn of_two_images_that_would_meet_one_is_pushed() {
    let host = Host::new();
    let registry = Registry::new(|_| None);
    let bundle = with_images(days(-1), "a", &["a.example-5000/b:1", "a.example:5000/b:1", "c.example/b:1"]);
    bring(&host, &bundle, &registry.host, &["--image", "*"])
        .exits(5)
        .warns("is already used by a.example-5000/b:1")
        .prints("c.example/b:1   pushed");
}

#[test]
fn a_watch_keeps_a_foreign_tag_and_is_done_with_the_bundle() {
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
fn a_manifest_that_names_other_data_than_were_signed_is_rejected() {
    let host = Host::new();
    let mut part = Part::db(days(-1));
    // What the payload describes is good, and what a registry would hand out is older.
    part.manifest = Part::db(days(-37)).manifest;
    part.dataset.manifest.digest = trivy_ferry::digest::Digest::of(&part.manifest);
    part.dataset.manifest.size = part.manifest.len() as u64;
    let path = host.file("bundle.tar", Bundle::of(days(-1), &[part]).signed(&host.key));
    let registry = Registry::new(|_| None);
    push(&host, &path, &registry.host).fails_with(4, &["names other blobs than the signed ones"]);
    assert!(registry.tags().is_empty());
    host.verify(&path, &[]).fails_with(4, &["names other blobs than the signed ones"]);
}
