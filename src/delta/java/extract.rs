//! Reads the rows of a `trivy-java.db` into a row stream.
//!
//! It reads only the two tables. Whether the indexes and the rest of the file follow from them is found out by building
//! the file again ([`super::find`]).

use std::fs::File;
use std::io::Write;

use super::head::Head;
use super::rows::{Names, Row, RowWriter, RowsError};
use super::schema;
use super::sqlite::layout::Layout;
use super::sqlite::record::{Value, columns};
pub(crate) use super::sqlite_read::ExtractError;
use super::sqlite_read::{Cursor, Database, not_rows};

/// Writes the row stream of a database, and returns its head. The layout is the default and there are no overwrites,
/// until [`super::find::find_layout`] sets them.
///
/// # Errors
/// If the database cannot be read, the stream cannot be written, or the database holds anything other than rows in the
/// order of their artifacts.
pub(crate) fn extract(db: &File, out: impl Write) -> Result<Head, ExtractError> {
    let database = Database::open(db)?;
    schema::check(&database)?;
    let page_one = database.page_one.clone();
    let mut head = Head { layout: Layout::default(), types: vec![], overwrites: vec![], page_one };
    let mut artifacts =
        Artifacts { cursor: database.table(schema::ARTIFACTS), id: 0, limit: database.length() };
    let mut rows = database.table(schema::ROWS);
    let mut writer = RowWriter::new(out);
    let mut size = 0;
    let mut count = 0;
    while let Some((rowid, record)) = rows.next()? {
        count += 1;
        if rowid != count {
            return not_rows(format!("row {count} has the rowid {rowid}"));
        }
        let values = columns(record);
        let Some([Value::Integer(artifact), Value::Text(version), Value::Blob(sha1), Value::Text(kind)]) =
            values
        else {
            return not_rows(format!("row {count} has other columns"));
        };
        let Ok(sha1) = sha1.try_into() else {
            return not_rows(format!("row {count} has a SHA-1 of {} bytes", sha1.len()));
        };
        while artifacts.id < artifact {
            if !artifacts.copy_next(&mut writer)? {
                return not_rows(format!("row {count} names the artifact {artifact}, which does not exist"));
            }
        }
        if artifact < 1 || artifact != artifacts.id {
            return not_rows(format!("row {count} is not in the order of the artifacts"));
        }
        writer.row(Row { version, sha1 })?;
        // The cells of a hostile page can overlap, so that a small file has a large stream.
        if writer.size() > database.length() {
            return not_rows("its rows are longer than the file");
        }
        head.add_type(kind, &mut size).or_else(|error| not_rows(error.to_string()))?;
    }
    while artifacts.copy_next(&mut writer)? {}
    writer.finish()?;
    Ok(head)
}

/// The artifacts that are not copied yet.
struct Artifacts<'a> {
    cursor: Cursor<'a>,
    /// The id of the last copied artifact.
    id: i64,
    /// The most bytes of the stream.
    limit: u64,
}

impl Artifacts<'_> {
    /// Copies the next artifact to the stream. The result is `false` if there is none.
    fn copy_next<W: Write>(&mut self, writer: &mut RowWriter<W>) -> Result<bool, ExtractError> {
        if writer.size() > self.limit {
            return not_rows("its names are longer than the file");
        }
        let Some((rowid, record)) = self.cursor.next()? else { return Ok(false) };
        self.id += 1;
        let id = self.id;
        if i64::try_from(rowid) != Ok(id) {
            return not_rows(format!("artifact {id} has the id {rowid}"));
        }
        // The id is the rowid, so the record holds NULL in its place.
        let Some([Value::Null, Value::Text(group), Value::Text(artifact)]) = columns(record) else {
            return not_rows(format!("artifact {id} has other columns"));
        };
        writer.artifact(Names { group, artifact })?;
        Ok(true)
    }
}

impl From<RowsError> for ExtractError {
    fn from(error: RowsError) -> Self {
        match error {
            RowsError::Io(error) => ExtractError::Io(error),
            other => ExtractError::NotRows(other.to_string()),
        }
    }
}
