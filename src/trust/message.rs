//! The signed message: a payload and its type, in the pre-authentication encoding of DSSE.

/// The type of a payload. Always a constant of this program, never read from a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadType(&'static str);

impl PayloadType {
    /// Returns the type with this media type.
    pub const fn new(media_type: &'static str) -> Self {
        PayloadType(media_type)
    }

    /// The media type.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// The bytes that a key signs: the pre-authentication encoding of a payload that this program made or verified, or the
/// line of a checksum. The two cannot be confused, because the encoding begins with `DSSEv1` and a checksum with a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    pub(super) fn new(payload_type: PayloadType, payload: &[u8]) -> Self {
        Message(pae(payload_type.as_str(), payload))
    }

    /// Creates the message of a line that `sha256sum` prints, with its line break.
    pub(crate) fn checksum(line: &str) -> Self {
        Message(line.as_bytes().to_vec())
    }

    /// The bytes to sign.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Returns the pre-authentication encoding of a payload.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}
