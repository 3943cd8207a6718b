//! Imports into several caches, including Harbor's, and `settings`, which prints the scanner
//! settings again.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, ChildStderr, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use test_kit::host::{files, text};
use test_kit::mounts::needs_mounts;
use test_kit::process::{Run, ended};
use test_kit::registry::Registry;

use crate::forge::upstream::Upstream;
use crate::forge::{Bundle, Host, Part, hours};

/// Returns a host with a bundle of all datasets, `b.tar`, and the command line to import it.
fn host() -> (Host, String) {
    let host = Host::new();
    let bundle = host.bundle("b.tar", &Bundle::of(hours(-2), &Part::all(hours(-3))));
    let import = format!(
        "import {} --trust {} --state-dir {} --data-home {}",
        bundle.display(),
        host.at("keys/exporter.pub"),
        host.at("state"),
        host.at("home")
    );
    (host, import)
}

fn run(host: &Host, line: &str) -> Run {
    host.run(&line.split_whitespace().collect::<Vec<_>>())
}

/// Each replica of a Trivy server or of Harbor's adapter has its own volume
/// (aquasecurity/harbor-scanner-trivy 135).
#[test]
fn one_import_fills_several_caches() {
    let (host, import) = host();
    host.file("broken/db", "not a directory");
    let caches = "--cache-dir one --cache-dir broken --cache-dir two --cache-dir one";
    let ran = run(&host, &format!("{import} {caches} --format json"));
    ran.exits(7).warns("broken");
    let targets = ran.json()["targets"].as_array().unwrap().clone();
    let names: Vec<&str> = targets.iter().map(|target| target["target"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 3, "each cache is listed once: {names:?}");
    for cache in ["one", "two"] {
        assert_eq!(host.installed(cache, "db"), Some(hours(-3).to_string()), "{cache}");
        assert!(host.path(cache).join("vex/repositories/default").exists());
    }
    let status = host.run(&["status", "--state-dir", &host.at("state")]);
    status.prints("one   stream default").prints("two   stream default");
    // Both caches get a newer bundle, and are restored together.
    let newer = host.bundle("n.tar", &Bundle::of(hours(-1), &[Part::db(hours(-1))]));
    let import = import.replace("b.tar", newer.file_name().unwrap().to_str().unwrap());
    run(&host, &format!("{import} --cache-dir one --cache-dir two")).good().prints("cache:");
    run(&host, "import --restore --cache-dir one --cache-dir two --data-home home").good();
    for cache in ["one", "two"] {
        assert_eq!(host.installed(cache, "db"), Some(hours(-3).to_string()), "{cache}");
    }
    let ran = run(&host, "import --restore --cache-dir one --cache-dir none --data-home home");
    ran.exits(2).warns("no earlier generation is kept in").prints("one");
    // Scanner settings can only be written for one cache.
    host.dir("config");
    run(&host, &format!("{import} --cache-dir one --cache-dir two --write-config config"))
        .fails_with(2, &["need different settings"]);
}

/// The adapter has supported VEX since 0.34.2 (goharbor/harbor-scanner-trivy, `pkg/etc/config.go`
/// and `pkg/trivy/wrapper.go`: `SCANNER_TRIVY_VEX_SOURCE`; it passes its environment to Trivy).
#[test]
fn harbors_adapter_gets_vex_and_its_configuration() {
    let (host, import) = host();
    let import = import.replace(&format!(" --data-home {}", host.at("home")), "");
    let ran = run(&host, &format!("{import} --cache-dir adapter --layout harbor"));
    ran.good().prints("vex-hub         installed").prints("trivy-checks    no place");
    ran.prints("SCANNER_TRIVY_VEX_SOURCE=repo, SCANNER_TRIVY_SKIP_VEX_REPO_UPDATE=true");
    ran.prints("XDG_DATA_HOME=/home/scanner/.cache/trivy");
    let found = files(host.path("adapter"));
    assert!(found.contains(&"vex/repositories/default/0.1/index.json".to_owned()), "{found:?}");
    let config = text(host.path("adapter/.trivy/vex/repository.yaml"));
    assert!(config.contains("name: default"), "{config}");
    // No other configuration is changed.
    assert_eq!(files(host.path("home")), [""; 0]);
    let ran = run(&host, "settings --cache-dir adapter --layout harbor");
    ran.good().prints("SCANNER_TRIVY_VEX_SOURCE=repo").prints("harbor.yml");
}

#[test]
fn settings_of_a_cache_are_printed_again() {
    let (host, import) = host();
    let first = run(&host, &format!("{import} --cache-dir cache --format json"));
    let settings = format!("settings --cache-dir cache --data-home {}", host.at("home"));
    let again = run(&host, &format!("{settings} --format json"));
    again.good();
    for key in ["commands", "environment", "trivy_version", "fails_from"] {
        assert_eq!(again.target(0)[key], first.target(0)[key], "{key}");
    }
    // Each group of commands has its environment before it.
    let wanted = format!("  XDG_DATA_HOME={} trivy image | fs", host.at("home"));
    let ran = run(&host, &settings);
    ran.good().prints(&wanted).prints("--skip-java-db-update").prints("  trivy config\n");
    run(&host, &format!("{import} --cache-dir other")).good().prints(&wanted);
    let before = host.snapshot();
    let old = run(&host, &format!("{settings} --trivy-version 0.62"));
    old.good().prints("Trivy 0.62").does_not_say("--skip-version-check");
    host.dir("config");
    run(&host, &format!("{settings} --write-config config --write-env env")).good();
    assert!(text(host.path("config/trivy.yaml")).contains("skip-check-update: true"));
    assert!(text(host.path("env")).contains("XDG_DATA_HOME="));
    assert_eq!(host.snapshot(), before, "nothing else is written");
    run(&host, "settings --cache-dir none").fails_with(2, &["there is no cache directory", "Import into it"]);
    // The command also works without write access to the directory.
    host.dir("empty");
    run(&host, "settings --cache-dir empty").good().prints("No trivy-db is installed");
}

#[test]
fn settings_of_a_registry_and_a_web_root_are_printed_again() {
    let registry = Registry::new(|_| None);
    let host = Host::new();
    let parts = [Part::db(hours(-3)), Part::java_db(hours(-3)), Part::vex(hours(-3))];
    let bundle = host.bundle("b.tar", &Bundle::of(hours(-2), &parts));
    let place = format!("{}/security", registry.host);
    let targets = format!("--registry {place} --plain-http");
    run(&host, &format!("settings {targets}")).fails_with(2, &["holds none of Trivy's datasets", &place]);
    host.dir("www");
    let import = format!(
        "import {} --trust {} --state-dir {} --web-root www --web-url https://vex.example/vex",
        bundle.display(),
        host.at("keys/exporter.pub"),
        host.at("state")
    );
    let first = run(&host, &format!("{import} {targets} --format json"));
    first.good();
    let web = "--web-root www --web-url https://vex.example/vex";
    let again = run(&host, &format!("settings {targets} {web} --format json"));
    again.good();
    assert_eq!(again.target(1)["commands"], first.target(1)["commands"]);
    assert_eq!(again.target(1)["environment"], first.target(1)["environment"]);
    // There are no checks for this version of Trivy. Without the flag, Trivy would try to download
    // them at each scan.
    let ran = run(&host, &format!("settings {targets}"));
    ran.good().prints("--skip-check-update").prints("built-in checks").prints(&format!("{place}/trivy-db:2"));
    // The web server of another host, such as one that runs `serve`.
    let ran = run(&host, "settings --web-url http://ferry.example:5000 --only vex-hub,vex-corp");
    ran.good().prints("http://ferry.example:5000/vex-hub").prints("http://ferry.example:5000/vex-corp");
    run(&host, "settings --web-root none --web-url http://h").fails_with(7, &["none"]);
    let gone = registry.host.clone();
    drop(registry);
    run(&host, &format!("settings --registry {gone} --plain-http")).fails();
}

/// Starts the program so that an interrupt reaches it.
fn interruptible(host: &Host, args: &str) -> (Child, BufReader<ChildStderr>) {
    let mut command = std::process::Command::new("/usr/bin/env");
    let program = host.command();
    // A shell that starts the tests in the background makes them ignore interrupts.
    command.arg("--default-signal=INT").arg(program.get_program()).args(args.split_whitespace());
    command.current_dir(host.path("")).env_clear();
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    (child, stderr)
}

/// Interrupts a run, and asserts that it prints this text.
fn interrupt(child: &mut Child, stderr: BufReader<ChildStderr>, says: &str) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
    assert_eq!(ended(child).code(), Some(130));
    let said: Vec<String> = stderr.lines().map(Result::unwrap).collect();
    assert!(said.iter().any(|line| line.contains(says)), "{said:?}");
}

