//! `trust`: manages the keys of the exporters that this host trusts.

use std::fmt;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::CommandOutcome;
use crate::cli::args::TrustCommand;
use crate::error::Error;
use crate::hint::Hint;
use crate::status::floors::{self, OpenFloors};
use crate::status::forget::ForgottenTarget;
use crate::trust::key::KeyId;
use crate::trust::keyring::{self, Keyring, TrustedKey};
use crate::util::text::{escape, escape_line, format_count};

pub(crate) fn run(command: &TrustCommand) -> Result<CommandOutcome, Error> {
    match command {
        TrustCommand::Add { file, fingerprint, name, stream } => {
            let streams: Vec<String> = stream.iter().map(|stream| stream.as_str().to_owned()).collect();
            add(file, fingerprint.as_deref(), name.as_deref(), &streams)
        }
        TrustCommand::List => list(),
        TrustCommand::Require { number } => require(*number),
        TrustCommand::Remove { key, reset_floors, state_dir } => {
            remove(key, *reset_floors, state_dir.as_deref())
        }
        TrustCommand::ResetFloors { state_dir } => reset_floors(state_dir.as_deref()),
    }
}

#[derive(Serialize)]
struct ListedKey {
    name: String,
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    path: PathBuf,
    fingerprint: String,
    keyid: String,
    /// The streams for which it is trusted; `None` for all.
    streams: Option<Vec<String>>,
}

impl From<&TrustedKey> for ListedKey {
    fn from(trusted: &TrustedKey) -> Self {
        let id = trusted.key.id();
        ListedKey {
            name: trusted.name(),
            path: trusted.path.clone(),
            fingerprint: id.fingerprint(),
            keyid: id.hex(),
            streams: trusted.streams.clone(),
        }
    }
}

#[derive(Serialize)]
struct TrustReport {
    action: &'static str,
    keys: Vec<ListedKey>,
    /// The same keys under other names. They were not removed.
    #[serde(rename = "still_trusted")]
    still: Vec<ListedKey>,
    /// The number of different keys that must sign.
    min_signers: u32,
    /// The targets whose floors were reset.
    floors_reset: Vec<ForgottenTarget>,
    /// The warnings.
    warnings: Vec<String>,
}

impl TrustReport {
    fn of(action: &'static str, keys: Vec<ListedKey>, keyring: &Keyring) -> Self {
        let (still, floors_reset, warnings) = (Vec::new(), Vec::new(), Vec::new());
        TrustReport { action, keys, still, min_signers: keyring.min_signers(), floors_reset, warnings }
    }
}

impl fmt::Display for TrustReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.action == "required" {
            return writeln!(
                f,
                "From now on, at least {} must sign each bundle.",
                format_count(self.min_signers as usize, "trusted key")
            );
        }
        if self.keys.is_empty() {
            return writeln!(f, "No key is trusted. Add one with `trivy-ferry trust add FILE`.");
        }
        for key in &self.keys {
            let command = match self.action {
                "added" => "trusted: ",
                "removed" => "no longer trusted: ",
                _ => "",
            };
            writeln!(f, "{command}{}   {}", escape(&key.name), key.path.display())?;
            writeln!(f, "    {}", key.fingerprint)?;
            if let Some(streams) = &key.streams {
                writeln!(f, "    only for stream {}", escape(&streams.join(", ")))?;
            }
        }
        if self.action == "list" && self.min_signers > 1 {
            writeln!(f, "A bundle needs signatures of {} trusted keys.", self.min_signers)?;
        }
        write_reset(f, &self.floors_reset)
    }
}

/// The report of `trust reset-floors`.
#[derive(Serialize)]
struct FloorsReport {
    /// The targets whose floors were reset.
    floors_reset: Vec<ForgottenTarget>,
}

impl fmt::Display for FloorsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.floors_reset.is_empty() {
            return writeln!(f, "No floors to reset: no bundle has been accepted here yet.");
        }
        write_reset(f, &self.floors_reset)
    }
}

fn write_reset(f: &mut fmt::Formatter<'_>, floors_reset: &[ForgottenTarget]) -> fmt::Result {
    for reset in floors_reset {
        let target = escape_line(&reset.target.to_string());
        writeln!(f, "floors reset: {target}   stream {}", escape(&reset.stream))?;
    }
    Ok(())
}

fn add(
    file: &Path,
    fingerprint: Option<&str>,
    name: Option<&str>,
    streams: &[String],
) -> Result<CommandOutcome, Error> {
    let (key, limited_to) = keyring::read(file)?;
    let id = key.id();
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = name.map_or(stem.as_str(), |name| name.strip_suffix(".pub").unwrap_or(name));
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(good) {
        return Err(Error::usage(
            format!("{:?} is not a valid name for a key", escape(name)),
            "Give one with --name: letters, digits, '.', '_' and '-'.",
        ));
    }
    match fingerprint {
        Some(typed) if !KeyId::is_complete(typed) => {
            return Err(Error::usage(
                format!("{:?} is not a complete fingerprint", escape(typed)),
                "Give all 64 hex digits, with or without spaces.",
            ));
        }
        Some(typed) if !id.matches(typed) => {
            return Err(Error::usage(
                format!("{} has the fingerprint {id}, not the one given", file.display()),
                "Do not trust it; ask its owner for the complete fingerprint over another channel.",
            ));
        }
        Some(_) => {}
        None => confirm(file, id)?,
    }
    let directory = keyring::directories().swap_remove(0);
    let streams = if streams.is_empty() { limited_to.as_deref().unwrap_or_default() } else { streams };
    let keys = vec![ListedKey::from(&keyring::add(&directory, name, &key, streams)?)];
    Ok(CommandOutcome::done(&TrustReport::of("added", keys, &read_keyring()?)))
}

