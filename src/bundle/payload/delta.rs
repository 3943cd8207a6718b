//! The part of a payload that describes a dataset as differences from earlier versions of its files. This module defines
//! the JSON form and the rules that it can break by itself. It does not know how a patch is made or applied.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::bundle::payload::blob::{Blob, PATCH_TYPE};
use crate::content_digest::ContentDigest;
use crate::dataset::{Contents, RelPath};
use crate::delta::patch::{self, Patch};
use crate::delta::stream::Form;
use crate::digest::Digest;
use crate::util::text::format_second;

/// The word in `requires` for a bundle with deltas.
pub const FEATURE: &str = "deltas";
/// The most bases of one file.
pub const MAX_BASES: usize = 8;
/// The most bytes of a file that is carried whole. It is held in memory.
pub const MAX_WHOLE: u64 = 1 << 20;
/// The media type of the head of a database that is made from rows.
pub const HEAD_TYPE: &str = "application/vnd.trivy-ferry.delta.head.v1";
/// The media type of a file that is carried whole.
pub const WHOLE_TYPE: &str = "application/vnd.trivy-ferry.delta.file.v1";

/// Whether this version reads bundles that require this feature.
pub(in crate::bundle) fn is_feature(word: &str) -> bool {
    word == FEATURE || Form::named(word).is_some()
}

/// The files of a dataset, without its layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Each file of the contents, in their order.
    pub files: Vec<DeltaFile>,
}

/// A file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaFile {
    /// Its path in the layer.
    pub path: RelPath,
    /// The way in which it is carried.
    #[serde(flatten)]
    pub encoding: Encoding,
}

/// The way in which a file is carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Encoding {
    /// The file is a member.
    Whole {
        /// The member.
        whole: Blob,
    },
    /// The file is made from an earlier version of it.
    Patched {
        /// What the segments of the patches make.
        form: Form,
        /// What a reader needs to make the file from rows; present exactly for the form of rows.
        #[serde(flatten)]
        rows: Option<Rows>,
        /// The earlier versions, at least one.
        bases: Vec<Base>,
    },
}

/// What a reader needs to make a database from rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// The member with everything in the file that does not follow from its rows.
    pub head: Blob,
    /// The rows.
    pub stream: RowStream,
}

/// The rows of a database, as one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowStream {
    /// Its length in bytes.
    pub size: u64,
    /// Its content digest, which tells a wrong patch from a wrong head.
    pub digest: ContentDigest,
}

/// An earlier version of a file, and the patch that makes the new version from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The content digest of the earlier version.
    pub digest: ContentDigest,
    /// Its length in bytes.
    pub size: u64,
    /// When upstream built it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// The member with the patch.
    pub patch: Blob,
    /// The segments of the patch.
    #[serde(flatten)]
    pub segments: Patch,
}

impl Base {
    /// Describes a patch as a member.
    pub(crate) fn patch_of(digest: Digest, size: u64) -> Blob {
        Blob { media_type: PATCH_TYPE.into(), digest, size }
    }
}

