//! Tests of patches that are made and applied, and of hostile patches. The descriptions have tests in `rules`.

use std::io::{self, Read, Write};

use proptest::prelude::*;
use zstd::zstd_safe::{CCtx, CParameter};

use super::description::{Invalid, MAX_SEGMENTS};
use super::make::{Sizes, make_with};
use super::*;
use crate::content_digest::ContentDigest;
use crate::delta::file_writer::FileWriter;
use crate::delta::patch::make::MakeError;
use crate::delta::samples::{bolt, noise, stream};
use crate::delta::stream::{Form, Stream};

mod hostile;
mod rules;

/// Small segments, so that small files have several.
const SIZES: Sizes = Sizes { segment: 64 << 10, window: 256 << 10 };

/// A patch with its description and its base.
struct Made {
    base: Option<Stream>,
    patch: Patch,
    bytes: Vec<u8>,
}

impl Made {
    /// Makes a patch of plain files.
    fn new(base: Option<&[u8]>, new: &[u8]) -> Made {
        Made::of(base.map(|base| stream(base, Form::Plain)), &stream(new, Form::Plain))
    }

    fn of(base: Option<Stream>, new: &Stream) -> Made {
        let mut bytes = Vec::new();
        let patch = make_with(base.as_ref(), new, &mut bytes, SIZES).unwrap();
        check(&patch, base.as_ref().map(Stream::length), new.length()).unwrap();
        Made { base, patch, bytes }
    }

    /// Returns the stream that the patch makes.
    fn applied(&self) -> Result<Vec<u8>, ApplyError> {
        let mut out = Vec::new();
        let digest = apply(self.base.as_ref(), &self.patch, &mut &self.bytes[..], &mut out)?;
        assert_eq!(digest, ContentDigest::of(&out));
        Ok(out)
    }
}

/// Returns a file that a patch makes, for files of this form.
fn round_trip(base: Option<&[u8]>, new: &[u8], form: Form) -> Vec<u8> {
    let new = stream(new, form);
    let made = Made::of(base.map(|base| stream(base, form)), &new);
    let mut file = Vec::new();
    let mut writer = FileWriter::new(&mut file, form);
    let digest = apply(made.base.as_ref(), &made.patch, &mut &made.bytes[..], &mut writer).unwrap();
    assert_eq!(digest, new.digest().unwrap());
    let (digest, length) = writer.finish().unwrap();
    assert_eq!((digest, length), (ContentDigest::of(&file), file.len() as u64));
    file
}

#[test]
fn files_of_any_length_come_back() {
    let base = bolt(1, 100);
    for length in [0, 1, 100, 4095, 4096, 65_535, 65_536, 65_537, 300_000] {
        let new = noise(2, length);
        for form in [Form::Plain, Form::Bolt] {
            for base in [None, Some(&b""[..]), Some(&b"short"[..]), Some(&base[..])] {
                assert!(round_trip(base, &new, form) == new, "{length} bytes, {form:?}");
            }
        }
    }
}

#[test]
fn files_with_moved_pages_come_back() {
    let base = bolt(1, 100);
    let new = [bolt(9, 7), bolt(1, 90), noise(3, 50)].concat();
    assert!(round_trip(Some(&base), &new, Form::Bolt) == new);
    assert!(round_trip(None, &new, Form::Bolt) == new);
}

#[test]
fn a_patch_of_identical_files_is_tiny() {
    let file = noise(1, 1 << 20);
    let made = Made::new(Some(&file), &file);
    assert_eq!(made.patch.segments.len(), 16);
    assert!(made.bytes.len() < 300, "{}", made.bytes.len());
}

#[test]
fn a_patch_of_moved_content_has_only_the_new_content() {
    let base = noise(1, 2 << 20);
    // The content moves farther than a window reaches.
    let new = [&noise(2, 600_000)[..], &base].concat();
    let made = Made::new(Some(&base), &new);
    assert!(made.bytes.len() < 610_000, "{}", made.bytes.len());
    assert!(made.applied().unwrap() == new);
}

#[test]
fn the_filter_makes_patches_of_moved_pages_smaller() {
    // The pages differ only in their numbers, which are 200 higher.
    let base = bolt(1000, 300);
    let mut moved = base.clone();
    for (number, page) in (200u64..).zip(moved.chunks_mut(4096)) {
        page[..8].copy_from_slice(&number.to_le_bytes());
        page[24..32].copy_from_slice(&(number + 1).to_le_bytes());
    }
    let new = [bolt(2000, 200), moved].concat();
    let [plain, filtered] = [Form::Plain, Form::Bolt].map(|form| {
        let made = Made::of(Some(stream(&base, form)), &stream(&new, form));
        // The bytes for the 300 moved pages. Each of the 200 new pages has 4,072 bytes that do not compress.
        made.bytes.len() - 200 * 4072
    });
    assert!(filtered * 2 < plain, "{filtered} and {plain} bytes");
}

