//! The signed envelope: DSSE v1 (secure-systems-lab/dsse, `envelope.md` and `protocol.md`).
//!
//! A signature covers the pre-authentication encoding of a payload and its type, so that a signature over
//! one kind of document is not valid for another. The key identifiers in an envelope are hints that anyone
//! can write. Only the trusted keys that verify a signature count.
//!
//! Two types keep unverified and verified payloads apart. An [`Envelope`] is the unverified content
//! of a file. A [`Verified`] payload has one of this program's types and the signature of a trusted
//! key. Only a payload that this program made ([`Envelope::signed`]) or verified
//! ([`Verified::countersigned`]) becomes a [`Message`], and a [`Signer`] accepts nothing else.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};

use crate::trust::TrustError;
use crate::trust::key::{KeyId, PublicKey};
use crate::trust::message::{Message, PayloadType};
use crate::trust::signer::Signer;
use crate::util::json;
use crate::util::text::Unverified;

/// The number of signatures that an envelope has room for.
pub const MAX_SIGNATURES: usize = 8;

/// A payload of a known type that trusted keys signed: exactly the bytes that their signatures cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    payload_type: PayloadType,
    payload: Vec<u8>,
    signers: Vec<KeyId>,
}

impl Verified {
    /// The bytes that were signed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The trusted keys that signed them; there is at least one.
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }

    /// Signs the payload, and returns its envelope with that signature after those that `stored` lists.
    /// The signed bytes are those of `self`, never those of `stored`. `None` if the key has signed it already.
    ///
    /// # Errors
    /// [`CountersignError::Changed`] if `stored` holds another payload or type;
    /// [`CountersignError::Signer`] if the signer fails, or its key does not verify the signature.
    pub fn countersigned(
        &self,
        stored: &Envelope,
        signer: &dyn Signer,
    ) -> Result<Option<Envelope>, CountersignError> {
        if stored.payload_type != self.payload_type.as_str() || stored.payload != self.payload {
            return Err(CountersignError::Changed);
        }
        if !stored.signers(self.payload_type, [&signer.public()]).is_empty() {
            return Ok(None);
        }
        let mut envelope = Envelope {
            payload_type: self.payload_type.as_str().into(),
            payload: self.payload.clone(),
            signatures: stored.signatures.clone(),
        };
        envelope.signatures.push(Signature::new(&Message::new(self.payload_type, &self.payload), signer)?);
        Ok(Some(envelope))
    }
}

/// The reason why a verified payload got no further signature.
#[derive(Debug, thiserror::Error)]
pub enum CountersignError {
    /// The stored envelope is no longer the one that was verified.
    #[error("it has changed since it was verified")]
    Changed,
    /// The signer failed.
    #[error(transparent)]
    Signer(#[from] TrustError),
}

/// A payload with its signatures, as a file holds them. Nothing in it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<Signature>,
}

/// One signature. The key identifier is a hint and is not itself signed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    keyid: Unverified,
    bytes: Vec<u8>,
}

impl Signature {
    /// Signs a message. A signature that its own key does not verify would make a bundle that every importer rejects.
    fn new(message: &Message, signer: &dyn Signer) -> Result<Self, TrustError> {
        let (key, bytes) = (signer.public(), signer.sign(message)?);
        if !key.verifies(message.as_bytes(), &bytes) {
            return Err(TrustError::WrongSignature { fingerprint: key.id().fingerprint() });
        }
        Ok(Signature { keyid: key.id().hex().into(), bytes: bytes.to_vec() })
    }
}

/// The envelope as JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow)]
    payload_type: Cow<'a, str>,
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "json::at_most::<MAX_SIGNATURES, _, _>")]
    signatures: Vec<WireSignature<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature<'a> {
    #[serde(default, borrow)]
    keyid: Cow<'a, str>,
    #[serde(borrow)]
    sig: Cow<'a, str>,
}

/// The reason why bytes are not an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAnEnvelope(Unverified);

impl Envelope {
    /// Signs a payload that this program made.
    ///
    /// # Errors
    /// The error of [`Signer::sign`] if the signer fails; [`TrustError::WrongSignature`] if its key
    /// does not verify the signature.
    pub fn signed(
        payload_type: PayloadType,
        payload: Vec<u8>,
        signer: &dyn Signer,
    ) -> Result<Self, TrustError> {
        let signature = Signature::new(&Message::new(payload_type, &payload), signer)?;
        Ok(Envelope { payload_type: payload_type.as_str().into(), payload, signatures: vec![signature] })
    }

    /// The payload's type.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload's bytes. They are unverified until [`Envelope::verify`].
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The key identifiers that the envelope claims.
    pub fn claimed_keyids(&self) -> impl Iterator<Item = &Unverified> {
        self.signatures.iter().map(|signature| &signature.keyid)
    }

