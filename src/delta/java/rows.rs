//! The row stream `java-rows-1`: the artifacts and rows of `trivy-java.db` without page layout, keys and indexes.
//!
//! For each artifact in the order of its id, from 1: the group, a NUL, the artifact, a NUL, then its rows, then the
//! byte 0x01. A row is its version, a NUL, and 20 bytes of SHA-1. Nothing else is in the stream, so a stream follows
//! from the content of a database alone. It knows nothing of SQLite.

use std::io::{self, Read, Write};

/// The byte after the last row of an artifact. No version begins with it.
const END: u8 = 1;
/// The byte after a name or a version.
const NUL: u8 = 0;
/// The length of a SHA-1 in bytes.
pub(super) const SHA1: usize = 20;
/// The most artifacts of a stream.
const MAX_ARTIFACTS: u32 = 1 << 24;
/// The most rows of a stream.
const MAX_ROWS: u32 = 1 << 31;
/// The most bytes of the names of all artifacts.
const MAX_NAMES: u64 = 128 << 20;
/// The most bytes of the two names of an artifact, and of a version. Longer ones do not fit into a record of
/// [`super::sqlite::record::MAX_RECORD`] bytes.
const MAX_TEXT: usize = 1000;
/// The longest item of a stream in bytes: two names or a row, with their ends.
const LONGEST: usize = MAX_TEXT + 2 + SHA1;
/// The size of the reader's buffer in bytes.
const BUFFER: usize = 256 << 10;

/// The reason that a row stream cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowsError {
    /// The stream cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The stream ends within an artifact.
    #[error("the row stream ends within artifact {0}")]
    EndsEarly(u32),
    /// The names of an artifact are too long.
    #[error("the names of artifact {0} are longer than {MAX_TEXT} bytes")]
    LongNames(u32),
    /// A version is too long.
    #[error("the version of row {0} is longer than {MAX_TEXT} bytes")]
    LongVersion(u32),
    /// There are too many artifacts.
    #[error("there are more than {MAX_ARTIFACTS} artifacts")]
    TooManyArtifacts,
    /// There are too many rows.
    #[error("there are more than {MAX_ROWS} rows")]
    TooManyRows,
    /// The names of all artifacts are too long.
    #[error("the names of all artifacts are longer than {MAX_NAMES} bytes")]
    TooManyNames,
    /// A name contains a NUL.
    #[error("a name of artifact {0} contains a NUL")]
    NulInName(u32),
    /// A version contains a NUL or begins with the byte that ends the rows of an artifact.
    #[error("the version of row {0} contains a NUL or begins with the byte 0x01")]
    InvalidVersion(u32),
    /// A row comes before the first artifact.
    #[error("a row comes before the first artifact")]
    RowWithoutArtifact,
}

/// The names of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Names<'a> {
    /// The group, such as `org.apache.tomcat.embed`.
    pub(crate) group: &'a [u8],
    /// The artifact, such as `tomcat-embed-core`.
    pub(crate) artifact: &'a [u8],
}

/// A row of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    /// The version.
    pub(crate) version: &'a [u8],
    /// The SHA-1 of the file.
    pub(crate) sha1: &'a [u8; SHA1],
}

/// The numbers of items that were read or written, which have limits.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    artifacts: u32,
    rows: u32,
    names: u64,
}

impl Totals {
    /// Counts an artifact.
    fn add_artifact(&mut self, names: usize) -> Result<(), RowsError> {
        if self.artifacts >= MAX_ARTIFACTS {
            return Err(RowsError::TooManyArtifacts);
        }
        self.artifacts += 1;
        if names > MAX_TEXT {
            return Err(RowsError::LongNames(self.artifacts));
        }
        self.names += names as u64;
        if self.names > MAX_NAMES { Err(RowsError::TooManyNames) } else { Ok(()) }
    }

    /// Counts a row.
    fn add_row(&mut self, version: usize) -> Result<(), RowsError> {
        if self.rows >= MAX_ROWS {
            return Err(RowsError::TooManyRows);
        }
        self.rows += 1;
        if version > MAX_TEXT { Err(RowsError::LongVersion(self.rows)) } else { Ok(()) }
    }
}

/// Reads a row stream. It validates what it reads, and uses 256 KiB of memory.
pub(crate) struct RowReader<R> {
    source: R,
    buffer: Box<[u8]>,
    /// The start of the unread bytes in the buffer.
    start: usize,
    /// The end of the unread bytes in the buffer.
    end: usize,
    source_ended: bool,
    /// Whether the rows of the current artifact are not complete.
    within_artifact: bool,
    totals: Totals,
}

