//! Distributes the cells of neighboring pages anew (`balance_nonroot`, `balance_quick`, `balance_deeper`), for trees
//! to which cells are only appended.

use super::bytes::{Inconsistent, Sound, get_u32, put, slice, varint};
use super::edit::{Cells, Change, rebuild};
use super::page::{Kind, PAGE, Page};
use super::pager::{PageError, Pager};
use super::share::{Share, share_out};

/// The length of a child's page number in a cell.
const CHILD: usize = 4;

/// Gives an overfull root a child with its content (`balance_deeper`), and returns the number of the child.
///
/// # Errors
/// If no page can be allocated.
pub(in crate::delta::java) fn deepen(
    pager: &mut Pager<'_>,
    number: u32,
    mut root: Page,
) -> Result<u32, PageError> {
    let (child_number, mut child) = pager.allocate(number)?;
    child.copy_content(&root)?;
    child.overflow = std::mem::take(&mut root.overflow);
    root.clear(root.kind().of_parent(), pager.layout());
    root.set_right_child(child_number);
    pager.put(number, root)?;
    pager.put(child_number, child)?;
    Ok(child_number)
}

/// Moves the only overflow cell of the last table leaf to a new leaf (`balance_quick`).
///
/// # Errors
/// If no page can be allocated, or the page has not exactly one overflow cell, at its end.
pub(in crate::delta::java) fn add_leaf(
    pager: &mut Pager<'_>,
    number: u32,
    leaf: &mut Page,
    parent: &mut Page,
) -> Result<(), PageError> {
    let overflow = leaf.overflow.pop().ok_or(Inconsistent)?;
    let last = leaf.count().checked_sub(1).ok_or(Inconsistent)?;
    if !leaf.overflow.is_empty() || overflow.index != last + 1 {
        return Err(Inconsistent.into());
    }
    let (new_number, mut new) = pager.allocate(0)?;
    new.clear(Kind::TableLeaf, pager.layout());
    let mut cells = Cells::default();
    cells.push(&overflow.cell, None);
    rebuild(&mut new, &cells, 0..1)?;
    new.free = new.free.checked_sub(2 + overflow.cell.len()).ok_or(Inconsistent)?;
    pager.put(new_number, new)?;

    // The divider holds the last rowid of the old leaf, which follows the length of the payload.
    let (_, cell) = leaf.cell(last)?;
    let start = varint(cell).ok_or(Inconsistent)?.1;
    let rowid = slice(cell, start..cell.len())?;
    let length = varint(rowid).ok_or(Inconsistent)?.1;
    let divider = [&number.to_be_bytes()[..], slice(rowid, 0..length)?].concat();
    parent.insert(parent.count(), &divider)?;
    parent.set_right_child(new_number);
    Ok(())
}

/// The last children of a page, and their cells.
struct Siblings {
    /// The index of the first divider in the parent.
    first: usize,
    /// The page numbers before the change.
    numbers: Vec<u32>,
    /// The pages, and then the new ones.
    pages: Vec<Page>,
    /// The cells of the pages, and the dividers between them.
    cells: Cells,
    /// For each page the index after its last cell.
    ends: Vec<usize>,
    /// The shares before the change.
    shares: Vec<Share>,
    /// The kind of all pages.
    kind: Kind,
    /// The bytes of a page after its header.
    usable: usize,
}

/// Distributes the cells of the last children of a page anew (`balance_nonroot`).
///
/// # Errors
/// If no page can be allocated, the file cannot be read or written, or a page is inconsistent.
pub(in crate::delta::java) fn balance_siblings(
    pager: &mut Pager<'_>,
    parent: &mut Page,
    is_root: bool,
    bulk: bool,
) -> Result<(), PageError> {
    let layout = pager.layout();
    let mut siblings = Siblings::take(pager, parent, bulk)?;
    let old = siblings.pages.len();
    let shares = share_out(&siblings.cells, &siblings.shares, siblings.usable, bulk)?;
    let mut numbers: Vec<u32> = siblings.numbers.iter().copied().take(shares.len()).collect();
    let near = if bulk { 1 } else { numbers.first().copied().ok_or(Inconsistent)? };
    for _ in old..shares.len() {
        let (number, mut page) = pager.allocate(near)?;
        page.clear(siblings.kind, layout);
        siblings.pages.push(page);
        siblings.ends.push(siblings.cells.len());
        numbers.push(number);
    }
    // Numbers ascend from left to right, whichever page had them.
    numbers.sort_unstable();
    siblings.keep_last_child(old, shares.len())?;
    siblings.insert_dividers(parent, &numbers, &shares)?;
    let mut start = 0;
    for (sibling, share) in shares.iter().enumerate() {
        let before = sibling.checked_sub(1).and_then(|before| siblings.ends.get(before));
        let first = match before {
            None => 0,
            Some(end) if sibling < old => end + 1,
            Some(_) => siblings.cells.len(),
        };
        let change = Change { cells: &siblings.cells, sibling, old: first, new: start..share.end };
        let page = siblings.pages.get_mut(sibling).ok_or(Inconsistent)?;
        change.apply(page, layout)?;
        let used = usize::try_from(share.size).map_err(|_| Inconsistent)?;
        page.free = siblings.usable.checked_sub(used).ok_or(Inconsistent)?;
        start = share.end + 1;
    }
    siblings.put_back(pager, parent, numbers, is_root)
}

