//! Imports by root into places below a directory of a hostile user, while a process of that user
//! exchanges files, directories and links as fast as it can.
//!
//! The tests need root. The attacker runs this same program as user 65534, and ends when its
//! standard input is closed. `TRIVY_FERRY_RUNS=500` repeats each race more often.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use tempfile::TempDir;
use test_kit::host::install;
use test_kit::needs_root;
use test_kit::process::Run;
use test_kit::runs;
use trivy_ferry::digest::Digest;
use trivy_ferry::trust::key::SigningKey;

use crate::forge::{Bundle, Part, hours};

const ATTACKER: u32 = 65534;
const RACE: &str = "TRIVY_FERRY_RACE";

fn golden(name: &str) -> String {
    format!("{}/fixtures/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A directory of root that contains a home of the attacker.
struct Scene {
    top: TempDir,
}

impl Scene {
    fn new() -> Scene {
        let scene = Scene { top: tempfile::Builder::new().prefix("scene").tempdir().unwrap() };
        fs::set_permissions(scene.top.path(), Permissions::from_mode(0o755)).unwrap();
        scene.attackers("home");
        fs::create_dir(scene.at("victim")).unwrap();
        // The state and the settings of the tests are elsewhere, so that the attacker cannot
        // exchange them.
        fs::create_dir(scene.at("root")).unwrap();
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    fn attackers(&self, name: &str) -> PathBuf {
        fs::create_dir(self.at(name)).unwrap();
        self.give(name)
    }

    fn give(&self, name: &str) -> PathBuf {
        chown(self.at(name), Some(ATTACKER), Some(ATTACKER)).unwrap();
        self.at(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.at(name), bytes).unwrap();
    }

    /// Runs trivy-ferry as root, with a home and a state of root.
    fn ferry(&self, line: &str) -> Run {
        let line = line.replace("TOP", &self.top.path().display().to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_trivy-ferry"));
        command.env_clear().env("HOME", self.at("root")).env("TRIVY_FERRY_STATE_DIR", self.at("root/state"));
        command.current_dir(self.at("root")).stdin(Stdio::null()).args(line.split_whitespace());
        Run::of(&mut command, &line)
    }

    /// Starts the attacker.
    fn attack(&self, what: &str) -> Attacker {
        // The attacker's program is in a place where that user can run it.
        let program = self.at("attacker");
        install(std::env::current_exe().unwrap(), &program);
        let mut child = Command::new(program)
            .args(["--exact", "hostile_owner::attacker", "--ignored", "--nocapture"])
            .env(RACE, format!("{what}:{}", self.top.path().display()))
            .current_dir("/")
            .uid(ATTACKER)
            .gid(ATTACKER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The attacker prints this when it has begun.
        let mut out = child.stdout.take().unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"BEGUN") {
            let mut byte = [0];
            assert_eq!(out.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&said));
            said.push(byte[0]);
        }
        Attacker { child, _out: out }
    }

    /// Creates a link that belongs to this user: the attacker or root. A link of root stands for an
    /// existing link that the attacker has moved.
    fn link(&self, target: &str, name: &str, uid: u32) {
        symlink(self.at(target), self.at(name)).unwrap();
        lchown(self.at(name), Some(uid), Some(uid)).unwrap();
    }

    /// Restores the name of the directory after the attack, if it was exchanged with a link.
    fn settle(&self, name: &str, link: &str) {
        if self.at(name).is_symlink() {
            exchange(&self.at(name), &self.at(link));
        }
    }

    /// Returns the paths in a directory of the victim, with the digests of the files.
    fn contents(&self, name: &str) -> Vec<(PathBuf, Digest)> {
        let mut all: Vec<_> = walkdir::WalkDir::new(self.at(name))
            .into_iter()
            .map(|entry| entry.unwrap().into_path())
            .map(|path| (path.clone(), Digest::of(&fs::read(path).unwrap_or_default())))
            .collect();
        all.sort();
        all
    }
}

struct Attacker {
    child: Child,
    _out: std::process::ChildStdout,
}

impl Drop for Attacker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the attacker. Without the variable, it does nothing.
#[test]
#[ignore = "the attacker of the other tests"]
fn attacker() {
    let Ok(order) = std::env::var(RACE) else { return };
    let (what, top) = order.split_once(':').unwrap();
    let home = Path::new(top).join("home");
    static OVER: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        OVER.store(true, Ordering::Relaxed);
    });
    print!("BEGUN");
    std::io::Write::flush(&mut std::io::stdout()).unwrap();
    while !OVER.load(Ordering::Relaxed) {
        match what {
            "probe" => over_the_probe(&home.join("cache/.trivy-ferry")),
            "key" => exchange(&home.join("keys/ferry.pub"), &home.join("keys/evil.pub")),
            "web" => exchange(&home.join("www/vex-hub"), &home.join("www/other")),
            "inbox" => exchange(&home.join("inbox"), &home.join("other")),
            "staging" => exchange(&home.join("staging"), &home.join("other")),
            "state" => exchange(&home.join("state"), &home.join("other")),
            "slot" => exchange(&home.join("cache/db"), &home.join("cache/other")),
            other => panic!("{other}"),
        }
    }
}

fn exchange(one: &Path, other: &Path) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let _ = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
}

