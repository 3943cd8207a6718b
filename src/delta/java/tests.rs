//! Tests of extraction and building together. SQLite itself is the oracle.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use proptest::prelude::*;

use super::build::{BuildError, MEMORY, build};
use super::extract::extract;
use super::find::{FindError, find_layout};
use super::head::{Head, TypeRun};
use super::rows::{Names, Row, RowWriter};
use super::sort::Crowded;
use super::sqlite::layout::Layout;
use super::sqlite::page::PAGE;
use super::sqlite::record::LongRecord;
use super::sqlite_read::ExtractError;

/// What the bundled SQLite writes without secure deletion.
const NEW: Layout = Layout { old_free_blocks: false, secure_delete: false };

/// The statements of trivy-java-db's `pkg/db/db.go`.
const SCHEMA: &str = "
    CREATE TABLE artifacts(id INTEGER PRIMARY KEY, group_id TEXT, artifact_id TEXT);
    CREATE TABLE indices(artifact_id INTEGER, version TEXT, sha1 BLOB, archive_type TEXT, \
     foreign key (artifact_id) references artifacts(id));
    CREATE UNIQUE INDEX artifacts_idx ON artifacts(artifact_id, group_id);
    CREATE INDEX indices_artifact_idx ON indices(artifact_id);
    CREATE UNIQUE INDEX indices_sha1_idx ON indices(sha1);";

/// An artifact with its rows: versions, and the archive type of all of them.
#[derive(Debug, Clone)]
struct Artifact {
    group: String,
    artifact: String,
    versions: Vec<String>,
    archive_type: &'static str,
}

/// Returns the SHA-1 that the tests use for a row. It is as evenly distributed as a real one.
fn sha1(artifact: usize, row: usize) -> [u8; 20] {
    let mut sha1 = [0; 20];
    blake3::Hasher::new().update(format!("{artifact}:{row}").as_bytes()).finalize_xof().fill(&mut sha1);
    sha1
}

/// Returns a sequence of numbers that look random.
fn numbers(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |limit| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    }
}

/// Creates a database as trivy-java-db does.
fn create(path: &Path, artifacts: &[Artifact], secure_delete: bool) {
    let mut db = rusqlite::Connection::open(path).unwrap();
    let secure = if secure_delete { "ON" } else { "OFF" };
    let pragmas =
        format!("PRAGMA secure_delete = {secure}; PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;");
    db.execute_batch(&pragmas).unwrap();
    db.execute_batch(SCHEMA).unwrap();
    let transaction = db.transaction().unwrap();
    let mut names =
        transaction.prepare("INSERT OR IGNORE INTO artifacts(group_id, artifact_id) VALUES (?, ?)").unwrap();
    let mut rows = transaction
        .prepare(
            "INSERT INTO indices(artifact_id, version, sha1, archive_type)
             VALUES ((SELECT id FROM artifacts WHERE group_id=? AND artifact_id=?), ?, ?, ?)
             ON CONFLICT(sha1) DO NOTHING",
        )
        .unwrap();
    for (number, artifact) in artifacts.iter().enumerate() {
        let Artifact { group, artifact, versions, archive_type } = artifact;
        names.execute((group, artifact)).unwrap();
        for (row, version) in versions.iter().enumerate() {
            rows.execute((group, artifact, version, sha1(number, row), archive_type)).unwrap();
        }
    }
    drop((names, rows));
    transaction.commit().unwrap();
    db.execute_batch("VACUUM").unwrap();
}

/// Returns an empty temporary file.
fn temporary() -> File {
    tempfile::tempfile().unwrap()
}

/// Returns the content of a file.
fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Creates a database, and returns it with its rows and its head.
fn extracted(artifacts: &[Artifact], secure_delete: bool) -> (File, File, Head) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trivy-java.db");
    create(&path, artifacts, secure_delete);
    let (db, rows) = (File::open(&path).unwrap(), temporary());
    let head = extract(&db, &rows).unwrap();
    (db, rows, head)
}

/// Builds a database, and returns it.
fn built(rows: &File, head: &Head, size: u64, memory: usize) -> Result<Vec<u8>, BuildError> {
    let out = temporary();
    build(rows, head, &out, size, memory)?;
    Ok(content(&out))
}