    /// Verifies the type and the signatures, and keeps the payload if a trusted key signed it as this type.
    ///
    /// # Errors
    /// Returns the envelope if its payload has another type, or no trusted key signed it.
    pub fn verify<'k>(
        self,
        wanted: PayloadType,
        trusted: impl IntoIterator<Item = &'k PublicKey>,
    ) -> Result<Verified, Self> {
        let signers = self.signers(wanted, trusted);
        if signers.is_empty() {
            return Err(self);
        }
        Ok(Verified { payload_type: wanted, payload: self.payload, signers })
    }

    /// Returns the trusted keys that signed this payload as this type, without duplicates.
    pub fn signers<'k>(
        &self,
        wanted: PayloadType,
        trusted: impl IntoIterator<Item = &'k PublicKey>,
    ) -> Vec<KeyId> {
        if self.payload_type != wanted.as_str() {
            return Vec::new();
        }
        let message = Message::new(wanted, &self.payload);
        let signed =
            |key: &&PublicKey| self.signatures.iter().any(|s| key.verifies(message.as_bytes(), &s.bytes));
        let mut ids: Vec<KeyId> = trusted.into_iter().filter(signed).map(PublicKey::id).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// Returns the maximum size in bytes of an envelope with a payload of this type and length: with
    /// [`MAX_SIGNATURES`] signatures, rounded up to a tar block.
    pub fn capacity(payload_type: PayloadType, payload_length: usize) -> usize {
        let signature = WireSignature { keyid: "0".repeat(64).into(), sig: STANDARD.encode([0; 64]).into() };
        let one = serde_json::to_string(&signature).map_or(0, |json| json.len()) + 1;
        let fixed = r#"{"payloadType":"","payload":"","signatures":[]}"#.len();
        let payload = base64::encoded_len(payload_length, true).unwrap_or(usize::MAX);
        fixed
            .saturating_add(payload_type.as_str().len())
            .saturating_add(payload)
            .saturating_add(one * MAX_SIGNATURES)
            .next_multiple_of(512)
    }

    /// Returns the envelope as JSON, padded with spaces to exactly `capacity` bytes, so that another
    /// signature changes nothing else in a bundle. `None` if it does not fit.
    pub fn to_bytes(&self, capacity: usize) -> Option<Vec<u8>> {
        let wire = Wire {
            payload_type: self.payload_type.as_str().into(),
            payload: STANDARD.encode(&self.payload).into(),
            signatures: self
                .signatures
                .iter()
                .map(|s| WireSignature { keyid: s.keyid.raw().into(), sig: STANDARD.encode(&s.bytes).into() })
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
    /// If the bytes are not one JSON object of this form, are not base64 inside, or hold more than
    /// [`MAX_SIGNATURES`] signatures. The text says which.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAnEnvelope> {
        let not = |why: String| NotAnEnvelope(why.into());
        let wire: Wire<'_> = json::from_slice(bytes).map_err(|e| not(format!("not a DSSE envelope: {e}")))?;
        let payload = decode(&wire.payload).ok_or_else(|| not("the payload is not base64".into()))?;
        let signature = |wire: WireSignature<'_>| {
            let bytes = decode(&wire.sig).ok_or_else(|| not("a signature is not base64".into()))?;
            Ok(Signature { keyid: Unverified::new(&wire.keyid), bytes })
        };
        let signatures = wire.signatures.into_iter().map(signature).collect::<Result<_, _>>()?;
        Ok(Envelope { payload_type: wire.payload_type.into_owned(), payload, signatures })
    }
}

