//! An image in a registry: a manifest, or an index with the manifests below it, and the blobs that they
//! name.
//!
//! This module fetches the manifests only; blobs are read when they are needed. Everything below the top is
//! named by its digest, so a registry cannot replace it.

use std::collections::HashSet;

use crate::digest::Digest;
use crate::oci::{Descriptor, Document, IndexEntry, Platform};
use crate::remote::RemoteError;
use crate::source::artifact::RawManifest;
use crate::source::network::Network;
use crate::source::{ArtifactSource, SourceError};
use crate::util::text::escape;

/// The maximum number of manifests in one image: some platforms with an attestation each.
const MAX_MANIFESTS: usize = 128;
/// The maximum size of all its manifests in bytes. They are held in memory.
const MAX_BYTES: usize = 8 << 20;
/// The maximum number of blobs in one image.
const MAX_BLOBS: usize = 4096;
/// The maximum depth of nested indexes.
const MAX_DEPTH: usize = 3;

/// An image, without its blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The source that it was fetched from.
    pub source: ArtifactSource,
    /// The manifest or index that the source names.
    pub top: ImageManifest,
    /// The manifests below the top, each before those that name it.
    pub below: Vec<ImageManifest>,
    /// The configurations and layers, each once.
    pub blobs: Vec<Descriptor>,
}

/// A manifest or an index with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// Its media type.
    pub media_type: &'static str,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes, as they were published.
    pub bytes: Vec<u8>,
}

struct Gathered<'n> {
    network: &'n Network<'n>,
    source: &'n ArtifactSource,
    max_blob: u64,
    below: Vec<ImageManifest>,
    blobs: Vec<Descriptor>,
    /// Manifests are tracked apart from blobs: a registry needs the same bytes twice if they
    /// are used as a manifest and as a blob.
    seen: HashSet<Digest>,
    seen_blobs: HashSet<Digest>,
    bytes: usize,
}

impl Network<'_> {
    /// Fetches an image's manifest or index and all manifests below it. A blob may have at most `max_blob`
    /// bytes.
    ///
    /// # Errors
    /// If a manifest cannot be fetched, as in [`Network::resolve`]; [`SourceError::Image`] if the image has a
    /// form that registries reject, too many manifests or blobs, a blob that is too large, or nothing for
    /// the platform.
    pub fn image(
        &self,
        source: &ArtifactSource,
        platform: Option<&Platform>,
        max_blob: u64,
    ) -> Result<Image, SourceError> {
        fetch(self, source, platform, max_blob)
    }
}

fn fetch(
    network: &Network<'_>,
    source: &ArtifactSource,
    platform: Option<&Platform>,
    max_blob: u64,
) -> Result<Image, SourceError> {
    let (below, blobs, seen, seen_blobs, bytes) = Default::default();
    let mut gathered = Gathered { network, source, max_blob, below, blobs, seen, seen_blobs, bytes };
    let raw = network.manifest(source)?;
    let raw = match platform {
        Some(platform) => gathered.for_platform(raw, platform)?,
        None => raw,
    };
    let top = gathered.gather(raw, 0)?;
    let Gathered { below, blobs, .. } = gathered;
    Ok(Image { source: source.clone(), top, below, blobs })
}

