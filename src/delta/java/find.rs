//! Finds the layout with which a database is built again from its rows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::build::{BuildError, build};
use super::head::{Head, MAX_OVERWRITES, OVERWRITE, Overwrite};
use super::sqlite::layout::Layout;
use super::sqlite::page::PAGE;

/// The number of bytes that are compared at once.
const CHUNK: usize = 1 << 20;

/// The reason that no layout was found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No database can be built from the rows.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The built database differs too much for every layout.
    #[error("the database differs from what SQLite writes for its rows")]
    TooDifferent,
}

/// Completes the head of a database with its layout, so that [`build`] makes the same file.
///
/// It builds the database in `scratch` with each layout, `hint` first, until the result is the same. If none is, it
/// takes the layout with the fewest differing bytes, and overwrites these. `scratch` is open for reading and writing
/// and loses its content. Sorting uses at most `memory` bytes.
///
/// # Errors
/// If the database cannot be built, it differs too much with every layout, or a file cannot be read or written.
pub(crate) fn find_layout(
    db: &File,
    rows: &File,
    head: Head,
    scratch: &File,
    hint: Layout,
    memory: usize,
) -> Result<Head, FindError> {
    let size = db.metadata()?.len();
    let mut head = Head { overwrites: vec![], ..head };
    let mut best: Option<(Layout, Vec<Overwrite>)> = None;
    for layout in Layout::all_from(hint) {
        head.layout = layout;
        build(rows, &head, scratch, size, memory)?;
        let Some(differences) = differences(db, scratch, size)? else { continue };
        let is_better = best.as_ref().is_none_or(|(_, best)| bytes(&differences) < bytes(best));
        if is_better {
            let is_exact = differences.is_empty();
            best = Some((layout, differences));
            if is_exact {
                break;
            }
        }
    }
    let (layout, overwrites) = best.ok_or(FindError::TooDifferent)?;
    Ok(Head { layout, overwrites, ..head })
}

/// Returns the number of bytes of overwrites.
fn bytes(overwrites: &[Overwrite]) -> usize {
    overwrites.iter().map(|overwrite| overwrite.bytes.len()).sum()
}

/// Returns the bytes of a file where it differs from another, without page 1. It is `None` if they exceed the limit
/// of a head.
fn differences(wanted: &File, found: &File, size: u64) -> io::Result<Option<Vec<Overwrite>>> {
    let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut list: Vec<Overwrite> = Vec::new();
    let mut total = 0;
    let mut at = PAGE as u64;
    while at < size {
        let count = CHUNK.min(usize::try_from(size - at).unwrap_or(CHUNK));
        let (a, b) = (a.get_mut(..count).unwrap_or_default(), b.get_mut(..count).unwrap_or_default());
        wanted.read_exact_at(a, at)?;
        found.read_exact_at(b, at)?;
        if a != b {
            for (index, (wanted, _)) in a.iter().zip(b).enumerate().filter(|(_, (a, b))| *a != *b) {
                let offset = at + index as u64;
                match list.last_mut() {
                    Some(last) if last.offset + last.bytes.len() as u64 == offset => last.bytes.push(*wanted),
                    _ => {
                        list.push(Overwrite { offset, bytes: vec![*wanted] });
                        total += OVERWRITE;
                    }
                }
                total += 1;
                if total > MAX_OVERWRITES {
                    return Ok(None);
                }
            }
        }
        at += count as u64;
    }
    Ok(Some(list))
}
