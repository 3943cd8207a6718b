//! A VEX repository: its `vex-repository.json` and the archive that it points to. This module makes no requests.
//!
//! The format is that of the VEX Repository Specification 0.1 as Trivy v0.74.0 reads it (`pkg/vex/repo`). A location
//! is the URL of an archive, followed by `//` and the directory in the archive.

use std::collections::BTreeSet;
use std::io::{Read, Seek};

use crate::dataset::check::{Checker, UnpackError, UnpackLimits, bad};
use crate::dataset::layer::{self, plain};
use crate::dataset::tree::{Contents, Discard, RelPath, Sink};
use crate::dataset::zip_archive::{EntryKind, ZipArchive};
use crate::dataset::{Kind, catalogue};
use crate::util::text::escape;

/// The limit for `vex-repository.json` in bytes.
pub const MAX_MANIFEST: u64 = 1 << 20;

/// The format of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// A gzipped tar archive.
    TarGzip,
    /// A zip archive.
    Zip,
}

impl ArchiveFormat {
    /// Returns the format of an archive with these first bytes.
    pub fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(ArchiveFormat::TarGzip),
            [b'P', b'K', 3, 4, ..] => Some(ArchiveFormat::Zip),
            _ => None,
        }
    }

    /// Returns the format for a file name, which is all that Trivy (go-getter) looks at.
    pub fn by_name(name: &str) -> Option<Self> {
        if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
            Some(ArchiveFormat::TarGzip)
        } else if name.ends_with(".zip") {
            Some(ArchiveFormat::Zip)
        } else {
            None
        }
    }

    /// Returns the file name extension by which Trivy recognizes the format.
    pub fn extension(self) -> &'static str {
        match self {
            ArchiveFormat::TarGzip => ".tar.gz",
            ArchiveFormat::Zip => ".zip",
        }
    }

    /// Returns the format of a layer by its media type. Any type other than zip means a gzipped tar archive.
    pub fn by_media_type(media_type: &str) -> Self {
        match media_type {
            catalogue::VEX_ZIP_LAYER => ArchiveFormat::Zip,
            _ => ArchiveFormat::TarGzip,
        }
    }

    /// Returns the media type of a layer in this format.
    pub fn media_type(self) -> &'static str {
        match self {
            ArchiveFormat::TarGzip => catalogue::VEX_TAR_LAYER,
            ArchiveFormat::Zip => catalogue::VEX_ZIP_LAYER,
        }
    }
}

/// Unpacks the files below `subdir` of a VEX archive into `sink`, and returns the description of the content. The
/// sink sees paths relative to `subdir`.
///
/// # Errors
/// [`UnpackError::Content`] if the content is invalid, or there is no index in `subdir`; the text names an index in
/// another directory. [`UnpackError::Read`] if `archive` cannot be read; [`UnpackError::Sink`] if `sink` fails.
pub fn unpack(
    format: ArchiveFormat,
    archive: impl Read + Seek + Send,
    subdir: &str,
    limits: UnpackLimits,
    sink: &mut dyn Sink,
) -> Result<Contents, UnpackError> {
    let mut found = false;
    let mut elsewhere: Option<RelPath> = None;
    let mut place = |path: &RelPath| {
        let below = path.below(subdir);
        if below.as_ref().is_some_and(|path| path.as_str() == "index.json") {
            found = true;
        } else if path.components().last() == Some("index.json") && elsewhere.is_none() {
            elsewhere = Some(path.clone());
        }
        below
    };
    let mut checker = Checker::new(Kind::Vex, limits, sink);
    match format {
        ArchiveFormat::TarGzip => layer::walk(archive, &mut place, &mut checker)?,
        ArchiveFormat::Zip => walk_zip(archive, &mut place, &mut checker)?,
    }
    if found {
        return checker.finish();
    }
    let top = if subdir.is_empty() { "the top of the archive" } else { subdir };
    Err(bad(match elsewhere {
        Some(path) => {
            format!("the location in vex-repository.json points to {top}, but index.json is at {path}")
        }
        None => format!("the archive contains no index.json at {top}"),
    }))
}

/// The directory of a repository in its archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDirectory {
    /// The directory; empty for the top.
    pub path: String,
    /// A clause about a deviation from the location.
    pub remark: Option<String>,
}

