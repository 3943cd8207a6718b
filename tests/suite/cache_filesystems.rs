//! The cache on real file systems: errors of the kernel, and the configurations of real hosts.
//!
//! Tests that mount something need root and run once more in a mount namespace of their own.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::Timestamp;
use test_kit::mounts::{again_in_mounts, mounts};
use trivy_ferry::content_digest::ContentDigest;
use trivy_ferry::dataset::{Contents, File, Name, RelPath, Sink, Tree};
use trivy_ferry::digest::Digest;
use trivy_ferry::hint::Hint;
use trivy_ferry::progress::{Progress, Silent, Step};
use trivy_ferry::targets::{
    Activated, Cache, CacheOptions, Layout, Metadata, Owner, PartialActivation, Slot, Switch, TargetError,
};

type Content = Vec<(String, Vec<u8>)>;

fn options(dir: &Path) -> CacheOptions {
    CacheOptions { dir: dir.into(), layout: Layout::Trivy, owner: None, keep_previous: true }
}

fn open(dir: &Path) -> Result<Cache<'static>, TargetError> {
    Cache::open(options(dir), &Silent)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

fn metadata(dataset: &str) -> Metadata {
    match dataset {
        "trivy-checks" => Metadata::Checks {
            manifest_digest: Digest::of(b"m"),
            major: 2,
            version: None,
            downloaded_at: now(),
        },
        "vex-hub" => Metadata::Vex { manifest_json: b"{}".to_vec(), updated_at: now() },
        _ => Metadata::Database { downloaded_at: now() },
    }
}

fn content(dataset: &str, generation: u32) -> Content {
    match dataset {
        "trivy-checks" => (0..20)
            .map(|n| (format!("policies/g{generation}/{n}.rego"), format!("{n} {generation}").into_bytes()))
            .chain([("commands/same.yaml".into(), format!("same {generation}").into_bytes())])
            .collect(),
        "vex-hub" => vec![
            ("index.json".into(), br#"{"updated_at":"2026-11-20T00:00:00Z"}"#.to_vec()),
            (format!("pkg/p{generation}.json"), vec![b'v'; 10]),
        ],
        _ => vec![
            ("trivy.db".into(), format!("bolt {generation}").into_bytes()),
            ("metadata.json".into(), format!("{{\"Version\":2,\"UpdatedAt\":\"2026-11-2{generation}T00:00:00Z\",\"NextUpdate\":\"2026-11-2{generation}T06:00:00Z\"}}").into_bytes()),
        ],
    }
}

/// Returns the description of the content in a signed payload.
fn contents(dataset: &str, content: &Content) -> Contents {
    let files: Vec<File> = content
        .iter()
        .map(|(path, bytes)| File {
            path: path.parse().unwrap(),
            size: bytes.len() as u64,
            digest: ContentDigest::of(bytes),
        })
        .collect();
    let mut contents =
        Contents { schema: None, updated_at: None, next_update: None, files: vec![], tree: None };
    if dataset == "trivy-db" {
        let metadata: serde_json::Value = serde_json::from_slice(&content[1].1).unwrap();
        contents.schema = Some(2);
        contents.updated_at = Some(metadata["UpdatedAt"].as_str().unwrap().parse().unwrap());
        contents.next_update = Some(metadata["NextUpdate"].as_str().unwrap().parse().unwrap());
        contents.files = files;
    } else {
        contents.tree = Some(Tree::of(files));
    }
    contents
}

fn slot(cache: &Cache, dataset: &str) -> Slot {
    cache.slot(&name(dataset), "default").unwrap()
}

fn target_error(error: std::io::Error) -> TargetError {
    *error.into_inner().unwrap().downcast().unwrap()
}

fn import(cache: &mut Cache, dataset: &str, content: &Content) -> Result<Activated, TargetError> {
    let mut stage = cache.stage(&slot(cache, dataset), metadata(dataset))?;
    for (path, bytes) in content {
        let path: RelPath = path.parse().unwrap();
        stage.begin(&path, bytes.len() as u64).map_err(target_error)?;
        for chunk in bytes.chunks(64 << 10) {
            stage.data(chunk).map_err(target_error)?;
        }
        stage.end().map_err(target_error)?;
    }
    match cache.activate(vec![stage]) {
        Ok(mut activated) => Ok(activated.remove(0)),
        Err(PartialActivation { mut failed, .. }) => Err(failed.remove(0).1),
    }
}

fn holds(cache: &Cache, dataset: &str, content: &Content) -> bool {
    cache.holds(&slot(cache, dataset), &contents(dataset, content), &metadata(dataset)).unwrap()
}

fn leftovers(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| !matches!(name.as_str(), "lock" | "previous")).collect()
}

