//! Reads the tables of a SQLite file, in the order of their rowids. The file is hostile: every number in it is checked,
//! and the walk ends for any content. It knows nothing of the schema.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::sqlite::bytes::varint;
use super::sqlite::page::PAGE;
use super::sqlite::record::MAX_RECORD;

/// The deepest tree that is read. At 4096 bytes per page, 8 levels hold more than a file can.
const MAX_DEPTH: usize = 8;
/// The length of the file header before the b-tree of page 1.
const FILE_HEADER: usize = 100;
/// The first byte of an interior page of a table.
const INTERIOR: u8 = 5;
/// The first byte of a leaf of a table.
const LEAF: u8 = 13;
/// The parts of the file header that have only one accepted value: offset, and bytes.
const HEADER: [(usize, &[u8]); 7] = [
    (0, b"SQLite format 3\0"),
    (16, &[0x10, 0]),       // the size of a page: 4096
    (18, &[1, 1]),          // no write-ahead log
    (20, &[0, 64, 32, 32]), // no reserved bytes, and three constants
    (44, &[0, 0, 0, 4]),    // the schema format, which has the integers 0 and 1 without bytes
    (52, &[0, 0, 0, 0]),    // no auto-vacuum
    (56, &[0, 0, 0, 1]),    // UTF-8
];
/// The offset of the number of pages in the file header.
const PAGES: usize = 28;

/// The reason that a database cannot be read as rows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExtractError {
    /// The database cannot be read, or the row stream cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The database holds something other than the rows that the row stream can hold.
    #[error("the database cannot be read as rows: {0}")]
    NotRows(String),
}

/// Returns the error of a database that is unexpected for this reason.
pub(super) fn not_rows<T>(reason: impl Into<String>) -> Result<T, ExtractError> {
    Err(ExtractError::NotRows(reason.into()))
}

/// A SQLite file.
pub(super) struct Database<'a> {
    file: &'a File,
    /// The number of pages.
    pages: u32,
    /// Page 1, with the file header.
    pub(super) page_one: Box<[u8; PAGE]>,
}

impl<'a> Database<'a> {
    /// Opens a file, and validates its header.
    ///
    /// # Errors
    /// If the file cannot be read, or it is not a SQLite file of the supported kind.
    pub(super) fn open(file: &'a File) -> Result<Self, ExtractError> {
        let length = file.metadata()?.len();
        let pages = u32::try_from(length / PAGE as u64).unwrap_or(0);
        if pages == 0 || !length.is_multiple_of(PAGE as u64) {
            return not_rows(format!("its size of {length} bytes is no number of pages"));
        }
        let mut page_one = Box::new([0; PAGE]);
        file.read_exact_at(&mut page_one[..], 0)?;
        let starts_with =
            |at: usize, bytes: &[u8]| page_one.get(at..).is_some_and(|rest| rest.starts_with(bytes));
        if let Some((at, _)) = HEADER.into_iter().find(|(at, bytes)| !starts_with(*at, bytes)) {
            return not_rows(format!("its header has an unexpected value at offset {at}"));
        }
        if !starts_with(PAGES, &pages.to_be_bytes()) {
            return not_rows("its header names another number of pages");
        }
        Ok(Database { file, pages, page_one })
    }

    /// Returns the length of the file in bytes.
    pub(super) fn length(&self) -> u64 {
        u64::from(self.pages) * PAGE as u64
    }

    /// Returns a cursor before the first row of the table with this root page.
    pub(super) fn table(&self, root: u32) -> Cursor<'_> {
        Cursor { database: self, root: Some(root), path: Vec::new(), spare: None, visited: 0 }
    }
}

/// A position in a table. It holds the pages from the root to the current leaf.
pub(super) struct Cursor<'a> {
    database: &'a Database<'a>,
    /// The root, until it is read.
    root: Option<u32>,
    path: Vec<Node>,
    /// The memory of a page that was left.
    spare: Option<Box<[u8; PAGE]>>,
    /// The number of pages that were read.
    visited: u32,
}

