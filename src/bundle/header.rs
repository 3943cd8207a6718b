//! The tar header of a member. Each name and size has exactly one possible header.
//!
//! The reader compares headers byte for byte with these, so that a header cannot hide other data.

/// The length of a header and of a block, in bytes (POSIX.1-2001, "ustar Interchange Format").
pub(super) const BLOCK: u64 = 512;
/// The modification time of every member: 1980-01-01, the first date that FAT can store.
const MTIME: u64 = 315_532_800;

/// Returns the header of a regular file. `None` if the name or the size does not fit ustar.
pub(super) fn header(path: &str, size: u64) -> Option<[u8; BLOCK as usize]> {
    if path.len() > 100 || size > crate::bundle::format::MAX_MEMBER {
        return None;
    }
    let mut header = tar::Header::new_ustar();
    header.set_path(path).ok()?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header.set_size(size);
    header.set_cksum();
    Some(*header.as_bytes())
}

/// Returns the number of zero bytes that follow a member of this size.
pub(super) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// Returns the number of bytes that a member takes in the file: header, content and padding.
pub(super) fn footprint(size: u64) -> u64 {
    BLOCK + size + padding(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_never_changes() {
        let digest = crate::digest::Digest::of(&header("blobs/sha256/00", 513).unwrap());
        // Bundles of this version must stay readable: this value never changes.
        assert_eq!(digest.hex(), "b61156dc7cf7a27fd7fb3baf7343ab88fbe33aae65b7e805fc3a226df896e0a5");
        assert_eq!(padding(513), 511);
        assert_eq!(footprint(0), 512);
    }

    #[test]
    fn a_name_or_size_that_does_not_fit_has_no_header() {
        assert!(header(&"x".repeat(101), 1).is_none());
        assert!(header("x", crate::bundle::format::MAX_MEMBER).is_some());
        assert!(header("x", crate::bundle::format::MAX_MEMBER + 1).is_none());
    }
}