/// Finds the directory of an archive that a location names as `subdir`. A pattern such as `*` stands for the only
/// directory that matches, as in Trivy (go-getter), because archives of GitLab have the commit in the name of the
/// directory. If the directory has no index, and exactly one top-level directory has one, that directory is used,
/// because archives of GitHub have the branch in the name, which many locations omit.
///
/// # Errors
/// [`UnpackError::Content`] if a pattern matches no directory or several, or the archive is invalid;
/// [`UnpackError::Read`] if it cannot be read.
pub fn find_directory(
    format: ArchiveFormat,
    archive: impl Read + Seek + Send,
    subdir: &str,
) -> Result<FoundDirectory, UnpackError> {
    /// The limit of directories that are collected: enough to detect that there are several.
    const MOST: usize = 3;
    let depth = subdir.split('/').count();
    let (mut matching, mut indexes) = (BTreeSet::new(), BTreeSet::new());
    let mut is_there = false;
    let mut look = |path: &RelPath| {
        let (directory, name) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
        let mut parts = directory.match_indices('/').map(|(at, _)| &directory[..at]).chain([directory]);
        if let Some(directory) = parts.nth(depth - 1).filter(|directory| !directory.is_empty())
            && matching.len() < MOST
            && matches(subdir, directory)
        {
            matching.insert(directory.to_owned());
        }
        if name == "index.json" {
            is_there |= directory == subdir;
            if indexes.len() < MOST && !directory.contains('/') {
                indexes.insert(directory.to_owned());
            }
        }
        None
    };
    let mut sink = Discard;
    let mut checker = Checker::new(Kind::Vex, UnpackLimits::of(Kind::Vex), &mut sink);
    match format {
        ArchiveFormat::TarGzip => layer::walk(archive, &mut look, &mut checker)?,
        ArchiveFormat::Zip => walk_zip(archive, &mut look, &mut checker)?,
    }
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    if subdir.contains('*') {
        return match (matching.len(), matching.first()) {
            (1, Some(only)) => Ok(FoundDirectory { path: only.clone(), remark: None }),
            (0, _) => Err(bad(format!(
                "its location names the directory {subdir}, but no directory in the archive matches"
            ))),
            _ => Err(bad(format!(
                "its location names the directory {subdir}, but several in the archive match: {}",
                list(&matching)
            ))),
        };
    }
    match (is_there, indexes.len(), indexes.first()) {
        (false, 1, Some(only)) => {
            let wanted = if subdir.is_empty() { "the top of its archive" } else { subdir };
            let place = if only.is_empty() { "the top" } else { only.as_str() };
            let remark = format!(
                "its location points to {}, which has no index.json; the one at {} is used, which Trivy itself would not find",
                escape(wanted),
                escape(place)
            );
            Ok(FoundDirectory { path: only.clone(), remark: Some(remark) })
        }
        _ => Ok(FoundDirectory { path: subdir.to_owned(), remark: None }),
    }
}