impl<R: Read> RowReader<R> {
    /// Reads a row stream from its start.
    pub(crate) fn new(source: R) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        let totals = Totals::default();
        RowReader { source, buffer, start: 0, end: 0, source_ended: false, within_artifact: false, totals }
    }

    /// Returns the next artifact, or `None` at the end of the stream. It skips the remaining rows of the current one.
    ///
    /// # Errors
    /// If the source fails or ends within an artifact, or a limit is exceeded.
    pub(crate) fn next_artifact(&mut self) -> Result<Option<Names<'_>>, RowsError> {
        while self.next_row()?.is_some() {}
        self.fill()?;
        let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut parts = bytes.splitn(3, |byte| *byte == NUL);
        let (group, artifact, rest) = (parts.next(), parts.next(), parts.next());
        let (Some(group), Some(artifact), Some(_)) = (group, artifact, rest) else {
            let number = self.totals.artifacts + 1;
            let long = bytes.len() >= LONGEST;
            return Err(if long { RowsError::LongNames(number) } else { RowsError::EndsEarly(number) });
        };
        self.totals.add_artifact(group.len() + artifact.len())?;
        self.start += group.len() + artifact.len() + 2;
        self.within_artifact = true;
        Ok(Some(Names { group, artifact }))
    }

    /// Returns the next row of the current artifact, or `None` after its last row.
    ///
    /// # Errors
    /// If the source fails or ends within the artifact, or a limit is exceeded.
    #[inline]
    pub(crate) fn next_row(&mut self) -> Result<Option<Row<'_>>, RowsError> {
        if !self.within_artifact {
            return Ok(None);
        }
        self.fill()?;
        let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
        if bytes.first() == Some(&END) {
            self.start += 1;
            self.within_artifact = false;
            return Ok(None);
        }
        let early = RowsError::EndsEarly(self.totals.artifacts);
        let Some(length) = bytes.iter().take(MAX_TEXT + 1).position(|byte| *byte == NUL) else {
            let number = self.totals.rows.saturating_add(1);
            return Err(if bytes.len() > MAX_TEXT { RowsError::LongVersion(number) } else { early });
        };
        let Some((version, rest)) = bytes.split_at_checked(length) else { return Err(early) };
        let Some(sha1) = rest.get(1..).and_then(|rest| rest.first_chunk()) else { return Err(early) };
        self.totals.add_row(length)?;
        self.start += length + 1 + SHA1;
        Ok(Some(Row { version, sha1 }))
    }

    /// Reads until the buffer holds the longest item or the source ends.
    #[inline]
    fn fill(&mut self) -> io::Result<()> {
        if self.end - self.start >= LONGEST || self.source_ended { Ok(()) } else { self.read() }
    }

    /// Moves the remaining bytes to the start of the buffer, and reads more.
    fn read(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < LONGEST {
            match self.source.read(self.buffer.get_mut(self.end..).unwrap_or_default()) {
                Ok(0) => {
                    self.source_ended = true;
                    return Ok(());
                }
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Writes a row stream. [`RowWriter::finish`] completes it.
pub(crate) struct RowWriter<W: Write> {
    out: io::BufWriter<W>,
    totals: Totals,
    size: u64,
}

impl<W: Write> RowWriter<W> {
    /// Creates a writer.
    pub(crate) fn new(out: W) -> Self {
        RowWriter { out: io::BufWriter::with_capacity(BUFFER, out), totals: Totals::default(), size: 0 }
    }

    /// Returns the number of bytes so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Writes the next artifact.
    ///
    /// # Errors
    /// If a name contains a NUL, a limit is exceeded, or writing fails.
    pub(crate) fn artifact(&mut self, names: Names<'_>) -> Result<(), RowsError> {
        if self.totals.artifacts > 0 {
            self.write(&[END])?;
        }
        self.totals.add_artifact(names.group.len() + names.artifact.len())?;
        for name in [names.group, names.artifact] {
            if name.contains(&NUL) {
                return Err(RowsError::NulInName(self.totals.artifacts));
            }
            self.write(name)?;
            self.write(&[NUL])?;
        }
        Ok(())
    }

    /// Writes the next row of the artifact.
    ///
    /// # Errors
    /// If there is no artifact, the version contains a NUL or begins with the byte 0x01, a limit is exceeded, or
    /// writing fails.
    pub(crate) fn row(&mut self, row: Row<'_>) -> Result<(), RowsError> {
        if self.totals.artifacts == 0 {
            return Err(RowsError::RowWithoutArtifact);
        }
        self.totals.add_row(row.version.len())?;
        if row.version.contains(&NUL) || row.version.first() == Some(&END) {
            return Err(RowsError::InvalidVersion(self.totals.rows));
        }
        self.write(row.version)?;
        self.write(&[NUL])?;
        self.write(row.sha1)?;
        Ok(())
    }

    /// Completes the stream.
    ///
    /// # Errors
    /// If writing fails.
    pub(crate) fn finish(mut self) -> Result<(), RowsError> {
        if self.totals.artifacts > 0 {
            self.write(&[END])?;
        }
        self.out.flush()?;
        Ok(())
    }

    /// Writes bytes, and counts them.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.size += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Artifact = (Vec<u8>, Vec<u8>, Vec<(Vec<u8>, [u8; SHA1])>);

    fn write(artifacts: &[Artifact]) -> Result<Vec<u8>, RowsError> {
        let mut out = Vec::new();
        let mut writer = RowWriter::new(&mut out);
        for (group, artifact, rows) in artifacts {
            writer.artifact(Names { group, artifact })?;
            for (version, sha1) in rows {
                writer.row(Row { version, sha1 })?;
            }
        }
        writer.finish()?;
        Ok(out)
    }

    fn read(source: impl Read) -> Result<Vec<Artifact>, RowsError> {
        let mut reader = RowReader::new(source);
        let mut artifacts = Vec::new();
        while let Some(names) = reader.next_artifact()? {
            let (group, artifact) = (names.group.to_vec(), names.artifact.to_vec());
            let mut rows = Vec::new();
            while let Some(row) = reader.next_row()? {
                rows.push((row.version.to_vec(), *row.sha1));
            }
            artifacts.push((group, artifact, rows));
        }
        Ok(artifacts)
    }

    /// Returns at most 3 bytes at once.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(3);
            self.0.read(&mut buffer[..count])
        }
    }

    #[test]
    fn the_stream_is_what_the_format_says() {
        let sha1 = [0; SHA1];
        let rows = vec![(b"1.0".to_vec(), sha1), (b"".to_vec(), sha1)];
        let stream =
            write(&[(b"g".to_vec(), b"a".to_vec(), rows), (b"".to_vec(), b"".to_vec(), vec![])]).unwrap();
        let expected = [&b"g\0a\x001.0\0"[..], &sha1, b"\0", &sha1, b"\x01\0\0\x01"].concat();
        assert_eq!(stream, expected);
        assert_eq!(write(&[]).unwrap(), b"");
        assert_eq!(read(&b""[..]).unwrap(), []);
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error() {
        let row = (b"1.0".to_vec(), [7; SHA1]);
        let stream = write(&[(b"g".to_vec(), b"a".to_vec(), vec![row.clone(), row])]).unwrap();
        for length in 1..stream.len() {
            assert!(matches!(read(&stream[..length]), Err(RowsError::EndsEarly(1))), "{length}");
        }
        assert!(matches!(read(&[&stream[..], b"x"].concat()[..]), Err(RowsError::EndsEarly(2))));
    }

    #[test]
    fn names_and_versions_beyond_the_limits_are_errors() {
        let long = vec![b'x'; MAX_TEXT + 1];
        let names = [&long[..500], b"\0", &long[500..], b"\0\x01"].concat();
        assert!(matches!(read(&names[..]), Err(RowsError::LongNames(1))));
        assert!(matches!(read(&[&long[..], &long].concat()[..]), Err(RowsError::LongNames(1))));
        let version = [b"g\0a\0", &long[..], b"\0", &[0; SHA1], b"\x01"].concat();
        assert!(matches!(read(&version[..]), Err(RowsError::LongVersion(1))));
        assert!(read(&[&names[..1], &names[2..]].concat()[..]).is_ok());
        assert!(matches!(write(&[(long.clone(), vec![], vec![])]), Err(RowsError::LongNames(1))));
        let rows = vec![(long, [0; SHA1])];
        assert!(matches!(write(&[(vec![], vec![], rows)]), Err(RowsError::LongVersion(1))));
    }

    #[test]
    fn the_writer_rejects_what_the_reader_would_misread() {
        let rows = |version: &[u8]| vec![(version.to_vec(), [0; SHA1])];
        assert!(matches!(write(&[(b"a\0".to_vec(), vec![], vec![])]), Err(RowsError::NulInName(1))));
        for version in [&b"\x01"[..], b"1\0"] {
            assert!(matches!(write(&[(vec![], vec![], rows(version))]), Err(RowsError::InvalidVersion(1))));
        }
        let row = Row { version: b"1", sha1: &[0; SHA1] };
        assert!(matches!(RowWriter::new(Vec::new()).row(row), Err(RowsError::RowWithoutArtifact)));
    }

    #[test]
    fn totals_have_limits() {
        let mut totals = Totals { artifacts: MAX_ARTIFACTS, rows: MAX_ROWS, names: 0 };
        assert!(matches!(totals.add_artifact(1), Err(RowsError::TooManyArtifacts)));
        assert!(matches!(totals.add_row(1), Err(RowsError::TooManyRows)));
        let mut totals = Totals { artifacts: 0, rows: 0, names: MAX_NAMES };
        assert!(matches!(totals.add_artifact(1), Err(RowsError::TooManyNames)));
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1..=255u8, 0..500)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn artifacts_and_rows_come_back(
            artifacts in prop::collection::vec(
                (text(), text(), prop::collection::vec((text(), any::<[u8; SHA1]>()), 0..4)), 0..8)
        ) {
            let mut artifacts: Vec<Artifact> = artifacts;
            for (version, _) in artifacts.iter_mut().flat_map(|artifact| &mut artifact.2) {
                if version.first() == Some(&END) {
                    version.clear();
                }
            }
            let stream = write(&artifacts).unwrap();
            prop_assert_eq!(&read(&stream[..]).unwrap(), &artifacts);
            prop_assert_eq!(&read(Slow(&stream)).unwrap(), &artifacts);
        }

        #[test]
        fn any_bytes_are_read_or_rejected(bytes in prop::collection::vec(0..4u8, 0..2000)) {
            if let Ok(artifacts) = read(&bytes[..]) {
                prop_assert_eq!(write(&artifacts).unwrap(), bytes);
            }
        }
    }
}
