//! A layer: the gzipped tar archive of a dataset.
//!
//! Reads it from any reader and hands the regular files to the `Checker`, which checks them and passes them
//! on to the [`Sink`]. Archives may be hostile: every size is limited before it is used, and only regular
//! files with plain names are accepted.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use tar::EntryType;

use crate::dataset::Kind;
use crate::dataset::check::{Checker, UnpackError, UnpackLimits, bad};
use crate::dataset::tree::{Contents, RelPath, Sink};

pub(crate) use crate::util::pipe::CHUNK;
use crate::util::pipe::{PipeReader, pipe};

/// The most that an extension header (a long name, pax records) may hold, in bytes.
const MAX_EXTENSION: u64 = 64 << 10;
/// The most that may follow an archive's last file as padding, in bytes. GNU tar fills up to
/// 10 KiB.
const MAX_PADDING: u64 = 64 << 10;
/// The most headers that are looked at, folders and extensions included.
const MAX_HEADERS: u64 = 400_000;

/// Unpacks a layer of one of the three OCI artifacts into `sink`, and says what it held.
///
/// `packed` is read to its end; a reader that checks a digest gets to see the whole of it.
///
/// # Errors
/// [`UnpackError::Content`] if the content is bad; [`UnpackError::Read`] if `packed` cannot be read;
/// [`UnpackError::Sink`] if `sink` fails.
pub fn unpack(
    kind: Kind,
    packed: impl Read + Send,
    limits: UnpackLimits,
    sink: &mut dyn Sink,
) -> Result<Contents, UnpackError> {
    let mut checker = Checker::new(kind, limits, sink);
    walk(packed, &mut |path| Some(path.clone()), &mut checker)?;
    checker.finish()
}

/// Walks a gzipped tar archive. `place` says under which path a file goes on, or `None` to leave it
/// out.
///
/// Inflating has a thread of its own: it takes about as long as hashing and writing what comes out.
pub(super) fn walk(
    packed: impl Read + Send,
    place: &mut dyn FnMut(&RelPath) -> Option<RelPath>,
    checker: &mut Checker<'_>,
) -> Result<(), UnpackError> {
    let (writer, inflated) = pipe();
    std::thread::scope(|scope| {
        scope.spawn(|| writer.drain(MultiGzDecoder::new(BufReader::with_capacity(CHUNK, packed))));
        walk_tar(inflated, place, checker)
    })
}

fn walk_tar(
    inflated: PipeReader,
    place: &mut dyn FnMut(&RelPath) -> Option<RelPath>,
    checker: &mut Checker<'_>,
) -> Result<(), UnpackError> {
    let mut archive = tar::Archive::new(inflated);
    let mut long_name = None;
    let mut headers = 0;
    let mut buffer = vec![0; CHUNK];
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        headers += 1;
        if headers > MAX_HEADERS {
            return Err(bad("the archive holds too many entries"));
        }
        let kind = entry.header().entry_type();
        let size = entry.header().entry_size().map_err(broken)?;
        match kind {
            EntryType::GNULongName => {
                let name = extension(&mut entry)?;
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                long_name = Some(name[..end].to_vec());
            }
            EntryType::XHeader => {
                let records = extension(&mut entry)?;
                if let Some(path) = pax_path(&records)? {
                    long_name = Some(path);
                }
            }
            // A comment for the whole archive, as `git archive` writes it.
            EntryType::XGlobalHeader => drop(extension(&mut entry)?),
            // Nothing reads what such an entry holds, but to pass over it is to inflate it.
            EntryType::Directory | EntryType::Symlink | EntryType::Link if size > 0 => {
                return Err(bad(format!("an entry that is no file claims {size} bytes")));
            }
            EntryType::Directory => long_name = None,
            EntryType::Regular => {
                let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
                let path = plain(&name)?;
                match place(&path) {
                    None => checker.skip(&path, size)?,
                    Some(path) if checker.is_appledouble(&path) => checker.skip_appledouble(&path, size)?,
                    Some(path) => {
                        checker.begin(path, size)?;
                        copy(&mut entry, &mut buffer, checker)?;
                        checker.end()?;
                    }
                }
            }
            // Links and devices are never followed or made. A repository of VEX documents may
            // hold a link beside its documents; what the index names must be a file all the same.
            EntryType::Symlink | EntryType::Link => {
                let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
                if place(&plain(&name)?).is_some() {
                    return Err(bad(format!("{} is a link, and only plain files are taken", plain(&name)?)));
                }
            }
            other => {
                return Err(bad(format!(
                    "the archive holds an entry of type {:?}",
                    char::from(other.as_byte())
                )));
            }
        }
    }
    padding(archive.into_inner())
}

