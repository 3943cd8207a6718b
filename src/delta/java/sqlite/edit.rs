//! Changes which of a list of cells a page holds. It edits the page in place, as SQLite does: which bytes end up where
//! depends on the order of the steps.

use std::ops::Range;

use super::bytes::{Inconsistent, Sound};
use super::layout::Layout;
use super::page::{PAGE, Page};

/// The most ranges that SQLite collects before it releases them (`pageFreeArray`).
const RANGES: usize = 10;

/// The cells of several sibling pages and the dividers between them, in order.
#[derive(Default)]
pub(in crate::delta::java) struct Cells {
    bytes: Vec<u8>,
    list: Vec<Cell>,
}

/// A cell in [`Cells`].
struct Cell {
    start: usize,
    length: usize,
    /// The sibling page that holds the cell, and the offset there. Dividers and overflow cells have none.
    home: Option<(usize, usize)>,
}

impl Cells {
    /// Appends a cell.
    pub(in crate::delta::java) fn push(&mut self, cell: &[u8], home: Option<(usize, usize)>) {
        self.list.push(Cell { start: self.bytes.len(), length: cell.len(), home });
        self.bytes.extend_from_slice(cell);
    }

    /// Returns the number of cells.
    pub(in crate::delta::java) fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns a cell.
    ///
    /// # Errors
    /// If there is no such cell.
    #[inline]
    pub(in crate::delta::java) fn get(&self, index: usize) -> Sound<&[u8]> {
        let cell = self.list.get(index).ok_or(Inconsistent)?;
        self.bytes.get(cell.start..cell.start + cell.length).ok_or(Inconsistent)
    }

    /// Returns the length of a cell.
    ///
    /// # Errors
    /// If there is no such cell.
    pub(in crate::delta::java) fn length(&self, index: usize) -> Sound<usize> {
        self.list.get(index).map(|cell| cell.length).ok_or(Inconsistent)
    }
}

/// The change of one page.
pub(in crate::delta::java) struct Change<'a> {
    /// All cells.
    pub(in crate::delta::java) cells: &'a Cells,
    /// The number of the page among its siblings. New pages have numbers that no cell has.
    pub(in crate::delta::java) sibling: usize,
    /// The index of the first cell that the page holds now.
    pub(in crate::delta::java) old: usize,
    /// The indexes of the cells that it is to hold.
    pub(in crate::delta::java) new: Range<usize>,
}

