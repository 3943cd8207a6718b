//! Ed25519 keys in the PEM files that openssl reads and writes, and their fingerprints.

use std::fmt;

use ed25519_dalek::pkcs8::KeypairBytes;
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use pkcs8::der::pem::LineEnding;
use pkcs8::der::zeroize::Zeroizing;
use pkcs8::pkcs5::pbes2;
use pkcs8::{
    DecodePrivateKey, EncodePrivateKey, EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, SecretDocument,
};

use crate::digest::Digest;

/// The SubjectPublicKeyInfo of an Ed25519 key up to the key's 32 bytes (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The rounds of PBKDF2-HMAC-SHA256 for an encrypted key. Scrypt would need 128 MiB of memory.
const KDF_ROUNDS: u32 = 600_000;
/// The largest key file that is read, in bytes.
pub const MAX_PEM: u64 = 64 << 10;

/// The identifier of a public key: the sha256 of its SubjectPublicKeyInfo in DER. The following command computes it too:
/// `openssl pkey -pubin -in ferry.pub -outform DER | sha256sum`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Digest);

impl KeyId {
    /// The 64 hex digits that are the `keyid` in an envelope.
    pub fn hex(&self) -> String {
        self.0.hex()
    }

    /// The form for people: 16 groups of 4 upper-case hex digits.
    pub fn fingerprint(&self) -> String {
        grouped(&self.0.hex())
    }

    /// The fingerprint in two lines of equal length, for people who read it aloud.
    pub fn halves(&self) -> (String, String) {
        let text = self.fingerprint();
        (text[..39].to_owned(), text[40..].to_owned())
    }

    /// The first two groups, for a line that has no room for all.
    pub fn short(&self) -> String {
        format!("{} …", &self.fingerprint()[..9])
    }

    /// Whether `typed` is this fingerprint, whatever its spacing and case.
    pub fn matches(&self, typed: &str) -> bool {
        plain(typed).eq_ignore_ascii_case(&self.0.hex())
    }

    /// Whether `typed` has the form of a complete fingerprint of any key.
    pub fn is_complete(typed: &str) -> bool {
        let plain = plain(typed);
        plain.len() == 64 && plain.bytes().all(|c| c.is_ascii_hexdigit())
    }
}

/// Removes spaces, colons and hyphens from a typed fingerprint.
fn plain(typed: &str) -> String {
    typed.chars().filter(|c| !c.is_whitespace() && !matches!(c, ':' | '-')).collect()
}

/// Formats 64 hex digits as a fingerprint: in upper case, in groups of 4.
pub(crate) fn grouped(hex: &str) -> String {
    let hex = hex.to_uppercase();
    (0..64).step_by(4).map(|at| &hex[at..at + 4]).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads the first `PUBLIC KEY` block of a PEM text. A byte-order mark and Windows line ends
    /// are accepted, because mail programs and editors add them.
    ///
    /// # Errors
    /// If the text holds no PEM block, a private key, another kind of key, or a weak key. The text of the
    /// error says which.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let text = normal(text);
        if text.contains("PRIVATE KEY-----") {
            return Err("it is a private key, which must never leave the connected side".into());
        }
        let (label, der) = SecretDocument::from_pem(&text).map_err(|_| "it holds no PEM block".to_owned())?;
        if label != "PUBLIC KEY" {
            return Err(format!("it holds a {label}, not a PUBLIC KEY"));
        }
        let bytes: &[u8; 32] = der
            .as_bytes()
            .strip_prefix(&SPKI_PREFIX)
            .and_then(|key| key.try_into().ok())
            .ok_or("its key is not an Ed25519 key")?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| "its key is not on the curve")?;
        if key.is_weak() {
            return Err("its key is weak".into());
        }
        Ok(PublicKey(key))
    }

    /// The key as PEM.
    pub fn to_pem(&self) -> String {
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(self.spki());
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }

    /// The key's identifier.
    pub fn id(&self) -> KeyId {
        KeyId(Digest::of(&self.spki()))
    }

    /// Whether `signature` is a signature of `message` by this key. The strict rules reject malleable signatures and
    /// weak keys.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }

    fn spki(&self) -> Vec<u8> {
        [&SPKI_PREFIX[..], self.0.as_bytes()].concat()
    }
}

/// A private key. Its bytes are wiped when it is dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

/// The reason why a private key could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadKey {
    /// The key is encrypted and no passphrase was given.
    #[error("no passphrase was given")]
    Encrypted,
    /// The passphrase does not decrypt the key.
    #[error("this passphrase does not decrypt it")]
    WrongPassphrase,
    /// The text is not a private key; the string says why.
    #[error("{0}")]
    NotAKey(String),
}

