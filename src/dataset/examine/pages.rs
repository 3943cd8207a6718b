//! Counts what a database holds while it passes: the buckets at the top of a bbolt file, and the rows of a table of a
//! SQLite file.
//!
//! Both are trees of pages that may lie anywhere in the file. Of each page the number of its entries is kept, and of
//! inner pages the pages below; when all have passed, the tree is walked. Formats: bbolt v1.4 (internal/common), and
//! "Database File Format" of SQLite. Files may be hostile: what cannot be followed has no count.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataset::sqlite;

/// The most pages of which something is kept: 16 GiB in the smallest pages that are in use.
const MAX_PAGES: usize = 1 << 22;
/// The most pages that inner pages may name together.
const MAX_CHILDREN: usize = 1 << 20;
/// The largest page, in bytes.
const MAX_PAGE: usize = 64 << 10;
/// The most pages that the schema of a SQLite file may take.
const MAX_SCHEMA: usize = 64;

/// What a tree of pages looks like so far.
#[derive(Debug, Default)]
struct Tree {
    /// The number of entries of each leaf.
    counts: Vec<u16>,
    /// The pages below each inner page.
    children: BTreeMap<u32, Vec<u32>>,
    named: usize,
    /// Too much to be kept.
    lost: bool,
}

impl Tree {
    fn leaf(&mut self, page: u32, count: u16) {
        let index = page as usize;
        if index >= MAX_PAGES {
            self.lost = true;
        } else {
            if self.counts.len() <= index {
                self.counts.resize(index + 1, 0);
            }
            self.counts[index] = count;
        }
    }

    fn inner(&mut self, page: u32, children: Vec<u32>) {
        self.named += children.len();
        self.lost |= self.named > MAX_CHILDREN;
        if !self.lost {
            self.children.insert(page, children);
        }
    }

    /// The entries of all leaves below a page.
    fn entries(&self, root: u32) -> Option<u64> {
        let (mut left, mut seen, mut entries) = (vec![root], BTreeSet::new(), 0u64);
        while let Some(page) = left.pop() {
            if self.lost || !seen.insert(page) {
                return None;
            }
            match self.children.get(&page) {
                Some(children) => left.extend(children),
                None => entries += u64::from(*self.counts.get(page as usize)?),
            }
        }
        Some(entries)
    }
}

/// Cuts what passes into pages.
#[derive(Debug, Default)]
struct Pages {
    /// The bytes of a page; none until it is known.
    size: usize,
    buffer: Vec<u8>,
    number: u32,
}

impl Pages {
    /// The next page, when all of it has come.
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

/// The buckets at the top of a bbolt file.
#[derive(Debug, Default)]
pub(super) struct BoltCount {
    pages: Pages,
    tree: Tree,
    /// The root of the newest meta page, and its transaction.
    root: Option<(u64, u32)>,
}

impl BoltCount {
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        // The page size stands in the first page.
        const HEAD: usize = 64;
        if self.pages.size == 0 {
            let wanted = HEAD.saturating_sub(self.pages.buffer.len()).min(bytes.len());
            self.pages.buffer.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if self.pages.buffer.len() < HEAD {
                return;
            }
            let size = le32(&self.pages.buffer, 24).unwrap_or(0) as usize;
            self.tree.lost |= !(512..=MAX_PAGE).contains(&size);
            self.pages.size = size.clamp(512, MAX_PAGE);
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
        // A page that is free, or goes on with the one before it, may hold anything; nothing leads to it.
        let is_page = le64(page, 0) == Some(u64::from(number));
        if is_page && flags == LEAF {
            self.tree.leaf(number, count);
        } else if is_page && flags == BRANCH {
            let child = |index: u16| le64(page, 16 + usize::from(index) * 16 + 8);
            let children = (0..count).map(|index| u32::try_from(child(index)?).ok());
            match children.collect::<Option<Vec<u32>>>() {
                Some(children) => self.tree.inner(number, children),
                None => self.tree.lost = true,
            }
        }
    }

