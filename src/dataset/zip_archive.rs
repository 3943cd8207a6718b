//! Reads a zip archive one entry at a time. Its use of memory depends neither on the number of entries nor on the
//! content of their headers.
//!
//! Layout from `APPNOTE.TXT` 6.3.10, read like Go's `archive/zip`, which Trivy v0.74.0 uses through go-getter. Go
//! accepts some archives that can be read in two ways. They are rejected here, so that both readers see the same files:
//!
//! - The last end record is used. Its comment must end with the file.
//! - The directory must end at the beginning of the end records, and have the number of entries that they state. No
//!   bytes may precede the archive.
//! - A ZIP64 end record must equal the plain one, except for values that do not fit there.
//! - The name of an entry must be the same in the directory and in the header before its bytes.

use std::io::{self, Read, Seek, SeekFrom};

use flate2::{Crc, Decompress, FlushDecompress, Status};

use crate::dataset::check::{UnpackError, bad};
use crate::dataset::layer::CHUNK;

/// The signature of the end record, and its length without the comment.
const END: (&[u8], usize) = (b"PK\x05\x06", 22);
/// The signature of the ZIP64 end record, and its length without extensible data.
const END64: (&[u8], usize) = (b"PK\x06\x06", 56);
/// The signature of the ZIP64 locator, and its length. It holds the offset of the ZIP64 end record.
const LOCATOR: (&[u8], usize) = (b"PK\x06\x07", 20);
/// The signature of an entry in the directory, and its length without name, extra fields and comment.
const ENTRY: (&[u8], usize) = (b"PK\x01\x02", 46);
/// The signature of the header before the bytes of an entry, and its length without name and extra fields.
const LOCAL: (&[u8], usize) = (b"PK\x03\x04", 30);
/// The optional signature at the beginning of a data descriptor.
const DESCRIPTOR: &[u8] = b"PK\x07\x08";
/// The extra field for values that need 64 bits.
const ZIP64: u16 = 1;
/// The limit for the comment of the archive in bytes.
const MAX_COMMENT: usize = 0xffff;

/// The limit of entries, directories included.
const MAX_ENTRIES: u64 = 400_000;
/// The limit for the directory in bytes. 150,000 entries with names of 167 bytes and the extra fields of common tools
/// need 35 MiB.
const MAX_DIRECTORY: u64 = 64 << 20;
/// The bytes of the directory that are in memory at once. An entry has at most 192 KiB.
const WINDOW: usize = 256 << 10;

/// The type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Directory,
    /// A link, a device, or a directory whose name does not end with a slash.
    Other,
}

/// An entry of the directory.
#[derive(Debug)]
pub(super) struct ZipEntry {
    /// Its name as stored in the archive.
    pub(super) name: Vec<u8>,
    pub(super) kind: EntryKind,
    /// The length of its file in bytes.
    pub(super) size: u64,
    packed: u64,
    local: u64,
    method: u16,
    flags: u16,
    crc: u32,
}

