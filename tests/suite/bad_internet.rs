//! Exports over a failing network: the result is a good bundle or one clear reason, and received
//! data is not fetched twice.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use test_kit::authority::{Authority, NAME};
use test_kit::files::Fault;
use test_kit::host::names;
use test_kit::noise::{self, Noise};
use test_kit::process::{Run, ended, wait_for};
use test_kit::runs;
use test_kit::squid::{self, Squid};
use trivy_ferry::digest::Digest;

use crate::forge::upstream::Upstream;
use crate::forge::{self, Host};

/// Returns a host with the key and the directory for an export.
fn exporter() -> Host {
    let host = Host::new();
    host.write_key();
    fs::create_dir_all(host.path("out")).unwrap();
    host
}

impl Host {
    /// Returns the command of an export into `out`, without the flags for its sources.
    fn export_from(&self) -> Command {
        let mut command = self.command();
        command.args(["export", "--key", "exporter.key", "--output", "out", "--state-dir", "state"]);
        command
    }

    fn left(&self) -> Vec<String> {
        names(self.path("out"))
    }

    fn bundles(&self) -> usize {
        self.left().iter().filter(|name| name.ends_with(".tar")).count()
    }

    /// Asserts that the directory contains this number of valid bundles and nothing else.
    #[track_caller]
    fn holds_good_bundles(&self, count: usize) {
        assert_eq!(self.bundles(), count, "{:?}", self.left());
        assert_eq!(self.left().len(), count, "{:?}", self.left());
        if count > 0 {
            self.verify(&self.path("out"), &[]).good();
        }
    }
}

/// Returns a random fault.
fn fault(dice: &mut Noise) -> Fault {
    let at = dice.below(5_000_000) as usize;
    // Faults that take time are rare.
    if dice.below(40) == 0 {
        return if dice.below(2) == 0 { Fault::Stall(at) } else { Fault::Silence };
    }
    match dice.below(16) {
        0 => Fault::Status(503, None),
        1 => Fault::Status(429, Some(("retry-after", "0".into()))),
        2 => Fault::Status(429, Some(("retry-after", "Thu, 01 Jan 2026 00:00:00 GMT".into()))),
        3 => Fault::Words("retry-after: 825.911µs, allowed: 44000/minute".into()),
        4 => Fault::Status(502, None),
        5 => Fault::Status(403, None),
        6 => Fault::Short(at),
        7 => Fault::Flip(at),
        8 => Fault::WrongRange,
        9 => Fault::NoRange,
        10 => Fault::Page,
        11 => Fault::Elsewhere,
        _ => Fault::Cut(at),
    }
}

/// The connection between an export and upstream.
struct Route<'a> {
    /// The authority of upstream's TLS certificate and of the client certificate that it requires.
    authority: Option<&'a Authority>,
    proxy: Option<&'a squid::Running>,
}

/// The possible routes. Some use the proxy if there is one.
struct Routes {
    authority: Authority,
    proxy: Option<squid::Running>,
}

impl Routes {
    fn of(&self, seed: u64) -> Route<'_> {
        let authority = (seed & 1 != 0).then_some(&self.authority);
        Route { authority, proxy: self.proxy.as_ref().filter(|_| seed & 2 != 0) }
    }
}

impl Route<'_> {
    /// Prepares a host for this route, and returns the flags for it.
    fn prepare(&self, host: &Host, upstream: &mut Upstream) -> Vec<&'static str> {
        if self.proxy.is_some() {
            // Only the proxy can resolve `NAME`.
            upstream.rename(NAME);
        }
        let Some(authority) = self.authority else { return Vec::new() };
        let (certificate, key) = authority.issue(&["exporter.test"]);
        host.file("client.pem", certificate + &key);
        host.file("ca.pem", &authority.pem);
        vec!["--cacert", "ca.pem", "--client-cert", "client.pem"]
    }

    fn set(&self, command: &mut Command) {
        if let Some(proxy) = self.proxy {
            let url = format!("http://ann:secret@{}", proxy.address);
            command.env("HTTP_PROXY", &url).env("HTTPS_PROXY", &url);
        }
    }
}

