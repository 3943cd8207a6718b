//! Kills the switch at each step in turn. After the next open, each slot must be completely old or completely new, the
//! kept generation complete, and no leftover files may exist.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use jiff::Timestamp;

use super::*;
use crate::dataset::{Name, RelPath, Sink};
use crate::digest::Digest;
use crate::progress::{Silent, Step};
use crate::util::fault::{self, Refuse};

/// Records messages.
#[derive(Default)]
struct Messages(Mutex<Vec<String>>);

impl Progress for Messages {
    fn begin(&self, _: &str, _: u64, _: &str) -> Box<dyn Step> {
        Box::new(Silent)
    }

    fn info(&self, message: &str) {
        self.0.lock().unwrap().push(message.into());
    }
}

/// The files below a directory with their content, without working files.
type Files = BTreeMap<String, String>;

fn files(dir: &Path) -> Files {
    let mut found = Files::new();
    let mut directories = vec![dir.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().unwrap() != WORK {
                    directories.push(path);
                }
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// Creates a directory on a file system in memory if there is one, because hundreds of imports sync thousands of times.
fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn time(generation: u32) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + i64::from(generation)).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn metadata(dataset: &str, generation: u32) -> Metadata {
    let (downloaded_at, updated_at) = (time(generation), time(generation));
    match dataset {
        "trivy-checks" => Metadata::Checks {
            manifest_digest: Digest::of(b"m"),
            major: 2,
            version: Some("2.1.0".into()),
            downloaded_at,
        },
        "vex-hub" => {
            Metadata::Vex { manifest_json: format!("{{\"v\":{generation}}}").into_bytes(), updated_at }
        }
        _ => Metadata::Database { downloaded_at },
    }
}

/// Returns the files of a generation of a dataset. Each generation has a file that the others do not have.
fn content(dataset: &str, generation: u32) -> Vec<(String, String)> {
    let g = generation;
    match dataset {
        "trivy-db" => vec![
            ("trivy.db".into(), format!("bolt {g}")),
            ("metadata.json".into(), format!("{{\"Version\":2,\"UpdatedAt\":\"2026-11-2{g}T00:00:00Z\"}}")),
        ],
        "trivy-checks" => vec![
            ("policies/a.rego".into(), format!("a {g}")),
            (format!("policies/only{g}/deep/x.rego"), format!("x {g}")),
            ("commands/b.yaml".into(), format!("b {g}")),
        ],
        _ => vec![
            ("index.json".into(), format!("{{\"updated_at\":\"2026-11-2{g}T00:00:00Z\"}}")),
            (format!("pkg/npm/p{g}/vex.json"), format!("v {g}")),
        ],
    }
}

fn stage(cache: &Cache, dataset: &str, generation: u32) -> Result<Stage, TargetError> {
    let slot = cache.slot(&name(dataset), "default").unwrap();
    let mut stage = cache.stage(&slot, metadata(dataset, generation))?;
    for (path, text) in content(dataset, generation) {
        let path: RelPath = path.parse().unwrap();
        let mut write = || {
            stage.begin(&path, text.len() as u64)?;
            stage.data(text.as_bytes())?;
            stage.end()
        };
        if let Err(error) = write() {
            return Err(*error.into_inner().unwrap().downcast::<TargetError>().unwrap());
        }
    }
    Ok(stage)
}

fn options(dir: &Path) -> CacheOptions {
    CacheOptions { dir: dir.into(), layout: Layout::Trivy, owner: None, keep_previous: true }
}

fn import(dir: &Path, datasets: &[&str], generation: u32) -> Result<Vec<Activated>, String> {
    let mut cache = Cache::open(options(dir), &Silent).map_err(|error| error.to_string())?;
    let mut stages = Vec::new();
    for dataset in datasets {
        stages.push(stage(&cache, dataset, generation).map_err(|error| error.to_string())?);
    }
    cache.activate(stages).map_err(|not| format!("{not:?}"))
}

/// Returns the files of a slot after an uninterrupted import of one generation.
fn expected(dataset: &str, generation: u32) -> Files {
    let dir = tempdir();
    import(dir.path(), &[dataset], generation).unwrap();
    files(&dir.path().join(path(dataset)))
}

fn path(dataset: &str) -> &'static str {
    match dataset {
        "trivy-db" => "db",
        "trivy-checks" => "policy",
        _ => "vex/repositories/default",
    }
}

