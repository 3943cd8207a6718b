//! One b-tree page of SQLite: its cells, its free-blocks, and the places that SQLite chooses for new cells. It knows
//! nothing of other pages and of the content of records.

use std::ops::Range;

use super::bytes::{Inconsistent, Sound, copy, get_u16, put, put_u16, slice, varint, zero};
use super::layout::Layout;

/// The size of a page in bytes.
pub(crate) const PAGE: usize = 4096;
/// The offset of the first free-block's offset.
pub(in crate::delta::java) const FIRST_BLOCK: usize = 1;
/// The offset of the number of cells.
const COUNT: usize = 3;
/// The offset of the start of the cell content area.
const TOP: usize = 5;
/// The offset of the number of fragmented bytes.
const FRAGMENTS: usize = 7;
/// The offset of the right-most child's number in an interior page.
const RIGHT_CHILD: usize = 8;
/// The highest number of fragmented bytes to which SQLite adds up to 3 (`pageFindSlot`).
const MAX_FRAGMENTS: u8 = 57;
/// The least size of a cell and of a free-block in bytes.
const LEAST: usize = 4;

/// The kind of a b-tree page, which its first byte names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delta::java) enum Kind {
    IndexInterior = 2,
    TableInterior = 5,
    IndexLeaf = 10,
    TableLeaf = 13,
}

impl Kind {
    /// Returns the kind that a byte names.
    fn of(byte: u8) -> Option<Kind> {
        let kinds = [Kind::IndexInterior, Kind::TableInterior, Kind::IndexLeaf, Kind::TableLeaf];
        kinds.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Whether it is a leaf.
    pub(in crate::delta::java) fn is_leaf(self) -> bool {
        matches!(self, Kind::IndexLeaf | Kind::TableLeaf)
    }

    /// Returns the kind of the parent of such a page.
    pub(in crate::delta::java) fn of_parent(self) -> Kind {
        match self {
            Kind::IndexInterior | Kind::IndexLeaf => Kind::IndexInterior,
            Kind::TableInterior | Kind::TableLeaf => Kind::TableInterior,
        }
    }

    /// Returns the length of the page header in bytes. The cell pointer array follows it.
    pub(in crate::delta::java) fn header(self) -> usize {
        if self.is_leaf() { 8 } else { 12 }
    }
}

/// A cell that does not fit into its page. The page is balanced before it is written.
pub(in crate::delta::java) struct Overflow {
    /// The index that the cell has among the cells of the page.
    pub(in crate::delta::java) index: usize,
    /// The cell.
    pub(in crate::delta::java) cell: Vec<u8>,
}

/// A page in memory.
pub(in crate::delta::java) struct Page {
    /// The bytes.
    pub(in crate::delta::java) data: Box<[u8; PAGE]>,
    /// The kind, as the first byte names it.
    kind: Kind,
    /// The number of free bytes, as SQLite counts them: the gap, the free-blocks and the fragments.
    pub(in crate::delta::java) free: usize,
    /// The cells that do not fit, in ascending order. They follow each other.
    pub(in crate::delta::java) overflow: Vec<Overflow>,
}

impl Page {
    /// Returns a page that is no b-tree page yet, with these bytes.
    pub(in crate::delta::java) fn unused(data: Box<[u8; PAGE]>) -> Page {
        Page { data, kind: Kind::TableLeaf, free: 0, overflow: Vec::new() }
    }

    /// Returns the b-tree page with these bytes.
    ///
    /// # Errors
    /// If the kind is unknown, or the free-blocks are not in ascending order.
    pub(in crate::delta::java) fn parse(data: Box<[u8; PAGE]>) -> Sound<Page> {
        let kind = Kind::of(data[0]).ok_or(Inconsistent)?;
        let mut page = Page { data, kind, free: 0, overflow: Vec::new() };
        let mut free = page.top() + usize::from(page.data[FRAGMENTS]);
        let mut block = page.u16(FIRST_BLOCK)?;
        while block != 0 {
            free += page.u16(block + 2)?;
            let next = page.u16(block)?;
            if next != 0 && next <= block {
                return Err(Inconsistent);
            }
            block = next;
        }
        page.free = free.checked_sub(page.pointers_end()).ok_or(Inconsistent)?;
        Ok(page)
    }

