//! What the standard library lacks. Knows no other module of this program.

pub(crate) mod dir;
#[cfg(test)]
pub(crate) mod fault;
pub(crate) mod trusted;
