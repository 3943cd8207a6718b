//! Chooses the window: the part of the base that a segment of a patch refers to.
//!
//! Content moves between two versions of a file, so the most similar part of the base is not always at the same place.
//! An anchor is a position whose preceding 64 bytes have a hash that begins with 11 zero bits, about one in 2 KiB. An
//! anchor that occurs once in the base and also occurs in the segment marks a similar place. The window is the range of
//! limited length that has the most of them.
//!
//! Only the exporter chooses windows, and a bad choice makes only the patch larger. This module does not know about
//! compression. Its memory has a fixed limit, even if a hostile file consists of anchors only.

use std::io;
use std::ops::Range;

use crate::delta::bolt_filter::PAGE;
use crate::delta::stream::Stream;

/// The number of zero bits at the start of the hash of an anchor.
const ZEROS: u32 = 11;
/// The number of bytes that determine the hash.
const CONTEXT: usize = 64;
/// The largest number of anchors in memory, each of 16 bytes.
const MAX_ANCHORS: usize = 1 << 20;
/// The number of bytes that are added on both sides of the similar range.
const MARGIN: u64 = 64 << 10;
/// The position of an anchor that occurs more than once.
const REPEATED: u64 = u64::MAX;

/// The table of the gear hash: one random number for each byte. Other numbers would choose other windows.
const GEAR: [u64; 256] = gear();

/// Computes the table of the gear hash.
const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    // A generator of the kind xorshift64*.
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut byte = 0;
    while byte < table.len() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        table[byte] = state.wrapping_mul(0xD134_2543_DE82_EF95);
        byte += 1;
    }
    table
}

/// A position in a stream that is recognized by the preceding bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Anchor {
    /// The hash of the preceding bytes.
    hash: u64,
    /// The offset of the byte after them, or [`REPEATED`].
    position: u64,
}

/// The anchors that occur exactly once in a base.
#[derive(Debug)]
pub(crate) struct Index {
    /// Sorted by hash.
    anchors: Vec<Anchor>,
    /// The length of the base in bytes.
    base_length: u64,
    /// The largest length of a window in bytes.
    limit: u64,
}

impl Index {
    /// Reads a base. No window will be longer than `limit` bytes.
    ///
    /// # Errors
    /// If the base cannot be read.
    pub(crate) fn new(base: &Stream, limit: u64) -> io::Result<Self> {
        Index::with_capacity(base, limit, MAX_ANCHORS)
    }

    /// Reads a base, and keeps at most `capacity` anchors in memory.
    fn with_capacity(base: &Stream, limit: u64, capacity: usize) -> io::Result<Self> {
        let mut table = Table { anchors: Vec::new(), zeros: ZEROS, capacity };
        for_each_anchor(base, 0..base.length(), |anchor| table.insert(anchor))?;
        Ok(Index { anchors: table.finish(), base_length: base.length(), limit })
    }

    /// Returns the window for a segment of the new stream: a range of the base.
    ///
    /// It has at most the length limit of this index. It is not shorter than the segment, unless the base or the limit
    /// is: zstd finds far fewer matches in a prefix that is shorter than the data.
    ///
    /// # Errors
    /// If the new stream cannot be read.
    pub(crate) fn window(&self, new: &Stream, segment: Range<u64>) -> io::Result<Range<u64>> {
        let length = segment.end.saturating_sub(segment.start);
        let middle = segment.start.saturating_add(length / 2);
        let positions = self.positions(new, segment)?;
        // The margins on both sides, and the bytes up to the page boundaries.
        let span = self.limit.saturating_sub(2 * (MARGIN + PAGE as u64));
        Ok(match densest(&positions, span) {
            Some((first, last)) => {
                self.fit(first.saturating_sub(MARGIN)..last.saturating_add(MARGIN), length)
            }
            // Nothing is similar, so the same place is as good as any other.
            None => self.fit(middle..middle, self.limit),
        })
    }

    /// Returns the positions in the base of the anchors that occur in a segment, in ascending order.
    fn positions(&self, new: &Stream, segment: Range<u64>) -> io::Result<Vec<u64>> {
        // Each anchor counts once. Otherwise, a hostile segment that repeats one of them would fill the memory.
        let mut found = vec![false; self.anchors.len()];
        for_each_anchor(new, segment, |anchor| {
            let place = self.anchors.binary_search_by_key(&anchor.hash, |known| known.hash);
            if let Some(found) = place.ok().and_then(|place| found.get_mut(place)) {
                *found = true;
            }
        })?;
        let pairs = self.anchors.iter().zip(found);
        let mut positions: Vec<u64> =
            pairs.filter(|(_, found)| *found).map(|(anchor, _)| anchor.position).collect();
        positions.sort_unstable();
        Ok(positions)
    }

