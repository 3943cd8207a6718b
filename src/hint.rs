//! The hint of an error: what to do about it.
//!
//! The `error.rs` of a module has the texts of its errors; the `hint.rs` beside it has the hints.
//! In the modules of the library, only hints name flags.

/// The second sentence of an error.
pub trait Hint {
    /// Returns one sentence with the command, flag or person that helps.
    fn hint(&self) -> String;
}
