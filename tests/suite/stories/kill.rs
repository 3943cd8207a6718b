//! kill -9 at random moments: what a pulled plug, a full cgroup or an impatient operator does.
//!
//! The moments come from a seed that is printed; `TRIVY_FERRY_SEED` repeats a run as far as the
//! machine's own timing allows.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use test_kit::artifact::{Artifact, all_four, flags_of, sample};
use test_kit::host::{Host, files, json_file, read};
use test_kit::noise::Noise;
use test_kit::runs;
use trivy_ferry::digest::Digest;

use crate::stories::bare;

/// A moment up to somewhat after the usual end, for the last steps matter as well.
fn moment(noise: &mut Noise, usual: Duration) -> Duration {
    usual.mul_f64(noise.below(1000) as f64 / 900.0)
}

/// Makes a dataset's layer take a while: the first file of its archive whose name ends like this
/// grows by noise behind what its reader looks at. Files that are text get a comment.
fn grown(artifact: Artifact, name: &str, more: &[u8]) -> Artifact {
    let mut archive = tar::Archive::new(GzDecoder::new(&artifact.layer[..]));
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut found = false;
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut header = entry.header().clone();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if entry.path().unwrap().to_string_lossy().ends_with(name) {
            bytes.extend_from_slice(more);
            found = true;
        }
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, &bytes[..]).unwrap();
    }
    assert!(found, "no file ends with {name}");
    let layer = builder.into_inner().unwrap().finish().unwrap();
    Artifact { layer, ..artifact }
}

/// Two generations of all four datasets, in layouts: the flags that export each.
fn two_generations(laptop: &Host, dice: &mut Noise) -> [String; 2] {
    let noise = dice.bytes(6 << 20);
    let old =
        [grown(Artifact::older_db(), "trivy.db", &noise), Artifact::older_java_db(), Artifact::checks("2")];
    let new = [
        grown(Artifact::db(), "trivy.db", &noise),
        Artifact::java_db(),
        grown(Artifact::checks("2"), ".rego", b"\n# a new generation\n"),
    ];
    let mut flags = [String::new(), String::new()];
    for (generation, (artifacts, flags)) in [old, new].iter().zip(&mut flags).enumerate() {
        let upstream = laptop.dir(&format!("upstream-{generation}"));
        artifacts.iter().for_each(|artifact| artifact.lay_out(&upstream));
        let vex = laptop.dir(&format!("vex-{generation}"));
        let content = format!("{}/fixtures/generate/content/vex", env!("CARGO_MANIFEST_DIR"));
        laptop
            .sh(&format!("cp -r {content}/. {vex} && cp {} {vex}", sample("vex-hub/vex-repository.json")))
            .exits(0);
        let index = format!("{vex}/index.json");
        let date = format!("2026-01-1{generation}T06:00:00Z");
        let mut json = json_file(&index);
        json["updated_at"] = date.into();
        fs::write(index, json.to_string()).unwrap();
        *flags = flags_of(&upstream).replace(&sample("vex-hub"), &vex);
    }
    flags
}

/// What must never be mixed: the data of each dataset together with its own metadata. Times of
/// import are left out, for they differ from run to run.
fn fingerprints(cache: &str) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    for (dataset, folder) in [
        ("trivy-db", "db"),
        ("trivy-java-db", "java-db"),
        ("trivy-checks", "policy"),
        ("vex-hub", "vex/repositories/default"),
    ] {
        let folder = format!("{cache}/{folder}");
        let mut all = Vec::new();
        for name in files(&folder) {
            let path = format!("{folder}/{name}");
            let bytes = match name.as_str() {
                "metadata.json" => {
                    let mut json = json_file(&path);
                    json["DownloadedAt"].take();
                    json.to_string().into_bytes()
                }
                "cache.json" => Vec::new(),
                _ => read(&path),
            };
            all.extend_from_slice(format!("{name} {}\n", Digest::of(&bytes)).as_bytes());
        }
        found.insert(dataset, Digest::of(&all).to_string());
    }
    found
}

/// Runs a command and kills it after a while. Whether it was still alive then.
fn kill_after(mut command: Command, moment: Duration) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while start.elapsed() < moment && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(200).min(moment.saturating_sub(start.elapsed())));
    }
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

/// Follows the machine, which is sometimes busier than when the usual time was taken: most runs
/// shall be killed, and some only just not, for the last steps matter as much as the first.
fn adapt(usual: &mut Duration, killed: bool) {
    *usual = usual.mul_f64(if killed { 1.01 } else { 0.95 });
}

/// How long a command takes when nothing disturbs it: the shortest of some runs, each begun
/// afresh.
fn usual(mut prepare: impl FnMut(), mut run: impl FnMut()) -> Duration {
    let mut timed = || {
        prepare();
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..4).map(|_| timed()).min().unwrap()
}

