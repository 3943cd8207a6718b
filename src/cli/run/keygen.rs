//! `keygen`: a new key pair as two files that are never overwritten.

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
        let how = if self.encrypted { "encrypted" } else { "not encrypted: guard it" };
        writeln!(f, "{}   private, {how}; stays on this host", self.private_key.display())?;
        writeln!(f, "{}   public; take it to every importing host", self.public_key.display())?;
        writeln!(f, "Fingerprint, to compare there over another channel:")?;
        let (first, second) = self.fingerprint.split_at(39);
        writeln!(f, "  {first}\n  {}", second.trim())?;
        writeln!(f, "There:  trivy-ferry trust add {}", self.public_key.display())
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
            format!("there is no folder {} to write the keys to", directory.display()),
            "Make it first, or name another with --name.",
        ));
    }
    let passphrase = passphrase(args)?;
    let failed = || Error::unexpected("making a key");
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
        Error::usage(
            "there is no terminal to ask for a passphrase on",
            "Give it with --passphrase-file FILE.",
        )
    };
    let first = prompt::ask("Passphrase for the new key")?.ok_or_else(no_terminal)?;
    let second = prompt::ask("The same again")?.ok_or_else(no_terminal)?;
    if first != second || first.is_empty() {
        return Err(Error::usage("the two passphrases differ or are empty", "Run the command again."));
    }
    Ok(Some(first))
}