/// Checks that a database with these artifacts is built again, byte for byte, and returns its content.
fn round_trip(artifacts: &[Artifact], secure_delete: bool, memory: usize) -> Vec<u8> {
    let (db, rows, head) = extracted(artifacts, secure_delete);
    let head = Head { layout: Layout { secure_delete, ..NEW }, ..head };
    let head = Head::parse(&head.to_bytes().unwrap()).unwrap();
    let wanted = content(&db);
    let found = built(&rows, &head, wanted.len() as u64, memory).unwrap();
    let differs = (0..wanted.len() / PAGE).find(|page| {
        let range = page * PAGE..(page + 1) * PAGE;
        wanted[range.clone()] != found[range]
    });
    assert_eq!(differs.map(|page| page + 1), None, "the first page that differs");
    wanted
}

/// Returns artifacts with names of up to `longest` bytes and up to `rows` rows.
fn artifacts(seed: u64, count: usize, longest: u64, rows: u64) -> Vec<Artifact> {
    let mut number = numbers(seed);
    let text = |longest: u64, number: &mut dyn FnMut(u64) -> u64| {
        // Most texts are short, some are very long.
        let length = if number(8) == 0 { number(longest + 1) } else { number(longest / 20 + 2) };
        (0..length).map(|_| char::from(b'a' + number(26) as u8)).collect::<String>()
    };
    (0..count)
        .map(|index| {
            let group = text(longest, &mut number);
            let artifact = format!("{}-{index}", text(longest, &mut number));
            let versions = (0..number(rows + 1)).map(|_| text(longest / 8, &mut number)).collect();
            let archive_type = if number(20) == 0 { "aar" } else { "jar" };
            Artifact { group, artifact, versions, archive_type }
        })
        .collect()
}

/// Returns the depth of the tree with this root.
fn depth(file: &[u8], root: usize) -> usize {
    let page = &file[(root - 1) * PAGE..root * PAGE];
    match page[0] {
        2 | 5 => 1 + depth(file, u32::from_be_bytes(page[8..12].try_into().unwrap()) as usize),
        _ => 1,
    }
}

#[test]
fn an_empty_database_is_built_again() {
    for secure_delete in [false, true] {
        assert_eq!(round_trip(&[], secure_delete, MEMORY).len(), 6 * PAGE);
    }
}

#[test]
fn a_database_with_short_names_is_built_again() {
    for secure_delete in [false, true] {
        let file = round_trip(&artifacts(1, 3000, 60, 20), secure_delete, MEMORY);
        assert_eq!(depth(&file, 6), 3);
    }
}

#[test]
fn a_database_with_names_of_very_unequal_length_is_built_again() {
    for (seed, secure_delete) in [(2, false), (3, true), (4, false), (5, true)] {
        let file = round_trip(&artifacts(seed, 4000, 480, 3), secure_delete, MEMORY);
        assert_eq!(depth(&file, 4), 3);
    }
}

#[test]
fn deep_trees_are_built_again() {
    let long = |number: usize, length: usize| format!("{}{:x<length$}", number % 89, number);
    let mut list: Vec<Artifact> = (0..3000)
        .map(|number| Artifact {
            group: String::new(),
            artifact: long(number * 7919 % 3000, 900 + number % 60),
            versions: vec![],
            archive_type: "jar",
        })
        .collect();
    list[17].versions = (0..6000).map(|number| long(number, 800 + number % 90)).collect();
    for secure_delete in [false, true] {
        let file = round_trip(&list, secure_delete, MEMORY);
        assert_eq!([2, 3, 4].map(|root| depth(&file, root)), [3, 3, 5]);
    }
}

/// Returns artifacts without rows and with short names, except that one of `rare` has a long one.
fn rarely_long(seed: u64, count: usize, rare: u64) -> Vec<Artifact> {
    let mut number = numbers(seed);
    (0..count)
        .map(|index| {
            let long = if number(rare) == 0 { 700 + number(280) as usize } else { number(12) as usize };
            let artifact = format!("{:x}", number(1 << 30) * 100_000 + index as u64);
            Artifact { group: "x".repeat(long), artifact, versions: vec![], archive_type: "jar" }
        })
        .collect()
}

#[test]
fn a_long_name_that_splits_interior_pages_for_a_while_is_built_again() {
    // SQLite splits the interior page for a long divider, and joins the halves when it replaces the divider. It then
    // reuses the page from its free-list.
    for seed in 20..30 {
        round_trip(&rarely_long(seed, 12_000, 30), seed % 2 == 0, MEMORY);
    }
}

