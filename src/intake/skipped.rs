//! The files in an input that are not read, each with the reason.
//!
//! This module does not know why a file is skipped.

use serde::Serialize;

use crate::bundle::names::{PROGRAM, PROGRAM_CHECKSUM, PROGRAM_SIGNATURE};

/// A skipped file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SkippedFile {
    /// Its name.
    pub name: String,
    /// The reason.
    pub why: String,
}

/// The reason for skipping a file with an unknown name.
pub(crate) const NOT_NAMED: &str = "not named .tar";

/// The skipped files. The first of them are named and the others only counted, because there may be very many.
#[derive(Default)]
pub(crate) struct SkippedFiles {
    named: Vec<SkippedFile>,
    more: usize,
}

impl SkippedFiles {
    /// The limit of files that are named.
    const MAX: usize = 100;

    /// Adds a file.
    pub(crate) fn add(&mut self, ignored: SkippedFile) {
        self.named.push(ignored);
        if self.named.len() > 2 * Self::MAX {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.named.sort_by(|a, b| a.name.cmp(&b.name));
        self.more += self.named.len().saturating_sub(Self::MAX);
        self.named.truncate(Self::MAX);
    }

    /// Returns the number of all skipped files.
    pub(crate) fn len(&self) -> usize {
        self.named.len() + self.more
    }

    /// Returns the files to mention to the user, without those that are often beside a bundle: public keys, and the
    /// files of `export --with-self`.
    pub(crate) fn remarks(self) -> Vec<SkippedFile> {
        let mut list = self.list();
        list.retain(|file| file.why != NOT_NAMED || !is_expected(&file.name));
        list
    }

    /// Returns all files as a list. Its last entry may represent many files.
    pub(crate) fn list(mut self) -> Vec<SkippedFile> {
        self.cut();
        if self.more > 0 {
            self.named.push(SkippedFile {
                name: format!("{} more", self.more),
                why: "skipped too, but not listed".into(),
            });
        }
        self.named
    }
}

/// Whether people put files with this name beside a bundle on purpose.
fn is_expected(name: &str) -> bool {
    name.to_lowercase().ends_with(".pub") || [PROGRAM, PROGRAM_CHECKSUM, PROGRAM_SIGNATURE].contains(&name)
}
