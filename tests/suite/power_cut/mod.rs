//! Cuts the power after every single write of an import and of a watch's round. Afterwards, each
//! dataset is complete, either old or new, and the next run continues.
//!
//! strace records the changes of a run to files. The test replays them up to each point on a disk
//! that loses unsynced changes, and starts a new run with the remaining files.

mod disk;
mod trace;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use disk::{Cut, Disk, Tree, lay_out};
use jiff::Timestamp;
use trivy_ferry::digest::Digest;

use crate::forge::{Bundle, Host, Part, days, hours};

/// The number of states that are tested in parallel. It is large, because a watch mostly waits.
const AT_ONCE: usize = 8;

/// A host in its own directory, which can be copied to another one with a name of the same length.
struct Place(PathBuf);

impl Place {
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(&self.0).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", self.0.join("home")).env("TMPDIR", self.0.join("tmp"));
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        let done = self.command(env!("CARGO_BIN_EXE_trivy-ferry"), args).output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        (done.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
    }

    /// Runs the program, and returns its changes to files.
    fn traced(&self, args: &[&str], log: &Path) -> Vec<trace::Op> {
        self.traced_to(args, log, 0)
    }

    fn traced_to(&self, args: &[&str], log: &Path, code: i32) -> Vec<trace::Op> {
        let calls = format!("trace={}", trace::CALLS);
        let mut command = self.command("strace", &["-f", "-y", "-xx", "-s", "16777216", "-e", &calls, "-o"]);
        command.arg(log).arg(env!("CARGO_BIN_EXE_trivy-ferry")).args(args);
        let done = command.output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{done:?}");
        trace::read(&fs::read_to_string(log).unwrap(), &self.0)
    }

    /// Returns the content for a scanner: each dataset as the digest of all its files.
    fn datasets(&self) -> Vec<Option<Digest>> {
        let cache = self.0.join("cache");
        let all = ["db", "java-db", "policy", "vex/repositories/default"];
        all.iter()
            .filter(|name| cache.join(name).exists())
            .map(|name| {
                let mut text = String::new();
                let directory = cache.join(name);
                let mut files: Vec<_> = walkdir::WalkDir::new(&directory)
                    .into_iter()
                    .map(|entry| entry.ok().map(walkdir::DirEntry::into_path))
                    .collect::<Option<_>>()?;
                files.sort();
                for file in files.iter().filter(|file| file.is_file()) {
                    let digest = Digest::of(&fs::read(file).unwrap());
                    text += &format!("{} {digest}\n", file.strip_prefix(&directory).unwrap().display());
                }
                Some(Digest::of(text.as_bytes()))
            })
            .collect()
    }

    /// Returns the dates of the databases, which show whether the new ones are in use. Trivy's
    /// times of download differ from run to run.
    fn dates(&self) -> Vec<String> {
        let date = |database: &str| {
            let bytes =
                fs::read(self.0.join("cache").join(database).join("metadata.json")).unwrap_or_default();
            let metadata: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
            metadata["UpdatedAt"].to_string()
        };
        vec![date("db"), date("java-db")]
    }
}

/// The files at a power cut, with a description for messages.
struct State {
    point: String,
    tree: Tree,
}

/// Returns all different states in which a power cut can leave the disk.
fn states(before: &Disk, ops: &[trace::Op], top: &Path) -> Vec<State> {
    let mut disk = before.clone();
    let (mut states, mut known) = (Vec::new(), BTreeSet::new());
    for (number, op) in ops.iter().enumerate() {
        if !disk.apply(op, top) {
            continue;
        }
        for cut in [Cut::Nothing, Cut::Data, Cut::Everything] {
            let tree = disk.after(cut);
            let digest = Digest::of(format!("{tree:?}").as_bytes());
            if known.insert(digest) {
                let op: String = format!("{op:?}").chars().take(200).collect();
                states.push(State { point: format!("after call {number}, {op}, losing {cut:?}"), tree });
            }
        }
    }
    states
}

/// Returns datasets with a date.
type Parts = fn(Timestamp) -> Vec<Part>;

fn all(date: Timestamp) -> Vec<Part> {
    Part::all(date)
}