    /// Makes it an empty b-tree page (`zeroPage`). Without secure deletion, its other bytes stay.
    pub(in crate::delta::java) fn clear(&mut self, kind: Kind, layout: Layout) {
        if layout.secure_delete {
            self.data.fill(0);
        }
        self.kind = kind;
        self.data[0] = kind as u8;
        self.forget_cells();
    }

    /// Sets the header of a page without cells.
    fn forget_cells(&mut self) {
        let [top, more] = (PAGE as u16).to_be_bytes();
        self.data[FIRST_BLOCK..=FRAGMENTS].copy_from_slice(&[0, 0, 0, 0, top, more, 0]);
        self.free = PAGE - self.kind.header();
        self.overflow.clear();
    }

    /// Takes over the header, the cell pointers and the cell content area of another page (`copyNodeContent`). The
    /// bytes between them stay.
    ///
    /// # Errors
    /// If the other page is inconsistent.
    pub(in crate::delta::java) fn copy_content(&mut self, from: &Page) -> Sound<()> {
        let top = from.top();
        put(&mut self.data[..], top, slice(&from.data[..], top..PAGE)?)?;
        put(&mut self.data[..], 0, slice(&from.data[..], 0..from.pointers_end())?)?;
        self.kind = from.kind;
        self.free = from.free;
        Ok(())
    }

    /// Returns its kind.
    pub(in crate::delta::java) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the number of cells, without those that do not fit.
    #[inline]
    pub(in crate::delta::java) fn count(&self) -> usize {
        usize::from(u16::from_be_bytes([self.data[COUNT], self.data[COUNT + 1]]))
    }

    /// Sets the number of cells.
    ///
    /// # Errors
    /// If the number is larger than 65,535.
    pub(in crate::delta::java) fn set_count(&mut self, count: usize) -> Sound<()> {
        self.put_u16(COUNT, count)
    }

    /// Returns the start of the cell content area.
    pub(in crate::delta::java) fn top(&self) -> usize {
        usize::from(u16::from_be_bytes([self.data[TOP], self.data[TOP + 1]]))
    }

    /// Sets the start of the cell content area.
    ///
    /// # Errors
    /// If the offset is larger than 65,535.
    pub(in crate::delta::java) fn set_top(&mut self, top: usize) -> Sound<()> {
        self.put_u16(TOP, top)
    }

    /// Marks it as a page without free-blocks and fragments.
    pub(in crate::delta::java) fn forget_free_blocks(&mut self) {
        self.data[FIRST_BLOCK..COUNT].fill(0);
        self.data[FRAGMENTS] = 0;
    }

    /// Returns the number of the right-most child.
    pub(in crate::delta::java) fn right_child(&self) -> u32 {
        let data = &self.data;
        let bytes = [data[RIGHT_CHILD], data[RIGHT_CHILD + 1], data[RIGHT_CHILD + 2], data[RIGHT_CHILD + 3]];
        u32::from_be_bytes(bytes)
    }

    /// Sets the number of the right-most child.
    pub(in crate::delta::java) fn set_right_child(&mut self, number: u32) {
        self.data[RIGHT_CHILD..RIGHT_CHILD + 4].copy_from_slice(&number.to_be_bytes());
    }

    /// Returns the offset of the pointer to a cell.
    #[inline]
    pub(in crate::delta::java) fn pointer(&self, index: usize) -> usize {
        self.kind.header() + 2 * index
    }

    /// Sets the pointer to a cell.
    ///
    /// # Errors
    /// If there is no room for the pointer.
    #[inline]
    pub(in crate::delta::java) fn set_pointer(&mut self, index: usize, at: usize) -> Sound<()> {
        self.put_u16(self.pointer(index), at)
    }

    /// Writes the bytes of a cell.
    ///
    /// # Errors
    /// If they are not within the page.
    #[inline]
    pub(in crate::delta::java) fn write_cell(&mut self, at: usize, cell: &[u8]) -> Sound<()> {
        put(&mut self.data[..], at, cell)
    }

    /// Copies a range to an offset. Both may overlap.
    ///
    /// # Errors
    /// If one of them is not within the page.
    pub(in crate::delta::java) fn move_bytes(&mut self, range: Range<usize>, to: usize) -> Sound<()> {
        copy(&mut self.data[..], range, to)
    }

    /// Returns the offset after the cell pointer array.
    fn pointers_end(&self) -> usize {
        self.pointer(self.count())
    }

