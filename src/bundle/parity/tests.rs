use std::fs::{self, File};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::progress::{Progress, Silent};

/// Writes files of these lengths, and their parity files of at most `most` bytes each.
fn make(dir: &Path, lengths: &[u64], percent: &str, most: Option<u64>) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let data: Vec<PathBuf> = (0..lengths.len()).map(|number| dir.join(format!("data{number}"))).collect();
    for (number, (path, length)) in data.iter().zip(lengths).enumerate() {
        let bytes: Vec<u8> =
            (0..*length).map(|at| (at * 31 / 7 + number as u64 * 13 + at / 4096) as u8).collect();
        fs::write(path, bytes).unwrap();
    }
    let shape = Shape::new(lengths.to_vec(), percent.parse().unwrap()).unwrap();
    let ranges = shape.parity_files(most);
    let parity: Vec<PathBuf> = (1..=ranges.len()).map(|number| dir.join(name("b.tar", number))).collect();
    let create = |path: &PathBuf| {
        File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap()
    };
    let files: Vec<File> = parity.iter().map(create).collect();
    let opened: Vec<File> = data.iter().map(|path| File::open(path).unwrap()).collect();
    let with: Vec<_> = ranges.into_iter().zip(&files).collect();
    let step = Silent.begin("", 0, "");
    encode(&shape, Digest::of(b"bundle"), &opened.iter().collect::<Vec<_>>(), &with, &*step).unwrap();
    for (range, file) in &with {
        assert_eq!(file.metadata().unwrap().len(), shape.parity_length(range.len()));
    }
    (data, parity)
}

/// Rebuilds the files, as `made` followed by their number.
fn rebuild_files(dir: &Path, data: &[PathBuf], parity: &[PathBuf]) -> Result<RebuiltFiles, RebuildError> {
    let parity: Vec<ParityFile> = parity.iter().filter_map(|path| ParityFile::open(path).ok()).collect();
    let data: Vec<Option<File>> = data.iter().map(|path| File::open(path).ok()).collect();
    let mut create = |number| {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(dir.join(format!("made{number}")))
    };
    rebuild(&parity, &data, &mut create)
}

#[test]
fn one_lost_file_is_rebuilt_and_two_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let lengths = [20_000, 300_000, 300_000, 300_000, 123_457];
    let (data, parity) = make(dir.path(), &lengths, "35%", Some(200_000));
    assert!(parity.len() > 1, "{parity:?}");
    let shape = Shape::new(lengths.to_vec(), "35%".parse().unwrap()).unwrap();
    assert_eq!(shape.lost_files(), 1);
    for lost in 0..lengths.len() {
        let good = fs::read(&data[lost]).unwrap();
        fs::remove_file(&data[lost]).unwrap();
        let rebuilt = rebuild_files(dir.path(), &data, &parity).unwrap();
        assert_eq!(rebuilt.files, [lost]);
        assert!(fs::read(dir.path().join(format!("made{lost}"))).unwrap() == good, "{lost}");
        fs::write(&data[lost], good).unwrap();
    }
    fs::remove_file(&data[1]).unwrap();
    fs::remove_file(&data[2]).unwrap();
    let failed = rebuild_files(dir.path(), &data, &parity).unwrap_err().to_string();
    assert!(failed.contains("are lost, and the parity can rebuild"), "{failed}");
}

#[test]
fn files_of_every_wrong_length_are_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let (data, parity) = make(dir.path(), &[10_000, 50_000], "20%", None);
    let good = fs::read(&data[1]).unwrap();
    for bad in [[&good[..], b"more"].concat(), good[..good.len() - 1].to_vec(), good[..40_960].to_vec()] {
        fs::write(&data[1], bad).unwrap();
        assert_eq!(rebuild_files(dir.path(), &data, &parity).unwrap().files, [1]);
        assert!(fs::read(dir.path().join("made1")).unwrap() == good);
    }
}

#[test]
fn the_remaining_parity_shards_are_enough_if_others_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (data, parity) = make(dir.path(), &[100_000, 400_000], "30%", Some(60_000));
    let good = fs::read(&data[1]).unwrap();
    let mut bad = good.clone();
    bad[4096 * 3] ^= 1;
    bad[4096 * 9] ^= 1;
    fs::write(&data[1], bad).unwrap();
    fs::remove_file(&parity[0]).unwrap();
    let second = fs::read(&parity[1]).unwrap();
    fs::write(&parity[1], &second[..second.len() - 1]).unwrap();
    let mut third = fs::read(&parity[2]).unwrap();
    let last = third.len() - 1;
    third[last] ^= 1;
    fs::write(&parity[2], third).unwrap();
    let rebuilt = rebuild_files(dir.path(), &data, &parity).unwrap();
    assert_eq!(rebuilt, RebuiltFiles { files: vec![1], shards: 2 });
    assert!(fs::read(dir.path().join("made1")).unwrap() == good);
}

