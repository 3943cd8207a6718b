//! The changes of a program to files, as recorded by strace.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// The calls that change files, or make changes durable. If a program uses one that the replay does
/// not support, the test fails: see [`op`].
pub const CALLS: &str = "open,openat,openat2,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,\
    copy_file_range,sendfile,splice,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,symlink,\
    symlinkat,fsync,fdatasync,syncfs,sync,sync_file_range,fcntl,dup,dup2,dup3,chmod,fchmod,fchmodat,msync";

/// A change, or a sync that makes changes durable. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Creates a file that does not exist.
    Create(PathBuf, u32),
    /// Removes the content of a file.
    Truncate(PathBuf),
    /// Adds to the end of a file.
    Append(PathBuf, Vec<u8>),
    /// Overwrites the content of a file from an offset.
    Overwrite(PathBuf, usize, Vec<u8>),
    Mkdir(PathBuf, u32),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Remove(PathBuf),
    Chmod(PathBuf, u32),
    /// Makes the content of a file or the names in a directory durable.
    Sync(PathBuf),
    SyncAll,
}

/// Parses the output of `strace -f -y -xx -s LARGE -e trace=CALLS` in the directory `cwd`.
pub fn read(trace: &str, cwd: &Path) -> Vec<Op> {
    let mut unfinished: HashMap<&str, String> = HashMap::new();
    let mut open: HashMap<String, PathBuf> = HashMap::new();
    let mut ops = Vec::new();
    for line in trace.lines() {
        let (pid, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        let whole = if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid, begun.to_owned());
            continue;
        } else if let Some((_, end)) = rest.strip_prefix("<... ").and_then(|rest| rest.split_once("resumed>"))
        {
            unfinished.remove(pid).unwrap() + end
        } else {
            rest.to_owned()
        };
        let Some((call, rest)) = whole.split_once('(') else { continue };
        let Some((arguments, result)) =
            rest.rsplit_once(") ").filter(|(_, end)| end.trim_start().starts_with('='))
        else {
            continue;
        };
        let result = result.trim_start().trim_start_matches("= ");
        if result.starts_with("-1") || result.starts_with('?') {
            continue;
        }
        if let Some((number, path)) = descriptor(result) {
            open.insert(number, path);
        }
        ops.extend(op(call, &split(arguments), &open, cwd));
    }
    ops
}

fn op(call: &str, arguments: &[String], open: &HashMap<String, PathBuf>, cwd: &Path) -> Vec<Op> {
    let file = |index: usize| descriptor(&arguments[index]).map(|(_, path)| path);
    let text = |index: usize| PathBuf::from(String::from_utf8(bytes(&arguments[index])).unwrap());
    let mode = |index: usize| u32::from_str_radix(arguments[index].trim(), 8).unwrap();
    // The path is relative to the directory in the argument before it. Links to open files are
    // resolved.
    let at = |directory: usize| resolved(&file(directory).unwrap().join(text(directory + 1)), open);
    let here = |index: usize| resolved(&cwd.join(text(index)), open);
    match call {
        "openat" => opened(&arguments[2], &|| at(0), &|| mode(3)),
        // Flags and mode are fields of one argument:
        // `{flags=O_RDWR|O_CREAT, mode=0600, resolve=…}`.
        "openat2" => {
            let field = |name: &str| {
                let fields = arguments[2].trim_matches(['{', '}']).split(", ");
                fields
                    .filter_map(|field| field.split_once('='))
                    .find(|(of, _)| *of == name)
                    .map(|(_, value)| value)
            };
            let mode = || u32::from_str_radix(field("mode").unwrap(), 8).unwrap();
            opened(field("flags").unwrap(), &|| at(0), &mode)
        }
        "open" => {
            assert!(!arguments[1].contains("O_CREAT") && !arguments[1].contains("O_TRUNC"), "{arguments:?}");
            Vec::new()
        }
        "write" => {
            let Some(path) = file(0).filter(|path| path.is_absolute()) else { return Vec::new() };
            vec![Op::Append(path, bytes(&arguments[1]))]
        }
        "pwrite64" => {
            let Some(path) = file(0).filter(|path| path.is_absolute()) else { return Vec::new() };
            vec![Op::Overwrite(path, arguments[3].parse().unwrap(), bytes(&arguments[1]))]
        }
        "mkdir" => vec![Op::Mkdir(here(0), mode(1))],
        "mkdirat" => vec![Op::Mkdir(at(0), mode(2))],
        "rename" => vec![Op::Rename(here(0), here(1))],
        "renameat" => vec![Op::Rename(at(0), at(2))],
        "renameat2" if arguments[4].contains("RENAME_EXCHANGE") => vec![Op::Exchange(at(0), at(2))],
        "renameat2" => vec![Op::Rename(at(0), at(2))],
        "linkat" => vec![Op::Link(at(0), at(2))],
        "link" => vec![Op::Link(here(0), here(1))],
        "unlink" | "rmdir" => vec![Op::Remove(here(0))],
        "unlinkat" => vec![Op::Remove(at(0))],
        "chmod" => vec![Op::Chmod(here(0), mode(1))],
        "fchmod" => vec![Op::Chmod(file(0).unwrap(), mode(1))],
        "fchmodat" => vec![Op::Chmod(at(0), mode(2))],
        "fsync" | "fdatasync" => vec![Op::Sync(file(0).unwrap())],
        "syncfs" | "sync" => vec![Op::SyncAll],
        "fcntl" | "dup" | "dup2" | "dup3" => Vec::new(),
        other => panic!("the replay does not support {other}: {arguments:?}"),
    }
}

