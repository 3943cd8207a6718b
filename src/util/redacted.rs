//! URLs and references without secrets.
//!
//! Every address that is shown, logged or recorded passes through [`Redacted`]. Only the code that sends
//! requests has the original address.

use std::fmt;

use reqwest::Url;

use crate::util::text;

/// An address without login, query and fragment. A redacted URL is still a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted(String);

impl Redacted {
    /// Redacts text that a user wrote: a URL, a reference such as `HOST/REPOSITORY:TAG`, or one of these
    /// after `NAME=`. It need not be valid.
    pub fn new(text: &str) -> Self {
        let text = text.trim();
        let start = text.find("://").map_or(0, |at| scheme_start(&text[..at]));
        if text.contains("://")
            && let Ok(url) = Url::parse(&text[start..])
            && url.has_host()
        {
            return Redacted(format!("{}{}", without_login(&text[..start]), Redacted::from(&url)));
        }
        let text = without_login(text);
        let end = if text.contains("://") { text.find(['?', '#']).unwrap_or(text.len()) } else { text.len() };
        Redacted(text[..end].to_owned())
    }
}

impl From<&Url> for Redacted {
    fn from(url: &Url) -> Self {
        let mut plain = url.clone();
        // This fails only for URLs that cannot have a login.
        let _ = plain.set_username("");
        let _ = plain.set_password(None);
        plain.set_query(None);
        plain.set_fragment(None);
        Redacted(plain.into())
    }
}

impl fmt::Display for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::escape_line(&self.0))
    }
}

/// Returns the offset at which the scheme at the end of a text begins.
fn scheme_start(text: &str) -> usize {
    let in_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    text.rfind(|c| !in_scheme(c)).map_or(0, |at| at + text[at..].chars().next().map_or(0, char::len_utf8))
}

/// Removes everything between the start of an address (after `NAME=` and the scheme) and the last `@` that
/// does not begin a digest. A password may hold any character.
fn without_login(text: &str) -> String {
    let is_name =
        |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    let (before, behind) = text.split_once('=').unwrap_or(("", text));
    let start = if !before.is_empty() && is_name(&before) { before.len() + 1 } else { 0 };
    let is_path = |text: &str| ["/", "./", "../", "oci-layout:"].iter().any(|path| text.starts_with(path));
    let is_path = is_path(text) || is_path(behind);
    let is_login =
        |at: &usize| !["sha256:", "sha512:"].iter().any(|digest| text[at + 1..].starts_with(digest));
    match text.match_indices('@').map(|(at, _)| at).rfind(is_login) {
        Some(end) if !is_path && end >= start => {
            let start = text[start..end].find("://").map_or(start, |at| start + at + "://".len());
            format!("{}{}", &text[..start], &text[end + 1..])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_left() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (text, shown) in [
            ("https://v.example/a/b", "https://v.example/a/b"),
            ("https://v.example/a?token=SECRET", "https://v.example/a"),
            ("https://v.example/a#SECRET", "https://v.example/a"),
            ("https://me:SECRET@v.example/a", "https://v.example/a"),
            ("https://SECRET@v.example/a", "https://v.example/a"),
            ("https://me:SE/CRET@v.example/a", "https://v.example/a"),
            ("https://me:SE@CRET@v.example/a", "https://v.example/a"),
            ("https://me:SE?CRET@v.example/a", "https://v.example/a"),
            ("https:///x?SECRET", "https://x/"),
            ("https://[::bad/x?SECRET", "https://[::bad/x"),
            ("corp=https://me:SECRET@v.example/a?SECRET", "corp=https://v.example/a"),
            ("corp=https://v.example/a?token=SECRET", "corp=https://v.example/a"),
            ("r.example/p/x:2", "r.example/p/x:2"),
            ("me:SECRET@r.example/p/x:2", "r.example/p/x:2"),
            ("me:SE=CRET@r.example/p/x:2", "r.example/p/x:2"),
            ("trivy-db=me:SECRET@r.example/p/x:2", "trivy-db=r.example/p/x:2"),
            ("oci://me:SECRET@r.example/p", "oci://r.example/p"),
            ("  me:SECRET@r.example", "r.example"),
            ("https://h/@scope/x", "https://h/@scope/x"),
            ("oci-layout:/a?b@c:2", "oci-layout:/a?b@c:2"),
            ("x/y:1=oci-layout:/a@c:2", "x/y:1=oci-layout:/a@c:2"),
            ("/srv/a@b", "/srv/a@b"),
        ] {
            assert_eq!(Redacted::new(text).to_string(), shown, "{text}");
        }
        let pinned = format!("r.example/x:2@{digest}");
        assert_eq!(Redacted::new(&pinned).to_string(), pinned);
        assert_eq!(Redacted::new(&format!("me:SECRET@{pinned}")).to_string(), pinned);
        assert_eq!(Redacted::new("\x1b[2J").to_string(), "\\u{1b}[2J");
    }
}
