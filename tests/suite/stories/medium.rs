//! A weekly medium: its other files, repeated imports, and imports by root into other users'
//! caches. Some of these tests use the real Trivy.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Stdio;

use test_kit::artifact::{Artifact, Form, all_four, flags_of, laid_out};
use test_kit::host::{Host, files, json_file, names};
use test_kit::process::Process;
use test_kit::{needs_root, tools};

use crate::stories::{bare, equipped};

/// Returns the date of a database in a cache.
fn date(cache: &str, database: &str) -> String {
    json_file(format!("{cache}/{database}/metadata.json"))["UpdatedAt"].as_str().unwrap().into()
}

#[test]
fn the_weekly_medium() {
    weekly(bare(), |cache| {
        for name in ["db", "java-db", "policy", "vex"] {
            fs::remove_dir_all(format!("{cache}/{name}")).unwrap();
        }
    });
}

#[test]
#[ignore = "tools"]
fn the_weekly_medium_at_a_host_with_trivy() {
    let tools = tools();
    let (importer, cleaner) = (equipped(&tools), equipped(&tools));
    weekly(importer, |cache| {
        cleaner.sh(&format!("trivy clean --all --cache-dir {cache}")).good();
    });
}

/// The first weeks of an importing host. `clean` empties a cache.
fn weekly(importer: Host, clean: impl Fn(&str)) {
    let laptop = bare();
    let (_, public) = laptop.keygen();
    let medium = laptop.dir("stick");
    let flags = laid_out(&laptop);
    let upstream = laptop.at("upstream");
    Artifact::older_db().lay_out(&upstream);
    let first = laptop.export(&medium, &flags);

    // Files of macOS, Windows, a browser and an interrupted copy.
    fs::create_dir(format!("{medium}/System Volume Information")).unwrap();
    fs::write(format!("{medium}/System Volume Information/IndexerVolumeGuid"), "x").unwrap();
    fs::write(format!("{medium}/._default.tar"), "\0\x05\x16\x07").unwrap();
    fs::write(format!("{medium}/default.tar.partial"), &fs::read(&first).unwrap()[..3000]).unwrap();
    fs::copy(&first, format!("{medium}/default (1).tar")).unwrap();

    let cache = importer.at("cache");
    let line = format!("import {medium} --trust {public} --cache-dir {cache} --format json");
    let run = importer.ferry(&line);
    run.exits(0);
    assert_eq!(run.statuses(), all_four("installed"));
    let ignored = run.target(0)["ignored"].to_string();
    for name in ["System Volume Information", "._default.tar", "default.tar.partial"] {
        assert!(ignored.contains(name), "{name} is not in {ignored}");
    }
    assert!(!ignored.contains("(1)"), "a copy is a bundle like any other: {ignored}");
    let run = importer.ferry(&line);
    run.exits(0);
    assert_eq!(run.statuses(), all_four("unchanged"));

    // A user may clean the cache. The state is elsewhere, and must not prevent a new import.
    clean(&cache);
    assert!(!Path::new(&format!("{cache}/db/trivy.db")).exists());
    let run = importer.ferry(&line);
    run.exits(0);
    assert_eq!(run.statuses(), all_four("restored"));
    assert_eq!(date(&cache, "db"), "2026-01-08T06:00:00Z");

    // Next week, a bundle without trivy-java-db, which is carried monthly.
    Artifact::db().lay_out(&upstream);
    laptop.export(&medium, &format!("{flags} --skip trivy-java-db"));
    let run = importer.ferry(&line);
    run.exits(0);
    assert_eq!(
        run.statuses(),
        ["trivy-checks unchanged", "trivy-db installed", "trivy-java-db unchanged", "vex-hub unchanged"]
    );
    assert_eq!(date(&cache, "db"), "2026-01-15T06:00:00Z");

    // A new host imports the newest version of each dataset from both bundles.
    let new = bare();
    let run = new.ferry(&format!("import {medium} --trust {public} --cache-dir cache --format json"));
    run.exits(0);
    assert_eq!(run.statuses(), all_four("installed"));
    assert_eq!(date(&new.at("cache"), "db"), "2026-01-15T06:00:00Z");
    assert_eq!(date(&new.at("cache"), "java-db"), "2026-01-15T06:00:00Z");
}

