//! Pushes over bad connections: every request of a push is retried, an interrupted body is resumed
//! at the registry's offset, and a proxy that rejects large requests gets small ones.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use test_kit::answers::{header, status};
use test_kit::files::Fault;
use test_kit::http::{Body, Method, Response, Seen, each_connection, read_head};
use test_kit::noise::Noise;
use test_kit::process::Run;
use test_kit::real::Registry as Real;
use test_kit::registry::{Break, Registry};

use crate::forge::upstream::Upstream;
use crate::forge::{Bundle, Host, Part, days};

const ALL: [&str; 3] = ["p/trivy-checks:2", "p/trivy-db:2", "p/trivy-java-db:1"];
/// The length of the large layer.
const LARGE: usize = 9 << 20;

/// Returns a host with a bundle of all datasets.
fn importer() -> (Host, PathBuf) {
    let host = Host::new();
    let bundle = Bundle::of(days(-1), &Part::all(days(-1)));
    let path = host.file("bundle.tar", bundle.signed(&host.key));
    (host, path)
}

/// Returns a host with a bundle whose trivy-java-db has [`LARGE`] bytes.
fn with_large_layer() -> (Host, PathBuf) {
    let host = Host::new();
    let contents = Part::java_db(days(-1)).dataset.contents;
    let parts = [
        Part::db(days(-1)),
        Part::saying("trivy-java-db", "1", Noise::new(1).bytes(LARGE), contents),
        Part::checks("a"),
    ];
    let path = host.file("bundle.tar", Bundle::of(days(-1), &parts).signed(&host.key));
    (host, path)
}

fn push(host: &Host, bundle: &Path, registry: &Registry, more: &[&str]) -> Run {
    let (key, state) = (host.at("keys/exporter.pub"), host.at("state"));
    let place = format!("{}/p", registry.host);
    let import =
        ["import", bundle.to_str().unwrap(), "--trust", &key, "--state-dir", &state, "--registry", &place];
    host.run(&[&import[..], more].concat())
}

fn is_sent(seen: &Seen) -> bool {
    [Method::PUT, Method::PATCH].contains(&seen.method) && seen.path.contains("/blobs/uploads/")
}

/// Starts a registry that fails selected requests. The first `times` responses to each of them are
/// `answer`.
fn failing(
    at: impl Fn(&Seen) -> bool + Send + Sync + 'static,
    times: u32,
    answer: impl Fn() -> Response + Send + Sync + 'static,
) -> Registry {
    let failed: Mutex<HashMap<String, u32>> = Mutex::default();
    Registry::new(move |seen| {
        let mut failed = failed.lock().unwrap();
        let count = failed.entry(format!("{} {}", seen.method, seen.path)).or_default();
        *count += 1;
        (at(seen) && *count <= times).then(&answer)
    })
}

/// The status 504 of a slow registry (GoogleContainerTools/jib, issue 1409), and the statuses 502,
/// 503 and 429 during a push (ocx-sh/ocx, issue 276; bazel-contrib/rules_img, pull request 762;
/// docker/build-push-action, issue 251).
#[test]
fn every_request_of_a_push_is_retried() {
    type Where = fn(&Seen) -> bool;
    let looks: Where = |seen| seen.method == Method::HEAD && seen.path.contains("/blobs/sha256:");
    let begins: Where = |seen| seen.method == Method::POST;
    let sends: Where = is_sent;
    let names: Where = |seen| seen.method == Method::PUT && seen.path.contains("/manifests/");
    let reads: Where = |seen| seen.method == Method::GET && seen.path.contains("/manifests/");
    for (at, code, after) in [
        (looks, 503, None),
        (begins, 502, None),
        (begins, 429, Some("0")),
        (sends, 503, Some("0")),
        (sends, 504, None),
        (sends, 408, None),
        (sends, 500, None),
        (names, 503, Some("Sat, 21 Nov 2020 10:00:30 GMT")),
        (names, 429, None),
        (reads, 502, None),
    ] {
        let answer = move || match after {
            Some(after) => header(status(code), "retry-after", after),
            None => status(code),
        };
        let (host, bundle) = importer();
        let registry = failing(at, 1, answer);
        // Two blobs are uploaded at the same time.
        push(&host, &bundle, &registry, &["--retries", "6"]).good();
        assert_eq!(registry.tags(), ALL, "{code}");
        // The number of retries is limited, and permanent errors are not retried.
        let (host, bundle) = importer();
        let registry = failing(at, u32::MAX, answer);
        push(&host, &bundle, &registry, &["--retries", "1"]).exits(7);
        assert!(registry.tags().is_empty(), "{code}");
    }
    let (host, bundle) = importer();
    let registry = failing(sends, u32::MAX, || status(507));
    push(&host, &bundle, &registry, &["--retries", "9"]).exits(7);
    let mut sent: Vec<_> = registry.seen().into_iter().filter(is_sent).map(|seen| seen.target).collect();
    let all = sent.len();
    sent.sort();
    sent.dedup();
    assert_eq!(sent.len(), all, "no blob is sent twice: {sent:#?}");
}

