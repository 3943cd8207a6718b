//! An inbox on a share or behind a gateway: changes fail for a while, and files are renamed.

use std::fs;

use super::{Sender, VOLUMES, receiver};

/// System error numbers on Linux.
const EACCES: &str = "13";
const EBUSY: &str = "16";
const ETXTBSY: &str = "26";

/// A file server rejects the renaming of a file that another program has, or just had, open: Linux
/// reports `EBUSY` for a sharing violation of CIFS, SMB3 filers returned `EACCES` right after
/// another operation (xapi-project/sm 715), and others returned `ETXTBSY` (owncloud/core 14769).
#[test]
fn a_rename_that_fails_for_a_while_is_retried() {
    for number in [EACCES, EBUSY, ETXTBSY] {
        let mut sender = Sender::new();
        let host = receiver(&sender);
        let (files, date) = sender.export(&[]);
        let name = files.keys().next().unwrap().clone();
        // The third attempt succeeds.
        host.put(&files);
        let refuse = format!("rename:{name}:{number},{number}");
        let (ran, report) = host.watch_with(&refuse, &[]);
        ran.good();
        assert_eq!(report["outcomes"][0]["outcome"], "processed", "{report:#}");
        assert_eq!(host.date().map(|date| date[..19].to_owned()), Some(date[..19].to_owned()));
        assert_eq!(host.inbox(), [""; 0]);
        assert!(ran.err.contains(&format!("importing    {name}")), "{ran:#?}");
    }
}

#[test]
fn a_rename_that_always_fails_affects_only_its_bundle_which_stays_complete() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (files, _) = sender.export(&["--volume-size", "48K"]);
    host.put(&files);
    let second = files.keys().find(|name| name.ends_with(".tar.001")).unwrap().clone();
    // There are more failures than retries in one look. Files that were already taken are put back.
    let refuse = format!("rename:{second}:{}", [EACCES; 60].join(","));
    let (ran, report) = host.watch_with(&refuse, &[]);
    assert_eq!(ran.code, 7, "{ran:#?}");
    assert!(report["waiting"][0]["why"].as_str().unwrap().contains(&second), "{report:#}");
    assert!(ran.err.contains("may have the file open"), "{ran:#?}");
    let there: Vec<String> = files.keys().cloned().collect();
    assert_eq!(host.inbox(), there, "all files were put back");
    host.watch(&[]).0.good();
    assert!(host.date().is_some());
}

/// A taken file cannot be put back while another program has it open, such as a virus scanner. The
/// next look puts it back, and the first error is reported.
#[test]
fn files_that_cannot_be_put_back_are_put_back_later() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (files, _) = sender.export(&["--volume-size", "48K"]);
    host.put(&files);
    let names: Vec<String> = files.keys().cloned().collect();
    // The head is taken, the volume after it cannot be taken, and then the head cannot be put back.
    let mut command = host.command();
    command
        .args(host.watch_args(&[]))
        .env("TRIVY_FERRY_TEST_REFUSE", format!("rename:{}:13{}", names[1], ",13".repeat(60)));
    let ran = crate::forge::run(command);
    assert_eq!(ran.code, 7, "{ran:#?}");
    assert_eq!(host.inbox(), names);
    // A directory of taken files is put back when a watch begins, or by a later look of the same
    // watch.
    let own = host.path("inbox/.trivy-ferry/taken-x");
    fs::create_dir(&own).unwrap();
    fs::rename(host.path("inbox").join(&names[0]), own.join(&names[0])).unwrap();
    let (ran, report) = host.watch_with(&format!("rename:{}:16{}", names[0], ",16".repeat(22)), &[]);
    assert!(ran.code == 0 || ran.code == 7, "{ran:#?} {report:#}");
    host.watch(&[]).0.good();
    assert!(host.date().is_some());
    assert_eq!(host.inbox(), [""; 0]);
}

#[test]
fn renamed_volumes_are_imported_when_the_last_has_arrived() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (files, date) = sender.export(&VOLUMES[..2]);
    let renamed = |number: usize| format!("DEFAULT_.{number:03}");
    let contents: Vec<&Vec<u8>> = files.values().collect();
    for (number, bytes) in contents.iter().enumerate().filter(|(number, _)| *number != 2) {
        fs::write(host.path("inbox").join(renamed(number)), bytes).unwrap();
    }
    fs::write(host.path("inbox/notes.txt"), "from the gateway").unwrap();
    let (ran, report) = host.watch(&[]);
    ran.good();
    let written = files.keys().nth(2).unwrap();
    assert!(report["waiting"][0]["why"].as_str().unwrap().contains(written.as_str()), "{report:#}");
    fs::write(host.path("inbox/later"), contents[2]).unwrap();
    let (ran, report) = host.watch(&[]);
    ran.good();
    assert_eq!(report["outcomes"][0]["outcome"], "processed", "{report:#}");
    assert_eq!(host.date().map(|date| date[..19].to_owned()), Some(date[..19].to_owned()));
    assert_eq!(host.inbox(), ["notes.txt"], "other files stay");
}
