//! Builds a `trivy-java.db` from its row stream and its head, as `VACUUM` writes it.
//!
//! `VACUUM` creates the roots of all tables and indexes, then copies each table, followed by its indexes, the newest
//! one first. The row stream is read once for each table and index, and once more for each range of keys that
//! is sorted.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::head::{Head, TypeRun};
use super::rows::{RowReader, RowsError, SHA1};
use super::schema;
use super::sort::{Crowded, Histogram, prefix};
use super::sqlite::bytes::Inconsistent;
use super::sqlite::page::{Kind, PAGE};
use super::sqlite::pager::{PageError, Pager};
use super::sqlite::record::{LongRecord, Record};
use super::sqlite::tree::Tree;

/// The memory for sorting that most uses need, in bytes. Twelve million rows are sorted in 5 passes.
pub(crate) const MEMORY: usize = 64 << 20;

/// The kinds of the trees, in the order of their root pages.
const ROOTS: [Kind; 5] =
    [Kind::TableLeaf, Kind::TableLeaf, Kind::IndexLeaf, Kind::IndexLeaf, Kind::IndexLeaf];

/// The reason that a database cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// The row stream cannot be read, or the database cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The row stream is invalid.
    #[error(transparent)]
    Rows(RowsError),
    /// A record does not fit into its page.
    #[error(transparent)]
    LongRecord(#[from] LongRecord),
    /// The keys cannot be sorted within the memory.
    #[error(transparent)]
    Crowded(#[from] Crowded),
    /// The head has archive types for more or fewer rows than the row stream has.
    #[error("the head and the row stream have different numbers of rows")]
    Types,
    /// The expected size is not that of a database.
    #[error("{0} bytes is not the size of a database with this schema")]
    InvalidSize(u64),
    /// The database becomes larger than expected.
    #[error("the rows need a larger database than expected")]
    TooLarge,
    /// The database becomes smaller than expected.
    #[error("the rows need a database of {found} bytes instead of {expected}")]
    TooSmall {
        /// The size that the rows need.
        found: u64,
        /// The expected size.
        expected: u64,
    },
    /// An overwrite is beyond the end of the database.
    #[error("the head overwrites bytes beyond the end of the database")]
    Overwrite,
    /// The pages contradict each other.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
}

impl From<RowsError> for BuildError {
    fn from(error: RowsError) -> Self {
        match error {
            RowsError::Io(error) => BuildError::Io(error),
            other => BuildError::Rows(other),
        }
    }
}

impl From<PageError> for BuildError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Io(error) => BuildError::Io(error),
            PageError::TooLarge => BuildError::TooLarge,
            PageError::Inconsistent(error) => BuildError::Inconsistent(error),
        }
    }
}

/// Builds a database of `size` bytes in `out`, which is open for reading and writing and loses its content.
///
/// `rows` holds the row stream from offset 0. Sorting uses at most `memory` bytes, everything else about 10 MiB. After
/// an error, the content of `out` is undefined.
///
/// # Errors
/// If the stream or the head is invalid or does not give a database of this size, the keys cannot be sorted within the
/// memory, or a file cannot be read or written.
pub(crate) fn build(
    rows: &File,
    head: &Head,
    out: &File,
    size: u64,
    memory: usize,
) -> Result<(), BuildError> {
    let pages = u32::try_from(size / PAGE as u64).unwrap_or(0);
    if pages <= ROOTS.len() as u32 || !size.is_multiple_of(PAGE as u64) {
        return Err(BuildError::InvalidSize(size));
    }
    out.set_len(0)?;
    let pager = Pager::new(out, head.layout, pages);
    let mut builder = Builder { rows, pager, record: Record::default(), memory };
    builder.run(&head.types)?;
    let found = u64::from(builder.pager.count()) * PAGE as u64;
    if found != size {
        return Err(BuildError::TooSmall { found, expected: size });
    }
    out.set_len(size)?;
    out.write_all_at(&head.page_one[..], 0)?;
    for overwrite in &head.overwrites {
        let end = overwrite.offset.checked_add(overwrite.bytes.len() as u64);
        if end.is_none_or(|end| end > size) {
            return Err(BuildError::Overwrite);
        }
        out.write_all_at(&overwrite.bytes, overwrite.offset)?;
    }
    Ok(())
}