#[test]
fn artifacts_without_rows_and_with_many_rows_are_built_again() {
    let artifact = |artifact: &str, rows: usize| Artifact {
        group: "org.example".into(),
        artifact: artifact.into(),
        versions: (0..rows).map(|row| format!("1.{row}")).collect(),
        archive_type: "jar",
    };
    let list = [artifact("none", 0), artifact("many", 40_000), artifact("one", 1), artifact("last", 0)];
    for secure_delete in [false, true] {
        let file = round_trip(&list, secure_delete, MEMORY);
        assert_eq!([2, 3, 5, 6].map(|root| depth(&file, root)), [1, 2, 2, 3]);
    }
}

#[test]
fn little_memory_for_sorting_gives_the_same_database() {
    round_trip(&artifacts(6, 1000, 60, 20), false, 20_000);
}

/// The BLAKE3 digests of the bytes after page 1 that SQLite 3.40.1 writes with these settings of secure deletion:
///
/// ```text
/// sqlite3 trivy-java.db 'PRAGMA secure_delete = ON; VACUUM'; tail -c +4097 trivy-java.db | b3sum
/// ```
const OLD: [(bool, &str); 2] = [
    (true, "b672760666734ebf8615e09ed3d51b2b658a5fbd044e7b30120b5bd1a63542e4"),
    (false, "727c48afe23b869ebaa6f2a0534c5e5487cec67b788eb2cf999984b7777fa8d3"),
];

#[test]
fn a_database_of_an_old_sqlite_is_built_again() {
    let list = [artifacts(7, 2000, 480, 8), rarely_long(23, 12_000, 30)].concat();
    let (db, rows, head) = extracted(&list, true);
    for (secure_delete, digest) in OLD {
        let digest_with = |old_free_blocks| {
            let head = Head { layout: Layout { old_free_blocks, secure_delete }, ..head.clone() };
            let found = built(&rows, &head, db.metadata().unwrap().len(), MEMORY).unwrap();
            blake3::hash(&found[PAGE..]).to_hex().to_string()
        };
        assert_eq!(digest_with(true), digest, "{secure_delete}");
        assert_ne!(digest_with(false), digest, "{secure_delete}");
    }
}

#[test]
fn the_layout_is_found_whatever_the_hint_is() {
    for secure_delete in [false, true] {
        let (db, rows, head) = extracted(&artifacts(8, 600, 480, 8), secure_delete);
        for hint in Layout::all_from(NEW) {
            let head = find_layout(&db, &rows, head.clone(), &temporary(), hint, MEMORY).unwrap();
            assert_eq!(head.layout, Layout { secure_delete, ..NEW });
            assert_eq!(head.overwrites, []);
        }
    }
}

#[test]
fn differing_bytes_are_overwritten() {
    let (db, rows, head) = extracted(&artifacts(9, 600, 480, 8), false);
    let changed = temporary();
    let mut bytes = content(&db);
    let end = bytes.len();
    for at in [PAGE, PAGE + 1, PAGE + 3, 5 * PAGE - 1, 5 * PAGE, end - 1] {
        bytes[at] ^= 0x55;
    }
    (&changed).write_all(&bytes).unwrap();
    let scratch = temporary();
    let head = find_layout(&changed, &rows, head, &scratch, NEW, MEMORY).unwrap();
    assert_eq!(head.layout, NEW);
    assert_eq!(head.overwrites.iter().map(|o| o.bytes.len()).collect::<Vec<_>>(), [2, 1, 2, 1]);
    assert!(built(&rows, &head, end as u64, MEMORY).unwrap() == bytes);
    assert!(matches!(built(&rows, &head, end as u64 - 1, MEMORY), Err(BuildError::InvalidSize(_))));
    let mut beyond = head;
    beyond.overwrites[3].bytes.push(0);
    assert!(matches!(built(&rows, &beyond, end as u64, MEMORY), Err(BuildError::Overwrite)));
}

