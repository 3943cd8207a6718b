//! `--web-url`: the URL under which a web server serves a web root.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

use crate::dataset::Name;

/// The URL of a web root, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebUrl(String);

/// A string that is not a valid URL of a web root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write it as https://HOST[:PORT][/PATH]")]
pub struct InvalidWebUrl(&'static str);

impl WebUrl {
    /// Returns the URL of a VEX repository for Trivy's `repository.yaml`.
    pub fn of(&self, name: &Name) -> String {
        format!("{}/{name}", self.0)
    }

    /// Whether the URL has a path after its host.
    pub fn has_path(&self) -> bool {
        self.0.split_once("://").is_some_and(|(_, rest)| rest.contains('/'))
    }

    /// Whether the URL is plain HTTP, so that data can be changed in transit.
    pub fn is_plain(&self) -> bool {
        self.0.starts_with("http:")
    }
}

impl FromStr for WebUrl {
    type Err = InvalidWebUrl;

    fn from_str(text: &str) -> Result<Self, InvalidWebUrl> {
        let url = Url::parse(text).map_err(|_| InvalidWebUrl("this is not a URL"))?;
        if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
            return Err(InvalidWebUrl("its scheme must be http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidWebUrl("it holds a login, which belongs in the scanners' configuration"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidWebUrl("it must not have a query or a fragment"));
        }
        // Trivy splits a location at its first double slash. Programs differ in how they decode escapes.
        if url.path().contains("//") || url.path().contains('%') {
            return Err(InvalidWebUrl("its path must not have // or %"));
        }
        Ok(WebUrl(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_web_url_is_one_that_trivy_can_extend() {
        for (text, wanted) in [
            ("https://web.corp.example/vex/", "https://web.corp.example/vex/vex-hub"),
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080/vex-hub"),
            ("https://[::1]:8443/a/b", "https://[::1]:8443/a/b/vex-hub"),
        ] {
            assert_eq!(text.parse::<WebUrl>().unwrap().of(&"vex-hub".parse().unwrap()), wanted);
        }
        for bad in [
            "",
            "web.corp.example/vex",
            "ftp://h/",
            "https://u:p@h/",
            "https://h/?a",
            "https://h/a//b",
            "https://h/a%20b",
            "https://h/#a",
            "file:///srv",
        ] {
            assert!(bad.parse::<WebUrl>().is_err(), "{bad}");
        }
    }
}