    /// Returns the offset of a cell, and the cell.
    ///
    /// # Errors
    /// If there is no such cell, or it is not within the page.
    pub(in crate::delta::java) fn cell(&self, index: usize) -> Sound<(usize, &[u8])> {
        if index >= self.count() {
            return Err(Inconsistent);
        }
        let at = self.u16(self.pointer(index))?;
        let rest = slice(&self.data[..], at..PAGE)?;
        Ok((at, slice(rest, 0..self.cell_length(rest)?)?))
    }

    /// Returns the length of the cell at the start of the bytes (`cellSizePtr` and its variants).
    fn cell_length(&self, bytes: &[u8]) -> Sound<usize> {
        let number = |at: usize| bytes.get(at..).and_then(varint).ok_or(Inconsistent);
        let (first, length) = if self.kind.is_leaf() { number(0)? } else { number(4)? };
        let payload = usize::try_from(first).map_err(|_| Inconsistent)?;
        let total = match self.kind {
            Kind::IndexInterior => payload.checked_add(4 + length),
            Kind::TableInterior => Some(4 + length),
            Kind::IndexLeaf => payload.checked_add(length),
            Kind::TableLeaf => payload.checked_add(length + number(length)?.1),
        };
        Ok(total.ok_or(Inconsistent)?.max(LEAST))
    }

    /// Inserts a cell (`insertCell`). If there is no room, it becomes an overflow cell.
    ///
    /// # Errors
    /// If the page is inconsistent.
    #[inline]
    pub(in crate::delta::java) fn insert(&mut self, index: usize, cell: &[u8]) -> Sound<()> {
        if !self.overflow.is_empty() || cell.len() + 2 > self.free {
            self.overflow.push(Overflow { index, cell: cell.to_vec() });
            return Ok(());
        }
        let at = self.allocate(cell.len())?;
        self.free -= cell.len() + 2;
        self.write_cell(at, cell)?;
        let count = self.count();
        let pointer = self.pointer(index);
        if index < count {
            self.move_bytes(pointer..self.pointer(count), pointer + 2)?;
        }
        self.set_pointer(index, at)?;
        self.set_count(count + 1)
    }

    /// Removes a cell (`dropCell`).
    ///
    /// # Errors
    /// If there is no such cell, or the page is inconsistent.
    pub(in crate::delta::java) fn remove(&mut self, index: usize, layout: Layout) -> Sound<()> {
        let (at, cell) = self.cell(index)?;
        let length = cell.len();
        self.release(at, length, layout)?;
        let (pointer, end) = (self.pointer(index), self.pointers_end());
        if self.count() == 1 {
            self.forget_cells();
            return Ok(());
        }
        self.move_bytes(pointer + 2..end, pointer)?;
        self.set_count(self.count() - 1)?;
        self.free += 2;
        Ok(())
    }

    /// Returns the place for a new cell of this length (`allocateSpace`).
    fn allocate(&mut self, length: usize) -> Sound<usize> {
        let gap = self.pointers_end();
        let mut top = self.top();
        if self.has_blocks()
            && gap + 2 <= top
            && let Some(slot) = self.find_slot(length)?
        {
            return Ok(slot);
        }
        if gap + 2 + length > top {
            let spare = self.free.checked_sub(2 + length).ok_or(Inconsistent)?;
            self.defragment(Some(spare.min(4)))?;
            top = self.top();
        }
        let at = top.checked_sub(length).ok_or(Inconsistent)?;
        self.set_top(at)?;
        Ok(at)
    }

    /// Whether it has free-blocks.
    pub(in crate::delta::java) fn has_blocks(&self) -> bool {
        (self.data[FIRST_BLOCK], self.data[FIRST_BLOCK + 1]) != (0, 0)
    }

    /// Returns the place for a cell in the first free-block that is large enough, and takes it from the free-block
    /// (`pageFindSlot`).
    ///
    /// # Errors
    /// If the free-blocks are inconsistent.
    pub(in crate::delta::java) fn find_slot(&mut self, length: usize) -> Sound<Option<usize>> {
        let last = PAGE.checked_sub(length).ok_or(Inconsistent)?;
        let mut link = FIRST_BLOCK;
        let mut block = self.u16(link)?;
        while block <= last {
            if let Some(rest) = self.u16(block + 2)?.checked_sub(length) {
                if rest >= LEAST {
                    if block + rest > last {
                        return Err(Inconsistent);
                    }
                    self.put_u16(block + 2, rest)?;
                    return Ok(Some(block + rest));
                }
                if self.data[FRAGMENTS] > MAX_FRAGMENTS {
                    return Ok(None);
                }
                let next = self.u16(block)?;
                self.put_u16(link, next)?;
                self.data[FRAGMENTS] += rest as u8;
                return Ok(Some(block));
            }
            link = block;
            block = self.u16(link)?;
            if block == 0 {
                break;
            }
            if block <= link {
                return Err(Inconsistent);
            }
        }
        Ok(None)
    }

