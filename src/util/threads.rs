//! Takes a lock, also if a thread that held it has panicked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock, also after a thread that held it has panicked: what is locked here is whole between
/// any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
