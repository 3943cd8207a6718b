//! The OCI project's conformance suite, run against `serve`.
//!
//! `serve` only pulls, so that the suite runs in its read-only mode: it is told what is there, asks
//! for all of it and for what is not there, and pushes and deletes nothing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
#![allow(dead_code, unused_imports)] // of the kit, which has more than this test needs

mod kit;

use std::fs::File;
use std::time::{Duration, Instant};

use kit::{Artifact, Host, Process, Run, laid_out, text, tools};
use trivy_ferry::digest::Digest;

/// How many tests the suite runs for one tag, one manifest, two blobs and one referrers request.
const TESTS: u32 = 16;

#[test]
#[ignore = "tools"]
fn serve_passes_the_oci_conformance_suite() {
    let tools = tools().expect("TRIVY_FERRY_E2E=1, as tests/run sets it");
    let host = Host::with(&tools);
    let (_, public) = host.keygen();
    let bundle = host.export(&host.folder("out"), &laid_out(&host));
    let log = host.at("log");
    let mut serve = host.ferry_command(&format!("serve {bundle} --trust {public} --listen 127.0.0.1:0"));
    let mut serve = Process::start(
        serve.stdout(File::create(host.at("out.log")).unwrap()).stderr(File::create(&log).unwrap()),
    );
    let deadline = Instant::now() + Duration::from_secs(60);
    let address = loop {
        let log = text(&log);
        if let Some((_, rest)) = log.split_once("Serving http://").filter(|(_, rest)| rest.contains('\n')) {
            break rest.split(' ').next().unwrap().to_owned();
        }
        assert!(serve.is_running() && Instant::now() < deadline, "it does not serve:\n{log}");
        std::thread::sleep(Duration::from_millis(20));
    };

    for artifact in [Artifact::db(), Artifact::java_db(), Artifact::checks("2")] {
        let manifest = artifact.digest();
        let mut suite = host.command(&format!("{tools}/conformance"));
        for (name, value) in [
            ("REGISTRY", address.as_str()),
            ("TLS", "disabled"),
            ("REPO1", artifact.dataset),
            ("API_PUSH", "false"),
            ("API_BLOBS_DELETE", "false"),
            ("API_MANIFESTS_DELETE", "false"),
            ("API_TAGS_DELETE", "false"),
            ("RO_DATA_TAGS", &artifact.tag),
            ("RO_DATA_MANIFESTS", &manifest),
            ("RO_DATA_BLOBS", &format!("{} {}", Digest::of(&artifact.layer), Digest::of(b"{}"))),
            ("RO_DATA_REFERRERS", &manifest),
        ] {
            suite.env(format!("OCI_{name}"), value);
        }
        // Its exit code says nothing: without pushes this version panics after its report.
        let run = Run::of(&mut suite, &format!("conformance of {}", artifact.dataset));
        assert!(run.stdout.contains("\nOCI Conformance Result: Pass\n"), "{run}");
        let count = |status: &str| -> u32 {
            let line = run.stdout.lines().find(|line| line.starts_with(&format!("  {status}..")));
            let line = line.unwrap_or_else(|| panic!("no number for {status}\n{run}"));
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let counts = ["Pass", "Skip", "FAIL", "Error"].map(count);
        assert_eq!(counts, [TESTS, 0, 0, 0], "{run}");
    }
    assert_eq!(serve.terminate(), Some(0));
}
