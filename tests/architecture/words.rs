//! Phrases that people who do not know the program must read twice. They were in its text once and
//! must not return to the documentation, the messages or the comments. The second column says what
//! to write instead.

use std::fs;
use std::path::{Path, PathBuf};

const PHRASES: [(&str, &str); 29] = [
    (" any more", "anymore, or delete it"),
    ("as far as it goes", "name the limit"),
    ("asked again", "retried"),
    ("asks again", "retries"),
    ("a third of", "1/3 of"),
    ("be told of", "report"),
    ("behind the head", "after the head"),
    ("goes to the network", "uses the network"),
    ("gone on with", "continued, resumed"),
    ("go on with", "continue, resume"),
    ("goes on with", "continues, resumes"),
    ("in the way of", "prevents"),
    ("is through", "has arrived, is finished"),
    ("it is worth what", "is only as trustworthy as"),
    ("let go of", "releases, drops"),
    ("lets go of", "releases, drops"),
    ("made again", "rebuilt"),
    ("makes again", "rebuilds"),
    ("nobody vouches", "no trusted key signed"),
    ("nobody knows", "unknown"),
    ("left alone", "skipped"),
    ("never came", "never arrived, was never received"),
    ("passed over", "skipped"),
    ("somebody", "name the subject"),
    ("vouches for", "is signed, lists"),
    ("what is whole", "what is complete"),
    ("what nobody", "name the subject"),
    ("whatever comes", "name the subject"),
    ("whole again", "complete again"),
];

/// The files whose text people read.
fn texts() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "bundle-format.md", "tests/run"];
    let mut files: Vec<PathBuf> = names.iter().map(|name| top.join(name)).collect();
    for (directory, extension) in
        [("docs", "md"), ("src", "rs"), ("contrib", "service"), ("tests/suite", "rs"), ("tests/kit", "rs")]
    {
        let entries = walkdir::WalkDir::new(top.join(directory)).into_iter().map(Result::unwrap);
        let is_text = |path: &Path| path.extension().is_some_and(|found| found == extension);
        files.extend(entries.map(walkdir::DirEntry::into_path).filter(|path| is_text(path)));
    }
    files
}

/// The text with one space in place of line breaks and comment marks.
fn joined(text: &str) -> String {
    let words = text.lines().flat_map(|line| {
        let line = line.trim().trim_start_matches("//!").trim_start_matches("///").trim_start_matches("//");
        line.split_whitespace()
    });
    words.collect::<Vec<_>>().join(" ").to_lowercase()
}

#[test]
fn listed_phrases_are_not_used() {
    let mut found = Vec::new();
    for file in texts() {
        let text = joined(&fs::read_to_string(&file).unwrap());
        for (phrase, instead) in PHRASES {
            let count = text.matches(phrase).count();
            if count > 0 {
                found.push(format!("{}: {count} × {phrase:?}; write: {instead}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
