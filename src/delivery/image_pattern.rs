//! `--image` of `import`, `watch` and `serve`: the images to import from a bundle, and the place of
//! each image if the operator chooses one.

use std::fmt;
use std::str::FromStr;

use crate::bundle::VerifiedBundle;
use crate::digest::Digest;
use crate::error::Error;
use crate::remote::{RemoteError, Repository, is_tag};

/// The default tag of an image's name.
const TAG: &str = "latest";

/// A string that is not a valid pattern for images.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPattern(String);

/// A pattern for names of images: `HOST/REPOSITORY[:TAG][@DIGEST]`. `*` matches any number of any characters,
/// including `/`. A pattern without a tag matches every tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePattern {
    /// The pattern as it was given, for messages.
    text: String,
    /// The host and the repository.
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImagePattern {
    /// Whether the pattern matches the name of an image in a bundle.
    pub fn matches(&self, image: &str) -> bool {
        let Ok(image) = Repository::parse(image, TAG) else {
            // `*` includes invalid names, so that an error reports them.
            return self.name == "*";
        };
        let name = format!("{}/{}", image.host().to_ascii_lowercase(), image.name());
        let tag = match (&self.tag, image.tag()) {
            (None, _) => true,
            (Some(pattern), Some(tag)) => fits(pattern, tag),
            (Some(_), None) => false,
        };
        let digest = self.digest.is_none_or(|wanted| image.digest() == Some(wanted));
        fits(&self.name, &name) && tag && digest
    }

    /// Whether the pattern has no `*`.
    fn is_exact(&self) -> bool {
        !self.name.contains('*') && !self.tag.as_ref().is_some_and(|tag| tag.contains('*'))
    }
}

impl FromStr for ImagePattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let wrong =
            |why: &str| InvalidPattern(format!("{why}; write HOST/REPOSITORY:TAG, with * for any text"));
        if text.contains("://") {
            return Err(wrong("an image has no scheme such as https://"));
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| wrong("its digest is not a lower-case sha256"))?;
                (rest, Some(digest))
            }
        };
        let (path, last) = rest.rsplit_once('/').unwrap_or(("", rest));
        let (last, tag) = match last.split_once(':') {
            Some((last, tag)) => (last, Some(tag.to_owned())),
            None => (last, None),
        };
        if tag.as_ref().is_some_and(|tag| tag.is_empty() || !is_tag(&tag.replace('*', "x"))) {
            return Err(wrong("its tag is not valid"));
        }
        let name = if path.is_empty() { last.to_owned() } else { format!("{path}/{last}") };
        let name = canonical(&name).map_err(|why| wrong(&why))?;
        Ok(ImagePattern { text: text.to_owned(), name, tag, digest })
    }
}

/// Returns the host and the repository in the form of the image names in a bundle. The default host is Docker Hub's.
fn canonical(name: &str) -> Result<String, String> {
    if !name.contains('*') {
        if !name.is_empty() && !name.contains('/') {
            return Err(format!("an official image of Docker Hub is written as library/{name}"));
        }
        let name = Repository::parse(name, TAG).map_err(|error| match error {
            RemoteError::Address { why, .. } => why,
            other => other.to_string(),
        })?;
        return Ok(format!("{}/{}", name.host().to_ascii_lowercase(), name.name()));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:[]*".contains(c);
    if !name.chars().all(plain) {
        return Err("it has characters that are not allowed in names".into());
    }
    let name = name.to_ascii_lowercase();
    Ok(match name.split_once('/') {
        Some((first, _)) if !first.contains(['.', ':', '*', '[']) && first != "localhost" => {
            format!("docker.io/{name}")
        }
        _ => name,
    })
}

/// Whether a text matches a pattern in which `*` matches any number of any characters.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        // The earliest match leaves the most text for the parts that follow.
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The value of one `--image` of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedImage {
    /// The images to import.
    pub pattern: ImagePattern,
    /// The place that the operator chose. If `None`, the image's name decides.
    pub place: Option<ChosenPlace>,
}

impl FromStr for WantedImage {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let Some((pattern, place)) = text.split_once('=') else {
            return Ok(WantedImage { pattern: text.parse()?, place: None });
        };
        let pattern: ImagePattern = pattern.parse()?;
        if !pattern.is_exact() {
            return Err(InvalidPattern(
                "a place is for one image, but * matches many; name the image without *".into(),
            ));
        }
        Ok(WantedImage { pattern, place: Some(place.parse()?) })
    }
}

