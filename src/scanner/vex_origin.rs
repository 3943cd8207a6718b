//! The mark of an entry in Trivy's VEX configuration that came from a bundle: a comment before the entry.
//!
//! Trivy ignores comments and never rewrites the file, and an editor keeps them. The comment holds a digest
//! of the entry. If someone edits the entry, the digest no longer matches, and the entry belongs to whoever
//! edited it.

use crate::digest::Digest;

/// How the comment begins.
const BEGIN: &str = "# Added by trivy-ferry, which removes it when bundles of the stream no longer bring it; edit it to keep it:";
/// How many hex digits of its digest stand for an entry. It tells edits apart and guards against nobody:
/// whoever can write the file needs no forged mark.
const DIGITS: usize = 16;

/// Where an entry came from.
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
    /// The comment for an entry of this text, without line end. The text has no indentation.
    pub(crate) fn comment(&self, entry: &str) -> String {
        let Origin { stream, bundle, keys } = self;
        format!("{BEGIN} stream={stream} bundle={bundle} keys={} entry={}", keys.join(","), digest(entry))
    }

    /// Reads the comment before an entry of this text; `None` if it is another or the entry was edited.
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
