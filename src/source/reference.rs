//! The names of sources of artifacts: `HOST/REPOSITORY:TAG` in a registry, `oci-layout:DIR:TAG` on disk.
//!
//! Reads and writes such names. It fetches nothing.

use std::fmt;
use std::path::PathBuf;

use crate::remote::{RemoteError, Repository, is_tag};
use crate::source::error::SourceError;
use crate::util::redacted::Redacted;

/// The prefix of a source that is an OCI image layout on disk.
const LAYOUT: &str = "oci-layout:";

/// Where an artifact is fetched from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ArtifactSource {
    /// A repository in a registry.
    Registry(Repository),
    /// An OCI image layout in a folder.
    Layout {
        /// The folder that holds `index.json`.
        directory: PathBuf,
        /// The name of the manifest in `index.json`.
        tag: String,
    },
}

impl ArtifactSource {
    /// Reads a source as it stands on the command line. Where it has neither tag nor digest,
    /// `default_tag` is taken: a source without a tag would mean `latest`, which differs from
    /// what Trivy asks for.
    ///
    /// # Errors
    /// [`RemoteError::Address`] if the text names no repository, or no directory behind `oci-layout:`.
    pub fn parse(text: &str, default_tag: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        match text.strip_prefix(LAYOUT) {
            Some(rest) => Self::parse_layout(rest, default_tag),
            None => Ok(ArtifactSource::Registry(Repository::parse(text, default_tag)?)),
        }
    }

    fn parse_layout(rest: &str, default_tag: &str) -> Result<Self, SourceError> {
        let (directory, tag) = match rest.rsplit_once(':') {
            Some((directory, tag)) if is_tag(tag) => (directory, tag),
            _ => (rest, default_tag),
        };
        if directory.is_empty() {
            let hint = "Write it as oci-layout:DIR:TAG.".into();
            let (text, why) = (Redacted::new(&format!("{LAYOUT}{rest}")), "it names no folder".into());
            return Err(RemoteError::Address { text, why, hint }.into());
        }
        Ok(ArtifactSource::Layout { directory: directory.into(), tag: tag.into() })
    }

    /// The repository, where it is in a registry.
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            ArtifactSource::Registry(repository) => Some(repository),
            ArtifactSource::Layout { .. } => None,
        }
    }

    /// The registry's host with its port, as it is written in references; `None` for a folder.
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
            "oci-layout::2",
            &long,
        ] {
            let error = ArtifactSource::parse(text, "2").unwrap_err();
            assert!(error.is_usage(), "{text}: {error}");
        }
    }
}
