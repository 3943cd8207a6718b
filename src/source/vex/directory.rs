//! VEX repositories in a directory: `vex-repository.json` beside the archive, or beside the files of the
//! repository. This module packs such files, so that every repository is an archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use flate2::{Compression, GzBuilder};
use tempfile::SpooledTempFile;
use walkdir::WalkDir;

use crate::dataset::catalogue::VEX_SPEC;
use crate::dataset::check::{MAX_NAMES, UnpackLimits};
use crate::dataset::vex::ArchiveFormat;
use crate::dataset::{Kind, RelPath};
use crate::source::error::SourceError;
use crate::source::files;
use crate::source::vex::place::{Location, MANIFEST};
use crate::source::vex::{self, Spooled, VexRepository};
use crate::util::text::escape_line;

/// Reads a repository from a directory.
pub(in crate::source) fn read(directory: &Path, most: u64) -> Result<VexRepository, SourceError> {
    // The source of a bundle must not contain control characters.
    let source = escape_line(&directory.display().to_string());
    if let Err(error) = std::fs::read_dir(directory) {
        return Err(SourceError::Local { path: directory.into(), error });
    }
    let unusable = |why: &str, hint: &str| SourceError::Vex {
        repository: source.clone(),
        why: why.into(),
        hint: hint.into(),
    };
    if std::fs::symlink_metadata(directory.join(MANIFEST)).is_err() {
        return Err(unusable(
            &format!("it has no {MANIFEST}"),
            "Put the repository's own vex-repository.json beside the archive.",
        ));
    }
    let manifest_json = files::read(directory, &[MANIFEST], crate::dataset::vex::MAX_MANIFEST)?;
    let places: Vec<Location> = vex::locations(&source, &manifest_json)?
        .iter()
        .filter_map(|location| Location::parse(location).ok())
        .collect();
    let archives = archives(directory)?;
    let top = [VEX_SPEC, ""].into_iter().find(|top| directory.join(top).join("index.json").is_file());
    match (archives.as_slice(), top) {
        ([name], None) => {
            // The same archive may have several names, each with its own directory inside.
            let place = places.iter().find(|place| place.name == *name).or(places.first());
            let subdir = place.map_or_else(String::new, |place| place.subdir.clone());
            beside(directory, name, source, manifest_json, subdir, most)
        }
        ([], Some(top)) => packed(directory, top, source, manifest_json, places.first(), most),
        ([], None) => Err(unusable(
            "it has neither an archive nor an index.json",
            "Put the repository's archive (.tar.gz, .tgz or .zip) or its unpacked files beside vex-repository.json.",
        )),
        ([_], Some(_)) => Err(unusable(
            "it has both an archive and unpacked files",
            "Leave only one of the two beside vex-repository.json.",
        )),
        (several, _) => Err(unusable(
            &format!("it has several archives: {}", crate::util::text::escape(&several.join(", "))),
            "Leave only the archive that belongs to vex-repository.json.",
        )),
    }
}

/// The names of the archives in a directory, sorted.
fn archives(directory: &Path) -> Result<Vec<String>, SourceError> {
    let local = |error| SourceError::Local { path: directory.into(), error };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(local)? {
        let entry = entry.map_err(local)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        // File managers leave files that begin with a dot.
        if !name.starts_with('.') && !directory && ArchiveFormat::by_name(&name).is_some() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn beside(
    directory: &Path,
    name: &str,
    source: String,
    manifest_json: Vec<u8>,
    subdir: String,
    most: u64,
) -> Result<VexRepository, SourceError> {
    let (mut file, _) = files::open(directory, &[name])?;
    let path = directory.join(name);
    let mut pieces = || {
        let mut piece = Vec::new();
        match (&mut file).take(256 << 10).read_to_end(&mut piece) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(piece.into())),
            Err(error) => Err(SourceError::Local { path: path.clone(), error }),
        }
    };
    let spooled = vex::spool(&path.display().to_string(), name, most, &source, &mut pieces)?;
    let archive_name = vex::plain_name(name, spooled.format);
    Ok(repository(spooled, source, manifest_json, archive_name, subdir))
}

fn repository(
    spooled: Spooled,
    source: String,
    manifest_json: Vec<u8>,
    archive_name: String,
    subdir: String,
) -> VexRepository {
    let Spooled { file, size, digest, format } = spooled;
    VexRepository {
        source,
        manifest_json,
        archive: file,
        archive_size: size,
        archive_digest: digest,
        archive_name,
        format,
        subdir,
    }
}

