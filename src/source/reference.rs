//! The names of sources of artifacts: `HOST/REPOSITORY:TAG` in a registry, `oci-layout:DIR:TAG` on disk.
//!
//! This module parses and formats such names. It fetches nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::remote::{RemoteError, Repository, is_tag};
use crate::source::error::SourceError;
use crate::util::redacted::Redacted;

/// The prefix of a source that is an OCI image layout on disk.
const LAYOUT: &str = "oci-layout:";

/// The prefix that other tools use for a layout in a tar file.
const ARCHIVE: &str = "oci-archive:";

/// Splits the text after the prefix into a directory and the name of a manifest. Both may contain colons: the
/// longest directory that exists is used; if none exists, the shortest one that is followed by a digest or a reference with
/// a host; else the text is split at the last colon.
fn split_layout(rest: &str) -> Option<(&str, &str)> {
    if Path::new(rest).is_dir() {
        return None;
    }
    let split = |(at, _): (usize, &str)| (&rest[..at], &rest[at + 1..]);
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_of_name);
    let mut longest_first = rest.rmatch_indices(':').map(split);
    let there = longest_first.find(|(directory, name)| is_name(name) && Path::new(directory).is_dir());
    let mut shortest_first = rest.match_indices(':').map(split);
    there
        .or_else(|| shortest_first.find(|(directory, name)| !directory.is_empty() && is_complete_name(name)))
        .or_else(|| rest.rsplit_once(':').filter(|(_, tag)| is_tag(tag)))
}

/// Whether the name of a manifest may contain this character.
fn is_of_name(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"._-/:@[]".contains(&c)
}

fn is_digest(name: &str) -> bool {
    name.strip_prefix('@').unwrap_or(name).parse::<Digest>().is_ok()
}

/// Whether a text can only be the name of a manifest: a digest, or a reference with a host.
fn is_complete_name(name: &str) -> bool {
    let host = name.split('/').next().unwrap_or_default();
    let has_host = name.contains('/') && (host.contains('.') || host.contains(':') || host == "localhost");
    is_digest(name) || (has_host && Repository::parse(name, "latest").is_ok())
}

/// The source of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ArtifactSource {
    /// A repository in a registry.
    Registry(Repository),
    /// An OCI image layout in a directory.
    Layout {
        /// The directory that holds `index.json`.
        directory: PathBuf,
        /// The name of the manifest in `index.json`: a tag, a complete reference, or a digest.
        tag: String,
    },
}

impl ArtifactSource {
    /// Parses a source as written on the command line. If it has neither tag nor digest, `default_tag` is
    /// used: `latest`, the usual default, differs from the tag that Trivy requests.
    ///
    /// # Errors
    /// [`RemoteError::Address`] if the text names no repository, or no directory after `oci-layout:`.
    pub fn parse(text: &str, default_tag: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        if let Some(file) = text.strip_prefix(ARCHIVE) {
            let file = file.split(':').next().unwrap_or_default();
            let hint = "Unpack it (`mkdir DIR; tar -xf FILE -C DIR`), and give oci-layout:DIR:NAME.".into();
            let why = format!("the archive {} cannot be read in place", Redacted::new(file));
            return Err(RemoteError::Address { text: Redacted::new(text), why, hint }.into());
        }
        match text.strip_prefix(LAYOUT) {
            Some(rest) => Self::parse_layout(rest, default_tag),
            None => Ok(ArtifactSource::Registry(Repository::parse(text, default_tag)?)),
        }
    }

    fn parse_layout(rest: &str, default_tag: &str) -> Result<Self, SourceError> {
        let (directory, tag) = split_layout(rest).unwrap_or((rest, default_tag));
        if directory.is_empty() {
            let hint = "Write it as oci-layout:DIR:TAG.".into();
            let (text, why) = (Redacted::new(&format!("{LAYOUT}{rest}")), "it names no directory".into());
            return Err(RemoteError::Address { text, why, hint }.into());
        }
        Ok(ArtifactSource::Layout { directory: directory.into(), tag: tag.into() })
    }

    /// The repository, if the source is a registry.
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            ArtifactSource::Registry(repository) => Some(repository),
            ArtifactSource::Layout { .. } => None,
        }
    }

    /// The registry's host with its port, as written in references; `None` for a directory.
    pub fn host(&self) -> Option<&str> {
        match self {
            ArtifactSource::Registry(repository) => Some(repository.host()),
            ArtifactSource::Layout { .. } => None,
        }
    }
}

/// The canonical form, always with a tag or a digest.
impl fmt::Display for ArtifactSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArtifactSource::Registry(repository) => repository.fmt(f),
            ArtifactSource::Layout { directory, tag } => write!(f, "{LAYOUT}{}:{tag}", directory.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_print_canonically_with_their_tag() {
        let digest = format!("r.example/x@sha256:{HEX}");
        let both = format!("r.example:443/x:3@sha256:{HEX}");
        let layout = format!("oci-layout:x:sha256:{HEX}");
        for (text, wanted) in [
            ("ghcr.io/aquasecurity/trivy-db", "ghcr.io/aquasecurity/trivy-db:2"),
            ("ghcr.io/aquasecurity/trivy-db:7", "ghcr.io/aquasecurity/trivy-db:7"),
            ("localhost:5000/trivy-db", "localhost:5000/trivy-db:2"),
            ("localhost:5000/trivy-db:latest", "localhost:5000/trivy-db:latest"),
            ("[::1]:5000/a/b", "[::1]:5000/a/b:2"),
            ("[::1]/a:1", "[::1]/a:1"),
            ("aquasec/trivy-db", "docker.io/aquasec/trivy-db:2"),
            ("oci-layout:dir", "oci-layout:dir:2"),
            ("oci-layout:/a/b:c/d", "oci-layout:/a/b:c/d:2"),
            ("oci-layout:/a/b:latest", "oci-layout:/a/b:latest"),
            ("oci-layout:x:ghcr.io/a/b:2", "oci-layout:x:ghcr.io/a/b:2"),
            ("oci-layout:/x/y:localhost:5000/b:2", "oci-layout:/x/y:localhost:5000/b:2"),
            (&layout, &layout),
            (&digest, &digest),
            (&both, &both),
        ] {
            assert_eq!(ArtifactSource::parse(text, "2").unwrap().to_string(), wanted, "{text}");
        }
        let source = ArtifactSource::parse("[::1]:5000/a/b", "2").unwrap();
        assert_eq!(source.host(), Some("[::1]:5000"));
        assert_eq!(ArtifactSource::parse("oci-layout:x", "2").unwrap().host(), None);
    }

    #[test]
    fn wrong_references_are_usage_errors() {
        let long = format!("r.example/x@sha512:{HEX}{HEX}");
        for text in [
            "",
            "trivy-db",
            "localhost:5000",
            "https://ghcr.io/aquasecurity/trivy-db:2",
            "oci://ghcr.io/x:2",
            "ghcr.io/UPPER/x",
            "ghcr.io/x:a b",
            "[::g]:5000/x",
            "[::1]x/y",
            "oci-layout:",
            "oci-archive:x.tar:2",
            "oci-layout::2",
            &long,
        ] {
            let error = ArtifactSource::parse(text, "2").unwrap_err();
            assert!(error.is_usage(), "{text}: {error}");
        }
    }
}
