//! Tests of patches that do not have the described content. Segments cannot overlap or leave a gap, because they have
//! no position of their own.

use std::sync::LazyLock;

use super::*;
use crate::delta::patch::frame::Fault;
use zstd::zstd_safe::compress_bound;

/// A skippable frame with 3 bytes of content.
const SKIPPABLE: &[u8] = &[0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3];

/// Returns a zstd frame.
fn frame(content: &[u8], prefix: &[u8], parameters: &[CParameter]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(compress_bound(content.len()) + 8);
    let mut context = CCtx::create();
    for parameter in parameters {
        context.set_parameter(*parameter).unwrap();
    }
    context.ref_prefix(prefix).unwrap();
    context.compress2(&mut frame, content).unwrap();
    frame
}

/// Returns a frame with a dictionary ID of one byte in its header.
fn with_dictionary_id(mut frame: Vec<u8>) -> Vec<u8> {
    assert_eq!(frame[4] & 0x23, 0x20, "a single segment without a dictionary ID");
    frame[4] |= 1;
    frame.insert(5, 7);
    frame
}

/// Returns a patch for the base `base` with one segment of this length, whose frame is `inner`.
fn of_frame(length: u32, inner: &[u8]) -> Made {
    of_outer(length, inner.len(), frame(inner, b"", &[]))
}

/// Returns a patch with this outer frame.
fn of_outer(length: u32, frames: usize, bytes: Vec<u8>) -> Made {
    let segment = Segment { length, base_offset: 0, base_length: 4, frame_length: frames as u32 };
    let patch = Patch { frames: frames as u64, segments: vec![segment] };
    Made { base: Some(stream(b"base", Form::Plain)), patch, bytes }
}

fn outer_fault(made: &Made) -> Fault {
    match made.applied() {
        Err(ApplyError::Outer(fault)) => fault,
        result => panic!("{result:?}"),
    }
}

fn inner_fault(made: &Made) -> Fault {
    match made.applied() {
        Err(ApplyError::Segment { segment: 1, fault }) => fault,
        result => panic!("{result:?}"),
    }
}

#[test]
fn a_patch_by_hand_is_accepted() {
    let made = of_frame(9, &frame(b"base, new", b"base", &[]));
    assert_eq!(made.applied().unwrap(), b"base, new");
}

#[test]
fn every_truncated_patch_is_rejected() {
    let base = noise(1, 100_000);
    let mut made = Made::new(Some(&base), &[&base[..], &noise(2, 50)].concat());
    let complete = made.bytes.clone();
    for length in 0..complete.len() {
        made.bytes = complete[..length].to_vec();
        assert_eq!(outer_fault(&made), Fault::Truncated, "{length} of {}", complete.len());
    }
    let mut made = Made::new(None, &noise(1, 300));
    made.bytes.pop();
    assert!(matches!(made.applied(), Err(ApplyError::Truncated)));
    made.bytes.clear();
    assert!(matches!(made.applied(), Err(ApplyError::Truncated)));
}

#[test]
fn data_after_the_patch_is_rejected() {
    for new in [noise(1, 300), Vec::new()] {
        for more in [&[0][..], SKIPPABLE, &frame(b"second", b"", &[])] {
            let mut made = Made::new(Some(b"base"), &new);
            made.bytes.extend_from_slice(more);
            assert_eq!(outer_fault(&made), Fault::Trailing);
            let mut made = Made::new(None, &new);
            made.bytes.extend_from_slice(more);
            assert!(matches!(made.applied(), Err(ApplyError::Trailing)));
        }
    }
}

#[test]
fn data_after_the_frame_of_a_segment_is_rejected() {
    let valid = frame(b"new", b"", &[]);
    for more in [&[0][..], SKIPPABLE, &frame(b"", b"", &[])] {
        assert_eq!(inner_fault(&of_frame(3, &[&valid, more].concat())), Fault::Trailing);
    }
}

