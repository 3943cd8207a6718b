//! Tests only: every change to the file system passes [`step`], where a test stops the world as
//! if the process had been killed, or makes the kernel refuse an exchange.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::io;

use rustix::io::Errno;

thread_local! {
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    static TRACE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static REFUSE: Cell<Refuse> = const { Cell::new(Refuse::Nothing) };
}

/// What the kernel pretends not to be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refuse {
    Nothing,
    /// As FAT and FUSE: no exchange.
    Exchange,
    /// As a lower layer of an overlay: the slot's directory cannot be moved.
    Move,
}

/// Lets `steps` more changes through and none after them; `None` lets all through.
pub(crate) fn kill_after(steps: Option<u32>) {
    LEFT.set(steps);
}

pub(crate) fn refuse(what: Refuse) {
    REFUSE.set(what);
}

/// The changes since the last call.
pub(crate) fn trace() -> Vec<String> {
    TRACE.take()
}

pub(crate) fn step(what: &str, name: &OsStr) -> io::Result<()> {
    match LEFT.get() {
        Some(0) => return Err(io::Error::other("killed by the test")),
        Some(left) => LEFT.set(Some(left - 1)),
        None => {}
    }
    TRACE.with_borrow_mut(|trace| trace.push(format!("{what} {}", name.to_string_lossy())));
    Ok(())
}

pub(crate) fn exchange() -> io::Result<()> {
    match REFUSE.get() {
        Refuse::Nothing => Ok(()),
        Refuse::Exchange => Err(Errno::INVAL.into()),
        Refuse::Move => Err(Errno::XDEV.into()),
    }
}