impl Gathered<'_> {
    fn bad(&self, why: impl AsRef<str>) -> SourceError {
        let hint = "Push it again with a current tool, use another tag, or omit it.";
        SourceError::Image { subject: self.source.to_string(), why: escape(why.as_ref()), hint }
    }

    /// Explains that a manifest below an index cannot be fetched. Some proxy repositories do not fetch
    /// attestations, which an index lists beside the images of the platforms.
    fn without_child(&self, entry: &IndexEntry, error: SourceError) -> SourceError {
        const HINT: &str = "Give --platform, such as linux/amd64, to carry one platform without the index and its attestations, or use another source.";
        if matches!(error, SourceError::Remote(RemoteError::Deadline { .. })) {
            return error;
        }
        let what = match &entry.platform {
            Some(platform) if platform.os != "unknown" => format!("its manifest for {platform}"),
            _ => "its attestation (a manifest for no platform)".into(),
        };
        let why = escape(&format!("{what} cannot be fetched: {error}"));
        SourceError::Image { subject: self.source.to_string(), why, hint: HINT }
    }

    fn parse(&self, raw: &RawManifest) -> Result<(&'static str, Document), SourceError> {
        Document::parse(&raw.bytes, raw.media_type.as_deref()).map_err(|why| self.bad(why))
    }

    /// Returns the manifest for a platform. A manifest that is not in an index is returned unchanged.
    fn for_platform(&self, raw: RawManifest, wanted: &Platform) -> Result<RawManifest, SourceError> {
        let (_, Document::Index(entries)) = self.parse(&raw)? else { return Ok(raw) };
        let fits = |platform: &Option<Platform>| platform.as_ref().is_some_and(|have| wanted.covers(have));
        match entries.iter().find(|entry| fits(&entry.platform)) {
            Some(entry) => self.network.child(self.source, &entry.descriptor),
            None => {
                let has: Vec<String> = entries
                    .iter()
                    .filter_map(|entry| entry.platform.as_ref())
                    .map(Platform::to_string)
                    .collect();
                let (why, hint) = match has.as_slice() {
                    [] => (
                        format!("it has nothing for {wanted}: its index names no platforms"),
                        "Omit --platform to carry everything in the index.",
                    ),
                    has => (
                        format!("it has nothing for {wanted}, only for {}", has.join(", ")),
                        "Give one of these with --platform, or no --platform for all of them.",
                    ),
                };
                let why = escape(&why);
                Err(SourceError::Image { subject: self.source.to_string(), why, hint })
            }
        }
    }

    /// Collects a manifest and everything that it names.
    fn gather(&mut self, raw: RawManifest, depth: usize) -> Result<ImageManifest, SourceError> {
        let (media_type, document) = self.parse(&raw)?;
        self.bytes += raw.bytes.len();
        if depth > MAX_DEPTH || self.below.len() >= MAX_MANIFESTS || self.bytes > MAX_BYTES {
            return Err(self.bad("its manifests are too many, too large or nested too deeply"));
        }
        match document {
            Document::Manifest(blobs) => {
                for blob in blobs {
                    if blob.size > self.max_blob {
                        return Err(self.bad(format!("its blob {} is too large", blob.digest)));
                    }
                    if self.seen_blobs.insert(blob.digest) {
                        self.blobs.push(blob);
                    } else if self.blobs.iter().any(|b| b.digest == blob.digest && b.size != blob.size) {
                        return Err(self.bad(format!("its blob {} has two sizes", blob.digest)));
                    }
                }
                if self.blobs.len() > MAX_BLOBS {
                    return Err(self.bad("it has too many blobs"));
                }
            }
            Document::Index(entries) => {
                for entry in entries {
                    if !self.seen.insert(entry.descriptor.digest) {
                        continue;
                    }
                    let raw = self.network.child(self.source, &entry.descriptor);
                    let raw = raw.map_err(|error| self.without_child(&entry, error))?;
                    let manifest = self.gather(raw, depth + 1)?;
                    self.below.push(manifest);
                }
            }
        }
        Ok(ImageManifest { media_type, digest: raw.digest, bytes: raw.bytes })
    }
}

#[cfg(test)]
mod tests {
    const MAX_BLOB: u64 = 1 << 30;

    use std::fs;
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::oci;
    use crate::remote::{RemoteOptions, RetryLimits};

    /// An image layout on disk.
    struct Layout(tempfile::TempDir);

    impl Layout {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
            Layout(dir)
        }

        /// Adds a document and returns its descriptor.
        fn add(&self, media_type: &str, document: &Value) -> Value {
            let bytes = document.to_string();
            let digest = Digest::of(bytes.as_bytes());
            fs::write(self.path().join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
            json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
        }

        fn manifest(&self, layer: &str, size: u64) -> Value {
            let blob = |text: &str, size: u64| json!({ "mediaType": "x", "digest": Digest::of(text.as_bytes()), "size": size });
            let layers = [blob(layer, size)];
            self.add(oci::MANIFEST, &json!({ "schemaVersion": 2, "config": blob("{}", 2), "layers": layers }))
        }

        fn index(&self, entries: &[Value]) -> Value {
            self.add(oci::INDEX, &json!({ "schemaVersion": 2, "manifests": entries }))
        }

        fn fetch(&self, top: &Value, platform: Option<&str>) -> Result<Image, String> {
            let index = json!({ "schemaVersion": 2, "manifests": [top] });
            fs::write(self.path().join("index.json"), index.to_string()).unwrap();
            let source = ArtifactSource::Layout { directory: self.path().into(), tag: "1".into() };
            let network = Network::new(
                RemoteOptions::default(),
                RetryLimits::default().begin(),
                &crate::progress::Silent,
            )
            .unwrap();
            let platform = platform.map(|platform| platform.parse().unwrap());
            network.image(&source, platform.as_ref(), MAX_BLOB).map_err(|error| error.to_string())
        }

        fn path(&self) -> &Path {
            self.0.path()
        }
    }

