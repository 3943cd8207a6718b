//! Reads secrets from files, standard input and the terminal, and creates signers and registry logins from them.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use pkcs8::der::zeroize::Zeroizing;
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};

use crate::cli::args::{ConnectionFlags, RegistryFlags, RetryFlags, SigningFlags};
use crate::delivery::options::RegistryOptions;
use crate::error::Error;
use crate::remote::RemoteOptions;
use crate::trust::key::{BadKey, MAX_PEM, PublicKey, SigningKey};
use crate::trust::keyring::not_opened;
use crate::trust::signer::{ExternalSigner, Signer};
use crate::trust::{TrustError, secret};
use crate::util::byte_size::ByteSize;
use crate::util::trusted::{self, TrustedFileError};

/// The maximum length of a passphrase in bytes.
const MAX_PASSPHRASE: usize = 4096;

/// Reads a passphrase from the first line of a file.
///
/// # Errors
/// If the file cannot be opened or read, if it is writable by others, or if its first line is
/// empty.
pub(crate) fn from_file(path: &Path) -> Result<Zeroizing<String>, Error> {
    let failed = |error| TrustError::File { path: path.into(), error };
    let file = trusted::open(path).map_err(|failed| not_opened(path, "a file with a passphrase", failed))?;
    let line = secret::read_line(file, MAX_PASSPHRASE).map_err(failed)?;
    if line.is_empty() {
        return Err(Error::usage(
            format!("{} contains no passphrase", path.display()),
            "Write the passphrase into its first line.",
        ));
    }
    Ok(line)
}

/// Asks for a passphrase on the terminal. Returns `None` if there is no terminal.
///
/// It does not use rpassword: version 7.5 does not restore the terminal after Ctrl-C, skips tabs, and uses a growing
/// buffer that leaves copies of the passphrase in memory.
///
/// # Errors
/// If the terminal cannot be read or configured, or if the user presses Ctrl-C.
pub(crate) fn ask(prompt: &str) -> Result<Option<Zeroizing<String>>, Error> {
    let unexpected = || Error::unexpected("asking for the passphrase");
    let Ok(terminal) = File::options().read(true).write(true).open("/dev/tty") else { return Ok(None) };
    if !terminal.is_terminal() {
        return Ok(None);
    }
    let before = tcgetattr(&terminal).map_err(|e| unexpected()(e.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    // Ctrl-C only ends the line here. If it ended the program, the terminal would stay without echo.
    let interrupt = before.special_codes[SpecialCodeIndex::VINTR];
    silent.special_codes[SpecialCodeIndex::VINTR] = DISABLED;
    silent.special_codes[SpecialCodeIndex::VEOL] = interrupt;
    tcsetattr(&terminal, OptionalActions::Flush, &silent).map_err(|e| unexpected()(e.into()))?;
    let mut typed = Typed { terminal: &terminal, interrupt, interrupted: false };
    let read = write!(&terminal, "{prompt}: ").and_then(|()| secret::read_line(&mut typed, MAX_PASSPHRASE));
    let interrupted = typed.interrupted;
    let restored = tcsetattr(&terminal, OptionalActions::Now, &before);
    let _ = writeln!(&terminal);
    if interrupted {
        kill_process(getpid(), Signal::INT).map_err(|e| unexpected()(e.into()))?;
    }
    let line = read.map_err(unexpected())?;
    restored.map_err(|e| unexpected()(e.into()))?;
    Ok(Some(line))
}

/// The code that disables a special character (`_POSIX_VDISABLE` of Linux).
const DISABLED: u8 = 0;

/// A terminal on which the interrupt key ends the line.
struct Typed<'a> {
    terminal: &'a File,
    interrupt: u8,
    interrupted: bool,
}

impl Read for Typed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut terminal = self.terminal;
        let count = terminal.read(buffer)?;
        if self.interrupt != DISABLED && buffer[..count].last() == Some(&self.interrupt) {
            self.interrupted = true;
            return Err(std::io::Error::other("interrupted"));
        }
        Ok(count)
    }
}