/// Imports two generations over the existing data, checks each, and restores the first.
fn two_generations(dir: &Path, datasets: &[&str], how: [Switch; 2], keeps: bool) {
    for dataset in datasets {
        let mut cache = open(dir).unwrap();
        let (first, second) = (content(dataset, 1), content(dataset, 2));
        for (generation, how) in [&first, &second].into_iter().zip(how) {
            assert!(!holds(&cache, dataset, generation));
            let activated = import(&mut cache, dataset, generation).unwrap();
            assert_eq!(activated.how, how, "{dataset}");
            assert!(holds(&cache, dataset, generation), "{dataset}");
        }
        assert_eq!(leftovers(&dir.join(".trivy-ferry")), Vec::<String>::new());
        let slot = slot(&cache, dataset);
        assert_eq!(cache.restore_previous(&slot).unwrap().is_some(), keeps, "{dataset}");
        assert!(holds(&cache, dataset, if keeps { &first } else { &second }), "{dataset}");
    }
}

#[test]
fn an_ordinary_directory_is_switched_at_once() {
    let dir = tempfile::tempdir().unwrap();
    two_generations(
        &dir.path().join("new/cache"),
        &["trivy-db", "trivy-checks", "vex-hub"],
        [Switch::Atomic; 2],
        true,
    );
    let db = std::fs::metadata(dir.path().join("new/cache/db/trivy.db")).unwrap();
    assert_eq!(db.mode() & 0o777, 0o644);
    assert_eq!(std::fs::metadata(dir.path().join("new/cache/db")).unwrap().mode() & 0o777, 0o755);
    assert_eq!(std::fs::metadata(dir.path().join("new/cache/.trivy-ferry")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn anything_extra_or_changed_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = open(dir.path()).unwrap();
    let spoil: [(&str, &str, &str); 6] = [
        ("trivy-db", "db/trivy.db", "bolt 9"),
        ("trivy-db", "db/metadata.json", "garbage"),
        ("trivy-checks", "policy/content/policies/extra.rego", "x"),
        ("trivy-checks", "policy/content/policies/g1/1.rego", "1 9"),
        ("vex-hub", "vex/repositories/default/vex-repository.json", "{ }"),
        ("vex-hub", "vex/repositories/default/0.1/index.json", "{}"),
    ];
    for (dataset, path, text) in spoil {
        let content = content(dataset, 1);
        import(&mut cache, dataset, &content).unwrap();
        assert!(holds(&cache, dataset, &content));
        std::fs::write(dir.path().join(path), text).unwrap();
        assert!(!holds(&cache, dataset, &content), "{path}");
    }
    import(&mut cache, "trivy-db", &content("trivy-db", 1)).unwrap();
    let db = cache.installed(&slot(&cache, "trivy-db")).unwrap().unwrap();
    assert_eq!((db.schema, db.downloaded_at), (Some(2), Some(now())));
    std::fs::write(dir.path().join("db/metadata.json"), "<html>").unwrap();
    assert_eq!(cache.installed(&slot(&cache, "trivy-db")).unwrap(), None, "garbage is not installed");
}

#[test]
fn a_link_in_place_of_a_slot_is_rejected_and_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("elsewhere");
    let cache_dir = dir.path().join("cache");
    std::fs::create_dir_all(&elsewhere).unwrap();
    std::fs::create_dir_all(&cache_dir).unwrap();
    for (dataset, path) in [("trivy-db", "db"), ("trivy-checks", "policy"), ("vex-hub", "vex")] {
        symlink(&elsewhere, cache_dir.join(path)).unwrap();
        let mut cache = open(&cache_dir).unwrap();
        let error = import(&mut cache, dataset, &content(dataset, 1)).unwrap_err();
        assert!(matches!(&error, TargetError::Symlink { path: at } if at.ends_with(path)), "{error:?}");
        assert!(error.hint().contains(path), "{}", error.hint());
        assert!(cache.preflight(&[(slot(&cache, dataset), 1, 1)]).is_err());
        assert!(std::fs::read_dir(&elsewhere).unwrap().next().is_none());
    }
    symlink(&elsewhere, cache_dir.join("fanal")).unwrap();
    assert!(matches!(open(&cache_dir).unwrap().clear_scan_cache(), Err(TargetError::Symlink { .. })));
    // The cache directory itself may be a link.
    let link = dir.path().join("link");
    symlink(dir.path().join("real"), &link).unwrap();
    std::fs::create_dir(dir.path().join("real")).unwrap();
    import(&mut open(&link).unwrap(), "trivy-db", &content("trivy-db", 1)).unwrap();
    assert!(dir.path().join("real/db/trivy.db").exists());
}

#[test]
fn files_and_other_directories_are_rejected_as_cache_directories() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(open(&file), Err(TargetError::NotADirectory { .. })));
    let mut cache = open(dir.path()).unwrap();
    import(&mut cache, "trivy-db", &content("trivy-db", 1)).unwrap();
    let Err(error) = open(&dir.path().join("db")) else { panic!("the db directory was accepted") };
    assert!(error.hint().contains(dir.path().to_str().unwrap()), "{}", error.hint());
    assert!(matches!(open(dir.path()), Err(TargetError::Locked { .. })));
    drop(cache);
    std::fs::remove_dir_all(dir.path().join(".trivy-ferry")).unwrap();
    symlink("/tmp", dir.path().join(".trivy-ferry")).unwrap();
    assert!(matches!(open(dir.path()), Err(TargetError::Symlink { .. })));
    assert!(Cache::inspect(&dir.path().join("none"), Layout::Trivy).unwrap().is_none());
}