/// Decodes both alphabets of base64, as DSSE requires.
fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use crate::trust::message::pae;
    use proptest::prelude::*;

    use super::*;
    use crate::trust::key::SigningKey;

    const TYPE: PayloadType = PayloadType::new("application/example");
    const OTHER: PayloadType = PayloadType::new("application/other");

    fn signed_payload(payload: &[u8], keys: &[&SigningKey]) -> Envelope {
        let message = Message::new(TYPE, payload);
        let signatures = keys.iter().map(|key| Signature::new(&message, *key).unwrap()).collect();
        Envelope { payload_type: TYPE.as_str().into(), payload: payload.into(), signatures }
    }

    fn signed(keys: &[&SigningKey]) -> Envelope {
        signed_payload(b"{\"a\":1}", keys)
    }

    #[test]
    fn the_encoding_is_the_one_of_the_protocol() {
        // The example of `protocol.md`.
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn keys_are_counted_and_not_names_or_signatures() {
        let (a, b) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let trusted = [a.public(), b.public()];
        assert_eq!(signed(&[&a, &a, &a]).signers(TYPE, &trusted), [a.public().id()]);
        assert_eq!(signed(&[&a, &b]).signers(TYPE, &trusted).len(), 2);
        assert_eq!(signed(&[&a, &b]).signers(TYPE, &trusted[1..]), [b.public().id()]);
        assert!(signed(&[]).signers(TYPE, &trusted).is_empty());
        let mut renamed = signed(&[&a]);
        renamed.signatures[0].keyid = b.public().id().hex().into();
        assert_eq!(renamed.signers(TYPE, &trusted), [a.public().id()], "the keyid is only a hint");
    }

    #[test]
    fn another_type_is_another_message() {
        let key = SigningKey::generate().unwrap();
        let mut envelope = signed(&[&key]);
        envelope.payload_type = OTHER.as_str().into();
        for wanted in [TYPE, OTHER] {
            assert!(envelope.signers(wanted, [&key.public()]).is_empty());
        }
    }

    #[test]
    fn a_good_signature_of_another_type_does_not_count() {
        let key = SigningKey::generate().unwrap();
        let other = Envelope::signed(OTHER, b"{}".to_vec(), &key).unwrap();
        assert_eq!(other.signers(OTHER, [&key.public()]), [key.public().id()]);
        assert!(other.signers(TYPE, [&key.public()]).is_empty());
        assert!(other.verify(TYPE, [&key.public()]).is_err());
    }

    #[test]
    fn only_a_verified_payload_is_countersigned() {
        let (a, b) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let stored = signed(&[&a]);
        let verified = stored.clone().verify(TYPE, [&a.public()]).unwrap();
        let both = verified.countersigned(&stored, &b).unwrap().unwrap();
        assert_eq!(both.signers(TYPE, [&a.public(), &b.public()]).len(), 2);
        assert!(verified.countersigned(&both, &b).unwrap().is_none(), "it has signed already");
        let mut retyped = stored.clone();
        retyped.payload_type = OTHER.as_str().into();
        for changed in [retyped, signed_payload(b"{\"a\":2}", &[&a])] {
            let rejected = verified.countersigned(&changed, &b);
            assert!(matches!(rejected, Err(CountersignError::Changed)), "{rejected:?}");
        }
    }

    #[test]
    fn an_envelope_has_room_for_exactly_8_signatures() {
        let keys: Vec<_> = (0..9).map(|_| SigningKey::generate().unwrap()).collect();
        let capacity = Envelope::capacity(TYPE, 7);
        assert_eq!(capacity % 512, 0);
        for count in 1..=8 {
            let envelope = signed(&keys[..count].iter().collect::<Vec<_>>());
            let bytes = envelope.to_bytes(capacity).unwrap();
            assert_eq!(bytes.len(), capacity);
            assert_eq!(Envelope::parse(&bytes).unwrap(), envelope);
        }
        assert_eq!(signed(&keys.iter().collect::<Vec<_>>()).to_bytes(capacity * 2), None);
    }

    #[test]
    fn an_array_is_no_envelope_and_no_signature() {
        let key = SigningKey::generate().unwrap();
        let bytes = signed(&[&key]).to_bytes(4096).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let (keyid, sig) = (&json["signatures"][0]["keyid"], &json["signatures"][0]["sig"]);
        let (of, payload) = (&json["payloadType"], &json["payload"]);
        let rows = serde_json::json!([keyid, sig]);
        for bad in [
            serde_json::json!([of, payload, json["signatures"]]),
            serde_json::json!([of, payload, [rows]]),
            serde_json::json!({ "payloadType": of, "payload": payload, "signatures": [rows] }),
        ] {
            let error = Envelope::parse(bad.to_string().as_bytes()).unwrap_err().to_string();
            assert!(error.contains("invalid type: sequence"), "{bad}: {error}");
        }
    }

    #[test]
    fn long_claims_of_an_envelope_are_cut() {
        let claims = |keyid: &str, count: usize| {
            let one = serde_json::json!({ "keyid": keyid, "sig": "" });
            let json =
                serde_json::json!({ "payloadType": "x", "payload": "", "signatures": vec![one; count] });
            Envelope::parse(json.to_string().as_bytes())
        };
        let envelope = claims(&"k".repeat(1 << 20), MAX_SIGNATURES).unwrap();
        assert!(envelope.claimed_keyids().all(|keyid| keyid.raw().len() < 400));
        assert_eq!(envelope.claimed_keyids().count(), MAX_SIGNATURES);
        let error = claims("k", MAX_SIGNATURES + 1).unwrap_err().to_string();
        assert!(error.contains("more than 8"), "{error}");
        for huge in [format!("\"{}\"", "x".repeat(1 << 20)), format!("[\"{}\"]", "x".repeat(1 << 20))] {
            assert!(Envelope::parse(huge.as_bytes()).unwrap_err().to_string().len() < 3000);
        }
    }

    proptest! {
        #![proptest_config(crate::util::seed::cases(256))]
        #[test]
        fn the_capacity_always_suffices(payload in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let key = SigningKey::from_pem(KEY, None).unwrap();
            let envelope = signed_payload(&payload, &[&key; 8]);
            prop_assert!(envelope.to_bytes(Envelope::capacity(TYPE, payload.len())).is_some());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::parse(&bytes);
        }
    }

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";
}
