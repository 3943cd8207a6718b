//! The signed envelope: DSSE v1 (secure-systems-lab/dsse, envelope.md and protocol.md).
//!
//! What is signed is the pre-authentication encoding of a payload and its type, so a signature
//! over one kind of document never holds for another. Key identifiers in the envelope are hints
//! that anyone can write; what counts is which trusted key verifies.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};

use super::TrustError;
use super::key::{KeyId, PublicKey};
use super::signer::Signer;

/// The signatures for which an envelope leaves room.
pub const MAX_SIGNATURES: usize = 8;

/// A payload with its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<Signature>,
}

/// One signature. The key identifier is a hint and is not itself signed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    keyid: String,
    bytes: Vec<u8>,
}

/// The envelope as JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    payload_type: String,
    payload: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// What an envelope's bytes are instead of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAnEnvelope(String);

/// The pre-authentication encoding: the bytes that are signed.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// An envelope without signatures.
    pub fn new(payload_type: &str, payload: Vec<u8>) -> Self {
        Envelope { payload_type: payload_type.into(), payload, signatures: Vec::new() }
    }

    /// The payload's type.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload's bytes, of which nothing is known before [`Envelope::signers`] has said so.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The key identifiers that the envelope claims.
    pub fn claimed_keyids(&self) -> impl Iterator<Item = &str> {
        self.signatures.iter().map(|signature| signature.keyid.as_str())
    }

    /// Adds a signature.
    ///
    /// # Errors
    /// Those of the signer.
    pub fn sign(&mut self, signer: &dyn Signer) -> Result<(), TrustError> {
        let bytes = signer.sign(&pae(&self.payload_type, &self.payload))?.to_vec();
        self.signatures.push(Signature { keyid: signer.public().id().hex(), bytes });
        Ok(())
    }

    /// Which of the trusted keys signed this payload, each once, however often it signed.
    pub fn signers<'k>(&self, trusted: impl IntoIterator<Item = &'k PublicKey>) -> Vec<KeyId> {
        let message = pae(&self.payload_type, &self.payload);
        let signed = |key: &&PublicKey| self.signatures.iter().any(|s| key.verifies(&message, &s.bytes));
        let mut ids: Vec<KeyId> = trusted.into_iter().filter(signed).map(PublicKey::id).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// The bytes that an envelope with a payload of this type and length takes at the most:
    /// with all its signatures, rounded up to a tar block.
    pub fn capacity(payload_type: &str, payload_length: usize) -> usize {
        let signature = WireSignature { keyid: "0".repeat(64), sig: STANDARD.encode([0; 64]) };
        let one = serde_json::to_string(&signature).map_or(0, |json| json.len()) + 1;
        let fixed = r#"{"payloadType":"","payload":"","signatures":[]}"#.len();
        let payload = base64::encoded_len(payload_length, true).unwrap_or(usize::MAX);
        fixed
            .saturating_add(payload_type.len())
            .saturating_add(payload)
            .saturating_add(one * MAX_SIGNATURES)
            .next_multiple_of(512)
    }

    /// The envelope as JSON, filled up with spaces to exactly `capacity` bytes, so that another
    /// signature changes nothing else in a bundle. `None` where it does not fit.
    pub fn to_bytes(&self, capacity: usize) -> Option<Vec<u8>> {
        let wire = Wire {
            payload_type: self.payload_type.clone(),
            payload: STANDARD.encode(&self.payload),
            signatures: self
                .signatures
                .iter()
                .map(|s| WireSignature { keyid: s.keyid.clone(), sig: STANDARD.encode(&s.bytes) })
                .collect(),
        };
        let mut bytes = serde_json::to_vec(&wire).ok()?;
        if bytes.len() > capacity || self.signatures.len() > MAX_SIGNATURES {
            return None;
        }
        bytes.resize(capacity, b' ');
        Some(bytes)
    }

    /// Reads an envelope's bytes.
    ///
    /// # Errors
    /// Where they are not one JSON object of this form, or hold more than [`MAX_SIGNATURES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAnEnvelope> {
        let not = |why: String| NotAnEnvelope(why);
        let wire: Wire =
            serde_json::from_slice(bytes).map_err(|e| not(format!("not a DSSE envelope: {e}")))?;
        if wire.signatures.len() > MAX_SIGNATURES {
            return Err(not(format!("the envelope holds more than {MAX_SIGNATURES} signatures")));
        }
        let payload = decode(&wire.payload).ok_or_else(|| not("the payload is not base64".into()))?;
        let signature = |wire: WireSignature| {
            let bytes = decode(&wire.sig).ok_or_else(|| not("a signature is not base64".into()))?;
            Ok(Signature { keyid: wire.keyid, bytes })
        };
        let signatures = wire.signatures.into_iter().map(signature).collect::<Result<_, _>>()?;
        Ok(Envelope { payload_type: wire.payload_type, payload, signatures })
    }
}

/// Both alphabets of base64, as DSSE asks of a reader.
fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trust::key::SigningKey;

    const TYPE: &str = "application/example";

    fn signed(keys: &[&SigningKey]) -> Envelope {
        let mut envelope = Envelope::new(TYPE, b"{\"a\":1}".to_vec());
        keys.iter().for_each(|key| envelope.sign(*key).unwrap());
        envelope
    }

    #[test]
    fn the_encoding_is_the_one_of_the_protocol() {
        // The example of protocol.md.
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn keys_are_counted_and_not_names_or_signatures() {
        let (a, b) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let trusted = [a.public(), b.public()];
        assert_eq!(signed(&[&a, &a, &a]).signers(&trusted), [a.public().id()]);
        assert_eq!(signed(&[&a, &b]).signers(&trusted).len(), 2);
        assert_eq!(signed(&[&a, &b]).signers(&trusted[1..]), [b.public().id()]);
        assert!(signed(&[]).signers(&trusted).is_empty());
        let mut renamed = signed(&[&a]);
        renamed.signatures[0].keyid = b.public().id().hex();
        assert_eq!(renamed.signers(&trusted), [a.public().id()], "the keyid is only a hint");
    }

    #[test]
    fn another_type_is_another_message() {
        let key = SigningKey::generate().unwrap();
        let mut envelope = signed(&[&key]);
        envelope.payload_type = "application/other".into();
        assert!(envelope.signers(&[key.public()]).is_empty());
    }

    #[test]
    fn there_is_room_for_exactly_eight() {
        let keys: Vec<_> = (0..9).map(|_| SigningKey::generate().unwrap()).collect();
        let capacity = Envelope::capacity(TYPE, 7);
        assert_eq!(capacity % 512, 0);
        let mut envelope = signed(&[]);
        for key in &keys[..8] {
            envelope.sign(key).unwrap();
            let bytes = envelope.to_bytes(capacity).unwrap();
            assert_eq!(bytes.len(), capacity);
            assert_eq!(Envelope::parse(&bytes).unwrap(), envelope);
        }
        envelope.sign(&keys[8]).unwrap();
        assert_eq!(envelope.to_bytes(capacity * 2), None);
    }

    proptest! {
        #[test]
        fn the_capacity_always_suffices(payload in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let mut envelope = Envelope::new(TYPE, payload.clone());
            let key = SigningKey::from_pem(KEY, None).unwrap();
            (0..8).for_each(|_| envelope.sign(&key).unwrap());
            prop_assert!(envelope.to_bytes(Envelope::capacity(TYPE, payload.len())).is_some());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::parse(&bytes);
        }
    }

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";
}