#[test]
fn a_database_that_differs_too_much_has_no_layout() {
    let (db, rows, head) = extracted(&artifacts(10, 600, 480, 20), false);
    let changed = temporary();
    let bytes: Vec<u8> = content(&db).iter().map(|byte| byte ^ 0x55).collect();
    assert!(bytes.len() > 300 << 10);
    (&changed).write_all(&bytes).unwrap();
    let result = find_layout(&changed, &rows, head, &temporary(), NEW, MEMORY);
    assert!(matches!(result, Err(FindError::TooDifferent)));
}

#[test]
fn a_stream_and_a_head_that_do_not_fit_are_errors() {
    let (db, rows, head) = extracted(&artifacts(11, 300, 200, 8), false);
    let size = db.metadata().unwrap().len();
    let page = PAGE as u64;
    assert!(matches!(built(&rows, &head, size - page, MEMORY), Err(BuildError::TooLarge)));
    assert!(matches!(built(&rows, &head, size + page, MEMORY), Err(BuildError::TooSmall { .. })));
    assert!(matches!(built(&rows, &head, 5 * page, MEMORY), Err(BuildError::InvalidSize(_))));
    assert!(matches!(built(&rows, &head, u64::MAX - 4095, MEMORY), Err(BuildError::InvalidSize(_))));
    for change in [
        |types: &mut Vec<TypeRun>| drop(types.pop()),
        |types: &mut Vec<TypeRun>| types[0].rows += 1,
        |types: &mut Vec<TypeRun>| types.push(TypeRun { archive_type: b"x".to_vec(), rows: 1 }),
    ] {
        let mut changed = head.clone();
        change(&mut changed.types);
        assert!(matches!(built(&rows, &changed, size, MEMORY), Err(BuildError::Types)));
    }
    rows.set_len(rows.metadata().unwrap().len() - 1).unwrap();
    assert!(matches!(built(&rows, &head, size, MEMORY), Err(BuildError::Rows(_))));
}

/// Returns a row stream with one artifact for each pair of names, and a row with this SHA-1 and version in each.
fn stream(names: &[(&[u8], &[u8])], version: &[u8], sha1: [u8; 20]) -> (File, Head) {
    let rows = temporary();
    let mut writer = RowWriter::new(&rows);
    for (group, artifact) in names {
        writer.artifact(Names { group, artifact }).unwrap();
        writer.row(Row { version, sha1: &sha1 }).unwrap();
    }
    writer.finish().unwrap();
    let types = vec![TypeRun { archive_type: b"jar".to_vec(), rows: names.len() as u32 }];
    (rows, Head { layout: NEW, types, overwrites: vec![], page_one: Box::new([0; PAGE]) })
}

#[test]
fn keys_that_exceed_the_memory_are_an_error() {
    let sha1 = [7; 20];
    let (rows, head) = stream(&[(&b"a"[..], &b"b"[..]); 1000], b"1", sha1);
    let size = 100 * PAGE as u64;
    assert!(matches!(built(&rows, &head, size, 20_000), Err(BuildError::Crowded(Crowded))));
    let names: Vec<Vec<u8>> = (0..1000u32).map(|n| format!("{}-{n}", n % 7).into_bytes()).collect();
    let names: Vec<(&[u8], &[u8])> = names.iter().map(|name| (&b"g"[..], &name[..])).collect();
    let (rows, head) = stream(&names, b"1", sha1);
    assert!(matches!(built(&rows, &head, size, 20_000), Err(BuildError::Crowded(Crowded))));
    assert!(matches!(built(&rows, &head, size, MEMORY), Err(BuildError::TooSmall { .. })));
}

#[test]
fn records_that_do_not_fit_into_an_index_page_are_an_error() {
    let long = [b'x'; 1000];
    let size = 100 * PAGE as u64;
    for (group, version) in [(&long[..], &b"1"[..]), (b"g", &long)] {
        let (rows, head) = stream(&[(group, b"")], version, [1; 20]);
        assert!(matches!(built(&rows, &head, size, MEMORY), Err(BuildError::LongRecord(LongRecord))));
    }
    let (rows, head) = stream(&[(&long[..997], b""), (&long[..996], b"")], &long[..900], [1; 20]);
    assert!(matches!(built(&rows, &head, size, MEMORY), Err(BuildError::TooSmall { .. })));
}

/// Applies statements to a small database, and returns the reason why it cannot be read as rows.
fn rejected(statements: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trivy-java.db");
    create(&path, &artifacts(12, 10, 60, 5), false);
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(&format!("PRAGMA foreign_keys = OFF; {statements}; VACUUM")).unwrap();
    drop(db);
    match extract(&File::open(&path).unwrap(), std::io::sink()) {
        Err(ExtractError::NotRows(reason)) => reason,
        other => panic!("{statements}: {other:?}"),
    }
}

