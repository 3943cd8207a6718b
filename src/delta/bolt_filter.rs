//! The filter `bbolt-4k`: makes the page numbers in a bbolt database relative, so that shifted pages stay similar.
//!
//! In a bbolt file, each page contains its own number, and each branch page and each bucket contains the numbers of
//! its child pages (`page.go` and `bucket.go` of bbolt: `page.id`, `branchPageElement.pgid`, `bucket.root`). A
//! compacted file with new content near the start has other numbers in all pages. The filter replaces the page's own
//! number with 0, and makes the numbers of its children relative to it.
//!
//! The filter works on one 4 KiB page at a time. It does not check that the page belongs to a bbolt database: it is a
//! bijection of all pages, so [`undo`] returns the original of any input. It does not know about files or streams.

/// The length of a page in bytes. The filter leaves databases with other page sizes nearly unchanged.
pub(crate) const PAGE: usize = 4096;
/// The length of the header of a page in bytes: number, flags, count, overflow.
const HEADER: usize = 16;
/// The length of an element of a branch page or a leaf page in bytes.
const ELEMENT: usize = 16;
/// The flag of a branch page.
const BRANCH: u16 = 1;
/// The flag of a leaf page.
const LEAF: u16 = 2;
/// The flag of an element of a leaf page whose value is a bucket.
const BUCKET: u32 = 1;

/// Whether a page is filtered or restored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// Makes numbers relative.
    Apply,
    /// Makes numbers absolute.
    Undo,
}

/// Filters a page of the file. `index` is its offset in the file, divided by [`PAGE`]. Shorter pages stay unchanged.
pub(crate) fn apply(page: &mut [u8], index: u64) {
    convert(page, index, Direction::Apply);
}

/// Restores a filtered page. It is the inverse of [`apply`].
pub(crate) fn undo(page: &mut [u8], index: u64) {
    convert(page, index, Direction::Undo);
}

/// Filters or restores a page. Shorter pages stay unchanged.
fn convert(page: &mut [u8], index: u64, direction: Direction) {
    let Ok(page) = <&mut [u8; PAGE]>::try_from(page) else { return };
    let (from, to) = match direction {
        Direction::Apply => (index, 0),
        Direction::Undo => (0, index),
    };
    let number = u64_at(page, 0);
    if number == Some(from) {
        put_u64(page, 0, to);
    } else {
        // The numbers 0 and `index` are exchanged, so that a page that already had the number 0 comes back.
        if number == Some(to) {
            put_u64(page, 0, from);
        }
        return;
    }
    let (Some(kind), Some(count)) = (u16_at(page, 8), u16_at(page, 10)) else { return };
    let count = usize::from(count).min((PAGE - HEADER) / ELEMENT);
    // In a hostile page, the positions of children can overlap. Undoing in reverse order restores these too.
    for step in 0..count {
        let element = if direction == Direction::Apply { step } else { count - 1 - step };
        match kind {
            BRANCH => convert_branch(page, element, index, direction),
            LEAF => convert_bucket(page, element, count, index, direction),
            _ => return,
        }
    }
}

/// Converts the number of the child page in an element of a branch page.
fn convert_branch(page: &mut [u8; PAGE], element: usize, index: u64, direction: Direction) {
    let at = HEADER + element * ELEMENT + 8;
    let Some(number) = u64_at(page, at) else { return };
    put_u64(page, at, shift(number, index, direction));
}

/// Converts the number of the root page at the start of a bucket, if the element of a leaf page is a bucket.
fn convert_bucket(page: &mut [u8; PAGE], element: usize, count: usize, index: u64, direction: Direction) {
    let Some(at) = bucket_at(page, element) else { return };
    // Only the area after the elements may change, because the elements name the positions.
    if at < HEADER + count * ELEMENT {
        return;
    }
    let Some(number) = u64_at(page, at) else { return };
    let opposite = index.wrapping_neg();
    let (collides, replacement) = match direction {
        Direction::Apply => (index, opposite),
        Direction::Undo => (opposite, index),
    };
    // The number 0 marks a bucket without pages of its own, and stays. The number that would become 0 takes the result
    // that 0 would have had.
    let converted = match number {
        0 => 0,
        _ if number == collides => replacement,
        _ => shift(number, index, direction),
    };
    put_u64(page, at, converted);
}

/// Returns the position of the value of an element of a leaf page, if the value is a bucket.
fn bucket_at(page: &[u8; PAGE], element: usize) -> Option<usize> {
    let start = HEADER + element * ELEMENT;
    if u32_at(page, start)? != BUCKET {
        return None;
    }
    // The position of the key is relative to the element. The value follows the key.
    let key = usize::try_from(u32_at(page, start + 4)?).ok()?;
    let key_length = usize::try_from(u32_at(page, start + 8)?).ok()?;
    start.checked_add(key)?.checked_add(key_length)
}

/// Makes a number relative or absolute.
fn shift(number: u64, index: u64, direction: Direction) -> u64 {
    match direction {
        Direction::Apply => number.wrapping_sub(index),
        Direction::Undo => number.wrapping_add(index),
    }
}