    /// Moves all free bytes into the gap before the cell content area (`defragmentPage`).
    ///
    /// With one or two free-blocks and at most `fragments` fragmented bytes, it moves whole ranges and keeps the
    /// fragments. Otherwise, or if `fragments` is `None`, it writes the cells again in the order of their indexes.
    ///
    /// # Errors
    /// If the page is inconsistent.
    pub(in crate::delta::java) fn defragment(&mut self, fragments: Option<usize>) -> Sound<()> {
        let few = fragments.is_some_and(|most| usize::from(self.data[FRAGMENTS]) <= most);
        let top = match if few { self.close_blocks()? } else { None } {
            Some(top) => top,
            None => self.pack()?,
        };
        let first = self.pointers_end();
        if top + usize::from(self.data[FRAGMENTS]) != first + self.free {
            return Err(Inconsistent);
        }
        self.set_top(top)?;
        self.put_u16(FIRST_BLOCK, 0)?;
        zero(&mut self.data[..], first..top)
    }

    /// Moves the ranges before the free-blocks upward, if there are one or two, and returns the new start of the cell
    /// content area.
    fn close_blocks(&mut self) -> Sound<Option<usize>> {
        let first = self.u16(FIRST_BLOCK)?;
        if first == 0 {
            return Ok(None);
        }
        let second = self.u16(first)?;
        if second != 0 && self.u16(second)? != 0 {
            return Ok(None);
        }
        let top = self.top();
        let mut size = self.u16(first + 2)?;
        let mut second_size = 0;
        if second != 0 {
            second_size = self.u16(second + 2)?;
            self.move_bytes(first + size..second, first + size + second_size)?;
            size += second_size;
        }
        self.move_bytes(top..first, top + size)?;
        for index in 0..self.count() {
            let pointer = self.pointer(index);
            let at = self.u16(pointer)?;
            if at < first {
                self.put_u16(pointer, at + size)?;
            } else if at < second {
                self.put_u16(pointer, at + second_size)?;
            }
        }
        Ok(Some(top + size))
    }

    /// Writes the cells again from the end of the page, in the order of their indexes, and returns the new start of the
    /// cell content area.
    fn pack(&mut self) -> Sound<usize> {
        let source = Page { data: self.data.clone(), kind: self.kind, free: 0, overflow: Vec::new() };
        let mut top = PAGE;
        for index in 0..source.count() {
            let (_, cell) = source.cell(index)?;
            top = top.checked_sub(cell.len()).ok_or(Inconsistent)?;
            self.write_cell(top, cell)?;
            self.set_pointer(index, top)?;
        }
        self.data[FRAGMENTS] = 0;
        Ok(top)
    }

    /// Adds a range of the cell content area to the free bytes (`freeSpace`). It joins neighboring free-blocks.
    ///
    /// # Errors
    /// If the page is inconsistent.
    pub(in crate::delta::java) fn release(
        &mut self,
        start: usize,
        length: usize,
        layout: Layout,
    ) -> Sound<()> {
        let (link, mut next) = self.blocks_around(start)?;
        let (mut begin, mut end, mut fragments) = (start, start + length, 0);
        // Up to 3 bytes between two free-blocks are fragments.
        if next != 0 && end + 3 >= next {
            fragments = next.checked_sub(end).ok_or(Inconsistent)?;
            end = next + self.u16(next + 2)?;
            next = self.u16(next)?;
        }
        if link > FIRST_BLOCK {
            let before = link + self.u16(link + 2)?;
            if before + 3 >= begin {
                fragments += begin.checked_sub(before).ok_or(Inconsistent)?;
                begin = link;
            }
        }
        let fragments = u8::try_from(fragments).map_err(|_| Inconsistent)?;
        self.data[FRAGMENTS] = self.data[FRAGMENTS].checked_sub(fragments).ok_or(Inconsistent)?;
        let top = self.top();
        if layout.secure_delete {
            zero(&mut self.data[..], begin..end)?;
        }
        if begin > top {
            self.put_u16(link, begin)?;
        } else if begin == top && link == FIRST_BLOCK {
            self.put_u16(FIRST_BLOCK, next)?;
            self.set_top(end)?;
        } else {
            return Err(Inconsistent);
        }
        if begin > top || layout.old_free_blocks {
            self.put_u16(begin, next)?;
            self.put_u16(begin + 2, end - begin)?;
        }
        self.free += length;
        Ok(())
    }

