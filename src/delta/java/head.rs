//! The head: what the database holds beside the row stream, as a member of a bundle.
//!
//! Numbers are big-endian and unsigned:
//!
//! | bytes | content |
//! |---|---|
//! | 12 | `java-head-1` and a line feed |
//! | 1 | the layout: 1 for old free-blocks, plus 2 for secure deletion |
//! | 4 | the number of runs of equal archive types |
//! | per run | 1 byte: length of the type; the type; 4 bytes: number of rows |
//! | 4 | the number of overwrites |
//! | per overwrite | 8 bytes: offset in the file; 4 bytes: length; the bytes |
//! | 4096 | page 1 of the file |
//!
//! Nothing follows. There is only one form of each head: runs are not empty, and neighboring ones have different
//! types; overwrites are not empty, ascend, neither overlap nor touch each other, and do not change page 1.

use super::sqlite::layout::Layout;
use super::sqlite::page::PAGE;

/// The first bytes of a head, with the version of its format.
const MAGIC: &[u8; 12] = b"java-head-1\n";
/// The most bytes of the runs.
const MAX_RUNS: usize = 512 << 10;
/// The most bytes of the overwrites, with their offsets and lengths.
pub(super) const MAX_OVERWRITES: usize = 256 << 10;
/// The bytes of an overwrite beside its content.
pub(super) const OVERWRITE: usize = 12;
/// The bytes of a run beside its type.
const RUN: usize = 5;
/// The most rows of all runs.
const MAX_ROWS: u64 = 1 << 31;

/// A head that is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the head of trivy-java.db is invalid: {0}")]
pub(crate) struct InvalidHead(&'static str);

/// Consecutive rows with the same archive type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TypeRun {
    /// The archive type, such as `jar`.
    pub(crate) archive_type: Vec<u8>,
    /// The number of rows.
    pub(crate) rows: u32,
}

/// Bytes that replace those of the file that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overwrite {
    /// The offset in the file.
    pub(crate) offset: u64,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
}

/// What the database holds beside the row stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// The layout of unused bytes.
    pub(crate) layout: Layout,
    /// The archive types of all rows, in order.
    pub(crate) types: Vec<TypeRun>,
    /// The bytes that differ from the file that is built, in order.
    pub(crate) overwrites: Vec<Overwrite>,
    /// Page 1 of the file.
    pub(crate) page_one: Box<[u8; PAGE]>,
}

impl Head {
    /// Appends an archive type to the runs. `size` is the size of the runs so far, and is updated.
    ///
    /// # Errors
    /// If the runs exceed their limit.
    pub(super) fn add_type(&mut self, archive_type: &[u8], size: &mut usize) -> Result<(), InvalidHead> {
        match self.types.last_mut() {
            Some(run) if run.archive_type == archive_type => run.rows += 1,
            _ => {
                *size += RUN + archive_type.len();
                if archive_type.len() > usize::from(u8::MAX) || *size > MAX_RUNS {
                    return Err(InvalidHead("its archive types are too long or change too often"));
                }
                self.types.push(TypeRun { archive_type: archive_type.to_vec(), rows: 1 });
            }
        }
        Ok(())
    }

    /// Returns the head as bytes, at most 1 MiB.
    ///
    /// # Errors
    /// If a limit is exceeded, or the runs or overwrites do not have their canonical form.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, InvalidHead> {
        self.check()?;
        let Layout { old_free_blocks, secure_delete } = self.layout;
        let mut out = MAGIC.to_vec();
        out.push(u8::from(old_free_blocks) | u8::from(secure_delete) << 1);
        out.extend_from_slice(&(self.types.len() as u32).to_be_bytes());
        for run in &self.types {
            out.push(run.archive_type.len() as u8);
            out.extend_from_slice(&run.archive_type);
            out.extend_from_slice(&run.rows.to_be_bytes());
        }
        out.extend_from_slice(&(self.overwrites.len() as u32).to_be_bytes());
        for overwrite in &self.overwrites {
            out.extend_from_slice(&overwrite.offset.to_be_bytes());
            out.extend_from_slice(&(overwrite.bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(&overwrite.bytes);
        }
        out.extend_from_slice(&self.page_one[..]);
        Ok(out)
    }

    /// Parses a head.
    ///
    /// # Errors
    /// If the bytes are no head of this version, a limit is exceeded, or something has not its canonical form.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Head, InvalidHead> {
        let mut rest = Rest(bytes);
        if rest.take(MAGIC.len())? != MAGIC {
            return Err(InvalidHead("it does not begin with java-head-1"));
        }
        let [flags] = rest.array()?;
        if flags > 3 {
            return Err(InvalidHead("its layout is unknown"));
        }
        let layout = Layout { old_free_blocks: flags & 1 != 0, secure_delete: flags & 2 != 0 };
        let mut types = Vec::new();
        for _ in 0..rest.count(RUN, MAX_RUNS)? {
            let [length] = rest.array()?;
            let archive_type = rest.take(usize::from(length))?.to_vec();
            types.push(TypeRun { archive_type, rows: u32::from_be_bytes(rest.array()?) });
        }
        let mut overwrites = Vec::new();
        for _ in 0..rest.count(OVERWRITE, MAX_OVERWRITES)? {
            let offset = u64::from_be_bytes(rest.array()?);
            let length = u32::from_be_bytes(rest.array()?);
            overwrites.push(Overwrite { offset, bytes: rest.take(length as usize)?.to_vec() });
        }
        let page_one = Box::new(rest.array()?);
        if !rest.0.is_empty() {
            return Err(InvalidHead("something follows page 1"));
        }
        let head = Head { layout, types, overwrites, page_one };
        head.check()?;
        Ok(head)
    }