/// Returns the bytes at a position, if they are inside of the page.
fn array_at<const N: usize>(page: &[u8; PAGE], at: usize) -> Option<[u8; N]> {
    page.get(at..)?.first_chunk().copied()
}

/// Returns the number of 2 bytes at a position.
fn u16_at(page: &[u8; PAGE], at: usize) -> Option<u16> {
    array_at(page, at).map(u16::from_le_bytes)
}

/// Returns the number of 4 bytes at a position.
fn u32_at(page: &[u8; PAGE], at: usize) -> Option<u32> {
    array_at(page, at).map(u32::from_le_bytes)
}

/// Returns the number of 8 bytes at a position.
fn u64_at(page: &[u8; PAGE], at: usize) -> Option<u64> {
    array_at(page, at).map(u64::from_le_bytes)
}

/// Writes a number, if the page has 8 bytes at the position.
fn put_u64(page: &mut [u8; PAGE], at: usize, number: u64) {
    if let Some(bytes) = page.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *bytes = number.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The header of a page of bbolt.
    fn page(number: u64, kind: u16, count: u16) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        page[..8].copy_from_slice(&number.to_le_bytes());
        page[8..10].copy_from_slice(&kind.to_le_bytes());
        page[10..12].copy_from_slice(&count.to_le_bytes());
        page
    }

    fn put(page: &mut [u8], at: usize, number: u64) {
        page[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }

    fn get(page: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(page[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn the_children_of_a_branch_page_become_relative() {
        let mut branch = page(9, BRANCH, 2);
        put(&mut branch, HEADER + 8, 12);
        put(&mut branch, HEADER + ELEMENT + 8, 7);
        let original = branch.clone();
        apply(&mut branch, 9);
        let found = [0, HEADER + 8, HEADER + ELEMENT + 8].map(|at| get(&branch, at));
        assert_eq!(found, [0, 3, 2u64.wrapping_neg()]);
        undo(&mut branch, 9);
        assert_eq!(branch, original);
    }

    #[test]
    fn the_root_pages_of_buckets_become_relative() {
        let mut leaf = page(9, LEAF, 4);
        for (element, (flags, root)) in [(1, 12), (0, 12), (1, 0), (1, 9)].into_iter().enumerate() {
            let (start, at) = (HEADER + element * ELEMENT, 1000 + 100 * element);
            // The element has flags, the position of the key relative to the element, and the length of the key.
            let words = [flags, u32::try_from(at - 5 - start).unwrap(), 5, 16];
            for (word, bytes) in words.iter().zip(leaf[start..].chunks_exact_mut(4)) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            put(&mut leaf, at, root);
        }
        let original = leaf.clone();
        apply(&mut leaf, 9);
        let found = [1000, 1100, 1200, 1300].map(|at| get(&leaf, at));
        assert_eq!(found, [3, 12, 0, 9u64.wrapping_neg()]);
        undo(&mut leaf, 9);
        assert_eq!(leaf, original);
    }

    #[test]
    fn pages_with_other_numbers_and_short_pieces_stay_unchanged() {
        let mut foreign = page(5, BRANCH, 1);
        put(&mut foreign, HEADER + 8, 12);
        let original = foreign.clone();
        apply(&mut foreign, 9);
        assert_eq!(foreign, original);
        let mut short = page(9, BRANCH, 1)[..PAGE - 1].to_vec();
        let original = short.clone();
        apply(&mut short, 9);
        assert_eq!(short, original);
    }

    #[test]
    fn shifted_pages_are_equal_after_the_filter() {
        let [first, second] = [100, 4000].map(|number| {
            let mut branch = page(number, BRANCH, 1);
            put(&mut branch, HEADER + 8, number + 1);
            apply(&mut branch, number);
            branch
        });
        assert_eq!(first, second);
    }

    /// Numbers that are likely to collide in a page with this index.
    fn numbers(index: u64) -> impl Strategy<Value = u64> {
        prop_oneof![
            Just(0),
            Just(index),
            Just(index.wrapping_neg()),
            0..64u64,
            // An element of a bucket: the flag and the position of the key.
            (0..200u64).prop_map(|position| 1 | position << 32),
            any::<u64>(),
        ]
    }

    /// A page of numbers that are likely to collide, with an index.
    fn hostile() -> impl Strategy<Value = (u64, Vec<u8>)> {
        let index = prop_oneof![0..5u64, Just(1 << 63), any::<u64>()];
        let page = |index: u64| {
            (Just(index), prop::collection::vec(numbers(index), PAGE / 8), 0..4u16, 0..40u16, any::<u16>())
        };
        index.prop_flat_map(page).prop_map(|(index, numbers, kind, small, any)| {
            let mut page: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
            let count = if any.is_multiple_of(8) { any } else { small };
            page[8..10].copy_from_slice(&kind.to_le_bytes());
            page[10..12].copy_from_slice(&count.to_le_bytes());
            if any.is_multiple_of(2) {
                put(&mut page, 0, index);
            }
            (index, page)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn every_page_comes_back((index, original) in hostile()) {
            let mut page = original.clone();
            apply(&mut page, index);
            undo(&mut page, index);
            prop_assert!(page == original, "undo after apply");
            undo(&mut page, index);
            apply(&mut page, index);
            prop_assert!(page == original, "apply after undo");
        }
    }
}