/// An archive whose entries are read in the order of its directory.
pub(super) struct ZipArchive<R> {
    source: R,
    directory: Directory,
    /// The compressed bytes of all entries that were read. If entries could share bytes, a small archive could take
    /// hours to inflate.
    packed: u64,
    inflater: Decompress,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// The directory. One window of it is in memory.
struct Directory {
    start: u64,
    /// The offset of the next entry.
    next: u64,
    end: u64,
    /// The number of remaining entries.
    left: u64,
    window: Vec<u8>,
    window_at: u64,
}

fn broken(why: &str) -> UnpackError {
    bad(format!("it is not a valid zip archive: {why}"))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |two| u16::from_le_bytes([two[0], two[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Reads exactly `length` bytes at `at`.
fn read_at(source: &mut (impl Read + Seek), at: u64, length: usize) -> Result<Vec<u8>, UnpackError> {
    source.seek(SeekFrom::Start(at)).map_err(UnpackError::Read)?;
    let mut bytes = vec![0; length];
    source.read_exact(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => broken("it is truncated"),
        _ => UnpackError::Read(error),
    })?;
    Ok(bytes)
}

impl<R: Read + Seek> ZipArchive<R> {
    /// Opens an archive and finds its directory.
    ///
    /// # Errors
    /// [`UnpackError::Content`] if the archive has no end record, has too many entries, or can be read in two ways;
    /// [`UnpackError::Read`] if the source cannot be read.
    pub(super) fn new(mut source: R) -> Result<Self, UnpackError> {
        let directory = Directory::find(&mut source)?;
        Ok(ZipArchive {
            source,
            directory,
            packed: 0,
            inflater: Decompress::new(false),
            input: vec![0; CHUNK],
            output: vec![0; CHUNK],
        })
    }

    /// Returns the next entry; `None` after the last.
    ///
    /// # Errors
    /// [`UnpackError::Content`] if the directory breaks the rules of this module; [`UnpackError::Read`] if
    /// the source cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<ZipEntry>, UnpackError> {
        self.directory.next(&mut self.source)
    }

    /// Passes the bytes of the file of an entry to `take`.
    ///
    /// # Errors
    /// [`UnpackError::Content`] if the bytes do not match the directory; [`UnpackError::Read`] if the
    /// source cannot be read; the error of `take` if it fails.
    pub(super) fn read(
        &mut self,
        entry: &ZipEntry,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        let body = self.body(entry)?;
        self.source.seek(SeekFrom::Start(body)).map_err(UnpackError::Read)?;
        let mut crc = Crc::new();
        let mut length = 0u64;
        let mut checked = |bytes: &[u8]| {
            crc.update(bytes);
            length += bytes.len() as u64;
            if length > entry.size {
                return Err(broken("a file is longer than stated in the directory"));
            }
            take(bytes)
        };
        match entry.method {
            0 if entry.packed == entry.size => self.copy(entry.packed, &mut checked)?,
            8 => self.inflate(entry.packed, &mut checked)?,
            other => return Err(broken(&format!("it uses the compression method {other}"))),
        }
        if length != entry.size || crc.sum() != entry.crc {
            return Err(broken("the length or checksum of a file does not match the directory"));
        }
        if entry.flags & 8 != 0 {
            let descriptor = read_at(&mut self.source, body + entry.packed, 8)?;
            let at = if descriptor.starts_with(DESCRIPTOR) { 4 } else { 0 };
            if u32_at(&descriptor, at) != entry.crc {
                return Err(broken("the checksum after a file does not match the directory"));
            }
        }
        Ok(())
    }

    /// Returns the offset of the bytes of an entry. The header before them must match the directory.
    fn body(&mut self, entry: &ZipEntry) -> Result<u64, UnpackError> {
        // The flags of an encrypted file, of patched data, and of a masked header.
        if entry.flags & 0x2021 != 0 {
            return Err(broken("a file is encrypted"));
        }
        let outside = || broken("a file is outside of the area for files");
        let headers = entry.local.checked_add(LOCAL.1 as u64);
        headers.filter(|end| *end <= self.directory.start).ok_or_else(outside)?;
        let header = read_at(&mut self.source, entry.local, LOCAL.1)?;
        let name = read_at(&mut self.source, entry.local + LOCAL.1 as u64, u16_at(&header, 26).into())?;
        if !header.starts_with(LOCAL.0) || u16_at(&header, 8) != entry.method || name != entry.name {
            return Err(broken("the header of a file differs from the directory"));
        }
        let lengths = u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        let body = entry.local + LOCAL.1 as u64 + lengths;
        self.packed = self.packed.saturating_add(entry.packed);
        if self.packed > self.directory.start {
            return Err(broken("files share bytes"));
        }
        let end = body.checked_add(entry.packed).filter(|end| *end <= self.directory.start);
        end.ok_or_else(outside).map(|_| body)
    }

    /// Fills the input with the next bytes of a file. `left` is the number of remaining bytes.
    fn fill(&mut self, left: &mut u64) -> Result<usize, UnpackError> {
        let most = self.input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let count = self.source.read(&mut self.input[..most]).map_err(UnpackError::Read)?;
        if count == 0 {
            return Err(broken("a file is truncated"));
        }
        *left -= count as u64;
        Ok(count)
    }

    fn copy(
        &mut self,
        mut left: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        while left > 0 {
            let count = self.fill(&mut left)?;
            take(&self.input[..count])?;
        }
        Ok(())
    }

    fn inflate(
        &mut self,
        mut left: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        self.inflater.reset(false);
        let (mut begin, mut end) = (0, 0);
        loop {
            if begin == end && left > 0 {
                (begin, end) = (0, self.fill(&mut left)?);
            }
            let (read, made) = (self.inflater.total_in(), self.inflater.total_out());
            let (input, output) = (&self.input[begin..end], &mut self.output);
            let status = self.inflater.decompress(input, output, FlushDecompress::None);
            let status = status.map_err(|_| broken("the compressed bytes of a file are damaged"))?;
            let read = (self.inflater.total_in() - read) as usize;
            let made = (self.inflater.total_out() - made) as usize;
            begin += read;
            take(&self.output[..made])?;
            match status {
                Status::StreamEnd => return Ok(()),
                _ if read == 0 && made == 0 => {
                    return Err(broken("the compressed bytes of a file are truncated"));
                }
                _ => {}
            }
        }
    }
}

impl Directory {
    fn find(source: &mut (impl Read + Seek)) -> Result<Self, UnpackError> {
        let length = source.seek(SeekFrom::End(0)).map_err(UnpackError::Read)?;
        let tail = length.min((END.1 + MAX_COMMENT) as u64);
        let tail = read_at(source, length - tail, tail as usize)?;
        let mut records = tail.windows(END.1).enumerate().rev();
        let found = records.find(|(_, record)| record.starts_with(END.0));
        let (at, record) = found.ok_or_else(|| broken("it has no end record"))?;
        if at + END.1 + usize::from(u16_at(record, 20)) != tail.len() {
            return Err(broken("its comment does not end with the file"));
        }
        let plain = Ends {
            at: length - (tail.len() - at) as u64,
            disks: (u32::from(u16_at(record, 4)), u32::from(u16_at(record, 6))),
            entries: (u64::from(u16_at(record, 8)), u64::from(u16_at(record, 10))),
            size: u64::from(u32_at(record, 12)),
            start: u64::from(u32_at(record, 16)),
        };
        let ends = plain.with_zip64(source)?;
        if ends.disks != (0, 0) || ends.entries.0 != ends.entries.1 {
            return Err(broken("it is split over several disks"));
        }
        if ends.entries.1 > MAX_ENTRIES || ends.size > MAX_DIRECTORY {
            return Err(bad("the archive has too many entries"));
        }
        if ends.start.checked_add(ends.size) != Some(ends.at) {
            return Err(broken("its directory is not at the offset in the end record"));
        }
        let Ends { start, at: end, entries: (left, _), .. } = ends;
        Ok(Directory { start, next: start, end, left, window: Vec::new(), window_at: start })
    }

    /// Returns `length` bytes of the directory from the next entry on.
    fn bytes(&mut self, source: &mut (impl Read + Seek), length: usize) -> Result<&[u8], UnpackError> {
        if length as u64 > self.end - self.next {
            return Err(broken("its directory is truncated"));
        }
        let begin = usize::try_from(self.next - self.window_at).unwrap_or(usize::MAX);
        if begin.saturating_add(length) <= self.window.len() {
            return Ok(&self.window[begin..begin + length]);
        }
        let most = usize::try_from(self.end - self.next).unwrap_or(usize::MAX).min(WINDOW);
        self.window = Vec::new();
        (self.window, self.window_at) = (read_at(source, self.next, most)?, self.next);
        Ok(&self.window[..length])
    }

    fn next(&mut self, source: &mut (impl Read + Seek)) -> Result<Option<ZipEntry>, UnpackError> {
        if self.left == 0 {
            // Go continues to read as long as there are entries.
            return match self.next == self.end {
                true => Ok(None),
                false => Err(broken("its directory has more entries than stated in the end record")),
            };
        }
        let fixed = self.bytes(source, ENTRY.1)?;
        if !fixed.starts_with(ENTRY.0) {
            return Err(broken("its directory has fewer entries than stated in the end record"));
        }
        let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(u16_at(fixed, at)));
        let whole = self.bytes(source, ENTRY.1 + name + extra + comment)?;
        let (name, rest) = whole[ENTRY.1..].split_at(name);
        let entry = entry(whole, name, &rest[..extra])?;
        let length = whole.len() as u64;
        self.next += length;
        self.left -= 1;
        Ok(Some(entry))
    }
}

/// The values of the end records.
#[derive(PartialEq, Eq)]
struct Ends {
    /// The offset of the first of them.
    at: u64,
    disks: (u32, u32),
    /// The number on this disk, and on all disks.
    entries: (u64, u64),
    size: u64,
    start: u64,
}

impl Ends {
    /// Takes the values that do not fit the plain end record from the ZIP64 end record.
    fn with_zip64(self, source: &mut (impl Read + Seek)) -> Result<Self, UnpackError> {
        let locator = match self.at.checked_sub(LOCATOR.1 as u64) {
            Some(at) => read_at(source, at, LOCATOR.1)?,
            None => Vec::new(),
        };
        if !locator.starts_with(LOCATOR.0) {
            return Ok(self);
        }
        // Extensible data, which no known program writes, would be between this record and the locator.
        let at = u64_at(&locator, 8);
        if at.checked_add((END64.1 + LOCATOR.1) as u64) != Some(self.at) {
            return Err(broken("its ZIP64 end record is not directly before the end record"));
        }
        let record = read_at(source, at, END64.1)?;
        if !record.starts_with(END64.0) {
            return Err(broken("it has no ZIP64 end record"));
        }
        let ends = Ends {
            at,
            disks: (u32_at(&record, 16), u32_at(&record, 20)),
            entries: (u64_at(&record, 24), u64_at(&record, 32)),
            size: u64_at(&record, 40),
            start: u64_at(&record, 48),
        };
        let (short, long) = (u64::from(u16::MAX), u64::from(u32::MAX));
        let agree = |plain: u64, most: u64, wide: u64| plain == wide || plain == most && wide >= most;
        let same = self.disks == ends.disks
            && agree(self.entries.0, short, ends.entries.0)
            && agree(self.entries.1, short, ends.entries.1)
            // Go does not compare the records for a directory of 4 GiB or more, which is too large here anyway.
            && agree(self.size, long, ends.size)
            && agree(self.start, long, ends.start);
        if same { Ok(ends) } else { Err(broken("its two end records differ")) }
    }
}

/// Parses an entry of the directory with its name and its extra fields.
fn entry(header: &[u8], name: &[u8], extra: &[u8]) -> Result<ZipEntry, UnpackError> {
    let mut wide = wide(extra);
    let mut value = |plain: u32| -> Result<u64, UnpackError> {
        if plain != u32::MAX {
            return Ok(plain.into());
        }
        let (first, rest) = wide.split_at_checked(8).ok_or_else(|| broken("an entry has no size"))?;
        wide = rest;
        Ok(u64_at(first, 0))
    };
    // The extra field holds the values in this order.
    let size = value(u32_at(header, 24))?;
    let packed = value(u32_at(header, 20))?;
    let local = value(u32_at(header, 42))?;
    let attributes = u32_at(header, 38);
    let claimed = match header[5] {
        // The upper half contains a Unix mode.
        3 | 19 => match attributes >> 16 & 0o170_000 {
            0 | 0o100_000 => EntryKind::File,
            0o040_000 => EntryKind::Directory,
            _ => EntryKind::Other,
        },
        _ if attributes & 0x10 != 0 => EntryKind::Directory,
        _ => EntryKind::File,
    };
    let kind = match (name.ends_with(b"/"), claimed) {
        (true, _) => EntryKind::Directory,
        (false, EntryKind::Directory) => EntryKind::Other,
        (false, other) => other,
    };
    Ok(ZipEntry {
        name: name.to_vec(),
        kind,
        size,
        packed,
        local,
        method: u16_at(header, 10),
        flags: u16_at(header, 8),
        crc: u32_at(header, 16),
    })
}

/// Returns the first extra field for values that need 64 bits.
fn wide(mut extra: &[u8]) -> &[u8] {
    while let Some((head, rest)) = extra.split_at_checked(4) {
        let Some((field, rest)) = rest.split_at_checked(usize::from(u16_at(head, 2))) else { break };
        if u16_at(head, 0) == ZIP64 {
            return field;
        }
        extra = rest;
    }
    &[]
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use ::zip::write::{SimpleFileOptions, ZipWriter};
    use ::zip::{CompressionMethod, DateTime};

    use super::*;

    type Found = Vec<(String, EntryKind, Vec<u8>)>;

    fn read(bytes: &[u8]) -> Result<Found, String> {
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| e.to_string())?;
        let mut found = Vec::new();
        while let Some(entry) = archive.next().map_err(|e| e.to_string())? {
            let mut content = Vec::new();
            if entry.kind == EntryKind::File {
                let mut take = |bytes: &[u8]| {
                    content.extend_from_slice(bytes);
                    Ok(())
                };
                archive.read(&entry, &mut take).map_err(|e| e.to_string())?;
            }
            found.push((String::from_utf8_lossy(&entry.name).into_owned(), entry.kind, content));
        }
        Ok(found)
    }

    fn options() -> SimpleFileOptions {
        SimpleFileOptions::default().last_modified_time(DateTime::default())
    }

    /// Writes a directory and two files, one of which needs several pieces.
    fn fill<W: Write + io::Seek>(mut zip: ZipWriter<W>, options: SimpleFileOptions) -> W {
        zip.add_directory("top", options).unwrap();
        zip.start_file("top/a.json", options).unwrap();
        zip.write_all(b"{}").unwrap();
        zip.start_file("top/b", options).unwrap();
        zip.write_all(&[7; CHUNK + 100]).unwrap();
        zip.finish().unwrap()
    }

    fn packed(options: SimpleFileOptions) -> Vec<u8> {
        fill(ZipWriter::new(Cursor::new(Vec::new())), options).into_inner()
    }

    fn good() -> Vec<u8> {
        packed(options())
    }

    #[track_caller]
    fn rejected(bytes: &[u8], because: &str) {
        let error = read(bytes).unwrap_err();
        assert!(error.contains(because), "{error}");
    }

    /// Returns the offset of the last occurrence of a signature.
    fn last(bytes: &[u8], signature: &[u8]) -> usize {
        bytes.windows(4).rposition(|window| window == signature).unwrap()
    }

    fn changed(at: impl Fn(&[u8]) -> usize, new: &[u8]) -> Vec<u8> {
        let mut bytes = good();
        let at = at(&bytes);
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    }

    #[test]
    fn archives_of_common_tools_are_read() {
        let wanted = [
            ("top/".to_owned(), EntryKind::Directory, Vec::new()),
            ("top/a.json".to_owned(), EntryKind::File, b"{}".to_vec()),
            ("top/b".to_owned(), EntryKind::File, vec![7; CHUNK + 100]),
        ];
        let stored = options().compression_method(CompressionMethod::Stored);
        for options in [options(), stored, options().large_file(true)] {
            assert_eq!(read(&packed(options)).unwrap(), wanted);
        }
        // A writer to a pipe writes lengths and checksums after the files.
        let streamed = fill(ZipWriter::new_stream(Vec::new()), options()).into_inner();
        assert_eq!(read(&streamed).unwrap(), wanted);
    }

    #[test]
    fn links_are_not_files() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.add_symlink("link", "/etc/passwd", options()).unwrap();
        let found = read(&zip.finish().unwrap().into_inner()).unwrap();
        assert_eq!(found, [("link".to_owned(), EntryKind::Other, Vec::new())]);
        // The attributes say that it is a directory, but its name has no slash at the end.
        let mode = changed(|bytes| last(bytes, ENTRY.0) + 40, &0o040_755u16.to_le_bytes());
        assert_eq!(read(&mode).unwrap()[2].1, EntryKind::Other);
    }

