//! What threads need of each other: a lock, and to hear that one of them came to grief.

use std::any::Any;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// Takes a lock, also after a thread that held it has panicked: what is locked here is whole between
/// any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What it means that a thread has panicked which did this.
pub(crate) fn panicked(doing: &'static str) -> impl Fn(Box<dyn Any + Send>) -> Error {
    move |_| Error::unexpected(doing)(io::Error::other("a thread panicked"))
}
