//! Allocates pages, keeps the recently used ones in memory, and writes the others to the file in large pieces.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::bytes::{Inconsistent, get_u32, put};
use super::layout::Layout;
use super::page::{PAGE, Page};

/// The page at 1 GiB. SQLite locks its bytes and never stores anything in it.
const LOCK_PAGE: u32 = (1 << 30) / PAGE as u32 + 1;
/// The most pages in memory: 4 MiB.
const CACHED: usize = 1024;
/// The number of most recent uses whose pages stay in memory when the others are written.
const RECENT: u64 = 128;
/// The most bytes that are written at once.
const BATCH: usize = 1 << 20;
/// The most leaves in a trunk page of the free-list to which SQLite adds one (`freePage2`).
const TRUNK_LEAVES: usize = PAGE / 4 - 8;

/// The reason that pages cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// More pages are needed than expected.
    #[error("the rows need a larger database than expected")]
    TooLarge,
    /// The pages contradict each other.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
}

/// A page in memory, and when it was used last.
struct Cached {
    page: Page,
    used: u64,
}

/// The pages of the file.
pub(in crate::delta::java) struct Pager<'a> {
    file: &'a File,
    layout: Layout,
    /// The number of the last page.
    last: u32,
    /// The most pages.
    limit: u32,
    /// The first trunk page of the free-list, or 0.
    trunk: u32,
    /// The number of pages in the free-list.
    free_pages: u32,
    cache: HashMap<u32, Cached>,
    /// The number of uses of all pages so far.
    uses: u64,
}

impl<'a> Pager<'a> {
    /// Creates a pager of an empty file that may have up to `limit` pages. Page 1 exists.
    pub(in crate::delta::java) fn new(file: &'a File, layout: Layout, limit: u32) -> Self {
        let cache = HashMap::with_capacity(CACHED + 1);
        Pager { file, layout, last: 1, limit, trunk: 0, free_pages: 0, cache, uses: 0 }
    }

    /// Returns the layout.
    pub(in crate::delta::java) fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns the number of pages.
    pub(in crate::delta::java) fn count(&self) -> u32 {
        self.last
    }

    /// Allocates a page (`allocateBtreePage`), and returns its number and the page: zeros at the end of the file, or
    /// its former bytes from the free-list. With `near` other than 0, the free page nearest to that page is preferred.
    ///
    /// # Errors
    /// If the limit is reached, or the file cannot be read.
    pub(in crate::delta::java) fn allocate(&mut self, near: u32) -> Result<(u32, Page), PageError> {
        if self.free_pages > 0 {
            return self.reuse(near);
        }
        let mut next = self.last.checked_add(1).ok_or(PageError::TooLarge)?;
        if next == LOCK_PAGE {
            next += 1;
        }
        if next > self.limit {
            return Err(PageError::TooLarge);
        }
        self.last = next;
        Ok((next, Page::unused(Box::new([0; PAGE]))))
    }

    /// Takes a page from the free-list.
    fn reuse(&mut self, near: u32) -> Result<(u32, Page), PageError> {
        self.free_pages -= 1;
        let number = self.trunk;
        let mut trunk = self.take_unused(number)?;
        let leaves = get_u32(&trunk.data[..], 4)? as usize;
        if leaves == 0 {
            self.trunk = get_u32(&trunk.data[..], 0)?;
            return Ok((number, trunk));
        }
        let leaf = |trunk: &Page, index: usize| get_u32(&trunk.data[..], 8 + 4 * index);
        let mut best = 0;
        if near > 0 {
            for index in 1..leaves {
                if leaf(&trunk, index)?.abs_diff(near) < leaf(&trunk, best)?.abs_diff(near) {
                    best = index;
                }
            }
        }
        let chosen = leaf(&trunk, best)?;
        // The last leaf takes the place of the chosen one.
        let last = leaf(&trunk, leaves - 1)?;
        if best + 1 < leaves {
            put(&mut trunk.data[..], 8 + 4 * best, &last.to_be_bytes())?;
        }
        put(&mut trunk.data[..], 4, &(leaves as u32 - 1).to_be_bytes())?;
        self.put(number, trunk)?;
        Ok((chosen, self.take_unused(chosen)?))
    }

