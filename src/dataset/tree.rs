//! The files of a dataset: their paths, their digests, and the sink that gets them while they are unpacked.

use std::collections::HashSet;
use std::str::FromStr;
use std::{fmt, io};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::content_digest::{ContentDigest, ContentHasher};

/// A relative path inside a layer or an archive that cannot leave its place: no empty, `.` or `..`
/// component, no backslash, no control character, at most 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(String);

/// A string that is not a [`RelPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a plain relative path")]
pub struct InvalidPath;

impl RelPath {
    /// The path as text, components separated by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components in order; never empty.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// This path below the folder `prefix`, or `None` where it is not below it. An empty prefix
    /// is the top.
    pub fn below(&self, prefix: &str) -> Option<RelPath> {
        let rest = match prefix {
            "" => self.0.as_str(),
            prefix => self.0.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        Some(RelPath(rest.into()))
    }
}

impl FromStr for RelPath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let good = text.len() <= 512
            && !text.contains(|c: char| c == '\\' || c.is_control())
            && text.split('/').all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255);
        if good { Ok(RelPath(text.into())) } else { Err(InvalidPath) }
    }
}

impl TryFrom<String> for RelPath {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> String {
        path.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the content of one dataset was found to be. Computed at export, signed in the bundle's
/// payload, computed again at import from the bytes that are installed, and compared whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The database's schema version (`Version` in metadata.json): 2 for trivy-db, 1 for
    /// trivy-java-db.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<u32>,
    /// When upstream built the data, as the data itself says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// When upstream expects to publish the next build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_update: Option<Timestamp>,
    /// Each file, for the databases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// All files as one digest, for checks and VEX, which hold hundreds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Tree>,
}

impl Contents {
    /// The bytes that the content takes when unpacked.
    pub fn unpacked_size(&self) -> u64 {
        let files = self.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.size));
        files.saturating_add(self.tree.as_ref().map_or(0, |tree| tree.size))
    }

    /// The number of directories that the content unpacks to, without its top.
    pub fn directory_count(&self) -> u64 {
        self.tree.as_ref().map_or(0, |tree| tree.folders)
    }

    /// In what this differs from what was signed, as the end of a sentence about the content; `None` if it does not.
    /// A date that a VEX repository does not say of itself is the one that was signed.
    pub fn difference(&self, signed: &Contents) -> Option<String> {
        let is_undated = self.updated_at.is_none() && self.tree.is_some();
        let date = |date: Option<Timestamp>| date.map_or_else(|| "none".into(), |date| date.to_string());
        if !is_undated && self.updated_at != signed.updated_at {
            let (found, wanted) = (date(self.updated_at), date(signed.updated_at));
            return Some(format!("its date is {found}, and {wanted} was signed"));
        }
        if self.next_update != signed.next_update || self.schema != signed.schema {
            return Some("its metadata.json says something else than was signed".into());
        }
        for wanted in &signed.files {
            match self.files.iter().find(|file| file.path == wanted.path) {
                None => return Some(format!("{} is missing in it", wanted.path)),
                Some(found) if found.size != wanted.size => {
                    return Some(format!(
                        "{} has {} bytes, and {} were signed",
                        wanted.path, found.size, wanted.size
                    ));
                }
                Some(found) if found.digest != wanted.digest => {
                    return Some(format!("{} has another digest than was signed", wanted.path));
                }
                Some(_) => {}
            }
        }
        if self.files.len() != signed.files.len() {
            return Some(format!(
                "it has {} files, and {} were signed",
                self.files.len(),
                signed.files.len()
            ));
        }
        match (&self.tree, &signed.tree) {
            (Some(found), Some(wanted)) if (found.files, found.size) != (wanted.files, wanted.size) => {
                Some(format!(
                    "it has {} files with {} bytes, and {} with {} bytes were signed",
                    found.files, found.size, wanted.files, wanted.size
                ))
            }
            (found, wanted) if found != wanted => {
                Some("its files have other names or digests than were signed".into())
            }
            _ => None,
        }
    }

    /// The number of files that the content unpacks to.
    pub fn file_count(&self) -> u64 {
        self.files.len() as u64 + self.tree.as_ref().map_or(0, |tree| tree.files)
    }
}

/// One file of a database's layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Where it stands in the layer.
    pub path: RelPath,
    /// Its length in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub digest: ContentDigest,
}

