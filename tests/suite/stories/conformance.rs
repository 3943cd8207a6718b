//! The OCI project's conformance suite, run against `serve`.
//!
//! `serve` is read-only, so the suite runs in its pull mode: it gets a list of the content, requests all of it and
//! content that does not exist, and neither pushes nor deletes.

use test_kit::artifact::{Artifact, laid_out};
use test_kit::process::Run;
use test_kit::{sha256, tools};

use crate::stories::equipped;
use crate::stories::serve::Serve;

/// The number of tests that the suite runs for one tag, one manifest, two blobs and one referrers request.
const TESTS: u32 = 16;

#[test]
#[ignore = "tools"]
fn serve_passes_the_oci_conformance_suite() {
    let tools = tools();
    let host = equipped(&tools);
    let (_, public) = host.keygen();
    let bundle = host.export(&host.dir("carried"), &laid_out(&host));
    let serve = Serve::start(&host, &format!("{bundle} --trust {public} --listen 127.0.0.1:0"));

    for artifact in [Artifact::db(), Artifact::java_db(), Artifact::checks("2")] {
        let manifest = artifact.digest();
        let mut suite = host.command(format!("{tools}/conformance"));
        for (name, value) in [
            ("REGISTRY", serve.address.as_str()),
            ("TLS", "disabled"),
            ("REPO1", artifact.dataset),
            ("API_PUSH", "false"),
            ("API_BLOBS_DELETE", "false"),
            ("API_MANIFESTS_DELETE", "false"),
            ("API_TAGS_DELETE", "false"),
            ("RO_DATA_TAGS", &artifact.tag),
            ("RO_DATA_MANIFESTS", &manifest),
            ("RO_DATA_BLOBS", &format!("{} {}", sha256::digest(&artifact.layer), sha256::digest("{}"))),
            ("RO_DATA_REFERRERS", &manifest),
        ] {
            suite.env(format!("OCI_{name}"), value);
        }
        // The exit code is useless, because this version panics after its report if there are no pushes.
        let run = Run::of(&mut suite, &format!("conformance of {}", artifact.dataset));
        assert!(run.out.contains("\nOCI Conformance Result: Pass\n"), "{run}");
        let count = |status: &str| -> u32 {
            let line = run.out.lines().find(|line| line.starts_with(&format!("  {status}..")));
            let line = line.unwrap_or_else(|| panic!("no number for {status}\n{run}"));
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        let counts = ["Pass", "Skip", "FAIL", "Error"].map(count);
        assert_eq!(counts, [TESTS, 0, 0, 0], "{run}");
    }
}
