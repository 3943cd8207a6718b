//! A volume that several users of one group use in turn, as in OpenShift: each container runs with
//! another user ID, group 0, and the volume's group as a supplementary group. For that,
//! Kubernetes sets the setgid bit and group write permission on the volume's directories
//! (`fsGroup`). Examples with Trivy's data are kyverno/policy-reporter 1069,
//! aquasecurity/trivy 5595 and aquasecurity/harbor-scanner-trivy 135.
//!
//! The tests need root to run as these users.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use test_kit::host::install;
use test_kit::needs_root;
use test_kit::process::Run;

use crate::forge::{Bundle, Host, PROGRAM, Part, hours};

const FIRST: u32 = 1_000_650_000;
const SECOND: u32 = 1_000_660_000;
const GROUP: u32 = 1_000_699_999;

struct Volume {
    host: Host,
}

impl Volume {
    fn new() -> Volume {
        needs_root();
        let volume = Volume { host: Host::new() };
        fs::set_permissions(volume.host.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        install(PROGRAM, volume.host.path("trivy-ferry"));
        for name in ["cache", "www", "inbox", "state", "data", "out"] {
            volume.host.dir(name);
            volume.share(name);
        }
        for (number, updated_at) in (1..=4).zip([hours(-9), hours(-8), hours(-7), hours(-6)]) {
            let bundle = Bundle::of(updated_at, &Part::all(updated_at));
            volume.host.bundle(&format!("{number}.tar"), &bundle);
        }
        volume
    }

    /// Prepares a directory in the same way as Kubernetes prepares a volume.
    fn share(&self, name: &str) {
        chown(self.host.path(name), Some(0), Some(GROUP)).unwrap();
        self.mode(name, 0o2775);
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.host.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Runs the program as a user of the volume's group, with a umask that removes all permissions
    /// of the group.
    fn by(&self, user: u32, groups: u32, line: &str) -> Run {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), "--regid=0".into(), format!("--groups={groups}")]);
        command.args(["sh", "-c", "umask 077; exec \"$0\" \"$@\"", "./trivy-ferry"]);
        command.args(line.split_whitespace()).current_dir(self.host.path("")).env_clear();
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TRIVY_FERRY_STATE_DIR", self.host.path("state"));
        command.env("XDG_DATA_HOME", self.host.path("data")).env("HOME", "/nonexistent");
        Run::of(&mut command, line)
    }

    fn import(&self, user: u32, number: u32, more: &str) -> Run {
        self.by(user, GROUP, &format!("import {number}.tar --trust keys/exporter.pub {more}"))
    }

    /// Asserts that the group can read and write everything in a directory, and that other users
    /// cannot write it.
    fn is_the_groups(&self, name: &str) {
        for entry in walkdir::WalkDir::new(self.host.path(name)).min_depth(1).into_iter().map(Result::unwrap)
        {
            let metadata = entry.metadata().unwrap();
            let wanted = if metadata.is_dir() { 0o2070 } else { 0o060 };
            let what = format!("{} {:o}", entry.path().display(), metadata.mode());
            assert_eq!((metadata.mode() & wanted, metadata.gid()), (wanted, GROUP), "{what}");
            assert_eq!(metadata.mode() & 0o002, 0, "{what}");
        }
    }
}

/// Returns the date of the installed database.
fn date(host: &Host) -> Option<String> {
    host.installed("cache", "db")
}

#[test]
#[ignore = "tools"]
fn users_of_one_group_take_turns_with_a_cache_and_a_state() {
    let volume = Volume::new();
    let host = &volume.host;
    let flags = "--cache-dir cache --data-home data --metrics out/ferry.prom";
    for (number, user) in [(1, FIRST), (2, SECOND), (3, FIRST)] {
        volume.import(user, number, flags).good().prints("trivy-db        installed");
        assert_eq!(date(host), Some(hours(i64::from(number) - 10).to_string()));
        ["cache", "state", "data", "out"].iter().for_each(|name| volume.is_the_groups(name));
    }
    // The other user can also restore the earlier generation, and clean up after a killed run.
    volume.by(SECOND, GROUP, "import --restore --cache-dir cache").good();
    assert_eq!(date(host), Some(hours(-8).to_string()));
    let stage = host.path("cache/.trivy-ferry/stage-db");
    fs::create_dir(&stage).unwrap();
    fs::write(stage.join("trivy.db"), "half").unwrap();
    chown(&stage, Some(FIRST), Some(GROUP)).unwrap();
    fs::set_permissions(&stage, fs::Permissions::from_mode(0o2775)).unwrap();
    volume.import(SECOND, 4, flags).good().warns("Removed the leftover files of an interrupted import");
    assert_eq!(date(host), Some(hours(-6).to_string()));
    volume.by(FIRST, GROUP, "status").good().prints("trivy-db");
}