#[test]
fn other_frames_are_rejected_outside() {
    let inner = frame(b"new", b"", &[]);
    let of = |bytes| outer_fault(&of_outer(3, inner.len(), bytes));
    let valid = frame(&inner, b"", &[]);
    assert_eq!(of([SKIPPABLE, &valid].concat()), Fault::Skippable);
    assert_eq!(of(frame(&inner, b"", &[CParameter::ChecksumFlag(true)])), Fault::Checksum);
    assert_eq!(of(frame(&inner, b"", &[CParameter::ContentSizeFlag(false)])), Fault::NoContentSize);
    assert_eq!(of(with_dictionary_id(valid)), Fault::Dictionary);
    assert_eq!(of(inner.clone()), Fault::ContentSize { expected: inner.len() as u64, found: 3 });
    assert_eq!(of(b"no frame at all, but long enough".to_vec()), Fault::NotAFrame);
}

#[test]
fn other_frames_are_rejected_inside() {
    let of = |inner: &[u8]| inner_fault(&of_frame(3, inner));
    let valid = frame(b"new", b"", &[]);
    assert_eq!(of(SKIPPABLE), Fault::Skippable);
    assert_eq!(of(&[SKIPPABLE, &valid].concat()), Fault::Skippable);
    assert_eq!(of(&frame(b"new", b"", &[CParameter::ChecksumFlag(true)])), Fault::Checksum);
    assert_eq!(of(&frame(b"new", b"", &[CParameter::ContentSizeFlag(false)])), Fault::NoContentSize);
    assert_eq!(of(&with_dictionary_id(valid.clone())), Fault::Dictionary);
    assert_eq!(of(&frame(b"news", b"", &[])), Fault::ContentSize { expected: 3, found: 4 });
    assert_eq!(of(b"no frame at all, but long enough"), Fault::NotAFrame);
    assert_eq!(of(&valid[..valid.len() - 1]), Fault::Truncated);
    assert_eq!(of(&valid[..3]), Fault::Truncated);
}

#[test]
fn an_outer_frame_with_a_large_window_is_rejected() {
    // A frame whose window is larger than its content needs more memory than the content.
    let inner = frame(b"new", b"", &[]);
    let mut bytes = frame(&inner, b"", &[]);
    assert_eq!(bytes[4], 0x20);
    // The same frame with a window descriptor for 2^24 bytes, and a content size of 4 bytes.
    bytes.splice(4..6, [0x80, 14 << 3, inner.len() as u8, 0, 0, 0]);
    let fault = Fault::Window { limit: 8 << 20, found: 16 << 20 };
    assert_eq!(outer_fault(&of_outer(3, inner.len(), bytes.clone())), fault);
    bytes[5] = 13 << 3;
    assert_eq!(of_outer(3, inner.len(), bytes).applied().unwrap(), b"new");
}

/// Returns a frame of zeros whose header claims another content size.
fn bomb(claimed: u32) -> Vec<u8> {
    let mut bomb = frame(&vec![0; 2 << 20], b"", &[]);
    assert_eq!(bomb[4], 0xA0, "a single segment with a content size of 4 bytes");
    bomb[5..9].copy_from_slice(&claimed.to_le_bytes());
    bomb
}

#[test]
fn a_frame_that_grows_beyond_its_length_is_rejected() {
    for claimed in [70_000, 131_072, 1 << 20] {
        let mut made = of_frame(claimed, &bomb(claimed));
        assert!(matches!(inner_fault(&made), Fault::Corrupt(_)), "{claimed}");
        // The same for the outer frame. The segment is too long for its frame, so that only the outer frame grows.
        made = of_outer(claimed, claimed as usize, bomb(claimed));
        assert!(
            matches!(made.applied(), Err(ApplyError::Outer(_) | ApplyError::Segment { .. })),
            "{claimed}"
        );
    }
}

#[test]
fn a_frame_that_is_shorter_than_its_length_is_rejected() {
    let made = of_frame(3 << 20, &bomb(3 << 20));
    assert!(matches!(inner_fault(&made), Fault::Corrupt(_)));
}

#[test]
fn a_window_that_is_shorter_than_the_frame_needs_is_rejected() {
    let base = noise(1, 60_000);
    let mut made = Made::new(Some(&base), &base);
    for length in [0, 1, 1000] {
        made.patch.segments[0].base_length = length;
        assert!(matches!(inner_fault(&made), Fault::Corrupt(_)), "{length}");
    }
}

