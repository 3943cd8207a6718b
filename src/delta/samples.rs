//! Data for the tests of this directory.

use std::io::Write;

use super::stream::{Form, Stream};

/// Returns pseudorandom bytes, which do not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    // The output of SplitMix64 has no short repetitions, even for neighboring seeds.
    let mut state = seed.wrapping_mul(0xA076_1D64_78BD_642F);
    let words = std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31).to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// Returns a stream of a temporary file with these bytes.
pub(crate) fn stream(bytes: &[u8], form: Form) -> Stream {
    let mut file = crate::util::fs::tempfile_in(&std::env::temp_dir()).unwrap();
    file.write_all(bytes).unwrap();
    Stream::new(file, form).unwrap()
}

/// Returns a file of pages that name themselves and their successors, as a bbolt database does.
pub(crate) fn bolt(seed: u64, pages: u64) -> Vec<u8> {
    let page = |number: u64| {
        let mut page = noise(seed + number, super::bolt_filter::PAGE);
        page[..8].copy_from_slice(&number.to_le_bytes());
        page[8..16].copy_from_slice(&[1, 0, 1, 0, 0, 0, 0, 0]);
        page[24..32].copy_from_slice(&(number + 1).to_le_bytes());
        page
    };
    (0..pages).flat_map(page).collect()
}
