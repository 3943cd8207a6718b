//! Named pipes and devices in place of files: the program opens only regular files, and never
//! blocks.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, Mode, mkfifoat};
use test_kit::process::Run;

use crate::forge::{Bundle, Host, Part, days};

fn fifo(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    mkfifoat(CWD, path, Mode::from_raw_mode(0o666)).unwrap();
}

/// Returns a host that has imported once, and its bundle.
fn imported() -> (Host, String) {
    let host = Host::new();
    let bundle = Bundle::of(days(-1), &Part::all(days(-1))).signed(&host.key);
    let path = host.file("one.tar", bundle);
    host.import(&path, &[]).good();
    (host, path.display().to_string())
}

/// Runs an import with more arguments.
fn import(host: &Host, bundle: &str, more: &[&str]) -> Run {
    let more: Vec<String> = more.iter().map(|arg| arg.replace("TOP", &host.at(""))).collect();
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    host.import(Path::new(bundle), &more)
}

#[test]
fn settings_and_metrics_are_written_only_to_regular_files() {
    let (host, bundle) = imported();
    for (name, flags) in [
        ("pipes/trivy.yaml", ["--write-config", "TOP/pipes"]),
        ("pipes/trivy.env", ["--write-env", "TOP/pipes/trivy.env"]),
        ("pipes/ferry.prom", ["--metrics", "TOP/pipes/ferry.prom"]),
    ] {
        fifo(&host.path(name));
        let ran = import(&host, &bundle, &flags);
        // If metrics cannot be written, the import still succeeds.
        assert!([0, 7].contains(&ran.code), "{ran:#?}");
        assert!((ran.out.clone() + &ran.err).contains(name), "{ran:#?}");
    }
    // A device without an end is neither read nor written.
    fs::create_dir(host.path("links")).unwrap();
    for (name, flags) in [
        ("links/trivy.yaml", ["--write-config", "TOP/links"]),
        ("links/ferry.prom", ["--metrics", "TOP/links/ferry.prom"]),
    ] {
        symlink("/dev/zero", host.path(name)).unwrap();
        let ran = import(&host, &bundle, &flags);
        ran.harmless();
        assert_eq!(fs::read_link(host.path(name)).unwrap(), Path::new("/dev/zero"), "{ran:#?}");
    }
}

#[test]
fn keys_certificates_and_passphrases_are_regular_files_or_descriptors() {
    let (host, bundle) = imported();
    fifo(&host.path("pipe"));
    for flags in [
        &["--trust", "TOP/pipe"][..],
        &["--registry", "localhost:1", "--cacert", "TOP/pipe"],
        &["--registry", "localhost:1", "--client-cert", "TOP/pipe"],
    ] {
        let ran = import(&host, &bundle, flags);
        ran.fails_with(2, &["pipe", "not a regular file"]);
    }
    let key = host.at("pipe");
    for flags in [["--key", &key], ["--passphrase-file", &key]] {
        let own = host.at("own.key");
        let mut args = vec!["sign", &bundle, "--trust"];
        let trust = host.at("keys/exporter.pub");
        args.push(&trust);
        if flags[0] != "--key" {
            host.run(&["keygen", "--name", &host.at("own")]).harmless();
            args.extend(["--key", &own]);
        }
        args.extend(flags);
        host.run(&args).fails_with(2, &["pipe", "not a regular file"]);
    }
}

#[test]
fn files_of_the_state_must_be_regular() {
    let (host, bundle) = imported();
    for name in ["import-default.json", "import.lock", "imports.jsonl"] {
        fs::remove_file(host.path("state").join(name)).unwrap();
        fifo(&host.path("state").join(name));
        let ran = import(&host, &bundle, &["--allow-rollback"]);
        assert!(ran.code != 0 && (ran.out.clone() + &ran.err).contains("not a regular file"), "{ran:#?}");
        fs::remove_file(host.path("state").join(name)).unwrap();
        import(&host, &bundle, &[]).good();
    }
}

#[test]
fn special_files_in_a_cache_are_replaced() {
    let (host, bundle) = imported();
    for name in
        ["db/metadata.json", "db/trivy.db", "policy/metadata.json", "vex/repositories/default/cache.json"]
    {
        fs::remove_file(host.path("cache").join(name)).unwrap();
        fifo(&host.path("cache").join(name));
        import(&host, &bundle, &[]).good();
        assert!(fs::metadata(host.path("cache").join(name)).unwrap().is_file(), "{name}");
    }
}