#[test]
fn databases_with_other_content_are_not_rows() {
    let cases = [
        ("DELETE FROM artifacts WHERE id = 3", "artifact 3 has the id 4"),
        ("DELETE FROM artifacts WHERE id > 8", "names the artifact"),
        ("UPDATE artifacts SET group_id = NULL WHERE id = 2", "artifact 2 has other columns"),
        (
            "UPDATE artifacts SET group_id = 'a' || char(0) WHERE id = 2",
            "a name of artifact 2 contains a NUL",
        ),
        ("UPDATE artifacts SET group_id = printf('%.1500c', 'x') WHERE id = 2", "page 2 is invalid"),
        ("UPDATE artifacts SET group_id = printf('%.9000c', 'x') WHERE id = 2", "page 2 is invalid"),
        ("UPDATE indices SET artifact_id = 9 WHERE rowid = 1", "row 2 is not in the order"),
        ("UPDATE indices SET artifact_id = -1 WHERE rowid = 1", "row 1 is not in the order"),
        ("UPDATE indices SET artifact_id = NULL WHERE rowid = 1", "row 1 has other columns"),
        ("UPDATE indices SET sha1 = x'00' WHERE rowid = 4", "row 4 has a SHA-1 of 1 bytes"),
        ("UPDATE indices SET sha1 = 'text' WHERE rowid = 4", "row 4 has other columns"),
        ("UPDATE indices SET version = char(1) WHERE rowid = 4", "the version of row 4"),
        ("UPDATE indices SET archive_type = printf('%.300c', 'x')", "archive types"),
        ("CREATE TABLE more(id)", "schema"),
        ("CREATE VIEW more AS SELECT 1", "schema has additional entries"),
        ("DROP INDEX indices_sha1_idx", "indices_sha1_idx"),
        ("ALTER TABLE indices ADD COLUMN classifier TEXT", "place of indices"),
        ("PRAGMA page_size = 8192", "offset 16"),
        ("PRAGMA auto_vacuum = FULL", "offset 52"),
        ("PRAGMA journal_mode = WAL", "offset 18"),
    ];
    for (statements, reason) in cases {
        let found = rejected(statements);
        assert!(found.contains(reason), "{statements}: {found}");
    }
}

#[test]
fn files_that_are_no_database_are_not_rows() {
    for bytes in [&b""[..], b"SQLite format 3\0", &[0; PAGE], &[0; PAGE + 1]] {
        let file = temporary();
        (&file).write_all(bytes).unwrap();
        assert!(matches!(extract(&file, std::io::sink()), Err(ExtractError::NotRows(_))));
    }
}

#[test]
fn truncated_databases_are_not_rows() {
    let (db, _, _) = extracted(&artifacts(13, 100, 60, 5), false);
    let bytes = content(&db);
    let file = temporary();
    (&file).write_all(&bytes[..bytes.len() - PAGE]).unwrap();
    assert!(matches!(extract(&file, std::io::sink()), Err(ExtractError::NotRows(_))));
}

#[test]
fn changed_databases_give_rows_or_an_error() {
    let (db, _, _) = extracted(&artifacts(14, 400, 200, 5), false);
    let bytes = content(&db);
    let pages = (bytes.len() / PAGE) as u64;
    let mut number = numbers(15);
    let file = temporary();
    let mut outcomes = [0, 0];
    for round in 0..1500 {
        let mut changed = bytes.clone();
        for _ in 0..1 + number(4) {
            // The headers, the cell pointers and the roots are changed more often than the content.
            let page = if round % 2 == 0 { number(3) } else { number(pages) };
            let at = page * PAGE as u64 + number(if round % 3 == 0 { PAGE as u64 } else { 120 });
            changed[at as usize] = number(256) as u8;
        }
        file.write_all_at(&changed, 0).unwrap();
        let rows = temporary();
        match extract(&file, &rows) {
            Err(ExtractError::NotRows(_)) => outcomes[0] += 1,
            Err(ExtractError::Io(error)) => panic!("{error}"),
            Ok(head) => {
                outcomes[1] += 1;
                // Whatever was extracted is a valid stream. The database may differ.
                let result = built(&rows, &head, bytes.len() as u64, MEMORY);
                let expected = |error: &BuildError| {
                    matches!(
                        error,
                        BuildError::TooLarge | BuildError::TooSmall { .. } | BuildError::LongRecord(_)
                    )
                };
                assert!(result.as_ref().err().is_none_or(expected), "{:?}", result.err());
            }
        }
    }
    assert!(outcomes.into_iter().all(|count| count > 100), "{outcomes:?}");
}