fn key(dataset: &str) -> &'static str {
    if dataset == "vex-hub" { "vex-default" } else { path(dataset) }
}

fn leftovers(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir.join(WORK)).unwrap().map(|entry| entry.unwrap().file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| !matches!(name.as_str(), "lock" | "previous"))
        .collect()
}

/// Runs `act` on a cache with generations 1 (kept) and 2 (in place), and kills it and the following recovery after
/// each of their steps. Then checks the result of an uninterrupted open. `first` is the first generation that is
/// imported before `act`, and `new` is the generation in place after it.
fn killed_everywhere(dataset: &str, refuse: Refuse, first: u32, new: u32, act: &dyn Fn(&Path)) {
    let generations: Vec<Files> =
        (0..4).map(|g| if g == 0 { Files::new() } else { expected(dataset, g) }).collect();
    let mut outcomes = [0u32; 2];
    let mut done = false;
    let mut kill = 0;
    while !done {
        let mut recovered = false;
        let mut second = 0;
        while !recovered {
            let dir = tempdir();
            fault::refuse(Refuse::Nothing);
            for generation in first..=2 {
                import(dir.path(), &[dataset], generation).unwrap();
            }
            fault::refuse(refuse);
            fault::kill_after(Some(kill));
            fault::trace();
            act(dir.path());
            let trace = fault::trace();
            done = trace.len() < kill as usize;
            // For every kill of the act, the recovery is killed at every step too.
            fault::kill_after(Some(second));
            let opened = Cache::open(options(dir.path()), &Silent).is_ok();
            recovered = opened && fault::trace().len() < second as usize;
            fault::kill_after(None);
            let messages = Messages::default();
            drop(Cache::open(options(dir.path()), &messages).unwrap());
            fault::refuse(Refuse::Nothing);

            let at = format!("{dataset}, {refuse:?}, killed after {kill} and {second} steps: {trace:#?}");
            let now = files(&dir.path().join(path(dataset)));
            let kept = files(&dir.path().join(WORK).join(PREVIOUS).join(key(dataset)));
            let old = if first > 2 { &generations[0] } else { &generations[2] };
            if now == generations[new as usize] {
                outcomes[1] += 1;
                assert_eq!(kept, *old, "the generation that was replaced is kept; {at}");
            } else {
                outcomes[0] += 1;
                assert_eq!(now, *old, "old or new; {at}");
                let kept_before = if first == 1 { &generations[1] } else { &generations[0] };
                assert_eq!(kept, *kept_before, "the kept generation is complete; {at}");
            }
            assert_eq!(leftovers(dir.path()), Vec::<String>::new(), "{at}");
            second += 1;
            if done {
                break;
            }
        }
        kill += 1;
    }
    assert!(outcomes[0] > 3 && outcomes[1] > 3, "kills before and after the switch: {outcomes:?}");
}

fn imports(dataset: &'static str) -> impl Fn(&Path) {
    move |dir| drop(import(dir, &[dataset], 3))
}

#[test]
fn a_database_survives_every_kill_of_an_exchange() {
    killed_everywhere("trivy-db", Refuse::Nothing, 1, 3, &imports("trivy-db"));
}

#[test]
fn a_first_import_survives_every_kill() {
    for dataset in ["trivy-db", "vex-hub"] {
        killed_everywhere(dataset, Refuse::Nothing, 3, 3, &imports(dataset));
    }
}

#[test]
fn a_tree_survives_every_kill_of_an_exchange() {
    killed_everywhere("trivy-checks", Refuse::Nothing, 1, 3, &imports("trivy-checks"));
}

#[test]
fn two_steps_survive_every_kill() {
    for dataset in ["trivy-db", "vex-hub"] {
        killed_everywhere(dataset, Refuse::Exchange, 1, 3, &imports(dataset));
    }
}

