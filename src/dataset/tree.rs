//! The files of a dataset: their paths, their digests, and the sink that receives them while they are unpacked.

use std::collections::HashSet;
use std::str::FromStr;
use std::{fmt, io};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::content_digest::{ContentDigest, ContentHasher};
use crate::util::text::format_count;

/// A relative path in a layer or an archive that cannot escape its directory: no empty, `.` or `..` component, no
/// backslash, no control character, at most 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(String);

/// A string that is not a [`RelPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a plain relative path")]
pub struct InvalidPath;

impl RelPath {
    /// Returns the path as text, with components separated by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the components in order; there is at least one.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Returns the path relative to the directory `prefix`, or `None` if the path is not below that directory. An
    /// empty prefix is the top.
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

/// The description of the content of one dataset. It is computed at export and signed in the payload of the bundle.
/// An import computes it again from the installed bytes and compares the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The schema version of the database (`Version` in `metadata.json`): 2 for trivy-db, 1 for
    /// trivy-java-db.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<u32>,
    /// The build time of the data, as stated in the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// The expected time of the next build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_update: Option<Timestamp>,
    /// The files of a database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// The digest of all files of checks and VEX, which have hundreds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Tree>,
}

impl Contents {
    /// Returns the size of the unpacked content in bytes.
    pub fn unpacked_size(&self) -> u64 {
        let files = self.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.size));
        files.saturating_add(self.tree.as_ref().map_or(0, |tree| tree.size))
    }

    /// Returns the number of directories in the unpacked content, without the top.
    pub fn directory_count(&self) -> u64 {
        self.tree.as_ref().map_or(0, |tree| tree.folders)
    }

    /// Returns a clause about the first difference from the signed description; `None` if there is none. A VEX
    /// repository without a date matches any signed date.
    pub fn difference(&self, signed: &Contents) -> Option<String> {
        let is_undated = self.updated_at.is_none() && self.tree.is_some();
        let date = |date: Option<Timestamp>| date.map_or_else(|| "none".into(), |date| date.to_string());
        if !is_undated && self.updated_at != signed.updated_at {
            let (found, wanted) = (date(self.updated_at), date(signed.updated_at));
            return Some(format!("its date is {found} instead of the signed {wanted}"));
        }
        if self.next_update != signed.next_update || self.schema != signed.schema {
            return Some("its metadata.json differs from the signed description".into());
        }
        for wanted in &signed.files {
            match self.files.iter().find(|file| file.path == wanted.path) {
                None => return Some(format!("{} is missing", wanted.path)),
                Some(found) if found.size != wanted.size => {
                    return Some(format!(
                        "{} has {} bytes instead of the signed {}",
                        wanted.path, found.size, wanted.size
                    ));
                }
                Some(found) if found.digest != wanted.digest => {
                    return Some(format!("{} does not match the signed digest", wanted.path));
                }
                Some(_) => {}
            }
        }
        if self.files.len() != signed.files.len() {
            return Some(format!(
                "it has {} instead of the signed {}",
                format_count(self.files.len(), "file"),
                signed.files.len()
            ));
        }
        let files = |count: u64| format_count(usize::try_from(count).unwrap_or(usize::MAX), "file");
        match (&self.tree, &signed.tree) {
            (Some(found), Some(wanted)) if (found.files, found.size) != (wanted.files, wanted.size) => {
                Some(format!(
                    "it has {} with {} bytes instead of the signed {} with {} bytes",
                    files(found.files),
                    found.size,
                    files(wanted.files),
                    wanted.size
                ))
            }
            (found, wanted) if found != wanted => {
                Some("the names or digests of its files do not match the signed digest".into())
            }
            _ => None,
        }
    }

    /// Returns the number of files in the unpacked content.
    pub fn file_count(&self) -> u64 {
        self.files.len() as u64 + self.tree.as_ref().map_or(0, |tree| tree.files)
    }
}

/// A file in the layer of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path in the layer.
    pub path: RelPath,
    /// Its length in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub digest: ContentDigest,
}

/// The digest of many files: the content digest of the lines that `find -type f | LC_ALL=C sort | xargs b3sum`
/// prints, with paths relative to the top of the content and without `./`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// The digest of all paths and contents.
    pub digest: ContentDigest,
    /// The number of files.
    pub files: u64,
    /// The number of their directories, without the top.
    pub folders: u64,
    /// The sum of their lengths in bytes.
    pub size: u64,
}

impl Tree {
    /// Computes the digest of files in any order.
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

/// The destination of unpacked content. For each file, it gets one `begin`, any number of `data`, and one `end`.
pub trait Sink {
    /// Begins a regular file of `size` bytes.
    ///
    /// # Errors
    /// If the sink cannot store the file. The unpacking stops and returns
    /// [`UnpackError::Sink`](crate::dataset::check::UnpackError::Sink).
    fn begin(&mut self, path: &RelPath, size: u64) -> io::Result<()>;

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// If the sink cannot store the bytes. The unpacking stops.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Completes the file.
    ///
    /// # Errors
    /// If the sink cannot complete the file. The unpacking stops.
    fn end(&mut self) -> io::Result<()>;

    /// Takes the path of a skipped file that does not belong to the content.
    fn skipped(&mut self, _path: &RelPath) {}

    /// Takes a document in the index of a VEX repository, after the last file. `format` is empty if the index names
    /// none.
    fn listed(&mut self, _location: &str, _format: &str) {}
}

/// A sink that discards the files.
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
            (database(8, b"a", DATE), "trivy.db has 8 bytes instead of the signed 9"),
            (database(9, b"b", DATE), "metadata.json does not match the signed digest"),
            (database(9, b"a", "2026-01-16T06:00:00Z"), "its date is 2026-01-16T06:00:00Z"),
            (
                Contents { schema: Some(1), ..signed.clone() },
                "metadata.json differs from the signed description",
            ),
            (Contents { files: Vec::new(), ..signed.clone() }, "metadata.json is missing"),
        ] {
            let difference = found.difference(&signed).unwrap();
            assert!(difference.contains(word), "{difference}");
        }
        let signed = repository(&[("index.json", b"x"), ("a", b"y")], Some(DATE));
        for (found, word) in [
            (
                repository(&[("index.json", b"x")], Some(DATE)),
                "it has 1 file with 1 bytes instead of the signed 2 files with 2",
            ),
            (
                repository(&[("index.json", b"x"), ("b", b"y")], Some(DATE)),
                "the names or digests of its files",
            ),
            (repository(&[("index.json", b"x"), ("a", b"y")], Some("2026-01-14T06:00:00Z")), "its date is"),
        ] {
            let difference = found.difference(&signed).unwrap();
            assert!(difference.contains(word), "{difference}");
        }
        // A repository without a date matches any signed date. A database always has a date.
        assert_eq!(repository(&[("index.json", b"x"), ("a", b"y")], None).difference(&signed), None);
        let undated = Contents { updated_at: None, ..database(9, b"a", DATE) };
        assert!(undated.difference(&database(9, b"a", DATE)).is_some());
    }
}
