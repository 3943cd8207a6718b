//! The differences between the SQLite versions and builds that write the database. They concern only bytes that
//! SQLite does not read.

/// How the SQLite build that wrote the database treats unused bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    /// Whether SQLite writes the 4 bytes of a free-block over every range that it frees. SQLite up to 3.41 does so
    /// even if the range becomes part of the gap before the cell content area, and it joins fewer ranges.
    pub(crate) old_free_blocks: bool,
    /// Whether SQLite fills freed ranges and pages with zeros (`PRAGMA secure_delete`, on by default in Debian).
    pub(crate) secure_delete: bool,
}

impl Layout {
    /// Returns all layouts. The first is the given one.
    pub(crate) fn all_from(first: Layout) -> [Layout; 4] {
        let Layout { old_free_blocks: old, secure_delete: secure } = first;
        [(old, secure), (!old, secure), (old, !secure), (!old, !secure)]
            .map(|(old_free_blocks, secure_delete)| Layout { old_free_blocks, secure_delete })
    }
}
