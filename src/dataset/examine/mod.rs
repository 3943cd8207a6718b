//! Examines the content of a dataset while it is unpacked for an export: counts its entries, and finds
//! peculiarities. None of this is a rule of the format, so an import does not check it.

mod json_scan;
mod pages;
mod vex_documents;

use std::io;

pub use vex_documents::VexFindings;

use crate::dataset::examine::pages::{BoltCount, SqliteCount};
use crate::dataset::examine::vex_documents::VexDocuments;
use crate::dataset::{Kind, RelPath, Sink, sqlite};
use crate::util::text::escape;

/// The limit of skipped files that are named. The others are counted.
const NAMED: usize = 3;

/// The findings about a dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examination {
    /// The length of its files in bytes.
    pub bytes: u64,
    /// The number of top-level buckets of trivy-db, of artifacts of trivy-java-db, of checks, or of packages in the index
    /// of a VEX repository; `None` if they could not be counted.
    pub entries: Option<u64>,
    /// The plural noun for the entries.
    pub unit: &'static str,
    /// Remarks for the operator, each a clause about the dataset.
    pub remarks: Vec<String>,
    /// The findings about the documents of a VEX repository.
    pub vex: VexFindings,
    /// A clause about a table that Trivy reads and the database does not have.
    pub lacks: Option<String>,
}

/// The examination of a kind of data.
#[derive(Debug)]
enum Look {
    Bolt(BoltCount),
    Sqlite(SqliteCount),
    Checks(u64),
    Vex(VexDocuments),
}

/// A sink that examines the files of a dataset and discards them.
#[derive(Debug)]
pub struct Examiner {
    look: Look,
    /// Whether the current file is the database.
    is_database: bool,
    bytes: u64,
    skipped: Vec<String>,
    more: usize,
}

impl Examiner {
    /// Creates an examiner for this kind of data.
    pub fn new(kind: Kind) -> Self {
        let look = match kind {
            Kind::TrivyDb => Look::Bolt(BoltCount::default()),
            Kind::TrivyJavaDb => Look::Sqlite(SqliteCount::default()),
            Kind::TrivyChecks => Look::Checks(0),
            Kind::Vex => Look::Vex(VexDocuments::default()),
        };
        Examiner { look, is_database: false, bytes: 0, skipped: Vec::new(), more: 0 }
    }

    /// Returns the findings after the last file.
    pub fn finish(self) -> Examination {
        let mut remarks = Vec::new();
        if !self.skipped.is_empty() {
            let more = if self.more > 0 { format!(" and {} more", self.more) } else { String::new() };
            remarks.push(format!(
                "its archive was packed on macOS, and files with only extended attributes were skipped: {}{more}",
                self.skipped.join(", ")
            ));
        }
        let mut examination = Examination { bytes: self.bytes, remarks, ..Examination::default() };
        match self.look {
            Look::Bolt(count) => {
                (examination.entries, examination.unit) = (count.entries(), "buckets");
                if count.is_lost() {
                    examination.remarks.push(
                        "the pages of trivy.db could not be read, so its entries were not counted".into(),
                    );
                }
            }
            Look::Sqlite(count) => {
                (examination.entries, examination.unit) = (count.rows("artifacts"), "artifacts");
                match count.tables() {
                    Some(tables) => {
                        let missing = sqlite::TABLES.iter().find(|table| !tables.contains(table));
                        examination.lacks = missing.map(|table| format!("trivy-java.db has no table {table}"));
                    }
                    None => examination.remarks.push(
                        "the schema of trivy-java.db could not be read, so it may lack the tables that Trivy reads"
                            .into(),
                    ),
                }
            }
            Look::Checks(count) => (examination.entries, examination.unit) = (Some(count), "checks"),
            Look::Vex(documents) => {
                examination.vex = documents.finish();
                (examination.entries, examination.unit) = (Some(examination.vex.listed), "packages");
            }
        }
        examination
    }
}

impl Sink for Examiner {
    fn begin(&mut self, path: &RelPath, size: u64) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(size);
        self.is_database = path.as_str() != "metadata.json";
        match &mut self.look {
            Look::Checks(count) => {
                *count +=
                    u64::from(path.as_str().starts_with("policies/") && path.as_str().ends_with(".rego"));
            }
            Look::Vex(documents) => documents.begin(path),
            Look::Bolt(_) | Look::Sqlite(_) => {}
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.look {
            Look::Bolt(count) if self.is_database => count.feed(bytes),
            Look::Sqlite(count) if self.is_database => count.feed(bytes),
            Look::Vex(documents) => documents.data(bytes),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if let Look::Vex(documents) = &mut self.look {
            documents.end();
        }
        Ok(())
    }

    fn listed(&mut self, location: &str, format: &str) {
        if let Look::Vex(documents) = &mut self.look {
            documents.listed(location, format);
        }
    }

    fn skipped(&mut self, path: &RelPath) {
        if self.skipped.len() < NAMED {
            self.skipped.push(escape(path.as_str()));
        } else {
            self.more += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::check::UnpackLimits;
    use crate::dataset::layer;

    fn examined(kind: Kind, packed: &[u8]) -> Examination {
        let mut examiner = Examiner::new(kind);
        layer::unpack(kind, packed, UnpackLimits::of(kind), &mut examiner).unwrap();
        examiner.finish()
    }

    /// The samples are databases that bbolt and SQLite wrote.
    #[test]
    fn the_entries_of_real_databases_are_counted() {
        let db = include_bytes!("../../../fixtures/sample/trivy-db/db.tar.gz");
        let found = examined(Kind::TrivyDb, db);
        assert_eq!((found.entries, found.unit, found.bytes > 65_536), (Some(4), "buckets", true));
        let java = include_bytes!("../../../fixtures/sample/trivy-java-db/javadb.tar.gz");
        let found = examined(Kind::TrivyJavaDb, java);
        assert_eq!((found.entries, found.lacks, found.remarks), (Some(1), None, Vec::new()));
        let checks = include_bytes!("../../../fixtures/sample/trivy-checks/bundle.tar.gz");
        assert!(examined(Kind::TrivyChecks, checks).entries > Some(0));
    }
}