#[test]
fn a_mirror_and_a_watch_report_the_state_after_an_interrupt() {
    let (host, _) = host();
    // The server listens, but never responds.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    let mirror = format!(
        "mirror --registry {at}/p --plain-http --from-plain-http --only trivy-db --db-repository {at}/db:1"
    );
    let (mut child, stderr) = interruptible(&host, &mirror);
    let _asked = silent.accept().unwrap();
    interrupt(&mut child, stderr, "Interrupted. Each tag names its old or its new data");
    // The watch pushes its first bundle to the same server.
    fs::copy(host.path("b.tar"), host.path("inbox/b.tar")).unwrap();
    let watch = format!(
        "watch inbox --settle 1ms --trust keys/exporter.pub --state-dir {} --registry {at}/p --plain-http",
        host.at("state")
    );
    let (mut child, stderr) = interruptible(&host, &watch);
    let _asked = silent.accept().unwrap();
    interrupt(&mut child, stderr, "Interrupted. Each dataset is old or new, and the inbox keeps");
}

/// A run that waits for another run says so at once. An interrupted run reports which data is in
/// use.
#[test]
fn waiting_and_interrupted_runs_report_their_state() {
    let (host, import) = host();
    host.dir("state");
    fs::set_permissions(host.path("state"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let lock = File::create(host.path("state/import.lock")).unwrap();
    fs::set_permissions(host.path("state/import.lock"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    lock.lock().unwrap();
    let import = format!("{import} --cache-dir {}", host.at("cache"));
    let waiting = || -> (Child, BufReader<ChildStderr>) {
        let (child, mut stderr) = interruptible(&host, &import);
        let mut line = String::new();
        while !line.contains("Waiting for another run, which holds the state") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "the import ended");
        }
        (child, stderr)
    };
    let (mut child, stderr) = waiting();
    interrupt(&mut child, stderr, "Interrupted. Each dataset is old or new");
    assert!(!host.path("cache/db").exists());
    let (mut child, _stderr) = waiting();
    lock.unlock().unwrap();
    assert!(ended(&mut child).success());
    assert!(host.path("cache/db/trivy.db").exists());
}

#[test]
#[ignore = "tools"]
fn a_dry_run_of_an_export_checks_the_free_space_of_the_medium() {
    needs_mounts();
    let host = Host::new();
    host.write_key();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(7, 3 << 20);
    let export = |size: &str| {
        let mut command =
            host.in_own_mounts(&format!("mount -t tmpfs -o size={size} tmpfs out && exec \"$@\""));
        command.arg(crate::forge::PROGRAM).args([
            "export",
            "--dry-run",
            "--output",
            "out",
            "--parity",
            "10%",
        ]);
        command.args(["--state-dir", &host.at("state")]).args(upstream.flags());
        Run::of(&mut command, "export --dry-run")
    };
    export("1m").fails_with(7, &["out", "the bundle needs", "only 1.0 MiB are free"]);
    export("64m").good().prints("trivy-db");
}

#[test]
fn untrusted_signers_are_shown_and_contradictory_flags_are_rejected() {
    let host = Host::new();
    let second = trivy_ferry::trust::key::SigningKey::generate().unwrap();
    let bundle = Bundle::of(hours(-2), &[Part::db(hours(-3))]);
    let signed = bundle.file(&[bundle.signature(&host.key), bundle.signature(&second)]);
    let path = host.file("b.tar", signed);
    let shown = host.run(&["inspect", path.to_str().unwrap(), "--trust", &host.at("keys/exporter.pub")]);
    let also = format!("a key that is not trusted here: {}", second.public().id().hex());
    shown.good().prints("signed by  ").prints(&also);
    // If both keys are trusted, no untrusted key is shown.
    let other = host.trust("second", &second.public());
    let keys = format!("{},{other}", host.at("keys/exporter.pub"));
    let shown = host.run(&["inspect", path.to_str().unwrap(), "--trust", &keys]);
    shown.good().does_not_say("not trusted here");
    let ran = run(&host, "serve b.tar --tls-cert c.pem --tls-key k.pem --url http://ferry.example:5000");
    ran.fails_with(2, &["--url http://ferry.example:5000 is plain HTTP", "https://HOST"]);
}

#[test]
fn a_dry_run_of_an_import_makes_all_decisions_and_changes_nothing() {
    let registry = Registry::new(|_| None);
    let (host, import) = host();
    host.dir("www");
    host.dir("config");
    let rest = "--exec-after false --metrics m.prom --write-config config --dry-run --format json";
    let ran = run(&host, &format!("{import} --cache-dir cache {rest}"));
    let would =
        ["trivy-checks", "trivy-db", "trivy-java-db", "vex-hub"].map(|name| format!("{name} would-install"));
    assert_eq!(ran.good().statuses(), would);
    let targets =
        format!("--registry {} --plain-http --web-root www --web-url https://v.example", registry.host);
    let ran = run(&host, &format!("{import} {targets} {rest}").replace("--write-config config ", ""));
    ran.good();
    assert!(ran.statuses().contains(&"trivy-db would-push".to_owned()), "{ran}");
    assert_eq!(ran.target(1)["datasets"][0]["status"], "would-install");
    assert_eq!(registry.tags(), [""; 0]);
    for changed in ["cache", "m.prom", "home/.trivy"] {
        assert!(!host.path(changed).exists(), "{changed}");
    }
    assert_eq!((files(host.path("www")), files(host.path("config"))), (Vec::new(), Vec::new()));
    assert_eq!(files(host.path("state")), ["import.lock"]);
    let text = run(&host, &format!("{import} --cache-dir cache --dry-run"));
    text.good().prints("trivy-db        would install").prints("nothing was installed or recorded");
    // A dry run makes the same decisions as an import, with the same exit codes.
    run(&host, &format!("{import} --cache-dir cache")).good();
    let before = host.snapshot();
    let newer = host.bundle("n.tar", &Bundle::of(hours(-1), &[Part::db(hours(-1))]));
    let with = |bundle: &str, more: &str| {
        let line = format!("{import} --cache-dir cache --dry-run --format json {more}");
        run(&host, &line.replace(&host.at("b.tar"), bundle))
    };
    assert_eq!(with(&host.at("b.tar"), "").good().statuses()[1], "trivy-db unchanged");
    assert_eq!(with(newer.to_str().unwrap(), "").good().statuses(), ["trivy-db would-install"]);
    with(newer.to_str().unwrap(), "--max-age trivy-db=1m").exits(5);
    let mut damaged = fs::read(&newer).unwrap();
    let middle = damaged.len() - 2000;
    damaged[middle] ^= 1;
    with(host.file("d.tar", damaged).to_str().unwrap(), "").exits(4);
    let older = host.bundle("o.tar", &Bundle::of(hours(-9), &[Part::db(hours(-9))]));
    with(older.to_str().unwrap(), "").exits(5);
    assert_eq!(host.snapshot(), before);
    run(&host, &format!("{import} --dry-run --staging s")).exits(2);
}
