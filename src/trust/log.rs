//! The log of imports: records the bundles that this host accepted, rejected, rebuilt and admitted
//! with an override. It has one line of JSON per event, and is append-only.
//!
//! The log is in the state directory. No decision depends on it; decisions depend on the state alone. `chattr +a`
//! protects earlier lines even from the file's owner.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::trust::TrustError;
use crate::util::dir::Dir;
use crate::util::fs;

/// The file name, in the state directory.
pub const NAME: &str = "imports.jsonl";
/// The number of bytes at the end of the log that [`Log::latest`] reads.
const LATEST: u64 = 1 << 20;
/// Lines about files that no trusted key signed are added only while the log is shorter than this, in bytes, so that
/// forged files cannot fill the disk. Lines about signed bundles are always added.
const MAX_UNSIGNED: u64 = 16 << 20;
/// The text of the last such line.
const ENOUGH: &str = "this log has reached 16 MiB: rejections of files that no trusted key signed are no longer written here; move it away";
/// The longest text of a line, in characters: a forged file can contain long names.
const MAX_TEXT: usize = 2000;

/// An event of a bundle, or at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The bundle was accepted; its datasets list the result at the target.
    Accepted,
    /// The bundle was rejected; `why` has the reason.
    #[serde(rename = "refused")]
    Rejected,
    /// Missing or damaged volumes of the bundle were rebuilt from parity.
    Repaired,
    /// The target failed; `why` has the reason. The bundle is named if it was already known.
    Failed,
    /// The bundle stayed incomplete, and trivy-ferry stopped waiting for it.
    GivenUp,
    /// The operator restored the previous data.
    #[serde(rename = "went-back")]
    Restored,
    /// The operator retired a target.
    Forgotten,
    /// The operator reset the floors of a target after a key was stolen; `why` names the key.
    FloorsReset,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When it happened, by this host's clock.
    pub at: Timestamp,
    /// The event.
    pub event: Event,
    /// The stream that the run imports.
    pub stream: String,
    /// The target, such as `cache:/var/cache/trivy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The bundle's file name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// The sha256 of its signed payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Digest>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Its number in the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The trusted keys that signed it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<LoggedKey>,
    /// The flags without which it would have been rejected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
    /// The results of its datasets and images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datasets: Vec<LoggedDataset>,
    /// The names of requested items that its exporter could not get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// The reason for the rejection or failure, or the rebuilt files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether the line is about a heartbeat, whatever the name of its file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub heartbeat: bool,
    /// The version of the program that wrote the line.
    pub program: String,
    /// Whether the line is about files that no trusted key signed. Not written.
    #[serde(skip)]
    pub unsigned: bool,
}

/// A key, by its name on this host and its identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedKey {
    /// Its name among the trusted keys.
    pub name: String,
    /// Its identifier: the sha256 of the public key.
    pub keyid: String,
}

/// A dataset or an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedDataset {
    /// Its reference name, such as `trivy-db-2`.
    pub name: String,
    /// Its result, as in the report.
    pub status: String,
    /// The digest of its manifest.
    pub digest: Digest,
}

impl LogEntry {
    /// Returns a line with only a time, an event and a stream.
    pub fn new(at: Timestamp, event: Event, stream: &str) -> Self {
        LogEntry {
            at,
            event,
            stream: stream.to_owned(),
            target: None,
            bundle: None,
            identity: None,
            created: None,
            sequence: None,
            signers: Vec::new(),
            overrides: Vec::new(),
            missing: Vec::new(),
            datasets: Vec::new(),
            why: None,
            heartbeat: false,
            program: env!("CARGO_PKG_VERSION").into(),
            unsigned: false,
        }
    }

    /// Marks the line as being about files that no trusted key signed. It is not added to a log that is too long.
    #[must_use]
    pub fn unsigned(self) -> Self {
        LogEntry { unsigned: true, ..self }
    }

    /// Adds the reason.
    #[must_use]
    pub fn because(self, why: &str) -> Self {
        LogEntry { why: Some(why.chars().take(MAX_TEXT).collect()), ..self }
    }
}

/// The log file, `imports.jsonl`.
#[derive(Debug)]
pub struct Log {
    dir: Dir,
    mode: u32,
}

impl Log {
    /// Returns the log in a state directory. The file is created with this mode.
    pub(super) fn of(dir: Dir, mode: u32) -> Self {
        Log { dir, mode }
    }

    fn failed(&self, error: io::Error) -> TrustError {
        TrustError::File { path: self.dir.at(NAME), error }
    }

    /// Appends lines and syncs. Several runs may append at the same time, because each writes its lines with one call.
    /// Once the log is too long, lines about files that no trusted key signed are skipped, and a final line says so.
    ///
    /// # Errors
    /// [`TrustError::File`] if the log is not a regular file, or cannot be written or synced.
    pub fn append(&self, entries: &[LogEntry]) -> Result<(), TrustError> {
        if entries.is_empty() {
            return Ok(());
        }
        let append = |length: u64, lines: &mut Vec<u8>| -> io::Result<()> {
            for entry in entries {
                let at = length + lines.len() as u64;
                if entry.unsigned && at >= MAX_UNSIGNED {
                    continue;
                }
                serde_json::to_writer(&mut *lines, entry)?;
                lines.push(b'\n');
                if at < MAX_UNSIGNED && length + lines.len() as u64 >= MAX_UNSIGNED {
                    let last = LogEntry { datasets: Vec::new(), ..entry.clone() }.because(ENOUGH);
                    let last = LogEntry {
                        event: Event::Rejected,
                        bundle: None,
                        identity: None,
                        heartbeat: false,
                        ..last
                    };
                    serde_json::to_writer(&mut *lines, &last)?;
                    lines.push(b'\n');
                }
            }
            Ok(())
        };
        append_lines(&self.dir, NAME, self.mode, append).map_err(|error| self.failed(error))
    }