    /// Checks the limits and the canonical form.
    fn check(&self) -> Result<(), InvalidHead> {
        let size: usize = self.types.iter().map(|run| RUN + run.archive_type.len()).sum();
        let rows: u64 = self.types.iter().map(|run| u64::from(run.rows)).sum();
        let longest = self.types.iter().map(|run| run.archive_type.len()).max().unwrap_or(0);
        if size > MAX_RUNS || rows > MAX_ROWS || longest > usize::from(u8::MAX) {
            return Err(InvalidHead("its archive types exceed a limit"));
        }
        let repeats = |pair: &[TypeRun]| matches!(pair, [a, b] if a.archive_type == b.archive_type);
        if self.types.iter().any(|run| run.rows == 0) || self.types.windows(2).any(repeats) {
            return Err(InvalidHead("its archive types are not canonical"));
        }
        let mut size = 0;
        let mut end = PAGE as u64 - 1;
        for overwrite in &self.overwrites {
            size += OVERWRITE + overwrite.bytes.len();
            if overwrite.offset <= end || overwrite.bytes.is_empty() {
                return Err(InvalidHead("its overwrites are not canonical"));
            }
            end = overwrite.offset.saturating_add(overwrite.bytes.len() as u64);
        }
        if size > MAX_OVERWRITES {
            return Err(InvalidHead("its overwrites exceed a limit"));
        }
        Ok(())
    }
}

/// The bytes of a head that are not parsed yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// Takes this many bytes.
    fn take(&mut self, length: usize) -> Result<&'a [u8], InvalidHead> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(InvalidHead("it is truncated"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// Takes an array.
    fn array<const N: usize>(&mut self) -> Result<[u8; N], InvalidHead> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(InvalidHead("it is truncated"))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Takes the number of items that have at least `least` bytes each, and at most `most` in total.
    fn count(&mut self, least: usize, most: usize) -> Result<u32, InvalidHead> {
        let count = u32::from_be_bytes(self.array()?);
        let fits = (count as usize).checked_mul(least).is_some_and(|size| size <= most);
        if fits { Ok(count) } else { Err(InvalidHead("it has too many items")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let run = |archive_type: &[u8], rows| TypeRun { archive_type: archive_type.to_vec(), rows };
        let overwrite = |offset, bytes: &[u8]| Overwrite { offset, bytes: bytes.to_vec() };
        Head {
            layout: Layout { old_free_blocks: true, secure_delete: false },
            types: vec![run(b"jar", 7), run(b"aar", 1), run(b"", 2)],
            overwrites: vec![overwrite(4096, b"x"), overwrite(4098, b"yz")],
            page_one: Box::new([3; PAGE]),
        }
    }

    /// Changes a head and returns whether it is rejected in both directions.
    fn is_rejected(change: impl FnOnce(&mut Head)) -> bool {
        let mut head = head();
        change(&mut head);
        head.to_bytes().is_err()
    }

    #[test]
    fn a_head_comes_back() {
        let bytes = head().to_bytes().unwrap();
        assert_eq!(Head::parse(&bytes), Ok(head()));
        let start =
            b"java-head-1\n\x01\0\0\0\x03\x03jar\0\0\0\x07\x03aar\0\0\0\x01\0\0\0\0\x02\0\0\0\x02\0\0\0\0";
        assert!(bytes.starts_with(start));
    }

    #[test]
    fn truncated_and_extended_heads_are_invalid() {
        let bytes = head().to_bytes().unwrap();
        for length in 0..bytes.len() {
            assert!(Head::parse(&bytes[..length]).is_err());
        }
        assert!(Head::parse(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn changed_bytes_are_invalid_or_change_the_head() {
        let bytes = head().to_bytes().unwrap();
        for at in 0..bytes.len() - PAGE {
            for flip in 1..=255 {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                if let Ok(parsed) = Head::parse(&changed) {
                    assert_eq!(parsed.to_bytes().unwrap(), changed);
                }
            }
        }
    }

    #[test]
    fn heads_that_are_not_canonical_are_invalid() {
        assert!(!is_rejected(|_| {}));
        assert!(is_rejected(|head| head.types[1].rows = 0));
        assert!(is_rejected(|head| head.types[1].archive_type = b"jar".to_vec()));
        assert!(is_rejected(|head| head.types[1].archive_type = vec![b'x'; 256]));
        assert!(is_rejected(|head| head.types[1].rows = 1 << 31));
        assert!(is_rejected(|head| head.overwrites[0].offset = 4095));
        assert!(is_rejected(|head| head.overwrites[1].offset = 4097));
        assert!(is_rejected(|head| head.overwrites[0].bytes.clear()));
        assert!(is_rejected(|head| head.overwrites.reverse()));
        assert!(is_rejected(|head| head.overwrites[1].bytes = vec![0; MAX_OVERWRITES]));
    }

    #[test]
    fn numbers_of_items_are_limited_before_memory_is_used() {
        let mut bytes = head().to_bytes().unwrap();
        bytes[13..17].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(Head::parse(&bytes), Err(InvalidHead("it has too many items")));
    }
}
