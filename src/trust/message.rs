//! What a signature covers: a payload and its type, in the pre-authentication encoding of DSSE.

/// The type of a payload: one that this program knows, never one that a file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadType(&'static str);

impl PayloadType {
    /// A type by its media type.
    pub const fn new(media_type: &'static str) -> Self {
        PayloadType(media_type)
    }

    /// The media type.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// What a key signs: the pre-authentication encoding of a payload that this program made or verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    pub(super) fn new(payload_type: PayloadType, payload: &[u8]) -> Self {
        Message(pae(payload_type.as_str(), payload))
    }

    /// The bytes to sign.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The pre-authentication encoding: the bytes that are signed.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}
