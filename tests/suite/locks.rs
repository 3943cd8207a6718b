//! File systems whose locks differ from those of a local disk. NFSv4 grants an exclusive lock only
//! on a file that is open for writing (flock(2); pull request 18068 of astral-sh/uv reports it for
//! a real mount), and some servers have no locks at all.
//!
//! No such file system is mounted here: strace injects the errors of such a file system.

use std::fs;

use test_kit::artifact::laid_out;
use test_kit::host::Host;
use test_kit::tools;

use crate::stories::bare;

/// Returns a host with a bundle, a directory for a cache and one for a web server.
fn importer() -> (Host, String) {
    let _ = tools();
    let host = bare();
    host.keygen();
    let bundle = host.export("out", &laid_out(&host));
    host.dir("cache");
    host.dir("www");
    (host, bundle)
}

/// Returns the lock files of both directories.
fn locks(host: &Host) -> [String; 3] {
    ["cache/.trivy-ferry/lock", "cache/.trivy-ferry.lock", "www/.trivy-ferry.lock"].map(|name| host.at(name))
}

/// Runs an import under strace, with further arguments for strace.
fn import(host: &Host, bundle: &str, strace: &str) -> test_kit::process::Run {
    let program = env!("CARGO_BIN_EXE_trivy-ferry");
    let targets = "--cache-dir cache --web-root www --web-url http://localhost/";
    host.sh(&format!("strace -f -o trace {strace} {program} import {bundle} --trust ferry.pub {targets}"))
}

#[test]
#[ignore = "tools"]
fn an_import_reports_a_file_system_without_locks_and_continues() {
    for error in ["EBADF", "ENOLCK", "EOPNOTSUPP", "ENOSYS"] {
        let (host, bundle) = importer();
        let paths = locks(&host).map(|path| format!("-P {path}")).join(" ");
        let run = import(&host, &bundle, &format!("{paths} -e trace=flock -e inject=flock:error={error}"));
        run.exits(0).warns("does not support locks");
        let trace = fs::read_to_string(host.at("trace")).unwrap();
        assert!(trace.matches("(INJECTED)").count() >= 3, "{error}: {trace}");
    }
}

#[test]
#[ignore = "tools"]
fn lock_files_are_opened_for_writing() {
    let (host, bundle) = importer();
    // In the second run, the files exist, and no data is switched.
    for at_least in [3, 2] {
        import(&host, &bundle, "-e trace=openat2").exits(0);
        let trace = fs::read_to_string(host.at("trace")).unwrap();
        let is_lock = |line: &&str| line.contains("\"lock\"") || line.contains("\".trivy-ferry.lock\"");
        let opened: Vec<&str> = trace.lines().filter(is_lock).collect();
        assert!(opened.len() >= at_least, "{trace}");
        assert!(opened.iter().all(|line| line.contains("O_RDWR")), "{trace}");
    }
}