#[test]
fn a_switch_file_by_file_survives_every_kill() {
    for dataset in ["trivy-db", "trivy-checks", "vex-hub"] {
        killed_everywhere(dataset, Refuse::Move, 1, 3, &imports(dataset));
    }
}

#[test]
fn a_restore_survives_every_kill_with_all_three_methods() {
    for refuse in [Refuse::Nothing, Refuse::Exchange, Refuse::Move] {
        killed_everywhere("trivy-checks", refuse, 1, 1, &|dir| {
            if let Ok(mut cache) = Cache::open(options(dir), &Silent) {
                let slot = cache.slot(&name("trivy-checks"), "").unwrap();
                let _ = cache.restore_previous(&slot);
            }
        });
    }
}

#[test]
fn an_exchange_has_these_steps() {
    let dir = tempdir();
    import(dir.path(), &["trivy-db"], 1).unwrap();
    import(dir.path(), &["trivy-db"], 2).unwrap();
    let mut cache = Cache::open(options(dir.path()), &Silent).unwrap();
    let stage = stage(&cache, "trivy-db", 3).unwrap();
    fault::trace();
    let activated = cache.activate(vec![stage]).unwrap();
    assert_eq!(activated[0].how, Switch::Atomic);
    let steps = fault::trace().join("\n");
    assert_eq!(
        steps,
        "create metadata.json\nwrite metadata.json\n\
         create journal.json.trivy-ferry.tmp\nwrite journal.json.trivy-ferry.tmp\nrename journal.json\n\
         exchange db\n\
         rename trash-db\nrename db\n\
         unlink journal.json\n\
         unlink metadata.json\nunlink trivy.db\nrmdir trash-db"
    );
}

/// Trivy decides by `metadata.json` whether a database is valid, so it must be put in place last.
#[test]
fn a_switch_file_by_file_puts_the_seal_in_place_last() {
    let dir = tempdir();
    import(dir.path(), &["trivy-db"], 1).unwrap();
    let mut cache = Cache::open(options(dir.path()), &Silent).unwrap();
    let stage = stage(&cache, "trivy-db", 2).unwrap();
    fault::refuse(Refuse::Move);
    fault::trace();
    let activated = cache.activate(vec![stage]).unwrap();
    let steps = fault::trace();
    fault::refuse(Refuse::Nothing);
    assert_eq!(activated[0].how, Switch::PerFile);
    let last = |name: &str| steps.iter().rposition(|step| step == &format!("rename {name}"));
    let (content, seal) = (last("trivy.db"), last("metadata.json"));
    assert!(content.is_some() && content < seal, "{steps:#?}");
}

#[test]
fn each_method_is_reported_and_restores() {
    for (refuse, how) in [
        (Refuse::Nothing, Switch::Atomic),
        (Refuse::Exchange, Switch::TwoStep),
        (Refuse::Move, Switch::PerFile),
    ] {
        for dataset in ["trivy-db", "trivy-checks", "vex-hub"] {
            let generations = [1, 2].map(|generation| expected(dataset, generation));
            let dir = tempdir();
            import(dir.path(), &[dataset], 1).unwrap();
            fault::refuse(refuse);
            assert_eq!(import(dir.path(), &[dataset], 2).unwrap()[0].how, how, "{dataset}");
            let mut cache = Cache::open(options(dir.path()), &Silent).unwrap();
            let slot = cache.slot(&name(dataset), "default").unwrap();
            for generation in [1, 2, 1] {
                assert_eq!(cache.restore_previous(&slot).unwrap().unwrap().how, how);
                assert_eq!(files(&dir.path().join(path(dataset))), generations[generation - 1], "{dataset}");
            }
            fault::refuse(Refuse::Nothing);
        }
    }
}

#[test]
fn a_failure_of_one_dataset_does_not_affect_the_others() {
    let dir = tempdir();
    let mut cache = Cache::open(options(dir.path()), &Silent).unwrap();
    let db = cache.slot(&name("trivy-db"), "").unwrap();
    let empty = cache.stage(&db, metadata("trivy-db", 1)).unwrap();
    let checks = stage(&cache, "trivy-checks", 1).unwrap();
    let not = cache.activate(vec![empty, checks]).unwrap_err();
    assert_eq!(not.activated.len(), 1);
    assert!(matches!(&not.failed[..], [(slot, TargetError::Content { .. })] if *slot == db), "{not:?}");
    assert!(dir.path().join("policy/metadata.json").exists() && !dir.path().join("db").exists());
    assert_eq!(leftovers(dir.path()), Vec::<String>::new());
}