    #[test]
    fn an_archive_that_can_be_read_in_two_ways_is_rejected() {
        let good = good();
        rejected(&[b"x", &good[..]].concat(), "is not at the offset");
        rejected(&[&good[..], b"x"].concat(), "comment does not end with the file");
        rejected(&[&good[..], &good[..]].concat(), "is not at the offset");
        // The comment of an end record contains another one.
        let mut nested = good.clone();
        let length = nested.len();
        nested[length - 2..].copy_from_slice(&22u16.to_le_bytes());
        nested.extend_from_slice(&good[length - 22..]);
        rejected(&nested, "is not at the offset");
        let end = |bytes: &[u8]| last(bytes, END.0);
        rejected(&changed(|bytes| end(bytes) + 8, &[2, 0, 2, 0]), "more entries than");
        rejected(&changed(|bytes| end(bytes) + 8, &[4, 0, 4, 0]), "is truncated");
        rejected(&changed(|bytes| end(bytes) + 8, &[2, 0]), "several disks");
        rejected(&changed(|bytes| end(bytes) + 4, &[1, 0]), "several disks");
        // The name, method or offset before the file differs from the directory.
        rejected(&changed(|bytes| last(bytes, LOCAL.0) + 30, b"TOP"), "differs from the directory");
        rejected(&changed(|bytes| last(bytes, LOCAL.0) + 8, &[0, 0]), "differs from the directory");
        rejected(&changed(|bytes| last(bytes, ENTRY.0) + 42, &[0; 4]), "differs from the directory");
        rejected(&changed(|bytes| last(bytes, ENTRY.0) + 42, &[0xff; 4]), "no size");
        rejected(&changed(|bytes| last(bytes, ENTRY.0) + 8, &[1, 0]), "encrypted");
    }