#[test]
fn an_import_killed_at_any_moment_leaves_each_dataset_old_or_new() {
    let mut dice = Noise::seeded();
    let laptop = bare();
    let (_, public) = laptop.keygen();
    let [old_flags, new_flags] = two_generations(&laptop, &mut dice);
    let old_bundle = laptop.export(&laptop.dir("old"), &old_flags);
    let new_bundle = laptop.export(&laptop.dir("new"), &new_flags);

    let station = bare();
    let line = |bundle: &str| format!("import {bundle} --trust {public} --cache-dir cache --format json");
    let cache = station.at("cache");
    let first = station.ferry(&line(&old_bundle));
    first.exits(0);
    assert_eq!(first.statuses(), all_four("installed"));
    let old = fingerprints(&cache);
    station.sh("cp -a cache cache.old && cp -a state state.old").exits(0);
    let back = || {
        station.sh("rm -rf cache state && cp -a cache.old cache && cp -a state.old state").exits(0);
    };
    let mut usual = usual(back, || {
        assert_eq!(station.ferry(&line(&new_bundle)).exits(0).statuses(), all_four("installed"));
    });
    let (new, clean) = (fingerprints(&cache), files(&cache));
    for (dataset, fingerprint) in &old {
        assert_ne!(fingerprint, &new[dataset], "{dataset} has no new generation, and proves nothing");
    }

    let (mut round, mut killed, mut mixed) = (0, 0, 0);
    while killed < runs(10, 100) {
        round += 1;
        assert!(round < 4 * runs(10, 100), "most are over before they are killed");
        back();
        let was_killed = kill_after(station.ferry_command(&line(&new_bundle)), moment(&mut dice, usual));
        killed += u64::from(was_killed);
        adapt(&mut usual, was_killed);
        let now = fingerprints(&cache);
        for (dataset, fingerprint) in &now {
            let known = fingerprint == &old[dataset] || fingerprint == &new[dataset];
            assert!(known, "round {round}: {dataset} is neither old nor new: {:?}", files(&cache));
        }
        mixed += u32::from(now != old && now != new);
        if round % 2 == 0 {
            // The next run need not want what was under way; it cleans up all the same.
            station.ferry(&format!("{} --only vex-hub", line(&new_bundle))).exits(0);
            let work = fs::read_dir(format!("{cache}/.trivy-ferry")).unwrap();
            let mut work: Vec<_> = work.map(|entry| entry.unwrap().file_name()).collect();
            work.retain(|name| name != "lock" && name != "previous");
            assert!(work.is_empty(), "round {round}: {work:?}");
        }
        let run = station.ferry(&line(&new_bundle));
        run.exits(0);
        assert!(!run.statuses().iter().any(|row| row.ends_with("failed")), "round {round}: {run}");
        assert_eq!(fingerprints(&cache), new, "round {round}");
        assert_eq!(files(&cache), clean, "round {round}: something was left in the cache");
        assert_eq!(
            files(&station.at("state")),
            ["import-default.json", "import.lock", "imports.jsonl"],
            "round {round}"
        );
        assert!(files(&station.at("tmp")).is_empty(), "round {round}: something was left in TMPDIR");
    }
    println!(
        "killed {killed} of {round} within {usual:?}; {mixed} times some datasets were old and some new"
    );
}

#[test]
fn an_export_killed_at_any_moment_leaves_a_whole_bundle_or_none() {
    let mut dice = Noise::seeded();
    let laptop = bare();
    let (key, public) = laptop.keygen();
    let [_, flags] = two_generations(&laptop, &mut dice);
    let stick = laptop.dir("stick");
    let clear = || files(&stick).iter().for_each(|name| fs::remove_file(format!("{stick}/{name}")).unwrap());
    let mut usual = usual(clear, || drop(laptop.export(&stick, &flags)));
    let line = format!("export --key {key} --output {stick} {flags}");
    let (mut round, mut killed, mut whole) = (0, 0, 0);
    while killed < runs(10, 100) {
        round += 1;
        assert!(round < 4 * runs(10, 100), "most are over before they are killed");
        clear();
        let was_killed = kill_after(laptop.ferry_command(&line), moment(&mut dice, usual));
        killed += u64::from(was_killed);
        adapt(&mut usual, was_killed);
        let published = files(&stick).into_iter().filter(|name| name.ends_with(".tar")).count();
        if published > 0 {
            whole += 1;
            laptop.ferry(&format!("verify {stick} --trust {public}")).exits(0);
        }
        laptop.ferry(&line).exits(0);
        let left = files(&stick);
        assert_eq!(left.len(), published + 1, "round {round}: {left:?}");
        assert!(left.iter().all(|name| name.ends_with(".tar")), "round {round}: {left:?}");
        assert_eq!(files(&laptop.at("state")), ["export-default.json", "export.lock"], "round {round}");
        assert!(files(&laptop.at("tmp")).is_empty(), "round {round}: something was left in TMPDIR");
        if published == 0 {
            continue;
        }
        // Both can be imported: they are two bundles of two moments.
        let station = bare();
        let import = format!("import {stick} --trust {public} --cache-dir cache --format json");
        assert_eq!(station.ferry(&import).exits(0).statuses(), all_four("installed"), "round {round}");
    }
    println!("killed {killed} of {round} within {usual:?}; {whole} times the bundle was there already");
}