/// Asks the user to confirm the fingerprint.
fn confirm(file: &Path, id: KeyId) -> Result<(), Error> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::usage(
            format!("there is no terminal to confirm the fingerprint of {}: {id}", file.display()),
            "Compare it over another channel, then pass it with --fingerprint.",
        ));
    }
    let mut answer = String::new();
    let failed = || Error::unexpected("asking on the terminal");
    let mut stderr = std::io::stderr();
    let (first, second) = id.halves();
    write!(
        stderr,
        "{} has the fingerprint\n  {first}\n  {second}\nCompare it with the one that the exporter's owner gives you over another channel (telephone, paper).\nIs it the same? [y/N] ",
        escape(&file.display().to_string())
    )
    .map_err(failed())?;
    stdin.lock().read_line(&mut answer).map_err(failed())?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Error::usage(
        "the fingerprint was not confirmed, so the key is not trusted",
        "Compare it, and run the command again.",
    ))
}

fn read_keyring() -> Result<Keyring, Error> {
    Ok(Keyring::from_directories(&keyring::directories())?)
}

fn list() -> Result<CommandOutcome, Error> {
    let keyring = read_keyring()?;
    let keys = keyring.iter().map(ListedKey::from).collect();
    Ok(CommandOutcome::done(&TrustReport::of("list", keys, &keyring)))
}

fn require(number: u32) -> Result<CommandOutcome, Error> {
    let keyring = read_keyring()?;
    // If the number is higher than the number of trusted keys, the importer rejects every bundle.
    keyring.requiring_exactly(number)?;
    keyring::require(&keyring::directories().swap_remove(0), number)?;
    Ok(CommandOutcome::done(&TrustReport::of("required", Vec::new(), &read_keyring()?)))
}

fn remove(wanted: &str, reset_floors: bool, state_dir: Option<&Path>) -> Result<CommandOutcome, Error> {
    let keyring = read_keyring()?;
    let is_it = |key: &&TrustedKey| {
        let name = key.name();
        name == wanted || name.strip_suffix(".pub") == Some(wanted) || key.key.id().matches(wanted)
    };
    let found: Vec<&TrustedKey> = keyring.iter().filter(is_it).collect();
    if found.is_empty() {
        return Err(Error::usage(
            format!("no trusted key is named {:?}", escape(wanted)),
            "`trivy-ferry trust list` shows the trusted keys.",
        ));
    }
    // Open the floors first: if this fails, no key is removed either.
    let floors = match reset_floors {
        true => OpenFloors::open(state_dir).map_err(|error| not_removed(error, wanted))?,
        false => None,
    };
    for key in &found {
        keyring::remove(key)?;
    }
    let is_found = |key: &&TrustedKey| found.iter().any(|gone| gone.path == key.path);
    let same = |key: &&TrustedKey| found.iter().any(|gone| gone.key.id() == key.key.id());
    let still: Vec<&TrustedKey> = keyring.iter().filter(|key| !is_found(key) && same(key)).collect();
    let warnings = still.iter().map(|key| {
        format!(
            "the same key is still trusted as {0}: {1}; remove it with `trivy-ferry trust remove {0}`",
            escape(&key.name()),
            key.path.display()
        )
    });
    let mut warnings: Vec<String> = warnings.collect();
    let rest = read_keyring()?;
    let keys = found.iter().copied().map(ListedKey::from).collect();
    let report = TrustReport::of("removed", keys, &rest);
    if rest.iter().next().is_none() {
        warnings.push("no key is trusted here now, so every bundle is rejected; add a key with `trivy-ferry trust add FILE`".into());
    } else if let Err(few) = rest.requiring(None, None) {
        warnings.push(format!("every bundle is rejected from now on: {few}. {}", few.hint()));
    }
    if reset_floors && floors.is_none() {
        warnings.push("no floors were reset, because this user has no state here; name the state directory with `trust reset-floors --state-dir`".into());
    }
    let floors_reset = match (floors, found.first()) {
        (Some(floors), Some(key)) => floors.reset(&floors::because_of(key.key.id()))?,
        _ => Vec::new(),
    };
    let outcome = CommandOutcome::done(&TrustReport {
        still: still.into_iter().map(ListedKey::from).collect(),
        floors_reset,
        warnings: warnings.clone(),
        ..report
    });
    Ok(CommandOutcome { warnings, ..outcome })
}

/// Turns an error with the state into one that says that no key was removed.
fn not_removed(error: Error, wanted: &str) -> Error {
    let hint = match error.is_transient() {
        true => error.hint(),
        false => format!(
            "Remove the key with `trivy-ferry trust remove {}`, and run `trivy-ferry trust reset-floors` as the user who owns the state.",
            escape(wanted)
        ),
    };
    Error::Restated { what: format!("{error}; no key was removed"), hint, original: Box::new(error) }
}

fn reset_floors(state_dir: Option<&Path>) -> Result<CommandOutcome, Error> {
    let floors = OpenFloors::open(state_dir)?.ok_or_else(|| {
        Error::usage(
            "nothing was imported here, according to this user's state",
            "Name the state directory with --state-dir, or run the command as the user who imports.",
        )
    })?;
    let floors_reset = floors.reset("`trust reset-floors` was run")?;
    Ok(CommandOutcome::done(&FloorsReport { floors_reset }))
}