#[test]
fn harbor_has_a_place_for_the_databases_and_vex() {
    let dir = tempfile::tempdir().unwrap();
    let view = Cache::inspect(dir.path(), Layout::Harbor).unwrap().unwrap();
    assert_eq!(view.slot(&name("trivy-java-db"), "").unwrap().path(), "java-db");
    assert!(view.slot(&name("trivy-checks"), "").is_none());
    assert_eq!(view.slot(&name("vex-hub"), "default").unwrap().path(), "vex/repositories/default");
}

#[test]
fn the_scan_cache_is_removed_completely() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = open(dir.path()).unwrap();
    assert!(!cache.clear_scan_cache().unwrap());
    std::fs::create_dir_all(dir.path().join("fanal/deep")).unwrap();
    std::fs::write(dir.path().join("fanal/fanal.db"), "x").unwrap();
    assert!(cache.clear_scan_cache().unwrap());
    assert!(!dir.path().join("fanal").exists());
    assert_eq!(leftovers(&dir.path().join(".trivy-ferry")), Vec::<String>::new());
}

#[test]
fn insufficient_space_is_detected_before_the_first_byte() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path()).unwrap();
    let (db, java) = (slot(&cache, "trivy-db"), slot(&cache, "trivy-java-db"));
    cache.preflight(&[(db.clone(), 1 << 20, 2), (java.clone(), 1 << 20, 2)]).unwrap();
    let error = cache.preflight(&[(db.clone(), 1 << 40, 2), (java, 1 << 60, 2)]).unwrap_err();
    assert!(matches!(error, TargetError::Space { .. }));
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    assert!(error.hint().ends_with("or use --skip trivy-java-db; nothing was changed."), "{}", error.hint());
    // The space of an earlier generation can be freed.
    drop(cache);
    let mut cache = open(dir.path()).unwrap();
    for generation in [1, 2] {
        import(&mut cache, "trivy-db", &content("trivy-db", generation)).unwrap();
    }
    let error = cache.preflight(&[(db.clone(), 1 << 60, 2)]).unwrap_err();
    assert!(error.hint().ends_with("or use --keep-previous 0; nothing was changed."), "{}", error.hint());
    // Some file systems have no limit on inodes.
    if let Err(error) = cache.preflight(&[(db, 0, 1 << 33)]) {
        assert!(matches!(error, TargetError::Inodes { .. } | TargetError::Space { .. }), "{error}");
    }
}

