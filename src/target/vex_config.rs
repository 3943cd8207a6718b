//! Trivy's VEX configuration, `${XDG_DATA_HOME:-$HOME}/.trivy/vex/repository.yaml`: under which
//! name Trivy looks for a repository, and an entry for one that it does not know yet.
//!
//! What is there is never replaced, reordered or reformatted: an entry is added as text, and the
//! result is parsed again and compared before it is written. Knows YAML and this one file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::error::{At, TargetError};
use super::settings::{parent_owner, replace};
use super::sys::Dir;

/// The most that the file may have, in bytes.
const MOST: u64 = 64 << 10;
const FILE: &str = "repository.yaml";

/// A repository that was carried here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The name for an entry that has to be added: `default` for VEX Hub.
    pub name: String,
    /// The repository's URL as Trivy's configuration has it.
    pub url: String,
}

/// One entry of the file (Trivy v0.74.0, pkg/vex/repo/repo.go: `Repository`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The folder's name in Trivy's cache.
    pub name: String,
    /// Where Trivy would download it.
    pub url: String,
    /// Whether Trivy uses it.
    pub enabled: bool,
}

/// The VEX configuration as it stands.
#[derive(Debug)]
pub struct VexConfig {
    /// The directory that holds `.trivy`; `None`: there is no home.
    home: Option<PathBuf>,
    /// The file's text; `None` where there is no file yet.
    text: Option<String>,
    entries: Vec<Entry>,
    /// Why the file could not be understood.
    unclear: Option<String>,
}

/// What became of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Merged {
    /// The file, if it was written.
    pub written: Option<PathBuf>,
    /// What the operator should know or do, a sentence or a snippet each.
    pub findings: Vec<String>,
}

impl VexConfig {
    /// Reads the configuration of the user who runs this.
    ///
    /// # Errors
    /// A symbolic link or something else in place of the file, or the system refuses. No home is
    /// no error.
    pub fn read() -> Result<VexConfig, TargetError> {
        VexConfig::read_at(home(&|name| std::env::var_os(name)))
    }

    /// Reads the configuration below a given home (what `XDG_DATA_HOME`, else `HOME`, names).
    ///
    /// # Errors
    /// As for [`VexConfig::read`].
    pub fn read_at(home: Option<PathBuf>) -> Result<VexConfig, TargetError> {
        let mut config = VexConfig { home, text: None, entries: Vec::new(), unclear: None };
        let Some(dir) = config.folder(false)? else { return Ok(config) };
        let path = dir.at(FILE);
        match dir.find(FILE).at("look", &path)? {
            None => return Ok(config),
            Some(entry) if entry.is_symlink() => return Err(TargetError::Symlink { path }),
            Some(entry) if !entry.is_file() => return Err(TargetError::NotAFile { path }),
            Some(_) => {}
        }
        let bytes = dir.read_small(FILE, MOST).at("read", &path)?.unwrap_or_default();
        match String::from_utf8(bytes) {
            Ok(text) => {
                match parse(&text) {
                    Ok(parsed) => config.entries = parsed.entries,
                    Err(what) => config.unclear = Some(what),
                }
                config.text = Some(text);
            }
            Err(_) => {
                config.unclear = Some("it is not UTF-8".into());
                config.text = Some(String::new());
            }
        }
        Ok(config)
    }