    #[test]
    fn a_zip64_end_record_agrees_with_the_plain_one() {
        // Copies the values of the end record into a ZIP64 end record.
        let zip64 = |change: &dyn Fn(&mut [u64; 4])| {
            let good = good();
            let at = last(&good, END.0);
            let mut values = [3, 3, u64::from(u32_at(&good, at + 12)), u64::from(u32_at(&good, at + 16))];
            change(&mut values);
            let mut bytes = good[..at].to_vec();
            bytes.extend([END64.0, &44u64.to_le_bytes(), &[45, 0, 45, 0], &[0; 8]].concat());
            values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            bytes.extend([LOCATOR.0, &[0; 4], &(at as u64).to_le_bytes(), &[1, 0, 0, 0]].concat());
            bytes.extend(&good[at..]);
            bytes
        };
        assert_eq!(read(&zip64(&|_| {})), read(&good()));
        for index in 0..4 {
            rejected(&zip64(&|values| values[index] += 1), "two end records differ");
        }
        // The plain record may omit a value only if it does not fit.
        let mut many = zip64(&|values| (values[0], values[1]) = (400_001, 400_001));
        let at = last(&many, END.0);
        many[at + 8..at + 12].fill(0xff);
        rejected(&many, "too many entries");
        let mut few = zip64(&|_| {});
        few[at + 8..at + 12].fill(0xff);
        rejected(&few, "two end records differ");
        let mut moved = zip64(&|_| {});
        moved[at - 12] ^= 1;
        rejected(&moved, "is not directly before the end record");
    }