impl fmt::Display for WantedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pattern.fmt(f)?;
        self.place.iter().try_for_each(|place| write!(f, "={place}"))
    }
}

/// `HOST/PATH[:TAG]`: the place that the operator chose for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenPlace {
    host: String,
    name: String,
    /// The tag, if the operator chose one.
    tag: Option<String>,
}

impl ChosenPlace {
    /// Returns the registry's host with its port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the reference under which an image is pushed.
    ///
    /// # Errors
    /// If the name or the tag is not valid for a repository.
    pub fn of(&self, image: &Repository) -> Result<Repository, RemoteError> {
        let at = Repository::at(&self.host, &self.name, self.tag.as_deref().or(image.tag()).unwrap_or(TAG))?;
        Ok(match (&self.tag, image.tag(), image.digest()) {
            (None, None, Some(digest)) => at.by_digest(digest),
            _ => at,
        })
    }
}

impl FromStr for ChosenPlace {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let wrong = |why: &str| InvalidPattern(format!("{why}; write NAME=HOST/PATH:TAG"));
        if text.contains("://") {
            return Err(wrong("a registry has no scheme such as https://"));
        }
        if text.contains('@') {
            return Err(wrong("the place of an image must not have a digest"));
        }
        let (host, path) = text.split_once('/').ok_or_else(|| wrong("the place names no repository"))?;
        let (name, tag) = match path.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag.to_owned())),
            None => (path, None),
        };
        let place = ChosenPlace { host: host.into(), name: name.into(), tag };
        let probe = Repository::at(&place.host, &place.name, place.tag.as_deref().unwrap_or(TAG));
        probe.map_err(|error| wrong(&error.to_string()))?;
        Ok(place)
    }
}

impl fmt::Display for ChosenPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
    }
}

