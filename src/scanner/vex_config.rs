//! Trivy's VEX configuration, `${XDG_DATA_HOME:-$HOME}/.trivy/vex/repository.yaml`: finds the name under
//! which Trivy looks for a repository, adds an entry for an unknown repository, and removes entries
//! that bundles no longer contain.
//!
//! Entries of the operator are never changed. An entry from a bundle has a comment that says so ([`Origin`]). It is
//! changed or removed only if it was not edited.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::scanner::settings::replace;
use crate::scanner::vex_entry::{CarriedRepository, VexEntry};

pub use crate::scanner::vex_origin::Origin;
use crate::scanner::vex_yaml::{Document, Edits, entry_text};
use crate::targets::error::{At, TargetError};
use crate::util::dir::{Dir, FileMode, Owner, parent_owner};
use crate::util::text::escape;

/// The size limit of the file, in bytes.
const MAX: u64 = 64 << 10;
const FILE: &str = "repository.yaml";
/// The maximum number of retries of the merge if another process writes the file at the same time.
const MERGES: usize = 20;
const CHANGED: &str = "was changed while the import ran";

/// The entries of earlier imports to keep.
pub struct WantedEntries<'a> {
    /// The stream of the import. Entries of other streams stay as they are.
    pub stream: &'a str,
    /// The repositories that the accepted bundles contain. If empty, the bundles contain only other data.
    pub listed: &'a [CarriedRepository],
    /// The names of repositories that the exporter could not download. Their entries are kept.
    pub missing: &'a [String],
    /// Whether a key is trusted, by its identifier in hex.
    pub trusts: &'a dyn Fn(&str) -> bool,
}

/// The VEX configuration as it was read.
#[derive(Debug)]
pub struct VexConfig {
    /// The directory that contains `.trivy`; `None` if there is no home directory.
    home: Option<PathBuf>,
    /// The owner of directories that root creates; `None` for the owner of the parent directory.
    owner: Option<Owner>,
    /// The file's bytes; `None` if there is no file.
    bytes: Option<Vec<u8>>,
    /// The parsed file, or the reason why it could not be parsed.
    document: Result<Document, String>,
}

/// The result of a merge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Merged {
    /// The file, if it was written.
    pub written: Option<PathBuf>,
    /// Hints for the operator, a sentence or a snippet each.
    pub findings: Vec<String>,
}

impl VexConfig {
    /// Reads the configuration of the current user. If there is no home directory, the configuration is empty.
    ///
    /// # Errors
    /// [`TargetError::Symlink`], [`TargetError::NotADirectory`] or [`TargetError::NotAFile`] if the file or its
    /// directory is something else; [`TargetError::Io`] if it cannot be read or is too large.
    pub fn read() -> Result<VexConfig, TargetError> {
        VexConfig::read_at(home(&|name| std::env::var_os(name)))
    }

    /// Reads the configuration below a home directory (the value of `XDG_DATA_HOME`, else of `HOME`).
    ///
    /// # Errors
    /// [`TargetError::Symlink`], [`TargetError::NotADirectory`] or [`TargetError::NotAFile`] if the file or its
    /// directory is something else; [`TargetError::Io`] if it cannot be read or is too large.
    pub fn read_at(home: Option<PathBuf>) -> Result<VexConfig, TargetError> {
        let mut config = VexConfig { home, owner: None, bytes: None, document: Ok(Document::default()) };
        let Some(dir) = config.directory(false)? else { return Ok(config) };
        let path = dir.at(FILE);
        match dir.find(FILE).at("look it up", &path)? {
            None => return Ok(config),
            Some(entry) if entry.is_symlink() => return Err(TargetError::Symlink { path }),
            Some(entry) if !entry.is_file() => return Err(TargetError::NotAFile { path }),
            Some(_) => {}
        }
        let bytes = dir.read_small(FILE, MAX).at("read", &path)?.unwrap_or_default();
        config.document = match std::str::from_utf8(&bytes) {
            Ok(text) => Document::parse(text),
            Err(_) => Err("it is not UTF-8".into()),
        };
        config.bytes = Some(bytes);
        Ok(config)
    }

    /// Reads the same file again.
    ///
    /// # Errors
    /// [`TargetError::Symlink`], [`TargetError::NotADirectory`] or [`TargetError::NotAFile`] if the file or its
    /// directory is something else; [`TargetError::Io`] if it cannot be read or is too large.
    pub fn reread(&self) -> Result<VexConfig, TargetError> {
        Ok(VexConfig::read_at(self.home.clone())?.owned_by(self.owner))
    }