/// Hands the content of a file to the checker.
fn copy(file: &mut impl Read, buffer: &mut [u8], checker: &mut Checker<'_>) -> Result<(), UnpackError> {
    loop {
        let count = file.read(buffer).map_err(broken)?;
        if count == 0 {
            return Ok(());
        }
        checker.data(&buffer[..count])?;
    }
}

/// What a reader's error says about the archive: damage is the content's fault, the rest is not.
fn broken(error: io::Error) -> UnpackError {
    match error.kind() {
        // The inflater and the tar reader report damage by these kinds; a wrapped error of the
        // source keeps its own.
        io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::Other
            if error.get_ref().is_none_or(|inner| !inner.is::<crate::util::pipe::WriterGaveUp>()) =>
        {
            bad(format!("it is not a whole gzipped tar archive ({error})"))
        }
        _ => UnpackError::Read(error),
    }
}

fn extension(entry: &mut impl Read) -> Result<Vec<u8>, UnpackError> {
    let mut bytes = Vec::new();
    entry.take(MAX_EXTENSION + 1).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() as u64 > MAX_EXTENSION {
        return Err(bad("an extension header of the archive is too long"));
    }
    Ok(bytes)
}

/// The `path` among pax records (POSIX.1-2001, "pax Extended Header"). A size that differs from
/// the header's is refused: it only serves files of 8 GiB and more.
fn pax_path(records: &[u8]) -> Result<Option<Vec<u8>>, UnpackError> {
    let mut path = None;
    for record in tar::PaxExtensions::new(records) {
        let record = record.map_err(broken)?;
        match record.key_bytes() {
            b"path" => path = Some(record.value_bytes().to_vec()),
            b"size" | b"linkpath" => return Err(bad("the archive uses pax records that are not supported")),
            name if name.starts_with(b"GNU.sparse") => return Err(bad("the archive holds a sparse file")),
            _ => {}
        }
    }
    Ok(path)
}

/// A name from an archive as a plain path; a leading `./` is what `tar -C dir .` writes.
pub(super) fn plain(name: &[u8]) -> Result<RelPath, UnpackError> {
    let text = std::str::from_utf8(name).ok().map(|text| text.strip_prefix("./").unwrap_or(text));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        bad(format!("the archive holds a file with an unsafe name: {:?}", String::from_utf8_lossy(name)))
    })
}

