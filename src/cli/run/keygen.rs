//! `keygen`: creates a key pair as two files, and never overwrites existing ones.

use std::fmt;
use std::path::PathBuf;

use pkcs8::der::zeroize::Zeroizing;
use serde::Serialize;

use crate::cli::args::KeygenArgs;
use crate::cli::{CommandOutcome, prompt};
use crate::error::Error;
use crate::trust::key::SigningKey;
use crate::trust::{TrustError, key_files};

#[derive(Serialize)]
struct KeygenReport {
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    private_key: PathBuf,
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    public_key: PathBuf,
    fingerprint: String,
    keyid: String,
    encrypted: bool,
}

impl fmt::Display for KeygenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.encrypted { "encrypted" } else { "not encrypted" };
        writeln!(f, "{}   private key, {how}; keep it on this host", self.private_key.display())?;
        writeln!(f, "{}   public key; copy it to every importing host", self.public_key.display())?;
        writeln!(f, "Fingerprint, to compare there over another channel, such as the telephone:")?;
        let (first, second) = self.fingerprint.split_at(39);
        writeln!(f, "  {first}\n  {}", second.trim())?;
        writeln!(f, "Next, on each importing host: trivy-ferry trust add {}", self.public_key.display())
    }
}

pub(crate) fn run(args: &KeygenArgs) -> Result<CommandOutcome, Error> {
    let named = |extension: &str| {
        let mut name = args.name.clone().into_os_string();
        name.push(extension);
        PathBuf::from(name)
    };
    let (private, public) = (named(".key"), named(".pub"));
    for path in [&private, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(TrustError::Exists { path: path.clone() }.into());
        }
    }
    let directory = private.parent().filter(|directory| !directory.as_os_str().is_empty());
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        return Err(Error::usage(
            format!("the directory {} does not exist", directory.display()),
            "Create it, or choose another name with --name.",
        ));
    }
    let passphrase = passphrase(args)?;
    let failed = || Error::unexpected("creating a key");
    let key = SigningKey::generate().map_err(failed())?;
    key_files::write_pair(&private, &public, &key, passphrase.as_ref().map(|text| text.as_str()))?;
    let id = key.public().id();
    Ok(CommandOutcome::done(&KeygenReport {
        private_key: private,
        public_key: public,
        fingerprint: id.fingerprint(),
        keyid: id.hex(),
        encrypted: passphrase.is_some(),
    }))
}

fn passphrase(args: &KeygenArgs) -> Result<Option<Zeroizing<String>>, Error> {
    if let Some(path) = &args.passphrase_file {
        return prompt::from_file(path).map(Some);
    }
    if !args.encrypt {
        return Ok(None);
    }
    let no_terminal = || {
        Error::usage("there is no terminal to ask for the passphrase", "Give it with --passphrase-file FILE.")
    };
    let first = prompt::ask("Passphrase for the new key")?.ok_or_else(no_terminal)?;
    let second = prompt::ask("Repeat it")?.ok_or_else(no_terminal)?;
    if first != second || first.is_empty() {
        return Err(Error::usage("the two passphrases are empty or differ", "Run the command again."));
    }
    Ok(Some(first))
}