/// Returns only large datasets. They are staged differently from datasets of many files, and the
/// syncs of the latter must not make the large datasets durable.
fn databases(date: Timestamp) -> Vec<Part> {
    Part::all(date).into_iter().filter(|part| part.dataset.name.kind().is_large()).collect()
}

/// Returns a host at `rec` that has imported one bundle and gets a newer one.
fn prepared(host: &Host, parts: Parts) -> Place {
    let top = host.path("rec");
    for directory in ["keys", "home", "tmp", "stick", "inbox"] {
        fs::create_dir_all(top.join(directory)).unwrap();
    }
    fs::copy(host.path("keys/exporter.pub"), top.join("keys/exporter.pub")).unwrap();
    let old = Bundle::of(hours(-30), &parts(days(-2))).with("sequence", 1);
    fs::write(top.join("stick/b.tar"), old.signed(&host.key)).unwrap();
    let place = Place(top);
    let (code, said) = place.run(&import());
    assert_eq!(code, 0, "{said}");
    fs::remove_file(place.0.join("stick/b.tar")).unwrap();
    place
}

fn new_bundle(host: &Host, parts: Parts) -> Vec<u8> {
    Bundle::of(hours(-3), &parts(days(-1))).with("sequence", 2).signed(&host.key)
}

/// Adds the flags that every run has.
fn with_place(command: &[&'static str]) -> Vec<&'static str> {
    let cache = ["--cache-dir", "cache", "--data-home", "home"];
    let trust = ["--state-dir", "state", "--trust", "keys/exporter.pub"];
    [command, &cache, &trust].concat()
}

fn import() -> Vec<&'static str> {
    with_place(&["import", "stick"])
}

fn watch() -> Vec<&'static str> {
    with_place(&["watch", "inbox", "--once", "--settle", "50ms"])
}

/// Records a run, and cuts the power at each of its writes. Returns the number of different states.
fn cut_everywhere(
    host: &Host,
    place: &Place,
    args: &[&str],
    and_then: &(dyn Fn(&Place, &str) + Sync),
) -> usize {
    let before = Disk::of(&place.0);
    let old = place.datasets();
    assert!(old.len() > 1 && old.iter().all(Option::is_some), "{old:?}");
    let ops = place.traced(args, &host.path("trace"));
    let (new, dates) = (place.datasets(), place.dates());
    assert!(old.iter().zip(&new).all(|(old, new)| old != new), "each dataset is replaced");
    let states = states(&before, &ops, &place.0);
    // The replay is correct: without a power cut, it ends with the files of the run.
    let end = states.iter().rfind(|state| state.point.ends_with("Nothing")).unwrap();
    let count = states.len();
    let check = |state: &State, place: &Place| {
        let _ = fs::remove_dir_all(&place.0);
        fs::create_dir(&place.0).unwrap();
        lay_out(&state.tree, &place.0, &host.path("rec"));
        let found = place.datasets();
        assert_eq!(found.len(), old.len(), "{}", state.point);
        for ((found, old), new) in found.iter().zip(&old).zip(&new) {
            assert!(found == old || found == new, "neither old nor new {}", state.point);
        }
        if std::ptr::eq(state, end) {
            assert_eq!(found, new);
        }
        let (code, said) = place.run(args);
        assert_eq!(code, 0, "{}\n{said}", state.point);
        assert_eq!(place.dates(), dates, "{}\n{said}", state.point);
        let left = fs::read_dir(place.0.join("cache/.trivy-ferry")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name == "lock" || name == "previous"), "{left:?} {}", state.point);
        let state_file = fs::read_to_string(place.0.join("state/import-default.json")).unwrap();
        assert!(state_file.contains("\"sequence\": 2"), "{}\n{state_file}", state.point);
        and_then(place, &state.point);
    };
    let todo = Mutex::new(states.iter());
    let next = || todo.lock().unwrap().next();
    std::thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            let (check, next) = (&check, &next);
            let place = Place(host.path(format!("w{worker:02}")));
            scope.spawn(move || {
                while let Some(state) = next() {
                    check(state, &place);
                }
            });
        }
    });
    count
}

