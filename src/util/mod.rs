//! What the standard library lacks. Knows no other module of this program.

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

/// The place of every change to the file system, where tests can stop the world.
#[cfg(not(any(test, debug_assertions)))]
#[inline(always)]
pub(crate) fn step(_: &str, _: &std::ffi::OsStr) -> std::io::Result<()> {
    Ok(())
}

#[cfg(any(test, debug_assertions))]
pub(crate) use fault::step;