#[test]
fn nested_directories_of_any_depth_are_replaced() {
    let top = tempfile::tempdir().unwrap();
    let deep = top.path().join("policy/content").join("d/".repeat(1500));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), "x").unwrap();
    let mut cache = open(top.path()).unwrap();
    let content = content("trivy-checks", 1);
    assert!(!holds(&cache, "trivy-checks", &content));
    // The existing data becomes the previous generation, and the second import removes it.
    for generation in 1..=3 {
        import(&mut cache, "trivy-checks", &self::content("trivy-checks", generation)).unwrap();
    }
    drop(cache);
    let mut cache = open(top.path()).unwrap();
    assert!(holds(&cache, "trivy-checks", &self::content("trivy-checks", 3)));
    import(&mut cache, "trivy-checks", &content).unwrap();
    assert_eq!(leftovers(&top.path().join(".trivy-ferry")), Vec::<String>::new());
}

#[test]
fn an_import_of_1000_files_is_staged() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = open(dir.path()).unwrap();
    let content: Content =
        (0..1000).map(|n| (format!("policies/{}/{n}.rego", n % 40), vec![b'x'; 3000])).collect();
    import(&mut cache, "trivy-checks", &content).unwrap();
    assert!(holds(&cache, "trivy-checks", &content));
}