#[test]
fn a_push_to_an_unreachable_registry_ends_at_the_deadline() {
    let (host, bundle) = importer();
    let registry = failing(is_sent, u32::MAX, || status(503));
    let flags = ["--retries", "99999", "--deadline", "1s"];
    push(&host, &bundle, &registry, &flags).exits(7);
    assert!(registry.tags().is_empty());
    // The registry has the complete blob, but does not respond.
    let (host, bundle) = importer();
    let registry = Registry::new(|_| None);
    registry.fall_silent();
    push(&host, &bundle, &registry, &["--retries", "0", "--store-timeout", "300ms"])
        .exits(7)
        .warns("did not answer within 300 ms");
    let passed = format!("the time limit of --deadline has passed: 1 s, waiting for {}", registry.host);
    push(&host, &bundle, &registry, &["--deadline", "1s"]).exits(7).warns(&passed);
    assert!(registry.tags().is_empty());
}

/// The time for other targets, here a cache, counts as well.
#[test]
fn one_deadline_applies_to_the_whole_run() {
    let (host, bundle) = importer();
    let registry = Registry::new(|_| None);
    let flags = ["--cache-dir", "cache", "--data-home", "home", "--deadline", "1ms"];
    let run = push(&host, &bundle, &registry, &flags);
    run.exits(7).prints("trivy-db        installed").warns("the time limit of --deadline has passed: 1 ms");
    assert!(registry.seen().is_empty(), "{:#?}", registry.seen());
    push(&host, &bundle, &registry, &flags[..4]).good();
    assert_eq!(registry.tags(), ALL);
}

/// An import holds the state, so a pause of an hour would delay the imports into all other targets.
/// Rate limits often ask for long pauses (docker/buildx, issue 3630), and responses during
/// maintenance contain its end (RFC 9110, 10.2.3).
#[test]
fn a_registry_that_asks_for_a_long_pause_fails() {
    type Where = fn(&Seen) -> bool;
    let begins: Where = |seen| seen.method == Method::POST;
    let sends: Where = is_sent;
    let names: Where = |seen| seen.method == Method::PUT && seen.path.contains("/manifests/");
    let date = "Fri, 01 Jan 2100 00:00:00 GMT";
    for (at, code, after) in [(begins, 429, "3600"), (sends, 503, "601"), (names, 503, date)] {
        let (host, bundle) = importer();
        let rests = Arc::new(AtomicBool::new(true));
        let is_resting = rests.clone();
        let registry = Registry::new(move |seen| {
            let rests = at(seen) && is_resting.load(Relaxed);
            rests.then(|| header(status(code), "retry-after", after))
        });
        push(&host, &bundle, &registry, &[])
            .exits(7)
            .warns(&format!("{} ", registry.host))
            .warns("retry allowed in")
            .warns("a run waits at most 600 s when servers ask for pauses")
            .warns("--deadline");
        rests.store(false, Relaxed);
        push(&host, &bundle, &registry, &[]).good();
        assert_eq!(registry.tags(), ALL);
    }
    // Sources have the same limit. For `mirror`, it applies to both sides.
    let upstream = Upstream::new(|_, path| {
        path.starts_with("/v2/java/").then(|| Fault::Status(503, Some(("retry-after", "3600".into()))))
    });
    upstream.publish(1, 1000);
    let host = Host::new();
    host.write_key();
    host.export(&upstream, &[]).exits(3).warns("a run waits at most 600 s when servers");
    let registry = failing(begins, u32::MAX, || header(status(429), "retry-after", "3600"));
    mirror(&host, &upstream, &format!("{}/p", registry.host), &["--skip", "trivy-java-db"])
        .exits(7)
        .warns("a run waits at most 600 s when servers");
}