/// Returns errors and warnings for patterns that match no image of the bundles: an error for a name, which may be
/// misspelled, and a warning for a pattern with `*`.
pub(crate) fn unmatched<'p>(
    patterns: impl IntoIterator<Item = &'p ImagePattern>,
    bundles: &[VerifiedBundle],
) -> (Vec<Error>, Vec<String>) {
    let images = || bundles.iter().flat_map(|bundle| &bundle.payload().images);
    let mut held: Vec<&str> = images().map(|image| image.name.as_str()).collect();
    held.sort_unstable();
    held.dedup();
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    for pattern in patterns {
        if held.iter().any(|name| pattern.matches(name)) {
            continue;
        }
        let what = format!("no bundle here holds an image {pattern}, which --image requests");
        if !pattern.is_exact() {
            warnings.push(what);
            continue;
        }
        let hint = match held.join(", ") {
            names if names.is_empty() => "Export the image with --image: the bundles hold no images.".into(),
            names => format!("Export the image with --image, or request one of these: {names}."),
        };
        errors.push(Error::usage(what, hint));
    }
    (errors, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, image: &str) -> bool {
        pattern.parse::<ImagePattern>().unwrap().matches(image)
    }

    #[test]
    fn a_pattern_matches_the_full_name() {
        let digest = Digest::of(b"x");
        let pinned = format!("ghcr.io/a/b@{digest}");
        for (pattern, image, wanted) in [
            ("ghcr.io/a/b:1", "ghcr.io/a/b:1", true),
            ("ghcr.io/a/b:1", "ghcr.io/a/b:2", false),
            ("ghcr.io/a/b:1", "ghcr.io/a/b:10", false),
            ("ghcr.io/a/b", "ghcr.io/a/b:2", true),
            ("ghcr.io/a/b", "ghcr.io/a/b/c:2", false),
            ("ghcr.io/a/b", "quay.io/a/b:2", false),
            ("ghcr.io/a/*", "ghcr.io/a/b/c:2", true),
            ("ghcr.io/a/*", "ghcr.io.evil.example/a/b:2", false),
            ("ghcr.io/*/b:1.*", "ghcr.io/a/c/b:1.2", true),
            ("ghcr.io/*/b:1.*", "ghcr.io/a/c/b:11", false),
            ("*/a/b", "quay.io/a/b:2", true),
            ("*", "localhost:5000/x:1", true),
            ("*:1", "localhost:5000/x:1", true),
            ("*:1", "localhost:5000/x:2", false),
            ("aquasec/trivy", "docker.io/aquasec/trivy:0.74.0", true),
            ("aquasec/*", "docker.io/aquasec/trivy:0.74.0", true),
            ("aquasec/*", "ghcr.io/aquasec/trivy:0.74.0", false),
            ("[::1]:5000/a", "[::1]:5000/a:1", true),
            ("GHCR.io/a/*", "ghcr.io/a/b:1", true),
            ("ghcr.io/a/b:1", &pinned, false),
            ("ghcr.io/a/b", &pinned, true),
            (&pinned, &pinned, true),
            (&pinned, "ghcr.io/a/b:1", false),
            ("*", "ghcr.io/UPPER:1", true),
            ("ghcr.io/*", "ghcr.io/UPPER:1", false),
        ] {
            assert_eq!(matches(pattern, image), wanted, "{pattern} {image}");
        }
    }

    #[test]
    fn stars_match_any_text() {
        for (pattern, text, wanted) in [
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*ab*ab*", "abab", true),
            ("*ab*ab*", "abb", false),
            ("a**b", "axb", true),
            ("*b", "abab", true),
            ("a*b*c", "abcbc", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern, text), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn an_invalid_pattern_is_rejected_with_a_reason() {
        for (text, why) in [
            ("trivy", "is written as library/trivy"),
            ("", "no repository after the host"),
            ("https://ghcr.io/a/b", "no scheme"),
            ("ghcr.io/a/b:", "tag"),
            ("ghcr.io/a/b:a b", "tag"),
            ("ghcr.io/a b*", "characters"),
            ("ghcr.io/a/b@sha256:1", "digest"),
            ("ghcr.io/a/*=r.example/x:1", "* matches many"),
            ("ghcr.io/a/b=r.example", "names no repository"),
            ("ghcr.io/a/b=https://r.example/x", "no scheme"),
            ("ghcr.io/a/b=r.example/x@sha256:1", "must not have a digest"),
            ("ghcr.io/a/b=r.example/UPPER:1", "not a usable address"),
        ] {
            let error = text.parse::<WantedImage>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_chosen_place_keeps_the_images_tag_unless_it_has_one() {
        let to = |place: &str, image: &str| {
            let wanted: WantedImage = format!("ghcr.io/a/b={place}").parse().unwrap();
            let image = Repository::parse(image, TAG).unwrap();
            wanted.place.unwrap().of(&image).unwrap().to_string()
        };
        let digest = Digest::of(b"x");
        let pinned = format!("ghcr.io/a/b@{digest}");
        assert_eq!(to("registry/tools/b", "ghcr.io/a/b:1"), "registry/tools/b:1");
        assert_eq!(to("registry/tools/b:stable", "ghcr.io/a/b:1"), "registry/tools/b:stable");
        assert_eq!(to("registry/tools/b:stable", &pinned), "registry/tools/b:stable");
        assert_eq!(to("registry/tools/b", &pinned), format!("registry/tools/b@{digest}"));
    }
}