/// Reads to the end, which makes the inflater compare its checksum; only zeros may come.
fn padding(mut rest: impl Read) -> Result<(), UnpackError> {
    let mut buffer = vec![0; 4096];
    let mut seen = 0;
    loop {
        let count = rest.read(&mut buffer).map_err(broken)?;
        seen += count as u64;
        if count == 0 {
            return Ok(());
        }
        if seen > MAX_PADDING || buffer[..count].iter().any(|byte| *byte != 0) {
            return Err(bad("bytes follow the end of the archive"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;
    use crate::dataset::tree::Discard;
    use crate::dataset::{bolt, sqlite};

    const METADATA: &str = r#"{"Version":2,"NextUpdate":"2026-01-16T06:00:00.5Z","UpdatedAt":"2026-01-15T06:00:00.25Z","DownloadedAt":"0001-01-01T00:00:00Z"}"#;

    struct Archive(tar::Builder<GzEncoder<Vec<u8>>>);

    impl Archive {
        fn new() -> Self {
            Archive(tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast())))
        }

        fn file(self, name: &str, bytes: &[u8]) -> Self {
            self.entry(EntryType::Regular, name.as_bytes(), bytes)
        }

        fn entry(mut self, kind: EntryType, name: &[u8], bytes: &[u8]) -> Self {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_size(bytes.len() as u64);
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
            header.set_cksum();
            self.0.append(&header, bytes).unwrap();
            self
        }

        fn pack(self) -> Vec<u8> {
            self.0.into_inner().unwrap().finish().unwrap()
        }
    }

    fn db() -> Archive {
        Archive::new().file("trivy.db", &bolt::tests::database(4)).file("metadata.json", METADATA.as_bytes())
    }

    fn check(kind: Kind, packed: &[u8]) -> Result<Contents, String> {
        unpack(kind, packed, UnpackLimits::of(kind), &mut Discard).map_err(|e| e.to_string())
    }

    #[track_caller]
    fn rejected(kind: Kind, packed: &[u8], because: &str) {
        let error = check(kind, packed).unwrap_err();
        assert!(error.contains(because), "{error}");
    }

    #[test]
    fn a_good_database_is_described() {
        let contents = check(Kind::TrivyDb, &db().pack()).unwrap();
        assert_eq!(contents.schema, Some(2));
        assert_eq!(contents.updated_at, Some("2026-01-15T06:00:00.25Z".parse().unwrap()));
        let names: Vec<_> = contents.files.iter().map(|file| (file.path.as_str(), file.size)).collect();
        assert_eq!(names, [("metadata.json", METADATA.len() as u64), ("trivy.db", 16384)]);
    }

    #[test]
    fn a_database_is_exactly_its_two_files() {
        rejected(Kind::TrivyDb, &db().file("more", b"x").pack(), "does not belong there");
        rejected(Kind::TrivyDb, &db().file("metadata.json", b"{}").pack(), "twice");
        rejected(
            Kind::TrivyDb,
            &Archive::new().file("metadata.json", METADATA.as_bytes()).pack(),
            "no trivy.db",
        );
        rejected(Kind::TrivyJavaDb, &db().pack(), "does not belong there");
    }

    /// What bsdtar of macOS makes of files with extended attributes: `._NAME` before each, and pax records. `tar -t`
    /// does not show them there (Osmantic/ODS pull requests 5765 and 6159, libarchive issue 900).
    #[test]
    fn what_macos_adds_to_an_archive_is_skipped_and_said() {
        struct Skipped(Vec<String>);
        impl Sink for Skipped {
            fn begin(&mut self, _: &RelPath, _: u64) -> io::Result<()> {
                Ok(())
            }
            fn data(&mut self, _: &[u8]) -> io::Result<()> {
                Ok(())
            }
            fn end(&mut self) -> io::Result<()> {
                Ok(())
            }
            fn skipped(&mut self, path: &RelPath) {
                self.0.push(path.to_string());
            }
        }
        let record = |key: &str, value: &str| {
            let length = key.len() + value.len() + 3;
            let digits = (length + 2).to_string().len();
            format!("{} {key}={value}\n", length + digits)
        };
        let pax = [
            record("LIBARCHIVE.xattr.com.apple.provenance", "AQIA"),
            record("SCHILY.xattr.com.apple.provenance", "x"),
        ];
        let apple = Archive::new()
            .file("./._trivy.db", b"\0\x05\x16\x07")
            .entry(EntryType::XHeader, b"PaxHeader/trivy.db", pax.concat().as_bytes())
            .file("./trivy.db", &bolt::tests::database(4))
            .file("._metadata.json", b"\0\x05\x16\x07")
            .file("metadata.json", METADATA.as_bytes())
            .pack();
        let mut sink = Skipped(Vec::new());
        let found = unpack(Kind::TrivyDb, &apple[..], UnpackLimits::of(Kind::TrivyDb), &mut sink).unwrap();
        assert_eq!(sink.0, ["._trivy.db", "._metadata.json"]);
        // The content is that of an archive without them.
        assert_eq!(found.difference(&check(Kind::TrivyDb, &db().pack()).unwrap()), None);
        // They stand for nothing.
        let alone = Archive::new().file("._trivy.db", b"x").file("metadata.json", METADATA.as_bytes());
        rejected(Kind::TrivyDb, &alone.pack(), "no trivy.db");
        rejected(Kind::TrivyDb, &db().file("._", b"x").pack(), "does not belong there");
        // In a tree they are files as any other, as they always were.
        let tree = Archive::new()
            .file("policies/a/lib/x.rego", b"package x")
            .file("policies/a/y.rego", b"package y")
            .file("policies/a/._y.rego", b"x");
        assert_eq!(check(Kind::TrivyChecks, &tree.pack()).unwrap().tree.unwrap().files, 3);
    }

    #[test]
    fn schema_and_dates_are_checked() {
        let with = |json: &str| {
            Archive::new()
                .file("trivy.db", &bolt::tests::database(4))
                .file("metadata.json", json.as_bytes())
                .pack()
        };
        rejected(
            Kind::TrivyDb,
            &with(&METADATA.replace("\"Version\":2", "\"Version\":3")),
            "schema version 3",
        );
        rejected(Kind::TrivyDb, &with(&METADATA.replace("2026-01-15", "0001-01-01")), "no believable dates");
        rejected(Kind::TrivyDb, &with("<html>"), "cannot be read");
        let java = Archive::new()
            .file("trivy-java.db", &sqlite::tests::database(&["artifacts"]))
            .file("metadata.json", METADATA.as_bytes());
        rejected(Kind::TrivyJavaDb, &java.pack(), "no table indices");
    }

    #[test]
    fn only_plain_files_with_plain_names_come_through() {
        for name in [&b"../trivy.db"[..], b"/trivy.db", b"a/../../b", b"a\\b", b"a\x1b[2J", b"\xff"] {
            rejected(
                Kind::TrivyChecks,
                &Archive::new().entry(EntryType::Regular, name, b"x").pack(),
                "unsafe name",
            );
        }
        for kind in [EntryType::Symlink, EntryType::Link] {
            rejected(Kind::TrivyChecks, &Archive::new().entry(kind, b"x", b"").pack(), "is a link");
        }
        for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse] {
            rejected(Kind::TrivyChecks, &Archive::new().entry(kind, b"x", b"").pack(), "entry of type");
        }
        rejected(Kind::TrivyChecks, &Archive::new().file("a", b"").file("a/b", b"").pack(), "twice");
        rejected(Kind::TrivyChecks, &Archive::new().file("a/b", b"").file("a", b"").pack(), "twice");
    }

    #[test]
    fn checks_need_their_libraries() {
        let check_only = || Archive::new().file("policies/docker/policies/x.rego", b"package x");
        rejected(Kind::TrivyChecks, &check_only().pack(), "no libraries");
        rejected(Kind::TrivyChecks, &Archive::new().file("README.md", b"x").pack(), "no .rego");
        let good = check_only().file("policies/docker/lib/y.rego", b"package y").pack();
        assert_eq!(check(Kind::TrivyChecks, &good).unwrap().tree.unwrap().files, 2);
    }

    #[test]
    fn a_bomb_stops_at_its_limit() {
        let packed = db().pack();
        let limits = UnpackLimits { unpacked: 1000, files: 2, directories: 0 };
        let error = unpack(Kind::TrivyDb, &packed[..], limits, &mut Discard).unwrap_err();
        assert!(error.to_string().contains("more than the 1000 bytes"), "{error}");

        let long = Archive::new().entry(EntryType::GNULongName, b"x", &vec![b'a'; 1 << 20]).pack();
        rejected(Kind::TrivyDb, &long, "extension header");
        let mut padded = GzEncoder::new(Vec::new(), Compression::best());
        padded.write_all(&vec![0; 1 << 20]).unwrap();
        rejected(Kind::TrivyDb, &padded.finish().unwrap(), "bytes follow the end");
    }

    #[test]
    fn directories_are_counted_too() {
        let deep = "d/".repeat(40) + "x";
        rejected(Kind::TrivyChecks, &Archive::new().file(&deep, b"x").pack(), "deeper than the 32 folders");
        let mut many = Archive::new();
        for number in 0..200 {
            many = many.file(&format!("{number}/{}x", "d/".repeat(20)), b"");
        }
        let limits = UnpackLimits { unpacked: 1000, files: 1000, directories: 1000 };
        let error = unpack(Kind::TrivyChecks, &many.pack()[..], limits, &mut Discard).unwrap_err();
        assert!(error.to_string().contains("more than the 1000 folders"), "{error}");
    }

    #[test]
    fn every_cut_and_every_trailing_byte_is_noticed() {
        let packed = db().pack();
        for length in 0..packed.len() {
            assert!(check(Kind::TrivyDb, &packed[..length]).is_err(), "cut to {length}");
        }
        let mut longer = packed.clone();
        longer.push(0);
        rejected(Kind::TrivyDb, &longer, "not a whole gzipped tar");
    }

    proptest! {
        #![proptest_config(crate::util::seed::cases(256))]
        #[test]
        fn damage_never_panics_and_never_passes(at in 0usize..4096, bit in 0u8..8) {
            let good = db().pack();
            let mut packed = good.clone();
            let at = at % packed.len();
            packed[at] ^= 1 << bit;
            // Some bits have no meaning: the header's time, or the distance of a match inside a run
            // of zeros. What passes must therefore be the same content.
            let result = check(Kind::TrivyDb, &packed);
            prop_assert!(result.is_err() || result == check(Kind::TrivyDb, &good));
        }
    }
}