    /// Sets the owner of directories that root creates.
    pub fn owned_by(self, owner: Option<Owner>) -> VexConfig {
        VexConfig { owner, ..self }
    }

    /// Returns the file's path; `None` if there is no home directory.
    pub fn path(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".trivy/vex").join(FILE))
    }

    /// Returns the entries, in the order of the file.
    pub fn entries(&self) -> &[VexEntry] {
        self.document.as_ref().map_or(&[], |document| &document.entries)
    }

    /// Returns the name under which Trivy looks for a repository: the name of the enabled entry with its URL, else its
    /// own name, whether or not an enabled entry has it.
    pub fn name_for<'a>(&'a self, carried: &'a CarriedRepository) -> &'a str {
        let enabled = || self.entries().iter().filter(|entry| entry.enabled);
        enabled()
            .find(|entry| same_url(&entry.url, &carried.url))
            .or_else(|| enabled().find(|entry| entry.name == carried.name))
            .map_or(&carried.name, |entry| &entry.name)
    }

    /// Adds an entry for each carried repository that Trivy would not look for, and removes the entries of
    /// earlier imports that are no longer wanted. Creates the file as Trivy does if it is missing.
    /// `holds` returns whether the cache has a repository of a name (`0.1/index.json`).
    ///
    /// # Errors
    /// [`TargetError::Symlink`], [`TargetError::NotADirectory`] or [`TargetError::NotAFile`] if the file or its
    /// directory is something else; [`TargetError::Exists`] if other processes keep changing the file; another
    /// [`TargetError`] if it cannot be read or written.
    pub fn merge(
        &self,
        carried: &[CarriedRepository],
        wanted: Option<&WantedEntries<'_>>,
        holds: &dyn Fn(&str) -> bool,
    ) -> Result<Merged, TargetError> {
        let mut done = self.merge_once(carried, wanted, holds);
        // An import into another cache may have written the file meanwhile.
        for _ in 0..MERGES {
            match done {
                Err(TargetError::Exists { what: CHANGED, .. }) => {
                    done = self.reread()?.merge_once(carried, wanted, holds);
                }
                other => return other,
            }
        }
        done
    }

    fn merge_once(
        &self,
        carried: &[CarriedRepository],
        wanted: Option<&WantedEntries<'_>>,
        holds: &dyn Fn(&str) -> bool,
    ) -> Result<Merged, TargetError> {
        let mut merged = Merged::default();
        let Some(path) = self.path() else {
            if !carried.is_empty() {
                merged.findings.push(
                    "Trivy's VEX configuration was not written, because there is no home directory: set XDG_DATA_HOME for the import and the scanner.".into(),
                );
            }
            return Ok(merged);
        };
        let mut edits = Edits::default();
        for repository in carried {
            self.add_or_replace(repository, &path, &mut edits, &mut merged.findings);
        }
        let mut removed = Vec::new();
        if let Some(wanted) = wanted {
            removed = self.remove_unwanted(wanted, &path, &mut edits);
        }
        if !carried.is_empty() {
            merged.findings.extend(self.not_carried(carried, &edits, &path, holds));
        }
        if edits.is_empty() && (self.document.is_ok() || carried.is_empty()) {
            return Ok(merged);
        }
        match self.document.as_ref().map_err(String::clone).and_then(|document| document.edited(&edits)) {
            Ok(text) => {
                if let Some(dir) = self.directory(true)? {
                    self.write(&dir, &text)?;
                    merged.written = Some(path);
                    merged.findings.extend(removed);
                }
            }
            Err(what) => {
                let new: String =
                    edits.add.iter().map(|repository| entry_text(repository, true, "  ", "\n")).collect();
                merged.findings.push(format!(
                    "{} was not changed, because {what}: add this to its repositories:\n{new}",
                    path.display()
                ));
            }
        }
        Ok(merged)
    }

    /// Adds or replaces the entry of a carried repository if necessary.
    fn add_or_replace<'c>(
        &self,
        repository: &'c CarriedRepository,
        path: &Path,
        edits: &mut Edits<'c>,
        findings: &mut Vec<String>,
    ) {
        let find =
            |is_it: &dyn Fn(&VexEntry) -> bool| self.entries().iter().enumerate().find(|(_, e)| is_it(e));
        let at_url = |entry: &VexEntry| same_url(&entry.url, &repository.url);
        let named = |entry: &VexEntry| entry.name == repository.name;
        let known = find(&|entry| entry.enabled && at_url(entry))
            .or_else(|| find(&|entry| entry.enabled && named(entry)))
            .or_else(|| find(&|entry| at_url(entry) || named(entry)));
        match (known, &repository.origin) {
            (None, _) => edits.add.push(repository),
            (Some((_, entry)), _) if !entry.enabled => findings.push(format!(
                "The VEX repository {1} is disabled in {0}: set its `enabled` to true to use the imported data.",
                path.display(),
                escape(&entry.name)
            )),
            // A newer bundle of the same stream may have another address or another key.
            (Some((index, entry)), Some(origin)) => {
                let is_stale = |old: &Origin| {
                    old.stream == origin.stream
                        && (!same_url(&entry.url, &repository.url)
                            || !old.keys.iter().any(|key| origin.keys.contains(key)))
                };
                if entry.name == repository.name && entry.origin.as_ref().is_some_and(is_stale) {
                    edits.replace.insert(index, repository);
                }
            }
            (Some(_), None) => {}
        }
    }

    /// Removes the entries of the stream that its bundles no longer contain, or whose bundle was signed by keys
    /// that are no longer trusted. Returns a sentence for each.
    fn remove_unwanted(&self, wanted: &WantedEntries<'_>, path: &Path, edits: &mut Edits<'_>) -> Vec<String> {
        let mut sentences = Vec::new();
        for (index, entry) in self.entries().iter().enumerate() {
            let Some(origin) = entry.origin.as_ref().filter(|origin| origin.stream == wanted.stream) else {
                continue;
            };
            let is_it = |listed: &CarriedRepository| self.name_for(listed) == entry.name;
            if edits.replace.contains_key(&index) || wanted.listed.iter().any(is_it) {
                continue;
            }
            let why = match origin.keys.iter().any(|key| (wanted.trusts)(key)) {
                true if wanted.listed.is_empty() || wanted.missing.contains(&entry.name) => continue,
                true => "no bundle of its stream contains it now",
                false => "the key that signed its bundle is no longer trusted",
            };
            edits.remove.push(index);
            sentences.push(format!(
                "The VEX repository {} ({}) was removed from {}, because {why}. Trivy no longer uses its documents in the cache.",
                escape(&entry.name),
                escape(&entry.url),
                path.display()
            ));
        }
        sentences
    }

    /// Returns a sentence for each enabled repository that the cache does not have.
    fn not_carried(
        &self,
        carried: &[CarriedRepository],
        edits: &Edits<'_>,
        path: &Path,
        holds: &dyn Fn(&str) -> bool,
    ) -> Vec<String> {
        let known = |name: &str| carried.iter().any(|repository| self.name_for(repository) == name);
        let stays = |index: &usize| !edits.remove.contains(index);
        let entries =
            self.entries().iter().enumerate().filter(|(index, entry)| entry.enabled && stays(index));
        let missing =
            entries.map(|(_, entry)| entry).filter(|entry| !known(&entry.name) && !holds(&entry.name));
        missing
            .map(|entry| {
                format!(
                    "{} enables the VEX repository {}, which is not in the cache: export it as well, or disable it. Without it, Trivy warns and uses only the other repositories; without --skip-vex-repo-update, Trivy fails.",
                    path.display(),
                    escape(&entry.name)
                )
            })
            .collect()
    }

    /// Writes the file, if it has not changed since it was read.
    fn write(&self, dir: &Dir, text: &str) -> Result<(), TargetError> {
        let changed =
            || TargetError::Exists { path: dir.at(FILE), what: CHANGED, advice: "Run the import again." };
        if self.bytes.is_some() && dir.find(FILE).at("look it up", dir.at(FILE))?.is_none() {
            return Err(changed());
        }
        let is_same = |held: &[u8]| match self.bytes.as_deref() == Some(held) {
            true => Ok(()),
            false => Err(changed()),
        };
        replace(dir, FILE, text.as_bytes(), is_same)
    }

    /// Opens the directory of the file. With `make`, creates it as Trivy does (mode 0700).
    fn directory(&self, make: bool) -> Result<Option<Dir>, TargetError> {
        let Some(home) = &self.home else { return Ok(None) };
        let mut dir = match Dir::top(home) {
            Ok(dir) => dir,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !make => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let above = home.ancestors().skip(1).find_map(|above| Dir::top(above).ok());
                let owner =
                    above.map(|above| parent_owner(&above)).transpose().at("look it up", home)?.flatten();
                Dir::top_or_make(home, owner).at("create the directory", home)?
            }
            Err(error) => return Err(TargetError::io("open", home, error)),
        };
        for name in [".trivy", "vex"] {
            let path = dir.at(name);
            dir = match dir.find(name).at("look it up", &path)? {
                Some(entry) if entry.is_symlink() => return Err(TargetError::Symlink { path }),
                Some(_) => dir.open(name).at("open", path)?,
                None if !make => return Ok(None),
                None => {
                    let above = parent_owner(&dir).at("look it up", dir.path())?;
                    let owner = above.map(|above| self.owner.unwrap_or(above));
                    dir.make(name, FileMode::Shared(0o700), owner).at("create the directory", path)?
                }
            };
        }
        Ok(Some(dir))
    }
}

