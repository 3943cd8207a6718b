//! Counts the entries of a database while it is streamed: the top-level buckets of a bbolt file, and the rows of a
//! table of a SQLite file.
//!
//! Both are trees of pages in any order. The module keeps the number of entries of each leaf and the children of
//! each inner page, and walks the tree at the end. Formats: bbolt v1.4 (`internal/common`), and "Database File
//! Format" of SQLite. Files may be hostile, so memory is limited, and a tree that cannot be followed has no count.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataset::sqlite;

/// The limit of pages: 8 GiB in pages of 4 KiB. They take 4 MiB of memory.
const MAX_PAGES: usize = 1 << 21;
/// The limit of inner pages. They take 1 MiB of memory.
const MAX_INNER: usize = 1 << 17;
/// The limit of children of all inner pages. They take 4 MiB of memory.
const MAX_CHILDREN: usize = 1 << 20;
/// The limit of invalid inner pages. A valid file has a few, because free pages and pages outside of trees may look
/// like inner pages.
const MAX_INVALID: usize = 1024;
/// The smallest page, in bytes.
const MIN_PAGE: usize = 512;
/// The largest page, in bytes.
const MAX_PAGE: usize = 64 << 10;
/// The limit of pages of the schema of a SQLite file.
const MAX_SCHEMA: usize = 64;
/// The limit of entries of a page of the schema. Their cells may overlap, and each is copied.
const MAX_SCHEMA_ENTRIES: u16 = 128;
/// Replaces the number of entries for pages that are not leaves.
const NO_LEAF: u16 = u16::MAX;

/// The tree of the pages that were read. Pages are read in the order of their numbers.
#[derive(Debug, Default)]
struct Tree {
    /// The number of entries of each leaf.
    counts: Vec<u16>,
    /// Each inner page, and the index of its first child in `children`.
    inner: Vec<(u32, u32)>,
    children: Vec<u32>,
    /// The number of invalid inner pages.
    invalid: usize,
    /// Whether counting was abandoned, because a limit was exceeded or too many pages are invalid.
    lost: bool,
}

impl Tree {
    fn leaf(&mut self, page: u32, count: u16) {
        let index = page as usize;
        if index >= MAX_PAGES {
            self.give_up();
        } else if index >= self.counts.len() {
            self.counts.resize(index, NO_LEAF);
            self.counts.push(count);
        }
    }

    /// Records the children of an inner page; `None` if the page is invalid.
    fn inner(&mut self, page: u32, children: Option<&[u32]>) {
        let Some(children) = children else {
            self.invalid += 1;
            if self.invalid > MAX_INVALID {
                self.give_up();
            }
            return;
        };
        let (begin, end) = (self.children.len(), self.children.len() + children.len());
        if page as usize >= MAX_PAGES || end > MAX_CHILDREN || self.inner.len() >= MAX_INNER {
            self.give_up();
        } else {
            self.inner.push((page, begin as u32));
            self.children.extend_from_slice(children);
        }
    }

    fn give_up(&mut self) {
        *self = Tree { lost: true, ..Tree::default() };
    }

    fn below(&self, page: u32) -> Option<&[u32]> {
        let index = self.inner.binary_search_by_key(&page, |(page, _)| *page).ok()?;
        let end = self.inner.get(index + 1).map_or(self.children.len(), |(_, next)| *next as usize);
        self.children.get(self.inner[index].1 as usize..end)
    }

    /// Returns the number of entries of all leaves below a page.
    fn entries(&self, root: u32) -> Option<u64> {
        let pages = self.counts.len().max(self.inner.last().map_or(0, |(page, _)| *page as usize + 1));
        let (mut left, mut seen, mut entries) = (vec![root], vec![false; pages], 0u64);
        while let Some(page) = left.pop() {
            if self.lost || std::mem::replace(seen.get_mut(page as usize)?, true) {
                return None;
            }
            match self.below(page) {
                Some(children) => left.extend(children),
                None => {
                    let count = self.counts.get(page as usize).filter(|count| **count != NO_LEAF)?;
                    entries += u64::from(*count);
                }
            }
        }
        Some(entries)
    }
}

/// Splits the stream into pages.
#[derive(Debug, Default)]
struct Pages {
    /// The size of a page in bytes; 0 until it is known.
    size: usize,
    buffer: Vec<u8>,
    number: u32,
}

