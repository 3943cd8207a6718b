//! Writes the b-trees of a SQLite file in the order of their keys, as SQLite's `VACUUM` writes them.
//!
//! This module does not know the tables, or where the rows come from.

mod balance;
pub(super) mod bytes;
mod edit;
pub(crate) mod layout;
pub(super) mod page;
pub(super) mod pager;
pub(super) mod record;
mod share;
pub(super) mod tree;
