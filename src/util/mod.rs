//! General helpers that the standard library lacks. They use no other module of this program.

pub mod age;
pub mod byte_size;
pub(crate) mod clock;
pub(crate) mod dir;
pub(crate) mod file_lock;
pub mod json;
pub mod pipe;
pub mod redacted;
pub(crate) mod spool;
pub mod text;
pub(crate) mod threads;

#[cfg(any(test, debug_assertions))]
pub(crate) mod fault;
pub(crate) mod fs;

#[cfg(test)]
pub(crate) mod seed;
pub(crate) mod trusted;

/// Does nothing in a release build. Every change to the file system calls it, so that tests can make it fail.
#[cfg(not(any(test, debug_assertions)))]
#[inline(always)]
pub(crate) fn step(_: &str, _: &std::ffi::OsStr) -> std::io::Result<()> {
    Ok(())
}

#[cfg(any(test, debug_assertions))]
pub(crate) use fault::step;
