//! A layer: the gzipped tar archive of a dataset.
//!
//! The module reads it from any reader and passes the regular files to the `Checker`, which checks them and passes
//! them to the [`Sink`]. Archives may be hostile: every size is limited before it is used, and only regular files
//! with plain names are accepted.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use tar::EntryType;

use crate::dataset::Kind;
use crate::dataset::check::{Checker, UnpackError, UnpackLimits, bad};
use crate::dataset::tree::{Contents, RelPath, Sink};

pub(crate) use crate::util::pipe::CHUNK;
use crate::util::pipe::{PipeReader, pipe};

/// The limit for an extension header (a long name, pax records) in bytes.
const MAX_EXTENSION: u64 = 64 << 10;
/// The limit for the padding after the last file in bytes. GNU tar pads to a multiple of 10 KiB.
const MAX_PADDING: u64 = 64 << 10;
/// The limit of headers, including those of directories and extensions.
const MAX_HEADERS: u64 = 400_000;

/// Unpacks a layer of one of the three OCI artifacts into `sink`, and returns the description of its content.
///
/// `packed` is read to its end, so that a reader that computes a digest sees all bytes.
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

/// Passes the files of a gzipped tar archive to the checker. `place` returns the path that the checker sees, or
/// `None` to skip a file.
///
/// Inflating runs in its own thread, because it takes about as long as hashing and writing.
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
            return Err(bad("the archive has too many entries"));
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
            // `git archive` writes a comment for the archive into such a header.
            EntryType::XGlobalHeader => drop(extension(&mut entry)?),
            // The content of such an entry is useless, and skipping it means inflating it.
            EntryType::Directory | EntryType::Symlink | EntryType::Link if size > 0 => {
                return Err(bad(format!("an entry that is not a file claims {size} bytes")));
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
            // Links and devices are never followed or created. A VEX archive may contain a link outside of
            // the repository, but files in the repository must be regular.
            EntryType::Symlink | EntryType::Link => {
                let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
                if place(&plain(&name)?).is_some() {
                    return Err(bad(format!(
                        "{} is a link, but only regular files are accepted",
                        plain(&name)?
                    )));
                }
            }
            other => {
                return Err(bad(format!(
                    "the archive contains an entry of type {:?}",
                    char::from(other.as_byte())
                )));
            }
        }
    }
    padding(archive.into_inner())
}

/// Passes the content of a file to the checker.
fn copy(file: &mut impl Read, buffer: &mut [u8], checker: &mut Checker<'_>) -> Result<(), UnpackError> {
    loop {
        let count = file.read(buffer).map_err(broken)?;
        if count == 0 {
            return Ok(());
        }
        checker.data(&buffer[..count])?;
    }
}

