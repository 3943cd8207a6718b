//! A site with a web server: VEX repositories are files that it hands out, and every scanner asks it.

use std::fs;
use std::time::Duration;

use trivy_ferry::digest::Digest;

use crate::kit::{Host, files, flags_of, json_file, laid_out, read, sample};

const HUB: &str = "vex-hub/.well-known/vex-repository.json";
const ARCHIVE: &str = "vex-hub/repository-vexhub-main.tar.gz";

/// VEX Hub on a later day: the document that took a finding away is withdrawn.
fn later_hub(host: &Host) -> String {
    let folder = host.folder("later");
    fs::copy(sample("vex-hub/vex-repository.json"), format!("{folder}/vex-repository.json")).unwrap();
    host.sh(&format!(
        "mkdir later/x && tar xzf {} -C later/x && \
         echo '{{\"updated_at\": \"2026-02-15T06:00:00Z\", \"packages\": []}}' >later/x/vexhub-main/index.json && \
         tar czf later/main.tar.gz -C later/x vexhub-main && rm -r later/x",
        sample("vex-hub/main.tar.gz")
    ))
    .exits(0);
    folder
}

/// Two bundles, a month apart, and the key that signed them.
fn two_bundles() -> (Host, [String; 2], String) {
    let laptop = Host::bare();
    let (_, public) = laptop.keygen();
    let first = laptop.export(&laptop.folder("first"), &laid_out(&laptop));
    let flags = flags_of(&laptop.at("upstream")).replace(&sample("vex-hub"), &later_hub(&laptop));
    // Bundles of the same second would be two that claim the same moment.
    std::thread::sleep(Duration::from_millis(1100));
    let second = laptop.export(&laptop.folder("second"), &flags);
    (laptop, [first, second], public)
}

#[test]
fn a_web_root_holds_what_trivy_asks_a_web_server_for() {
    let (_laptop, [first, second], public) = two_bundles();
    let station = Host::bare();
    let root = station.folder("www");
    let import = |bundle: &str, more: &str| {
        let flags = format!("--web-root {root} --web-url https://web.corp.example/vex --format json {more}");
        station.ferry(&format!("import {bundle} --trust {public} {flags}"))
    };
    let done = import(&first, "").exits(0);
    assert_eq!(done.statuses(), ["vex-hub installed"]);
    assert_eq!(done.target(0)["datasets"][0]["reference"], "https://web.corp.example/vex/vex-hub");
    assert!(!std::path::Path::new(&station.at(".cache")).exists(), "no cache is touched");
    let archive = read(sample("vex-hub/main.tar.gz"));
    let by_digest = format!("vex-hub/sha256-{}.tar.gz", Digest::of(&archive).hex());
    assert_eq!(read(format!("{root}/{ARCHIVE}")), archive);
    assert_eq!(read(format!("{root}/{by_digest}")), archive);
    let location = || {
        json_file(format!("{root}/{HUB}"))["versions"][0]["locations"][0]["url"].as_str().unwrap().to_owned()
    };
    let wanted = format!("https://web.corp.example/vex/{ARCHIVE}//vexhub-main");
    assert_eq!(location(), wanted);
    assert_eq!(import(&first, "").exits(0).statuses(), ["vex-hub unchanged"]);

    // A scanner keeps the location for ever: it must stay good when the documents change.
    assert_eq!(import(&second, "").exits(0).statuses(), ["vex-hub installed"]);
    assert_eq!(location(), wanted);
    assert_ne!(read(format!("{root}/{ARCHIVE}")), archive);
    assert_eq!(read(format!("{root}/{by_digest}")), archive, "the one before is kept");
    // Not back again, unless somebody says so.
    let older = import(&first, "").exits(0).says("--allow-rollback");
    assert_eq!(older.statuses(), ["vex-hub older"]);
    assert_ne!(read(format!("{root}/{ARCHIVE}")), archive);
    assert_eq!(import(&first, "--allow-rollback").exits(0).statuses(), ["vex-hub restored"]);
    assert_eq!(read(format!("{root}/{ARCHIVE}")), archive);

    // What somebody changed or removed comes back.
    fs::write(format!("{root}/{ARCHIVE}"), "<html>").unwrap();
    assert_eq!(import(&first, "").exits(0).statuses(), ["vex-hub restored"]);
    fs::remove_dir_all(format!("{root}/vex-hub")).unwrap();
    assert_eq!(import(&first, "").exits(0).statuses(), ["vex-hub restored"]);
    let held = files(&root);
    assert_eq!(held, [".trivy-ferry.lock", HUB, ARCHIVE, &by_digest]);
}

#[test]
fn a_damaged_bundle_changes_nothing_in_a_web_root() {
    let (laptop, [first, second], public) = two_bundles();
    let station = Host::bare();
    let root = station.folder("www");
    let flags = format!("--trust {public} --web-root {root} --web-url https://web.corp.example");
    station.ferry(&format!("import {first} {flags}")).exits(0);
    let before: Vec<_> = files(&root).iter().map(|name| read(format!("{root}/{name}"))).collect();
    let mut bytes = read(&second);
    let archive = read(laptop.at("later/main.tar.gz"));
    let at = bytes.windows(64).position(|window| window == &archive[archive.len() - 64..]).unwrap();
    bytes[at] ^= 1;
    fs::write(&second, bytes).unwrap();
    station.ferry(&format!("import {second} {flags}")).exits(4).says("does not match the signed manifest");
    let after: Vec<_> = files(&root).iter().map(|name| read(format!("{root}/{name}"))).collect();
    assert_eq!(before, after);
    station
        .ferry(&format!("import {first} --trust {public} --web-root {root}/none --web-url http://x"))
        .exits(7)
        .says("there is no folder");
    station.ferry(&format!("import {first} --trust {public} --web-root {root}")).exits(2).says("--web-url");
}