/// Packs unpacked files. The archive depends on the names and bytes of the files only, so the same content
/// always has the same digest. Its directory is the one in the first location of the manifest, so that the
/// manifest stays valid.
fn packed(
    directory: &Path,
    top: &str,
    source: String,
    manifest_json: Vec<u8>,
    place: Option<&Location>,
    most: u64,
) -> Result<VexRepository, SourceError> {
    let local = |error| SourceError::Temporary { directory: std::env::temp_dir(), error };
    // A pattern names no specific directory, so the files are packed at the top.
    let subdir = place.map_or("", |place| place.subdir.as_str());
    let subdir = if subdir.contains('*') { "" } else { subdir };
    let files = list(directory, top, &source)?;
    let spool = SpooledTempFile::new(vex::IN_MEMORY);
    let gzip = GzBuilder::new().mtime(0).write(spool, Compression::default());
    let mut tar = tar::Builder::new(gzip);
    for (path, size) in &files {
        let from: Vec<&str> =
            [top].into_iter().filter(|top| !top.is_empty()).chain(path.components()).collect();
        let (file, length) = files::open(directory, &from)?;
        let to = if subdir.is_empty() { path.to_string() } else { format!("{subdir}/{path}") };
        let changed = || SourceError::Local {
            path: directory.join(from.join("/")),
            error: std::io::Error::other("it changed while it was read"),
        };
        if length != *size {
            return Err(changed());
        }
        append(&mut tar, &to, file, *size, &changed)?;
    }
    let mut file = tar.into_inner().and_then(|gzip| gzip.finish()).map_err(local)?;
    file.seek(SeekFrom::Start(0)).map_err(local)?;
    let (digest, size) = crate::digest::digest_of(&mut file).map_err(local)?;
    file.seek(SeekFrom::Start(0)).map_err(local)?;
    if size > most {
        return Err(SourceError::TooLarge { subject: source, most });
    }
    let name = place.map_or("", |place| place.name.as_str());
    let stem =
        [".tar.gz", ".tgz", ".zip"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or("repository");
    let archive_name = vex::plain_name(&format!("{stem}.tar.gz"), ArchiveFormat::TarGzip);
    let spooled = Spooled { file, size, digest, format: ArchiveFormat::TarGzip };
    Ok(repository(spooled, source, manifest_json, archive_name, subdir.to_owned()))
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    path: &str,
    file: File,
    size: u64,
    changed: &dyn Fn() -> SourceError,
) -> Result<(), SourceError> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    let mut counted = Counted { inner: file.take(size), read: 0 };
    tar.append_data(&mut header, path, &mut counted)
        .map_err(|error| SourceError::Local { path: path.into(), error })?;
    if counted.read == size { Ok(()) } else { Err(changed()) }
}

struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(out)?;
        self.read += length as u64;
        Ok(length)
    }
}

/// The regular files below `directory/top` with their lengths, sorted by path. Names that begin with a dot at
/// the top (`.git`) and the manifest, which is carried beside the archive, are not part of a repository.
/// Anything that is neither a file nor a directory is rejected: if it were skipped, it would be missing only
/// at the destination.
fn list(directory: &Path, top: &str, source: &str) -> Result<BTreeMap<RelPath, u64>, SourceError> {
    let root = directory.join(top);
    let refuse = |path: &Path, why: &str| SourceError::Vex {
        repository: source.to_owned(),
        why: format!("{} {why}", path.display()),
        hint: "Put a plain copy of the repository there, with regular files and directories only.".into(),
    };
    let mut files = BTreeMap::new();
    let mut total = 0u64;
    let (mut names, most_files) = (0, UnpackLimits::of(Kind::Vex).files);
    let hidden = |entry: &walkdir::DirEntry| {
        entry.depth() == 1
            && (entry.file_name().to_string_lossy().starts_with('.') || entry.file_name() == MANIFEST)
    };
    for entry in WalkDir::new(&root).into_iter().filter_entry(|entry| !hidden(entry)) {
        let entry = entry.map_err(|error| SourceError::Local { path: root.clone(), error: error.into() })?;
        if entry.file_type().is_dir() {
            continue;
        }
        if !entry.file_type().is_file() {
            return Err(refuse(entry.path(), "is neither a file nor a directory"));
        }
        let path = entry.path().strip_prefix(&root).ok().and_then(Path::to_str);
        let path = path.and_then(|path| path.parse::<RelPath>().ok());
        let path = path.ok_or_else(|| refuse(entry.path(), "has a name that cannot be carried"))?;
        let data = entry
            .metadata()
            .map_err(|error| SourceError::Local { path: entry.path().into(), error: error.into() })?;
        total = total.saturating_add(data.len());
        if total > Kind::Vex.max_unpacked() {
            return Err(SourceError::TooLarge { subject: source.to_owned(), most: Kind::Vex.max_unpacked() });
        }
        names += path.as_str().len() as u64;
        if names > MAX_NAMES || files.len() as u64 >= most_files {
            let why =
                format!("holds more than {most_files} files, or more than {MAX_NAMES} bytes of file names");
            return Err(refuse(&root, &why));
        }
        files.insert(path, data.len());
    }
    Ok(files)
}