impl Pages {
    /// Returns the first `count` bytes of the file, which contain the page size, as soon as all were read. They remain
    /// the beginning of the first page.
    fn head(&mut self, bytes: &mut &[u8], count: usize) -> Option<&[u8]> {
        let wanted = count.saturating_sub(self.buffer.len()).min(bytes.len());
        let (now, rest) = bytes.split_at(wanted);
        self.buffer.extend_from_slice(now);
        *bytes = rest;
        Some(&self.buffer).filter(|buffer| buffer.len() >= count).map(Vec::as_slice)
    }

    /// Sets the size of a page. Returns `false` if the size is invalid.
    fn set_size(&mut self, size: usize) -> bool {
        self.size = size.clamp(MIN_PAGE, MAX_PAGE);
        self.size == size
    }

    /// Returns the next page as soon as it is complete.
    fn take(&mut self, bytes: &mut &[u8]) -> Option<(u32, Vec<u8>)> {
        let wanted = self.size - self.buffer.len();
        let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
        self.buffer.extend_from_slice(now);
        *bytes = rest;
        if self.buffer.len() < self.size {
            return None;
        }
        let number = self.number;
        self.number = self.number.saturating_add(1);
        Some((number, std::mem::take(&mut self.buffer)))
    }
}

fn le32(page: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(page.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn le16(page: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(page.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn le64(page: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(page.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn be32(page: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(page.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn be16(page: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(page.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// Counts the top-level buckets of a bbolt file.
#[derive(Debug, Default)]
pub(super) struct BoltCount {
    pages: Pages,
    tree: Tree,
    /// The root of the newest meta page, and its transaction.
    root: Option<(u64, u32)>,
}

impl BoltCount {
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        // The first page contains the page size.
        const HEAD: usize = 64;
        if self.pages.size == 0 {
            let Some(head) = self.pages.head(&mut bytes, HEAD) else { return };
            let size = le32(head, 24).unwrap_or(0) as usize;
            self.tree.lost |= !self.pages.set_size(size);
        }
        while !bytes.is_empty() && !self.tree.lost {
            if let Some((number, page)) = self.pages.take(&mut bytes) {
                self.page(number, &page);
            }
        }
    }

    fn page(&mut self, number: u32, page: &[u8]) {
        const BRANCH: u16 = 0x01;
        const LEAF: u16 = 0x02;
        const META: u16 = 0x04;
        let (Some(flags), Some(count)) = (le16(page, 8), le16(page, 10)) else { return };
        if number < 2 && flags & META != 0 {
            let (root, transaction) = (le64(page, 16 + 16), le64(page, 16 + 48));
            if let (Some(root), Some(transaction)) =
                (root.and_then(|root| u32::try_from(root).ok()), transaction)
                && self.root.is_none_or(|(newest, _)| transaction >= newest)
            {
                self.root = Some((transaction, root));
            }
            return;
        }
        // A free page or an overflow page may contain anything, but no other page refers to it.
        let is_page = le64(page, 0) == Some(u64::from(number));
        if is_page && flags == LEAF {
            self.tree.leaf(number, count);
        } else if is_page && flags == BRANCH {
            self.tree.inner(number, bolt_children(page, count).as_deref());
        }
    }

    /// Whether counting was abandoned.
    pub(super) fn is_lost(&self) -> bool {
        self.tree.lost
    }

    pub(super) fn entries(&self) -> Option<u64> {
        self.root.and_then(|(_, root)| self.tree.entries(root))
    }
}

/// Returns the children of a branch page; `None` if it is invalid.
fn bolt_children(page: &[u8], count: u16) -> Option<Vec<u32>> {
    let elements = page.get(16..16 + usize::from(count) * 16).filter(|elements| !elements.is_empty())?;
    elements.chunks_exact(16).map(|element| u32::try_from(le64(element, 8)?).ok()).collect()
}

/// Reads the schema of a SQLite file, and counts the rows of its tables.
#[derive(Debug, Default)]
pub(super) struct SqliteCount {
    pages: Pages,
    tree: Tree,
    /// The pages of the schema that were not read yet.
    schema: BTreeSet<u32>,
    /// The root page of each table that Trivy reads, by its name.
    tables: BTreeMap<String, Option<u32>>,
    /// Whether a page of the schema could not be read.
    unread: bool,
}

impl SqliteCount {
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        const HEAD: usize = 100;
        if self.pages.size == 0 {
            let Some(head) = self.pages.head(&mut bytes, HEAD) else { return };
            let size = match be16(head, 16) {
                Some(1) => MAX_PAGE,
                size => usize::from(size.unwrap_or(0)),
            };
            self.tree.lost |= !self.pages.set_size(size);
            self.pages.number = 1;
            self.schema.insert(1);
        }
        while !bytes.is_empty() && !self.tree.lost {
            if let Some((number, page)) = self.pages.take(&mut bytes) {
                self.page(number, &page);
            }
        }
    }

    fn page(&mut self, number: u32, page: &[u8]) {
        let header = if number == 1 { sqlite::HEADER } else { 0 };
        let (kind, count) = (page.get(header).copied(), be16(page, header + 3).unwrap_or(0));
        let children = match kind {
            Some(sqlite::TABLE_LEAF) => {
                self.tree.leaf(number, count);
                None
            }
            Some(sqlite::TABLE_INNER) => {
                // A free page may look like one in use.
                let children = sqlite_children(page, header, count);
                self.tree.inner(number, children.as_deref());
                children
            }
            _ => None,
        };
        if !self.schema.remove(&number) {
            return;
        }
        match (kind, children) {
            (Some(sqlite::TABLE_LEAF), _) if count <= MAX_SCHEMA_ENTRIES => {
                match sqlite::tables(page, header) {
                    Some(tables) => {
                        let wanted = |name: &str| sqlite::TABLES.contains(&name);
                        self.tables.extend(tables.into_iter().filter(|(name, _)| wanted(name)));
                    }
                    None => self.unread = true,
                }
            }
            // A page that was already read cannot be read again.
            (_, Some(children))
                if children.len() <= MAX_SCHEMA && children.iter().all(|child| *child > number) =>
            {
                self.schema.extend(children);
                self.unread |= self.schema.len() > MAX_SCHEMA;
            }
            _ => self.unread = true,
        }
        if self.unread {
            self.schema.clear();
        }
    }

    /// Returns the tables in the schema that Trivy reads, or `None` if the schema could not be read completely.
    pub(super) fn tables(&self) -> Option<Vec<&str>> {
        let is_read = !self.unread && self.schema.is_empty() && !self.tree.lost;
        is_read.then(|| self.tables.keys().map(String::as_str).collect())
    }

    /// Returns the number of rows of a table.
    pub(super) fn rows(&self, table: &str) -> Option<u64> {
        self.tables.get(table).copied().flatten().and_then(|root| self.tree.entries(root))
    }
}

/// Returns the children of an inner page of a table; `None` if it is invalid.
fn sqlite_children(page: &[u8], header: usize, count: u16) -> Option<Vec<u32>> {
    // A cell contains a page number and a key. It is neither in the header nor in the pointers after it.
    const SMALLEST: usize = 4 + 1;
    let cells = header + 12 + usize::from(count) * 2;
    if cells + usize::from(count) * SMALLEST > page.len() {
        return None;
    }
    let pointers = page.get(header + 12..cells)?.chunks_exact(2);
    let mut children = Vec::with_capacity(usize::from(count) + 1);
    for pointer in pointers {
        let cell = usize::from(be16(pointer, 0)?);
        if cell < cells || cell + SMALLEST > page.len() {
            return None;
        }
        children.push(be32(page, cell)?);
    }
    children.push(be32(page, header + 8)?);
    // The number 0 is invalid.
    children.iter().all(|child| *child > 0).then_some(children)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::sqlite::tests::schema_page;

    fn bolt(pages: &[Vec<u8>], root: u64) -> Vec<u8> {
        let mut file = Vec::new();
        for transaction in [1u64, 2] {
            let mut meta = vec![0; 4096];
            meta[..8].copy_from_slice(&(transaction - 1).to_le_bytes());
            meta[8..10].copy_from_slice(&4u16.to_le_bytes());
            meta[24..28].copy_from_slice(&4096u32.to_le_bytes());
            let root = if transaction == 2 { root } else { 3 };
            meta[32..40].copy_from_slice(&root.to_le_bytes());
            meta[64..72].copy_from_slice(&transaction.to_le_bytes());
            file.extend(meta);
        }
        file.extend(pages.concat());
        file
    }

    fn leaf(number: u64, count: u16) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[..8].copy_from_slice(&number.to_le_bytes());
        page[8..10].copy_from_slice(&2u16.to_le_bytes());
        page[10..12].copy_from_slice(&count.to_le_bytes());
        page
    }

    fn branch(number: u64, children: &[u64]) -> Vec<u8> {
        let mut page = leaf(number, children.len() as u16);
        page[8] = 1;
        for (index, child) in children.iter().enumerate() {
            page[16 + index * 16 + 8..][..8].copy_from_slice(&child.to_le_bytes());
        }
        page
    }

    fn buckets(file: &[u8], step: usize) -> Option<u64> {
        let mut count = BoltCount::default();
        file.chunks(step).for_each(|piece| count.feed(piece));
        count.entries()
    }

    #[test]
    fn buckets_are_counted_in_any_order_of_their_pages() {
        // Pages 2 to 5: a free page, a leaf, the root, another leaf.
        let file = bolt(&[leaf(9, 500), leaf(3, 40), branch(4, &[3, 5]), leaf(5, 30)], 4);
        for step in [1, 63, 4096, 10_000] {
            assert_eq!(buckets(&file, step), Some(70), "{step}");
        }
        assert_eq!(buckets(&bolt(&[leaf(2, 0)], 2), 100), Some(0), "a valid empty database");
        assert_eq!(buckets(&bolt(&[branch(2, &[2])], 2), 100), None, "a cycle");
        assert_eq!(buckets(&bolt(&[], 77), 100), None, "the root is missing");
        assert_eq!(buckets(b"nothing of the kind, and then more of it ", 7), None);
    }

    fn sqlite_file(pages: Vec<Vec<u8>>) -> SqliteCount {
        let mut count = SqliteCount::default();
        pages.concat().chunks(1000).for_each(|piece| count.feed(piece));
        count
    }

    fn rows(count: u16) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[0] = sqlite::TABLE_LEAF;
        page[3..5].copy_from_slice(&count.to_be_bytes());
        page
    }

    fn inner_page(header: usize, children: &[u32]) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[header] = sqlite::TABLE_INNER;
        let (last, cells) = children.split_last().unwrap();
        page[header + 3..][..2].copy_from_slice(&(cells.len() as u16).to_be_bytes());
        page[header + 8..][..4].copy_from_slice(&last.to_be_bytes());
        for (index, child) in cells.iter().enumerate() {
            let at = 4000 - index * 8;
            page[header + 12 + index * 2..][..2].copy_from_slice(&(at as u16).to_be_bytes());
            page[at..at + 4].copy_from_slice(&child.to_be_bytes());
        }
        page
    }

    #[test]
    fn the_tables_in_a_schema_of_one_or_several_pages_are_found() {
        let one = sqlite_file(vec![
            schema_page(true, &[("artifacts", 2), ("indices", 5)]),
            inner_page(0, &[3, 4]),
            rows(100),
            rows(7),
            rows(1),
        ]);
        assert_eq!(one.tables().unwrap(), ["artifacts", "indices"]);
        assert_eq!((one.rows("artifacts"), one.rows("indices"), one.rows("x")), (Some(107), Some(1), None));
        // The schema does not fit the first page.
        let mut first = schema_page(true, &[]);
        first[100..].copy_from_slice(&inner_page(100, &[2, 4])[100..]);
        let pages = vec![
            first,
            schema_page(false, &[("indices", 3)]),
            rows(9),
            schema_page(false, &[("artifacts", 3)]),
        ];
        let several = sqlite_file(pages);
        assert_eq!(several.tables().unwrap(), ["artifacts", "indices"]);
        assert_eq!(several.rows("artifacts"), Some(9));
    }

    #[test]
    fn a_tree_that_cannot_be_followed_has_no_count() {
        let mut first = schema_page(true, &[]);
        first[100..].copy_from_slice(&inner_page(100, &[2, 2])[100..]);
        let ring = sqlite_file(vec![first.clone(), inner_page(0, &[1, 2])]);
        assert_eq!(ring.tables(), None);
        assert_eq!(sqlite_file(vec![first]).tables(), None, "the rest of the schema is missing");
        let ring = sqlite_file(vec![schema_page(true, &[("artifacts", 2)]), inner_page(0, &[2, 3])]);
        assert_eq!(ring.rows("artifacts"), None);
        assert_eq!(sqlite_file(vec![vec![0xff; 4096]]).tables(), None);
    }

    fn bolt_head(size: usize) -> BoltCount {
        let mut count = BoltCount::default();
        let mut meta = bolt(&[], 3)[4096..4096 + size].to_vec();
        meta[24..28].copy_from_slice(&(size as u32).to_le_bytes());
        meta[..8].fill(0);
        count.feed(&meta);
        meta[0] = 1;
        count.feed(&meta);
        count
    }

    fn sqlite_head(size: usize) -> SqliteCount {
        let mut count = SqliteCount::default();
        let mut first = schema_page(true, &[]);
        first[16..18].copy_from_slice(&(size as u16).to_be_bytes());
        count.feed(&first[..size]);
        count
    }

    /// Returns the memory that a tree takes in bytes.
    fn kept(tree: &Tree) -> usize {
        tree.counts.capacity() * 2 + tree.inner.capacity() * 8 + tree.children.capacity() * 4
    }

    const PAGES: u32 = 1_200_000;
    const MOST: usize = 10 << 20;

    /// Feeds pages of 512 bytes, and returns the number of pages after which counting was abandoned.
    fn given_up_at(mut feed: impl FnMut(u32) -> (bool, usize)) -> Option<u32> {
        (2..PAGES).find(|number| {
            let (lost, kept) = feed(*number);
            assert!(kept <= MOST, "{kept} bytes are kept after {number} pages");
            lost
        })
    }

    /// Forged pages compress to almost nothing, so a hostile source can send millions.
    #[test]
    fn useless_inner_pages_take_limited_memory_and_time() {
        for (children, most) in [(0u16, 2000), (32, 2000), (31, 40_000), (1, 140_000)] {
            let mut count = bolt_head(512);
            let mut page = branch(0, &vec![7; usize::from(children.min(31))])[..512].to_vec();
            page[10..12].copy_from_slice(&children.to_le_bytes());
            let at = given_up_at(|number| {
                page[..8].copy_from_slice(&u64::from(number).to_le_bytes());
                count.feed(&page);
                (count.is_lost(), kept(&count.tree))
            });
            assert!(at.is_some_and(|at| at < most), "{children} children in bbolt: {at:?}");
            assert_eq!(count.entries(), None);
        }
        let cells = |count: u16, at: u16| {
            let mut page = vec![0; 512];
            page[0] = sqlite::TABLE_INNER;
            page[3..5].copy_from_slice(&count.to_be_bytes());
            page[11] = 9;
            page[511 - 8] = 9;
            page[12..]
                .chunks_exact_mut(2)
                .take(count.into())
                .for_each(|cell| cell.copy_from_slice(&at.to_be_bytes()));
            page
        };
        let pages = [
            (cells(0, 0), 140_000, "one child"),
            (cells(240, 0), 2000, "cells in the header"),
            (cells(3, 509), 2000, "a cell that ends outside"),
            (cells(3, 15), 2000, "cells in the pointers"),
            (cells(240, 500), 2000, "more cells than fit"),
            (cells(60, 500), 20_000, "many children"),
            (vec![5; 512], 2000, "noise"),
        ];
        for (page, most, what) in pages {
            let mut count = sqlite_head(512);
            let at = given_up_at(|_| {
                count.feed(&page);
                (count.tree.lost, kept(&count.tree))
            });
            assert!(at.is_some_and(|at| at < most), "{what}: {at:?}");
            assert_eq!((count.tables(), count.rows("artifacts")), (None, None));
        }
    }

    /// A free page may look like an invalid inner page. It does not matter, because the tree does not refer to it.
    #[test]
    fn a_few_invalid_pages_are_ignored() {
        let bad = branch(2, &[]);
        let file = bolt(&[bad.clone(), leaf(3, 40), branch(4, &[3, 5]), leaf(5, 30)], 4);
        assert_eq!(buckets(&file, 500), Some(70));
        assert_eq!(buckets(&bolt(&[bad], 2), 500), None, "the tree refers to the invalid page");
        assert_eq!(buckets(&bolt(&[vec![0; 4096], leaf(3, 4), branch(4, &[2, 3])], 4), 500), None, "no leaf");
        let file = vec![schema_page(true, &[("artifacts", 3)]), vec![5; 4096], rows(7)];
        assert_eq!(sqlite_file(file).rows("artifacts"), Some(7));
        let file = vec![schema_page(true, &[("artifacts", 2)]), vec![5; 4096], rows(7)];
        assert_eq!(sqlite_file(file).rows("artifacts"), None);
    }

    #[test]
    fn the_memory_for_a_schema_is_limited() {
        // The schema has more pages than the limit, and each lists tables that Trivy does not read.
        let mut first = schema_page(true, &[]);
        first[100..].copy_from_slice(&inner_page(100, &(2..302).collect::<Vec<u32>>())[100..]);
        let mut pages = vec![first];
        pages.extend((0..300).map(|_| schema_page(false, &[("other", 3)])));
        let count = sqlite_file(pages);
        assert_eq!((count.tables(), count.tables.len(), count.schema.len()), (None, 0, 0));
        // Very many entries share one cell.
        let mut page = schema_page(true, &[("artifacts", 3)]);
        let cell = [page[108], page[109]];
        page[103..105].copy_from_slice(&1000u16.to_be_bytes());
        page[108..108 + 2000].chunks_exact_mut(2).for_each(|pointer| pointer.copy_from_slice(&cell));
        assert_eq!(sqlite_file(vec![page]).tables(), None);
    }
}