#[test]
fn a_medium_that_was_unplugged_too_early_changes_nothing() {
    let (laptop, importer) = (bare(), bare());
    let (_, public) = laptop.keygen();
    let medium = laptop.dir("stick");
    let whole = laptop.export(&medium, &laid_out(&laptop));
    let line = format!("import {medium} --trust {public} --cache-dir cache");
    importer.ferry(&line).exits(0);
    let before = files(importer.at("cache"));

    let length = fs::metadata(&whole).unwrap().len();
    fs::File::options().write(true).open(&whole).unwrap().set_len(length / 2).unwrap();
    importer.ferry(&line).exits(4).warns(&whole).warns("no data from the file was used");
    assert_eq!(files(importer.at("cache")), before);
}

#[test]
fn each_version_of_trivy_gets_its_major_version_of_the_checks() {
    let (laptop, older, newer) = (bare(), bare(), bare());
    let (_, public) = laptop.keygen();
    laid_out(&laptop);
    let upstream = laptop.at("upstream");
    // Another form, so that the two major versions are two artifacts.
    let (one, two) = (Artifact::checks("1").in_form(Form::TypedConfig), Artifact::checks("2"));
    one.lay_out(&upstream);
    let out = laptop.dir("out");
    laptop.export(&out, &format!("{} --trivy-version 0.67,0.74", flags_of(&upstream)));

    for (importer, version, major, artifact) in [(&older, "0.67", 1, &one), (&newer, "0.74", 2, &two)] {
        let line = format!("import {out} --trust {public} --cache-dir cache --trivy-version {version}");
        let run = importer.ferry(&format!("{line} --format json"));
        run.exits(0);
        assert_eq!(run.statuses(), all_four("installed"), "{version}");
        let metadata = json_file(importer.at("cache/policy/metadata.json"));
        assert_eq!(metadata["MajorVersion"], major, "{metadata}");
        assert_eq!(metadata["Digest"], artifact.digest(), "{metadata}");
    }
    // A bundle for other versions of Trivy reports the missing checks, and the other datasets are imported.
    let out = laptop.dir("out-2");
    laptop.export(&out, &format!("{} --trivy-version 0.74 --stream new", flags_of(&upstream)));
    bare()
        .ferry(&format!("import {out} --trust {public} --cache-dir cache --trivy-version 0.67 --stream new"))
        .exits(0)
        .warns("export with --trivy-version 0.67");
}

#[test]
fn two_exports_in_one_second_are_two_bundles() {
    let (laptop, importer) = (bare(), bare());
    let (key, public) = laptop.keygen();
    let (medium, flags) = (laptop.dir("stick"), laid_out(&laptop));
    // Without a common state, as after a kill just before the first export wrote its state.
    for state in ["one", "two", "three"] {
        let line = format!("export --key {key} --output {medium} {flags} --state-dir {state}");
        laptop.ferry(&line).exits(0);
    }
    assert_eq!(files(&medium).len(), 3);
    let line = format!("import {medium} --trust {public} --cache-dir cache --format json");
    assert_eq!(importer.ferry(&line).exits(0).statuses(), all_four("installed"));
}

/// Returns the owners of everything below a directory, without the working files of trivy-ferry.
fn owners(directory: &str) -> Vec<(u32, u32)> {
    let entries = walkdir::WalkDir::new(directory).into_iter().map(Result::unwrap);
    let theirs = entries.filter(|entry| !entry.path().display().to_string().contains("/.trivy-ferry"));
    let mut owners: Vec<(u32, u32)> =
        theirs.map(|entry| entry.metadata().unwrap()).map(|data| (data.uid(), data.gid())).collect();
    owners.sort();
    owners.dedup();
    owners
}