/// Returns Trivy's home directory (Trivy v0.74.0, `pkg/utils/fsutils/fs.go`: `HomeDir`).
fn home(environment: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_DATA_HOME").or_else(|| set("HOME")).filter(|home| home != Path::new("/nonexistent"))
}

fn same_url(one: &str, other: &str) -> bool {
    fn plain(url: &str) -> String {
        let url = url.trim_end_matches('/');
        url.strip_suffix(".git").unwrap_or(url).to_ascii_lowercase()
    }
    plain(one) == plain(other)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FileType, Mode};

    use super::*;
    use crate::dataset::catalogue::VEX_HUB;
    use crate::digest::Digest;

    fn hub() -> CarriedRepository {
        CarriedRepository { name: "default".into(), url: VEX_HUB.into(), origin: None }
    }

    fn corp() -> CarriedRepository {
        CarriedRepository { name: "corp".into(), url: "https://vex.corp.example/x?y=1".into(), origin: None }
    }

    fn with_file(text: &str) -> (tempfile::TempDir, VexConfig) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".trivy/vex")).unwrap();
        std::fs::write(dir.path().join(".trivy/vex/repository.yaml"), text).unwrap();
        let config = VexConfig::read_at(Some(dir.path().into())).unwrap();
        (dir, config)
    }

    fn merged(text: &str, carried: &[CarriedRepository]) -> (String, Merged) {
        let (dir, config) = with_file(text);
        let merged = config.merge(carried, None, &|_| false).unwrap();
        (std::fs::read_to_string(dir.path().join(".trivy/vex/repository.yaml")).unwrap(), merged)
    }

    const DEFAULT: &str = "repositories:\n  - name: default\n    url: https://github.com/aquasecurity/vexhub\n    enabled: true\n    username: \"\"\n    password: \"\"\n    token: \"\"\n    insecure: false\n";

    #[test]
    fn a_missing_file_is_created_as_trivy_creates_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("not/yet");
        let config = VexConfig::read_at(Some(home.clone())).unwrap();
        let merged = config.merge(&[hub()], None, &|_| true).unwrap();
        let file = home.join(".trivy/vex/repository.yaml");
        assert_eq!(merged, Merged { written: Some(file.clone()), findings: vec![] });
        assert_eq!(std::fs::read_to_string(file).unwrap(), DEFAULT);
        let nowhere = VexConfig::read_at(None).unwrap().merge(&[hub()], None, &|_| true).unwrap();
        assert!(nowhere.written.is_none() && nowhere.findings.len() == 1);
    }

    #[test]
    fn the_name_of_the_enabled_entry_is_used() {
        let (_dir, config) = with_file(
            "# mine\nrepositories:\n- name: 'off'\n  url: https://github.com/aquasecurity/vexhub\n  enabled: false\n- {name: hub, url: https://github.com/aquasecurity/vexhub/, enabled: yes}\n",
        );
        assert_eq!(config.name_for(&hub()), "hub");
        assert_eq!(config.name_for(&corp()), "corp");
        assert_eq!(config.entries().len(), 2);
        assert!(!config.entries()[0].enabled && config.entries()[1].enabled);
    }

    #[test]
    fn existing_text_is_kept_to_the_byte() {
        for (text, indent) in [
            (DEFAULT, "  "),
            (
                "# top\nrepositories: # list\n- url: https://github.com/aquasecurity/vexhub # c\n  name: default\n  enabled: true\n# end\nother: 1\n",
                "",
            ),
            (
                "other: [a, b]\nrepositories:\n    -   name: default\n        url: x\n        extra: {a: [1]}\n        enabled: true",
                "    ",
            ),
            ("repositories:\r\n  - name: default\r\n    url: y\r\n    enabled: true\r\n", "  "),
        ] {
            let (new, merged) = merged(text, &[hub(), corp()]);
            assert!(merged.written.is_some(), "{text}: {merged:?}");
            let end = if text.contains('\r') { "\r\n" } else { "\n" };
            let added = entry_text(&corp(), true, indent, end);
            assert!(new.contains(&added), "{new}");
            let without = new.replace(&added, "");
            assert_eq!(without.trim_end_matches('\n'), text.trim_end_matches('\n'));
        }
    }

    #[test]
    fn an_entry_is_added_only_once() {
        let (new, merged) = merged(DEFAULT, &[hub()]);
        assert_eq!((new.as_str(), merged), (DEFAULT, Merged::default()));
        let (new, _) = self::merged(DEFAULT, &[hub(), corp()]);
        assert_eq!(self::merged(&new, &[hub(), corp()]), (new.clone(), Merged::default()));
        let (new, _) = self::merged("# nothing yet", &[hub()]);
        assert_eq!(new, format!("# nothing yet\n{DEFAULT}"));
    }

    #[test]
    fn a_file_that_cannot_be_edited_is_reported() {
        for text in [
            "repositories: []\n",
            "repositories: [{name: a, url: b, enabled: false}]\n",
            "{repositories: []}\n",
            "repositories:\n  - &a {name: x, url: y}\n  - *a\n",
            "repositories: [\n",
            "--- 1\n--- 2\n",
            "just text\n",
        ] {
            let (new, merged) = merged(text, &[corp()]);
            assert_eq!(new, text);
            assert!(merged.written.is_none(), "{text}");
            assert!(
                merged.findings.iter().any(|finding| finding.contains("- name: corp")),
                "{text}: {merged:?}"
            );
        }
    }

    #[test]
    fn disabled_and_uncarried_repositories_are_reported() {
        let text = "repositories:\n- name: default\n  url: https://github.com/aquasecurity/vexhub\n  enabled: false\n- name: other\n  url: z\n  enabled: true\n";
        let (new, merged) = merged(text, &[hub()]);
        assert_eq!((new.as_str(), &merged.written), (text, &None));
        assert_eq!(merged.findings.len(), 2, "{merged:?}");
        let (_dir, config) = with_file(text);
        assert_eq!(config.merge(&[hub()], None, &|name| name == "other").unwrap().findings.len(), 1);
    }

    #[test]
    fn only_a_regular_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".trivy/vex")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join(".trivy/vex/repository.yaml")).unwrap();
        let read = || VexConfig::read_at(Some(dir.path().into()));
        assert!(matches!(read(), Err(TargetError::Symlink { .. })));
        std::fs::remove_file(dir.path().join(".trivy/vex/repository.yaml")).unwrap();
        let fifo = dir.path().join(".trivy/vex/repository.yaml");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(matches!(read(), Err(TargetError::NotAFile { .. })));
        std::fs::remove_file(&fifo).unwrap();
        std::fs::write(&fifo, vec![b'#'; MAX as usize + 1]).unwrap();
        assert!(matches!(read(), Err(TargetError::Io { .. })));
    }

    fn origin(stream: &str, key: &str) -> Origin {
        Origin { stream: stream.into(), bundle: Digest::of(stream.as_bytes()), keys: vec![key.into()] }
    }

    /// Returns the repository of [`corp`] from a bundle of the stream `default` that a key signed.
    fn brought(url: &str, key: &str) -> CarriedRepository {
        CarriedRepository { url: url.into(), origin: Some(origin("default", key)), ..corp() }
    }

    const URL: &str = "https://vex.corp.example/x";

    /// Returns the file after an import that contains some repositories.
    fn imported(text: &str, stream: &str, listed: &[CarriedRepository], trusted: &str) -> (String, Merged) {
        let (dir, config) = with_file(text);
        let wanted = WantedEntries { stream, listed, missing: &[], trusts: &|key| key == trusted };
        let merged = config.merge(listed, Some(&wanted), &|_| true).unwrap();
        (std::fs::read_to_string(dir.path().join(".trivy/vex/repository.yaml")).unwrap(), merged)
    }

    #[test]
    fn an_entry_is_removed_when_bundles_no_longer_contain_it() {
        let (with, _) = imported(DEFAULT, "default", &[hub(), brought(URL, "a")], "a");
        assert_ne!(with, DEFAULT);
        // Bundles with other data only, another stream, the same bundle.
        assert_eq!(imported(&with, "default", &[], "a"), (with.clone(), Merged::default()));
        assert_eq!(imported(&with, "lab", &[hub()], "b"), (with.clone(), Merged::default()));
        assert_eq!(imported(&with, "default", &[hub(), brought(URL, "a")], "a").0, with);
        // A bundle without it, and a key that is no longer trusted.
        for (listed, trusted, word) in [(&[hub()][..], "a", "no bundle"), (&[], "b", "no longer trusted")] {
            let (without, merged) = imported(&with, "default", listed, trusted);
            assert_eq!(without, DEFAULT);
            let [finding] = merged.findings.as_slice() else { panic!("{merged:?}") };
            assert!(finding.contains("corp") && finding.contains(URL) && finding.contains(word), "{finding}");
        }
    }

    #[test]
    fn an_entry_is_replaced_if_its_exporter_changes_it() {
        let (with, _) = imported(DEFAULT, "default", &[brought(URL, "a")], "a");
        let new = brought("https://new.example/", "b");
        for listed in [brought(URL, "b"), new.clone()] {
            let (text, merged) = imported(&with, "default", std::slice::from_ref(&listed), "b");
            let wanted = format!("{DEFAULT}{}", entry_text(&listed, true, "  ", "\n"));
            assert_eq!(text, wanted);
            assert!(merged.written.is_some() && merged.findings.is_empty(), "{merged:?}");
        }
        // The operator's own entry already has that address.
        let mine = format!("{with}  - name: mine\n    url: https://new.example\n    enabled: true\n");
        let (text, _) = imported(&mine, "default", &[new], "b");
        assert_eq!(
            text,
            format!("{DEFAULT}  - name: mine\n    url: https://new.example\n    enabled: true\n")
        );
    }

    #[test]
    fn an_entry_that_an_operator_wrote_or_edited_is_never_removed() {
        let (with, _) = imported("", "default", &[brought(URL, "a")], "a");
        let plain = with.lines().filter(|line| !line.trim_start().starts_with('#'));
        let plain: String = plain.map(|line| format!("{line}\n")).collect();
        let moved = with.replacen("    url:", "    # mine\n    url:", 1);
        let edits = [
            ("enabled: true", "enabled: false"),
            ("token: \"\"", "token: \"t\""),
            (URL, "https://inner.example/"),
            ("name: corp", "name: mine"),
            ("stream=default", "stream=other"),
        ];
        let edited = edits.map(|(from, to)| with.replacen(from, to, 1));
        for text in edited.into_iter().chain([plain, moved]) {
            assert_ne!(text, with);
            let (after, _) = imported(&text, "default", &[], "b");
            assert_eq!(after, text);
        }
    }

    #[test]
    fn an_entry_can_be_added_after_the_last_one_was_removed() {
        let (with, _) = imported("# mine\n", "default", &[brought(URL, "a")], "a");
        let (empty, _) = imported(&with, "default", &[], "b");
        assert_eq!(empty, "# mine\nrepositories:\n");
        assert_eq!(imported(&empty, "default", &[brought(URL, "a")], "a").0, with);
    }

    #[test]
    fn a_file_that_changed_meanwhile_keeps_the_change() {
        let (dir, config) = with_file(DEFAULT);
        let file = dir.path().join(".trivy/vex/repository.yaml");
        let merge = || config.merge(&[corp()], None, &|_| true);
        let read = || std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, "# theirs\nrepositories:\n").unwrap();
        assert!(merge().unwrap().written.is_some());
        assert!(
            read().starts_with("# theirs\nrepositories:\n") && read().contains(&corp().url),
            "{}",
            read()
        );
        std::fs::remove_file(&file).unwrap();
        assert!(merge().unwrap().written.is_some());
        assert!(read().contains(&corp().url) && !read().contains("theirs"), "{}", read());
    }
}