/// Converts the error of a reader: damage is an error of the content, and anything else is a read error.
fn broken(error: io::Error) -> UnpackError {
    match error.kind() {
        // The inflater and the tar reader report damage with these kinds. A wrapped error of the source keeps its
        // own kind.
        io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::Other
            if error.get_ref().is_none_or(|inner| !inner.is::<crate::util::pipe::WriterGaveUp>()) =>
        {
            bad(format!("it is not a complete gzipped tar archive ({error})"))
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

/// Returns the `path` in pax records (POSIX.1-2001, "pax Extended Header"). A `size` record is rejected, because
/// only files of 8 GiB or more need it.
fn pax_path(records: &[u8]) -> Result<Option<Vec<u8>>, UnpackError> {
    let mut path = None;
    for record in tar::PaxExtensions::new(records) {
        let record = record.map_err(broken)?;
        match record.key_bytes() {
            b"path" => path = Some(record.value_bytes().to_vec()),
            b"size" | b"linkpath" => return Err(bad("the archive uses pax records that are not supported")),
            name if name.starts_with(b"GNU.sparse") => return Err(bad("the archive contains a sparse file")),
            _ => {}
        }
    }
    Ok(path)
}

/// Converts a name in an archive to a plain path. `tar -C dir .` writes a leading `./`.
pub(super) fn plain(name: &[u8]) -> Result<RelPath, UnpackError> {
    let text = std::str::from_utf8(name).ok().map(|text| text.strip_prefix("./").unwrap_or(text));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        bad(format!("the archive contains a file with an unsafe name: {:?}", String::from_utf8_lossy(name)))
    })
}

/// Reads to the end, so that the inflater compares its checksum. Only zeros are accepted.
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
    fn a_database_has_exactly_two_files() {
        rejected(Kind::TrivyDb, &db().file("more", b"x").pack(), "contains the unexpected file");
        rejected(Kind::TrivyDb, &db().file("metadata.json", b"{}").pack(), "twice");
        rejected(
            Kind::TrivyDb,
            &Archive::new().file("metadata.json", METADATA.as_bytes()).pack(),
            "does not contain trivy.db",
        );
        rejected(Kind::TrivyJavaDb, &db().pack(), "contains the unexpected file");
    }

    /// bsdtar of macOS writes a file `._NAME` before each file with extended attributes, and pax records. `tar -t` on
    /// macOS does not list them (Osmantic/ODS pull requests 5765 and 6159, libarchive issue 900).
    #[test]
    fn files_that_macos_adds_to_an_archive_are_skipped_and_reported() {
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
        // The content equals that of an archive without them.
        assert_eq!(found.difference(&check(Kind::TrivyDb, &db().pack()).unwrap()), None);
        // They do not replace the file.
        let alone = Archive::new().file("._trivy.db", b"x").file("metadata.json", METADATA.as_bytes());
        rejected(Kind::TrivyDb, &alone.pack(), "does not contain trivy.db");
        rejected(Kind::TrivyDb, &db().file("._", b"x").pack(), "contains the unexpected file");
        // In a tree they are files like any other.
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
        rejected(Kind::TrivyDb, &with(&METADATA.replace("2026-01-15", "0001-01-01")), "implausible dates");
        rejected(Kind::TrivyDb, &with("<html>"), "cannot be read");
        let java = Archive::new()
            .file("trivy-java.db", &sqlite::tests::database(&["artifacts"]))
            .file("metadata.json", METADATA.as_bytes());
        rejected(Kind::TrivyJavaDb, &java.pack(), "no table indices");
    }

    #[test]
    fn only_plain_files_with_plain_names_are_accepted() {
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
    fn unpacking_a_bomb_stops_at_the_limit() {
        let packed = db().pack();
        let limits = UnpackLimits { unpacked: 1000, files: 2, directories: 0 };
        let error = unpack(Kind::TrivyDb, &packed[..], limits, &mut Discard).unwrap_err();
        assert!(error.to_string().contains("more than 1000 bytes"), "{error}");

        let long = Archive::new().entry(EntryType::GNULongName, b"x", &vec![b'a'; 1 << 20]).pack();
        rejected(Kind::TrivyDb, &long, "extension header");
        let mut padded = GzEncoder::new(Vec::new(), Compression::best());
        padded.write_all(&vec![0; 1 << 20]).unwrap();
        rejected(Kind::TrivyDb, &padded.finish().unwrap(), "bytes follow the end");
    }

    #[test]
    fn directories_are_counted_too() {
        let deep = "d/".repeat(40) + "x";
        rejected(Kind::TrivyChecks, &Archive::new().file(&deep, b"x").pack(), "deeper than 32 directories");
        let mut many = Archive::new();
        for number in 0..200 {
            many = many.file(&format!("{number}/{}x", "d/".repeat(20)), b"");
        }
        let limits = UnpackLimits { unpacked: 1000, files: 1000, directories: 1000 };
        let error = unpack(Kind::TrivyChecks, &many.pack()[..], limits, &mut Discard).unwrap_err();
        assert!(error.to_string().contains("more than 1000 directories"), "{error}");
    }

    #[test]
    fn every_truncation_and_every_trailing_byte_is_rejected() {
        let packed = db().pack();
        for length in 0..packed.len() {
            assert!(check(Kind::TrivyDb, &packed[..length]).is_err(), "cut to {length}");
        }
        let mut longer = packed.clone();
        longer.push(0);
        rejected(Kind::TrivyDb, &longer, "not a complete gzipped tar");
    }

    proptest! {
        #![proptest_config(crate::util::seed::cases(256))]
        #[test]
        fn damage_never_panics_and_never_changes_the_content(at in 0usize..4096, bit in 0u8..8) {
            let good = db().pack();
            let mut packed = good.clone();
            let at = at % packed.len();
            packed[at] ^= 1 << bit;
            // Some bits have no effect: the time in the header, or the distance of a match within zeros. An
            // archive that is accepted must have the same content.
            let result = check(Kind::TrivyDb, &packed);
            prop_assert!(result.is_err() || result == check(Kind::TrivyDb, &good));
        }
    }
}