    #[test]
    fn an_archive_whose_files_share_bytes_is_rejected() {
        // Two entries have the same name and bytes.
        let mut bytes = good();
        let (entry, end) = (last(&bytes, ENTRY.0), last(&bytes, END.0));
        let twice = bytes[entry..end].to_vec();
        let size = u32_at(&bytes, end + 12) + twice.len() as u32;
        bytes.splice(end..end, twice);
        let end = last(&bytes, END.0);
        bytes[end + 8..end + 12].copy_from_slice(&[4, 0, 4, 0]);
        bytes[end + 12..end + 16].copy_from_slice(&size.to_le_bytes());
        rejected(&bytes, "files share bytes");
    }

    #[test]
    fn damage_never_changes_content_and_never_panics() {
        let good = good();
        let wanted = read(&good).unwrap();
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "{length}");
        }
        for at in 0..good.len() {
            for bit in [1, 0x10, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= bit;
                // Names, times and attributes may change, but not the content.
                for (name, kind, content) in read(&bad).unwrap_or_default() {
                    let is_good = wanted.iter().any(|(_, _, good)| *good == content);
                    assert!(kind != EntryKind::File || is_good, "{name} {at}");
                }
            }
        }
    }

    #[test]
    fn entries_are_read_across_windows() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let long = "n".repeat(60_000);
        for number in 0..20 {
            zip.add_directory(format!("{long}{number}"), options()).unwrap();
        }
        zip.start_file("last", options()).unwrap();
        let found = read(&zip.finish().unwrap().into_inner()).unwrap();
        assert_eq!(found.len(), 21);
        assert_eq!(found[20].0, "last");
    }
}