    /// Returns the lines at the end of the file, the oldest first. Invalid lines are skipped. Empty if there is no log.
    ///
    /// # Errors
    /// [`TrustError::File`] if the log exists and cannot be read.
    pub fn latest(&self) -> Result<Vec<LogEntry>, TrustError> {
        let read = || -> io::Result<Vec<u8>> {
            let Some(mut file) = self.dir.open_file(NAME)? else { return Ok(Vec::new()) };
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LATEST)))?;
            let mut end = Vec::new();
            file.take(LATEST).read_to_end(&mut end)?;
            Ok(end)
        };
        let end = read().map_err(|error| self.failed(error))?;
        Ok(end.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

/// Appends to a log with one call, and syncs. `make` gets the length of the file, and adds complete lines.
pub(super) fn append_lines(
    dir: &Dir,
    name: &str,
    mode: u32,
    make: impl FnOnce(u64, &mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let (file, is_new) = dir.append(name, mode)?;
    let length = file.metadata()?.len();
    let mut lines = Vec::new();
    // After a power cut the last line may be incomplete. It must not damage the next one.
    if !ends_in_line(&file)? {
        lines.push(b'\n');
    }
    let begun = lines.len();
    make(length, &mut lines)?;
    if lines.len() == begun {
        return Ok(());
    }
    fs::write_all(&file, name, &lines)?;
    file.sync_all()?;
    if is_new { dir.sync() } else { Ok(()) }
}

fn ends_in_line(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;

    fn entry(why: &str) -> LogEntry {
        LogEntry::new("2026-11-21T12:00:00Z".parse().unwrap(), Event::Rejected, "default").because(why)
    }

    fn whys(log: &Log) -> Vec<String> {
        log.latest().unwrap().into_iter().filter_map(|entry| entry.why).collect()
    }

    #[test]
    fn lines_are_only_added() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::of(Dir::top(dir.path()).unwrap(), 0o600);
        assert_eq!(log.latest().unwrap(), []);
        log.append(&[entry("a"), entry("b")]).unwrap();
        let before = std::fs::read_to_string(dir.path().join(NAME)).unwrap();
        log.append(&[entry("c\nd")]).unwrap();
        let after = std::fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert!(after.starts_with(&before));
        assert_eq!(after.lines().count(), 3);
        assert_eq!(whys(&log), ["a", "b", "c\nd"]);
    }

    #[test]
    fn an_incomplete_line_does_not_damage_others() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::of(Dir::top(dir.path()).unwrap(), 0o600);
        log.append(&[entry("a")]).unwrap();
        let mut file = OpenOptions::new().append(true).open(dir.path().join(NAME)).unwrap();
        file.write_all(br#"{"at":"2026-"#).unwrap();
        log.append(&[entry("b")]).unwrap();
        assert_eq!(whys(&log), ["a", "b"]);
    }

    #[test]
    fn forged_files_cannot_fill_the_disk_with_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::of(Dir::top(dir.path()).unwrap(), 0o600);
        let why = "x".repeat(1900);
        let many: Vec<LogEntry> = (0..1000).map(|_| entry(&why).unsigned()).collect();
        for _ in 0..12 {
            log.append(&many).unwrap();
        }
        let length = || std::fs::metadata(dir.path().join(NAME)).unwrap().len();
        let full = length();
        assert!((MAX_UNSIGNED..MAX_UNSIGNED + 8000).contains(&full), "{full}");
        assert_eq!(whys(&log).last().unwrap(), ENOUGH);
        // Lines about signed bundles are always added.
        log.append(&[entry("junk").unsigned(), entry("signed"), entry("junk").unsigned()]).unwrap();
        assert_eq!(whys(&log).last().unwrap(), "signed");
        log.append(&[entry("junk").unsigned()]).unwrap();
        assert_eq!(whys(&log).last().unwrap(), "signed");
    }

    #[test]
    fn a_log_that_is_not_a_regular_file_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let (log, path) = (Log::of(Dir::top(dir.path()).unwrap(), 0o600), dir.path().join(NAME));
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(log.append(&[entry("a")]).is_err() && log.latest().is_err(), "must not block on a fifo");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(dir.path().join("other"), "").unwrap();
        std::os::unix::fs::symlink("other", &path).unwrap();
        assert!(log.append(&[entry("a")]).is_err() && log.latest().is_err());
    }

    #[test]
    fn the_text_of_a_line_is_limited() {
        assert_eq!(entry(&"x".repeat(1 << 20)).why.unwrap().len(), MAX_TEXT);
    }
}
