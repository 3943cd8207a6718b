//! Tests of directories that are used through descriptors only.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::util::dir::write::{Durability, PendingFile};

#[test]
fn no_name_leads_out_of_a_directory() {
    let top = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(top.path().join("in/deep")).unwrap();
    std::fs::write(top.path().join("out"), "out").unwrap();
    let dir = Dir::top(&top.path().join("in")).unwrap();
    let root = OsStr::from_bytes(b"/etc");
    for bad in ["", ".", "..", "../out", "deep/..", "/", "deep/x"].map(OsStr::new).into_iter().chain([root]) {
        let invalid = |error: io::Error| assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        invalid(dir.open(bad).unwrap_err());
        invalid(dir.find(bad).unwrap_err());
        invalid(dir.open_file(bad).unwrap_err());
        invalid(dir.append(bad, 0o600).unwrap_err());
        invalid(dir.create(bad, 0o600, None).unwrap_err());
        invalid(dir.make(bad, 0o700, None).unwrap_err());
        invalid(dir.remove(bad).unwrap_err());
        invalid(dir.remove_empty(bad).unwrap_err());
        invalid(dir.rename(bad, &dir, "new").unwrap_err());
        invalid(dir.rename("deep", &dir, bad).unwrap_err());
        invalid(dir.exchange(bad, &dir, "deep").unwrap_err());
        invalid(dir.exchange("deep", &dir, bad).unwrap_err());
        invalid(dir.link(bad, &dir, "new").unwrap_err());
        invalid(dir.link("deep", &dir, bad).unwrap_err());
        invalid(dir.mount_of(bad).unwrap_err());
    }
    for bad in ["..", "deep/../..", "/deep", "deep//", "./deep"] {
        assert_eq!(dir.open_path(bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        let made = dir.open_or_make_path(bad, None).unwrap_err();
        assert_eq!(made.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
    }
    assert!(dir.open_path("deep").unwrap().is_some() && dir.open_path("").unwrap().is_some());
    assert_eq!(dir.list().unwrap(), ["deep"]);
}

#[test]
fn a_link_in_a_directory_that_is_writable_by_others_is_not_followed() {
    let top = tempfile::tempdir().unwrap();
    std::fs::create_dir(top.path().join("elsewhere")).unwrap();
    std::fs::create_dir(top.path().join("shared")).unwrap();
    symlink("../elsewhere", top.path().join("shared/link")).unwrap();
    let open = |mode| {
        std::fs::set_permissions(top.path().join("shared"), Permissions::from_mode(mode)).unwrap();
        Dir::top(&top.path().join("shared/link")).map(|dir| dir.path().to_path_buf())
    };
    assert_eq!(open(0o755).unwrap(), top.path().join("elsewhere"));
    assert_eq!(open(0o1777).unwrap(), top.path().join("elsewhere"));
    assert_eq!(Errno::from_io_error(&open(0o777).unwrap_err()), Some(Errno::LOOP));
}

fn names(dir: &Dir) -> Vec<OsString> {
    dir.list().unwrap()
}

#[test]
fn a_pending_file_gets_its_name_or_is_gone() {
    let top = tempfile::tempdir().unwrap();
    let dir = Dir::by_path(top.path()).unwrap();
    let begin = || {
        let mut file = PendingFile::create(&dir, ".a.partial", 0o666, None).unwrap();
        file.write_all(b"new").unwrap();
        file
    };
    drop(begin());
    assert!(names(&dir).is_empty());
    begin().put_new("a", Durability::Synced).unwrap();
    assert_eq!(dir.find("a").unwrap().unwrap().mode, 0o666, "whatever the umask is");
    let error = begin().put_new("a", Durability::Unsynced).unwrap_err();
    assert_eq!((error.kind(), names(&dir)), (io::ErrorKind::AlreadyExists, vec!["a".into()]));
    begin().replace("a", Durability::Unsynced).unwrap();
    assert_eq!(names(&dir), ["a"]);
    // A leftover file of a killed process is replaced, but not a directory.
    std::fs::write(top.path().join(".a.partial"), "left").unwrap();
    begin().replace("a", Durability::Synced).unwrap();
    assert_eq!((names(&dir), dir.read_small("a", 9).unwrap()), (vec!["a".into()], Some(b"new".to_vec())));
    std::fs::create_dir_all(top.path().join(".a.partial/kept")).unwrap();
    let error = PendingFile::create(&dir, ".a.partial", 0o600, None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    assert!(top.path().join(".a.partial/kept").exists());
}

#[test]
fn a_file_is_replaced_in_one_step_whatever_has_its_name() {
    let top = tempfile::tempdir().unwrap();
    let dir = Dir::by_path(top.path()).unwrap();
    std::fs::write(top.path().join("elsewhere"), "kept").unwrap();
    symlink("elsewhere", top.path().join("a")).unwrap();
    crate::util::fault::trace();
    dir.replace("a", b"new", 0o640, None, Durability::Synced).unwrap();
    assert_eq!(
        crate::util::fault::trace(),
        ["create a.trivy-ferry.tmp", "write a.trivy-ferry.tmp", "rename a"]
    );
    let entry = dir.find("a").unwrap().unwrap();
    assert!(entry.is_file() && entry.mode == 0o640);
    assert_eq!(std::fs::read(top.path().join("elsewhere")).unwrap(), b"kept");
    dir.make("b", 0o700, None).unwrap();
    assert!(dir.replace("b", b"new", 0o640, None, Durability::Unsynced).is_err());
    assert_eq!(names(&dir), ["a", "b", "elsewhere"], "nothing temporary is left");
}

#[test]
fn a_new_file_is_never_written_over_another() {
    let top = tempfile::tempdir().unwrap();
    let dir = Dir::by_path(top.path()).unwrap();
    dir.write_new("a", b"first", 0o600, Durability::Synced).unwrap();
    symlink("nowhere", top.path().join("link")).unwrap();
    for name in ["a", "link"] {
        let error = dir.write_new(name, b"second", 0o600, Durability::Unsynced).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}");
    }
    assert_eq!(names(&dir), ["a", "link"]);
    assert_eq!(dir.read_small("a", 9).unwrap(), Some(b"first".to_vec()));
    // The file has its final name from the beginning, so a killed run leaves it there.
    crate::util::fault::kill_after(Some(1));
    assert!(dir.write_new("b", b"third", 0o600, Durability::Synced).is_err());
    crate::util::fault::kill_after(None);
    assert_eq!(dir.read_small("b", 9).unwrap(), Some(Vec::new()));
}

/// Imports into several caches may write the same settings file. Each has its own state, so there is no common lock.
#[test]
fn runs_that_replace_one_file_at_the_same_time_do_not_disturb_each_other() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("settings");
    let texts: Vec<Vec<u8>> = (0..4_u8).map(|number| vec![b'a' + number; 100_000]).collect();
    let replace = |text: &[u8]| {
        let dir = Dir::top(top.path()).unwrap();
        dir.replace_beside_others("settings", text, FileMode::Exactly(0o644), None, Durability::Unsynced)
    };
    replace(&texts[0]).unwrap();
    std::thread::scope(|scope| {
        for text in &texts {
            scope.spawn(|| (0..25).for_each(|_| replace(text).unwrap()));
        }
        for _ in 0..200 {
            let read = std::fs::read(&path).unwrap();
            assert!(texts.contains(&read), "a file of {} bytes is incomplete", read.len());
        }
    });
    assert_eq!(names(&Dir::top(top.path()).unwrap()), ["settings"]);
    // The leftover file of a killed run is replaced after a while.
    std::fs::write(top.path().join("settings.trivy-ferry.tmp"), "left").unwrap();
    replace(&texts[1]).unwrap();
    assert_eq!(names(&Dir::top(top.path()).unwrap()), ["settings"]);
    std::fs::create_dir(top.path().join("settings.trivy-ferry.tmp")).unwrap();
    assert_eq!(replace(&texts[1]).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}