/// Hundreds of files as one digest: the content digest of the lines that
/// `find -type f | LC_ALL=C sort | xargs b3sum` prints with paths relative to the content's
/// top and without `./`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The digest over all paths and contents.
    pub digest: ContentDigest,
    /// The number of files.
    pub files: u64,
    /// The number of folders that hold them, without the top.
    pub folders: u64,
    /// The sum of their lengths in bytes.
    pub size: u64,
}

impl Tree {
    /// The tree digest of files in any order.
    pub fn of(mut files: Vec<File>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut hasher = ContentHasher::new();
        let mut size = 0u64;
        let mut folders = HashSet::new();
        for file in &files {
            let path = file.path.as_str();
            folders.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
            hasher.update(format!("{}  {}\n", file.digest.hex(), file.path).as_bytes());
            size = size.saturating_add(file.size);
        }
        Tree { digest: hasher.finish(), files: files.len() as u64, folders: folders.len() as u64, size }
    }
}

/// Where unpacked content goes, file by file. `begin`, any number of `data`, `end`, and again.
pub trait Sink {
    /// A regular file of `size` bytes begins.
    ///
    /// # Errors
    /// If the sink cannot store the file. The unpacking stops and returns
    /// [`UnpackError::Sink`](crate::dataset::check::UnpackError::Sink).
    fn begin(&mut self, path: &RelPath, size: u64) -> io::Result<()>;

    /// The file's next bytes.
    ///
    /// # Errors
    /// If the sink cannot store the bytes. The unpacking stops.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The file is complete.
    ///
    /// # Errors
    /// If the sink cannot complete the file. The unpacking stops.
    fn end(&mut self) -> io::Result<()>;

    /// A file was skipped that is no part of the content.
    fn skipped(&mut self, _path: &RelPath) {}

    /// After the last file: the index of a VEX repository lists a document, in this format if it names one.
    fn listed(&mut self, _location: &str, _format: &str) {}
}

/// The sink of a check that keeps nothing.
pub struct Discard;

impl Sink for Discard {
    fn begin(&mut self, _: &RelPath, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn data(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(size: u64, content: &[u8], date: &str) -> Contents {
        let file = |path: &str, size: u64| File {
            path: path.parse().unwrap(),
            size,
            digest: ContentDigest::of(content),
        };
        Contents {
            schema: Some(2),
            updated_at: Some(date.parse().unwrap()),
            next_update: None,
            files: vec![file("metadata.json", 1), file("trivy.db", size)],
            tree: None,
        }
    }

    fn repository(files: &[(&str, &[u8])], date: Option<&str>) -> Contents {
        let file = |(path, content): &(&str, &[u8])| File {
            path: path.parse().unwrap(),
            size: content.len() as u64,
            digest: ContentDigest::of(content),
        };
        let tree = Some(Tree::of(files.iter().map(file).collect()));
        let updated_at = date.map(|date| date.parse().unwrap());
        Contents { schema: None, updated_at, next_update: None, files: Vec::new(), tree }
    }

    #[test]
    fn a_difference_is_named() {
        const DATE: &str = "2026-01-15T06:00:00Z";
        let signed = database(9, b"a", DATE);
        assert_eq!(signed.difference(&signed), None);
        for (found, word) in [
            (database(8, b"a", DATE), "trivy.db has 8 bytes, and 9 were signed"),
            (database(9, b"b", DATE), "metadata.json has another digest"),
            (database(9, b"a", "2026-01-16T06:00:00Z"), "its date is 2026-01-16T06:00:00Z"),
            (Contents { schema: Some(1), ..signed.clone() }, "metadata.json says something else"),
            (Contents { files: Vec::new(), ..signed.clone() }, "metadata.json is missing"),
        ] {
            let difference = found.difference(&signed).unwrap();
            assert!(difference.contains(word), "{difference}");
        }
        let signed = repository(&[("index.json", b"x"), ("a", b"y")], Some(DATE));
        for (found, word) in [
            (repository(&[("index.json", b"x")], Some(DATE)), "it has 1 files with 1 bytes, and 2 with 2"),
            (repository(&[("index.json", b"x"), ("b", b"y")], Some(DATE)), "other names or digests"),
            (repository(&[("index.json", b"x"), ("a", b"y")], Some("2026-01-14T06:00:00Z")), "its date is"),
        ] {
            let difference = found.difference(&signed).unwrap();
            assert!(difference.contains(word), "{difference}");
        }
        // What says no date of itself has the one that was signed, and a database always says one.
        assert_eq!(repository(&[("index.json", b"x"), ("a", b"y")], None).difference(&signed), None);
        let undated = Contents { updated_at: None, ..database(9, b"a", DATE) };
        assert!(undated.difference(&database(9, b"a", DATE)).is_some());
    }
}
