//! A content digest: the BLAKE3 hash of a file that was unpacked from a layer.
//!
//! Packed data is identified by sha256 ([`crate::digest`]), which OCI and the signature use. The unpacked data is more
//! than twice as large, and it is hashed on both sides and again when a cache is compared with a bundle. On a CPU
//! without SHA instructions, BLAKE3 hashes 3400 MB/s. sha256 hashes only 220 to 330 MB/s, so
//! hashing would take longer than all other steps together. The two digests have different types,
//! so they cannot be confused.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{bytes_of, to_hex};

/// A BLAKE3 hash of 32 bytes, written `blake3:<64 lower-case hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentDigest([u8; 32]);

/// A string that is not a content digest in its canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a blake3 digest")]
pub struct InvalidContentDigest;

impl ContentDigest {
    /// Computes the content digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        ContentDigest(*blake3::hash(bytes).as_bytes())
    }

    /// Returns its first half, for large sets in memory.
    pub(crate) fn short(&self) -> u128 {
        self.0.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
    }

    /// Returns the 64 hex digits, as `b3sum` prints them.
    pub fn hex(&self) -> String {
        to_hex(&self.0)
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", self.hex())
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentDigest {
    type Err = InvalidContentDigest;

    fn from_str(text: &str) -> Result<Self, InvalidContentDigest> {
        text.strip_prefix("blake3:").and_then(bytes_of).map(ContentDigest).ok_or(InvalidContentDigest)
    }
}

impl Serialize for ContentDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a content digest of streamed bytes.
#[derive(Clone, Default)]
pub struct ContentHasher(blake3::Hasher);

impl ContentHasher {
    /// Creates a hasher.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the content digest of all bytes.
    pub fn finish(self) -> ContentDigest {
        ContentDigest(*self.0.finalize().as_bytes())
    }
}

impl io::Write for ContentHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a reader to its end, and returns the content digest and the length of the bytes.
///
/// # Errors
/// If the reader fails.
pub fn content_digest_of(mut reader: impl Read) -> io::Result<(ContentDigest, u64)> {
    let mut hasher = ContentHasher::new();
    let length = io::copy(&mut reader, &mut hasher)?;
    Ok((hasher.finish(), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first of the published test vectors of BLAKE3: empty input.
    const EMPTY: &str = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn the_empty_content_digest_is_the_published_one() {
        assert_eq!(ContentDigest::of(b"").to_string(), EMPTY);
        assert_eq!(content_digest_of(&b""[..]).unwrap(), (EMPTY.parse().unwrap(), 0));
    }

    #[test]
    fn only_the_canonical_spelling_parses() {
        let sha256 = EMPTY.replace("blake3", "sha256");
        for wrong in ["", "blake3:", &EMPTY[..70], &EMPTY[7..], &EMPTY.to_uppercase(), &sha256] {
            assert_eq!(wrong.parse::<ContentDigest>(), Err(InvalidContentDigest), "{wrong}");
        }
    }
}