#[test]
fn the_same_files_give_the_same_patch() {
    let base = noise(1, 500_000);
    let new = [&base[100_000..], &noise(2, 50_000), &base[..100_000]].concat();
    for base in [None, Some(&base[..])] {
        let [first, second] = [0; 2].map(|_| Made::new(base, &new));
        assert_eq!(first.patch, second.patch);
        assert!(first.bytes == second.bytes);
    }
}

#[test]
fn frames_without_a_base_have_no_outer_frame() {
    let made = Made::new(None, &noise(1, 100_000));
    assert_eq!(made.bytes.len() as u64, made.patch.frames);
    let first = made.patch.segments[0].frame_length as usize;
    let content = zstd::bulk::decompress(&made.bytes[..first], 1 << 20).unwrap();
    assert!(content == noise(1, 100_000)[..65_536]);
}

#[test]
fn a_stream_with_too_many_segments_is_rejected() {
    let new = stream(&[0; MAX_SEGMENTS + 1], Form::Plain);
    let result = make_with(None, &new, &mut Vec::new(), Sizes { segment: 1, window: 1 });
    assert!(matches!(result, Err(MakeError::TooLong(1025))), "{result:?}");
}

#[test]
fn failures_of_files_have_their_own_errors() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for base in [None, Some(&b"base"[..])] {
        let Made { base, patch, bytes } = Made::new(base, b"new");
        let base = base.as_ref();
        let result = apply(base, &patch, &mut Broken, &mut Vec::new());
        assert!(matches!(result, Err(ApplyError::Read(_))), "{result:?}");
        let result = apply(base, &patch, &mut &bytes[..], &mut Broken);
        assert!(matches!(result, Err(ApplyError::Write(_))), "{result:?}");
        let result = make_with(base, &stream(b"new", Form::Plain), &mut Broken, SIZES);
        assert!(matches!(result, Err(MakeError::Write(_))), "{result:?}");
    }
}

#[test]
fn a_base_that_becomes_shorter_is_an_error() {
    let base = noise(1, 100_000);
    let Made { patch, bytes, .. } = Made::new(Some(&base), &base);
    let file = tempfile::tempfile().unwrap();
    file.set_len(100_000).unwrap();
    let short = Stream::new(file.try_clone().unwrap(), Form::Plain).unwrap();
    file.set_len(50_000).unwrap();
    let result = apply(Some(&short), &patch, &mut &bytes[..], &mut Vec::new());
    assert!(matches!(result, Err(ApplyError::Base(_))), "{result:?}");
    let result = make_with(Some(&short), &short, &mut Vec::new(), SIZES);
    assert!(matches!(result, Err(MakeError::Base(_))), "{result:?}");
    let result = make_with(None, &short, &mut Vec::new(), SIZES);
    assert!(matches!(result, Err(MakeError::New(_))), "{result:?}");
}

/// A part of a new file.
#[derive(Debug, Clone)]
enum Part {
    /// Bytes of the base from an offset on.
    Base(usize, usize),
    /// New bytes.
    New(u64, usize),
    /// One byte, repeated.
    Run(u8, usize),
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        3 => (0..400_000usize, 0..150_000usize).prop_map(|(offset, length)| Part::Base(offset, length)),
        1 => (2..9u64, 0..20_000usize).prop_map(|(seed, length)| Part::New(seed, length)),
        1 => (any::<u8>(), 0..100_000usize).prop_map(|(byte, length)| Part::Run(byte, length)),
    ]
}

fn file(base: &[u8], parts: Vec<Part>) -> Vec<u8> {
    let bytes = |part| match part {
        Part::Base(offset, length) => base.iter().skip(offset).take(length).copied().collect(),
        Part::New(seed, length) => noise(seed, length),
        Part::Run(byte, length) => vec![byte; length],
    };
    parts.into_iter().flat_map(bytes).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn edited_files_come_back(
        pages in 0..100u64, parts in prop::collection::vec(part(), 0..6),
        is_bolt in any::<bool>(), has_base in any::<bool>()
    ) {
        let base = bolt(1, pages);
        let new = file(&base, parts);
        let form = if is_bolt { Form::Bolt } else { Form::Plain };
        prop_assert!(round_trip(has_base.then_some(&base[..]), &new, form) == new);
    }
}
