//! SQLite's record format: the values of a row or an index entry, and the leaf cells that hold them.

use super::bytes::{put_varint, varint};

/// The most bytes of a record. Up to this length, index cells of a page of 4096 bytes need no overflow pages.
pub(crate) const MAX_RECORD: usize = 1002;

/// A record that is longer than [`MAX_RECORD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record is longer than {MAX_RECORD} bytes")]
pub(crate) struct LongRecord;

/// A value in a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::delta::java) enum Value<'a> {
    Null,
    Integer(i64),
    Real,
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

/// Returns the values of a record with exactly `N` columns.
///
/// It is `None` if the record is invalid, has another number of columns, or has unused bytes.
pub(in crate::delta::java) fn columns<const N: usize>(record: &[u8]) -> Option<[Value<'_>; N]> {
    let (length, start) = varint(record)?;
    let (header, mut body) = record.split_at_checked(usize::try_from(length).ok()?)?;
    let mut header = header.get(start..)?;
    let mut values = [Value::Null; N];
    for value in &mut values {
        let (serial_type, length) = varint(header)?;
        header = header.get(length..)?;
        *value = take_value(serial_type, &mut body)?;
    }
    (header.is_empty() && body.is_empty()).then_some(values)
}

/// Takes a value of this serial type from the start of the bytes.
fn take_value<'a>(serial_type: u64, body: &mut &'a [u8]) -> Option<Value<'a>> {
    let length = match serial_type {
        0 | 8 | 9 => 0,
        1..=4 => serial_type as usize,
        5 => 6,
        6 | 7 => 8,
        10 | 11 => return None,
        _ => usize::try_from((serial_type - 12) / 2).ok()?,
    };
    let (bytes, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(match serial_type {
        0 => Value::Null,
        7 => Value::Real,
        8 | 9 => Value::Integer(serial_type as i64 - 8),
        1..=6 => {
            // The first byte holds the sign.
            let first = bytes.first().map_or(0, |byte| i64::from(*byte as i8));
            Value::Integer(bytes.iter().skip(1).fold(first, |value, byte| value << 8 | i64::from(*byte)))
        }
        _ if serial_type.is_multiple_of(2) => Value::Blob(bytes),
        _ => Value::Text(bytes),
    })
}

/// Writes records and their cells, and reuses its memory.
#[derive(Default)]
pub(in crate::delta::java) struct Record {
    types: Vec<u8>,
    body: Vec<u8>,
    cell: Vec<u8>,
}

impl Record {
    /// Starts a record.
    pub(in crate::delta::java) fn start(&mut self) -> &mut Self {
        self.types.clear();
        self.body.clear();
        self
    }

    /// Appends NULL.
    pub(in crate::delta::java) fn null(&mut self) -> &mut Self {
        self.types.push(0);
        self
    }

    /// Appends an integer in the fewest bytes.
    pub(in crate::delta::java) fn integer(&mut self, value: u32) -> &mut Self {
        let bytes = u64::from(value).to_be_bytes();
        let (serial_type, length) = match value {
            0 => (8, 0),
            1 => (9, 0),
            2..0x80 => (1, 1),
            0x80..0x8000 => (2, 2),
            0x8000..0x80_0000 => (3, 3),
            0x80_0000..0x8000_0000 => (4, 4),
            _ => (5, 6),
        };
        self.types.push(serial_type);
        self.body.extend_from_slice(bytes.get(8 - length..).unwrap_or_default());
        self
    }

    /// Appends a text.
    pub(in crate::delta::java) fn text(&mut self, text: &[u8]) -> &mut Self {
        self.bytes(13, text)
    }

    /// Appends a BLOB.
    pub(in crate::delta::java) fn blob(&mut self, blob: &[u8]) -> &mut Self {
        self.bytes(12, blob)
    }

    /// Appends bytes whose serial type is this one if there are none.
    fn bytes(&mut self, empty: u32, bytes: &[u8]) -> &mut Self {
        // `payload` rejects the record if its length does not fit into the number.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        put_varint(&mut self.types, length.saturating_mul(2).saturating_add(empty));
        self.body.extend_from_slice(bytes);
        self
    }

