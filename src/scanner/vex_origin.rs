//! The comment before an entry in Trivy's VEX configuration, if a bundle contained the entry.
//!
//! Trivy ignores comments and never rewrites the file. The comment contains a digest of the entry. If the
//! operator edits the entry, the digest no longer matches, and the entry belongs to the operator.

use crate::digest::Digest;

/// The beginning of the comment.
const BEGIN: &str = "# Added by trivy-ferry, which removes it when bundles of the stream no longer bring it; edit it to keep it:";
/// The number of hex digits of an entry's digest. The digest detects edits and is no protection against attacks:
/// a user who can write the file needs no forged comment.
const DIGITS: usize = 16;

/// The bundle that contained an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The stream of the bundle.
    pub stream: String,
    /// The bundle's identity.
    pub bundle: Digest,
    /// The identifiers of the trusted keys that signed the bundle, in hex.
    pub keys: Vec<String>,
}

impl Origin {
    /// Returns the comment for an entry of this text, without a line ending. The text has no
    /// indentation.
    pub(crate) fn comment(&self, entry: &str) -> String {
        let Origin { stream, bundle, keys } = self;
        format!("{BEGIN} stream={stream} bundle={bundle} keys={} entry={}", keys.join(","), digest(entry))
    }

    /// Parses the comment before an entry of this text. Returns `None` for another comment or an edited entry.
    pub(crate) fn of(comment: &str, entry: &str) -> Option<Origin> {
        let mut fields = comment.trim().strip_prefix(BEGIN)?.split_ascii_whitespace();
        let mut field = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=');
        let (stream, bundle, keys) = (field("stream")?, field("bundle")?, field("keys")?);
        let is_this = field("entry")? == digest(entry) && fields.next().is_none();
        let keys = keys.split(',').map(str::to_owned).collect();
        is_this.then_some(Origin { stream: stream.into(), bundle: bundle.parse().ok()?, keys })
    }
}

fn digest(entry: &str) -> String {
    let mut hex = Digest::of(entry.as_bytes()).hex();
    hex.truncate(DIGITS);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_as_it_was_written() {
        let keys = vec!["ab".repeat(32), "cd".repeat(32)];
        let origin = Origin { stream: "site-7".into(), bundle: Digest::of(b"x"), keys };
        let comment = origin.comment("- name: corp\n");
        assert!(!comment.contains('\n'));
        assert_eq!(Origin::of(&format!("  {comment}"), "- name: corp\n"), Some(origin));
        assert_eq!(Origin::of(&comment, "- name: mine\n"), None, "it was edited");
        assert_eq!(Origin::of(&format!("{comment} x"), "- name: corp\n"), None);
        assert_eq!(Origin::of("# mine", "- name: corp\n"), None);
    }
}
