//! Checks the beginning of a SQLite file: its format, its length, and the two tables of trivy-java-db.
//!
//! Layout from SQLite's "Database File Format": a 100-byte header, then on the first page the b-tree of the schema
//! table, whose records begin with the columns `type`, `name`, `tbl_name` and `rootpage`. Today, its entries fit the
//! first page. If they do not, `examine` searches for them in the rest of the file.

/// The tables of schema version 1 (trivy-java-db, `pkg/db/db.go`).
pub(super) const TABLES: [&str; 2] = ["artifacts", "indices"];
/// The offset of the header of the first page, which follows the header of the file.
pub(super) const HEADER: usize = 100;
/// The page type of a leaf of a table.
pub(super) const TABLE_LEAF: u8 = 0x0d;
/// The page type of an inner page of a table.
pub(super) const TABLE_INNER: u8 = 0x05;

/// Checks the first bytes of a file that is `size` bytes long in all.
///
/// # Errors
/// If the bytes are not the beginning of a SQLite file, the length of the file is not the one in its header, or a
/// table is missing. The text is a clause about the file.
pub(super) fn check(head: &[u8], size: u64) -> Result<(), String> {
    if !head.starts_with(b"SQLite format 3\0") || head.len() < 100 {
        return Err("is not a SQLite database".into());
    }
    let page_size = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65536,
        small => u64::from(small),
    };
    if !(512..=65536).contains(&page_size) || !page_size.is_power_of_two() {
        return Err("is not a SQLite database".into());
    }
    let pages = u64::from(u32::from_be_bytes([head[28], head[29], head[30], head[31]]));
    if pages == 0 || pages * page_size != size {
        return Err(format!("is damaged: its header names {} bytes, but it has {size}", pages * page_size));
    }
    let page = &head[..head.len().min(page_size as usize)];
    match page.get(HEADER) {
        // The schema does not fit the first page, so the tables are listed elsewhere in the file.
        Some(&TABLE_INNER) => Ok(()),
        Some(&TABLE_LEAF) => match tables(page, HEADER) {
            Some(tables) => missing(&tables).map_or(Ok(()), |missing| Err(format!("has no table {missing}"))),
            // The examination reports it.
            None => Ok(()),
        },
        _ => Err("has a schema that cannot be read".into()),
    }
}

fn missing(tables: &[Table]) -> Option<&'static str> {
    TABLES.into_iter().find(|wanted| !tables.iter().any(|(table, _)| table == wanted))
}

/// A table, and its root page if the number can be read.
pub(super) type Table = (String, Option<u32>);

/// Returns the tables that a page of the schema lists, or `None` if it cannot be read. `header` is the offset of the
/// header of the page.
pub(super) fn tables(page: &[u8], header: usize) -> Option<Vec<Table>> {
    let count = usize::from(u16::from_be_bytes([*page.get(header + 3)?, *page.get(header + 4)?]));
    let (mut tables, mut length) = (Vec::new(), 0);
    for pointer in page.get(header + 8..)?.chunks_exact(2).take(count) {
        let mut cell = page.get(usize::from(u16::from_be_bytes([pointer[0], pointer[1]]))..)?;
        let _payload_length = varint(&mut cell)?;
        let _row = varint(&mut cell)?;
        let before = cell.len();
        let header_length = usize::try_from(varint(&mut cell)?).ok()?;
        let types_length = header_length.checked_sub(before - cell.len())?;
        let (mut types, mut body) = cell.split_at_checked(types_length)?;
        let kind = text(&mut types, &mut body)?;
        let name = text(&mut types, &mut body)?;
        if kind == "table" {
            // Overlapping cells could contain more bytes than the page.
            length += name.len();
            if length > page.len() {
                return None;
            }
            let root = text(&mut types, &mut body).and_then(|_| number(&mut types, &mut body));
            tables.push((name, root.and_then(|root| u32::try_from(root).ok())));
        }
    }
    Some(tables)
}