#[test]
#[ignore = "tools"]
fn root_leaves_a_cache_to_its_owner() {
    needs_root();
    let (laptop, importer) = (bare(), bare());
    let (_, public) = laptop.keygen();
    let out = laptop.dir("out");
    laptop.export(&out, &laid_out(&laptop));
    let import = |more: &str| {
        let run = importer.ferry(&format!("import {out} --trust {public} --format json {more}"));
        run.exits(0);
        run
    };

    // Trivy before 0.68 must be able to write to data that root imported.
    let theirs = importer.dir("theirs");
    chown(&theirs, Some(1234), Some(1235)).unwrap();
    import(&format!("--cache-dir {theirs}"));
    assert_eq!(owners(&theirs), [(1234, 1235)]);

    let given = importer.dir("given");
    import(&format!("--cache-dir {given} --owner 4321:4322"));
    for dataset in ["db", "java-db", "policy", "vex"] {
        assert_eq!(owners(&format!("{given}/{dataset}")), [(4321, 4322)], "{dataset}");
    }

    let adapter = importer.dir("trivy-adapter");
    let run = import(&format!("--cache-dir {adapter} --layout harbor"));
    assert_eq!(
        run.statuses(),
        ["trivy-checks no-place", "trivy-db installed", "trivy-java-db installed", "vex-hub installed"]
    );
    let mut found = files(&adapter);
    found.retain(|path| !path.contains(".trivy-ferry") && !path.starts_with("vex/repositories/default/"));
    let databases = ["db/metadata.json", "db/trivy.db", "java-db/metadata.json", "java-db/trivy-java.db"];
    assert_eq!(found, [&[".trivy/vex/repository.yaml"], &databases[..]].concat());
    for database in ["db", "java-db", "vex", ".trivy"] {
        assert_eq!(owners(&format!("{adapter}/{database}")), [(10000, 10000)], "{database}");
    }
}

/// The medium brings the program too. openssl and sha256sum verify it, and an import ignores its files.
#[test]
fn the_program_comes_on_the_medium() {
    let (laptop, importer) = (bare(), bare());
    let (_, public) = laptop.keygen();
    let medium = laptop.dir("stick");
    let flags = format!("{} --with-self", laid_out(&laptop));
    laptop.export(&medium, &flags);
    let program = format!("{medium}/trivy-ferry");
    assert!(fs::read(&program).unwrap() == fs::read(crate::forge::PROGRAM).unwrap());
    let verify = format!(
        "cd {medium} && sha256sum --check --strict trivy-ferry.sha256 && openssl pkeyutl -verify -pubin \
         -inkey {public} -rawin -in trivy-ferry.sha256 -sigfile trivy-ferry.sha256.sig"
    );
    laptop.sh(&verify).exits(0).prints("trivy-ferry: OK").prints("Signature Verified Successfully");
    let run = importer.ferry(&format!("import {medium} --trust {public} --cache-dir cache --format json"));
    run.exits(0);
    assert_eq!(run.statuses(), all_four("installed"));
    // The import does not mention the files that the export put there.
    assert_eq!(run.json()["targets"][0]["ignored"].as_array().map(Vec::len), Some(0), "{}", run.out);
    importer.sh(&format!("{program} -V")).exits(0).prints("trivy-ferry ");

    // The next export does not write an equal program again, and replaces another one.
    let inode = || fs::metadata(&program).unwrap().ino();
    let first = inode();
    laptop.export(&medium, &flags);
    assert_eq!(inode(), first);
    fs::write(&program, "another program").unwrap();
    laptop.export(&medium, &flags);
    laptop.sh(&verify).exits(0);

    // A run that was killed leaves a temporary file. Two runs at once do not disturb each other.
    fs::write(format!("{medium}/.trivy-ferry.4194303.partial"), "a part").unwrap();
    fs::remove_file(&program).unwrap();
    let exports: Vec<_> = ["one", "two"]
        .map(|state| {
            let line = format!(
                "export --key {} --output {medium} --stream {state} --state-dir {state} {flags}",
                laptop.at("ferry.key")
            );
            let mut command = laptop.ferry_command(&line);
            Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
        })
        .into();
    for mut export in exports {
        assert!(export.child().wait().unwrap().success());
    }
    laptop.sh(&verify).exits(0);
    let hidden = names(&medium).into_iter().filter(|name| name.starts_with('.')).collect::<Vec<_>>();
    assert_eq!(hidden, Vec::<String>::new());
    // An import mentions a directory with the name of the program.
    laptop.sh(&format!("mkdir -p other/trivy-ferry && cp {medium}/default-*.tar other"));
    let run = laptop.ferry(&format!("import other --trust {public} --cache-dir c2 --format json"));
    assert_eq!(run.exits(0).json()["targets"][0]["ignored"][0]["name"], "trivy-ferry");

    // If the program cannot be written, the bundle is still written.
    fs::remove_file(&program).unwrap();
    fs::create_dir(&program).unwrap();
    let line = format!("export --key {} --output {medium} {flags}", laptop.at("ferry.key"));
    let run = laptop.ferry(&line);
    run.exits(7).prints("Wrote").warns("trivy-ferry could not be written there");
}