    pub(super) fn entries(&self) -> Option<u64> {
        self.root.and_then(|(_, root)| self.tree.entries(root))
    }
}

/// The schema of a SQLite file, and the rows of its tables.
#[derive(Debug, Default)]
pub(super) struct SqliteCount {
    pages: Pages,
    tree: Tree,
    /// The pages that hold the schema, and have not come yet.
    schema: BTreeSet<u32>,
    /// The first page of each table, by its name.
    tables: BTreeMap<String, Option<u32>>,
    /// A part of the schema could not be read.
    unread: bool,
}

impl SqliteCount {
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        const HEAD: usize = 100;
        if self.pages.size == 0 {
            let wanted = HEAD.saturating_sub(self.pages.buffer.len()).min(bytes.len());
            self.pages.buffer.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if self.pages.buffer.len() < HEAD {
                return;
            }
            let size = match be16(&self.pages.buffer, 16) {
                Some(1) => MAX_PAGE,
                size => usize::from(size.unwrap_or(0)),
            };
            self.tree.lost |= !(512..=MAX_PAGE).contains(&size);
            self.pages.size = size.clamp(512, MAX_PAGE);
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
                Some(Vec::new())
            }
            Some(sqlite::TABLE_INNER) => {
                let children = inner(page, header, count);
                // A page that is free looks like one that is not.
                self.tree.inner(number, children.clone().unwrap_or_default());
                children
            }
            _ => None,
        };
        if !self.schema.remove(&number) {
            return;
        }
        match (kind, children) {
            (Some(sqlite::TABLE_LEAF), _) => match sqlite::tables(page, header) {
                Some(tables) => self.tables.extend(tables),
                None => self.unread = true,
            },
            (_, Some(children)) => {
                // What has passed already is not there any more.
                self.unread |= children.iter().any(|child| *child <= number);
                self.schema.extend(children);
                self.unread |= self.schema.len() > MAX_SCHEMA;
            }
            _ => self.unread = true,
        }
    }

    /// The tables that the schema lists, or `None` if a part of it could not be read.
    pub(super) fn tables(&self) -> Option<Vec<&str>> {
        let is_read = !self.unread && self.schema.is_empty() && !self.tree.lost;
        is_read.then(|| self.tables.keys().map(String::as_str).collect())
    }

    /// The rows of a table.
    pub(super) fn rows(&self, table: &str) -> Option<u64> {
        self.tables.get(table).copied().flatten().and_then(|root| self.tree.entries(root))
    }
}

/// The pages below an inner page of a table.
fn inner(page: &[u8], header: usize, count: u16) -> Option<Vec<u32>> {
    let cell = |index: u16| be32(page, usize::from(be16(page, header + 12 + usize::from(index) * 2)?));
    let mut children = (0..count).map(cell).collect::<Option<Vec<u32>>>()?;
    children.push(be32(page, header + 8)?);
    Some(children)
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
    fn buckets_are_counted_wherever_their_pages_lie() {
        // Pages 2 to 5: one that is free, a leaf, the root, another leaf.
        let file = bolt(&[leaf(9, 500), leaf(3, 40), branch(4, &[3, 5]), leaf(5, 30)], 4);
        for step in [1, 63, 4096, 10_000] {
            assert_eq!(buckets(&file, step), Some(70), "{step}");
        }
        assert_eq!(buckets(&bolt(&[leaf(2, 0)], 2), 100), Some(0), "an empty database in good form");
        assert_eq!(buckets(&bolt(&[branch(2, &[2])], 2), 100), None, "a ring");
        assert_eq!(buckets(&bolt(&[], 77), 100), None, "the root is not there");
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
    fn a_schema_of_one_page_or_of_several_leads_to_its_tables() {
        let one = sqlite_file(vec![
            schema_page(true, &[("artifacts", 2), ("indices", 5)]),
            inner_page(0, &[3, 4]),
            rows(100),
            rows(7),
            rows(1),
        ]);
        assert_eq!(one.tables().unwrap(), ["artifacts", "indices"]);
        assert_eq!((one.rows("artifacts"), one.rows("indices"), one.rows("x")), (Some(107), Some(1), None));
        // The schema has outgrown the first page.
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
    fn what_cannot_be_followed_has_no_count() {
        let mut first = schema_page(true, &[]);
        first[100..].copy_from_slice(&inner_page(100, &[2, 2])[100..]);
        let ring = sqlite_file(vec![first.clone(), inner_page(0, &[1, 2])]);
        assert_eq!(ring.tables(), None);
        assert_eq!(sqlite_file(vec![first]).tables(), None, "the rest of the schema never comes");
        let ring = sqlite_file(vec![schema_page(true, &[("artifacts", 2)]), inner_page(0, &[2, 3])]);
        assert_eq!(ring.rows("artifacts"), None);
        assert_eq!(sqlite_file(vec![vec![0xff; 4096]]).tables(), None);
    }
}