/// Kills a process at every step. After each kill, the cache must have the old or the new data and
/// be usable.
#[test]
fn a_killed_process_leaves_old_or_new_data() {
    let generations = [content("trivy-checks", 1), content("trivy-checks", 2)];
    // The killed process runs this same test.
    if let Some(dir) = std::env::var_os("TRIVY_FERRY_TEST_CACHE") {
        for content in generations.iter().rev() {
            import(&mut open(Path::new(&dir)).unwrap(), "trivy-checks", content).unwrap();
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    import(&mut open(dir.path()).unwrap(), "trivy-checks", &generations[0]).unwrap();
    let exe = std::env::current_exe().unwrap();
    let interrupted = Count::default();
    let list = dir.path().with_extension("steps");
    let child = |variable: &str, value: &std::ffi::OsStr| {
        let mut child = Command::new(&exe);
        child.args(["cache_filesystems::a_killed_process_leaves_old_or_new_data", "--exact"]);
        child.env("TRIVY_FERRY_TEST_CACHE", dir.path()).env(variable, value);
        child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        child.status().unwrap()
    };
    assert!(child("TRIVY_FERRY_TEST_STEPS", list.as_os_str()).success());
    let steps = std::fs::read_to_string(&list).unwrap().lines().count();
    std::fs::remove_file(&list).unwrap();
    assert!(steps > 20, "{steps}");
    for round in 1..=steps {
        let status = child("TRIVY_FERRY_TEST_KILL_AT", round.to_string().as_ref());
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "step {round}: {status}");
        let cache = Cache::open(options(dir.path()), &interrupted).unwrap();
        let found = generations.iter().filter(|content| holds(&cache, "trivy-checks", content)).count();
        assert_eq!(found, 1, "old or new, in round {round}");
        assert_eq!(leftovers(&dir.path().join(".trivy-ferry")), Vec::<String>::new());
    }
    let interrupted = interrupted.0.into_inner();
    eprintln!("{interrupted} messages about interrupted imports");
    assert!(interrupted > 5, "too few kills interrupted an import: {interrupted}");
}

/// Counts the messages of an open cache.
#[derive(Default)]
struct Count(AtomicU32);

impl Progress for Count {
    fn begin(&self, _: &str, _: u64, _: &str) -> Box<dyn Step> {
        Box::new(Silent)
    }

    fn info(&self, _: &str) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

const OVERLAY: &str = "cd $D; mkdir lower upper work cache; \
    mkdir -p lower/db lower/policy/content/policies/old lower/vex/repositories/default/0.1; \
    echo old > lower/db/trivy.db; echo '{\"Version\":2}' > lower/db/metadata.json; \
    echo old > lower/policy/content/policies/old/x.rego; \
    mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work cache;";

#[test]
#[ignore = "tools"]
fn an_overlay_with_the_slots_in_a_lower_layer() {
    if !again_in_mounts(OVERLAY) {
        return;
    }
    let dir = mounts().join("cache");
    two_generations(&dir, &["trivy-db", "trivy-checks", "vex-hub"], [Switch::PerFile; 2], true);
    assert!(!dir.join("policy/content/policies/old").exists());
}

#[test]
#[ignore = "tools"]
fn an_overlay_over_an_existing_cache() {
    if !again_in_mounts("cd $D; mkdir upper work cache base;") {
        return;
    }
    // A container image that was built with an import has the previous generation in a layer as
    // well.
    for generation in [1, 2] {
        import(&mut open(&mounts().join("base")).unwrap(), "trivy-db", &content("trivy-db", generation))
            .unwrap();
    }
    let mount = ["-t", "overlay", "overlay", "-o", "lowerdir=base,upperdir=upper,workdir=work", "cache"];
    assert!(Command::new("mount").args(mount).current_dir(mounts()).status().unwrap().success());
    let dir = mounts().join("cache");
    for generation in [3, 4] {
        let mut cache = open(&dir).unwrap();
        let content = content("trivy-db", generation);
        assert_eq!(import(&mut cache, "trivy-db", &content).unwrap().how, Switch::PerFile);
        assert!(holds(&cache, "trivy-db", &content));
        assert_eq!(leftovers(&dir.join(".trivy-ferry")), Vec::<String>::new());
    }
    let mut cache = open(&dir).unwrap();
    let db = slot(&cache, "trivy-db");
    cache.restore_previous(&db).unwrap().unwrap();
    assert!(holds(&cache, "trivy-db", &content("trivy-db", 3)));
}

#[test]
#[ignore = "tools"]
fn a_slot_that_is_a_mount_point() {
    if !again_in_mounts(
        "cd $D; mkdir -p cache/db cache/policy elsewhere; mount --bind elsewhere cache/db; \
         mount -t tmpfs -o size=8m none cache/policy;",
    ) {
        return;
    }
    let dir = mounts().join("cache");
    two_generations(&dir, &["trivy-db", "trivy-checks"], [Switch::PerFile; 2], true);
    assert!(mounts().join("elsewhere/trivy.db").exists(), "the data is not in the mount");
    let mut cache = Cache::open(CacheOptions { keep_previous: false, ..options(&dir) }, &Silent).unwrap();
    import(&mut cache, "trivy-db", &content("trivy-db", 3)).unwrap();
    let names: Vec<_> =
        std::fs::read_dir(dir.join("db")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "no working directory is left: {names:?}");
    // The small mount has too little space, but the cache has enough.
    let policy = slot(&cache, "trivy-checks");
    let error = cache.preflight(&[(policy, 20 << 20, 10)]).unwrap_err();
    assert!(matches!(&error, TargetError::Space { path, .. } if path.ends_with("policy")), "{error:?}");
}

#[test]
#[ignore = "tools"]
fn a_mount_inside_a_slot_is_rejected() {
    if !again_in_mounts(
        "cd $D; mkdir -p cache/policy/content elsewhere; mount --bind elsewhere cache/policy/content;",
    ) {
        return;
    }
    let mut cache = open(&mounts().join("cache")).unwrap();
    let error = import(&mut cache, "trivy-checks", &content("trivy-checks", 1)).unwrap_err();
    assert!(
        matches!(&error, TargetError::MountInside { path } if path.ends_with("policy/content")),
        "{error:?}"
    );
}

#[test]
#[ignore = "tools"]
fn a_file_system_that_fills_up() {
    if !again_in_mounts("mkdir $D/cache; mount -t tmpfs -o size=2m,nr_inodes=200 none $D/cache;") {
        return;
    }
    let dir = mounts().join("cache");
    let mut cache = open(&dir).unwrap();
    let old = content("trivy-db", 1);
    import(&mut cache, "trivy-db", &old).unwrap();
    let mut large = content("trivy-db", 2);
    large[0].1 = vec![7; 4 << 20];
    let error = import(&mut cache, "trivy-db", &large).unwrap_err();
    assert!(matches!(error, TargetError::Full { .. }), "{error:?}");
    assert!(holds(&cache, "trivy-db", &old), "the old data works");
    assert_eq!(leftovers(&dir.join(".trivy-ferry")), Vec::<String>::new());
    let many: Content = (0..400).map(|n| (format!("policies/{n}.rego"), vec![])).collect();
    let error = import(&mut cache, "trivy-checks", &many).unwrap_err();
    assert!(matches!(error, TargetError::Full { .. }), "{error:?}");
    let checks = slot(&cache, "trivy-checks");
    let error = cache.preflight(&[(checks, 1000, 400)]).unwrap_err();
    assert!(matches!(error, TargetError::Inodes { .. } | TargetError::Space { .. }), "{error:?}");
    assert!(holds(&cache, "trivy-db", &old));
}

#[test]
#[ignore = "tools"]
fn a_read_only_file_system() {
    if !again_in_mounts(
        "mkdir -p $D/cache/db; mount --bind $D/cache $D/cache; mount -o remount,ro,bind $D/cache;",
    ) {
        return;
    }
    let Err(error) = open(&mounts().join("cache")) else { panic!("the cache was opened") };
    assert!(matches!(error, TargetError::ReadOnly { .. }), "{error:?}");
    let view = Cache::inspect(&mounts().join("cache"), Layout::Trivy).unwrap().unwrap();
    assert_eq!(view.installed(&view.slot(&name("trivy-db"), "").unwrap()).unwrap(), None);
}

#[test]
#[ignore = "tools"]
fn root_in_a_cache_of_another_user() {
    if !again_in_mounts("mkdir $D/cache;") {
        return;
    }
    let dir = mounts().join("cache");
    chown(&dir, Some(1234), Some(1235)).unwrap();
    let mut cache = open(&dir).unwrap();
    import(&mut cache, "trivy-db", &content("trivy-db", 1)).unwrap();
    import(&mut cache, "vex-hub", &content("vex-hub", 1)).unwrap();
    let owner = |path: &str| {
        let metadata = std::fs::metadata(dir.join(path)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    for path in ["db", "db/trivy.db", "db/metadata.json", "vex", "vex/repositories/default/0.1/pkg/p1.json"] {
        assert_eq!(owner(path), (1234, 1235), "{path}");
    }
    assert_eq!(owner(".trivy-ferry"), (0, 0));
    drop(cache);

    // An owner can be given by number. The ownership is repaired even if the data is the same.
    let owned = CacheOptions { owner: Some(Owner { uid: 77, gid: 78 }), ..options(&dir) };
    let mut cache = Cache::open(owned, &Silent).unwrap();
    let same = content("trivy-db", 1);
    assert!(!holds(&cache, "trivy-db", &same));
    import(&mut cache, "trivy-db", &same).unwrap();
    assert_eq!(owner("db/trivy.db"), (77, 78));
    assert!(holds(&cache, "trivy-db", &same));
    drop(cache);

    // A working directory that the other user created is not trusted.
    std::fs::remove_dir_all(dir.join(".trivy-ferry")).unwrap();
    std::fs::DirBuilder::new().mode(0o700).create(dir.join(".trivy-ferry")).unwrap();
    chown(dir.join(".trivy-ferry"), Some(1234), None).unwrap();
    let Err(error) = open(&dir) else { panic!("the working directory was trusted") };
    assert!(matches!(error, TargetError::Foreign { owner: 1234, .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(dir.join(".trivy-ferry")).unwrap().count(), 0);

    // A lock file that is a link is neither followed nor changed.
    std::fs::remove_dir(dir.join(".trivy-ferry")).unwrap();
    std::fs::remove_file(dir.join(".trivy-ferry.lock")).unwrap();
    let secret = mounts().join("secret");
    std::fs::write(&secret, "s").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&secret, dir.join(".trivy-ferry.lock")).unwrap();
    let mut cache = open(&dir).unwrap();
    let error = import(&mut cache, "trivy-db", &content("trivy-db", 2)).unwrap_err();
    assert!(matches!(error, TargetError::Symlink { .. }), "{error:?}");
    assert_eq!(std::fs::metadata(&secret).unwrap().mode() & 0o777, 0o600);
    assert!(holds(&cache, "trivy-db", &content("trivy-db", 1)));
}

#[test]
#[ignore = "tools"]
fn an_ordinary_user_in_a_cache_of_another_user() {
    if !again_in_mounts(
        "chmod 755 $D; mkdir $D/cache; cp \"$EXE\" $D/exe; chmod 755 $D/exe; EXE=$D/exe; \
         exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$EXE\" $NAME --exact --include-ignored --nocapture;",
    ) {
        return;
    }
    let Err(error) = open(&mounts().join("cache")) else { panic!("the cache was opened") };
    assert!(matches!(error, TargetError::Permission { .. }), "{error:?}");
    assert!(error.hint().contains("--owner"), "{}", error.hint());
}
