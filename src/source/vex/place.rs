//! The names of VEX repositories and of the archives that they point to.
//!
//! This module parses such URLs as Trivy does (v0.74.0, `pkg/vex/repo/repo.go` and `pkg/downloader/download.go`,
//! which uses go-getter). It does no I/O.

use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::dataset::RelPath;
use crate::remote::RemoteError;
use crate::source::error::SourceError;
use crate::util::redacted::Redacted;
use crate::util::text;

/// The file that describes a VEX repository.
pub(in crate::source) const MANIFEST: &str = "vex-repository.json";

/// The source of a VEX repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VexSource {
    /// Its URL, as written in Trivy's `repository.yaml`.
    Url(Url),
    /// A directory that holds `vex-repository.json` beside the archive or the unpacked repository.
    Directory(PathBuf),
}

impl VexSource {
    /// Parses a source as written on the command line: a text that begins with `https://` or `http://` is a
    /// URL, everything else is a directory.
    ///
    /// # Errors
    /// [`RemoteError::Address`] if the text is empty, is no valid URL, has another scheme or a login, or is the address of a
    /// page or a file instead of a repository.
    pub fn parse(source: &str) -> Result<Self, SourceError> {
        let source = source.trim();
        let wrong = |why: &str, hint: String| {
            let text = Redacted::new(source);
            SourceError::from(RemoteError::Address { text, why: why.to_owned(), hint })
        };
        let form = || "Give the URL from Trivy's repository.yaml, or a directory.".to_owned();
        if source.is_empty() {
            return Err(wrong("it is empty", form()));
        }
        if !source.starts_with("https://") && !source.starts_with("http://") {
            return match source.contains("://") {
                true => Err(wrong("it is neither an https:// URL nor a directory", form())),
                false if looks_like_login(source) => {
                    Err(wrong("it is neither an https:// URL nor a directory", form()))
                }
                false => Ok(VexSource::Directory(source.into())),
            };
        }
        let url = Url::parse(source).map_err(|error| wrong(&error.to_string(), form()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "it holds a login",
                "Fetch the repository with a tool that can log in, and give its directory instead.".into(),
            ));
        }
        let parts = segments(&url);
        let host = url.host_str().unwrap_or_default();
        let github =
            |owner: &str, repository: &str| format!("Give https://github.com/{owner}/{repository} instead.");
        match (host, parts.as_slice()) {
            ("github.com", [owner, repository, "blob" | "tree" | "raw", ..]) => {
                return Err(wrong(
                    "it is a web page for a file, not a repository",
                    github(owner, repository),
                ));
            }
            ("raw.githubusercontent.com", [owner, repository, ..]) => {
                return Err(wrong(
                    "it is the address of a file, not of a repository",
                    github(owner, repository),
                ));
            }
            ("github.com", [] | [_]) => {
                return Err(wrong(
                    "it names no repository",
                    "Give it as https://github.com/OWNER/REPOSITORY.".into(),
                ));
            }
            (_, [before @ .., last]) if *last == MANIFEST => {
                let before = before.strip_suffix(&[".well-known"]).unwrap_or(before);
                let mut top = url.clone();
                top.set_path(&before.join("/"));
                top.set_query(None);
                let hint = format!("Give {} instead.", top.as_str().trim_end_matches('/'));
                return Err(wrong("it is the address of a file, not of a repository", hint));
            }
            _ => {}
        }
        Ok(VexSource::Url(url))
    }
}

/// The redacted form, for messages and records: a query may hold a token.
impl fmt::Display for VexSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VexSource::Url(url) => f.write_str(Redacted::from(url).to_string().trim_end_matches('/')),
            VexSource::Directory(directory) => directory.display().fmt(f),
        }
    }
}

/// Returns the URL of a repository's manifest. On github.com Trivy reads the file from the default branch
/// through the API; the raw address with `HEAD` returns the same bytes without the API's rate limits.
pub(in crate::source) fn manifest_url(repository: &Url) -> Url {
    let mut url = repository.clone();
    let parts = segments(repository);
    match (repository.host_str(), parts.as_slice()) {
        (Some("github.com"), [owner, name, below @ ..]) => {
            let name = name.strip_suffix(".git").unwrap_or(name);
            let path = [&[*owner, name, "HEAD"], below, &[MANIFEST]].concat().join("/");
            url.set_path(&path);
            // A valid constant cannot fail.
            let _ = url.set_host(Some("raw.githubusercontent.com"));
        }
        _ => url.set_path(&[parts.as_slice(), &[".well-known", MANIFEST]].concat().join("/")),
    }
    url
}

fn segments(url: &Url) -> Vec<&str> {
    url.path_segments().into_iter().flatten().filter(|part| !part.is_empty()).collect()
}

/// The address of an archive, and the directory in it that holds the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) struct Location {
    pub url: Url,
    /// The last component of the URL's path.
    pub name: String,
    /// The directory, relative to the archive's top; empty for the top itself. May be a pattern with `*`.
    pub subdir: String,
}