    /// The file's path; `None` without a home.
    pub fn path(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".trivy/vex").join(FILE))
    }

    /// The entries, in the file's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The name under which Trivy looks for a repository: that of the enabled entry with its URL,
    /// else the enabled entry of its name, else its own name.
    pub fn name_for<'a>(&'a self, carried: &'a Carried) -> &'a str {
        let enabled = || self.entries.iter().filter(|entry| entry.enabled);
        enabled()
            .find(|entry| same_url(&entry.url, &carried.url))
            .or_else(|| enabled().find(|entry| entry.name == carried.name))
            .map_or(&carried.name, |entry| &entry.name)
    }

    /// Adds an entry for each carried repository that Trivy would not look for, creating the file
    /// as Trivy would where it is missing. `holds` says whether the cache has a repository of a
    /// name (`0.1/index.json`).
    ///
    /// # Errors
    /// The system refuses, or a symbolic link stands on the way.
    pub fn merge(&self, carried: &[Carried], holds: &dyn Fn(&str) -> bool) -> Result<Merged, TargetError> {
        let mut merged = Merged::default();
        if carried.is_empty() {
            return Ok(merged);
        }
        let Some(path) = self.path() else {
            merged.findings.push(
                "There is no home directory, so Trivy's VEX configuration was not written: set XDG_DATA_HOME for the scanner, and run the import with it.".into(),
            );
            return Ok(merged);
        };
        let mut missing = Vec::new();
        for repository in carried {
            let enabled = |entry: &&Entry| entry.enabled;
            let same =
                |entry: &&Entry| same_url(&entry.url, &repository.url) || entry.name == repository.name;
            match self.entries.iter().filter(same).find(enabled).or_else(|| self.entries.iter().find(same)) {
                Some(entry) if entry.enabled => {}
                Some(entry) => merged.findings.push(format!(
                    "{} has the VEX repository {} disabled: set its enabled to true to use what was imported.",
                    path.display(),
                    crate::text::safe(&entry.name)
                )),
                None => missing.push(repository),
            }
        }
        let known = |name: &str| carried.iter().any(|repository| self.name_for(repository) == name);
        for entry in self.entries.iter().filter(|entry| entry.enabled) {
            if !known(&entry.name) && !holds(&entry.name) {
                merged.findings.push(format!(
                    "{} enables the VEX repository {}, which is not in the cache: Trivy warns and filters without it (and fails without --skip-vex-repo-update); carry it too, or disable it.",
                    path.display(),
                    crate::text::safe(&entry.name)
                ));
            }
        }
        if missing.is_empty() && self.unclear.is_none() {
            return Ok(merged);
        }
        match self.with(&missing) {
            Ok(text) => {
                if let Some(dir) = self.folder(true)? {
                    replace(&dir, FILE, text.as_bytes(), 0o644, |_| Ok(()))?;
                    merged.written = Some(path);
                }
            }
            Err(what) => {
                let snippet: String =
                    missing.iter().map(|repository| entry_text(repository, true, "  ", "\n")).collect();
                merged.findings.push(format!(
                    "{} was left as it is, because {what}: add this by hand under repositories:\n{snippet}",
                    path.display()
                ));
            }
        }
        Ok(merged)
    }

    /// The file's text with entries added, proven to say what it said and no more.
    fn with(&self, missing: &[&Carried]) -> Result<String, String> {
        if let Some(what) = &self.unclear {
            return Err(what.clone());
        }
        let text = self.text.as_deref().unwrap_or_default();
        let parsed = parse(text)?;
        let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let mut new = text.to_owned();
        match parsed.sequence {
            Sequence::Absent => {
                if !new.is_empty() && !new.ends_with('\n') {
                    new.push_str(end);
                }
                new.push_str(&format!("repositories:{end}"));
                new.extend(missing.iter().map(|repository| entry_text(repository, true, "  ", end)));
            }
            Sequence::Block { indent, last_line } => {
                let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
                if let Some(last) = lines.get_mut(last_line - 1).filter(|line| !line.ends_with('\n')) {
                    last.push_str(end);
                }
                let indent = " ".repeat(indent);
                let at = last_line.min(lines.len());
                lines.splice(
                    at..at,
                    missing.iter().map(|repository| entry_text(repository, true, &indent, end)),
                );
                new = lines.concat();
            }
            Sequence::Other => return Err("its list of repositories is not in block style".into()),
        }
        let mut wanted = parsed.entries;
        wanted.extend(missing.iter().map(|repository| Entry {
            name: repository.name.clone(),
            url: repository.url.clone(),
            enabled: true,
        }));
        let again = parse(&new)?;
        if again.entries != wanted || again.scalars < parsed.scalars {
            return Err("an entry could not be added without changing others".into());
        }
        Ok(new)
    }

    /// The folder of the file, made where that is asked for, as Trivy makes it (mode 0700).
    fn folder(&self, make: bool) -> Result<Option<Dir>, TargetError> {
        let Some(home) = &self.home else { return Ok(None) };
        let mut dir = match Dir::top(home) {
            Ok(dir) => dir,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !make => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let above = home.ancestors().skip(1).find_map(|above| Dir::top(above).ok());
                let owner = above.map(|above| parent_owner(&above)).transpose().at("look", home)?.flatten();
                Dir::top_or_make(home, owner).at("make the folder", home)?
            }
            Err(error) => return Err(TargetError::io("open", home, error)),
        };
        for name in [".trivy", "vex"] {
            let path = dir.at(name);
            dir = match dir.find(name).at("look", &path)? {
                Some(entry) if entry.is_symlink() => return Err(TargetError::Symlink { path }),
                Some(_) => dir.open(name).at("open", path)?,
                None if !make => return Ok(None),
                None => {
                    let owner = parent_owner(&dir).at("look", dir.path())?;
                    dir.make(name, 0o700, owner).at("make the folder", path)?
                }
            };
        }
        Ok(Some(dir))
    }
}

/// Trivy's home (Trivy v0.74.0, pkg/utils/fsutils/fs.go: `HomeDir`).
fn home(environment: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_DATA_HOME").or_else(|| set("HOME")).filter(|home| home != Path::new("/nonexistent"))
}