    /// Extends a range to page boundaries and then to at least `length` bytes, and moves it into the base.
    fn fit(&self, range: Range<u64>, length: u64) -> Range<u64> {
        let page = PAGE as u64;
        let start = range.start.min(self.base_length) / page * page;
        let end = range.end.div_ceil(page).saturating_mul(page).min(self.base_length);
        let found = end.saturating_sub(start);
        let wanted = found.max(length).min(self.limit).min(self.base_length);
        let missing = wanted.saturating_sub(found);
        let start = start.saturating_sub(missing / 2).min(self.base_length - wanted);
        start..start + wanted
    }
}

/// Collects the anchors of a base in a fixed amount of memory.
struct Table {
    /// The anchors of the base so far, except dropped ones.
    anchors: Vec<Anchor>,
    /// The number of zero bits at the start of the hashes that are kept.
    zeros: u32,
    /// The largest number of anchors.
    capacity: usize,
}

impl Table {
    /// Adds an anchor. If the table is full, it first drops some of the anchors.
    fn insert(&mut self, anchor: Anchor) {
        if anchor.hash.leading_zeros() < self.zeros {
            return;
        }
        if self.anchors.len() >= self.capacity {
            self.merge();
            // Each additional bit drops about half of the hashes. Whether a hash is kept depends on the hash alone, so
            // an anchor that occurs once in the table also occurs once in the base.
            while self.anchors.len() > self.capacity / 2 && self.zeros < u64::BITS {
                self.zeros += 1;
                self.anchors.retain(|anchor| anchor.hash.leading_zeros() >= self.zeros);
            }
        }
        self.anchors.push(anchor);
    }

    /// Sorts the anchors, and replaces those with the same hash by one that is marked as repeated.
    fn merge(&mut self) {
        self.anchors.sort_unstable();
        self.anchors.dedup_by(|later, earlier| {
            let same = later.hash == earlier.hash;
            if same {
                earlier.position = REPEATED;
            }
            same
        });
    }

    /// Returns the anchors that occur once, sorted by hash.
    fn finish(mut self) -> Vec<Anchor> {
        self.merge();
        self.anchors.retain(|anchor| anchor.position != REPEATED);
        self.anchors.shrink_to_fit();
        self.anchors
    }
}

/// Passes the anchors of a range to a function, in ascending order of their positions.
fn for_each_anchor(stream: &Stream, range: Range<u64>, mut take: impl FnMut(Anchor)) -> io::Result<()> {
    let (mut hash, mut seen) = (0u64, 0usize);
    stream.for_each_piece(range, |piece, offset| {
        for (position, byte) in (offset + 1..).zip(piece) {
            // The shift removes a byte from the hash after 64 steps.
            hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
            seen = seen.saturating_add(1);
            if hash.leading_zeros() >= ZEROS && seen >= CONTEXT && hash != 0 {
                take(Anchor { hash, position });
            }
        }
    })
}

