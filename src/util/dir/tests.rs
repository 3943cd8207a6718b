//! Tests of directories that are reached through descriptors only.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

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
        invalid(dir.read(bad).unwrap_err());
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
fn a_link_in_a_directory_that_others_write_is_not_followed() {
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