#[test]
fn without_keep_previous_the_kept_generation_is_removed_before_staging() {
    let dir = tempdir();
    import(dir.path(), &["trivy-db"], 1).unwrap();
    import(dir.path(), &["trivy-db"], 2).unwrap();
    let kept = dir.path().join(".trivy-ferry/previous/db");
    assert!(kept.exists());
    let mut cache =
        Cache::open(CacheOptions { keep_previous: false, ..options(dir.path()) }, &Silent).unwrap();
    let stage = stage(&cache, "trivy-db", 3).unwrap();
    assert!(!kept.exists(), "its space is free for staging");
    cache.activate(vec![stage]).unwrap();
    assert!(!kept.exists());
    let slot = cache.slot(&name("trivy-db"), "").unwrap();
    assert_eq!(cache.restore_previous(&slot).unwrap(), None);
}

#[test]
fn a_scan_that_holds_the_lock_delays_the_switch_up_to_the_limit() {
    let dir = tempdir();
    import(dir.path(), &["trivy-db"], 1).unwrap();
    let lock = File::open(dir.path().join(SCAN_LOCK)).unwrap();
    lock.lock_shared().unwrap();
    let messages = Messages::default();
    let mut cache = Cache::open(options(dir.path()), &messages).unwrap();
    cache.scan_wait = Duration::from_millis(1200);
    let late = stage(&cache, "trivy-db", 2).unwrap();
    let not = cache.activate(vec![late]).unwrap_err();
    assert!(matches!(&not.failed[..], [(_, TargetError::ScanLock { .. })]), "{not:?}");
    assert_eq!(messages.0.lock().unwrap().len(), 1, "one message after 1 s");
    assert_eq!(files(&dir.path().join("db")), expected("trivy-db", 1));
    let next = stage(&cache, "trivy-db", 2).unwrap();
    drop(lock);
    cache.activate(vec![next]).unwrap();
    assert_eq!(files(&dir.path().join("db")), expected("trivy-db", 2));
}

#[test]
fn an_unreadable_journal_does_not_lose_a_generation() {
    let dir = tempdir();
    import(dir.path(), &["trivy-db"], 1).unwrap();
    let work = dir.path().join(WORK);
    std::fs::rename(dir.path().join("db"), work.join("old-db")).unwrap();
    std::fs::write(work.join("journal.json"), "\0\0\0").unwrap();
    let messages = Messages::default();
    drop(Cache::open(options(dir.path()), &messages).unwrap());
    assert_eq!(files(&dir.path().join("db")), expected("trivy-db", 1));
    assert_eq!(leftovers(dir.path()), Vec::<String>::new());
    assert_eq!(messages.0.lock().unwrap().len(), 2, "both are reported");
}

#[test]
fn a_cache_that_was_cleared_after_a_kill_opens_again() {
    for refuse in [Refuse::Nothing, Refuse::Exchange, Refuse::Move] {
        for kill in 0.. {
            let dir = tempdir();
            fault::refuse(Refuse::Nothing);
            import(dir.path(), &["vex-hub"], 1).unwrap();
            fault::refuse(refuse);
            fault::trace();
            fault::kill_after(Some(kill));
            drop(import(dir.path(), &["vex-hub"], 2));
            fault::kill_after(None);
            let done = fault::trace().len() < kill as usize;
            std::fs::remove_dir_all(dir.path().join("vex")).unwrap_or_default();
            drop(Cache::open(options(dir.path()), &Silent).unwrap());
            assert_eq!(leftovers(dir.path()), Vec::<String>::new(), "{refuse:?}, {kill}");
            import(dir.path(), &["vex-hub"], 3).unwrap();
            fault::refuse(Refuse::Nothing);
            assert_eq!(files(&dir.path().join(path("vex-hub"))), expected("vex-hub", 3));
            if done {
                break;
            }
        }
    }
}