#[test]
fn the_claims_of_parity_are_limited() {
    let of = |files: Vec<u64>, shard, parity| Shape::of(files, shard, parity).is_ok();
    assert!(of(vec![4096], 4096, 1));
    for (files, shard, parity) in [
        (vec![], 4096, 1),
        (vec![1], 0, 1),
        (vec![1], 100, 1),
        (vec![1], 4096, 0),
        (vec![1], 4096, 5000),
        (vec![u64::MAX], 4096, 1),
        (vec![u64::MAX; 3], 1 << 60, 1),
        (vec![1; 1001], 4096, 1),
    ] {
        assert!(!of(files.clone(), shard, parity) || files.len() == 3, "{files:?} {shard} {parity}");
    }
    assert!("0%".parse::<Percent>().is_err() && "101".parse::<Percent>().is_err());
    assert!("10%".parse::<Percent>().is_ok() && "100".parse::<Percent>().is_ok());
}

#[test]
fn names_differ_from_those_of_volumes() {
    assert_eq!(name("a.tar", 1), "a.par.001");
    assert_eq!(parse_name("a.par.001").as_deref(), Some("a.tar"));
    for none in ["a.tar.001", "a.par", "a.par.1", ".par.001", "a.par.0001"] {
        assert_eq!(parse_name(none), None, "{none}");
    }
}

proptest! {
    #![proptest_config(crate::util::seed::cases(60))]
    #[test]
    fn any_damage_within_the_parity_is_rebuilt(
        lengths in prop::collection::vec(1u64..90_000, 1..6),
        hits in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (data, parity) = make(dir.path(), &lengths, "40%", None);
        let shape = Shape::new(lengths.clone(), "40%".parse().unwrap()).unwrap();
        let good: Vec<Vec<u8>> = data.iter().map(|path| fs::read(path).unwrap()).collect();
        let mut shards = std::collections::BTreeSet::new();
        for hit in &hits {
            let shard = hit.index(shape.data());
            let (number, offset, length) = shape.place(shard);
            let mut bytes = fs::read(&data[number]).unwrap();
            if shards.insert(shard) {
                bytes[(offset + length - 1) as usize] ^= 0x80;
            }
            fs::write(&data[number], bytes).unwrap();
        }
        match rebuild_files(dir.path(), &data, &parity) {
            Ok(rebuilt) => {
                prop_assert_eq!(rebuilt.shards, shards.len());
                for number in rebuilt.files {
                    let made = fs::read(dir.path().join(format!("made{number}"))).unwrap();
                    prop_assert!(made == good[number]);
                }
            }
            Err(error) => prop_assert!(shards.len() > shape.parity(), "{}", error),
        }
    }

    #[test]
    fn no_header_makes_the_reader_panic(at in 0usize..4200, byte in any::<u8>(), cut in 0usize..9000) {
        let dir = tempfile::tempdir().unwrap();
        let (data, parity) = make(dir.path(), &[9000], "10%", None);
        let mut bytes = fs::read(&parity[0]).unwrap();
        bytes[at] ^= byte;
        bytes.truncate(bytes.len().saturating_sub(cut));
        fs::write(&parity[0], bytes).unwrap();
        if ParityFile::open(&parity[0]).is_ok() {
            let _ = rebuild_files(dir.path(), &data, &parity);
        }
    }
}

#[test]
fn a_shard_is_not_longer_than_the_longest_file_needs() {
    // Otherwise the reader would read zeros to the end of a shard of any claimed length.
    assert!(Shape::of(vec![1], 1 << 62, 1).is_err());
    assert!(Shape::of(vec![1], 8192, 1).is_err());
    assert!(Shape::of(vec![5000, 1], 8192, 1).is_ok());
    assert!(Shape::of(vec![1], 4096, 1).is_ok());
}

#[test]
fn a_description_is_an_object() {
    let dir = tempfile::tempdir().unwrap();
    let (_, parity) = make(dir.path(), &[9000], "10%", None);
    let good = fs::read(&parity[0]).unwrap();
    let length = good.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let begin: usize = String::from_utf8_lossy(&good[..length]).split(' ').nth(1).unwrap().parse().unwrap();
    let description: serde_json::Value = serde_json::from_slice(&good[length..begin]).unwrap();
    let fields = ["bundle", "files", "shard", "parity", "first", "count", "checksums"];
    let with = |description: serde_json::Value| {
        let mut text = description.to_string().into_bytes();
        text.resize(begin - length, b' ');
        let line = format!("trivy-ferry-parity-1 {begin:08} {}\n", blake3::hash(&text).to_hex());
        fs::write(&parity[0], [line.as_bytes(), &text, &good[begin..]].concat()).unwrap();
        ParityFile::open(&parity[0])
    };
    assert!(with(description.clone()).is_ok());
    let array = fields.map(|field| description[field].clone());
    assert!(with(serde_json::json!(array)).unwrap_err().to_string().contains("invalid type: sequence"));
}
