//! Looks at the documents of a VEX repository: whether those that its index names are there, and are what Trivy
//! reads (v0.74.0, pkg/vex/repo.go: OpenVEX, or CSAF if the index says so; it warns and goes on without the others).

use std::cell::RefCell;
use std::collections::HashMap;

use crate::content_digest::ContentDigest;
use crate::dataset::RelPath;
use crate::dataset::examine::json_scan::{DocumentKind, JsonScan};
use crate::dataset::vex_index::VexIndex;
use crate::util::text::escape;

/// How many documents are named; the others are counted.
const NAMED: usize = 5;
/// The beginning of what Git LFS leaves in the place of a file. Archives of GitHub, Gitea and `git archive` hold it.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What was seen of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Document(DocumentKind),
    LfsPointer,
    NoJson,
}

/// The file that passes.
#[derive(Debug)]
struct Current {
    key: u128,
    head: Vec<u8>,
    scan: JsonScan,
    index: bool,
}

/// Sees every file of a repository.
#[derive(Debug, Default)]
pub(super) struct VexDocuments {
    current: Option<Current>,
    seen: HashMap<u128, Seen>,
    index: Vec<u8>,
}

/// What the documents are like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VexFindings {
    /// How many packages the index lists.
    pub listed: u64,
    /// How many of them have no document that Trivy reads.
    pub unusable: u64,
    /// Some of these, and what is wrong with each.
    pub examples: Vec<String>,
}

impl VexFindings {
    /// So much is unusable that the repository is of no use.
    pub fn is_mostly_unusable(&self) -> bool {
        self.unusable > 0 && self.unusable.saturating_mul(3) >= self.listed
    }

    /// What is wrong, as the end of a sentence about the repository; `None` if nothing is.
    pub fn fault(&self) -> Option<String> {
        let more = self.unusable.saturating_sub(self.examples.len() as u64);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (self.unusable > 0).then(|| {
            format!(
                "Trivy cannot read the documents of {} of its {} packages: {}{more}",
                self.unusable,
                self.listed,
                self.examples.join(", ")
            )
        })
    }
}

fn key(path: &str) -> u128 {
    ContentDigest::of(path.as_bytes()).short()
}

impl VexDocuments {
    pub(super) fn begin(&mut self, path: &RelPath) {
        let index = path.as_str() == "index.json";
        let (head, scan) = (Vec::new(), JsonScan::new());
        self.current = Some(Current { key: key(path.as_str()), head, scan, index });
    }

    pub(super) fn data(&mut self, bytes: &[u8]) {
        let Some(current) = &mut self.current else { return };
        if current.index {
            // Its size was limited before.
            self.index.extend_from_slice(bytes);
            return;
        }
        let room = LFS.len() - current.head.len();
        current.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        current.scan.feed(bytes);
    }

    pub(super) fn end(&mut self) {
        let Some(Current { key, head, scan, index: false }) = self.current.take() else { return };
        let seen = match scan.finish() {
            Some(kind) => Seen::Document(kind),
            None if head == LFS => Seen::LfsPointer,
            None => Seen::NoJson,
        };
        self.seen.insert(key, seen);
    }

    /// Compares the index with what was seen.
    pub(super) fn finish(self) -> VexFindings {
        let findings = RefCell::new(VexFindings::default());
        let is_usable = |location: &str, format: &str| {
            let mut findings = findings.borrow_mut();
            findings.listed += 1;
            let fault = fault(self.seen.get(&key(location)).copied(), format);
            if let Some(fault) = fault {
                findings.unusable += 1;
                let example = format!("{} {fault}", escape(location));
                if findings.examples.len() < NAMED && !findings.examples.contains(&example) {
                    findings.examples.push(example);
                }
            }
            fault.is_none()
        };
        // What is no index was refused before.
        let _ = VexIndex::parse(&self.index, &is_usable);
        findings.into_inner()
    }
}

/// Why Trivy does not read a document.
fn fault(seen: Option<Seen>, format: &str) -> Option<&'static str> {
    match (seen, format) {
        (None, _) => Some("is missing"),
        (Some(Seen::LfsPointer), _) => Some("is a pointer of Git LFS and not the document"),
        (Some(Seen::NoJson), _) => Some("is no JSON document"),
        (Some(Seen::Document(DocumentKind::OpenVex)), "" | "openvex") => None,
        (Some(Seen::Document(DocumentKind::Csaf)), "csaf") => None,
        (Some(Seen::Document(DocumentKind::Csaf)), "" | "openvex") => {
            Some("is CSAF, and the index does not say so")
        }
        (Some(Seen::Document(DocumentKind::OpenVex)), "csaf") => Some("is OpenVEX, and the index says CSAF"),
        (Some(Seen::Document(DocumentKind::CycloneDx)), _) => {
            Some("is CycloneDX, which Trivy does not read from a repository")
        }
        (Some(Seen::Document(DocumentKind::Other)), "" | "openvex" | "csaf") => Some("is no VEX document"),
        (Some(_), _) => Some("has a format in the index that Trivy does not know"),
    }
}