/// Replaces the probe with a file of the attacker as soon as the probe exists.
fn over_the_probe(work: &Path) {
    let (mine, probe) = (work.join("mine"), work.join("probe.tmp"));
    if !mine.exists() {
        let _ = fs::write(&mine, "");
    }
    if probe.symlink_metadata().is_ok() {
        let _ = fs::rename(&mine, &probe);
    }
}

/// Creates a working directory with an interrupted file-by-file switch, which would move a file
/// from the home to the directory above.
fn plant(scene: &Scene) {
    for dir in ["home/cache", "home/cache/.trivy-ferry", "home/cache/.trivy-ferry/stage-db", "home/cache/db"]
    {
        scene.attackers(dir);
    }
    let journal = r#"{"format":1,"operations":[{"slot":"db","inside":false,"way":"per-file","staged":0,"keep":false,"restore":false}]}"#;
    scene.write("home/cache/.trivy-ferry/journal.json", journal);
    scene.write("home/cache/.trivy-ferry/list-db", r#"["../../../evil"]"#);
    scene.write("home/evil", "evil");
    for file in ["home/cache/.trivy-ferry/journal.json", "home/cache/.trivy-ferry/list-db", "home/evil"] {
        scene.give(file);
    }
}

#[test]
#[ignore = "tools"]
fn a_working_directory_of_another_user_is_never_trusted() {
    needs_root();
    let scene = Scene::new();
    plant(&scene);
    let _attacker = scene.attack("probe");
    for _ in 0..runs(40, 500) {
        let line =
            format!("import {} --trust {} --cache-dir TOP/home/cache", golden("v1.tar"), golden("one.pub"));
        // The probe shows that the directory belongs to another user, or the probe cannot be
        // created.
        scene.ferry(&line).exits(7).warns("home/cache/.trivy-ferry");
        assert!(!scene.at("evil").exists(), "root moved a file out of the cache");
    }
}

#[test]
#[ignore = "tools"]
fn a_list_of_files_cannot_name_files_elsewhere() {
    let scene = Scene::new();
    needs_root();
    plant(&scene);
    // The files belong to root, as after an attack on an older version.
    for file in ["", "/stage-db", "/journal.json", "/list-db"] {
        chown(scene.at(&format!("home/cache/.trivy-ferry{file}")), Some(0), Some(0)).unwrap();
    }
    let line =
        format!("import {} --trust {} --cache-dir TOP/home/cache", golden("v1.tar"), golden("one.pub"));
    for list in [
        r#"["../../../evil"]"#,
        r#"["a/../../../../evil"]"#,
        r#"["/evil"]"#,
        r#"["./x"]"#,
        r#"["a//b"]"#,
        r#"[""]"#,
    ] {
        scene.write("home/cache/.trivy-ferry/list-db", list);
        scene.ferry(&line).exits(7).warns("was not written by an import").warns("Remove ");
    }
    assert!(scene.at("home/evil").exists() && !scene.at("evil").exists());
    // The hint of the message resolves the problem.
    fs::remove_dir_all(scene.at("home/cache/.trivy-ferry")).unwrap();
    scene.ferry(&line).exits(0);
}

#[test]
#[ignore = "tools"]
fn a_slot_that_is_exchanged_during_an_import_does_not_affect_other_directories() {
    needs_root();
    let scene = Scene::new();
    for dir in ["home/cache", "home/cache/db"] {
        scene.attackers(dir);
    }
    scene.write("victim/trivy.db", "the victim's");
    scene.write("victim/metadata.json", "the victim's");
    scene.link("victim", "home/cache/other", ATTACKER);
    let before = scene.contents("victim");
    let bundles = Newer::in_scene(&scene);
    let line = format!("{} --cache-dir TOP/home/cache", Newer::IMPORT);
    bundles.write(&scene, &Part::db(hours(-900)));
    scene.ferry(&line).exits(0).prints("installed");
    let attacker = scene.attack("slot");
    for _ in 0..runs(20, 500) {
        // Each bundle is newer than the last, so that every run switches the slot.
        bundles.write(&scene, &Part::db(bundles.date()));
        let ran = scene.ferry(&line);
        assert!(ran.code == 7 || ran.out.contains("trivy-db        installed"), "{ran}");
        assert_eq!(scene.contents("victim"), before);
    }
    drop(attacker);
    scene.settle("home/cache/db", "home/cache/other");
    bundles.write(&scene, &Part::db(bundles.date()));
    scene.ferry(&line).exits(0).prints("installed");
}

/// Writes bundles to `root/stick/b.tar`, each newer than the previous one.
struct Newer {
    key: SigningKey,
    number: Cell<i64>,
}

impl Newer {
    const IMPORT: &str = "import TOP/root/stick/b.tar --trust TOP/root/trusted.pub";

    fn in_scene(scene: &Scene) -> Newer {
        let key = SigningKey::generate().unwrap();
        scene.write("root/trusted.pub", key.public().to_pem());
        fs::create_dir(scene.at("root/stick")).unwrap();
        Newer { key, number: Cell::new(-899) }
    }

    /// Returns the date of the next bundle.
    fn date(&self) -> Timestamp {
        hours(self.number.get())
    }

    fn write(&self, scene: &Scene, part: &Part) {
        let bundle = Bundle::of(self.date(), std::slice::from_ref(part)).signed(&self.key);
        scene.write("root/stick/b.tar", bundle);
        self.number.set(self.number.get() + 1);
    }
}

/// An import follows only links of this user and root in a directory such as `/tmp`, which several
/// users can write to.
#[test]
#[ignore = "tools"]
fn a_link_of_another_user_in_a_shared_directory_is_not_followed() {
    needs_root();
    let scene = Scene::new();
    fs::create_dir(scene.at("shared")).unwrap();
    fs::set_permissions(scene.at("shared"), Permissions::from_mode(0o1777)).unwrap();
    scene.write("victim/note", "the victim's");
    scene.link("victim", "shared/link", ATTACKER);
    let before = scene.contents("victim");
    let import = format!("import {} --trust {}", golden("v1.tar"), golden("one.pub"));
    for line in [
        format!("{import} --cache-dir TOP/shared/link"),
        format!("{import} --cache-dir TOP/shared/link/below"),
        format!("{import} --web-root TOP/shared/link --web-url https://vex.corp.example/"),
        format!("{import} --cache-dir TOP/root/cache --state-dir TOP/shared/link"),
        format!("{import} --cache-dir TOP/root/cache --data-home TOP/shared/link"),
        format!("watch TOP/shared/link --once --trust {} --cache-dir TOP/root/cache", golden("one.pub")),
    ] {
        let ran = scene.ferry(&line);
        assert!(ran.code == 2 || ran.code == 7, "{ran}");
        assert!(ran.err.contains("link"), "{ran}");
        assert_eq!(scene.contents("victim"), before, "{ran}");
    }
    // A link of this user is followed.
    scene.link("victim", "shared/own", 0);
    scene.ferry(&format!("{import} --cache-dir TOP/shared/own")).exits(0);
    assert_ne!(scene.contents("victim"), before);
}

#[test]
#[ignore = "tools"]
fn a_key_below_a_directory_of_another_user_is_never_used() {
    needs_root();
    let scene = Scene::new();
    scene.attackers("home/keys");
    // The key belongs to root, but the attacker can rename it.
    fs::copy(golden("two.pub"), scene.at("home/keys/ferry.pub")).unwrap();
    fs::copy(golden("one.pub"), scene.at("home/keys/evil.pub")).unwrap();
    scene.give("home/keys/evil.pub");
    let _attacker = scene.attack("key");
    for _ in 0..runs(40, 500) {
        let line = format!("verify {} --trust TOP/home/keys/ferry.pub", golden("v1.tar"));
        scene.ferry(&line).exits(2).warns("is writable by others");
    }
}

#[test]
#[ignore = "tools"]
fn no_file_is_lost_if_a_staging_directory_is_exchanged() {
    needs_root();
    let scene = Scene::new();
    let own = "trivy-ferry-staging";
    for dir in ["home/staging", "home/other"] {
        scene.attackers(dir);
    }
    // This directory of root looks like a staging directory, and contains bundles of root.
    fs::create_dir(scene.at(&format!("victim/{own}"))).unwrap();
    fs::set_permissions(scene.at(&format!("victim/{own}")), Permissions::from_mode(0o700)).unwrap();
    fs::copy(golden("v1.tar"), scene.at(&format!("victim/{own}/v1.tar"))).unwrap();
    scene.link(&format!("victim/{own}"), &format!("home/other/{own}"), ATTACKER);
    let before = scene.contents("victim");
    fs::create_dir(scene.at("root/stick")).unwrap();
    fs::copy(golden("v1.tar"), scene.at("root/stick/v1.tar")).unwrap();
    let _attacker = scene.attack("staging");
    for _ in 0..runs(20, 500) {
        let line = format!(
            "import TOP/root/stick --trust {} --cache-dir TOP/root/cache --staging TOP/home/staging",
            golden("one.pub")
        );
        scene.ferry(&line).exits(2).warns("is writable by others");
        assert_eq!(scene.contents("victim"), before);
    }
}

#[test]
#[ignore = "tools"]
fn a_web_root_with_exchanged_directories_does_not_affect_other_directories() {
    needs_root();
    let scene = Scene::new();
    for dir in ["home/www", "home/www/vex-hub"] {
        scene.attackers(dir);
    }
    scene.write("victim/repository.tar.gz", "the victim's");
    scene.link("victim", "home/www/other", 0);
    let before = scene.contents("victim");
    let bundles = Newer::in_scene(&scene);
    let line = format!("{} --web-root TOP/home/www --web-url https://vex.corp.example/", Newer::IMPORT);
    bundles.write(&scene, &Part::vex(bundles.date()));
    scene.ferry(&line).exits(0).prints("installed");
    let attacker = scene.attack("web");
    for _ in 0..runs(20, 500) {
        bundles.write(&scene, &Part::vex(bundles.date()));
        let ran = scene.ferry(&line);
        assert!(ran.code == 7 || ran.out.contains("vex-hub         installed"), "{ran}");
        assert_eq!(scene.contents("victim"), before);
    }
    drop(attacker);
    scene.settle("home/www/vex-hub", "home/www/other");
    bundles.write(&scene, &Part::vex(bundles.date()));
    scene.ferry(&line).exits(0).prints("installed");
}

#[test]
#[ignore = "tools"]
fn no_file_is_lost_if_a_watched_directory_is_exchanged() {
    needs_root();
    let scene = Scene::new();
    scene.attackers("home/inbox");
    fs::copy(golden("v1.tar"), scene.at("victim/v1.tar")).unwrap();
    scene.write("victim/junk.tar", "junk");
    // The link belongs to root, as if the attacker had moved it.
    scene.link("victim", "home/other", 0);
    let before = scene.contents("victim");
    let line = format!(
        "watch TOP/home/inbox --once --settle 50ms --trust {} --cache-dir TOP/root/cache",
        golden("one.pub")
    );
    let put = || drop(fs::copy(golden("v1.tar"), scene.at("home/inbox/v1.tar")));
    put();
    scene.ferry(&line).exits(0).prints("processed");
    let attacker = scene.attack("inbox");
    for _ in 0..runs(8, 500) {
        put();
        let _ = scene.ferry(&line);
        assert_eq!(scene.contents("victim"), before);
    }
    drop(attacker);
    scene.settle("home/inbox", "home/other");
    put();
    scene.ferry(&line).exits(0).prints("processed");
}

#[test]
#[ignore = "tools"]
fn a_state_directory_that_another_user_can_rename_is_rejected() {
    needs_root();
    let scene = Scene::new();
    fs::create_dir(scene.at("home/state")).unwrap();
    fs::set_permissions(scene.at("home/state"), Permissions::from_mode(0o700)).unwrap();
    scene.attackers("home/other");
    let _attacker = scene.attack("state");
    for _ in 0..runs(20, 500) {
        for line in [
            format!("import {} --trust {} --cache-dir TOP/root/cache", golden("v1.tar"), golden("one.pub")),
            "status".to_owned(),
        ] {
            scene
                .ferry(&format!("{line} --state-dir TOP/home/state"))
                .exits(2)
                .warns("is writable by others");
        }
    }
}
