//! A VEX repository: its `vex-repository.json` and the archive that it points to.
//!
//! The format is that of the VEX Repository Specification 0.1 as Trivy v0.74.0 reads it (pkg/vex/repo): a
//! location is the URL of an archive, with the directory inside after a `//`.

use std::io::{Read, Seek};

use crate::dataset::check::{Checker, UnpackError, UnpackLimits, bad};
use crate::dataset::layer::{self, plain};
use crate::dataset::tree::{Contents, RelPath, Sink};
use crate::dataset::zip_archive::{EntryKind, ZipArchive};
use crate::dataset::{Kind, catalogue};

/// The largest `vex-repository.json` that is read, in bytes.
pub const MAX_MANIFEST: u64 = 1 << 20;

/// The forms in which an archive may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// A gzipped tar archive.
    TarGzip,
    /// A zip archive.
    Zip,
}

impl ArchiveFormat {
    /// The form that the first bytes show.
    pub fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(ArchiveFormat::TarGzip),
            [b'P', b'K', 3, 4, ..] => Some(ArchiveFormat::Zip),
            _ => None,
        }
    }

    /// The form that a file's name promises. Trivy (go-getter) goes by the name alone.
    pub fn by_name(name: &str) -> Option<Self> {
        if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
            Some(ArchiveFormat::TarGzip)
        } else if name.ends_with(".zip") {
            Some(ArchiveFormat::Zip)
        } else {
            None
        }
    }

    /// How a file in this form is named, so that Trivy unpacks it.
    pub fn extension(self) -> &'static str {
        match self {
            ArchiveFormat::TarGzip => ".tar.gz",
            ArchiveFormat::Zip => ".zip",
        }
    }

    /// The form of a layer by its media type; everything that is no zip is a gzipped tar archive.
    pub fn by_media_type(media_type: &str) -> Self {
        match media_type {
            catalogue::VEX_ZIP_LAYER => ArchiveFormat::Zip,
            _ => ArchiveFormat::TarGzip,
        }
    }

    /// The media type of a layer in this form.
    pub fn media_type(self) -> &'static str {
        match self {
            ArchiveFormat::TarGzip => catalogue::VEX_TAR_LAYER,
            ArchiveFormat::Zip => catalogue::VEX_ZIP_LAYER,
        }
    }
}

/// Unpacks what stands below `subdir` in a VEX archive into `sink`, and says what it held.
/// The paths that the sink sees are relative to `subdir`.
///
/// # Errors
/// [`UnpackError::Content`] if the content is bad, or there is no index in `subdir`; it names the index if
/// that is in another directory. [`UnpackError::Read`] if `archive` cannot be read; [`UnpackError::Sink`]
/// if `sink` fails.
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
    let top = if subdir.is_empty() { "the archive's top" } else { subdir };
    Err(bad(match elsewhere {
        Some(path) => format!(
            "index.json should be at {top}, where the location in vex-repository.json points, and is at {path}"
        ),
        None => format!("the archive holds no index.json at {top}"),
    }))
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
            return Err(bad(format!("{path} is a link, and only plain files are taken")));
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
    use crate::dataset::tree::Discard;

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
        assert!(error.contains("is at vexhub-main/index.json"), "{error}");
        assert!(check("vexhub").unwrap_err().contains("should be at vexhub"));
    }

    #[test]
    fn a_zip_gives_the_same_tree() {
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