    /// Adds a page to the free-list (`freePage2`).
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub(in crate::delta::java) fn free(&mut self, number: u32, mut page: Page) -> Result<(), PageError> {
        page.overflow.clear();
        if self.layout.secure_delete {
            page.data.fill(0);
        }
        if self.free_pages > 0 {
            let mut trunk = self.take_unused(self.trunk)?;
            let leaves = get_u32(&trunk.data[..], 4)?;
            let room = (leaves as usize) < TRUNK_LEAVES;
            if room {
                put(&mut trunk.data[..], 4, &(leaves + 1).to_be_bytes())?;
                put(&mut trunk.data[..], 8 + 4 * leaves as usize, &number.to_be_bytes())?;
            }
            self.put(self.trunk, trunk)?;
            if room {
                self.free_pages += 1;
                return self.put(number, page);
            }
        }
        put(&mut page.data[..], 0, &self.trunk.to_be_bytes())?;
        put(&mut page.data[..], 4, &[0; 4])?;
        self.trunk = number;
        self.free_pages += 1;
        self.put(number, page)
    }

    /// Takes a b-tree page out of the cache, or reads it. [`Pager::put`] returns it.
    ///
    /// # Errors
    /// If it cannot be read or is no b-tree page.
    pub(in crate::delta::java) fn take(&mut self, number: u32) -> Result<Page, PageError> {
        match self.cache.remove(&number) {
            Some(cached) => Ok(cached.page),
            None => Ok(Page::parse(self.read(number)?)?),
        }
    }

    /// Takes a page of the free-list, whatever its bytes are.
    fn take_unused(&mut self, number: u32) -> Result<Page, PageError> {
        match self.cache.remove(&number) {
            Some(cached) => Ok(cached.page),
            None => Ok(Page::unused(self.read(number)?)),
        }
    }

    /// Reads a page from the file.
    fn read(&self, number: u32) -> Result<Box<[u8; PAGE]>, PageError> {
        let mut data = Box::new([0; PAGE]);
        self.file.read_exact_at(&mut data[..], offset(number)?)?;
        Ok(data)
    }

    /// Puts a page into the cache. If the cache is full, the pages that were not used recently are written.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(in crate::delta::java) fn put(&mut self, number: u32, page: Page) -> Result<(), PageError> {
        self.uses += 1;
        self.cache.insert(number, Cached { page, used: self.uses });
        if self.cache.len() > CACHED {
            self.write_before(self.uses.saturating_sub(RECENT))?;
        }
        Ok(())
    }

    /// Writes all pages.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(in crate::delta::java) fn flush(&mut self) -> Result<(), PageError> {
        self.write_before(u64::MAX)
    }

    /// Writes the pages whose last use was before this one, and removes them from the cache. Neighboring pages are
    /// written together.
    fn write_before(&mut self, limit: u64) -> Result<(), PageError> {
        let mut pages: Vec<(u32, Page)> = self
            .cache
            .extract_if(|_, cached| cached.used < limit)
            .map(|(n, cached)| (n, cached.page))
            .collect();
        pages.sort_unstable_by_key(|(number, _)| *number);
        let mut batch: Vec<u8> = Vec::with_capacity(BATCH.min(pages.len() * PAGE));
        let mut start = 0;
        for (number, page) in &pages {
            let at = offset(*number)?;
            if batch.len() >= BATCH || at != start + batch.len() as u64 {
                self.file.write_all_at(&batch, start)?;
                batch.clear();
            }
            if batch.is_empty() {
                start = at;
            }
            batch.extend_from_slice(&page.data[..]);
        }
        self.file.write_all_at(&batch, start)?;
        Ok(())
    }
}

/// Returns the offset of a page in the file.
fn offset(number: u32) -> Result<u64, Inconsistent> {
    Ok(u64::from(number.checked_sub(1).ok_or(Inconsistent)?) * PAGE as u64)
}

