//! Examines the documents of a VEX repository: whether the documents in its index exist, and whether Trivy can read
//! them. Trivy (v0.74.0, `pkg/vex/repo.go`) reads OpenVEX, or CSAF if the index says so, and skips others with a
//! warning.

use std::collections::HashMap;

use crate::content_digest::ContentDigest;
use crate::dataset::RelPath;
use crate::dataset::examine::json_scan::{DocumentKind, JsonScan};
use crate::util::text::escape;

/// The limit of documents that are named. The others are counted.
const NAMED: usize = 5;
/// The beginning of the pointer that replaces a file in Git LFS. Archives of GitHub, Gitea and `git archive` contain
/// such pointers.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Document(DocumentKind),
    LfsPointer,
    NoJson,
}

/// The current file.
#[derive(Debug)]
struct Current {
    key: u64,
    head: Vec<u8>,
    scan: JsonScan,
}

/// Examines every file of a repository.
#[derive(Debug, Default)]
pub(super) struct VexDocuments {
    current: Option<Current>,
    /// The files by the hashes of their paths. The hashes take less memory than the paths of up to
    /// 100,000 files.
    seen: HashMap<u64, Seen>,
    findings: VexFindings,
}

/// The findings about the documents of a VEX repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VexFindings {
    /// The number of packages in the index.
    pub listed: u64,
    /// The number of packages without a document that Trivy can read.
    pub unusable: u64,
    /// Some of the unusable documents, each with its fault.
    pub examples: Vec<String>,
}

impl VexFindings {
    /// Whether so many documents are unusable that the repository is useless.
    pub fn is_mostly_unusable(&self) -> bool {
        self.unusable > 0 && self.unusable.saturating_mul(3) >= self.listed
    }

    /// Returns a clause about the unusable documents; `None` if there are none.
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

fn key(path: &str) -> u64 {
    ContentDigest::of(path.as_bytes()).short() as u64
}

impl VexDocuments {
    pub(super) fn begin(&mut self, path: &RelPath) {
        let (head, scan) = (Vec::new(), JsonScan::new());
        self.current = Some(Current { key: key(path.as_str()), head, scan });
    }

    pub(super) fn data(&mut self, bytes: &[u8]) {
        let Some(current) = &mut self.current else { return };
        let room = LFS.len() - current.head.len();
        current.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        current.scan.feed(bytes);
    }

    pub(super) fn end(&mut self) {
        let Some(Current { key, head, scan }) = self.current.take() else { return };
        let seen = match scan.finish() {
            Some(kind) => Seen::Document(kind),
            None if head == LFS => Seen::LfsPointer,
            None => Seen::NoJson,
        };
        self.seen.insert(key, seen);
    }

    /// Takes the next document in the index.
    pub(super) fn listed(&mut self, location: &str, format: &str) {
        let findings = &mut self.findings;
        findings.listed += 1;
        if let Some(fault) = fault(self.seen.get(&key(location)).copied(), format) {
            findings.unusable += 1;
            if findings.examples.len() < NAMED {
                let example = format!("{} {fault}", escape(location));
                if !findings.examples.contains(&example) {
                    findings.examples.push(example);
                }
            }
        }
    }

    pub(super) fn finish(self) -> VexFindings {
        self.findings
    }
}

/// Returns the reason why Trivy does not read a document.
fn fault(seen: Option<Seen>, format: &str) -> Option<&'static str> {
    match (seen, format) {
        (None, _) => Some("is missing"),
        (Some(Seen::LfsPointer), _) => Some("is a Git LFS pointer instead of the document"),
        (Some(Seen::NoJson), _) => Some("is not a JSON document"),
        (Some(Seen::Document(DocumentKind::Ambiguous)), _) => {
            Some("has a key twice (upper and lower case count as equal), and Trivy reads only the last")
        }
        (Some(Seen::Document(DocumentKind::OpenVex)), "" | "openvex") => None,
        (Some(Seen::Document(DocumentKind::Csaf)), "csaf") => None,
        (Some(Seen::Document(DocumentKind::Csaf)), "" | "openvex") => {
            Some("is CSAF, but the index does not say so")
        }
        (Some(Seen::Document(DocumentKind::OpenVex)), "csaf") => Some("is OpenVEX, but the index says CSAF"),
        (Some(Seen::Document(DocumentKind::CycloneDx)), _) => {
            Some("is CycloneDX, which Trivy does not read from a repository")
        }
        (Some(Seen::Document(DocumentKind::Other)), "" | "openvex" | "csaf") => Some("is not a VEX document"),
        (Some(_), _) => Some("has a format in the index that Trivy does not support"),
    }
}
