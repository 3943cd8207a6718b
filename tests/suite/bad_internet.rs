//! Exports over a network that fails: a good bundle, or one clear reason; and nothing is fetched twice
//! that came once.

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

/// A host that exports, and how it does so.
fn exporter() -> Host {
    let host = Host::new();
    host.write_key();
    fs::create_dir_all(host.path("out")).unwrap();
    host
}

impl Host {
    /// An export into `out` that still lacks its sources.
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

    /// Everything in the folder is a bundle that verifies, and there are so many.
    #[track_caller]
    fn holds_good_bundles(&self, count: usize) {
        assert_eq!(self.bundles(), count, "{:?}", self.left());
        assert_eq!(self.left().len(), count, "{:?}", self.left());
        if count > 0 {
            self.verify(&self.path("out"), &[]).good();
        }
    }
}

/// The random faults of one run.
fn fault(dice: &mut Noise) -> Fault {
    let at = dice.below(5_000_000) as usize;
    // Those that cost time are rare.
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

/// What is between an export and upstream.
struct Route<'a> {
    /// Upstream speaks TLS by this authority, and wants a certificate of it.
    authority: Option<&'a Authority>,
    proxy: Option<&'a squid::Running>,
}

/// The ways that there are, where a squid is at hand.
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
    /// What a host needs to go it.
    fn prepare(&self, host: &Host, upstream: &mut Upstream) -> Vec<&'static str> {
        if self.proxy.is_some() {
            // Nobody but the proxy knows that name.
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

/// One export under random faults and one without, of the same upstream.
fn schedule(seed: u64, route: &Route<'_>) -> &'static str {
    let dice = Mutex::new(Noise::new(seed));
    let often = 1 + dice.lock().unwrap().below(12);
    let mut upstream = Upstream::with(route.authority, move |number, _| {
        let mut dice = dice.lock().unwrap();
        // The weather clears up in the end, or the second export would prove nothing.
        (number < 120 && dice.below(often) == 0).then(|| fault(&mut dice))
    });
    let host = exporter();
    let flags = route.prepare(&host, &mut upstream);
    upstream.publish(seed % 1000, 5_000_000);
    let (mut outcome, mut last) = ("failed", String::new());
    // Half of them want all of it or nothing.
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
fn whatever_the_weather_an_export_ends_with_a_good_bundle_or_a_reason() {
    bad_weather(&Routes { authority: Authority::new(), proxy: None });
}

#[test]
#[ignore = "tools"]
fn whatever_the_weather_an_export_through_a_proxy_ends_with_a_good_bundle_or_a_reason() {
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
        outcome.unwrap_or_else(|_| panic!("TRIVY_FERRY_SEED={seed} repeats it"))
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
    assert!(count("good at once") > 0 && count("good after a failure") > 0, "the weather is too good or bad");
}

/// The repositories of this name in several upstreams, as a flag takes them.
fn repositories(sources: &[&Upstream], name: &str) -> String {
    let list: Vec<String> = sources.iter().map(|upstream| format!("{}/{name}:1", upstream.host)).collect();
    list.join(",")
}

/// Exports trivy-db from these in their order; what became of it, and its row of the report.
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
    // Alone it is no better than what was signed last, and nothing is signed.
    let (ran, _) = export_db(&host, &[&stale], &[]);
    assert_eq!(ran.code, 5, "{ran:#?}");
    host.holds_good_bundles(1);
    // Nobody is asked who need not be, while the first is good.
    let host = exporter();
    let asked = stale.asked();
    let newest = Upstream::new(|_, _| None);
    newest.publish(3 * 24 * 60 - 60, 1000);
    let (ran, row) = export_db(&host, &[&newest, &stale], &[]);
    ran.good();
    assert_eq!(row["passed_over"], serde_json::json!([]), "{row:#}");
    assert_eq!(stale.asked(), asked, "what is of today needs no comparison");
}

#[test]
fn a_layer_that_breaks_off_goes_on_from_another_source() {
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
    assert!(sent < 2_200_000, "what came is not fetched again: {sent}");
}

#[test]
fn an_interruption_costs_little() {
    // One cut, somewhere in the large layer, in a run that goes on by itself.
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
        assert!(cut.lock().unwrap().is_none(), "it was cut");
        let (sent, size) = (upstream.sent(), upstream.size());
        assert!(sent * 10 < size * 13, "{at}: {sent} bytes for {size}");
    }
}

#[test]
fn an_export_that_failed_resumes_where_it_was() {
    // The registry dies in the second answer for the large layer, and comes back when the export is over.
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
    assert_eq!(host.left().len(), 2, "what came, and its plan: {:?}", host.left());
    phase.store(BACK, Relaxed);
    let ran = host.export(&upstream, &[]);
    ran.good();
    assert!(ran.err.contains("from an interrupted export"), "{ran:#?}");
    host.holds_good_bundles(1);
    let (sent, size) = (upstream.sent(), upstream.size());
    assert!(sent * 10 < size * 13, "{sent} bytes for {size}");
}

/// Kills an export when its file holds so many bytes. What was sent to it and not written yet is in the
/// system's buffers, which may hold 32 MiB: not a measure of what an export has.
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
    assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_export_that_was_killed_resumes_where_it_was() {
    // Until it is killed, the registry stalls behind 64 MB of the large layer: nobody can be too slow.
    let (stalling, answered) = (Arc::new(AtomicU64::new(1)), AtomicU64::new(0));
    let weather = stalling.clone();
    let small = Digest::of(b"{}").hex();
    let upstream = Upstream::new(move |_, path| {
        let large = path.contains("/db/blobs/") && !path.ends_with(&small);
        // The start is one answer; then comes one stream, or a range after the other.
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
fn what_upstream_has_not_changed_is_kept() {
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 80_000_000);
    let host = exporter();
    kill_at(&host, &upstream, 40_000_000);
    // All but the large layer is new.
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
fn what_a_killed_export_left_is_not_believed() {
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 40_000_000);
    let host = exporter();
    // By turns: bytes that changed, a plan that lies, a plan that is none, and no plan.
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
                // The checksum of the changed bytes: only the digest can tell now.
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
fn bytes_that_were_wrong_when_they_came_are_fetched_again() {
    // The first range is damaged on its way, and then the registry dies: nobody could notice.
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
    assert_eq!(host.left().len(), 2, "it is kept: {:?}", host.left());
    phase.store(2, Relaxed);
    // It makes no difference that other data are to be written around it.
    upstream.publish_vex(1);
    let ran = host.export(&upstream, &[]);
    ran.good();
    assert!(ran.err.contains("should have the digest"), "{ran:#?}");
    host.holds_good_bundles(1);
}

#[test]
fn a_bad_layer_is_had_from_another_source() {
    let good = Upstream::new(|_, _| None);
    good.publish(0, 20_000_000);
    // Its manifest is newer and its layer's digest is right, and the content is none.
    let rubbish = Upstream::new(|_, _| None);
    rubbish.publish_rubbish_db(1);
    // Each byte of what this one sends may be another than its digest promises.
    let small = Digest::of(b"{}").hex();
    let damaging = Upstream::new(move |_, path| {
        let large = path.contains("/db/blobs/") && !path.ends_with(&small);
        large.then_some(Fault::Flip(1_000_000))
    });
    damaging.publish(2, 20_000_000);
    // This one has lost what its manifest names.
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
    // Without a good one, nothing is signed.
    let host = exporter();
    let (ran, _) = export_db(&host, &[&rubbish, &damaging], &[]);
    assert_eq!(ran.code, 3, "{ran:#?}");
    host.holds_good_bundles(0);
}

#[test]
fn a_bad_layer_costs_no_other_one() {
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
fn only_what_enough_registries_name_alike_is_signed() {
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
    // The liar's data is the newest, and nobody else has it.
    export(&[&liar, &one, &two], "2").good();
    host.verify(&host.path("out"), &[]).good();
    let inspected = host.run(&["inspect", &host.at("out"), "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&inspected.out).unwrap();
    let source = &report["bundles"][0]["payload"]["datasets"][0]["source"];
    assert_eq!(source, &format!("{}/db:1", one.host));
    let ran = export(&[&liar, &one, &two], "3");
    ran.fails_with(3, &["2 of the 3 registries", &liar.host, "--quorum-wait"]);
    // One registry has one word, however often it is named.
    export(&[&one, &one, &liar], "2").fails_with(3, &["1 of the 2 registries"]);
    host.holds_good_bundles(1);
}

/// Leaves what an export leaves that was killed, and says how its files are called.
fn leave(host: &Host, upstream: &Upstream) -> (PathBuf, PathBuf) {
    kill_at(host, upstream, 16_000_000);
    let find = |end: &str| {
        let name = host.left().into_iter().find(|name| name.ends_with(end)).unwrap();
        host.path("out").join(name)
    };
    (find(".tar.partial"), find(".plan.partial"))
}

#[test]
fn whoever_may_write_to_the_directory_leads_an_export_nowhere_else() {
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 40_000_000);
    let host = exporter();
    let victim = host.file("victim", "precious");
    // By turns: a link or a FIFO in place of the file or its plan, and a file with a second name.
    for change in 0..5 {
        let (partial, plan) = leave(&host, &upstream);
        let swapped = if change % 2 == 0 { &partial } else { &plan };
        fs::remove_file(swapped).unwrap();
        match change {
            0 | 1 => std::os::unix::fs::symlink(&victim, swapped).unwrap(),
            2 | 3 => drop(Command::new("mkfifo").arg(swapped).status().unwrap()),
            _ => fs::hard_link(&victim, swapped).unwrap(),
        }
        // A bundle is named after its second, and what has that name already is refused.
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
    // Bytes beside the blobs, and bytes behind the end.
    let (partial, _) = leave(&host, &upstream);
    let mut bytes = fs::read(&partial).unwrap();
    bytes.resize(bytes.len() + 90_000_000, 7);
    fs::write(&partial, bytes).unwrap();
    host.export(&upstream, &[]).good();
    host.holds_good_bundles(1);
}

#[test]
fn a_run_that_comes_second_leaves_the_first_its_file() {
    // The first waits in the middle until it is stopped, and goes on from there.
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
    assert!(first.try_wait().unwrap().is_none(), "it ended before the second began");
    kill_process(pid, Signal::CONT).unwrap();
    assert!(ended(&mut first).success());
    host.holds_good_bundles(1);
}

#[test]
#[ignore = "tools"]
fn a_company_lets_nobody_out_but_by_its_proxy() {
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
    // Without a login, with a wrong one, and past the proxy.
    export("", nothing).fails_with(3, &["The proxy requires a login"]);
    export("ann:wrong@", nothing).fails_with(3, &["The proxy requires a login"]);
    export("ann:secret@", ("NO_PROXY", NAME)).fails_with(3, &[NAME]);
    host.holds_good_bundles(0);
    export("ann:secret@", nothing).good();
    host.holds_good_bundles(1);
    let passed = proxy.passed();
    assert!(passed.contains(&format!("CONNECT {}", upstream.host)), "{passed}");
    assert!(!passed.contains(" GET "), "it sees nothing of what passes: {passed}");
    // What is not TLS is handed to the proxy as it is, and refused in other words.
    let plain = Upstream::new(|_, _| None).named(NAME);
    plain.publish(0, 1000);
    let mut command = host.export_command(&plain, &[]);
    command.env("HTTP_PROXY", format!("http://{}", proxy.address));
    forge::run(command).fails_with(3, &["The proxy requires a login"]);
}

#[test]
#[ignore = "tools"]
fn a_proxy_that_opens_tls_is_believed_where_its_authority_is_named() {
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
    // Or where the system's store is said to be.
    let mut command = host.export_command(&upstream, &["--dry-run"]);
    command.env("HTTPS_PROXY", format!("http://{}", proxy.address)).env("SSL_CERT_FILE", "own.pem");
    forge::run(command).good();
    assert!(proxy.passed().contains(" GET "), "it sees what passes: {}", proxy.passed());
}

#[test]
fn a_sites_mirror_is_asked_first_and_has_no_word_of_its_own() {
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
    // Its data is three days old, so that both are asked, and agree.
    let ran = export(&[&mirrored]);
    ran.good();
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["datasets"][0]["source"], format!("{}/db:1", mirror.host), "{report:#}");
    // A mirror that is out is passed over.
    let out = export(&[&format!("--registry-mirror={}=127.0.0.1:1/cache", upstream.host)]);
    out.good();
    assert!(out.err.contains("skipped 127.0.0.1:1/cache/db:1"), "{out:#?}");
}

/// So many minutes after three days ago: a generation of an hour ago.
const FRESH: u64 = 3 * 24 * 60 - 60;

/// The weather in which large layers of trivy-db get this.
fn large_gets(fault: Fault) -> impl Fn(u64, &str) -> Option<Fault> + Send + Sync {
    let small = Digest::of(b"{}").hex();
    move |_, path| (path.contains("/db/blobs/") && !path.ends_with(&small)).then(|| fault.clone())
}

#[test]
fn a_fresh_source_that_lost_its_layer_keeps_nobody_from_asking_others() {
    for fault in [Fault::Status(404, None), Fault::Status(500, None), Fault::Long(10)] {
        let forgetful = Upstream::new(large_gets(fault.clone()));
        forgetful.publish(FRESH, 100_000);
        let other = Upstream::new(|_, _| None);
        // Once other data, and once the same.
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
fn a_quorum_takes_the_newest_that_enough_agree_on_and_gets_over_bad_bytes() {
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
    // Its bytes are bad, and what it says is true all the same.
    let host = exporter();
    let (ran, row) = export_db(&host, &[&damaging, &new], &["--quorum", "2"]);
    ran.good();
    assert_eq!(row["source"], format!("{}/db:1", new.host), "{row:#}");
    host.holds_good_bundles(1);
}

#[test]
fn a_layer_is_one_thing_only() {
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
    // What it shares the layer with is good.
    host.holds_good_bundles(1);
}

#[test]
fn a_leftover_that_is_longer_than_the_bundle_makes_it_no_longer() {
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 40_000_000);
    let host = exporter();
    let (partial, plan) = leave(&host, &upstream);
    // Whoever may write there has brought it to its end, and beyond, with sums that fit.
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
