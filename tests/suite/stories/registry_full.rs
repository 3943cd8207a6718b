//! A registry without free space: its errors, and its content before and after space was freed.

use std::fs;
use std::process::Command;

use test_kit::artifact::{Artifact, laid_out};
use test_kit::host::{Host, files, read};
use test_kit::mounts::again_in_mounts;
use test_kit::real::{Distribution, Registry};
use test_kit::tools;

use crate::stories::bare;
use crate::stories::registry::{artifacts, three};

/// A small file system in memory, in a private mount namespace.
struct SmallDisk {
    directory: String,
}

impl SmallDisk {
    fn new(directory: String, size: &str) -> SmallDisk {
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "none", &directory]);
        SmallDisk { directory }
    }

    fn grow(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}"), &self.directory]);
    }
}

fn mount(arguments: &[&str]) {
    assert!(Command::new("mount").args(arguments).status().unwrap().success(), "mount {arguments:?}");
}

/// Returns a trivy-db that is larger than all buffers.
fn large_db(host: &Host) -> Artifact {
    fs::write(host.at("db.tar.gz"), &Artifact::db().layer).unwrap();
    host.sh(
        "tar xzf db.tar.gz && head -c 24M /dev/urandom >>trivy.db && tar czf db.tar.gz trivy.db metadata.json",
    )
    .exits(0);
    Artifact { layer: read(host.at("db.tar.gz")), ..Artifact::db() }
}

/// Whether a registry has a tag of a dataset in `full/`, as another client sees it.
fn has(registry: &Registry, artifact: &Artifact) -> bool {
    let line =
        format!("crane digest --insecure {}/full/{}:{}", registry.address, artifact.dataset, artifact.tag);
    let run = registry.publisher.sh(&line);
    if run.code != 0 {
        // The registry responds, and the tag is missing.
        run.warns("404");
        return false;
    }
    true
}

#[test]
#[ignore = "tools"]
fn a_full_disk_is_named_and_the_same_command_succeeds_once_there_is_room() {
    let tools = tools();
    if !again_in_mounts(":") {
        return;
    }
    let laptop = bare();
    let (_, public) = laptop.keygen();
    let flags = laid_out(&laptop);
    let db = large_db(&laptop);
    db.lay_out(&laptop.at("upstream"));
    let bundle = laptop.export(&laptop.dir("out"), &flags);
    let artifacts =
        artifacts().map(|artifact| if artifact.dataset == "trivy-db" { db.clone() } else { artifact });

    let disk = SmallDisk::new(laptop.dir("disk"), "8m");
    let filler = format!("{}/filler", disk.directory);
    laptop.sh(&format!("! cat /dev/zero 2>/dev/null >{filler}")).exits(0);
    let registry = Distribution { storage: Some(&disk.directory), ..Distribution::default() }.start(&tools);
    let importer = bare();
    let import =
        format!("import {bundle} --trust {public} --registry {}/full --format json", registry.address);

    // No free space at all.
    let run = importer.ferry(&import);
    run.exits(7);
    assert_eq!(run.statuses(), three("failed"));
    run.warns("no space left on device").warns(&format!("Free space on {}", registry.address));
    assert!(!artifacts.iter().any(|artifact| has(&registry, artifact)));

    // Less space than the large layer needs. The incomplete upload must not stay and fill the disk.
    fs::remove_file(filler).unwrap();
    let run = importer.ferry(&import);
    run.exits(7);
    assert!(run.statuses().contains(&"trivy-db failed".to_owned()), "{run}");
    run.warns("no space left on device").warns(&format!("Free space on {}", registry.address));
    assert!(!has(&registry, &db));
    let half: Vec<String> =
        files(&disk.directory).into_iter().filter(|file| file.contains("/_uploads/")).collect();
    assert!(!half.iter().any(|file| file.ends_with("/data")), "{half:#?}");

    // The same command, after space was freed.
    disk.grow("64m");
    let run = importer.ferry(&import);
    run.exits(0);
    assert!(run.statuses().contains(&"trivy-db pushed".to_owned()), "{run}");
    for artifact in &artifacts {
        let reference = format!("full/{}:{}", artifact.dataset, artifact.tag);
        assert_eq!(registry.digest_of(&reference), artifact.digest(), "{reference}");
    }
    assert_eq!(importer.ferry(&import).exits(0).statuses(), three("unchanged"));
}