/// A reset in the middle of a body is not a response of the registry (ocx-sh/ocx, issue 276), and
/// the bytes that the registry has received need not be sent again (moby, issue 42615).
#[test]
fn an_interrupted_body_is_resumed_at_the_offset_of_the_registry() {
    let large = |seen: &Seen| is_sent(seen) && seen.path.contains("trivy-java-db") && seen.length > Some(100);
    for (keeps, chunk) in [(true, None), (false, None), (true, Some("2M")), (false, Some("2M"))] {
        println!("keeps {keeps}, chunks of {chunk:?}");
        let (host, bundle) = with_large_layer();
        let registry = Registry::new(|_| None);
        let flags: Vec<&str> = chunk.iter().flat_map(|size| ["--chunk-size", size]).collect();
        // Push everything except the large layer.
        push(&host, &bundle, &registry, &[&flags[..], &["--skip", "trivy-java-db"]].concat()).good();
        registry.break_next([Break { after: 700_000, keeps }, Break { after: 300_000, keeps }]);
        let (key, state) = (host.at("keys/exporter.pub"), host.at("other"));
        let place = format!("{}/p", registry.host);
        let bundle = bundle.to_str().unwrap();
        let import = ["import", bundle, "--trust", &key, "--state-dir", &state, "--registry", &place];
        host.run(&[&import[..], &["--only", "trivy-java-db", "--retries", "3"], &flags].concat()).good();
        assert_eq!(registry.tags(), ALL);
        let sent: Vec<Seen> = registry.seen().into_iter().filter(large).collect();
        let ranges: Vec<_> = sent.iter().filter_map(|seen| seen.content_range.clone()).collect();
        let last = LARGE - 1;
        match (keeps, chunk) {
            (true, None) => assert_eq!(ranges, [format!("700000-{last}"), format!("1000000-{last}")]),
            (false, None) => assert_eq!((sent.len(), ranges.len()), (3, 0), "{sent:#?}"),
            (true, Some(_)) => {
                assert_eq!(ranges[..3], ["0-2097151", "700000-2797151", "1000000-3097151"], "{ranges:#?}");
            }
            (false, Some(_)) => assert_eq!(ranges[..3], ["0-2097151"; 3], "{ranges:#?}"),
        }
    }
}

#[test]
fn an_upload_with_a_wrong_offset_of_the_registry_starts_again() {
    // The registry reports a larger offset than it has.
    let (host, bundle) = with_large_layer();
    let lied = Arc::new(Mutex::new(0));
    let lies = lied.clone();
    let registry = Registry::new(move |seen| {
        let asks = seen.method == Method::GET && seen.path.contains("trivy-java-db/blobs/uploads/");
        let mut lies = lies.lock().unwrap();
        *lies += u32::from(asks);
        (asks && *lies == 1).then(|| header(status(204), "range", "0-99"))
    });
    push(&host, &bundle, &registry, &["--skip", "trivy-java-db"]).good();
    registry.break_next([Break { after: 10_000, keeps: false }]);
    let (key, state) = (host.at("keys/exporter.pub"), host.at("other"));
    let place = format!("{}/p", registry.host);
    let bundle = bundle.to_str().unwrap();
    let import = ["import", bundle, "--trust", &key, "--state-dir", &state, "--registry", &place];
    host.run(&[&import[..], &["--only", "trivy-java-db"]].concat()).good();
    assert_eq!(registry.tags(), ALL);
    assert!(*lied.lock().unwrap() > 0);
}

/// Starts a registry behind a proxy with this limit for the size of requests.
fn behind_proxy(limit: u64) -> Registry {
    Registry::new(move |seen| (seen.length > Some(limit)).then(|| status(413)))
}