/// Returns the first and the last position of the range with the most positions, if the range may span this many bytes.
fn densest(positions: &[u64], span: u64) -> Option<(u64, u64)> {
    let (mut best, mut most, mut end) = (None, 0, 0);
    for (start, first) in positions.iter().enumerate() {
        let inside = |at: usize| positions.get(at).filter(|last| last.saturating_sub(*first) <= span);
        while inside(end).is_some() {
            end += 1;
        }
        if end - start > most {
            most = end - start;
            best = positions.get(end - 1).map(|last| (*first, *last));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delta::samples;
    use crate::delta::stream::Form;

    const KIB: u64 = 1 << 10;

    fn plain(bytes: &[u8]) -> Stream {
        samples::stream(bytes, Form::Plain)
    }

    /// Returns the window of the first bytes of a new stream.
    fn window(base: &[u8], new: &[u8], limit: u64) -> Range<u64> {
        let index = Index::new(&plain(base), limit).unwrap();
        index.window(&plain(new), 0..new.len() as u64).unwrap()
    }

    #[test]
    fn the_table_of_the_hash_is_fixed() {
        let sum = GEAR.iter().fold(0u64, |sum, number| sum.rotate_left(1) ^ number);
        assert_eq!((GEAR[0], sum), (0xC482_89A5_91FA_B8B1, 0x3B7B_A125_E82B_511D));
    }

    #[test]
    fn one_position_in_2_kib_is_an_anchor() {
        let mut count = 0;
        for_each_anchor(&plain(&samples::noise(1, 4 << 20)), 0..4 << 20, |_| count += 1).unwrap();
        assert!((1900..2200).contains(&count), "{count}");
    }

    #[test]
    fn anchors_do_not_depend_on_what_precedes_their_context() {
        let bytes = samples::noise(1, 300_000);
        let anchors = |range: Range<u64>| {
            let mut found = Vec::new();
            for_each_anchor(&plain(&bytes), range, |anchor| found.push(anchor)).unwrap();
            found
        };
        let mut all = anchors(0..300_000);
        all.retain(|anchor| anchor.position >= 100_000 + CONTEXT as u64);
        assert_eq!(all, anchors(100_000..300_000));
    }

    #[test]
    fn the_window_follows_moved_content() {
        let base = samples::noise(1, 2 << 20);
        let moved = &base[1_300_000..1_400_000];
        let window = window(&base, moved, 512 * KIB);
        assert!(window.start <= 1_300_000 && window.end >= 1_400_000, "{window:?}");
        assert!(window.end - window.start <= 100_000 + 2 * (MARGIN + PAGE as u64), "{window:?}");
        assert_eq!(window.start % PAGE as u64, 0);
    }

    #[test]
    fn the_window_is_the_range_with_the_most_matches() {
        let base = samples::noise(1, 3 << 20);
        let new = [&base[..50_000], &base[2_000_000..2_200_000]].concat();
        let window = window(&base, &new, 512 * KIB);
        assert!(window.start <= 2_000_000 && window.end >= 2_200_000, "{window:?}");
    }

    #[test]
    fn content_that_is_repeated_in_the_base_does_not_count() {
        let repeated = samples::noise(1, 200_000);
        let single = samples::noise(2, 100_000);
        let base = [&repeated[..], &repeated, &samples::noise(3, 1 << 20), &single].concat();
        let window = window(&base, &[&repeated[..], &single].concat(), 512 * KIB);
        assert!(window.end == base.len() as u64, "{window:?}");
    }

    #[test]
    fn without_similar_content_the_window_is_at_the_same_place() {
        let base = plain(&samples::noise(1, 1 << 20));
        let new = plain(&samples::noise(2, 1 << 20));
        let index = Index::new(&base, 256 * KIB).unwrap();
        assert_eq!(index.window(&new, 512 * KIB..640 * KIB).unwrap(), 448 * KIB..704 * KIB);
        assert_eq!(index.window(&new, 0..64 * KIB).unwrap(), 0..256 * KIB);
        assert_eq!(index.window(&new, 960 * KIB..1024 * KIB).unwrap(), 768 * KIB..1024 * KIB);
    }

    #[test]
    fn the_window_of_an_empty_base_is_empty() {
        assert_eq!(window(b"", &samples::noise(1, 100_000), 64 * KIB), 0..0);
        assert_eq!(window(b"", b"", 64 * KIB), 0..0);
    }

    /// Returns two bytes whose repetition has an anchor every two bytes.
    fn pair_of_anchors() -> [u8; 2] {
        let is_anchor = |pair: &[u8; 2]| {
            let step = |hash: u64, byte: &u8| (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
            pair.iter().cycle().take(CONTEXT).fold(0, step).leading_zeros() >= ZEROS
        };
        (0..=u16::MAX).map(u16::to_le_bytes).find(is_anchor).unwrap()
    }

    #[test]
    fn hostile_anchors_stay_within_the_memory() {
        let run: Vec<u8> = pair_of_anchors().into_iter().cycle().take(100_000).collect();
        let base = plain(&[&samples::noise(1, 400_000)[..], &run, &samples::noise(2, 400_000)].concat());
        let mut table = Table { anchors: Vec::new(), zeros: ZEROS, capacity: 64 };
        let mut all = 0;
        for_each_anchor(&base, 0..base.length(), |anchor| {
            all += 1;
            table.insert(anchor);
            assert!(table.anchors.len() <= 64 && table.anchors.capacity() <= 64);
        })
        .unwrap();
        assert!(all > 50_000, "{all}");
        let kept = table.finish();
        assert!((10..64).contains(&kept.len()), "{}", kept.len());
        let index = Index::with_capacity(&base, 512 * KIB, 64).unwrap();
        let window = index.window(&base, 600_000..800_000).unwrap();
        assert!(window.start <= 610_000 && window.end >= 790_000, "{window:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_window_is_inside_the_base_and_as_long_as_the_segment(
            base in 0..600_000usize, new in 1..200_000usize, from in 0..600_000usize, similar in any::<bool>()
        ) {
            let base = samples::noise(1, base);
            let new = match base.get(from..).filter(|_| similar) {
                Some(rest) if !rest.is_empty() => rest[..new.min(rest.len())].to_vec(),
                _ => samples::noise(2, new),
            };
            let window = window(&base, &new, 256 * KIB);
            let length = window.end - window.start;
            prop_assert!(window.end <= base.len() as u64 && length <= 256 * KIB, "{:?}", window);
            prop_assert!(length >= base.len().min(new.len()) as u64, "{:?}", window);
        }
    }
}