#[test]
#[ignore = "tools"]
fn users_of_one_group_take_turns_with_a_web_root_and_an_inbox() {
    let volume = Volume::new();
    let host = &volume.host;
    for (number, user) in [(1, FIRST), (2, SECOND), (3, FIRST)] {
        let web = "--only vex-hub --web-root www --web-url https://vex.corp.example";
        volume.import(user, number, web).good().prints("vex-hub");
        volume.is_the_groups("www");
    }
    for (number, user) in [(1, FIRST), (2, SECOND), (3, FIRST)] {
        fs::copy(host.path(format!("{number}.tar")), host.path(format!("inbox/{number}.tar"))).unwrap();
        let watch =
            "watch inbox --once --settle 1ms --trust keys/exporter.pub --cache-dir cache --data-home data";
        volume.by(user, GROUP, watch).good().prints(&format!("{number}.tar"));
        assert_eq!(date(host), Some(hours(i64::from(number) - 10).to_string()));
        let own: &Path = &host.path("inbox/.trivy-ferry");
        assert_eq!(fs::metadata(own).unwrap().mode() & 0o7777, 0o2770);
    }
    // Files that a killed run has taken are put back by the next run of another user.
    let taken = host.path("inbox/.trivy-ferry/taken-x");
    fs::create_dir(&taken).unwrap();
    fs::copy(host.path("4.tar"), taken.join("4.tar")).unwrap();
    chown(&taken, Some(FIRST), Some(GROUP)).unwrap();
    fs::set_permissions(&taken, fs::Permissions::from_mode(0o2770)).unwrap();
    let watch =
        "watch inbox --once --settle 1ms --trust keys/exporter.pub --cache-dir cache --data-home data";
    volume.by(SECOND, GROUP, watch).good().prints("4.tar");
    assert_eq!(date(host), Some(hours(-6).to_string()));
}

/// A shared directory is used only if only its group can write to it.
#[test]
#[ignore = "tools"]
fn a_working_directory_is_shared_only_with_the_group() {
    let volume = Volume::new();
    let host = &volume.host;
    let flags = "--cache-dir cache --data-home data --state-dir state";
    volume.import(FIRST, 1, flags).good();
    // This user is not in the group.
    let outside =
        "import 2.tar --trust keys/exporter.pub --cache-dir cache --data-home tmp --state-dir tmp/state";
    volume.mode("tmp", 0o777);
    volume.by(SECOND, SECOND, outside).exits(7).warns("cache");
    // If all users can write to the cache, any user could have created the working directory, which
    // always gets the group.
    volume.mode("cache", 0o2777);
    let all = "import 2.tar --trust keys/exporter.pub --cache-dir cache --data-home data";
    volume.by(SECOND, GROUP, all).exits(7).warns("cannot be trusted");
    volume.mode("cache", 0o2775);
    // Without the setgid bit, any user may be in the group.
    volume.mode("cache", 0o775);
    volume.by(SECOND, GROUP, all).exits(7).warns("cannot be trusted");
    volume.mode("cache", 0o2775);
    // Root does not trust the members of a group.
    let (key, own) = (host.at("keys/exporter.pub"), host.at("roots-own"));
    let by_root = |number: u32, cache: &str| {
        let (bundle, cache) = (host.at(format!("{number}.tar")), host.at(cache));
        let places = ["--cache-dir", &cache, "--state-dir", &own, "--data-home", &own];
        host.run(&[&["import", &bundle, "--trust", &key], &places[..]].concat())
    };
    by_root(2, "cache").exits(7).warns("cannot be trusted");
    volume.by(SECOND, GROUP, all).good();
    assert_eq!(date(host), Some(hours(-8).to_string()));
    // The group may replace files that root writes into a shared cache.
    host.dir("fresh");
    volume.share("fresh");
    by_root(3, "fresh").good();
    let mode = |name: &str| fs::metadata(host.path(name)).unwrap().mode() & 0o7777;
    let modes = [
        "fresh/db",
        "fresh/db/trivy.db",
        "fresh/policy/content",
        "fresh/.trivy-ferry",
        "fresh/.trivy-ferry.lock",
    ];
    assert_eq!(modes.map(mode), [0o2775, 0o664, 0o2775, 0o700, 0o664]);
    // A cache that is not shared has the usual modes.
    by_root(3, "plain").good();
    let modes = [
        "plain/db",
        "plain/db/trivy.db",
        "plain/policy/content",
        "plain/.trivy-ferry",
        "plain/.trivy-ferry.lock",
    ];
    assert_eq!(modes.map(mode), [0o755, 0o644, 0o755, 0o700, 0o644]);
}