/// A CDN's tunnel limits requests to 100 MB (podman, issue 24919; cloudflare/serverless-registry,
/// issues 67 and 42), and nginx without configuration to 1 MiB. Other clients then send chunks
/// (regclient, issue 75 and pull request 76; skopeo, issue 2104).
#[test]
fn a_proxy_that_limits_requests_gets_chunks() {
    const M: u64 = 1 << 20;
    for (limit, chunk, flags) in [
        (8 * M, 4 * M, &[][..]),
        (M, M, &[]),
        (8 * M, 3 * M, &["--chunk-size", "3M"]),
        (2 * M, M, &["--chunk-size", "3M"]),
    ] {
        println!("{limit} {flags:?}");
        let (host, bundle) = with_large_layer();
        let registry = behind_proxy(limit);
        push(&host, &bundle, &registry, flags).good();
        assert_eq!(registry.tags(), ALL);
        let seen = registry.seen();
        let chunks: Vec<u64> = seen
            .iter()
            .filter(|seen| seen.method == Method::PATCH && seen.length <= Some(limit))
            .filter_map(|seen| seen.length)
            .collect();
        assert!(chunks.iter().all(|length| *length <= chunk) && chunks.contains(&chunk), "{chunks:?}");
        assert_eq!(chunks.iter().sum::<u64>(), LARGE as u64, "nothing is sent twice");
    }
    // The registry can announce a minimum chunk size.
    let (host, bundle) = with_large_layer();
    let registry = Registry::new(|_| None);
    registry.want_chunks_of(4 * M);
    push(&host, &bundle, &registry, &["--chunk-size", "1M"]).good();
    let chunks: Vec<_> = registry.seen().iter().filter_map(|seen| seen.content_range.clone()).collect();
    assert_eq!(chunks, ["0-4194303", "4194304-8388607", "8388608-9437183"]);
    // If the minimum is larger than the limit of the proxy, the upload fails.
    let (host, bundle) = with_large_layer();
    let registry = behind_proxy(M);
    registry.want_chunks_of(1 << 40);
    push(&host, &bundle, &registry, &["--retries", "3"]).exits(7).warns("status 413");
    let sent = |seen: &&Seen| is_sent(seen) && seen.path.contains("trivy-java-db");
    let count = registry.seen().iter().filter(sent).count();
    assert!(count <= 4, "{count} requests");
    // The result is the same if only the second upload announces the minimum.
    let (host, bundle) = with_large_layer();
    let begun = AtomicBool::new(false);
    let registry = Registry::new(move |seen| {
        let is_upload = seen.method == Method::POST && seen.path.contains("trivy-java-db");
        if is_upload && begun.swap(true, Relaxed) {
            let to = header(status(202), "location", &format!("{}1", seen.path));
            return Some(header(to, "oci-chunk-min-length", "1099511627776"));
        }
        (seen.length > Some(M)).then(|| status(413))
    });
    push(&host, &bundle, &registry, &["--retries", "3"]).exits(7).warns("status 413");
    let count = registry.seen().iter().filter(sent).count();
    assert!(count <= 8, "{count} requests");
    // A limit below the smallest chunk size is an error.
    let (host, bundle) = with_large_layer();
    let registry = behind_proxy(M / 2);
    push(&host, &bundle, &registry, &[])
        .exits(7)
        .prints("trivy-java-db   failed")
        .prints("trivy-db        pushed")
        .warns("status 413")
        .warns("client_max_body_size");
    assert_eq!(registry.tags(), ["p/trivy-checks:2", "p/trivy-db:2"]);
}

/// The registry redirects the upload to a host that rejects chunks of any size.
#[test]
fn a_redirected_upload_that_rejects_all_chunks_ends() {
    let (host, bundle) = with_large_layer();
    let storage = Registry::new(|seen| (seen.method == Method::PATCH).then(|| status(413)));
    let elsewhere = format!("http://{}/v2/p/trivy-java-db/blobs/uploads/1", storage.host);
    let registry = Registry::new(|_| None);
    registry.send_on_to(&elsewhere);
    push(&host, &bundle, &registry, &["--retries", "2", "--chunk-size", "4M"]).exits(7).warns("status 413");
    let count = storage.seen().iter().filter(|seen| is_sent(seen)).count();
    assert!((1..=8).contains(&count), "{count} requests");
}