impl SigningKey {
    /// Generates a key from the system's random numbers.
    ///
    /// # Errors
    /// If the system returns no random numbers.
    pub fn generate() -> std::io::Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(std::io::Error::other)?;
        Ok(SigningKey(ed25519_dalek::SigningKey::from_bytes(&seed)))
    }

    /// Reads a PKCS#8 key, encrypted or not, as written by openssl or [`SigningKey::to_pem`].
    ///
    /// # Errors
    /// [`BadKey::Encrypted`] if the key is encrypted and there is no passphrase;
    /// [`BadKey::WrongPassphrase`] if the passphrase does not decrypt it; [`BadKey::NotAKey`] if the text
    /// is not a private Ed25519 key.
    pub fn from_pem(text: &str, passphrase: Option<&str>) -> Result<Self, BadKey> {
        let not = |why: String| BadKey::NotAKey(why);
        let text = normal(text);
        let (label, der) =
            SecretDocument::from_pem(&text).map_err(|_| not("it holds no PEM block".into()))?;
        let der = match label {
            "PRIVATE KEY" => der,
            "ENCRYPTED PRIVATE KEY" => {
                let passphrase = passphrase.ok_or(BadKey::Encrypted)?;
                let info = EncryptedPrivateKeyInfoRef::try_from(der.as_bytes())
                    .map_err(|e| not(format!("its encryption is not understood ({e})")))?;
                info.decrypt(passphrase).map_err(|_| BadKey::WrongPassphrase)?
            }
            "PUBLIC KEY" => return Err(not("it is the public key".into())),
            other => return Err(not(format!("it holds a {other}"))),
        };
        let pair = KeypairBytes::from_pkcs8_der(der.as_bytes())
            .map_err(|_| not("its key is not an Ed25519 key".into()))?;
        let key = ed25519_dalek::SigningKey::from_bytes(&pair.secret_key);
        // A file whose public half belongs to another key is damaged or forged.
        if pair.public_key.is_some_and(|public| public.to_bytes() != *key.verifying_key().as_bytes()) {
            return Err(not("its public half does not belong to it".into()));
        }
        Ok(SigningKey(key))
    }

    /// Returns the key as PKCS#8 version 1, which every openssl reads. It is encrypted if a passphrase is given (PBES2:
    /// PBKDF2-HMAC-SHA256, AES-256-CBC).
    ///
    /// # Errors
    /// If the system returns no random numbers, or the key cannot be encoded.
    pub fn to_pem(&self, passphrase: Option<&str>) -> std::io::Result<Zeroizing<String>> {
        let failed = |e: &dyn fmt::Display| std::io::Error::other(e.to_string());
        // With a public half it would be version 2, which OpenSSL 3.0 does not read.
        let pair = KeypairBytes { secret_key: *self.0.as_bytes(), public_key: None };
        let der = pair.to_pkcs8_der().map_err(|e| failed(&e))?;
        let Some(passphrase) = passphrase else {
            return der.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|e| failed(&e));
        };
        let (mut salt, mut iv) = ([0; 16], [0; 16]);
        getrandom::fill(&mut salt).map_err(std::io::Error::other)?;
        getrandom::fill(&mut iv).map_err(std::io::Error::other)?;
        let parameters = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(KDF_ROUNDS, &salt, iv)
            .map_err(|e| failed(&e))?;
        let info = PrivateKeyInfoRef::try_from(der.as_bytes()).map_err(|e| failed(&e))?;
        let encrypted = info.encrypt_with_params(parameters, passphrase).map_err(|e| failed(&e))?;
        encrypted.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).map_err(|e| failed(&e))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a message. The 64 bytes are always the same for the same message (RFC 8032).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// Returns PEM without a byte-order mark, surrounding space and Windows line ends. It may hold a private key, so there
/// is only one copy, which is wiped when dropped.
fn normal(text: &str) -> Zeroizing<String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    let mut normal = Zeroizing::new(String::with_capacity(text.len() + 1));
    for line in text.split("\r\n") {
        normal.push_str(line);
        normal.push('\n');
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_read_back_from_its_files() {
        let key = SigningKey::generate().unwrap();
        let pem = key.to_pem(None).unwrap();
        let back = SigningKey::from_pem(&pem, None).unwrap();
        assert_eq!(back.public(), key.public());
        assert_eq!(PublicKey::from_pem(&key.public().to_pem()).unwrap(), key.public());
        let mailed = format!("\u{feff}{}", key.public().to_pem().replace('\n', "\r\n"));
        assert_eq!(PublicKey::from_pem(&mailed).unwrap(), key.public());
    }

    #[test]
    fn a_passphrase_is_needed_and_must_be_right() {
        let key = SigningKey::generate().unwrap();
        let pem = key.to_pem(Some("right")).unwrap();
        assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        assert_eq!(SigningKey::from_pem(&pem, Some("right")).unwrap().public(), key.public());
        assert_eq!(SigningKey::from_pem(&pem, None).err(), Some(BadKey::Encrypted));
        assert_eq!(SigningKey::from_pem(&pem, Some("wrong")).err(), Some(BadKey::WrongPassphrase));
    }

    #[test]
    fn the_halves_are_not_confused() {
        let key = SigningKey::generate().unwrap();
        let error = PublicKey::from_pem(&key.to_pem(None).unwrap()).unwrap_err();
        assert!(error.contains("must never leave"), "{error}");
        assert!(SigningKey::from_pem(&key.public().to_pem(), None).is_err());
        assert!(PublicKey::from_pem("not a key").is_err());
    }

    #[test]
    fn signatures_are_strict() {
        let key = SigningKey::generate().unwrap();
        let signature = key.sign(b"message");
        assert!(key.public().verifies(b"message", &signature));
        assert!(!key.public().verifies(b"Message", &signature));
        assert!(!key.public().verifies(b"message", &signature[..63]));
        for at in 0..64 {
            let mut bent = signature;
            bent[at] ^= 1;
            assert!(!key.public().verifies(b"message", &bent));
        }
        // The identity point verifies everything under rules that are not strict.
        let mut weak = SPKI_PREFIX.to_vec();
        weak.extend([1; 1]);
        weak.extend([0; 31]);
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(weak);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
        assert_eq!(PublicKey::from_pem(&pem).unwrap_err(), "its key is weak");
    }

    #[test]
    fn fingerprints_compare_as_people_type_them() {
        let id = SigningKey::generate().unwrap().public().id();
        assert_eq!(id.fingerprint().len(), 79);
        assert!(id.matches(&id.fingerprint()));
        assert!(id.matches(&id.hex()));
        assert!(!id.matches(&id.fingerprint()[..40]));
        assert!(!id.matches(""));
    }
}
