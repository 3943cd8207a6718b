//! Reads and writes numbers and ranges in the bytes of a page, and checks every bound.

use std::ops::Range;

/// A page or an intermediate result that contradicts itself. Only a defect of the writer, or a change of its file by
/// another process, causes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pages of the database being built contradict each other")]
pub(crate) struct Inconsistent;

/// A result whose only failure is a contradiction.
pub(in crate::delta::java) type Sound<T> = Result<T, Inconsistent>;

/// Returns the range of the bytes.
///
/// # Errors
/// If the range is not within the bytes.
pub(in crate::delta::java) fn slice(bytes: &[u8], range: Range<usize>) -> Sound<&[u8]> {
    bytes.get(range).ok_or(Inconsistent)
}

/// Returns the 2-byte number at an offset.
///
/// # Errors
/// If it is not within the bytes.
#[inline]
pub(in crate::delta::java) fn get_u16(bytes: &[u8], at: usize) -> Sound<usize> {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Inconsistent)?;
    Ok(usize::from(u16::from_be_bytes(*number)))
}

/// Writes a 2-byte number at an offset.
///
/// # Errors
/// If it is not within the bytes, or the number is larger than 65,535.
#[inline]
pub(in crate::delta::java) fn put_u16(bytes: &mut [u8], at: usize, number: usize) -> Sound<()> {
    let number = u16::try_from(number).map_err(|_| Inconsistent)?;
    put(bytes, at, &number.to_be_bytes())
}

/// Returns the 4-byte number at an offset.
///
/// # Errors
/// If it is not within the bytes.
pub(in crate::delta::java) fn get_u32(bytes: &[u8], at: usize) -> Sound<u32> {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Inconsistent)?;
    Ok(u32::from_be_bytes(*number))
}

/// Writes bytes at an offset.
///
/// # Errors
/// If they do not fit.
#[inline]
pub(in crate::delta::java) fn put(bytes: &mut [u8], at: usize, new: &[u8]) -> Sound<()> {
    let place = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..new.len())).ok_or(Inconsistent)?;
    place.copy_from_slice(new);
    Ok(())
}

/// Fills a range with zeros.
///
/// # Errors
/// If the range is not within the bytes.
pub(in crate::delta::java) fn zero(bytes: &mut [u8], range: Range<usize>) -> Sound<()> {
    bytes.get_mut(range).ok_or(Inconsistent)?.fill(0);
    Ok(())
}

/// Copies a range to an offset. Both may overlap.
///
/// # Errors
/// If one of them is not within the bytes.
pub(in crate::delta::java) fn copy(bytes: &mut [u8], range: Range<usize>, to: usize) -> Sound<()> {
    let length = range.end.checked_sub(range.start).ok_or(Inconsistent)?;
    if range.end > bytes.len() || to > bytes.len() - length {
        return Err(Inconsistent);
    }
    bytes.copy_within(range, to);
    Ok(())
}

/// Returns the variable-length integer at the start of the bytes, and its length. It is `None` if the bytes end early.
#[inline]
pub(in crate::delta::java) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(8) {
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    // The ninth byte contributes all of its bits.
    bytes.get(8).map(|last| (value << 8 | u64::from(*last), 9))
}

/// Appends a variable-length integer.
#[inline]
pub(in crate::delta::java) fn put_varint(out: &mut Vec<u8>, value: u32) {
    for shift in [28, 21, 14, 7] {
        if value >> shift != 0 {
            out.push((value >> shift & 0x7f) as u8 | 0x80);
        }
    }
    out.push((value & 0x7f) as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_length_integers_come_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_456, u32::MAX] {
            let mut bytes = vec![];
            put_varint(&mut bytes, value);
            assert_eq!(varint(&bytes), Some((u64::from(value), bytes.len())));
            assert_eq!(varint(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(varint(&[0xff; 9]), Some((u64::MAX, 9)));
        assert_eq!(varint(&[0xff; 8]), None);
    }

    #[test]
    fn ranges_outside_the_bytes_are_errors() {
        let mut bytes = [1, 2, 3, 4];
        assert_eq!(get_u16(&bytes, 3), Err(Inconsistent));
        assert_eq!(get_u32(&bytes, 1), Err(Inconsistent));
        assert_eq!(get_u16(&bytes, usize::MAX), Err(Inconsistent));
        assert_eq!(put_u16(&mut bytes, 0, 1 << 16), Err(Inconsistent));
        assert_eq!(put(&mut bytes, 2, &[0; 3]), Err(Inconsistent));
        assert_eq!(zero(&mut bytes, 3..5), Err(Inconsistent));
        assert_eq!(copy(&mut bytes, 0..3, 2), Err(Inconsistent));
        assert_eq!(copy(&mut bytes, 0..5, 0), Err(Inconsistent));
        assert_eq!(copy(&mut bytes, 0..3, 1), Ok(()));
        assert_eq!(bytes, [1, 1, 2, 3]);
    }
}