impl Change<'_> {
    /// Applies the change to the page (`editPage`). It does not set the number of free bytes.
    ///
    /// # Errors
    /// If the page is inconsistent.
    pub(in crate::delta::java) fn apply(&self, page: &mut Page, layout: Layout) -> Sound<()> {
        if !self.edit(page, layout)? {
            rebuild(page, self.cells, self.new.clone())?;
        }
        page.overflow.clear();
        Ok(())
    }

    /// Edits the page in place. The result is `false` if there is no contiguous room for a cell.
    fn edit(&self, page: &mut Page, layout: Layout) -> Sound<bool> {
        let (old, new) = (self.old, self.new.clone());
        let start = page.pointer(0);
        let begin = page.pointer(new.len());
        let mut count = page.count();
        let old_end = old + count + page.overflow.len();
        if old < new.start {
            let gone = self.release(page, old..new.start, layout)?;
            // SQLite copies as many pointers as there were. Those beyond the remaining ones are unused bytes.
            let end = page.pointer(gone + count).min(PAGE);
            page.move_bytes(page.pointer(gone)..end, start)?;
            count = count.checked_sub(gone).ok_or(Inconsistent)?;
        }
        if new.end < old_end {
            let gone = self.release(page, new.end..old_end, layout)?;
            count = count.checked_sub(gone).ok_or(Inconsistent)?;
        }
        let mut top = page.top();
        if top < begin {
            return Ok(false);
        }
        if new.start < old {
            let added = new.len().min(old - new.start);
            page.move_bytes(start..page.pointer(count), page.pointer(added))?;
            if !self.insert(page, begin, &mut top, (0, new.start..new.start + added))? {
                return Ok(false);
            }
            count += added;
        }
        let overflow: Vec<usize> = page.overflow.iter().map(|cell| old + cell.index).collect();
        for index in overflow.into_iter().filter(|index| new.contains(index)) {
            let position = index - new.start;
            if count > position {
                let pointer = page.pointer(position);
                page.move_bytes(pointer..page.pointer(count), pointer + 2)?;
            }
            count += 1;
            if !self.insert(page, begin, &mut top, (position, index..index + 1))? {
                return Ok(false);
            }
        }
        if !self.insert(page, begin, &mut top, (count, new.start + count..new.end))? {
            return Ok(false);
        }
        page.set_count(new.len())?;
        page.set_top(top)?;
        Ok(true)
    }

    /// Inserts cells: `place` is the position of the first one on the page, and their indexes (`pageInsertArray`). The
    /// result is `false` if there is no room between the end of the cell pointer array and the cell content area.
    fn insert(
        &self,
        page: &mut Page,
        begin: usize,
        top: &mut usize,
        place: (usize, Range<usize>),
    ) -> Sound<bool> {
        let (mut position, indexes) = place;
        for index in indexes {
            let cell = self.cells.get(index)?;
            let slot = if page.has_blocks() { page.find_slot(cell.len())? } else { None };
            let at = match slot {
                Some(slot) => slot,
                None if *top < begin + cell.len() => return Ok(false),
                None => {
                    *top -= cell.len();
                    *top
                }
            };
            page.write_cell(at, cell)?;
            page.set_pointer(position, at)?;
            position += 1;
        }
        Ok(true)
    }

    /// Releases the room of those cells that the page holds (`pageFreeArray`), and returns their number. Adjacent cells
    /// are joined first.
    fn release(&self, page: &mut Page, indexes: Range<usize>, layout: Layout) -> Sound<usize> {
        let old = layout.old_free_blocks;
        let most = if old { 1 } else { RANGES };
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(most);
        let mut released = 0;
        for cell in self.cells.list.get(indexes).ok_or(Inconsistent)? {
            let Some((_, start)) = cell.home.filter(|home| home.0 == self.sibling) else { continue };
            let end = start + cell.length;
            released += 1;
            // SQLite up to 3.41 joins a cell only with the previous one, and only if it lies before it.
            match ranges.iter_mut().find(|range| range.start == end || (!old && range.end == start)) {
                Some(range) if range.start == end => range.start = start,
                Some(range) => range.end = end,
                None => {
                    if ranges.len() == most {
                        release_all(page, &mut ranges, layout)?;
                    }
                    ranges.push(start..end);
                }
            }
        }
        release_all(page, &mut ranges, layout)?;
        Ok(released)
    }
}

/// Releases the ranges in order.
fn release_all(page: &mut Page, ranges: &mut Vec<Range<usize>>, layout: Layout) -> Sound<()> {
    for range in ranges.drain(..) {
        page.release(range.start, range.len(), layout)?;
    }
    Ok(())
}

/// Writes the cells from the end of the page (`rebuildPage`). It does not set the number of free bytes, and bytes
/// between the cell pointer array and the cells stay.
///
/// # Errors
/// If the cells do not fit.
pub(in crate::delta::java) fn rebuild(page: &mut Page, cells: &Cells, indexes: Range<usize>) -> Sound<()> {
    let count = indexes.len();
    let mut top = PAGE;
    for (position, index) in indexes.enumerate() {
        let cell = cells.get(index)?;
        top = top.checked_sub(cell.len()).ok_or(Inconsistent)?;
        if top < page.pointer(position + 1) {
            return Err(Inconsistent);
        }
        page.set_pointer(position, top)?;
        page.write_cell(top, cell)?;
    }
    page.forget_free_blocks();
    page.set_count(count)?;
    page.set_top(top)
}
