//! Bundles in volumes: for small media, and for file systems with a limit on the size of files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use test_kit::files::Fault;
use test_kit::process::Run;
use trivy_ferry::digest::Digest;

use crate::forge::upstream::Upstream;
use crate::forge::{self, Host};

const MIB: usize = 1 << 20;

/// Returns a host for exports, with directories for two media.
fn host() -> Host {
    let host = Host::new();
    host.write_key();
    for directory in ["out", "a", "b", "next"] {
        fs::create_dir_all(host.path(directory)).unwrap();
    }
    host
}

/// Publishes databases that need several volumes.
fn upstream(generation: u64, size: usize) -> Upstream {
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(generation, size);
    upstream
}

impl Host {
    /// Exports a bundle in volumes of 1 MiB into `out`. Returns their paths, the head first.
    fn split(&self, generation: u64) -> Vec<PathBuf> {
        self.export(&upstream(generation, 5 * MIB), &["--output", "out", "--volume-size", "1M"]).good();
        let files = self.files("out");
        assert!(files.len() > 4, "{files:?}");
        files
    }

    fn files(&self, directory: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.path(directory)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn shell(directory: &Path, line: &str) -> String {
    let ran = Command::new("sh").args(["-ec", line]).current_dir(directory).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn volumes_are_exported_and_imported_as_one_bundle() {
    let host = host();
    let volumes = host.split(60);
    assert!(volumes.len() >= 6, "{volumes:?}");
    for (number, volume) in volumes.iter().enumerate() {
        assert!(name(volume).ends_with(&format!(".tar.{number:03}")), "{volume:?}");
        let length = volume.metadata().unwrap().len();
        assert!(length <= MIB as u64, "{volume:?} has {length} bytes");
    }
    host.verify(&volumes[0], &[]).good();
    host.verify(&host.path("out"), &[]).good();
    host.import(&host.path("out"), &[]).good();
    let installed = host.installed("cache", "db");
    assert!(installed.is_some());
    let shown = host.run(&["inspect", "out", "--trust", "keys/exporter.pub"]);
    shown.good();
    assert!(shown.out.contains(&format!("volumes    {}", volumes.len())), "{shown:#?}");
    // A volume other than the head is not a bundle by itself.
    host.verify(&volumes[1], &[]).fails_with(2, &["is volume 001 of a bundle", ".tar.000"]);
}

#[test]
fn other_tools_put_volumes_together() {
    let host = host();
    host.split(60);
    shell(&host.path("out"), "cat *.tar.* > ../a/whole.tar");
    shell(&host.path("b"), "tar xf ../a/whole.tar && sha256sum --quiet -c SHA256SUMS");
    // The joined file is a bundle as well.
    host.verify(&host.path("a/whole.tar"), &[]).good();
    host.import(&host.path("a"), &[]).good();
}

/// Changed names: a disc without Rock Ridge or Joliet (diskfs/go-diskfs 189, MidnightCommander
/// 2471), a disc with `_` in place of `-` (open-goal/jak-project 3890), a browser or a kiosk that
/// makes names unique, and a mail gateway that adds an extension.
const RENAMED: &[fn(usize) -> String] = &[
    |number| format!("DEFAULT_.{number:03};1"),
    |number| format!("default_20261121t102008z.tar.{number:03}.bin"),
    |number| format!("weekly.tar ({}).{number:03}", number + 1),
    |number| format!("weekly ({}).tar.{number:03}", number + 1),
    |number| format!("part{}.tar", 99 - number),
    |number| format!("ATT{}", 70001 - number),
];

#[test]
fn renamed_volumes_are_recognized_by_their_digests() {
    let host = host();
    let volumes = host.split(60);
    let written = name(&volumes[0]).strip_suffix(".000").unwrap().to_owned();
    for (case, rename) in RENAMED.iter().enumerate() {
        let disc = host.path(format!("disc{case}"));
        fs::create_dir(&disc).unwrap();
        // The directory also has other files.
        fs::write(disc.join("README.TXT"), "from the kiosk").unwrap();
        fs::write(disc.join("decoy.001"), vec![7; MIB]).unwrap();
        for (number, volume) in volumes.iter().enumerate() {
            fs::copy(volume, disc.join(rename(number))).unwrap();
        }
        host.verify(&disc, &[]).good();
        host.verify(&disc.join(rename(0)), &[]).good();
        let ran = host.import_to(&format!("cache{case}"), &disc, &[]);
        ran.good().prints("trivy-db        installed").does_not_say(&rename(1));
        // If a volume is missing, the message has its original name, and it may arrive under any
        // name.
        fs::remove_file(disc.join(rename(3))).unwrap();
        let wanted = match rename(0).as_str() {
            "weekly (1).tar.000" => "weekly (1).tar.003 is missing".to_owned(),
            _ => format!("{written}.003 is missing"),
        };
        host.import(&disc, &[]).fails_with(6, &[&wanted, "under any name"]);
        fs::copy(&volumes[3], disc.join("copied again")).unwrap();
        host.verify(&disc, &[]).good();
        let shown = host.run(&["inspect", disc.to_str().unwrap(), "--trust", "keys/exporter.pub"]);
        shown.good().prints("README.TXT").does_not_say("NOT VERIFIED");
        // A file that is still being copied does not count.
        fs::rename(disc.join("copied again"), disc.join("copied again.filepart")).unwrap();
        host.verify(&disc, &[]).fails_with(6, &[&wanted]);
    }
}

#[test]
fn a_renamed_bundle_is_found_and_other_bundles_in_its_directory_are_skipped() {
    let host = host();
    host.export(&upstream(61, MIB), &["--output", "out"]).good();
    let bundle = host.files("out").remove(0);
    for name in ["DEFAULT_", "default.tar.bin", "B.TAR;1", "weekly.tar (1)"] {
        let disc = host.path(name.replace([' ', ';', '(', ')'], "-"));
        fs::create_dir(&disc).unwrap();
        fs::copy(&bundle, disc.join(name)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", disc.join("link")).unwrap();
        assert!(Command::new("mkfifo").arg(disc.join("pipe")).status().unwrap().success());
        host.verify(&disc, &[]).good();
        host.import(&disc, &[]).good();
    }
    // Renamed volumes on two media are put together.
    let volumes = host.split(62);
    let (one, two, staging) = (host.path("one"), host.path("two"), host.at("staging"));
    fs::create_dir_all(&one).unwrap();
    fs::create_dir_all(&two).unwrap();
    for (number, volume) in volumes.iter().enumerate().skip(1) {
        let medium = if number > 1 { &one } else { &two };
        fs::copy(volume, medium.join(format!("DEFAULT_.{number:03}"))).unwrap();
    }
    fs::copy(&volumes[0], two.join("DEFAULT_.000")).unwrap();
    fs::write(two.join("holiday.jpg"), vec![1; MIB]).unwrap();
    host.import(&one, &["--staging", &staging]).fails();
    host.import(&two, &["--staging", &staging]).good().prints("trivy-db        installed");
    let left: Vec<PathBuf> = host.files("staging/trivy-ferry-staging");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn missing_volumes_are_named() {
    let host = host();
    let volumes = host.split(60);
    for missing in [1, 3, volumes.len() - 1] {
        let away = host.path("away");
        fs::rename(&volumes[missing], &away).unwrap();
        let wanted = format!("{} is missing", name(&volumes[missing]));
        for input in [&volumes[0], &host.path("out")] {
            host.import(input, &[]).fails_with(6, &[&wanted, "Copy these volumes again"]);
        }
        fs::rename(&away, &volumes[missing]).unwrap();
    }
    fs::remove_file(&volumes[2]).unwrap();
    fs::remove_file(&volumes[4]).unwrap();
    let both =
        format!("2 of {} volumes are missing: {}, {}", volumes.len(), name(&volumes[2]), name(&volumes[4]));
    // A damaged volume is named together with the missing ones, so that the user can copy all of
    // them at once.
    let good = fs::read(&volumes[3]).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    fs::write(&volumes[3], bad).unwrap();
    let third = format!("{} does not match the signed digest", name(&volumes[3]));
    host.verify(&host.path("out"), &[]).fails_with(6, &[&both, &third]);
    host.verify(&volumes[0], &[]).fails_with(6, &[&both, &third]);
    // Another volume is truncated.
    let fifth = fs::read(&volumes[5]).unwrap();
    fs::write(&volumes[5], &fifth[..1000]).unwrap();
    host.verify(&volumes[0], &[]).fails_with(6, &[&third, &format!("{} has 1000 bytes", name(&volumes[5]))]);
    fs::write(&volumes[5], fifth).unwrap();
    fs::write(&volumes[3], good).unwrap();
    host.verify(&host.path("out"), &[]).fails_with(6, &[&both]);
    let shown = host.run(&["inspect", "out", "--trust", "keys/exporter.pub"]);
    shown.exits(0).prints("NOT VERIFIED").prints(&both).prints("The following is signed by");
    fs::remove_file(&volumes[0]).unwrap();
    let head = format!(
        "{} is missing; other files of the same bundle that were found: {}",
        name(&volumes[0]),
        volumes.len() - 3
    );
    host.import(&host.path("out"), &[]).fails_with(6, &[&head, "Copy it into the directory of the others"]);
    assert_eq!(host.installed("cache", "db"), None);
}

#[test]
fn damaged_volumes_are_named() {
    let host = host();
    let volumes = host.split(60);
    // The other bundle's volumes have the same names.
    let other = Host::with_key(&host.key);
    other.file("exporter.key", host.key.to_pem(None).unwrap().as_bytes());
    fs::create_dir_all(other.path("out")).unwrap();
    let others = other.split(120);
    for (number, volume) in volumes.iter().enumerate() {
        let good = fs::read(volume).unwrap();
        let mut bad = Vec::new();
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            bad.push(flipped);
        }
        bad.push(good[..good.len() - 1].to_vec());
        bad.push([&good[..], b"x"].concat());
        bad.push(fs::read(&others[number]).unwrap());
        if number > 1 {
            bad.push(fs::read(&volumes[number - 1]).unwrap());
        }
        for (change, bytes) in bad.iter().enumerate() {
            fs::write(volume, bytes).unwrap();
            let ran = host.import(&host.path("out"), &[]);
            // The head of another bundle is valid by itself, so the first volume is reported
            // instead.
            let named = if number == 0 && change == 5 { 1 } else { number };
            assert_eq!(ran.code, 4, "{number}, {change}: {ran:#?}");
            assert!(ran.err.contains(name(&volumes[named])), "{number}, {change}: {ran:#?}");
            let wrong = volumes.iter().filter(|other| ran.err.contains(name(other)));
            let most = if number == 0 { volumes.len() } else { 2 };
            assert!(wrong.count() <= most, "{number}, {change}: {ran:#?}");
        }
        fs::write(volume, good).unwrap();
    }
    assert_eq!(host.installed("cache", "db"), None, "none of its data was used");
    host.import(&host.path("out"), &[]).good();
}

#[test]
fn several_media_hold_one_bundle() {
    let host = host();
    let volumes = host.split(60);
    for (number, volume) in volumes.iter().enumerate() {
        let directory = if number % 2 == 0 { "a" } else { "b" };
        fs::rename(volume, host.path(directory).join(name(volume))).unwrap();
    }
    host.verify(&host.path("a"), &[]).fails_with(6, &["are missing"]);
    let both = |more: &[&str]| {
        let mut args = vec!["verify", "a", "b", "--trust", "keys/exporter.pub"];
        args.extend(more);
        host.run(&args)
    };
    both(&[]).good();
    // An incomplete copy beside a complete one does no harm.
    fs::write(host.path("a").join(name(&volumes[1])), "cut").unwrap();
    both(&[]).good();
    let mut command = host.command();
    command.args(["import", "b", "a", "--trust", "keys/exporter.pub", "--cache-dir", "cache"]);
    command.args(["--state-dir", "state"]);
    forge::run(command).good();
    assert!(host.installed("cache", "db").is_some());
}

#[test]
fn media_are_read_one_after_the_other() {
    let host = host();
    let volumes = host.split(60);
    let (head, rest) = volumes.split_first().unwrap();
    fs::rename(head, host.path("b").join(name(head))).unwrap();
    // There is only one place for a medium, so its volumes are removed with it.
    let plug_in = |volumes: &[PathBuf]| {
        fs::remove_dir_all(host.path("a")).unwrap();
        fs::create_dir(host.path("a")).unwrap();
        for volume in volumes {
            fs::copy(volume, host.path("a").join(name(volume))).unwrap();
        }
    };
    let import = |medium: &str| host.import(&host.path(medium), &["--staging", "gathered"]);
    plug_in(&rest[..2]);
    import("a").fails_with(6, &["head volume", "Bring a medium with a missing volume"]);
    import("b").fails_with(6, &["are missing", name(&rest[2]), "Bring a medium with a missing volume"]);
    // A volume is damaged on the way, and then copied again.
    plug_in(&rest[2..]);
    let broken = host.path("a").join(name(&rest[3]));
    let mut bytes = fs::read(&broken).unwrap();
    bytes[100] ^= 1;
    fs::write(&broken, bytes).unwrap();
    std::os::unix::fs::symlink("/dev/zero", host.path("a/x.tar")).unwrap();
    import("a").fails_with(4, &["is damaged", name(&rest[3])]);
    plug_in(&rest[3..4]);
    import("a").good();
    assert!(host.installed("cache", "db").is_some());
    assert!(host.files("gathered/trivy-ferry-staging").is_empty(), "the staging directory is cleared");
    // The first medium is used once more by mistake, and then the next bundle arrives: no volume of
    // the old bundle is left.
    plug_in(&rest[..2]);
    import("a").fails_with(6, &["head volume"]);
    host.wait(2);
    host.export(&upstream(61, MIB), &["--output", "next", "--accept", "trivy-db"]).good();
    import("next").exits(6).warns("head volume");
    assert!(
        host.files("gathered/trivy-ferry-staging").is_empty(),
        "{:?}",
        host.files("gathered/trivy-ferry-staging")
    );
    // Other files in the directory or on the medium are not changed.
    host.file("mine/photos.tar", "mine");
    host.file("next/photos.tar", "theirs");
    host.import(&host.path("next"), &["--staging", "mine"]).good();
    assert_eq!(fs::read_to_string(host.path("mine/photos.tar")).unwrap(), "mine");
    assert_eq!(host.files("next").len(), 2);
    host.import(&host.path("next"), &["--staging", "next"]).good();
    assert_eq!(host.files("next").iter().filter(|path| path.is_file()).count(), 2);
    let own = host.path("mine/trivy-ferry-staging");
    host.import(&own, &["--staging", "mine"]).fails_with(2, &["also an input of this import"]);
}

#[test]
#[ignore = "tools"]
fn an_export_continues_on_the_next_medium_if_one_is_full() {
    let host = host();
    let upstream = upstream(60, 5 * MIB);
    // There are two media of 4 MiB, and the bundle is larger than each of them.
    let run = |outputs: &[&str], after: &str| {
        let line = format!(
            "mount -t tmpfs -o size=4m tmpfs a && mount -t tmpfs -o size=4m tmpfs b && \"$@\" && {after}"
        );
        let more: Vec<&str> = outputs.iter().flat_map(|output| ["--output", output]).collect();
        let export = host.export_command(&upstream, &[&more[..], &["--volume-size", "1M"]].concat());
        let mut command = host.in_own_mounts(&line);
        command.arg(export.get_program()).args(export.get_args());
        forge::run(command)
    };
    run(&["a"], "true").fails_with(7, &["the bundle needs ", "but only ", "--output for each"]);
    let ferry = host.command().get_program().to_str().unwrap().to_owned();
    let ran = run(&["a", "b"], &format!("ls -A a b >&2 && {ferry} verify a b --trust keys/exporter.pub >&2"));
    ran.good();
    let listed = |directory: &str| {
        let rest = ran.err.split(&format!("{directory}:\n")).nth(1).unwrap();
        rest.lines().take_while(|line| line.contains(".tar.")).count()
    };
    assert!(listed("a") >= 3 && listed("b") >= 2, "{ran:#?}");
    assert!(!ran.err.contains(".partial"), "{ran:#?}");
}

#[test]
fn an_export_in_volumes_resumes_where_it_stopped() {
    let host = host();
    // Until the export is killed, the registry stalls in the middle of the large layer, so that the
    // kill is never too late.
    let (stalling, answered) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let (is_stalling, count) = (stalling.clone(), answered.clone());
    let small = Digest::of(b"{}").hex();
    let upstream = Upstream::new(move |_, path| {
        if !is_stalling.load(Relaxed) || !path.contains("/db/blobs/") || path.ends_with(&small) {
            return None;
        }
        // The start is one response. After it, the client reads one stream, or one range after the
        // other.
        match count.fetch_add(1, Relaxed) {
            0 => None,
            1 => Some(Fault::Stall(24_000_000)),
            2..=10 => None,
            _ => Some(Fault::Stall(1)),
        }
    });
    upstream.publish(60, 40 * MIB);
    let export = |more: &[&str]| host.export_command(&upstream, &[&["--output", "out"], more].concat());
    let sent = || upstream.sent();
    let written =
        || host.files("out").iter().filter_map(|path| path.metadata().ok()).map(|m| m.len()).sum::<u64>();
    let kill = |mut command: Command| {
        stalling.store(true, Relaxed);
        answered.store(0, Relaxed);
        let at = written() + 16_000_000;
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while written() < at && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(child.try_wait().unwrap().is_none(), "the export ended before it was killed");
        child.kill().unwrap();
        child.wait().unwrap();
        stalling.store(false, Relaxed);
    };
    kill(export(&["--volume-size", "3M"]));
    assert!(host.files("out").iter().all(|path| name(path).ends_with(".partial")), "{:?}", host.files("out"));
    let ran = forge::run(export(&["--volume-size", "3M"]));
    ran.good();
    assert!(ran.err.contains("from an interrupted export"), "{ran:#?}");
    assert!(sent() * 10 < upstream.size() * 15, "{} bytes for {}", sent(), upstream.size());
    assert!(
        !host.files("out").iter().any(|path| name(path).ends_with(".partial")),
        "{:?}",
        host.files("out")
    );
    host.verify(&host.path("out"), &[]).good();
    // Leftover volumes of another size are used as well, and removed.
    let first = sent();
    kill(export(&["--volume-size", "3M"]));
    // A bundle of the same second would have the same name.
    host.wait(2);
    forge::run(export(&["--volume-size", "8M"])).good();
    assert!((sent() - first) * 10 < upstream.size() * 15, "{} bytes for {}", sent() - first, upstream.size());
    assert!(
        !host.files("out").iter().any(|path| name(path).ends_with(".partial")),
        "{:?}",
        host.files("out")
    );
    host.verify(&host.path("out"), &[]).good();
}

#[test]
fn an_export_that_was_killed_while_it_renamed_its_files_leaves_no_incomplete_bundle() {
    let host = host();
    let volumes = host.split(60);
    // The state before the last rename: the head is still pending.
    let head = volumes[0].with_file_name(format!("{}.partial", name(&volumes[0])));
    fs::rename(&volumes[0], &head).unwrap();
    host.verify(&host.path("out"), &[])
        .fails_with(6, &["head volume ", "is missing; other files of the same bundle"]);
    let upstream = upstream(60, 5 * MIB);
    host.export(&upstream, &["--output", "out", "--volume-size", "1M"]).good();
    assert!(!head.exists());
    // Volumes without a head are reported and not removed, because they have the name of a bundle.
    host.verify(&host.path("out"), &[])
        .exits(6)
        .warns("is missing; other files of the same bundle")
        .prints("good: ");
}

#[test]
fn old_volumes_are_removed_with_their_head() {
    let host = host();
    let first = host.split(60);
    host.wait(2);
    host.export(&upstream(120, 5 * MIB), &["--output", "out", "--volume-size", "1M", "--keep", "1"]).good();
    let left = host.files("out");
    assert!(left.len() > 2, "{left:?}");
    assert!(!left.iter().any(|path| first.contains(path)), "{left:?}");
    host.verify(&host.path("out"), &[]).good();
}

#[test]
fn a_second_signature_is_added_to_the_head_volume() {
    let host = host();
    let volumes = host.split(60);
    let other = trivy_ferry::trust::key::SigningKey::generate().unwrap();
    host.file("other.key", other.to_pem(None).unwrap().as_bytes());
    let trusted = host.trust("other", &other.public());
    let head = name(&volumes[0]).to_owned();
    let line = ["sign", &format!("out/{head}"), "--key", "other.key", "--trust", "keys/exporter.pub"];
    host.run(&line).good();
    host.run(&["verify", "out", "--trust", &trusted]).good();
}

/// Runs a shell line with an image of a file system mounted at `stick`, and returns its exit code.
fn on_medium(host: &Host, mount: &str, line: &str) -> Run {
    fs::create_dir_all(host.path("stick")).unwrap();
    // Both drivers are processes that end with the mount.
    let line =
        format!("truncate -s 64M stick.img && {mount} && ( {line} ); status=$?; umount stick; exit $status");
    forge::run(host.in_own_mounts(&line))
}

#[test]
#[ignore = "tools"]
fn volumes_are_exported_to_and_imported_from_fat_and_exfat() {
    let fat = "mkfs.fat -F 32 stick.img >/dev/null && fusefat -o rw+ stick.img stick >/dev/null 2>&1";
    let exfat = "mkfs.exfat stick.img >/dev/null && loop=$(losetup -f --show stick.img) && \
                 mount.exfat-fuse \"$loop\" stick >/dev/null 2>&1 && losetup -d \"$loop\"";
    for mount in [fat, exfat] {
        let host = host();
        let upstream = upstream(60, 5 * MIB);
        let export = host
            .export_command(&upstream, &["--output", "stick", "--volume-size", "1M", "--verify-after-write"]);
        let ferry = export.get_program().to_str().unwrap().to_owned();
        let args: Vec<&str> = export.get_args().map(|arg| arg.to_str().unwrap()).collect();
        let import = format!(
            "{ferry} import stick --trust keys/exporter.pub --cache-dir cache --state-dir state --data-home home"
        );
        let line = format!("{ferry} {} && ls stick >&2 && {import}", args.join(" "));
        let ran = on_medium(&host, mount, &line);
        ran.good();
        assert!(!ran.err.contains(".partial") && ran.err.contains(".tar.006"), "{ran:#?}");
        assert!(host.installed("cache", "db").is_some());
    }
}