/// Exports from one upstream under random faults until an export succeeds, and returns the outcome.
fn schedule(seed: u64, route: &Route<'_>) -> &'static str {
    let dice = Mutex::new(Noise::new(seed));
    let often = 1 + dice.lock().unwrap().below(12);
    let mut upstream = Upstream::with(route.authority, move |number, _| {
        let mut dice = dice.lock().unwrap();
        // The faults end after 120 requests, so that an export can succeed.
        (number < 120 && dice.below(often) == 0).then(|| fault(&mut dice))
    });
    let host = exporter();
    let flags = route.prepare(&host, &mut upstream);
    upstream.publish(seed % 1000, 5_000_000);
    let (mut outcome, mut last) = ("failed", String::new());
    // Half of the runs require all datasets.
    let require = if seed & 4 == 0 { "all" } else { "trivy-db" };
    let mut incomplete = 0;
    for round in 0..200 {
        let mut command = host.export_command(&upstream, &flags);
        command.env("TRIVY_FERRY_RETRIES", "3").env("TRIVY_FERRY_STALL_TIMEOUT", "2s");
        command.env("TRIVY_FERRY_REQUIRE", require);
        route.set(&mut command);
        let ran = forge::run(command);
        match ran.code {
            0 => {
                host.holds_good_bundles(incomplete + 1);
                return if round == 0 { "good at once" } else { outcome };
            }
            3 => {
                let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
                incomplete += usize::from(said["result"] == "incomplete");
                assert!(incomplete == 0 || require != "all", "seed {seed}: {ran:#?}");
                assert_eq!(host.bundles(), incomplete, "seed {seed}: {ran:#?}");
                let what = said["errors"][0]["what"].as_str().unwrap_or_default();
                assert!(what.contains(&upstream.host) || what.contains("127.0.0.1"), "seed {seed}: {said:#}");
                outcome = "good after a failure";
                last = ran.err;
            }
            _ => panic!("seed {seed}: {ran:#?}"),
        }
    }
    panic!("seed {seed}: no bundle in the end, but {:?}: {last}", host.left());
}

#[test]
fn an_export_under_any_faults_ends_with_a_good_bundle_or_a_reason() {
    bad_weather(&Routes { authority: Authority::new(), proxy: None });
}

#[test]
#[ignore = "tools"]
fn an_export_through_a_proxy_under_any_faults_ends_with_a_good_bundle_or_a_reason() {
    let proxy = Squid { login: true, ..Squid::default() }.start();
    bad_weather(&Routes { authority: Authority::new(), proxy: Some(proxy) });
}

/// Exports under the random faults of many seeds.
fn bad_weather(routes: &Routes) {
    let first = noise::seed();
    let next = Arc::new(Mutex::new(first..first + runs(20, 200)));
    let tell = |seed: u64| {
        let route = std::panic::AssertUnwindSafe(routes.of(seed));
        let outcome = std::panic::catch_unwind(|| schedule(seed, &route));
        outcome.unwrap_or_else(|_| panic!("seed {seed} failed; TRIVY_FERRY_SEED={seed} repeats it"))
    };
    let outcomes = std::thread::scope(|scope| {
        let work = || {
            let next = || next.lock().unwrap().next();
            std::iter::from_fn(next).map(tell).collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let count = |what: &str| outcomes.iter().filter(|outcome| **outcome == what).count();
    println!("{} good at once, {} after a failure", count("good at once"), count("good after a failure"));
    assert!(count("good at once") > 0 && count("good after a failure") > 0, "too few or too many faults");
}

/// Returns the repositories of this name in several upstreams, in the form of a flag.
fn repositories(sources: &[&Upstream], name: &str) -> String {
    let list: Vec<String> = sources.iter().map(|upstream| format!("{}/{name}:1", upstream.host)).collect();
    list.join(",")
}

/// Exports trivy-db from these upstreams in this order. Returns the run, and the row of the report.
fn export_db(host: &Host, sources: &[&Upstream], more: &[&str]) -> (Run, serde_json::Value) {
    let mut command = host.export_from();
    command.args(["--only", "trivy-db", "--plain-http", "--format", "json"]);
    command.args(["--db-repository", &repositories(sources, "db")]).args(more);
    let ran = forge::run(command);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let row = json["datasets"][0].clone();
    (ran, row)
}

#[test]
fn a_source_that_fails_or_lags_is_skipped_and_named() {
    let fresh = Upstream::new(|_, _| None);
    fresh.publish(60, 1000);
    let stale = Upstream::new(|_, _| None);
    stale.publish(0, 1000);
    let ill = Upstream::new(|_, _| Some(Fault::Status(503, None)));
    ill.publish(60, 1000);
    let lying = Upstream::new(|_, path| path.contains("/manifests/").then_some(Fault::Page));
    lying.publish(60, 1000);
    let host = exporter();
    let (ran, row) = export_db(&host, &[&ill, &lying, &stale, &fresh], &[]);
    ran.good();
    assert_eq!(row["source"], format!("{}/db:1", fresh.host));
    let passed: Vec<(String, String)> = row["passed_over"]
        .as_array()
        .unwrap()
        .iter()
        .map(|passed| (passed["source"].to_string(), passed["why"].to_string()))
        .collect();
    for (upstream, why) in
        [(&ill, "status 503"), (&lying, "HTML page"), (&stale, "another source has data from")]
    {
        let named = passed.iter().any(|(source, said)| source.contains(&upstream.host) && said.contains(why));
        assert!(named, "{why}: {passed:?}");
    }
    assert_eq!(passed.len(), 3, "{passed:?}");
    // The stale source is older than the last signed data. If it is the only source, nothing is
    // signed.
    let (ran, _) = export_db(&host, &[&stale], &[]);
    assert_eq!(ran.code, 5, "{ran:#?}");
    host.holds_good_bundles(1);
    // If the first source has new data, the other source is not tried.
    let host = exporter();
    let asked = stale.asked();
    let newest = Upstream::new(|_, _| None);
    newest.publish(3 * 24 * 60 - 60, 1000);
    let (ran, row) = export_db(&host, &[&newest, &stale], &[]);
    ran.good();
    assert_eq!(row["passed_over"], serde_json::json!([]), "{row:#}");
    assert_eq!(stale.asked(), asked, "new data needs no comparison");
}

#[test]
fn an_interrupted_layer_is_resumed_from_another_source() {
    let dying = Upstream::new(|number, path| match path.contains("/db/blobs/") {
        true if number == 2 => Some(Fault::Cut(500_000)),
        true if number > 2 => Some(Fault::Status(503, None)),
        _ => None,
    });
    let other = Upstream::new(|_, _| None);
    for upstream in [&dying, &other] {
        upstream.publish(0, 2_000_000);
    }
    let host = exporter();
    let (ran, _) = export_db(&host, &[&dying, &other], &[]);
    ran.good();
    assert!(ran.err.contains("resuming from"), "{ran:#?}");
    host.holds_good_bundles(1);
    let sent = dying.sent() + other.sent();
    assert!(sent < 2_200_000, "received data is not fetched again: {sent}");
}

#[test]
fn an_interruption_causes_little_additional_traffic() {
    // The connection is closed once, at some byte of the large layer, and the run retries by
    // itself.
    for at in [1, 70_000, 1_000_000, 2_097_151] {
        let cut = Arc::new(Mutex::new(Some(at)));
        let weather = cut.clone();
        let upstream = Upstream::new(move |number, path| {
            let large = path.contains("/db/blobs/") && number > 8;
            weather.lock().unwrap().take_if(|_| large).map(Fault::Cut)
        });
        upstream.publish(0, 20_000_000);
        let host = exporter();
        host.export(&upstream, &[]).good();
        host.holds_good_bundles(1);
        assert!(cut.lock().unwrap().is_none(), "the connection was not closed");
        let (sent, size) = (upstream.sent(), upstream.size());
        assert!(sent * 10 < size * 13, "{at}: {sent} bytes for {size}");
    }
}

#[test]
fn an_export_that_failed_resumes_where_it_stopped() {
    // The registry fails during its second response for the large layer, and works again for the
    // next export.
    const DEAD: u64 = 2;
    const BACK: u64 = 3;
    let phase = Arc::new(AtomicU64::new(0));
    let weather = phase.clone();
    let small = Digest::of(b"{}").hex();
    let upstream = Upstream::new(move |_, path| {
        let large = path.contains("/db/blobs/") && !path.ends_with(&small);
        match weather.load(Relaxed) {
            DEAD => Some(Fault::Status(503, None)),
            answered if large && answered < DEAD => {
                weather.store(answered + 1, Relaxed);
                (answered + 1 == DEAD).then_some(Fault::Cut(30_000_000))
            }
            _ => None,
        }
    });
    upstream.publish(0, 60_000_000);
    let host = exporter();
    let ran = host.export(&upstream, &[]);
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert!(ran.err.contains("503"), "{ran:#?}");
    assert_eq!(host.left().len(), 2, "the received data, and its plan: {:?}", host.left());
    phase.store(BACK, Relaxed);
    let ran = host.export(&upstream, &[]);
    ran.good();
    assert!(ran.err.contains("from an interrupted export"), "{ran:#?}");
    host.holds_good_bundles(1);
    let (sent, size) = (upstream.sent(), upstream.size());
    assert!(sent * 10 < size * 13, "{sent} bytes for {size}");
}

/// Kills an export when its file has this size. The number of sent bytes does not show the size,
/// because up to 32 MiB of them may still be in the buffers of the system.
fn kill_at(host: &Host, upstream: &Upstream, bytes: u64) {
    let mut command = host.export_command(upstream, &[]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let written = || {
        let partials = host.left().into_iter().filter(|name| name.ends_with(".tar.partial"));
        partials
            .filter_map(|name| fs::metadata(host.path("out").join(name)).ok())
            .any(|file| file.len() >= bytes)
    };
    while !written() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(child.try_wait().unwrap().is_none(), "the export ended before it was killed");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_export_that_was_killed_resumes_where_it_stopped() {
    // Until the export is killed, the registry stalls after 64 MB of the large layer, so that the
    // kill is never too late.
    let (stalling, answered) = (Arc::new(AtomicU64::new(1)), AtomicU64::new(0));
    let weather = stalling.clone();
    let small = Digest::of(b"{}").hex();
    let upstream = Upstream::new(move |_, path| {
        let large = path.contains("/db/blobs/") && !path.ends_with(&small);
        // The client first reads the start in one response. Then it reads one stream, or one range
        // after the other.
        match answered.fetch_add(u64::from(large), Relaxed) {
            _ if !large || weather.load(Relaxed) == 0 => None,
            0 | 2..=29 => None,
            1 => Some(Fault::Stall(64_000_000)),
            _ => Some(Fault::Stall(1)),
        }
    });
    upstream.publish(0, 80_000_000);
    let host = exporter();
    kill_at(&host, &upstream, 60_000_000);
    stalling.store(0, Relaxed);
    assert_eq!(host.bundles(), 0);
    host.export(&upstream, &[]).good();
    host.holds_good_bundles(1);
    let (sent, size) = (upstream.sent(), upstream.size());
    assert!(sent * 10 < size * 13, "{sent} bytes for {size}");
}

#[test]
fn data_that_upstream_has_not_changed_is_kept() {
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 80_000_000);
    let host = exporter();
    kill_at(&host, &upstream, 40_000_000);
    // Everything except the large layer is new.
    let large = Upstream::new(|_, _| None);
    large.publish(0, 80_000_000);
    upstream.publish(1, 80_000_000);
    let mut flags = upstream.flags();
    flags[0].clone_from(&large.flags()[0]);
    let mut command = host.export_from();
    command.args(flags);
    let ran = forge::run(command);
    ran.good();
    assert!(ran.err.contains("trivy-db-1: ") || ran.err.contains("from an interrupted export"), "{ran:#?}");
    host.holds_good_bundles(1);
    assert!(large.sent() < 60_000_000, "{}", large.sent());
}

#[test]
fn leftover_files_of_a_killed_export_are_not_trusted() {
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 40_000_000);
    let host = exporter();
    // The cases are changed bytes, changed bytes with a matching plan, an invalid plan, no plan,
    // and an empty file.
    for change in 0..5u64 {
        kill_at(&host, &upstream, 16_000_000);
        let find =
            |end: &str| host.path("out").join(host.left().into_iter().find(|n| n.ends_with(end)).unwrap());
        let (partial, plan) = (find(".tar.partial"), find(".plan.partial"));
        match change {
            0 => {
                let mut bytes = fs::read(&partial).unwrap();
                bytes[6_000_000] ^= 1;
                fs::write(&partial, bytes).unwrap();
            }
            1 => {
                // The checksum matches the changed bytes, so only the digest shows the damage.
                let mut bytes = fs::read(&partial).unwrap();
                bytes[6_000_000] ^= 1;
                fs::write(&partial, &bytes).unwrap();
                let mut crc = flate2::Crc::new();
                crc.update(&bytes[4 << 20..8 << 20]);
                let text = fs::read_to_string(&plan).unwrap();
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines[2] = format!("{{\"end\":{},\"crc\":{}}}", 8 << 20, crc.sum());
                fs::write(&plan, lines.join("\n") + "\n").unwrap();
            }
            2 => fs::write(&plan, "rubbish\n").unwrap(),
            3 => fs::remove_file(&plan).unwrap(),
            _ => fs::write(&partial, "").unwrap(),
        }
        let ran = host.export(&upstream, &[]);
        ran.good();
        assert_eq!(ran.err.contains("fetching all of it again"), change == 1, "{ran:#?}");
        let count = host.bundles();
        host.holds_good_bundles(count);
    }
}

#[test]
fn bytes_that_were_damaged_on_arrival_are_fetched_again() {
    // The first range is damaged in transit, and then the registry fails, so that the damage is not
    // detected yet.
    let phase = Arc::new(AtomicU64::new(0));
    let weather = phase.clone();
    let small = Digest::of(b"{}").hex();
    let upstream = Upstream::new(move |_, path| {
        let large = path.contains("/db/blobs/") && !path.ends_with(&small);
        match weather.load(Relaxed) {
            0 if large => {
                weather.store(1, Relaxed);
                Some(Fault::Flip(1_000_000))
            }
            1 if large => Some(Fault::Status(503, None)),
            _ => None,
        }
    });
    upstream.publish(0, 5_000_000);
    let host = exporter();
    assert_eq!(host.export(&upstream, &[]).code, 3);
    assert_eq!(host.left().len(), 2, "the received data is kept: {:?}", host.left());
    phase.store(2, Relaxed);
    // The result is the same if the export must also write new data around the kept data.
    upstream.publish_vex(1);
    let ran = host.export(&upstream, &[]);
    ran.good();
    assert!(ran.err.contains("should have the digest"), "{ran:#?}");
    host.holds_good_bundles(1);
}

#[test]
fn a_bad_layer_is_fetched_from_another_source() {
    let good = Upstream::new(|_, _| None);
    good.publish(0, 20_000_000);
    // This source has the newer manifest and a layer with the right digest, but the content is
    // invalid.
    let rubbish = Upstream::new(|_, _| None);
    rubbish.publish_rubbish_db(1);
    // This source sends bytes that do not match the digest of the layer.
    let small = Digest::of(b"{}").hex();
    let damaging = Upstream::new(move |_, path| {
        let large = path.contains("/db/blobs/") && !path.ends_with(&small);
        large.then_some(Fault::Flip(1_000_000))
    });
    damaging.publish(2, 20_000_000);
    // This source no longer has the layer that its manifest names.
    let small = Digest::of(b"{}").hex();
    let forgetful = Upstream::new(move |_, path| {
        let large = path.contains("/db/blobs/") && !path.ends_with(&small);
        large.then_some(Fault::Status(404, None))
    });
    forgetful.publish(3, 20_000_000);
    let host = exporter();
    let (ran, row) = export_db(&host, &[&rubbish, &damaging, &forgetful, &good], &[]);
    ran.good();
    assert_eq!(row["source"], format!("{}/db:1", good.host), "{row:#}");
    let passed = row["passed_over"].to_string();
    for (upstream, why) in [
        (&rubbish, "does not contain metadata.json"),
        (&damaging, "but has sha256:"),
        (&forgetful, "status 404"),
    ] {
        assert!(passed.contains(&upstream.host) && passed.contains(why), "{why}: {passed}");
    }
    host.holds_good_bundles(1);
    // If no source has a good layer, nothing is signed.
    let host = exporter();
    let (ran, _) = export_db(&host, &[&rubbish, &damaging], &[]);
    assert_eq!(ran.code, 3, "{ran:#?}");
    host.holds_good_bundles(0);
}

#[test]
fn a_bad_layer_does_not_affect_other_layers() {
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 60_000_000);
    let (bad, good) = (Upstream::new(|_, _| None), Upstream::new(|_, _| None));
    bad.publish_rubbish_java_db(1);
    good.publish(0, 1000);
    let host = exporter();
    let mut flags = upstream.flags();
    flags[1] = format!("--java-db-repository={}/java:1,{}/java:1", bad.host, good.host);
    let mut command = host.export_from();
    command.args(["--only", "trivy-db,trivy-java-db"]).args(flags);
    let ran = forge::run(command);
    ran.good();
    assert!(ran.err.contains("trying another source"), "{ran:#?}");
    host.holds_good_bundles(1);
    assert!(upstream.sent() < 70_000_000, "{}", upstream.sent());
}

#[test]
fn a_dry_run_names_every_host_for_the_firewall() {
    let upstream = Upstream::new(|_, path| path.contains("/blobs/").then_some(Fault::Elsewhere));
    upstream.publish(0, 100_000);
    let spare = Upstream::new(|_, _| None);
    let host = exporter();
    let mut command = host.export_command(&upstream, &["--dry-run"]);
    command.arg(format!("--db-repository={}/db:1", spare.host));
    let ran = forge::run(command);
    ran.good();
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let mut hosts: Vec<&str> =
        report["hosts"].as_array().unwrap().iter().map(|host| host.as_str().unwrap()).collect();
    hosts.sort_unstable();
    let mut wanted = [upstream.host.as_str(), &upstream.elsewhere, &spare.host];
    wanted.sort_unstable();
    assert_eq!(hosts, wanted);
    assert_eq!(host.left(), [""; 0]);
}

#[test]
fn only_data_that_enough_registries_agree_on_is_signed() {
    let [one, two, liar] = [0, 0, 1].map(|generation| {
        let upstream = Upstream::new(|_, _| None);
        upstream.publish(generation, 1000);
        upstream
    });
    let host = exporter();
    let export = |sources: &[&Upstream], quorum: &str| {
        let mut command = host.export_from();
        command.args(["--only", "trivy-db", "--plain-http", "--quorum", quorum, "--db-repository"]);
        command.arg(repositories(sources, "db"));
        forge::run(command)
    };
    // The wrong registry has the newest data, and no other registry has it.
    export(&[&liar, &one, &two], "2").good();
    host.verify(&host.path("out"), &[]).good();
    let inspected = host.run(&["inspect", &host.at("out"), "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&inspected.out).unwrap();
    let source = &report["bundles"][0]["payload"]["datasets"][0]["source"];
    assert_eq!(source, &format!("{}/db:1", one.host));
    let ran = export(&[&liar, &one, &two], "3");
    ran.fails_with(3, &["2 of the 3 registries", &liar.host, "--quorum-wait"]);
    // A registry counts once, even if it is named twice.
    export(&[&one, &one, &liar], "2").fails_with(3, &["1 of the 2 registries"]);
    host.holds_good_bundles(1);
}

/// Leaves the files of a killed export, and returns their paths.
fn leave(host: &Host, upstream: &Upstream) -> (PathBuf, PathBuf) {
    kill_at(host, upstream, 16_000_000);
    let find = |end: &str| {
        let name = host.left().into_iter().find(|name| name.ends_with(end)).unwrap();
        host.path("out").join(name)
    };
    (find(".tar.partial"), find(".plan.partial"))
}

#[test]
fn an_export_follows_no_link_that_another_user_puts_into_its_directory() {
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 40_000_000);
    let host = exporter();
    let victim = host.file("victim", "precious");
    // The cases are a link or a FIFO in place of the file or its plan, and a file with a second
    // hard link.
    for change in 0..5 {
        let (partial, plan) = leave(&host, &upstream);
        let swapped = if change % 2 == 0 { &partial } else { &plan };
        fs::remove_file(swapped).unwrap();
        match change {
            0 | 1 => std::os::unix::fs::symlink(&victim, swapped).unwrap(),
            2 | 3 => drop(Command::new("mkfifo").arg(swapped).status().unwrap()),
            _ => fs::hard_link(&victim, swapped).unwrap(),
        }
        // The name of a bundle contains its creation time to the second, and an existing file with
        // that name is an error.
        host.wait(2);
        let ran = host.export(&upstream, &[]);
        ran.good();
        assert_eq!(fs::read(&victim).unwrap(), b"precious", "{change}");
        for bundle in host.left().iter().filter(|name| name.ends_with(".tar")) {
            host.verify(&host.path("out").join(bundle), &[]).good();
            fs::remove_file(host.path("out").join(bundle)).unwrap();
        }
        for name in host.left() {
            fs::remove_file(host.path("out").join(name)).unwrap();
        }
    }
    // The leftover file has additional bytes between the blobs and after the end.
    let (partial, _) = leave(&host, &upstream);
    let mut bytes = fs::read(&partial).unwrap();
    bytes.resize(bytes.len() + 90_000_000, 7);
    fs::write(&partial, bytes).unwrap();
    host.export(&upstream, &[]).good();
    host.holds_good_bundles(1);
}

#[test]
fn a_second_run_does_not_touch_the_file_of_the_first() {
    // The first run stalls in the middle and then continues.
    let stalls = std::sync::atomic::AtomicBool::new(true);
    let upstream = Upstream::new(move |_, path| {
        (path.contains("/db/blobs/") && stalls.swap(false, Relaxed)).then_some(Fault::Stall(10_000_000))
    });
    upstream.publish(0, 30_000_000);
    let host = exporter();
    let export = |state: &str| {
        let mut command = host.command();
        command.args(["export", "--key", "exporter.key", "--output", "out/b.tar", "--state-dir", state]);
        command.args(upstream.flags());
        command
    };
    let sent = upstream.sent();
    let mut first = export("state").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the middle of the first export", || (upstream.sent() >= sent + 9_000_000).then_some(()));
    let pid = Pid::from_child(&first);
    kill_process(pid, Signal::STOP).unwrap();
    forge::run(export("state2")).fails_with(7, &["b.tar"]);
    assert!(first.try_wait().unwrap().is_none(), "the first export ended before the second began");
    kill_process(pid, Signal::CONT).unwrap();
    assert!(ended(&mut first).success());
    host.holds_good_bundles(1);
}

#[test]
#[ignore = "tools"]
fn all_connections_use_the_proxy_of_a_company() {
    let authority = Authority::new();
    let proxy = Squid { login: true, ..Squid::default() }.start();
    let route = Route { authority: Some(&authority), proxy: Some(&proxy) };
    let mut upstream = Upstream::with(route.authority, |_, _| None);
    let host = exporter();
    let flags = route.prepare(&host, &mut upstream);
    upstream.publish(0, 1_000_000);
    let export = |login: &str, more: (&str, &str)| {
        let mut command = host.export_command(&upstream, &flags);
        command.env("HTTPS_PROXY", format!("http://{login}{}", proxy.address)).env(more.0, more.1);
        forge::run(command)
    };
    let nothing = ("NOTHING", "");
    // The login is missing or wrong, or the proxy is not used.
    export("", nothing).fails_with(3, &["The proxy requires a login"]);
    export("ann:wrong@", nothing).fails_with(3, &["The proxy requires a login"]);
    export("ann:secret@", ("NO_PROXY", NAME)).fails_with(3, &[NAME]);
    host.holds_good_bundles(0);
    export("ann:secret@", nothing).good();
    host.holds_good_bundles(1);
    let passed = proxy.passed();
    assert!(passed.contains(&format!("CONNECT {}", upstream.host)), "{passed}");
    assert!(!passed.contains(" GET "), "the proxy must not see the requests in TLS: {passed}");
    // The proxy gets complete requests over plain HTTP, and rejects them with another status.
    let plain = Upstream::new(|_, _| None).named(NAME);
    plain.publish(0, 1000);
    let mut command = host.export_command(&plain, &[]);
    command.env("HTTP_PROXY", format!("http://{}", proxy.address));
    forge::run(command).fails_with(3, &["The proxy requires a login"]);
}

#[test]
#[ignore = "tools"]
fn a_proxy_that_intercepts_tls_is_trusted_if_its_authority_is_given() {
    let (own, behind) = (Authority::new(), Authority::new());
    let proxy = Squid { opens_tls: Some(&own), trusts: Some(&behind), ..Squid::default() }.start();
    let upstream = Upstream::behind_tls(&behind, |_, _| None).named(NAME);
    upstream.publish(0, 1_000_000);
    let host = exporter();
    host.file("own.pem", &own.pem);
    let export = |more: &[&str]| {
        let mut command = host.export_command(&upstream, more);
        command.env("HTTPS_PROXY", format!("http://{}", proxy.address));
        forge::run(command)
    };
    export(&[]).fails_with(3, &["is not trusted", "--cacert"]);
    host.holds_good_bundles(0);
    export(&["--cacert", "own.pem"]).good();
    host.holds_good_bundles(1);
    // The authority can also be in the certificate store of the system.
    let mut command = host.export_command(&upstream, &["--dry-run"]);
    command.env("HTTPS_PROXY", format!("http://{}", proxy.address)).env("SSL_CERT_FILE", "own.pem");
    forge::run(command).good();
    assert!(proxy.passed().contains(" GET "), "the proxy intercepts the requests: {}", proxy.passed());
}

#[test]
fn a_mirror_is_tried_first_and_does_not_count_for_a_quorum() {
    let upstream = Upstream::new(|_, _| None);
    let mirror = Upstream::new(|_, _| None);
    upstream.publish(0, 1000);
    mirror.publish(0, 1000);
    let host = exporter();
    let export = |more: &[&str]| {
        let mut command = host.export_from();
        command.args(["--only", "trivy-db", "--plain-http", "--format", "json"]);
        command.args(["--db-repository", &format!("{}/db:1", upstream.host)]).args(more);
        forge::run(command)
    };
    let mirrored = format!("--registry-mirror={}={}", upstream.host, mirror.host);
    export(&[&mirrored, "--quorum", "2"]).fails_with(3, &["1 of the 2 registries"]);
    host.holds_good_bundles(0);
    // The mirror's data is 3 days old, so both registries are tried. Both have the same data.
    let ran = export(&[&mirrored]);
    ran.good();
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["datasets"][0]["source"], format!("{}/db:1", mirror.host), "{report:#}");
    // An unreachable mirror is skipped.
    let out = export(&[&format!("--registry-mirror={}=127.0.0.1:1/cache", upstream.host)]);
    out.good();
    assert!(out.err.contains("skipped 127.0.0.1:1/cache/db:1"), "{out:#?}");
}

/// The generation of data that was published 1 h ago. A generation is the number of minutes between
/// 3 days ago and the publication.
const FRESH: u64 = 3 * 24 * 60 - 60;

/// Returns a function that returns this fault for all requests for large layers of trivy-db.
fn large_gets(fault: Fault) -> impl Fn(u64, &str) -> Option<Fault> + Send + Sync {
    let small = Digest::of(b"{}").hex();
    move |_, path| (path.contains("/db/blobs/") && !path.ends_with(&small)).then(|| fault.clone())
}

#[test]
fn a_fresh_source_without_its_layer_does_not_prevent_the_use_of_others() {
    for fault in [Fault::Status(404, None), Fault::Status(500, None), Fault::Long(10)] {
        let forgetful = Upstream::new(large_gets(fault.clone()));
        forgetful.publish(FRESH, 100_000);
        let other = Upstream::new(|_, _| None);
        // The other source has other data, and then the same data.
        for generation in [FRESH + 1, FRESH] {
            other.publish(generation, 100_000);
            let host = exporter();
            let (ran, row) = export_db(&host, &[&forgetful, &other], &[]);
            ran.good();
            let layer = generation == FRESH && !matches!(fault, Fault::Long(_));
            let source = if layer { &forgetful } else { &other };
            assert_eq!(row["source"], format!("{}/db:1", source.host), "{fault:?} {generation} {row:#}");
            host.holds_good_bundles(1);
        }
    }
}

#[test]
fn a_quorum_selects_the_newest_data_that_enough_registries_have_even_if_one_sends_bad_bytes() {
    let [old, new, old_too, new_too] = [0, 2000, 0, 2000].map(|generation| {
        let upstream = Upstream::new(|_, _| None);
        upstream.publish(generation, 1000);
        upstream
    });
    let damaging = Upstream::new(large_gets(Fault::Flip(70)));
    damaging.publish(2000, 1000);
    let host = exporter();
    let (ran, row) = export_db(&host, &[&old, &new, &old_too, &new_too], &["--quorum", "2"]);
    ran.good();
    assert_eq!(row["source"], format!("{}/db:1", new.host), "{row:#}");
    let passed = row["passed_over"].to_string();
    assert!(
        passed.contains(&old.host) && passed.contains("from that of the registries that agree"),
        "{passed}"
    );
    // This source sends bad bytes, but its manifest counts for the quorum.
    let host = exporter();
    let (ran, row) = export_db(&host, &[&damaging, &new], &["--quorum", "2"]);
    ran.good();
    assert_eq!(row["source"], format!("{}/db:1", new.host), "{row:#}");
    host.holds_good_bundles(1);
}

#[test]
fn two_datasets_cannot_share_a_layer() {
    let [odd, good] = [0, 0].map(|generation| {
        let upstream = Upstream::new(|_, _| None);
        upstream.publish(generation, 1000);
        upstream
    });
    odd.publish_db_as_java_db();
    let export = |host: &Host, sources: &[&Upstream]| {
        let mut command = host.export_from();
        command.args(["--only", "trivy-db,trivy-java-db", "--plain-http"]);
        command.args(["--db-repository", &format!("{}/db:1", odd.host)]);
        command.args(["--java-db-repository", &repositories(sources, "java")]);
        forge::run(command)
    };
    let host = exporter();
    export(&host, &[&odd, &good]).good();
    host.holds_good_bundles(1);
    let host = exporter();
    export(&host, &[&odd])
        .exits(3)
        .warns("serves an unusable trivy-java-db")
        .warns("is also another blob of the bundle");
    // The other dataset with this layer is good.
    host.holds_good_bundles(1);
}

#[test]
fn a_leftover_file_that_is_too_long_does_not_lengthen_the_bundle() {
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 40_000_000);
    let host = exporter();
    let (partial, plan) = leave(&host, &upstream);
    // Another user has extended the leftover file beyond the end of the bundle, with matching
    // checksums.
    let size = 64 << 20;
    let mut bytes = fs::read(&partial).unwrap();
    bytes.resize(size, 7);
    fs::write(&partial, &bytes).unwrap();
    let text = fs::read_to_string(&plan).unwrap();
    let geometry = text.lines().next().unwrap();
    let start =
        serde_json::from_str::<serde_json::Value>(geometry).unwrap()["start"].as_u64().unwrap() as usize;
    bytes[..start].fill(0);
    let mut lines = vec![geometry.to_owned()];
    for end in (4 << 20..=size).step_by(4 << 20) {
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[end - (4 << 20)..end]);
        lines.push(format!("{{\"end\":{end},\"crc\":{}}}", crc.sum()));
    }
    fs::write(&plan, lines.join("\n") + "\n").unwrap();
    host.export(&upstream, &[]).good();
    host.holds_good_bundles(1);
}
