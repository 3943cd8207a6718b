//! The schema of `trivy-java.db`, as trivy-java-db creates it (`pkg/db/db.go`), and its root pages after `VACUUM`.

use super::sqlite::record::{Value, columns};
use super::sqlite_read::{Database, ExtractError, not_rows};

/// The root page of the schema.
const SCHEMA: u32 = 1;
/// The root page of the table `artifacts`.
pub(super) const ARTIFACTS: u32 = 2;
/// The root page of the table `indices`, whose entries are called rows here.
pub(super) const ROWS: u32 = 3;
/// The root page of the index of the artifacts by name.
pub(super) const ARTIFACTS_BY_NAME: u32 = 4;
/// The root page of the index of the rows by artifact.
pub(super) const ROWS_BY_ARTIFACT: u32 = 5;
/// The root page of the index of the rows by SHA-1.
pub(super) const ROWS_BY_SHA1: u32 = 6;

/// The entries of the schema: type, name, table, root page and statement.
const ENTRIES: [(&str, &str, &str, u32, &str); 5] = [
    (
        "table",
        "artifacts",
        "artifacts",
        ARTIFACTS,
        "CREATE TABLE artifacts(id INTEGER PRIMARY KEY, group_id TEXT, artifact_id TEXT)",
    ),
    (
        "table",
        "indices",
        "indices",
        ROWS,
        "CREATE TABLE indices(artifact_id INTEGER, version TEXT, sha1 BLOB, archive_type TEXT, \
         foreign key (artifact_id) references artifacts(id))",
    ),
    (
        "index",
        "artifacts_idx",
        "artifacts",
        ARTIFACTS_BY_NAME,
        "CREATE UNIQUE INDEX artifacts_idx ON artifacts(artifact_id, group_id)",
    ),
    (
        "index",
        "indices_artifact_idx",
        "indices",
        ROWS_BY_ARTIFACT,
        "CREATE INDEX indices_artifact_idx ON indices(artifact_id)",
    ),
    (
        "index",
        "indices_sha1_idx",
        "indices",
        ROWS_BY_SHA1,
        "CREATE UNIQUE INDEX indices_sha1_idx ON indices(sha1)",
    ),
];

/// Checks that the schema is exactly the known one.
///
/// # Errors
/// If the database cannot be read, or its schema is another one.
pub(super) fn check(database: &Database<'_>) -> Result<(), ExtractError> {
    let mut cursor = database.table(SCHEMA);
    for (kind, name, table, root, sql) in ENTRIES {
        let text = |text: &'static str| Value::Text(text.as_bytes());
        let expected = [text(kind), text(name), text(table), Value::Integer(i64::from(root)), text(sql)];
        match cursor.next()? {
            Some((_, record)) if columns(record) == Some(expected) => {}
            _ => return not_rows(format!("the schema has another entry in place of {name}")),
        }
    }
    match cursor.next()? {
        None => Ok(()),
        Some(_) => not_rows("the schema has additional entries"),
    }
}