    fn on(platform: (&str, &str), mut entry: Value) -> Value {
        entry["platform"] = json!({ "os": platform.0, "architecture": platform.1 });
        entry
    }

    #[test]
    fn everything_below_a_name_is_listed_once_with_children_first() {
        let layout = Layout::new();
        let (one, two) = (layout.manifest("one", 3), layout.manifest("two", 3));
        let inner = layout.index(&[one.clone(), two.clone()]);
        let top = layout.index(&[inner.clone(), one.clone()]);
        let image = layout.fetch(&top, None).unwrap();
        let digests: Vec<String> = image.below.iter().map(|manifest| manifest.digest.to_string()).collect();
        let wanted = [&one, &two, &inner].map(|entry| entry["digest"].as_str().unwrap().to_owned());
        assert_eq!(digests, wanted);
        assert_eq!(image.blobs.len(), 3, "the configuration is shared");
        assert_eq!(image.top.digest.to_string(), top["digest"].as_str().unwrap());
    }

    /// Some proxy repositories do not fetch attestations (sonatype/nexus-public issue 1070), and images of
    /// one platform are indexes because of attestations (scylladb/vector-store pull request 552).
    #[test]
    fn the_hint_for_a_child_that_cannot_be_fetched_names_the_platform_flag() {
        let layout = Layout::new();
        let (image, attestation) = (layout.manifest("one", 3), layout.manifest("attestation", 3));
        let gone = attestation["digest"].as_str().unwrap().replace("sha256:", "");
        fs::remove_file(layout.path().join("blobs/sha256").join(gone)).unwrap();
        let amd64 = on(("linux", "amd64"), image.clone());
        for (child, word) in [
            (on(("unknown", "unknown"), attestation.clone()), "its attestation"),
            (attestation.clone(), "its attestation"),
            (on(("linux", "arm64"), attestation), "its manifest for linux/arm64"),
        ] {
            let top = layout.index(&[amd64.clone(), child]);
            let network = Network::new(
                RemoteOptions::default(),
                RetryLimits::default().begin(),
                &crate::progress::Silent,
            )
            .unwrap();
            let index = json!({ "schemaVersion": 2, "manifests": [top] });
            fs::write(layout.path().join("index.json"), index.to_string()).unwrap();
            let source = ArtifactSource::Layout { directory: layout.path().into(), tag: "1".into() };
            let error = network.image(&source, None, MAX_BLOB).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert!(crate::hint::Hint::hint(&error).contains("--platform"), "{error}");
            let platform = "linux/amd64".parse().unwrap();
            let one = network.image(&source, Some(&platform), MAX_BLOB).unwrap();
            assert_eq!(one.top.digest.to_string(), image["digest"].as_str().unwrap());
        }
    }

    #[test]
    fn one_platform_is_one_manifest() {
        let layout = Layout::new();
        let (one, two) = (layout.manifest("one", 3), layout.manifest("two", 3));
        let top = layout.index(&[on(("linux", "amd64"), one), on(("linux", "arm64"), two.clone())]);
        let image = layout.fetch(&top, Some("linux/arm64")).unwrap();
        assert_eq!(image.top.digest.to_string(), two["digest"].as_str().unwrap());
        assert_eq!((image.below.len(), image.blobs.len()), (0, 2));
        let error = layout.fetch(&top, Some("plan9/mips")).unwrap_err();
        assert!(error.contains("only for linux/amd64, linux/arm64"), "{error}");
    }

    #[test]
    fn images_that_exceed_a_limit_are_rejected() {
        let layout = Layout::new();
        let mut deep = layout.manifest("one", 3);
        for _ in 0..=MAX_DEPTH {
            deep = layout.index(&[deep]);
        }
        let many: Vec<Value> = (0..=MAX_MANIFESTS).map(|n| layout.manifest(&n.to_string(), 3)).collect();
        for top in [deep, layout.index(&many)] {
            let error = layout.fetch(&top, None).unwrap_err();
            assert!(error.contains("too many, too large or nested"), "{error}");
        }
        let huge = layout.manifest("one", MAX_BLOB + 1);
        assert!(layout.fetch(&huge, None).unwrap_err().contains("too large"));
        let two_sizes = layout.index(&[layout.manifest("one", 3), layout.manifest("one", 4)]);
        assert!(layout.fetch(&two_sizes, None).unwrap_err().contains("two sizes"));
    }
}
