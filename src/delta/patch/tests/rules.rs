//! Tests of the rules for descriptions of patches.

use super::*;
use zstd::zstd_safe::compress_bound;

const MIB: u32 = 1 << 20;

/// Returns a description of segments, whose frames have the right sum.
fn described(segments: &[(u32, u64, u32, u32)]) -> Patch {
    let segments: Vec<Segment> = segments.iter().copied().map(Segment::from).collect();
    let frames = segments.iter().map(|segment| u64::from(segment.frame_length)).sum();
    Patch { frames, segments }
}

#[test]
fn a_description_is_compact_in_json() {
    let patch = described(&[(33_554_432, 5_000_000_000, 4096, 77), (9, 0, 0, 18)]);
    let json = r#"{"frames":95,"segments":[[33554432,5000000000,4096,77],[9,0,0,18]]}"#;
    assert_eq!(serde_json::to_string(&patch).unwrap(), json);
    assert_eq!(serde_json::from_str::<Patch>(json).unwrap(), patch);
    for segment in ["[9,0,0]", "[9,0,0,18,1]", "[-9,0,0,18]", "[4294967296,0,0,18]", "[9.0,0,0,18]", "{}"] {
        let json = json.replace("[9,0,0,18]", segment);
        assert!(serde_json::from_str::<Patch>(&json).is_err(), "{segment}");
    }
}

#[test]
fn every_rule_has_its_own_error() {
    let limit = compress_bound(9);
    let cases = [
        ((0, 0, 0, 1), Invalid::SegmentLength { segment: 1, length: 0 }),
        ((32 * MIB + 1, 0, 0, 1), Invalid::SegmentLength { segment: 1, length: 32 * MIB + 1 }),
        ((9, 0, 64 * MIB + 1, 1), Invalid::WindowLength { segment: 1, length: 64 * MIB + 1 }),
        ((9, 0, 101, 1), Invalid::OutsideBase { segment: 1 }),
        ((9, 101, 0, 1), Invalid::OutsideBase { segment: 1 }),
        ((9, 91, 10, 1), Invalid::OutsideBase { segment: 1 }),
        ((9, u64::MAX, 10, 1), Invalid::OutsideBase { segment: 1 }),
        ((9, 0, 0, 0), Invalid::FrameLength { segment: 1, length: 0, limit }),
        ((9, 0, 0, 100), Invalid::FrameLength { segment: 1, length: 100, limit }),
        ((9, 0, 0, u32::MAX), Invalid::FrameLength { segment: 1, length: u32::MAX, limit }),
    ];
    for (segment, error) in cases {
        let patch = described(&[segment]);
        assert_eq!(check(&patch, Some(100), segment.0.into()), Err(error), "{segment:?}");
    }
    let valid = described(&[(9, 90, 10, 18)]);
    assert_eq!(check(&valid, Some(100), 9), Ok(()));
    assert_eq!(check(&valid, None, 9), Err(Invalid::NoBase { segment: 1 }));
    assert_eq!(check(&described(&[(9, 1, 0, 18)]), None, 9), Err(Invalid::NoBase { segment: 1 }));
    assert_eq!(check(&valid, Some(100), 10), Err(Invalid::Length { expected: 10, found: 9 }));
    let wrong = Patch { frames: 19, ..valid };
    assert_eq!(check(&wrong, Some(100), 9), Err(Invalid::Frames { expected: 19, found: 18 }));
}

#[test]
fn the_largest_description_is_valid() {
    let full = (32 * MIB, 5, 64 * MIB, compress_bound(32 << 20) as u32);
    let patch = described(&[full; MAX_SEGMENTS]);
    assert_eq!(check(&patch, Some(64 << 20 | 5), 32 << 30), Ok(()));
    let patch = described(&[full; MAX_SEGMENTS + 1]);
    assert_eq!(check(&patch, Some(64 << 20 | 5), 32 << 30), Err(Invalid::Segments(1025)));
    assert_eq!(check(&described(&[]), None, 0), Ok(()));
}

#[test]
fn an_invalid_description_is_rejected_before_anything_is_read() {
    struct Untouched;
    impl Read for Untouched {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("the patch was read");
        }
    }
    let base = stream(b"base", Form::Plain);
    for segment in [(u32::MAX, 0, 0, 1), (9, 0, u32::MAX, 1), (9, 0, 5, 1), (9, 0, 0, u32::MAX)] {
        let patch = described(&[segment]);
        let result = apply(Some(&base), &patch, &mut Untouched, &mut Vec::new());
        assert!(matches!(result, Err(ApplyError::Invalid(_))), "{result:?}");
        let result = apply(None, &patch, &mut Untouched, &mut Vec::new());
        assert!(matches!(result, Err(ApplyError::Invalid(_))), "{result:?}");
    }
}
