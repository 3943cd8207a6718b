//! What to do about an error.
//!
//! The `error.rs` of a module says what failed; the `hint.rs` beside it says what to do about it. A hint is the
//! only text of a library module that names flags.

/// The second sentence of an error.
pub trait Hint {
    /// Returns one sentence that names the command, flag or person that helps.
    fn hint(&self) -> String;
}