#[cfg(test)]
mod tests {
    use super::super::page::Kind;
    use super::*;

    /// Returns a b-tree page whose right-most child tells it from others.
    fn page(child: u32, layout: Layout) -> Page {
        let mut page = Page::unused(Box::new([0; PAGE]));
        page.clear(Kind::TableInterior, layout);
        page.set_right_child(child);
        page
    }

    #[test]
    fn the_lock_page_is_never_allocated() {
        let file = tempfile::tempfile().unwrap();
        let mut pager = Pager::new(&file, Layout::default(), u32::MAX);
        pager.last = LOCK_PAGE - 2;
        let numbers = [(); 2].map(|()| pager.allocate(0).unwrap().0);
        assert_eq!(numbers, [262_144, 262_146]);
    }

    #[test]
    fn no_page_beyond_the_limit_is_allocated() {
        let file = tempfile::tempfile().unwrap();
        let mut pager = Pager::new(&file, Layout::default(), 3);
        assert_eq!([(); 2].map(|()| pager.allocate(0).unwrap().0), [2, 3]);
        assert!(matches!(pager.allocate(0), Err(PageError::TooLarge)));
        pager.last = u32::MAX;
        assert!(matches!(pager.allocate(0), Err(PageError::TooLarge)));
    }

    #[test]
    fn pages_that_left_the_cache_are_read_again() {
        let file = tempfile::tempfile().unwrap();
        let layout = Layout::default();
        let mut pager = Pager::new(&file, layout, 5000);
        for _ in 0..4000 {
            let (number, _) = pager.allocate(0).unwrap();
            pager.put(number, page(number, layout)).unwrap();
            assert!(pager.cache.len() <= CACHED);
        }
        for number in (2..=4001).rev() {
            let page = pager.take(number).unwrap();
            assert_eq!(page.right_child(), number);
            pager.put(number, page).unwrap();
        }
        pager.flush().unwrap();
        assert!(pager.cache.is_empty());
        assert_eq!(file.metadata().unwrap().len(), 4001 * PAGE as u64);
        assert_eq!(pager.take(4001).unwrap().right_child(), 4001);
    }

    #[test]
    fn freed_pages_are_reused_in_the_order_of_sqlite() {
        let file = tempfile::tempfile().unwrap();
        for secure_delete in [false, true] {
            let layout = Layout { secure_delete, ..Layout::default() };
            let mut pager = Pager::new(&file, layout, 100);
            for _ in 0..9 {
                pager.allocate(0).unwrap();
            }
            // The first one becomes the trunk page, the others its leaves.
            for number in [5, 7, 9, 8, 2] {
                pager.free(number, page(number, layout)).unwrap();
            }
            let mut reuse = |near| pager.allocate(near).unwrap();
            let (number, page) = reuse(0);
            assert_eq!(number, 7);
            assert_eq!(page.right_child(), if secure_delete { 0 } else { 7 });
            assert_eq!([9, 1, 0, 0, 0].map(|near| reuse(near).0), [9, 2, 8, 5, 11]);
        }
    }

    #[test]
    fn a_full_trunk_page_is_followed_by_another() {
        let file = tempfile::tempfile().unwrap();
        let layout = Layout::default();
        let mut pager = Pager::new(&file, layout, 3000);
        let count = TRUNK_LEAVES as u32 + 5;
        for _ in 0..count {
            pager.allocate(0).unwrap();
        }
        for number in 2..2 + count {
            pager.free(number, page(number, layout)).unwrap();
        }
        assert_eq!(pager.trunk, 3 + TRUNK_LEAVES as u32);
        let mut reused: Vec<u32> = (0..count).map(|_| pager.allocate(0).unwrap().0).collect();
        assert_eq!((pager.free_pages, pager.trunk), (0, 0));
        reused.sort_unstable();
        assert!(reused.into_iter().eq(2..2 + count));
        assert_eq!(pager.allocate(0).unwrap().0, 2 + count);
    }
}