/// A database that is being built.
struct Builder<'a> {
    rows: &'a File,
    pager: Pager<'a>,
    record: Record,
    memory: usize,
}

impl<'a> Builder<'a> {
    /// Writes all pages but page 1.
    fn run(&mut self, types: &[TypeRun]) -> Result<(), BuildError> {
        for kind in ROOTS {
            Tree::create(&mut self.pager, kind)?;
        }
        let (names, sha1s) = self.write_artifacts()?;
        self.write_artifacts_by_name(&names)?;
        drop(names);
        self.write_rows(types)?;
        self.write_rows_by_sha1(&sha1s)?;
        self.write_rows_by_artifact()
    }

    /// Returns a reader at the start of the row stream.
    fn reader(&self) -> RowReader<FromStart<'a>> {
        RowReader::new(FromStart { file: self.rows, at: 0 })
    }

    /// Writes the table of the artifacts, and returns the memory that the sorting of their names and of all SHA-1s
    /// needs.
    fn write_artifacts(&mut self) -> Result<(Histogram, Histogram), BuildError> {
        let (mut names, mut sha1s) = (Histogram::new(), Histogram::new());
        let mut reader = self.reader();
        let mut tree = Tree::open(&mut self.pager, schema::ARTIFACTS)?;
        let mut id = 0;
        while let Some(artifact) = reader.next_artifact()? {
            id += 1;
            names.add(prefix(artifact.artifact), NameKey::memory(artifact.artifact, artifact.group));
            let record = self.record.start().null().text(artifact.group).text(artifact.artifact);
            tree.append(&mut self.pager, record.table_cell(id)?)?;
            while let Some(row) = reader.next_row()? {
                sha1s.add(prefix(row.sha1), size_of::<Sha1Key>());
            }
        }
        tree.close(&mut self.pager)?;
        Ok((names, sha1s))
    }

    /// Writes the index of the artifacts by name and group.
    fn write_artifacts_by_name(&mut self, names: &Histogram) -> Result<(), BuildError> {
        let mut tree = Tree::open(&mut self.pager, schema::ARTIFACTS_BY_NAME)?;
        for (prefixes, memory) in names.ranges(self.memory)? {
            let (text, keys) = self.sorted_names(&prefixes, memory)?;
            for key in &keys {
                let (artifact, group) = key.names(&text);
                let record = self.record.start().text(artifact).text(group).integer(key.id);
                tree.append(&mut self.pager, record.index_cell()?)?;
            }
        }
        Ok(tree.close(&mut self.pager)?)
    }

    /// Returns the names of the artifacts in a range, and their keys in order.
    fn sorted_names(
        &self,
        prefixes: &Range<usize>,
        memory: usize,
    ) -> Result<(Vec<u8>, Vec<NameKey>), BuildError> {
        let mut text = Vec::new();
        let mut keys: Vec<NameKey> = Vec::new();
        // The memory was computed from the same stream. Another content must not need more.
        let mut rest = memory;
        let mut reader = self.reader();
        let mut id = 0;
        while let Some(names) = reader.next_artifact()? {
            id += 1;
            if prefixes.contains(&prefix(names.artifact)) {
                rest = rest.checked_sub(NameKey::memory(names.artifact, names.group)).ok_or(Inconsistent)?;
                keys.push(NameKey {
                    start: text.len() as u32,
                    artifact: names.artifact.len() as u16,
                    group: names.group.len() as u16,
                    id,
                });
                text.extend_from_slice(names.artifact);
                text.extend_from_slice(names.group);
            }
        }
        keys.sort_unstable_by(|a, b| a.names(&text).cmp(&b.names(&text)).then(a.id.cmp(&b.id)));
        Ok((text, keys))
    }

    /// Writes the table of the rows.
    fn write_rows(&mut self, types: &[TypeRun]) -> Result<(), BuildError> {
        let mut reader = self.reader();
        let mut tree = Tree::open(&mut self.pager, schema::ROWS)?;
        let mut types = types.iter();
        let (mut archive_type, mut left) = (&[][..], 0);
        let (mut artifact, mut rowid) = (0, 0);
        while reader.next_artifact()?.is_some() {
            artifact += 1;
            while let Some(row) = reader.next_row()? {
                rowid += 1;
                if left == 0 {
                    let run = types.next().ok_or(BuildError::Types)?;
                    (archive_type, left) = (&run.archive_type, run.rows);
                }
                left = left.checked_sub(1).ok_or(BuildError::Types)?;
                let record = self.record.start().integer(artifact).text(row.version);
                let record = record.blob(row.sha1).text(archive_type);
                tree.append(&mut self.pager, record.table_cell(rowid)?)?;
            }
        }
        if left > 0 || types.next().is_some() {
            return Err(BuildError::Types);
        }
        Ok(tree.close(&mut self.pager)?)
    }

    /// Writes the index of the rows by SHA-1.
    fn write_rows_by_sha1(&mut self, sha1s: &Histogram) -> Result<(), BuildError> {
        let mut tree = Tree::open(&mut self.pager, schema::ROWS_BY_SHA1)?;
        let ranges = sha1s.ranges(self.memory)?;
        let most = ranges.iter().map(|(_, memory)| memory / size_of::<Sha1Key>()).max().unwrap_or(0);
        let mut keys: Vec<Sha1Key> = Vec::with_capacity(most);
        for (prefixes, _) in ranges {
            keys.clear();
            let mut reader = self.reader();
            let mut rowid = 0;
            while reader.next_artifact()?.is_some() {
                while let Some(row) = reader.next_row()? {
                    rowid += 1;
                    if prefixes.contains(&prefix(row.sha1)) {
                        // The capacity was computed from the same stream. Another content must not need more.
                        if keys.len() == most {
                            return Err(Inconsistent.into());
                        }
                        keys.push((*row.sha1, rowid));
                    }
                }
            }
            keys.sort_unstable();
            for (sha1, rowid) in &keys {
                let record = self.record.start().blob(sha1).integer(*rowid);
                tree.append(&mut self.pager, record.index_cell()?)?;
            }
        }
        Ok(tree.close(&mut self.pager)?)
    }

    /// Writes the index of the rows by artifact. The rows have this order already.
    fn write_rows_by_artifact(&mut self) -> Result<(), BuildError> {
        let mut reader = self.reader();
        let mut tree = Tree::open(&mut self.pager, schema::ROWS_BY_ARTIFACT)?;
        let (mut artifact, mut rowid) = (0, 0);
        while reader.next_artifact()?.is_some() {
            artifact += 1;
            while reader.next_row()?.is_some() {
                rowid += 1;
                let record = self.record.start().integer(artifact).integer(rowid);
                tree.append(&mut self.pager, record.index_cell()?)?;
            }
        }
        Ok(tree.close(&mut self.pager)?)
    }
}

/// A key of the index of the rows by SHA-1: the SHA-1 and the rowid.
type Sha1Key = ([u8; SHA1], u32);

/// A key of the index of the artifacts by name. The names are in a text of all names.
struct NameKey {
    start: u32,
    artifact: u16,
    group: u16,
    id: u32,
}

impl NameKey {
    /// Returns the memory of a key and its names. Growing lists need up to twice their size.
    fn memory(artifact: &[u8], group: &[u8]) -> usize {
        2 * (size_of::<NameKey>() + artifact.len() + group.len())
    }

    /// Returns the name of the artifact and its group.
    fn names<'t>(&self, text: &'t [u8]) -> (&'t [u8], &'t [u8]) {
        let names = text.get(self.start as usize..).unwrap_or_default();
        let (artifact, rest) = names.split_at_checked(usize::from(self.artifact)).unwrap_or_default();
        (artifact, rest.get(..usize::from(self.group)).unwrap_or_default())
    }
}

/// Reads a file from its start, without its position.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