/// An entry as Trivy's own default has it (`trivy vex repo init` of v0.74.0).
pub(super) fn entry_text(repository: &Carried, enabled: bool, indent: &str, end: &str) -> String {
    let (name, url) = (scalar(&repository.name), scalar(&repository.url));
    let enabled = if enabled { "enabled: true" } else { "enabled: false" };
    let fields = [enabled, "username: \"\"", "password: \"\"", "token: \"\"", "insecure: false"];
    let mut text = format!("{indent}- name: {name}{end}{indent}  url: {url}{end}");
    for field in fields {
        text.push_str(&format!("{indent}  {field}{end}"));
    }
    text
}

/// A YAML scalar: plain where nothing can be misread, else quoted as JSON does.
fn scalar(text: &str) -> String {
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._/~?=&%".contains(&c) || c == b':')
        && !text.ends_with(':')
        && truth(text).is_none()
        && !matches!(text, "null" | "Null" | "NULL" | "n" | "N");
    if word { text.into() } else { serde_json::Value::from(text).to_string() }
}

/// What YAML 1.1 and Go's yaml.v3 take for a truth value in a boolean field (decode.go).
fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn same_url(one: &str, other: &str) -> bool {
    fn plain(url: &str) -> String {
        let url = url.trim_end_matches('/');
        url.strip_suffix(".git").unwrap_or(url).to_ascii_lowercase()
    }
    plain(one) == plain(other)
}

struct Parsed {
    entries: Vec<Entry>,
    sequence: Sequence,
    scalars: usize,
}

/// How the list stands in the text.
enum Sequence {
    Absent,
    Block {
        /// Columns before the dash.
        indent: usize,
        /// The last line of the last entry, counted from 1.
        last_line: usize,
    },
    Other,
}