#[test]
fn pages_that_refer_to_each_other_end_the_walk() {
    let (db, _, _) = extracted(&artifacts(16, 3000, 60, 5), false);
    let bytes = content(&db);
    for (at, child) in
        [(PAGE + 8, 2), (2 * PAGE + 8, 3), (2 * PAGE + 8, 2), (2 * PAGE + 8, 0), (2 * PAGE + 8, 1)]
    {
        let mut changed = bytes.clone();
        changed[at..at + 4].copy_from_slice(&u32::to_be_bytes(child));
        let file = temporary();
        (&file).write_all(&changed).unwrap();
        assert!(matches!(extract(&file, std::io::sink()), Err(ExtractError::NotRows(_))), "{at} {child}");
    }
}

#[test]
fn rows_that_overlap_are_not_rows() {
    let (db, _, _) = extracted(&artifacts(18, 20, 60, 0), false);
    let mut bytes = content(&db);
    // Each version has 900 bytes and includes the following cells, which begin 12 bytes apart.
    let page = &mut bytes[2 * PAGE..3 * PAGE];
    page.fill(b'.');
    page[..8].copy_from_slice(&[13, 0, 0, 0, 120, 0, 0, 0]);
    for index in 0..120 {
        let at = 500 + 12 * usize::from(index);
        let pointer = 8 + 2 * usize::from(index);
        page[pointer..pointer + 2].copy_from_slice(&(at as u16).to_be_bytes());
        // The length of the record (929) and the rowid, then the header: its length, the integer 1, a text of 900
        // bytes, a BLOB of 20 bytes, and a text of 3 bytes.
        page[at..at + 10].copy_from_slice(&[0x87, 0x21, 0x80, index + 1, 6, 9, 0x8e, 0x15, 52, 19]);
    }
    let file = temporary();
    (&file).write_all(&bytes).unwrap();
    let rows = temporary();
    match extract(&file, &rows) {
        Err(ExtractError::NotRows(reason)) => assert_eq!(reason, "its rows are longer than the file"),
        other => panic!("{other:?}"),
    }
    assert!(rows.metadata().unwrap().len() <= bytes.len() as u64 + 1000);
}

fn random_artifact() -> impl Strategy<Value = Artifact> {
    let text = |longest: usize| proptest::collection::vec(2..=0x7fu8, 0..longest);
    let string = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let names = prop_oneof![4 => (text(20), text(20)), 1 => (text(480), text(480))];
    let many = |longest, rows| proptest::collection::vec(text(longest), 0..rows);
    let versions = prop_oneof![8 => many(12, 12), 1 => many(300, 120)];
    (names, versions, prop_oneof![Just("jar"), Just("aar")]).prop_map(
        move |((group, artifact), versions, archive_type)| {
            let versions = versions.into_iter().map(string).collect();
            Artifact { group: string(group), artifact: string(artifact), versions, archive_type }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_database_is_built_again(
        list in proptest::collection::vec(random_artifact(), 0..200),
        secure_delete in any::<bool>(),
    ) {
        let mut list = list;
        // Equal names would be one artifact, whose rows are not in order.
        for (index, artifact) in list.iter_mut().enumerate() {
            artifact.artifact.push_str(&index.to_string());
        }
        round_trip(&list, secure_delete, MEMORY);
    }

    #[test]
    fn any_stream_is_built_or_rejected(bytes in proptest::collection::vec(0..3u8, 0..3000), count in 0..40u32) {
        let rows = temporary();
        (&rows).write_all(&bytes).unwrap();
        let (_, head) = stream(&[(&b""[..], &b""[..])], b"", [0; 20]);
        let types = vec![TypeRun { archive_type: vec![], rows: count + 1 }];
        let _ = built(&rows, &Head { types, ..head }, 20 * PAGE as u64, 5000);
    }
}