impl Delta {
    /// Returns the members that it needs.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.files.iter().flat_map(|file| -> Box<dyn Iterator<Item = &Blob>> {
            match &file.encoding {
                Encoding::Whole { whole } => Box::new(std::iter::once(whole)),
                Encoding::Patched { bases, rows, .. } => {
                    let head = rows.iter().map(|rows| &rows.head);
                    Box::new(head.chain(bases.iter().map(|base| &base.patch)))
                }
            }
        })
    }

    /// Returns the words that a reader has to know for it.
    pub fn features(&self) -> BTreeSet<&'static str> {
        let forms = self.files.iter().filter_map(|file| match &file.encoding {
            Encoding::Whole { .. } => None,
            Encoding::Patched { form, .. } => Some(form.name()),
        });
        std::iter::once(FEATURE).chain(forms).collect()
    }

    /// Returns the earlier versions that it can be applied to, by their digest and length.
    pub fn versions(&self) -> Vec<(ContentDigest, u64)> {
        self.bases().map(|base| (base.digest, base.size)).collect()
    }

    /// Returns the dates of the earlier versions, for people.
    pub fn dates(&self) -> String {
        let date = |base: &Base| base.updated_at.map_or_else(|| "of an unknown date".into(), format_second);
        self.bases().map(date).collect::<Vec<_>>().join(", ")
    }

    /// Returns the earlier versions of its patched file. A database has one large file.
    pub fn bases(&self) -> impl Iterator<Item = &Base> {
        self.files.iter().flat_map(|file| match &file.encoding {
            Encoding::Whole { .. } => &[][..],
            Encoding::Patched { bases, .. } => &bases[..],
        })
    }

    /// Checks the rules that it can break by itself.
    ///
    /// # Errors
    /// If it lists other files than the contents, too many bases, a base twice, a file that is too large to be whole,
    /// or segments that break the rules of patches. The text is a clause about the dataset.
    pub(in crate::bundle) fn check(&self, contents: &Contents) -> Result<(), String> {
        if self.files.iter().filter(|file| matches!(file.encoding, Encoding::Patched { .. })).count() > 1 {
            return Err("has patches of several files".into());
        }
        let paths = self.files.iter().map(|file| &file.path);
        if !paths.eq(contents.files.iter().map(|file| &file.path)) {
            return Err("has a delta of other files than its contents".into());
        }
        for (file, target) in self.files.iter().zip(&contents.files) {
            let path = &file.path;
            match &file.encoding {
                Encoding::Whole { whole } if whole.size != target.size || whole.size > MAX_WHOLE => {
                    return Err(format!("carries {path} whole with {} bytes", whole.size));
                }
                Encoding::Whole { .. } => {}
                Encoding::Patched { form, rows, bases } => {
                    if rows.is_some() != (*form == Form::JavaRows) {
                        return Err(format!("has the form {} of {path} without its parts", form.name()));
                    }
                    let stream = rows.as_ref().map_or(target.size, |rows| rows.stream.size);
                    if stream > target.size || rows.as_ref().is_some_and(|rows| rows.head.size > MAX_WHOLE) {
                        return Err(format!("has rows or a head of {path} that are too large"));
                    }
                    let digests: BTreeSet<ContentDigest> = bases.iter().map(|base| base.digest).collect();
                    if bases.is_empty() || bases.len() > MAX_BASES || digests.len() != bases.len() {
                        return Err(format!("lists {} bases of {path} (limit: {MAX_BASES})", bases.len()));
                    }
                    for base in bases {
                        // The rows of a database take fewer bytes than the file.
                        patch::check(&base.segments, Some(base.size), stream)
                            .map_err(|why| format!("has a patch of {path} that cannot be used: {why}"))?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    /// Returns the contents of a database, and a valid delta of it.
    fn valid() -> (Contents, Value) {
        let digest = ContentDigest::of(b"new").to_string();
        let file = |path: &str, size: u64| json!({"path": path, "size": size, "digest": digest});
        let contents = json!({"schema": 2, "files": [file("metadata.json", 10), file("trivy.db", 100)]});
        let blob = |size: u64| json!({"mediaType": "x", "digest": DIGEST, "size": size});
        let delta = json!({"files": [
            {"path": "metadata.json", "whole": blob(10)},
            {"path": "trivy.db", "form": "bbolt-4k", "bases": [{
                "digest": ContentDigest::of(b"old").to_string(), "size": 90, "patch": blob(5),
                "frames": 20, "segments": [[100, 0, 90, 20]],
            }]},
        ]});
        (serde_json::from_value(contents).unwrap(), delta)
    }

    /// A change to a delta.
    type Change = Box<dyn FnOnce(&mut Value)>;

    /// Returns the error of a delta after a change to it.
    fn error(change: impl FnOnce(&mut Value)) -> String {
        let (contents, mut delta) = valid();
        change(&mut delta);
        match serde_json::from_value::<Delta>(delta) {
            Ok(delta) => delta.check(&contents).err().unwrap_or_default(),
            Err(error) => format!("JSON: {error}"),
        }
    }

    #[test]
    fn a_delta_lists_the_files_of_the_contents_with_valid_bases() {
        assert_eq!(error(|_| {}), "");
        let base = |delta: &Value| delta["files"][1]["bases"][0].clone();
        let rejected: Vec<(&str, Change)> = vec![
            ("other files", Box::new(|delta| drop(delta["files"].as_array_mut().unwrap().pop()))),
            ("other files", Box::new(|delta| delta["files"].as_array_mut().unwrap().reverse())),
            ("whole with 11 bytes", Box::new(|delta| delta["files"][0]["whole"]["size"] = 11.into())),
            ("lists 0 bases", Box::new(|delta| delta["files"][1]["bases"] = json!([]))),
            (
                "lists 2 bases",
                Box::new(move |delta| delta["files"][1]["bases"] = json!([base(delta), base(delta)])),
            ),
            (
                "lists 9 bases",
                Box::new(move |delta| delta["files"][1]["bases"] = vec![base(delta); 9].into()),
            ),
            ("without its parts", Box::new(|delta| delta["files"][1]["form"] = "java-rows-1".into())),
            ("JSON", Box::new(|delta| delta["files"][1]["form"] = "plain-2".into())),
            (
                "after the end of the base",
                Box::new(|delta| delta["files"][1]["bases"][0]["size"] = 89.into()),
            ),
            ("have 99 bytes", Box::new(|delta| delta["files"][1]["bases"][0]["segments"][0][0] = 99.into())),
            ("have 20 bytes", Box::new(|delta| delta["files"][1]["bases"][0]["frames"] = 21.into())),
        ];
        for (wanted, change) in rejected {
            let found = error(change);
            assert!(found.contains(wanted), "{wanted}: {found:?}");
        }
    }

    #[test]
    fn rows_are_not_longer_than_the_file_and_come_with_a_head() {
        let rows = |size: u64, head: u64| {
            move |delta: &mut Value| {
                let file = &mut delta["files"][1];
                file["form"] = "java-rows-1".into();
                file["head"] = json!({"mediaType": "x", "digest": DIGEST, "size": head});
                file["stream"] = json!({"size": size, "digest": ContentDigest::of(b"rows").to_string()});
                file["bases"][0]["segments"] = json!([[size, 0, 90, 20]]);
            }
        };
        assert_eq!(error(rows(80, 9)), "");
        assert!(error(rows(101, 9)).contains("too large"));
        assert!(error(rows(80, MAX_WHOLE + 1)).contains("too large"));
    }
}
