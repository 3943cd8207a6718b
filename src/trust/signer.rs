//! Signers: a key in memory, or a command that uses a key elsewhere, such as in an HSM or an agent.

use std::io::{Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::trust::TrustError;
use crate::trust::key::{PublicKey, SigningKey};
use crate::trust::message::Message;
use crate::util::fs::{self, Links};
use crate::util::text::program_of;

/// The time limit for a command. The user may have to touch a token.
const TIME_LIMIT: Duration = Duration::from_secs(300);
/// The environment variable with the path of the message, for commands that cannot read it from stdin: `openssl
/// pkeyutl` needs its length.
const PAE: &str = "TRIVY_FERRY_PAE";

/// A signer: a key in memory, a command, or another program's own implementation, such as for an HSM.
pub trait Signer {
    /// Returns the key that verifies its signatures.
    fn public(&self) -> PublicKey;

    /// Returns the Ed25519 signature of [`Message::as_bytes`], without hashing them first. The signature is verified
    /// before it is used.
    ///
    /// # Errors
    /// [`TrustError::Signing`] if the signature cannot be made.
    ///
    /// [`TrustError::Signer`] if the signer is a command that cannot be started, fails, takes longer than 300 s, or
    /// does not print a valid signature.
    fn sign(&self, message: &Message) -> Result<[u8; 64], TrustError>;
}

impl<S: Signer + ?Sized> Signer for &S {
    fn public(&self) -> PublicKey {
        (**self).public()
    }

    fn sign(&self, message: &Message) -> Result<[u8; 64], TrustError> {
        (**self).sign(message)
    }
}

impl Signer for SigningKey {
    fn public(&self) -> PublicKey {
        SigningKey::public(self)
    }

    fn sign(&self, message: &Message) -> Result<[u8; 64], TrustError> {
        Ok(SigningKey::sign(self, message.as_bytes()))
    }
}

/// A shell command that signs. It gets the message on stdin and as a file, and prints the 64 bytes of the signature.
pub struct ExternalSigner {
    command: String,
    public: PublicKey,
}

impl ExternalSigner {
    /// Returns a signer whose signatures this key must verify.
    pub fn new(command: String, public: PublicKey) -> Self {
        ExternalSigner { command, public }
    }

    fn failed(&self, why: impl Into<String>) -> TrustError {
        TrustError::Signer { command: program_of(&self.command), why: why.into() }
    }
}

impl Signer for ExternalSigner {
    fn public(&self) -> PublicKey {
        self.public.clone()
    }

    fn sign(&self, message: &Message) -> Result<[u8; 64], TrustError> {
        let failed = |error: std::io::Error| self.failed(error.to_string());
        // A regular file that only this user can read, and that is removed afterwards.
        let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
        file.write_all(message.as_bytes()).and_then(|()| file.flush()).map_err(failed)?;
        let input = fs::open_regular(file.path(), Links::Refuse).map_err(|error| failed(error.into()))?;
        let mut output = tempfile::tempfile().map_err(failed)?;
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(&self.command)
            .env(PAE, file.path())
            .stdin(input)
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(failed)?;
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                break status;
            }
            if began.elapsed() > TIME_LIMIT {
                let _ = child.kill();
                let _ = child.wait();
                return Err(self.failed(format!("it took more than {} s", TIME_LIMIT.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        if !status.success() {
            let why = match (status.code(), status.signal()) {
                (Some(code), _) => format!("it ended with exit code {code}"),
                (None, signal) => format!("it was ended by signal {}", signal.unwrap_or_default()),
            };
            return Err(self.failed(why));
        }
        let mut bytes = Vec::new();
        output.rewind().and_then(|()| output.take(4096).read_to_end(&mut bytes)).map_err(failed)?;
        let signature: [u8; 64] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| self.failed(format!("it printed {} bytes, and a signature has 64", bytes.len())))?;
        if !self.public.verifies(message.as_bytes(), &signature) {
            let key = self.public.id().fingerprint();
            return Err(self.failed(format!("its output is not a signature of the key {key}")));
        }
        Ok(signature)
    }
}
