//! `trivy-java.db` as rows, and the SQLite file from rows.
//!
//! [`extract`] reads the database into a row stream ([`rows`]) and a [`head`]. [`build`] writes the same database from
//! them, byte for byte, as SQLite's `VACUUM` writes it. [`find`] finds out how the exporter's SQLite differs from
//! others. No SQLite takes part on either side.
//!
//! The names of SQLite's format are those of <https://www.sqlite.org/fileformat2.html>. The writer follows the
//! functions of SQLite's `btree.c`, which the comments name.

pub(crate) mod build;
pub(crate) mod extract;
pub(crate) mod find;
pub(crate) mod head;
pub(crate) mod rows;
mod schema;
mod sort;
pub(crate) mod sqlite;
mod sqlite_read;
#[cfg(test)]
mod tests;