/// Reads the file's one shape: a mapping with a list of mappings of scalars.
fn parse(text: &str) -> Result<Parsed, String> {
    let mut parsed = Parsed { entries: Vec::new(), sequence: Sequence::Absent, scalars: 0 };
    // How deep we are; the key that waits for its value, at the top and in an entry.
    let (mut depth, mut documents) = (0u32, 0);
    let (mut top_key, mut key): (Option<String>, Option<String>) = (None, None);
    let mut in_list = false;
    let mut entry = Entry { name: String::new(), url: String::new(), enabled: false };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| format!("it is not YAML ({error})"))?;
        match event {
            Event::Alias(_) => return Err("it uses YAML aliases".into()),
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err("it has more than one document".into());
                }
            }
            Event::MappingStart(..) => {
                depth += 1;
                if depth == 1 && !top_is_block(text, span.start.line()) {
                    return Err("it is in flow style".into());
                }
                if in_list && depth == 3 {
                    entry = Entry { name: String::new(), url: String::new(), enabled: false };
                    key = None;
                    if let Sequence::Absent = parsed.sequence {
                        parsed.sequence = block(text, span.start.line(), span.start.col());
                    }
                }
            }
            Event::SequenceStart(..) => {
                depth += 1;
                in_list |= depth == 2 && top_key.as_deref() == Some("repositories");
                if in_list && depth == 2 && text[byte(text, span.start.index())..].starts_with('[') {
                    parsed.sequence = Sequence::Other;
                }
            }
            Event::MappingEnd | Event::SequenceEnd => {
                if in_list && depth == 3 {
                    parsed.entries.push(entry.clone());
                }
                if depth == 2 {
                    (in_list, top_key) = (false, None);
                }
                if depth == 4 {
                    key = None;
                }
                depth -= 1;
            }
            Event::Scalar(value, style, ..) => {
                parsed.scalars += 1;
                if in_list && let Sequence::Block { last_line, .. } = &mut parsed.sequence {
                    *last_line = (*last_line).max(span.end.line());
                    if !matches!(
                        style,
                        ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted
                    ) {
                        return Err("it uses block scalars".into());
                    }
                }
                match (depth, top_key.take(), key.take()) {
                    (0, ..) if !value.is_empty() && &*value != "null" && &*value != "~" => {
                        return Err("it is not a mapping".into());
                    }
                    (1, None, _) => top_key = Some(value.into_owned()),
                    (1, Some(list), _) if list == "repositories" => parsed.sequence = Sequence::Other,
                    (3, top, None) if in_list => (top_key, key) = (top, Some(value.into_owned())),
                    (3, top, Some(field)) if in_list => {
                        top_key = top;
                        match field.as_str() {
                            "name" => entry.name = value.into_owned(),
                            "url" => entry.url = value.into_owned(),
                            "enabled" => entry.enabled = truth(&value).unwrap_or(false),
                            _ => {}
                        }
                    }
                    (_, top, _) if depth > 1 => top_key = top,
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Ok(parsed)
}

fn top_is_block(text: &str, line: usize) -> bool {
    !text.lines().nth(line.saturating_sub(1)).is_some_and(|line| line.trim_start().starts_with('{'))
}

/// Where the dash of a block entry stands that begins at a line (from 1) and column (from 0).
fn block(text: &str, line: usize, column: usize) -> Sequence {
    let before: String =
        text.lines().nth(line.saturating_sub(1)).unwrap_or("").chars().take(column).collect();
    let indent = before.len() - before.trim_start_matches(' ').len();
    match before.trim_start_matches(' ').trim_end() {
        "-" => Sequence::Block { indent, last_line: line },
        _ => Sequence::Other,
    }
}

/// The byte offset of a character offset.
fn byte(text: &str, character: usize) -> usize {
    text.char_indices().nth(character).map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::catalogue::VEX_HUB;

    fn hub() -> Carried {
        Carried { name: "default".into(), url: VEX_HUB.into() }
    }

    fn corp() -> Carried {
        Carried { name: "corp".into(), url: "https://vex.corp.example/x?y=1".into() }
    }

    fn with_file(text: &str) -> (tempfile::TempDir, VexConfig) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".trivy/vex")).unwrap();
        std::fs::write(dir.path().join(".trivy/vex/repository.yaml"), text).unwrap();
        let config = VexConfig::read_at(Some(dir.path().into())).unwrap();
        (dir, config)
    }

    fn merged(text: &str, carried: &[Carried]) -> (String, Merged) {
        let (dir, config) = with_file(text);
        let merged = config.merge(carried, &|_| false).unwrap();
        (std::fs::read_to_string(dir.path().join(".trivy/vex/repository.yaml")).unwrap(), merged)
    }

    const DEFAULT: &str = "repositories:\n  - name: default\n    url: https://github.com/aquasecurity/vexhub\n    enabled: true\n    username: \"\"\n    password: \"\"\n    token: \"\"\n    insecure: false\n";

    #[test]
    fn a_missing_file_becomes_what_trivy_writes() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("not/yet");
        let config = VexConfig::read_at(Some(home.clone())).unwrap();
        let merged = config.merge(&[hub()], &|_| true).unwrap();
        let file = home.join(".trivy/vex/repository.yaml");
        assert_eq!(merged, Merged { written: Some(file.clone()), findings: vec![] });
        assert_eq!(std::fs::read_to_string(file).unwrap(), DEFAULT);
        let nowhere = VexConfig::read_at(None).unwrap().merge(&[hub()], &|_| true).unwrap();
        assert!(nowhere.written.is_none() && nowhere.findings.len() == 1);
    }

    #[test]
    fn the_name_is_the_one_that_is_enabled() {
        let (_dir, config) = with_file(
            "# mine\nrepositories:\n- name: 'off'\n  url: https://github.com/aquasecurity/vexhub\n  enabled: false\n- {name: hub, url: https://github.com/aquasecurity/vexhub/, enabled: yes}\n",
        );
        assert_eq!(config.name_for(&hub()), "hub");
        assert_eq!(config.name_for(&corp()), "corp");
        assert_eq!(config.entries().len(), 2);
        assert!(!config.entries()[0].enabled && config.entries()[1].enabled);
    }

    #[test]
    fn what_is_there_stays_to_the_byte() {
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
    fn nothing_is_written_twice_or_for_nothing() {
        let (new, merged) = merged(DEFAULT, &[hub()]);
        assert_eq!((new.as_str(), merged), (DEFAULT, Merged::default()));
        let (new, _) = self::merged(DEFAULT, &[hub(), corp()]);
        assert_eq!(self::merged(&new, &[hub(), corp()]), (new.clone(), Merged::default()));
        let (new, _) = self::merged("# nothing yet", &[hub()]);
        assert_eq!(new, format!("# nothing yet\n{DEFAULT}"));
    }

    #[test]
    fn what_cannot_be_edited_is_explained() {
        for text in [
            "repositories: []\n",
            "repositories: [{name: a, url: b, enabled: false}]\n",
            "{repositories: []}\n",
            "repositories:\n",
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
        assert_eq!(config.merge(&[hub()], &|name| name == "other").unwrap().findings.len(), 1);
    }

    #[test]
    fn links_are_refused_and_values_quoted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".trivy/vex")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join(".trivy/vex/repository.yaml")).unwrap();
        assert!(matches!(VexConfig::read_at(Some(dir.path().into())), Err(TargetError::Symlink { .. })));
        assert_eq!(scalar("no"), "\"no\"");
        assert_eq!(scalar("a: b"), "\"a: b\"");
        assert_eq!(scalar("1.5"), "\"1.5\"");
    }
}
