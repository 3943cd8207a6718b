//! Divides keys into ranges that can be sorted within a bounded amount of memory. A range is a range of the first two
//! bytes of the keys.

use std::ops::Range;

/// The number of values of the first two bytes.
const PREFIXES: usize = 1 << 16;

/// Keys that cannot be sorted within the memory, because too many of them begin with the same two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many names or SHA-1s begin with the same two bytes")]
pub(crate) struct Crowded;

/// Returns the first two bytes of a key as a number. It is 0 for missing bytes.
#[inline]
pub(super) fn prefix(key: &[u8]) -> usize {
    match key {
        [first, second, ..] => usize::from(*first) << 8 | usize::from(*second),
        [first] => usize::from(*first) << 8,
        [] => 0,
    }
}

/// The memory that the keys with each prefix need.
pub(super) struct Histogram(Vec<u64>);

impl Histogram {
    /// Creates a histogram without keys.
    pub(super) fn new() -> Self {
        Histogram(vec![0; PREFIXES])
    }

    /// Adds a key that needs this many bytes of memory.
    #[inline]
    pub(super) fn add(&mut self, prefix: usize, memory: usize) {
        if let Some(sum) = self.0.get_mut(prefix) {
            *sum = sum.saturating_add(memory as u64);
        }
    }

    /// Returns ranges of prefixes, in order, whose keys need at most this many bytes of memory each, and the memory of
    /// each. Every key is in one of them.
    ///
    /// # Errors
    /// If the keys with one prefix need more.
    pub(super) fn ranges(&self, memory: usize) -> Result<Vec<(Range<usize>, usize)>, Crowded> {
        let mut ranges = Vec::new();
        let (mut start, mut sum) = (0, 0);
        for (prefix, more) in self.0.iter().enumerate() {
            let more = usize::try_from(*more).ok().filter(|more| *more <= memory).ok_or(Crowded)?;
            if sum + more > memory {
                ranges.push((start..prefix, sum));
                (start, sum) = (prefix, 0);
            }
            sum += more;
        }
        if sum > 0 {
            ranges.push((start..PREFIXES, sum));
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_all_keys_within_the_memory() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.ranges(10), Ok(vec![]));
        for key in [&b""[..], b"a", b"ab", b"abc", &[0xff; 3]] {
            histogram.add(prefix(key), 4);
        }
        let a = usize::from(b'a') << 8;
        let ab = a + usize::from(b'b');
        assert_eq!(histogram.ranges(100), Ok(vec![(0..PREFIXES, 20)]));
        assert_eq!(histogram.ranges(8), Ok(vec![(0..ab, 8), (ab..0xffff, 8), (0xffff..PREFIXES, 4)]));
        assert_eq!(histogram.ranges(7), Err(Crowded));
    }
}