    /// Returns the offset of the pointer to the first free-block after an offset, and that free-block or 0.
    fn blocks_around(&self, start: usize) -> Sound<(usize, usize)> {
        let mut link = FIRST_BLOCK;
        loop {
            let block = self.u16(link)?;
            if block == 0 || block >= start {
                return Ok((link, block));
            }
            if block <= link {
                return Err(Inconsistent);
            }
            link = block;
        }
    }

    /// Returns the 2-byte number at an offset.
    #[inline]
    fn u16(&self, at: usize) -> Sound<usize> {
        get_u16(&self.data[..], at)
    }

    /// Writes a 2-byte number at an offset.
    #[inline]
    fn put_u16(&mut self, at: usize, number: usize) -> Sound<()> {
        put_u16(&mut self.data[..], at, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns a table leaf cell with a payload of this length, filled with this byte.
    fn cell(length: u8, fill: u8) -> Vec<u8> {
        let mut cell = vec![length & 0x7f, 1];
        cell.resize(2 + usize::from(length & 0x7f), fill);
        cell.resize(cell.len().max(LEAST), 0);
        cell
    }

    /// Returns an empty table leaf.
    fn leaf() -> Page {
        let mut page = Page::unused(Box::new([0; PAGE]));
        page.clear(Kind::TableLeaf, Layout::default());
        page
    }

    #[test]
    fn a_cell_that_does_not_fit_becomes_an_overflow_cell() {
        let mut page = leaf();
        for _ in 0..32 {
            page.insert(page.count(), &cell(127, 7)).unwrap();
        }
        assert_eq!((page.count(), page.overflow.len()), (31, 1));
        assert_eq!((page.overflow[0].index, page.free), (31, PAGE - 8 - 31 * 131));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_page_holds_what_was_inserted(
            steps in proptest::collection::vec((any::<bool>(), any::<u8>(), any::<u16>()), 0..400),
            old_free_blocks in any::<bool>(),
            secure_delete in any::<bool>(),
        ) {
            let layout = Layout { old_free_blocks, secure_delete };
            let mut page = leaf();
            let mut cells: Vec<Vec<u8>> = Vec::new();
            for (step, (inserts, length, place)) in steps.into_iter().enumerate() {
                let new = cell(length, step as u8);
                if (inserts || cells.is_empty()) && new.len() + 2 <= page.free {
                    let index = usize::from(place) % (cells.len() + 1);
                    page.insert(index, &new).unwrap();
                    cells.insert(index, new);
                } else {
                    let index = usize::from(place) % cells.len();
                    page.remove(index, layout).unwrap();
                    cells.remove(index);
                }
                let found: Vec<Vec<u8>> = (0..page.count()).map(|index| page.cell(index).unwrap().1.to_vec()).collect();
                prop_assert_eq!(&found, &cells);
                prop_assert_eq!(Page::parse(page.data.clone()).unwrap().free, page.free);
            }
            page.defragment(None).unwrap();
            prop_assert_eq!(page.top(), page.pointer(cells.len()) + page.free);
        }

        #[test]
        fn any_bytes_are_a_page_or_an_error(seed in any::<u64>(), kind in 0..4usize) {
            let mut data = Box::new([0; PAGE]);
            blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data[..]);
            data[0] = [2, 5, 10, 13][kind];
            // Small numbers in the header and in the free-blocks give pages that seem valid at first.
            data[1..8].copy_from_slice(&[(seed >> 60) as u8, 3, 0, (seed >> 50) as u8, (seed >> 61) as u8, 0, 9]);
            if let Ok(mut page) = Page::parse(data) {
                let _ = page.insert(0, &[2, 1, 0, 0]);
                let _ = page.remove(0, Layout { old_free_blocks: true, secure_delete: true });
                let _ = page.release(1000, 300, Layout::default());
                let _ = page.defragment(Some(4));
            }
        }
    }
}