impl Location {
    /// Parses a location as go-getter does: the directory in the archive follows the first `//` after that of
    /// the scheme, before the query.
    pub(in crate::source) fn parse(location: &str) -> Result<Self, String> {
        let (address, query) = match location.split_once('?') {
            Some((address, query)) => (address, Some(query)),
            None => (location, None),
        };
        let Some((scheme, rest)) = address.split_once("://") else {
            return Err("it is not a URL".into());
        };
        if scheme != "https" && scheme != "http" {
            return Err(format!("{} addresses cannot be fetched", text::escape(scheme)));
        }
        let (rest, subdir) = rest.split_once("//").unwrap_or((rest, ""));
        let subdir = subdir.trim_matches('/');
        if subdir.contains(['?', '[']) {
            return Err("its directory is a pattern with `?` or `[`; only `*` is supported".into());
        }
        if !subdir.is_empty() && subdir.parse::<RelPath>().is_err() {
            return Err("its directory is not a plain relative path".into());
        }
        let mut url = Url::parse(&format!("{scheme}://{rest}")).map_err(|error| error.to_string())?;
        url.set_query(query);
        url.set_fragment(None);
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it holds a login".into());
        }
        let name = segments(&url).last().map(|name| (*name).to_owned()).unwrap_or_default();
        Ok(Location { url, name, subdir: subdir.to_owned() })
    }
}

/// Whether a text that is no directory begins with `NAME:PASSWORD@`, as in a URL without its scheme.
fn looks_like_login(text: &str) -> bool {
    let login = text.split_once('@').map(|(login, _)| login).filter(|login| login.contains(':'));
    login.is_some_and(|login| !login.contains('/')) && !Path::new(text).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest_of(text: &str) -> String {
        match VexSource::parse(text).unwrap() {
            VexSource::Url(url) => manifest_url(&url).to_string(),
            VexSource::Directory(_) => panic!("{text} is parsed as a directory"),
        }
    }

    #[test]
    fn manifests_are_where_trivy_looks_for_them() {
        let hub = "https://raw.githubusercontent.com/aquasecurity/vexhub/HEAD/vex-repository.json";
        for text in [
            "https://github.com/aquasecurity/vexhub",
            "https://github.com/aquasecurity/vexhub/",
            "https://github.com/aquasecurity/vexhub.git",
        ] {
            assert_eq!(manifest_of(text), hub);
        }
        assert_eq!(
            manifest_of("https://github.com/o/r/sub/dir"),
            "https://raw.githubusercontent.com/o/r/HEAD/sub/dir/vex-repository.json"
        );
        for (text, wanted) in [
            ("https://v.example", "https://v.example/.well-known/vex-repository.json"),
            ("http://v.example:8080/a/", "http://v.example:8080/a/.well-known/vex-repository.json"),
        ] {
            assert_eq!(manifest_of(text), wanted);
        }
    }

    #[test]
    fn the_hint_for_a_page_or_a_file_names_the_right_address() {
        use crate::hint::Hint;
        let github = "https://github.com/o/r ";
        for (text, advice) in [
            ("https://github.com/o/r/blob/main/vex-repository.json", github),
            ("https://github.com/o/r/tree/main", github),
            ("https://raw.githubusercontent.com/o/r/main/vex-repository.json", github),
            ("https://v.example/.well-known/vex-repository.json", "https://v.example "),
            ("https://v.example/a/vex-repository.json?x=y", "https://v.example/a "),
            ("https://github.com/o", "OWNER/REPOSITORY"),
            ("oci://r.example/x", "directory"),
            ("", "directory"),
        ] {
            let error = VexSource::parse(text).unwrap_err();
            assert!(error.is_usage() && error.hint().contains(advice), "{text}: {}", error.hint());
        }
        let error = VexSource::parse("https://me:secret@v.example/").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_eq!(VexSource::parse("./vex").unwrap(), VexSource::Directory("./vex".into()));
    }

    #[test]
    fn locations_are_read_as_go_getter_does() {
        for (text, url, name, subdir) in [
            ("https://h/a/main.tar.gz", "https://h/a/main.tar.gz", "main.tar.gz", ""),
            ("https://h/a/main.tar.gz//top", "https://h/a/main.tar.gz", "main.tar.gz", "top"),
            ("https://h/main.zip//a/b/?x=y", "https://h/main.zip?x=y", "main.zip", "a/b"),
            ("https://h/main.zip?u=https://x//y", "https://h/main.zip?u=https://x//y", "main.zip", ""),
            ("http://h:1/m.tgz//", "http://h:1/m.tgz", "m.tgz", ""),
            ("https://h/m.zip//*", "https://h/m.zip", "m.zip", "*"),
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!(
                (location.url.as_str(), location.name.as_str(), location.subdir.as_str()),
                (url, name, subdir)
            );
        }
        for bad in
            ["main.zip", "git::https://h/x", "s3://h/x", "https://h/x//../y", "https://h/x//[ab]", "https://"]
        {
            assert!(Location::parse(bad).is_err(), "{bad}");
        }
    }
}