/// Returns the changes to a file when it is opened.
fn opened(flags: &str, path: &dyn Fn() -> PathBuf, mode: &dyn Fn() -> u32) -> Vec<Op> {
    assert!(!flags.contains("O_TMPFILE"), "{flags}");
    let mut ops = Vec::new();
    if flags.contains("O_CREAT") {
        ops.push(Op::Create(path(), mode()));
    }
    if flags.contains("O_TRUNC") {
        ops.push(Op::Truncate(path()));
    }
    ops
}

/// Parses `3</some/path>` into a number and a path. Returns `None` for a path that was removed in
/// the meantime.
fn descriptor(text: &str) -> Option<(String, PathBuf)> {
    let (number, rest) = text.trim().split_once('<')?;
    let path = rest.split_once('>')?.0;
    let path = String::from_utf8(unescaped(path)).unwrap();
    (!path.ends_with(" (deleted)")).then(|| (number.to_owned(), PathBuf::from(path)))
}

/// Returns a path without `/proc/self/fd/N`, which is a link to the open file with this number.
fn resolved(path: &Path, open: &HashMap<String, PathBuf>) -> PathBuf {
    let Ok(rest) = path.strip_prefix("/proc/self/fd") else {
        assert!(
            path.is_absolute() && !path.components().any(|part| part == Component::ParentDir),
            "{path:?}"
        );
        return path.to_path_buf();
    };
    let mut parts = rest.components();
    let number = parts.next().unwrap().as_os_str().to_str().unwrap();
    let path = open[number].join(parts.as_path());
    if parts.as_path().as_os_str().is_empty() { open[number].clone() } else { path }
}

/// Splits the arguments of a call at the commas outside of quotes and brackets.
fn split(arguments: &str) -> Vec<String> {
    let (mut all, mut current, mut quoted, mut depth) = (Vec::new(), String::new(), false, 0);
    for c in arguments.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' | '<' if !quoted => depth += 1,
            ']' | '}' | '>' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                all.push(std::mem::take(&mut current).trim().to_owned());
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    all.push(current.trim().to_owned());
    all
}

/// Returns the bytes in quotes. Fails if the trace was truncated.
fn bytes(argument: &str) -> Vec<u8> {
    let inside = argument.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    unescaped(inside.unwrap_or_else(|| panic!("{}", &argument[..argument.len().min(200)])))
}

/// Decodes escapes such as `\x41`.
fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, more @ ..] = rest {
        rest = match (first, more) {
            (b'\\', [b'x', high, low, more @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                more
            }
            (plain, more) => {
                bytes.push(*plain);
                more
            }
        };
    }
    bytes
}