/// Whether a path matches a pattern, in which `*` stands for any text without a slash.
fn matches(pattern: &str, path: &str) -> bool {
    let fits = |(pattern, part): (&str, &str)| {
        let mut pieces = pattern.split('*');
        let Some(mut rest) = part.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
        let mut pieces: Vec<&str> = pieces.collect();
        let Some(last) = pieces.pop() else { return rest.is_empty() };
        for piece in pieces {
            match rest.split_once(piece) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    };
    pattern.split('/').count() == path.split('/').count() && pattern.split('/').zip(path.split('/')).all(fits)
}

fn walk_zip(
    archive: impl Read + Seek,
    place: &mut dyn FnMut(&RelPath) -> Option<RelPath>,
    checker: &mut Checker<'_>,
) -> Result<(), UnpackError> {
    let mut archive = ZipArchive::new(archive)?;
    while let Some(entry) = archive.next()? {
        if entry.kind == EntryKind::Directory {
            continue;
        }
        let Some(path) = place(&plain(&entry.name)?) else { continue };
        if entry.kind != EntryKind::File {
            return Err(bad(format!("{path} is a link, but only regular files are accepted")));
        }
        checker.begin(path, entry.size)?;
        archive.read(&entry, &mut |bytes| checker.data(bytes))?;
        checker.end()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const ARCHIVE: &[u8] = include_bytes!("../../fixtures/sample/vex-hub/main.tar.gz");

    fn check(subdir: &str) -> Result<Contents, String> {
        unpack(
            ArchiveFormat::TarGzip,
            Cursor::new(ARCHIVE),
            subdir,
            UnpackLimits::of(Kind::Vex),
            &mut Discard,
        )
        .map_err(|e| e.to_string())
    }

    #[test]
    fn the_index_is_found_where_the_location_points() {
        let contents = check("vexhub-main").unwrap();
        assert!(contents.tree.unwrap().files >= 2);
        let error = check("").unwrap_err();
        assert!(error.contains("but index.json is at vexhub-main/index.json"), "{error}");
        assert!(check("vexhub").unwrap_err().contains("points to vexhub,"));
    }

    fn archive(paths: &[&str]) -> Vec<u8> {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        for path in paths {
            let mut header = tar::Header::new_ustar();
            header.set_size(1);
            tar.append_data(&mut header, path, &b"x"[..]).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    fn find(paths: &[&str], subdir: &str) -> Result<FoundDirectory, String> {
        find_directory(ArchiveFormat::TarGzip, Cursor::new(archive(paths)), subdir).map_err(|e| e.to_string())
    }

    /// Archives of GitLab have the commit in the name of the directory, for which go-getter accepts `//*` (Trivy pull
    /// request 7206, VEX repositories). Archives of GitHub have the branch, which naward-cs/custom-vex-repo and Trivy's
    /// page about self-hosting omit (Trivy pull request 7732).
    #[test]
    fn the_directory_that_a_location_means_is_found() {
        let gitlab = ["vex-main-0a1b2c/index.json", "vex-main-0a1b2c/pkg/a.json"];
        for pattern in ["*", "vex-*", "*-main-*", "vex-main-0a1b2c"] {
            let found = find(&gitlab, pattern).unwrap();
            assert_eq!((found.path.as_str(), &found.remark), ("vex-main-0a1b2c", &None), "{pattern}");
        }
        assert_eq!(find(&["a/b/0.1/index.json"], "*/b/*").unwrap().path, "a/b/0.1");
        for (paths, pattern, word) in [
            (&gitlab[..], "x*", "no directory in the archive matches"),
            (&["a/index.json", "b/index.json"], "*", "several in the archive match: a, b"),
            (&["index.json"], "*", "no directory in the archive matches"),
        ] {
            assert!(find(paths, pattern).unwrap_err().contains(word), "{pattern}");
        }
        for (paths, subdir, wanted) in [
            (&["custom-vex-repo-main/index.json"][..], "custom-vex-repo", "custom-vex-repo-main"),
            (&["vex-main/index.json", "vex-main/pkg/a/index.json"], "", "vex-main"),
            (&["index.json", "pkg/a.json"], "vex-main", ""),
        ] {
            let found = find(paths, subdir).unwrap();
            assert_eq!(found.path, wanted);
            assert!(found.remark.unwrap().contains("which Trivy itself would not find"));
        }
        // With two candidates, the location stays as it is.
        assert_eq!(find(&["a/index.json", "b/index.json"], "c").unwrap().path, "c");
        assert_eq!(find(&["a/index.json", "b/index.json"], "b").unwrap().remark, None);
    }

    #[test]
    fn a_zip_archive_has_the_same_tree() {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(ARCHIVE));
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.header().entry_type().is_file() {
                let options = zip::write::SimpleFileOptions::default();
                zip.start_file(entry.path().unwrap().to_str().unwrap(), options).unwrap();
                std::io::copy(&mut entry, &mut zip).unwrap();
            }
        }
        let packed = zip.finish().unwrap().into_inner();
        assert_eq!(ArchiveFormat::of(&packed), Some(ArchiveFormat::Zip));
        let limits = UnpackLimits::of(Kind::Vex);
        let zipped = unpack(ArchiveFormat::Zip, Cursor::new(&packed), "vexhub-main", limits, &mut Discard);
        assert_eq!(zipped.unwrap(), check("vexhub-main").unwrap());
        let cut = Cursor::new(&packed[..packed.len() - 30]);
        assert!(unpack(ArchiveFormat::Zip, cut, "vexhub-main", limits, &mut Discard).is_err());
    }
}