impl Siblings {
    /// Takes the last 3 children of the parent, or 2 with `bulk`, and the dividers between them.
    fn take(pager: &mut Pager<'_>, parent: &mut Page, bulk: bool) -> Result<Siblings, PageError> {
        let most = if bulk { 1 } else { 2 };
        let count = parent.count();
        let dividers = if count < 2 { count } else { most };
        let first = count - dividers;
        let mut numbers = vec![parent.right_child()];
        let mut cells = Vec::new();
        for index in (first..count).rev() {
            let cell = parent.cell(index)?.1.to_vec();
            parent.remove(index, pager.layout())?;
            numbers.push(get_u32(&cell, 0)?);
            cells.push(cell);
        }
        numbers.reverse();
        cells.reverse();
        let pages = numbers.iter().map(|number| pager.take(*number)).collect::<Result<Vec<_>, _>>()?;
        let kind = pages.first().map(Page::kind).ok_or(Inconsistent)?;
        // Table leaves get cells only at their end, so `add_leaf` balances them.
        if kind == Kind::TableLeaf || pages.iter().any(|page| page.kind() != kind) {
            return Err(Inconsistent.into());
        }
        let usable = PAGE - kind.header();
        let (ends, shares) = (Vec::new(), Vec::new());
        let mut siblings =
            Siblings { first, numbers, pages, cells: Cells::default(), ends, shares, kind, usable };
        siblings.collect(&cells)?;
        Ok(siblings)
    }

    /// Collects the cells of all pages, and the dividers between them.
    fn collect(&mut self, dividers: &[Vec<u8>]) -> Sound<()> {
        for (sibling, page) in self.pages.iter().enumerate() {
            let before = page.overflow.first().map_or(page.count(), |cell| cell.index);
            let push = |cells: &mut Cells, index: usize| -> Sound<()> {
                let (at, cell) = page.cell(index)?;
                cells.push(cell, Some((sibling, at)));
                Ok(())
            };
            (0..before).try_for_each(|index| push(&mut self.cells, index))?;
            let mut more = 0;
            for overflow in &page.overflow {
                self.cells.push(&overflow.cell, None);
                more += overflow.cell.len() + 2;
            }
            (before..page.count()).try_for_each(|index| push(&mut self.cells, index))?;
            let used = self.usable.checked_sub(page.free).ok_or(Inconsistent)? + more;
            let end = self.cells.len();
            self.shares.push(Share { size: used as i64, end });
            self.ends.push(end);
            let Some(divider) = dividers.get(sibling) else { continue };
            let key = slice(divider, CHILD..divider.len())?;
            if self.kind.is_leaf() {
                let mut cell = key.to_vec();
                cell.resize(key.len().max(4), 0);
                self.cells.push(&cell, None);
            } else {
                let cell = [&page.right_child().to_be_bytes()[..], key].concat();
                self.cells.push(&cell, None);
            }
        }
        Ok(())
    }

    /// Sets the right-most child of the last interior page to that of the former last page.
    fn keep_last_child(&mut self, old: usize, new: usize) -> Sound<()> {
        if self.kind.is_leaf() || old == new {
            return Ok(());
        }
        let child = self.pages.get(old - 1).ok_or(Inconsistent)?.right_child();
        let last = new.checked_sub(1).and_then(|last| self.pages.get_mut(last));
        last.ok_or(Inconsistent)?.set_right_child(child);
        Ok(())
    }

    /// Inserts the dividers into the parent, and sets the right-most children.
    fn insert_dividers(&mut self, parent: &mut Page, numbers: &[u32], shares: &[Share]) -> Sound<()> {
        let (last, others) = numbers.split_last().ok_or(Inconsistent)?;
        parent.set_right_child(*last);
        for (index, (number, share)) in others.iter().zip(shares).enumerate() {
            let cell = self.cells.get(share.end)?;
            let number = &number.to_be_bytes()[..];
            let divider = if self.kind.is_leaf() {
                [number, cell].concat()
            } else {
                let page = self.pages.get_mut(index).ok_or(Inconsistent)?;
                page.set_right_child(get_u32(cell, 0)?);
                let mut divider = cell.to_vec();
                put(&mut divider, 0, number)?;
                divider
            };
            parent.insert(self.first + index, &divider)?;
        }
        Ok(())
    }

    /// Returns the pages to the pager and adds the surplus ones to the free-list. A root without cells takes over the
    /// content of its only child.
    fn put_back(
        self,
        pager: &mut Pager<'_>,
        parent: &mut Page,
        numbers: Vec<u32>,
        is_root: bool,
    ) -> Result<(), PageError> {
        let kept = numbers.len();
        let surplus = self.numbers.into_iter().skip(kept);
        let shallower = is_root && parent.count() == 0 && parent.overflow.is_empty();
        for (index, (number, mut page)) in numbers.into_iter().chain(surplus).zip(self.pages).enumerate() {
            if index == 0 && shallower {
                page.defragment(None)?;
                parent.copy_content(&page)?;
                pager.free(number, page)?;
            } else if index < kept {
                pager.put(number, page)?;
            } else {
                pager.free(number, page)?;
            }
        }
        Ok(())
    }
}
