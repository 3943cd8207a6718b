//! Runs are killed with SIGKILL at any moment, as by a full cgroup or an operator.
//!
//! A moment is a step: a change to the file system, which a debug build counts. The kills are spread over all steps.
//! `TRIVY_FERRY_NIGHTLY=1` kills more often, with a random seed that is printed. `TRIVY_FERRY_SEED` repeats a run.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use test_kit::artifact::{Artifact, all_four, flags_of, sample};
use test_kit::host::{Host, files, json_file, read};
use test_kit::noise::Noise;
use test_kit::runs;
use trivy_ferry::digest::Digest;

use crate::stories::bare;

/// Returns how many times an export and an import are killed.
fn times() -> u64 {
    runs(12, 200)
}

/// Returns a random step in the part of a run for kill number `number`.
fn step(noise: &mut Noise, number: u64, steps: u64) -> u64 {
    1 + (number * steps + noise.below(steps)) / times()
}

/// Returns a dataset whose layer takes longer to process: the file of its archive whose name ends
/// with `name` gets additional bytes after the content. Text files get a comment.
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

/// Writes two generations of all four datasets into layouts, and returns the flags that export each.
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

/// Returns a digest of each dataset with its metadata, which must never be mixed. Times of import are omitted, because
/// they differ between runs.
fn fingerprints(cache: &str) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    for (dataset, directory) in [
        ("trivy-db", "db"),
        ("trivy-java-db", "java-db"),
        ("trivy-checks", "policy"),
        ("vex-hub", "vex/repositories/default"),
    ] {
        let directory = format!("{cache}/{directory}");
        let mut all = Vec::new();
        for name in files(&directory) {
            let path = format!("{directory}/{name}");
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

/// Runs a command that kills itself just before one of its steps.
fn kill_at(mut command: Command, step: u64) {
    command.stdout(Stdio::null()).stderr(Stdio::null()).env("TRIVY_FERRY_TEST_KILL_AT", step.to_string());
    let status = command.status().unwrap();
    assert_eq!(status.signal(), Some(9), "step {step}: {status}");
}

/// Returns the number of steps of a command that is not killed.
fn steps(host: &Host, line: &str) -> u64 {
    let list = host.at("steps");
    let _ = fs::remove_file(&list);
    let mut command = host.ferry_command(line);
    command.stdout(Stdio::null()).env("TRIVY_FERRY_TEST_STEPS", &list);
    assert!(command.status().unwrap().success(), "{line}");
    let steps = read(&list).split(|byte| *byte == b'\n').count() as u64 - 1;
    assert!(steps >= 10, "{steps}");
    steps
}

#[test]
fn an_import_killed_at_any_moment_leaves_each_dataset_old_or_new() {
    let mut dice = Noise::seeded();
    let laptop = bare();
    let (_, public) = laptop.keygen();
    let [old_flags, new_flags] = two_generations(&laptop, &mut dice);
    let old_bundle = laptop.export(&laptop.dir("old"), &old_flags);
    let new_bundle = laptop.export(&laptop.dir("new"), &new_flags);

    let importer = bare();
    let line = |bundle: &str| format!("import {bundle} --trust {public} --cache-dir cache --format json");
    let cache = importer.at("cache");
    let first = importer.ferry(&line(&old_bundle));
    first.exits(0);
    assert_eq!(first.statuses(), all_four("installed"));
    let old = fingerprints(&cache);
    importer.sh("cp -a cache cache.old && cp -a state state.old").exits(0);
    let back = || {
        importer.sh("rm -rf cache state && cp -a cache.old cache && cp -a state.old state").exits(0);
    };
    let steps = steps(&importer, &line(&new_bundle));
    let (new, clean) = (fingerprints(&cache), files(&cache));
    for (dataset, fingerprint) in &old {
        assert_ne!(fingerprint, &new[dataset], "{dataset} has no new generation, and proves nothing");
    }

    let mut mixed = 0;
    for round in 0..times() {
        back();
        kill_at(importer.ferry_command(&line(&new_bundle)), step(&mut dice, round, steps));
        let now = fingerprints(&cache);
        for (dataset, fingerprint) in &now {
            let known = fingerprint == &old[dataset] || fingerprint == &new[dataset];
            assert!(known, "round {round}: {dataset} is neither old nor new: {:?}", files(&cache));
        }
        mixed += u32::from(now != old && now != new);
        if round % 2 == 0 {
            // The next run cleans up, even if it imports other data.
            importer.ferry(&format!("{} --only vex-hub", line(&new_bundle))).exits(0);
            let work = fs::read_dir(format!("{cache}/.trivy-ferry")).unwrap();
            let mut work: Vec<_> = work.map(|entry| entry.unwrap().file_name()).collect();
            work.retain(|name| name != "lock" && name != "previous");
            assert!(work.is_empty(), "round {round}: {work:?}");
        }
        let run = importer.ferry(&line(&new_bundle));
        run.exits(0);
        assert!(!run.statuses().iter().any(|row| row.ends_with("failed")), "round {round}: {run}");
        assert_eq!(fingerprints(&cache), new, "round {round}");
        assert_eq!(files(&cache), clean, "round {round}: something was left in the cache");
        assert_eq!(
            files(importer.at("state")),
            ["import-default.json", "import.lock", "imports.jsonl"],
            "round {round}"
        );
        assert!(files(importer.at("tmp")).is_empty(), "round {round}: something was left in TMPDIR");
    }
    println!("killed {} times in {steps} steps; {mixed} times some datasets were old and some new", times());
}

#[test]
fn an_export_killed_at_any_moment_leaves_a_complete_bundle_or_none() {
    let mut dice = Noise::seeded();
    let laptop = bare();
    let (key, public) = laptop.keygen();
    let [_, flags] = two_generations(&laptop, &mut dice);
    let medium = laptop.dir("stick");
    let clear =
        || files(&medium).iter().for_each(|name| fs::remove_file(format!("{medium}/{name}")).unwrap());
    let line = format!("export --key {key} --output {medium} {flags}");
    // The first export creates directories that later ones do not.
    laptop.ferry(&line).exits(0);
    clear();
    let steps = steps(&laptop, &line);
    let mut whole = 0;
    for round in 0..times() {
        clear();
        kill_at(laptop.ferry_command(&line), step(&mut dice, round, steps));
        let published = files(&medium).into_iter().filter(|name| name.ends_with(".tar")).count();
        if published > 0 {
            whole += 1;
            laptop.ferry(&format!("verify {medium} --trust {public}")).exits(0);
        }
        laptop.ferry(&line).exits(0);
        let left = files(&medium);
        assert_eq!(left.len(), published + 1, "round {round}: {left:?}");
        assert!(left.iter().all(|name| name.ends_with(".tar")), "round {round}: {left:?}");
        assert_eq!(
            files(laptop.at("state")),
            ["export-default.json", "export.lock", "exports.jsonl"],
            "round {round}"
        );
        assert!(files(laptop.at("tmp")).is_empty(), "round {round}: something was left in TMPDIR");
        if published == 0 {
            continue;
        }
        // Both bundles can be imported, because their times differ.
        let importer = bare();
        let import = format!("import {medium} --trust {public} --cache-dir cache --format json");
        assert_eq!(importer.ferry(&import).exits(0).statuses(), all_four("installed"), "round {round}");
    }
    println!("killed {} times in {steps} steps; {whole} times the bundle was there already", times());
}
