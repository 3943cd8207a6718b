//! A file lock that ends when the value is dropped. Closing the file is not enough: a child process that
//! another thread has just forked has the file open until it calls `exec`, and would keep the lock.

use std::fs::File;

/// A lock that this process holds, if the file system has locks.
#[derive(Debug)]
pub(crate) struct HeldLock(File);

impl HeldLock {
    /// Returns the lock of a file that was locked.
    pub(crate) fn on(file: File) -> Self {
        HeldLock(file)
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        // If this fails, there was no lock, or closing the file ends it.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_ends_even_if_a_forked_process_has_the_file_open() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let file = File::open(path.path()).unwrap();
        file.lock().unwrap();
        // A forked process has such a descriptor.
        let inherited = file.try_clone().unwrap();
        let held = HeldLock::on(file);
        let other = File::open(path.path()).unwrap();
        assert!(other.try_lock().is_err());
        drop(held);
        other.try_lock().unwrap();
        drop(inherited);
    }
}
