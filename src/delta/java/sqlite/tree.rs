//! A b-tree to which cells are appended in the order of their keys. It knows neither keys nor records.

use super::balance::{add_leaf, balance_siblings, deepen};
use super::bytes::Inconsistent;
use super::page::{Kind, PAGE, Page};
use super::pager::{PageError, Pager};

/// A b-tree, open for appending.
pub(in crate::delta::java) struct Tree {
    root: u32,
    /// Whether it is an index. `VACUUM` loads indexes in bulk, which fills their pages from the left.
    bulk: bool,
    /// The page numbers from the root to the last leaf.
    path: Vec<u32>,
    /// The last leaf.
    leaf: Page,
}

impl Tree {
    /// Creates an empty tree, and returns the number of its root.
    ///
    /// # Errors
    /// If no page can be allocated.
    pub(in crate::delta::java) fn create(pager: &mut Pager<'_>, kind: Kind) -> Result<u32, PageError> {
        let (number, mut root) = pager.allocate(0)?;
        root.clear(kind, pager.layout());
        pager.put(number, root)?;
        Ok(number)
    }

    /// Opens an empty tree.
    ///
    /// # Errors
    /// If its root cannot be read.
    pub(in crate::delta::java) fn open(pager: &mut Pager<'_>, root: u32) -> Result<Tree, PageError> {
        let leaf = pager.take(root)?;
        let bulk = leaf.kind() == Kind::IndexLeaf;
        Ok(Tree { root, bulk, path: vec![root], leaf })
    }

    /// Appends a cell.
    ///
    /// # Errors
    /// If no page can be allocated, or the file cannot be read or written.
    #[inline]
    pub(in crate::delta::java) fn append(
        &mut self,
        pager: &mut Pager<'_>,
        cell: &[u8],
    ) -> Result<(), PageError> {
        self.leaf.insert(self.leaf.count(), cell)?;
        if self.leaf.overflow.is_empty() { Ok(()) } else { self.split(pager) }
    }

    /// Writes all pages.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(in crate::delta::java) fn close(self, pager: &mut Pager<'_>) -> Result<(), PageError> {
        let number = *self.path.last().ok_or(Inconsistent)?;
        pager.put(number, self.leaf)?;
        pager.flush()
    }

    /// Balances the tree after an overflow, and opens the new last leaf.
    fn split(&mut self, pager: &mut Pager<'_>) -> Result<(), PageError> {
        let number = *self.path.last().ok_or(Inconsistent)?;
        let leaf = std::mem::replace(&mut self.leaf, Page::unused(Box::new([0; PAGE])));
        pager.put(number, leaf)?;
        self.balance(pager)?;
        self.path.clear();
        let mut number = self.root;
        loop {
            self.path.push(number);
            let page = pager.take(number)?;
            if page.kind().is_leaf() {
                self.leaf = page;
                return Ok(());
            }
            let child = page.right_child();
            pager.put(number, page)?;
            number = child;
        }
    }

    /// Balances the pages of the path, from the leaf to the root (`balance`).
    fn balance(&mut self, pager: &mut Pager<'_>) -> Result<(), PageError> {
        let number_at = |path: &[u32], level: usize| path.get(level).copied().ok_or(Inconsistent);
        let mut level = self.path.len().checked_sub(1).ok_or(Inconsistent)?;
        loop {
            let number = number_at(&self.path, level)?;
            let mut page = pager.take(number)?;
            let fits = page.overflow.is_empty();
            // A page with more than 2/3 of free space is balanced as well, but a root only if cells do not fit.
            if fits && (page.free * 3 <= PAGE * 2 || level == 0) {
                return pager.put(number, page);
            }
            if level == 0 {
                let child = deepen(pager, number, page)?;
                self.path.insert(1, child);
                level = 1;
                continue;
            }
            let parent_number = number_at(&self.path, level - 1)?;
            let mut parent = pager.take(parent_number)?;
            if page.kind() == Kind::TableLeaf {
                add_leaf(pager, number, &mut page, &mut parent)?;
                pager.put(number, page)?;
            } else {
                pager.put(number, page)?;
                balance_siblings(pager, &mut parent, level == 1, self.bulk)?;
            }
            pager.put(parent_number, parent)?;
            level -= 1;
        }
    }
}