/// Returns the signer: the given private key, or the command that signs with one.
///
/// # Errors
/// If no key is given, if a file of a key cannot be read or contains no key, or if the passphrase is wrong.
pub(crate) fn signer(args: &SigningFlags) -> Result<Box<dyn Signer>, Error> {
    match (&args.key, &args.signer, &args.signer_key) {
        (_, Some(command), Some(path)) => {
            let failed = |error| TrustError::File { path: path.into(), error };
            let mut pem = String::new();
            let wanted = "the public key (PEM) of the signing command";
            let file = trusted::open(path).map_err(|failed| not_opened(path, wanted, failed))?;
            file.take(MAX_PEM).read_to_string(&mut pem).map_err(failed)?;
            let public = PublicKey::from_pem(&pem).map_err(|why| TrustError::NotAKey {
                path: path.into(),
                wanted,
                why,
            })?;
            Ok(Box::new(ExternalSigner::new(command.clone(), public)))
        }
        (Some(path), ..) => Ok(Box::new(signing_key(path, args.passphrase_file.as_deref())?)),
        _ => Err(Error::usage(
            "there is no key to sign with",
            "Name the private key with --key FILE; `trivy-ferry keygen` makes one.",
        )),
    }
}

/// The maximum number of attempts to type a passphrase.
const ATTEMPTS: u32 = 3;

/// The words for the content of a private key's file.
const PRIVATE: &str = "an Ed25519 private key (PEM)";

/// Reads a private key, and asks for its passphrase if it is encrypted.
fn signing_key(path: &Path, passphrase_file: Option<&Path>) -> Result<SigningKey, Error> {
    let failed = |error| TrustError::File { path: path.into(), error };
    let file = trusted::open(path).map_err(|error| match error {
        TrustedFileError::Io(error) if error.kind() == std::io::ErrorKind::NotFound => Error::usage(
            format!("there is no private key at {}", path.display()),
            "Give the path of your key with --key; only for the very first export, make a pair with `trivy-ferry keygen`.",
        ),
        error => not_opened(path, PRIVATE, error).into(),
    })?;
    let pem = secret::read(file, MAX_PEM as usize).and_then(secret::text).map_err(failed)?;
    let bad = |bad: BadKey| match bad {
        BadKey::NotAKey(why) => TrustError::NotAKey { path: path.into(), wanted: PRIVATE, why },
        BadKey::Encrypted | BadKey::WrongPassphrase => {
            TrustError::Passphrase { path: path.into(), why: bad.to_string() }
        }
    };
    let given = passphrase_file.map(from_file).transpose()?;
    match SigningKey::from_pem(&pem, given.as_ref().map(|text| text.as_str())) {
        Err(BadKey::Encrypted) => {
            let mut key = Err(BadKey::Encrypted);
            for attempt in 0..ATTEMPTS {
                let again = if attempt > 0 { "Wrong passphrase. " } else { "" };
                let asked = ask(&format!("{again}Passphrase for {}", path.display()))?;
                key = SigningKey::from_pem(&pem, asked.as_ref().map(|text| text.as_str()));
                if !matches!(key, Err(BadKey::WrongPassphrase)) {
                    break;
                }
            }
            Ok(key.map_err(bad)?)
        }
        other => Ok(other.map_err(bad)?),
    }
}

/// Reads a password from the first line of standard input.
fn password() -> Result<String, Error> {
    /// The maximum length in bytes; longer than any password or token.
    const MAX: u64 = 64 << 10;
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX).read_to_string(&mut text);
    read.map_err(Error::unexpected("reading the password from standard input"))?;
    let line = text.lines().next().unwrap_or_default();
    match line {
        "" => Err(Error::usage("standard input has no password", "Pipe it in: `… --password-stdin < FILE`.")),
        line => Ok(line.to_owned()),
    }
}

/// Returns the options for connections to registries. Reads the password from standard input if a user name is given.
///
/// # Errors
/// If standard input has no password or cannot be read.
pub(crate) fn remote(connection: &ConnectionFlags) -> Result<RemoteOptions, Error> {
    let login = connection.username.clone().map(|name| Ok::<_, Error>((name, password()?))).transpose()?;
    Ok(RemoteOptions {
        insecure: connection.insecure,
        plain_http: connection.plain_http,
        ca_cert: connection.cacert.clone(),
        client_cert: connection.client_cert.clone(),
        client_key: connection.client_key.clone(),
        login,
    })
}

/// Returns the options for registries to push to. Reads the password only if a registry is given.
///
/// # Errors
/// If standard input has no password or cannot be read.
pub(crate) fn registry(
    flags: &RegistryFlags,
    connection: &ConnectionFlags,
    retry: &RetryFlags,
) -> Result<RegistryOptions, Error> {
    let remote = match flags.places.is_empty() {
        true => RemoteOptions::default(),
        false => remote(connection)?,
    };
    Ok(RegistryOptions {
        places: flags.places.clone(),
        extra_tag: flags.extra_tag.clone(),
        compat: flags.compat,
        remote,
        limits: retry.into(),
        store_timeout: flags.store_timeout.map(|time| time.duration().unsigned_abs()),
        chunk_size: flags.chunk_size.map(ByteSize::bytes),
    })
}