/// A page of the path.
struct Node {
    data: Box<[u8; PAGE]>,
    number: u32,
    /// The offset of the b-tree header.
    header: usize,
    is_leaf: bool,
    count: usize,
    /// The index of the next cell or child.
    next: usize,
}

impl Cursor<'_> {
    /// Returns the rowid and the record of the next row, or `None` after the last one.
    ///
    /// # Errors
    /// If the file cannot be read, a page is invalid, or the pages form no tree.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &[u8])>, ExtractError> {
        if let Some(root) = self.root.take() {
            self.enter(root)?;
        }
        while let Some(node) = self.path.last_mut() {
            let last = if node.is_leaf { node.count } else { node.count + 1 };
            if node.next == last {
                self.spare = self.path.pop().map(|node| node.data);
                continue;
            }
            node.next += 1;
            if node.is_leaf {
                break;
            }
            let child = node.child(node.next - 1)?;
            self.enter(child)?;
        }
        self.path.last().map(Node::row).transpose()
    }

    /// Reads a page and makes it the last one of the path.
    fn enter(&mut self, number: u32) -> Result<(), ExtractError> {
        let pages = self.database.pages;
        if number == 0 || number > pages || self.visited >= pages || self.path.len() >= MAX_DEPTH {
            return not_rows(format!("the pages of a table form no tree at page {number}"));
        }
        self.visited += 1;
        let mut data = self.spare.take().unwrap_or_else(|| Box::new([0; PAGE]));
        self.database.file.read_exact_at(&mut data[..], u64::from(number - 1) * PAGE as u64)?;
        let header = if number == 1 { FILE_HEADER } else { 0 };
        let is_leaf = match data.get(header) {
            Some(&LEAF) => true,
            Some(&INTERIOR) => false,
            _ => return not_rows(format!("page {number} belongs to no table")),
        };
        let mut node = Node { data, number, header, is_leaf, count: 0, next: 0 };
        node.count = node.u16(header + 3)?;
        self.path.push(node);
        Ok(())
    }
}

impl Node {
    /// Returns the row before the next one.
    fn row(&self) -> Result<(u64, &[u8]), ExtractError> {
        self.parse_row().map_or_else(|| self.invalid(), Ok)
    }

    /// Returns the row before the next one, or `None` if its cell is invalid or its record is too long.
    fn parse_row(&self) -> Option<(u64, &[u8])> {
        let cell = self.cell(self.next.checked_sub(1)?)?;
        let (length, start) = varint(cell)?;
        let (rowid, more) = varint(cell.get(start..)?)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_RECORD)?;
        Some((rowid, cell.get(start + more..)?.get(..length)?))
    }

    /// Returns the number of a child. The last one is in the header.
    fn child(&self, index: usize) -> Result<u32, ExtractError> {
        let place = if index == self.count { self.data.get(self.header + 8..) } else { self.cell(index) };
        let number = place.and_then(|bytes| bytes.first_chunk());
        number.map_or_else(|| self.invalid(), |number| Ok(u32::from_be_bytes(*number)))
    }

    /// Returns the bytes of the page from the start of a cell.
    fn cell(&self, index: usize) -> Option<&[u8]> {
        let pointers = self.header + if self.is_leaf { 8 } else { 12 };
        let at = self.u16(pointers + 2 * index).ok()?;
        self.data.get(at..)
    }

    /// Returns the 2-byte number at an offset.
    fn u16(&self, at: usize) -> Result<usize, ExtractError> {
        let number = self.data.get(at..).and_then(|rest| rest.first_chunk());
        number.map_or_else(|| self.invalid(), |number| Ok(usize::from(u16::from_be_bytes(*number))))
    }

    /// Returns the error of an invalid page.
    fn invalid<T>(&self) -> Result<T, ExtractError> {
        not_rows(format!("page {} is invalid, or has a record of more than {MAX_RECORD} bytes", self.number))
    }
}
