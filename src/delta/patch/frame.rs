//! Checks the headers of zstd frames (RFC 8878, section 3.1.1.1) before zstd decodes them.
//!
//! zstd itself accepts frames without a content size, checksums, dictionary identifiers and skippable frames. A patch
//! has none of these, so that there is one way to write a patch, and the memory that a frame needs is known in advance.
//! This module does not decode any data.

/// The largest length of a header in bytes: magic number, descriptor, window, dictionary identifier, content size.
pub(super) const MAX_HEADER: usize = 18;
/// The first bytes of a frame.
const MAGIC: u32 = 0xFD2F_B528;
/// The first bytes of a skippable frame. The last 4 bits have any value.
const SKIPPABLE: u32 = 0x184D_2A50;

/// The reason why a zstd frame of a patch is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The data ends before the frame.
    #[error("it is truncated")]
    Truncated,
    /// The data does not begin with the magic number.
    #[error("it is not a zstd frame")]
    NotAFrame,
    /// The frame would be skipped.
    #[error("it is a skippable zstd frame")]
    Skippable,
    /// The frame names a dictionary.
    #[error("it has a dictionary ID")]
    Dictionary,
    /// A checksum follows the frame.
    #[error("it has a checksum")]
    Checksum,
    /// The content size is missing.
    #[error("it does not contain its content size")]
    NoContentSize,
    /// The content size is not the described length.
    #[error("its content size is {found}, not {expected}")]
    ContentSize {
        /// The described length in bytes.
        expected: u64,
        /// The content size in bytes.
        found: u64,
    },
    /// Decoding needs too much memory.
    #[error("it needs a window of {found} bytes (limit: {limit})")]
    Window {
        /// The largest accepted length in bytes.
        limit: u64,
        /// The length in bytes.
        found: u64,
    },
    /// zstd cannot decode the frame.
    #[error("it cannot be decoded: {0}")]
    Corrupt(&'static str),
    /// Other data follows the frame.
    #[error("other data follows it")]
    Trailing,
}

/// What a frame must have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// The content size in bytes.
    pub(super) content: u64,
    /// The largest window in bytes.
    pub(super) window: u64,
}

/// Checks the header of a frame. `start` has the first [`MAX_HEADER`] bytes, or all bytes if there are fewer.
///
/// # Errors
/// If the header is incomplete, or has other properties than `expected`.
pub(super) fn check_header(start: &[u8], expected: Expected) -> Result<(), Fault> {
    let (magic, rest) = start.split_first_chunk().ok_or(Fault::Truncated)?;
    match u32::from_le_bytes(*magic) {
        MAGIC => {}
        magic if magic & !0xF == SKIPPABLE => return Err(Fault::Skippable),
        _ => return Err(Fault::NotAFrame),
    }
    let (descriptor, rest) = rest.split_first().ok_or(Fault::Truncated)?;
    let is_single_segment = descriptor & 0x20 != 0;
    if descriptor & 0x03 != 0 {
        return Err(Fault::Dictionary);
    }
    if descriptor & 0x04 != 0 {
        return Err(Fault::Checksum);
    }
    let (window, rest) = match (is_single_segment, rest) {
        (true, rest) => (None, rest),
        (false, [window, rest @ ..]) => (Some(window_size(*window)), rest),
        (false, []) => return Err(Fault::Truncated),
    };
    let content = match (descriptor >> 6, is_single_segment) {
        (0, false) => return Err(Fault::NoContentSize),
        (0, true) => number::<1>(rest)?,
        // A content size of 2 bytes begins at 256.
        (1, _) => number::<2>(rest)? + 256,
        (2, _) => number::<4>(rest)?,
        _ => number::<8>(rest)?,
    };
    if content != expected.content {
        return Err(Fault::ContentSize { expected: expected.content, found: content });
    }
    match window.unwrap_or(content) {
        found if found > expected.window => Err(Fault::Window { limit: expected.window, found }),
        _ => Ok(()),
    }
}

/// Returns the window size of a window descriptor: an exponent of 5 bits and a mantissa of 3 bits.
fn window_size(descriptor: u8) -> u64 {
    let base = 1u64 << (10 + (descriptor >> 3));
    base + base / 8 * u64::from(descriptor & 7)
}

/// Returns the number in the first `N` bytes, at most 8.
fn number<const N: usize>(bytes: &[u8]) -> Result<u64, Fault> {
    let bytes = bytes.first_chunk::<N>().ok_or(Fault::Truncated)?;
    Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected = Expected { content: 300, window: 1 << 20 };

    /// Returns a header with a descriptor and the fields after it.
    fn header(descriptor: u8, fields: &[u8]) -> Vec<u8> {
        [&[0x28, 0xB5, 0x2F, 0xFD, descriptor], fields].concat()
    }

    #[test]
    fn every_size_of_the_content_size_is_read() {
        let checked = |content, start: &[u8]| check_header(start, Expected { content, window: 1 << 63 });
        assert_eq!(checked(7, &header(0x20, &[7])), Ok(()));
        assert_eq!(checked(300, &header(0x60, &[44, 0])), Ok(()));
        assert_eq!(checked(0x0403_0201, &header(0xA0, &[1, 2, 3, 4])), Ok(()));
        assert_eq!(checked(0x0807_0605_0403_0201, &header(0xE0, &[1, 2, 3, 4, 5, 6, 7, 8])), Ok(()));
        assert_eq!(checked(300, &header(0x40, &[0, 44, 0])), Ok(()));
    }

    #[test]
    fn headers_of_zstd_are_accepted() {
        for length in [0, 1, 255, 256, 300, 65_535, 65_536, 100_000, 1 << 20] {
            let frame = zstd::bulk::compress(&vec![7; length], 3).unwrap();
            let start = &frame[..frame.len().min(MAX_HEADER)];
            let expected = Expected { content: length as u64, window: 1 << 20 };
            assert_eq!(check_header(start, expected), Ok(()), "{length}");
        }
    }

    #[test]
    fn every_deviation_has_its_own_error() {
        let cases = [
            (header(0x60, &[45, 0]), Fault::ContentSize { expected: 300, found: 301 }),
            (header(0x00, &[0]), Fault::NoContentSize),
            (header(0x61, &[1, 44, 0]), Fault::Dictionary),
            (header(0x64, &[44, 0]), Fault::Checksum),
            (header(0x40, &[11 << 3 | 1, 44, 0]), Fault::Window { limit: 1 << 20, found: 9 << 18 }),
            (vec![0x5A, 0x2A, 0x4D, 0x18, 0, 0, 0, 0], Fault::Skippable),
            (vec![0; 18], Fault::NotAFrame),
        ];
        for (start, fault) in cases {
            assert_eq!(check_header(&start, EXPECTED), Err(fault));
        }
        let single = Expected { content: 300, window: 299 };
        let fault = Fault::Window { limit: 299, found: 300 };
        assert_eq!(check_header(&header(0x60, &[44, 0]), single), Err(fault));
    }

    #[test]
    fn every_truncated_header_is_an_error() {
        for header in [header(0x60, &[44, 0]), header(0x40, &[0, 44, 0])] {
            for length in 0..header.len() {
                assert_eq!(check_header(&header[..length], EXPECTED), Err(Fault::Truncated), "{length}");
            }
        }
    }
}