/// Returns the next column of a record, which must be a number.
fn number(types: &mut &[u8], body: &mut &[u8]) -> Option<u64> {
    let length = match varint(types)? {
        8 => return Some(0),
        9 => return Some(1),
        length @ 1..=4 => length as usize,
        5 => 6,
        6 => 8,
        _ => return None,
    };
    let (value, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Returns the next column of a record, which must be text.
fn text(types: &mut &[u8], body: &mut &[u8]) -> Option<String> {
    let serial = varint(types)?;
    if serial < 13 || serial % 2 == 0 {
        return None;
    }
    let (value, rest) = body.split_at_checked(usize::try_from((serial - 13) / 2).ok()?)?;
    *body = rest;
    String::from_utf8(value.to_vec()).ok()
}

/// Reads a variable-length integer of SQLite, which has up to 9 bytes in big-endian order.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for index in 0..9 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if index == 8 {
            return Some(value << 8 | u64::from(byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            break;
        }
    }
    Some(value)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a database of one page whose schema lists these tables.
    pub(in crate::dataset) fn database(tables: &[&str]) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[..16].copy_from_slice(b"SQLite format 3\0");
        page[16..18].copy_from_slice(&4096u16.to_be_bytes());
        page[28..32].copy_from_slice(&1u32.to_be_bytes());
        page[100] = TABLE_LEAF;
        page[103..105].copy_from_slice(&(tables.len() as u16).to_be_bytes());
        let mut end = 4096;
        for (index, table) in tables.iter().enumerate() {
            let mut cell = vec![0, index as u8 + 1, 3, 13 + 2 * 5, 13 + 2 * table.len() as u8];
            cell.extend_from_slice(b"table");
            cell.extend_from_slice(table.as_bytes());
            cell[0] = cell.len() as u8 - 2;
            end -= cell.len();
            page[end..end + cell.len()].copy_from_slice(&cell);
            page[108 + 2 * index..][..2].copy_from_slice(&(end as u16).to_be_bytes());
        }
        page
    }

    /// Returns a page of a schema with these tables and their root pages.
    pub(in crate::dataset) fn schema_page(first: bool, tables: &[(&str, u8)]) -> Vec<u8> {
        let mut page = if first { database(&[]) } else { vec![0; 4096] };
        let header = if first { HEADER } else { 0 };
        page[header] = TABLE_LEAF;
        page[header + 3..header + 5].copy_from_slice(&(tables.len() as u16).to_be_bytes());
        let mut end = 4096;
        for (index, (table, root)) in tables.iter().enumerate() {
            let length = 13 + 2 * table.len() as u8;
            let mut cell = vec![0, index as u8 + 1, 6, 13 + 2 * 5, length, length, 1, 13];
            cell.extend_from_slice(format!("table{table}{table}").as_bytes());
            cell.push(*root);
            cell[0] = cell.len() as u8 - 2;
            end -= cell.len();
            page[end..end + cell.len()].copy_from_slice(&cell);
            page[header + 8 + 2 * index..][..2].copy_from_slice(&(end as u16).to_be_bytes());
        }
        page
    }

    #[test]
    fn overlapping_cells_with_more_bytes_than_the_page_are_rejected() {
        let mut page = database(&[&"x".repeat(100)]);
        let cell = [page[108], page[109]];
        page[103..105].copy_from_slice(&1000u16.to_be_bytes());
        page[108..2108].chunks_exact_mut(2).for_each(|pointer| pointer.copy_from_slice(&cell));
        assert_eq!(tables(&page, HEADER), None);
    }

    /// A database whose schema does not fit the first page is not rejected, because Trivy may still be
    /// able to read it.
    #[test]
    fn a_schema_that_continues_on_other_pages_is_not_rejected() {
        let mut inner = database(&[]);
        inner[HEADER] = TABLE_INNER;
        assert_eq!(check(&inner, 4096), Ok(()));
        let mut odd = database(&["artifacts", "indices"]);
        odd[HEADER + 8] = 0xff;
        assert_eq!(check(&odd, 4096), Ok(()), "a cell outside of the page");
        odd[HEADER] = 0x0a;
        assert!(check(&odd, 4096).unwrap_err().contains("schema"), "not a page of a table");
    }

    #[test]
    fn both_tables_are_required() {
        let good = database(&["artifacts", "indices"]);
        assert_eq!(check(&good, 4096), Ok(()));
        assert_eq!(check(&database(&["artifacts"]), 4096), Err("has no table indices".into()));
        assert_eq!(check(&database(&["artifact", "indices"]), 4096), Err("has no table artifacts".into()));
        assert_eq!(check(&[0; 4096], 4096), Err("is not a SQLite database".into()));
        assert!(check(&good, 8192).unwrap_err().contains("damaged"));
    }

    #[test]
    fn damaged_and_truncated_pages_never_panic() {
        let good = database(&["artifacts", "indices"]);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let _ = check(&bad, 4096);
            let _ = check(&good[..at], 4096);
        }
    }
}