#[test]
fn another_base_gives_another_digest() {
    let base = noise(1, 200_000);
    let mut made = Made::new(Some(&base), &base);
    made.base = Some(stream(&noise(2, 200_000), Form::Plain));
    let found = made.applied().unwrap();
    assert_eq!(found.len(), base.len());
    assert_ne!(ContentDigest::of(&found), ContentDigest::of(&base));
    made.base = Some(stream(&base[..199_999], Form::Plain));
    assert!(matches!(made.applied(), Err(ApplyError::Invalid(Invalid::OutsideBase { .. }))));
}

#[test]
fn a_missing_or_unexpected_base_is_rejected() {
    let base = noise(1, 1000);
    let mut made = Made::new(Some(&base), &base);
    made.base = None;
    assert!(matches!(made.applied(), Err(ApplyError::Invalid(Invalid::NoBase { segment: 1 }))));
    let mut made = Made::new(None, &base);
    made.base = Some(stream(&base, Form::Plain));
    assert!(matches!(outer_fault(&made), Fault::ContentSize { .. }));
}

/// A change of one number of a description, or of some bytes.
#[derive(Debug, Clone)]
enum Mutation {
    Byte(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Segment(prop::sample::Index, usize, u32),
    Swap(prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 1..=255u8).prop_map(|(at, change)| Mutation::Byte(at, change)),
        1 => at().prop_map(Mutation::Remove),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        2 => (at(), 0..4usize, 1..5000u32).prop_map(|(at, field, change)| Mutation::Segment(at, field, change)),
        1 => (at(), at()).prop_map(|(one, other)| Mutation::Swap(one, other)),
    ]
}

/// Applies a mutation to the frames or to the description.
fn mutate(frames: &mut Vec<u8>, patch: &mut Patch, mutation: &Mutation) {
    let count = patch.segments.len();
    match mutation {
        Mutation::Byte(at, change) if !frames.is_empty() => {
            let at = at.index(frames.len());
            frames[at] ^= change;
        }
        Mutation::Remove(at) if !frames.is_empty() => drop(frames.remove(at.index(frames.len()))),
        Mutation::Insert(at, byte) => frames.insert(at.index(frames.len() + 1), *byte),
        Mutation::Segment(at, field, change) => {
            let segment = &mut patch.segments[at.index(count)];
            match field {
                0 => segment.length ^= change,
                1 => segment.base_offset ^= u64::from(*change),
                2 => segment.base_length ^= change,
                _ => segment.frame_length ^= change,
            }
        }
        Mutation::Swap(one, other) => patch.segments.swap(one.index(count), other.index(count)),
        Mutation::Byte(..) | Mutation::Remove(_) => {}
    }
}

/// A valid patch of a base of 200,000 bytes, with its frames and the new file.
static VALID: LazyLock<(Made, Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let base = noise(1, 200_000);
    let text: Vec<u8> = (0..9000u32).flat_map(|n| (n * n).to_string().into_bytes()).collect();
    let new = [&base[3000..90_000], &text, &noise(2, 100), &base[50_000..]].concat();
    let made = Made::new(Some(&base), &new);
    let frames = zstd::bulk::decompress(&made.bytes, 1 << 20).unwrap();
    (made, frames, new)
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_mutated_patch_gives_an_error_or_another_digest(
        mutations in prop::collection::vec(mutation(), 1..4), is_outside in any::<bool>(), is_adjusted in any::<bool>()
    ) {
        let (made, frames, new) = &*VALID;
        let (mut patch, mut bytes) = (made.patch.clone(), if is_outside { &made.bytes } else { frames }.clone());
        mutations.iter().for_each(|mutation| mutate(&mut bytes, &mut patch, mutation));
        if !is_outside {
            bytes = frame(&bytes, b"", &[]);
        }
        if is_adjusted {
            // Otherwise, the sum would reveal most of the changed lengths.
            patch.frames = patch.segments.iter().map(|segment| u64::from(segment.frame_length)).sum();
        }
        let mut found = Vec::new();
        if let Ok(digest) = apply(made.base.as_ref(), &patch, &mut &bytes[..], &mut found) {
            prop_assert_eq!(digest, ContentDigest::of(&found));
            prop_assert_eq!(digest == ContentDigest::of(new), found == *new);
        }
    }
}