    /// Returns the cell of the record in a table leaf.
    ///
    /// # Errors
    /// If the record is too long.
    pub(in crate::delta::java) fn table_cell(&mut self, rowid: u32) -> Result<&[u8], LongRecord> {
        self.cell(Some(rowid))
    }

    /// Returns the cell of the record in an index leaf.
    ///
    /// # Errors
    /// If the record is too long.
    pub(in crate::delta::java) fn index_cell(&mut self) -> Result<&[u8], LongRecord> {
        self.cell(None)
    }

    /// Returns the cell of the record, with a rowid in a table leaf.
    fn cell(&mut self, rowid: Option<u32>) -> Result<&[u8], LongRecord> {
        // The length of the header counts itself: one byte, because records have few columns.
        let header = self.types.len() + 1;
        let length = header + self.body.len();
        if length > MAX_RECORD || header > 0x7f {
            return Err(LongRecord);
        }
        self.cell.clear();
        put_varint(&mut self.cell, length as u32);
        if let Some(rowid) = rowid {
            put_varint(&mut self.cell, rowid);
        }
        self.cell.push(header as u8);
        self.cell.extend_from_slice(&self.types);
        self.cell.extend_from_slice(&self.body);
        self.cell.resize(self.cell.len().max(4), 0);
        Ok(&self.cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back_in_the_fewest_bytes() {
        let lengths = [
            (0, 0),
            (1, 0),
            (2, 1),
            (127, 1),
            (128, 2),
            (32_767, 2),
            (32_768, 3),
            (8_388_607, 3),
            (8_388_608, 4),
            (i32::MAX as u32, 4),
            (1 << 31, 6),
        ];
        let mut record = Record::default();
        for (value, length) in lengths {
            let cell = record.start().integer(value).index_cell().unwrap();
            let payload = &cell[1..1 + usize::from(cell[0])];
            assert_eq!(payload.len(), 2 + length, "{value}");
            assert_eq!(columns(payload), Some([Value::Integer(i64::from(value))]));
        }
        assert_eq!(columns(&[2, 1, 0xff]), Some([Value::Integer(-1)]));
        assert_eq!(columns(&[2, 6, 0x80, 0, 0, 0, 0, 0, 0, 0]), Some([Value::Integer(i64::MIN)]));
    }

    #[test]
    fn values_come_back() {
        let mut record = Record::default();
        let cell = record.start().null().text(b"text").blob(&[7; 20]).text(b"").table_cell(300).unwrap();
        assert_eq!(&cell[..4], [29, 0x82, 0x2c, 5]);
        let expected = [Value::Null, Value::Text(b"text"), Value::Blob(&[7; 20]), Value::Text(b"")];
        assert_eq!(columns(&cell[3..]), Some(expected));
    }

    #[test]
    fn records_with_other_lengths_or_columns_are_invalid() {
        let record = [3, 9, 15, b'x'];
        assert_eq!(columns(&record), Some([Value::Integer(1), Value::Text(b"x")]));
        assert_eq!(columns::<1>(&record), None);
        assert_eq!(columns::<3>(&record), None);
        assert_eq!(columns::<2>(&record[..3]), None);
        assert_eq!(columns::<2>(&[3, 9, 10, b'x']), None);
        assert_eq!(columns::<2>(&[3, 9, 15, b'x', 0]), None);
        assert_eq!(columns::<1>(&[0]), None);
        assert_eq!(columns::<1>(&[0xff; 9]), None);
    }

    #[test]
    fn records_beyond_the_limit_are_errors() {
        let mut record = Record::default();
        assert!(record.start().text(&[b'x'; MAX_RECORD - 3]).index_cell().is_ok());
        assert_eq!(record.start().text(&[b'x'; MAX_RECORD - 2]).index_cell(), Err(LongRecord));
    }
}
