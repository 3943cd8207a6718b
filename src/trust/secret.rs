//! Secrets in memory: private keys and passphrases. Keeps them out of core dumps, and wipes their
//! buffers. This module handles bytes and does not parse keys.

use std::io::{self, Read};

use pkcs8::der::zeroize::Zeroizing;
use rustix::process::{DumpableBehavior, Resource, getrlimit, set_dumpable_behavior, setrlimit};

/// Keeps the memory of this process out of core dumps, and away from debuggers of the same user. Must be
/// called before the first secret is read.
///
/// A process that is not dumpable writes no core to a file, a pipe or a socket (core(5)). This
/// function also sets the size limit of core files, for sandboxes that allow only one of the two
/// calls. The limit is 1 and not 0: a program in `kernel.core_pattern` gets a complete dump with a
/// limit of 0, but none with a limit of 1. Neither limit allows a core file.
///
/// # Errors
/// If the system allows neither call.
pub fn keep_out_of_dumps() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Core);
    let limited = match limit.current {
        Some(0 | 1) if limit.maximum == Some(0) => Ok(()),
        _ => {
            limit.current = Some(1);
            setrlimit(Resource::Core, limit)
        }
    };
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable).or(limited)?)
}

/// Reads to the end, but at most `most` bytes.
///
/// # Errors
/// If `source` cannot be read.
pub fn read(source: impl Read, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    read_until(source, most, |_| false)
}

/// Reads the first line, at most `most` bytes of UTF-8, and returns it without its line end.
///
/// # Errors
/// If `source` cannot be read, or the line is not UTF-8.
pub fn read_line(source: impl Read, most: usize) -> io::Result<Zeroizing<String>> {
    let mut bytes = read_until(source, most, |bytes| bytes.contains(&b'\n'))?;
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    bytes.truncate(end);
    let end = bytes.strip_suffix(b"\r").unwrap_or(&bytes).len();
    bytes.truncate(end);
    text(bytes)
}

/// Converts bytes to text in the same allocation.
///
/// # Errors
/// If the bytes are not UTF-8.
pub fn text(mut bytes: Zeroizing<Vec<u8>>) -> io::Result<Zeroizing<String>> {
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
        }
    }
}

/// Reads into one allocation. A growing buffer would leave copies of the secret in freed memory.
fn read_until(
    mut source: impl Read,
    most: usize,
    is_enough: impl Fn(&[u8]) -> bool,
) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; most]);
    let mut length = 0;
    while length < most && !is_enough(&bytes[..length]) {
        match source.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one byte at a time, as a pipe may.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(1);
            self.0.read(&mut buffer[..most])
        }
    }

    #[test]
    fn a_line_is_read_without_its_line_end() {
        for (held, wanted) in
            [("pass\n", "pass"), ("pass\r\nmore", "pass"), ("pass word", "pass word"), ("", ""), ("\nx", "")]
        {
            assert_eq!(*read_line(Slow(held.as_bytes()), 64).unwrap(), wanted, "{held:?}");
            assert_eq!(*read_line(held.as_bytes(), 64).unwrap(), wanted, "{held:?}");
        }
        assert_eq!(*read_line(&b"longer"[..], 4).unwrap(), "long");
        assert!(read_line(&b"\xff\n"[..], 64).is_err());
    }

    #[test]
    fn a_secret_stays_in_one_allocation() {
        let held = read(Slow(&[7; 1000]), 4096).unwrap();
        assert_eq!((held.len(), held.capacity()), (1000, 4096));
        let (at, text) = (held.as_ptr(), text(held).unwrap());
        assert_eq!((text.len(), text.as_ptr()), (1000, at));
    }
}
