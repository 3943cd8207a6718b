//! Checks the beginning of a bbolt file: its format, its version, and its length. It does not read the entries.
//!
//! Layout from bbolt v1.4 (`internal/common/meta.go`, `page.go`): each of the first two pages holds a
//! 16-byte page header and then magic, version, page size, flags (4 bytes each), the root bucket
//! (16), freelist page, page count and transaction (8 each), and an FNV-1a checksum of all of it.
//! Numbers are in the writer's byte order; upstream builds on little-endian machines.

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const PAGE_HEADER: usize = 16;
const META: usize = 64;
const CHECKSUM: usize = 56;

/// Checks the first bytes of a file that is `size` bytes long in all.
///
/// # Errors
/// If the bytes are not the beginning of a bbolt file, or the file is shorter than its pages. The text is a clause
/// about the file.
pub(super) fn check(head: &[u8], size: u64) -> Result<(), String> {
    let Some(meta) = metas(head).max_by_key(|meta| meta.transaction) else {
        return Err("is not a bbolt database".into());
    };
    let wanted = meta.pages.saturating_mul(meta.page_size);
    if wanted > size {
        return Err(format!("is truncated: its pages take {wanted} bytes, but it has {size}"));
    }
    Ok(())
}

struct Meta {
    page_size: u64,
    pages: u64,
    transaction: u64,
}

/// Returns the valid meta pages among the first two.
fn metas(head: &[u8]) -> impl Iterator<Item = Meta> + '_ {
    let first = parse(head, 0);
    let second_at = first.as_ref().map_or(4096, |meta| meta.page_size as usize);
    first.into_iter().chain(parse(head, second_at))
}

fn parse(head: &[u8], at: usize) -> Option<Meta> {
    let start = at.checked_add(PAGE_HEADER)?;
    let meta: &[u8; META] = head.get(start..start.checked_add(META)?)?.try_into().ok()?;
    let u32_at = |at: usize| u32::from_le_bytes([meta[at], meta[at + 1], meta[at + 2], meta[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let page_size = u64::from(u32_at(8));
    let good = u32_at(0) == MAGIC
        && u32_at(4) == VERSION
        && (512..=65536).contains(&page_size)
        && page_size.is_power_of_two()
        && fnv1a(&meta[..CHECKSUM]) == u64_at(CHECKSUM);
    good.then(|| Meta { page_size, pages: u64_at(40), transaction: u64_at(48) })
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a database of `pages` empty pages with valid meta pages.
    pub(in crate::dataset) fn database(pages: u64) -> Vec<u8> {
        let mut file = vec![0; pages as usize * 4096];
        for (page, transaction) in [(0usize, 1u64), (1, 2)] {
            let meta = &mut file[page * 4096 + PAGE_HEADER..][..META];
            meta[..4].copy_from_slice(&MAGIC.to_le_bytes());
            meta[4..8].copy_from_slice(&VERSION.to_le_bytes());
            meta[8..12].copy_from_slice(&4096u32.to_le_bytes());
            meta[40..48].copy_from_slice(&pages.to_le_bytes());
            meta[48..56].copy_from_slice(&transaction.to_le_bytes());
            let sum = fnv1a(&meta[..CHECKSUM]);
            meta[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
        }
        file
    }

    #[test]
    fn a_database_is_recognized_by_its_meta_pages() {
        let good = database(4);
        assert_eq!(check(&good, good.len() as u64), Ok(()));
        assert_eq!(check(b"SQLite format 3\0", 16), Err("is not a bbolt database".into()));
        assert!(check(&good, good.len() as u64 - 1).unwrap_err().contains("truncated"));
    }

    #[test]
    fn one_torn_meta_page_is_accepted_and_two_are_rejected() {
        let mut torn = database(4);
        torn[PAGE_HEADER + 50] ^= 1;
        assert_eq!(check(&torn, torn.len() as u64), Ok(()));
        torn[4096 + PAGE_HEADER + 50] ^= 1;
        assert!(check(&torn, torn.len() as u64).is_err());
    }

    #[test]
    fn a_truncated_head_never_panics() {
        let good = database(2);
        for length in 0..good.len() {
            let _ = check(&good[..length], good.len() as u64);
        }
    }
}
