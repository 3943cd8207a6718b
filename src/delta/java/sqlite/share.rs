//! Decides how many pages a list of cells needs, and which cells each page holds. It reads and writes no pages.

use super::bytes::{Inconsistent, Sound};
use super::edit::Cells;

/// The most pages that the cells of 3 pages can need.
const MOST: usize = 5;

/// The part of the cells that one page holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::delta::java) struct Share {
    /// The bytes of the cells and their pointers. It is negative only during the computation.
    pub(in crate::delta::java) size: i64,
    /// The index of the divider after the page, or the number of all cells.
    pub(in crate::delta::java) end: usize,
}

/// The computation. The cells include the dividers between the pages: the cell after each share goes to the parent.
struct Shares<'a> {
    cells: &'a Cells,
    /// The bytes of a page after its header.
    usable: i64,
    /// One more than [`MOST`], because sizes move to the page after the last one.
    list: [Share; MOST + 1],
    /// The number of pages.
    pages: usize,
}

/// Distributes the cells over pages with `usable` bytes each, as `balance_nonroot` does. `old` are the shares of the
/// present pages. With `bulk`, pages are filled from the left; otherwise the last ones are evened out.
///
/// # Errors
/// If a page would remain empty, or more than 5 pages are needed.
pub(in crate::delta::java) fn share_out(
    cells: &Cells,
    old: &[Share],
    usable: usize,
    bulk: bool,
) -> Sound<Vec<Share>> {
    let mut list = [Share::default(); MOST + 1];
    list.get_mut(..old.len()).ok_or(Inconsistent)?.copy_from_slice(old);
    let usable = i64::try_from(usable).map_err(|_| Inconsistent)?;
    let mut shares = Shares { cells, usable, list, pages: old.len() };
    shares.fill_from_left()?;
    for right in (1..shares.pages).rev() {
        shares.move_right(right, bulk)?;
    }
    Ok(shares.list.get(..shares.pages).ok_or(Inconsistent)?.to_vec())
}

impl Shares<'_> {
    /// Returns a share.
    fn share(&mut self, index: usize) -> Sound<&mut Share> {
        self.list.get_mut(index).ok_or(Inconsistent)
    }

    /// Returns the bytes of a cell without its pointer.
    fn length(&self, index: usize) -> Sound<i64> {
        i64::try_from(self.cells.length(index)?).map_err(|_| Inconsistent)
    }

    /// Returns the bytes of a cell and its pointer, or 0 after the last cell.
    fn size(&self, index: usize) -> Sound<i64> {
        if index < self.cells.len() { Ok(self.length(index)? + 2) } else { Ok(0) }
    }

    /// Moves cells so that each page but the last is as full as possible.
    fn fill_from_left(&mut self) -> Sound<()> {
        let total = self.cells.len();
        let mut page = 0;
        let mut before = 0;
        while page < self.pages {
            while self.share(page)?.size > self.usable {
                if page + 1 >= self.pages {
                    self.pages = page + 2;
                    if self.pages > MOST {
                        return Err(Inconsistent);
                    }
                    *self.share(page + 1)? = Share { size: 0, end: total };
                }
                let end = self.share(page)?.end;
                let last = end.checked_sub(1).ok_or(Inconsistent)?;
                // The last cell becomes the divider, and the divider becomes a cell of the next page.
                let (leaves, enters) = (self.size(last)?, self.size(end)?);
                self.share(page)?.size -= leaves;
                self.share(page)?.end = last;
                self.share(page + 1)?.size += enters;
            }
            loop {
                let Share { size, end } = *self.share(page)?;
                let more = self.size(end)?;
                if end >= total || size + more > self.usable {
                    break;
                }
                let next = self.size(end + 1)?;
                *self.share(page)? = Share { size: size + more, end: end + 1 };
                self.share(page + 1)?.size -= next;
            }
            let end = self.share(page)?.end;
            if end >= total {
                self.pages = page + 1;
            } else if end <= before {
                return Err(Inconsistent);
            }
            before = end;
            page += 1;
        }
        Ok(())
    }

    /// Moves cells from the page before to this page: one if this page is empty, and without `bulk` as long as this
    /// makes the two more equal.
    fn move_right(&mut self, right: usize, bulk: bool) -> Sound<()> {
        let is_last = right + 1 == self.pages;
        let mut to = self.share(right)?.size;
        let Share { size: mut from, mut end } = *self.share(right - 1)?;
        while let Some(last) = end.checked_sub(1) {
            let (leaves, enters) = (self.length(last)?, self.length(end)?);
            let pointer = if is_last { 0 } else { 2 };
            if to != 0 && (bulk || to + enters + 2 > from - (leaves + pointer)) {
                break;
            }
            to += enters + 2;
            from -= leaves + 2;
            end = last;
        }
        let before = if right > 1 { self.share(right - 2)?.end } else { 0 };
        if end <= before {
            return Err(Inconsistent);
        }
        self.share(right)?.size = to;
        *self.share(right - 1)? = Share { size: from, end };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns cells of these lengths.
    fn cells(lengths: &[usize]) -> Cells {
        let mut cells = Cells::default();
        for length in lengths {
            cells.push(&vec![0; *length], None);
        }
        cells
    }

    #[test]
    fn bulk_fills_from_the_left_and_leaves_no_page_empty() {
        // Ten cells of 10 bytes with their pointers, and room for five.
        let cells = cells(&[8; 10]);
        let all = Share { size: 100, end: 10 };
        let ends = |shares: Vec<Share>| shares.iter().map(|share| share.end).collect::<Vec<_>>();
        assert_eq!(ends(share_out(&cells, &[all], 50, true).unwrap()), [5, 10]);
        assert_eq!(ends(share_out(&cells, &[all], 90, true).unwrap()), [8, 10]);
        assert_eq!(ends(share_out(&cells, &[all], 90, false).unwrap()), [5, 10]);
    }

    #[test]
    fn cells_that_need_too_many_pages_are_an_error() {
        let cells = cells(&[8; 40]);
        assert_eq!(share_out(&cells, &[Share { size: 400, end: 40 }], 50, true), Err(Inconsistent));
    }
}