#[test]
#[ignore = "tools"]
fn a_power_cut_at_any_write_of_an_import_leaves_old_or_new_data() {
    for (parts, least) in [(all as Parts, 50), (databases, 20)] {
        let host = Host::new();
        let place = prepared(&host, parts);
        fs::write(place.0.join("stick/b.tar"), new_bundle(&host, parts)).unwrap();
        let count = cut_everywhere(&host, &place, &import(), &|_, _| {});
        println!("{count} states");
        assert!(count > least, "{count}");
    }
}

/// The changes of a command survive a power cut after the command has reported success.
#[test]
#[ignore = "tools"]
fn the_changes_of_a_command_survive_a_power_cut() {
    let host = Host::new();
    let place = prepared(&host, all);
    fs::write(place.0.join("stick/b.tar"), new_bundle(&host, all)).unwrap();
    fs::create_dir(place.0.join("www")).unwrap();
    let lasts = |args: &[&str], code: i32, made: &str| {
        let mut disk = Disk::of(&place.0);
        for op in place.traced_to(args, &host.path("trace"), code) {
            disk.apply(&op, &place.0);
        }
        let (now, lasting) = (disk.after(Cut::Nothing), disk.after(Cut::Everything));
        let of = |tree: Tree| -> Tree {
            let is_made = |path: &String| path.starts_with(made) && !path.ends_with("lock");
            tree.into_iter().filter(|(path, _)| is_made(path)).collect()
        };
        let (now, lasting) = (of(now), of(lasting));
        assert!(
            now.values().any(|(_, bytes)| bytes.as_ref().is_some_and(|bytes| !bytes.is_empty())),
            "{args:?}"
        );
        for (path, file) in &now {
            assert!(lasting.get(path) == Some(file), "{path} is not durable after {args:?}");
        }
        assert_eq!(now.len(), lasting.len(), "{args:?}: a removed file exists again");
    };
    lasts(&["keygen", "--name", "keys/second"], 0, "keys/");
    lasts(&["sign", "stick/b.tar", "--key", "keys/second.key", "--trust", "keys/exporter.pub"], 0, "stick/");
    let web = ["--web-root", "www", "--web-url", "https://vex.corp.example/"];
    let trust = ["--state-dir", "state", "--trust", "keys/exporter.pub"];
    lasts(&[&["import", "stick"][..], &web, &trust].concat(), 0, "www/");
    // The very first import creates all directories.
    let first = ["--cache-dir", "new/cache", "--state-dir", "fresh/state", "--data-home", "home"];
    let first = [&["import", "stick", "--trust", "keys/exporter.pub"][..], &first].concat();
    lasts(&first, 0, "fresh");
    fs::remove_dir_all(place.0.join("new")).unwrap();
    lasts(&first, 0, "new");
    // Files that a watch has processed are durable together with the reason.
    fs::copy(place.0.join("stick/b.tar"), place.0.join("inbox/b.tar")).unwrap();
    lasts(&watch(), 0, "inbox/processed");
    let kept = fs::read_dir(place.0.join("inbox/processed")).unwrap().next().unwrap().unwrap().path();
    assert!(kept.join("b.tar").exists() && kept.join("reason.json").exists());
}

#[test]
#[ignore = "tools"]
fn a_power_cut_at_any_write_of_a_watch_leaves_old_or_new_data() {
    let host = Host::new();
    let place = prepared(&host, all);
    fs::write(place.0.join("inbox/b.tar"), new_bundle(&host, all)).unwrap();
    let count = cut_everywhere(&host, &place, &watch(), &|place, point| {
        let names = |directory: &str| -> Vec<String> {
            let entries = fs::read_dir(place.0.join(directory)).into_iter().flatten();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let mut inbox = names("inbox");
        inbox.sort();
        assert_eq!(inbox, [".trivy-ferry", "processed"], "{point}");
        let kept = names("inbox/processed");
        assert!(
            kept.iter().any(|kept| place.0.join("inbox/processed").join(kept).join("b.tar").exists()),
            "{kept:?} {point}"
        );
    });
    println!("{count} states");
    assert!(count > 50, "{count}");
}