/// Tokens are valid for some minutes, and an upload in chunks takes longer over a slow line.
#[test]
fn a_token_that_expires_in_the_middle_of_an_upload_is_renewed() {
    for everybody_reads in [false, true] {
        let (host, bundle) = with_large_layer();
        let own = Arc::new(Mutex::new(String::new()));
        // The number of chunks that were sent with each token.
        let tokens: Arc<Mutex<Vec<u32>>> = Arc::default();
        let (address, count) = (own.clone(), tokens.clone());
        let registry = Registry::new(move |seen| {
            let mut tokens = tokens.lock().unwrap();
            if seen.path == "/token" {
                tokens.push(0);
                return Some(Response::new(Body::from(format!(r#"{{"token":"{}"}}"#, tokens.len() - 1))));
            }
            if everybody_reads && matches!(seen.method, Method::GET | Method::HEAD) {
                return None;
            }
            let token = seen.authorization.as_deref().and_then(|shown| shown.strip_prefix("Bearer "));
            let shown = token.and_then(|token| tokens.get_mut(token.parse::<usize>().ok()?));
            let is_good = shown.is_some_and(|shown| {
                *shown += u32::from(seen.method == Method::PATCH);
                *shown <= 2
            });
            let asks = format!(r#"Bearer realm="http://{}/token",service="s""#, address.lock().unwrap());
            (!is_good).then(|| header(status(401), "www-authenticate", &asks))
        });
        own.lock().unwrap().clone_from(&registry.host);
        let config = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZXNhbWU="}}}}}}"#, registry.host);
        host.file("home/.docker/config.json", config);
        push(&host, &bundle, &registry, &["--chunk-size", "1M", "--retries", "3"]).good();
        assert_eq!(registry.tags(), ALL);
        assert!(count.lock().unwrap().len() > 4);
        let mut chunks: Vec<_> = registry.seen().into_iter().filter_map(|seen| seen.content_range).collect();
        let all = chunks.len();
        chunks.dedup();
        assert_eq!((chunks.len(), all < 16), (9, true), "only rejected chunks are sent again: {chunks:#?}");
    }
    // A rejected login is not an expired token.
    let (host, bundle) = importer();
    let registry = Registry::new(|seen| {
        is_sent(seen).then(|| header(status(401), "www-authenticate", "Basic realm=\"r\""))
    });
    let config = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZXNhbWU="}}}}}}"#, registry.host);
    host.file("home/.docker/config.json", config);
    push(&host, &bundle, &registry, &[]).exits(7).warns("status 401");
    assert!(registry.seen().iter().filter(|seen| is_sent(seen)).count() <= 12, "{:#?}", registry.seen());
}

/// Mirrors datasets from an upstream into registries.
fn mirror(host: &Host, upstream: &Upstream, places: &str, more: &[&str]) -> Run {
    let from = |name: &str| format!("{}/{name}:1", upstream.host);
    let (db, java_db, checks) = (from("db"), from("java"), from("checks"));
    let mirror = ["mirror", "--registry", places, "--from-plain-http", "--db-repository", &db];
    let others = ["--java-db-repository", &java_db, "--checks-bundle-repository", &checks];
    host.run(&[&mirror[..], &others, more].concat())
}

#[test]
fn a_mirror_fetches_data_again_that_a_registry_lost() {
    let host = Host::new();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 5_000_000);
    let (bad, good) = (Registry::new(|_| None), Registry::new(|_| None));
    bad.break_next([Break { after: 1_000_000, keeps: true }, Break { after: 1_000_000, keeps: false }]);
    let places = format!("{}/p,{}/p", bad.host, good.host);
    mirror(&host, &upstream, &places, &["--only", "trivy-db", "--retries", "4"]).good();
    assert_eq!((bad.tags(), good.tags()), (vec!["p/trivy-db:2".to_owned()], vec!["p/trivy-db:2".to_owned()]));
    // The registry without a fault got the layer once.
    let sent = |registry: &Registry| registry.seen().iter().filter(|seen| is_sent(seen)).count();
    assert_eq!(sent(&good), 2, "{:#?}", good.seen());
    // A registry that rejects all uploads does not affect the other one.
    let (bad, good) = (failing(is_sent, u32::MAX, || status(503)), behind_proxy(4 << 20));
    let places = format!("{}/p,{}/p", bad.host, good.host);
    mirror(&host, &upstream, &places, &["--retries", "1"]).exits(7).warns("status 503");
    assert!(bad.tags().is_empty());
    assert_eq!(good.tags(), ["p/trivy-checks:1", "p/trivy-db:2", "p/trivy-java-db:1"]);
    // If a source fails before all registries have the data, the complete registries keep it.
    let is_gone = Arc::new(AtomicBool::new(false));
    let (gone, goes) = (is_gone.clone(), is_gone);
    let upstream = Upstream::new(move |_, path| {
        (path.contains("/blobs/") && gone.load(Relaxed)).then_some(Fault::Status(404, None))
    });
    upstream.publish(0, 2_000_000);
    let bad = Registry::new(move |seen| {
        goes.fetch_or(is_sent(seen), Relaxed);
        is_sent(seen).then(|| status(503))
    });
    let good = Registry::new(|_| None);
    let places = format!("{}/p,{}/p", bad.host, good.host);
    mirror(&host, &upstream, &places, &["--only", "trivy-db"]).exits(3).warns("status 404");
    assert_eq!((bad.tags().len(), good.tags()), (0, vec!["p/trivy-db:2".to_owned()]));
}

/// Starts a proxy in front of a registry. The proxy closes the connection after some bytes of the
/// first bodies. Returns its address. `heads` gets the first lines of the requests with a body, and
/// their ranges.
fn breaks(registry: String, times: usize, after: u64, heads: Arc<Mutex<Vec<String>>>) -> String {
    each_connection(move |mut client| {
        let Some(head) = read_head(&mut client) else { return };
        let text = String::from_utf8_lossy(&head).into_owned();
        let is_body =
            ["PUT ", "PATCH "].iter().any(|method| text.starts_with(method)) && text.contains("/uploads/");
        let large = !text.contains("content-length: 0\r\n") && !text.contains("content-length: 2\r\n");
        let breaks = is_body && large && {
            let mut heads = heads.lock().unwrap();
            let range = text.lines().find(|line| line.to_lowercase().starts_with("content-range"));
            heads.push(format!("{} {}", text.split(' ').next().unwrap(), range.unwrap_or_default()));
            heads.len() <= times
        };
        let mut server = TcpStream::connect(&registry).unwrap();
        server.write_all(&head).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let answers = std::thread::spawn(move || {
            let _ = std::io::copy(&mut server, &mut client);
            let _ = client.shutdown(Shutdown::Both);
        });
        if breaks {
            let _ = std::io::copy(&mut Read::by_ref(&mut from).take(after), &mut to);
            let _ = from.shutdown(Shutdown::Both);
        } else {
            let _ = std::io::copy(&mut from, &mut to);
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = answers.join();
    })
}

#[test]
#[ignore = "tools"]
fn real_registries_resume_interrupted_uploads() {
    let tools = test_kit::tools();
    for is_distribution in [true, false] {
        for chunk in [None, Some("2M")] {
            let registry = match is_distribution {
                true => Real::distribution(&tools, None),
                false => Real::crane(&tools),
            };
            let (host, bundle) = with_large_layer();
            let heads: Arc<Mutex<Vec<String>>> = Arc::default();
            // The small layers are pushed first, without an interruption.
            let proxy = breaks(registry.address.clone(), 4, 1_500_000, heads.clone());
            let place = format!("{proxy}/{}", if chunk.is_some() { "chunks" } else { "whole" });
            let (key, state) = (host.at("keys/exporter.pub"), host.at("state"));
            let bundle = bundle.to_str().unwrap();
            let import = ["import", bundle, "--trust", &key, "--state-dir", &state, "--registry", &place];
            let flags: Vec<&str> = chunk.iter().flat_map(|size| ["--chunk-size", size]).collect();
            host.run(&[&import[..], &flags, &["--retries", "9", "--plain-http"]].concat()).good();
            let repository = place.split_once('/').unwrap().1;
            registry.digest_of(&format!("{repository}/trivy-java-db:1"));
            let heads = heads.lock().unwrap();
            println!("{is_distribution} {chunk:?} {heads:#?}");
            if chunk.is_some() {
                assert!(heads.iter().any(|head| head.starts_with("PATCH")), "{heads:#?}");
            }
            // distribution reports the number of received bytes.
            let resumed = heads.iter().any(|head| head.contains("ange: 1500000-"));
            assert!(resumed || !is_distribution, "{heads:#?}");
        }
    }
}
