//! The payload: the part of a bundle that its signature covers. This module defines its JSON form, checks the
//! rules that a payload can break by itself, and reads no members.

mod blob;
pub mod delta;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Read, Seek};
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::bundle::format::{FORMAT, MANIFEST, MAX_MEMBER, SUMS};
use crate::bundle::header;
pub use crate::bundle::payload::blob::Blob;
use crate::bundle::payload::delta::Delta;
use crate::bundle::volumes::{self, Volume};
use crate::dataset::check::{UnpackError, UnpackLimits};
use crate::dataset::vex::{self, ArchiveFormat};
use crate::dataset::{Contents, DatasetRef, Kind, MissingItem, Name, RelPath, Sink, catalogue, layer};
use crate::digest::Digest;
use crate::oci;
use crate::util::json;
use crate::util::text::{Unverified, escape};

/// The limit in bytes for all manifests of datasets, those of VEX repositories included, and for all manifests
/// of images. Real ones take a few KiB.
const MAX_DESCRIBED: u64 = 8 << 20;
/// The longest source of a VEX repository, in bytes.
const MAX_SOURCE: usize = 4096;
/// The most datasets in one bundle.
const MAX_DATASETS: usize = 64;
/// The most images in one bundle.
pub const MAX_IMAGES: usize = 64;

/// The name of a stream: `[a-z0-9][a-z0-9._-]*`, at most 32 characters. It is part of file names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stream(String);

/// A string that cannot name a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid stream name: use at most 32 lower-case letters, digits, '.', '_' and '-'")]
pub struct InvalidStream;

impl Stream {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Stream {
    type Err = InvalidStream;

    fn from_str(text: &str) -> Result<Self, InvalidStream> {
        let good = (1..=32).contains(&text.len())
            && text.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
            && !text.starts_with(['.', '_', '-']);
        if good { Ok(Stream(text.into())) } else { Err(InvalidStream) }
    }
}

impl TryFrom<String> for Stream {
    type Error = InvalidStream;

    fn try_from(text: String) -> Result<Self, InvalidStream> {
        text.parse()
    }
}

impl From<Stream> for String {
    fn from(stream: Stream) -> String {
        stream.0
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The signed payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// The version of the format: 1.
    pub format: u32,
    /// Features that a reader must support to read this bundle.
    #[serde(default)]
    pub requires: Vec<String>,
    /// The program that wrote it, for information only.
    pub producer: String,
    /// The stream that it belongs to.
    pub stream: Stream,
    /// The creation time, in whole seconds.
    pub created: Timestamp,
    /// The time after which it must not be used, if the exporter set one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Its number in the stream, if the exporter keeps state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The identity of the bundle before it in the stream, if the exporter keeps state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// The length of the bundle in bytes, including all volumes.
    pub length: u64,
    /// All members except the manifest, in the order of the file.
    pub members: Vec<Member>,
    /// The datasets that the members form.
    pub datasets: Vec<Dataset>,
    /// The images in the bundle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// The volumes after the head, if the bundle is split.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// The items that the exporter should have carried but could not get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingItem>,
}

/// One member of the tar file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// One dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// Its name.
    pub name: Name,
    /// Its tag: the schema version of a database, the major version of checks, the version of the
    /// VEX repository specification.
    pub tag: String,
    /// Its origin, for information only.
    pub source: String,
    /// Upstream's manifest.
    pub manifest: Blob,
    /// Upstream's configuration blob.
    pub config: Blob,
    /// Upstream's layers, in the manifest's order. They are members, unless there is a delta.
    pub layers: Vec<Blob>,
    /// Its files, if they are carried in place of its layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<Delta>,
    /// The version in an annotation of upstream, for information only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The directory inside a VEX archive that holds the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdir: Option<RelPath>,
    /// The description of its unpacked content.
    pub contents: Contents,
}

/// An image, or another OCI artifact, with everything that a registry needs to store it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its full name, with host and tag or digest: `docker.io/aquasec/trivy:0.74.0`.
    pub name: String,
    /// Its origin, for information only.
    pub source: String,
    /// The manifest or index that its name refers to.
    pub manifest: Blob,
    /// The manifests below it, each before the manifests that refer to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Blob>,
    /// The configurations and layers, without duplicates.
    pub blobs: Vec<Blob>,
}

impl Image {
    /// Returns all its blobs.
    pub fn all(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.manifest).chain(&self.manifests).chain(&self.blobs)
    }

    /// Returns its size in bytes.
    pub fn size(&self) -> u64 {
        self.all().map(|blob| blob.size).fold(0, u64::saturating_add)
    }

    /// Returns its name in the OCI image layout, in characters that every tool accepts.
    pub fn reference(&self) -> String {
        self.name.replace(['/', ':', '@', '[', ']'], "-")
    }

    fn check(&self, members: &BTreeMap<&str, &Member>) -> Result<(), String> {
        let name = &self.name;
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"._-/:@[]".contains(&c);
        let named = name.split_once('/').is_some_and(|(host, rest)| {
            !host.is_empty() && rest.rsplit('/').next().is_some_and(|last| last.contains([':', '@']))
        });
        if !named || name.len() > 512 || !name.bytes().all(plain) {
            return Err("is not a full image name".into());
        }
        if let Some((_, pinned)) = name.split_once('@')
            && pinned != self.manifest.digest.to_string()
        {
            return Err(format!("has the manifest {}", self.manifest.digest));
        }
        for blob in self.all() {
            let path = blob.path();
            if members.get(path.as_str()).is_none_or(|member| member.size != blob.size) {
                return Err(format!("needs {path}, which is not listed with its size"));
            }
        }
        let known = [oci::MANIFEST, oci::DOCKER_MANIFEST, oci::INDEX, oci::DOCKER_LIST];
        let mut manifests = std::iter::once(&self.manifest).chain(&self.manifests);
        match manifests.find(|m| !known.contains(&m.media_type.as_str()) || m.size > oci::MAX_MANIFEST) {
            Some(bad) => Err(format!("has a manifest of type {:?} and {} bytes", bad.media_type, bad.size)),
            None => Ok(()),
        }
    }
}

impl Dataset {
    /// Returns its name in the OCI image layout: `trivy-db-2`. It is also the key of its floor in the state.
    pub fn reference(&self) -> String {
        self.dataset_ref().to_string()
    }

    /// Returns its name with its tag.
    pub fn dataset_ref(&self) -> DatasetRef {
        DatasetRef::new(self.name.clone(), self.tag.clone())
    }

    /// Returns all its blobs that are members: the manifest, the configuration, and the layers or the delta.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        let layers = self.layers.iter().filter(|_| self.delta.is_none());
        let delta = self.delta.iter().flat_map(Delta::blobs);
        [&self.manifest, &self.config].into_iter().chain(layers).chain(delta)
    }

    /// Checks that its manifest names the blobs that the payload lists, so that a registry serves exactly the
    /// signed content for that manifest.
    ///
    /// # Errors
    /// If the bytes are not a manifest, or name other blobs than the payload lists. The text is a clause about the
    /// dataset.
    pub fn agrees_with(&self, manifest: &[u8]) -> Result<(), String> {
        let manifest =
            oci::Manifest::parse(manifest).map_err(|why| format!("cannot use its manifest: {why}"))?;
        let named = manifest.blobs().map(|blob| (blob.digest, blob.size));
        let listed = std::iter::once(&self.config).chain(&self.layers).map(|blob| (blob.digest, blob.size));
        match named.eq(listed) {
            true => Ok(()),
            false => Err("its manifest names other blobs than the signed ones".into()),
        }
    }

    /// Returns the URL of a VEX repository. `None` if its source is a directory, or for other datasets.
    pub fn vex_url(&self) -> Option<&str> {
        let is_url = self.source.starts_with("https://") || self.source.starts_with("http://");
        Some(self.source.as_str()).filter(|_| is_url && self.name.kind() == Kind::Vex)
    }

    /// Checks the source of a VEX repository, because it is written into the configuration of scanners.
    fn check_vex_source(&self) -> Result<(), String> {
        let source = &self.source;
        let bad = |why: &str| Err(format!("has the source \"{}\", which {why}", escape(source)));
        if source.len() > MAX_SOURCE || source.chars().any(char::is_control) {
            return bad("is too long or contains control characters");
        }
        let Some(text) = self.vex_url() else { return Ok(()) };
        let Ok(url) = Url::parse(text) else { return bad("is not a URL") };
        if !url.username().is_empty() || url.password().is_some() {
            return bad("contains a login");
        }
        // Another parser might interpret any other form as a different address.
        let plain = |url: &str| url.trim_end_matches('/').to_owned();
        if plain(url.as_str()) != plain(text) || !text.bytes().all(|c| c.is_ascii_graphic()) {
            return bad("is not in normal form");
        }
        Ok(())
    }

    /// Returns the number of bytes that a reader keeps in memory: the manifests of the dataset and of a VEX
    /// repository.
    fn described(&self) -> u64 {
        let own = self.layers.iter().filter(|layer| layer.media_type == catalogue::VEX_MANIFEST_LAYER);
        own.map(|layer| layer.size).fold(self.manifest.size, u64::saturating_add)
    }

    /// Unpacks its content from the bytes of its layer into a sink, up to the signed size.
    ///
    /// # Errors
    /// [`UnpackError::Content`] if the content is invalid or larger than the signed size; [`UnpackError::Read`] if
    /// the bytes cannot be read; [`UnpackError::Sink`] if the sink fails.
    pub fn unpack(
        &self,
        archive: impl Read + Seek + Send,
        sink: &mut dyn Sink,
    ) -> Result<Contents, UnpackError> {
        let limits = UnpackLimits::exactly(&self.contents);
        match self.name.kind() {
            Kind::Vex => {
                let media_type = self.content_layer().map_or("", |layer| layer.media_type.as_str());
                let subdir = self.subdir.as_ref().map_or("", |subdir| subdir.as_str());
                vex::unpack(ArchiveFormat::by_media_type(media_type), archive, subdir, limits, sink)
            }
            kind => layer::unpack(kind, archive, limits, sink),
        }
    }

    /// Returns the layer that holds the content.
    pub fn content_layer(&self) -> Option<&Blob> {
        self.layers.first()
    }
}

/// Returns the text of `SHA256SUMS` for these members.
pub(super) fn sums<'m>(members: impl IntoIterator<Item = &'m Member>) -> String {
    use fmt::Write;
    let others = members.into_iter().filter(|member| member.path != SUMS);
    others.fold(String::new(), |mut text, member| {
        let _ = writeln!(text, "{}  {}", member.digest.hex(), member.path);
        text
    })
}

/// The reason why a payload cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BadPayload {
    /// It needs a feature that this version does not support.
    Unknown(Unverified),
    /// It breaks a rule of the format.
    Rule(Unverified),
}

impl Payload {
    /// Parses and checks a payload. It checks the required features first, so that the error for a later format
    /// names the format and not a syntax error.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BadPayload> {
        #[derive(Deserialize)]
        struct Probe {
            format: u32,
            #[serde(default)]
            requires: Vec<String>,
        }
        let rule = |e: serde_json::Error| BadPayload::Rule(e.to_string().into());
        let probe: Probe = json::from_slice(bytes).map_err(rule)?;
        if probe.format != FORMAT {
            return Err(BadPayload::Unknown(format!("format version {}", probe.format).into()));
        }
        let known = |feature: &str| feature == volumes::FEATURE || delta::is_feature(feature);
        if let Some(feature) = probe.requires.into_iter().find(|feature| !known(feature)) {
            return Err(BadPayload::Unknown(feature.into()));
        }
        let payload: Payload = json::from_slice(bytes).map_err(rule)?;
        payload.check().map_err(|why| BadPayload::Rule(why.into()))?;
        Ok(payload)
    }

    /// Checks the rules of the format that a payload can break by itself.
    pub(super) fn check(&self) -> Result<(), String> {
        let members = self.check_members()?;
        self.check_volumes()?;
        self.check_features()?;
        MissingItem::check(&self.missing).map_err(|why| format!("it {why}"))?;
        let (datasets, images) = (self.datasets.len(), self.images.len());
        if datasets + images == 0 || datasets > MAX_DATASETS || images > MAX_IMAGES {
            let limits = format!("limits: {MAX_DATASETS} and {MAX_IMAGES}, and at least one item");
            return Err(format!("it lists {datasets} datasets and {images} images ({limits})"));
        }
        let described = self.datasets.iter().map(Dataset::described).fold(0, u64::saturating_add);
        let manifests =
            self.images.iter().flat_map(|image| [&image.manifest].into_iter().chain(&image.manifests));
        let of_images = manifests.map(|manifest| manifest.size).fold(0, u64::saturating_add);
        if let Some(many) = [described, of_images].into_iter().find(|sum| *sum > MAX_DESCRIBED) {
            return Err(format!("its manifests have {many} bytes (limit: {MAX_DESCRIBED})"));
        }
        let mut names = BTreeSet::new();
        for image in &self.images {
            image.check(&members).map_err(|why| format!("{:?} {why}", image.name))?;
            if !names.insert(&image.name) {
                return Err(format!("it lists {} twice", image.name));
            }
        }
        let (mut references, mut large) = (BTreeSet::new(), BTreeSet::new());
        for dataset in &self.datasets {
            let reference = dataset.reference();
            // A large layer is unpacked while it is read, so it can belong to only one dataset.
            if let Some(blob) = dataset.blobs().find(|blob| blob.is_large() && !large.insert(blob.digest)) {
                return Err(format!("it lists {} for two datasets", blob.path()));
            }
            self.check_dataset(dataset, &members).map_err(|why| format!("{reference} {why}"))?;
            if !references.insert(reference.clone()) {
                return Err(format!("it lists {reference} twice"));
            }
        }
        let of_images = self.images.iter().flat_map(Image::all);
        let used: BTreeSet<String> =
            self.datasets.iter().flat_map(Dataset::blobs).chain(of_images).map(Blob::path).collect();
        let fixed = [SUMS, "oci-layout", "index.json"];
        match self.members.iter().find(|m| !used.contains(&m.path) && !fixed.contains(&m.path.as_str())) {
            Some(member) => Err(format!("{} belongs to no dataset and no image", member.path)),
            None => Ok(()),
        }
    }

    /// Returns the length of the file, or of the head volume, in bytes.
    pub fn head_length(&self) -> u64 {
        let volumes = self.volumes.iter().fold(0, |sum: u64, volume| sum.saturating_add(volume.size));
        self.length.saturating_sub(volumes)
    }

    fn check_volumes(&self) -> Result<(), String> {
        // A reader without support for volumes would take the head for the complete bundle.
        if self.volumes.is_empty() == self.requires.iter().any(|feature| feature == volumes::FEATURE) {
            return Err(format!("it lists {} volumes, but requires {:?}", self.volumes.len(), self.requires));
        }
        if self.volumes.len() > volumes::MAX_VOLUMES {
            let most = volumes::MAX_VOLUMES;
            return Err(format!("it lists {} volumes (limit: {most})", self.volumes.len()));
        }
        if self.volumes.iter().any(|volume| volume.size == 0) {
            return Err("it lists a volume of 0 bytes".into());
        }
        Ok(())
    }

    /// Checks that a reader without support for its deltas rejects the bundle.
    fn check_features(&self) -> Result<(), String> {
        let wanted = self.delta_features();
        let listed = self.requires.iter().map(String::as_str).filter(|feature| *feature != volumes::FEATURE);
        if listed.collect::<BTreeSet<_>>() == wanted {
            return Ok(());
        }
        Err(format!("it requires {:?}, but its datasets need {wanted:?}", self.requires))
    }

    /// Returns the words for `requires` that its deltas need.
    pub(super) fn delta_features(&self) -> BTreeSet<&'static str> {
        self.datasets.iter().filter_map(|dataset| dataset.delta.as_ref()).flat_map(Delta::features).collect()
    }

    fn check_members(&self) -> Result<BTreeMap<&str, &Member>, String> {
        if self.members.first().is_none_or(|first| first.path != SUMS) {
            return Err(format!("its second member is not {SUMS}"));
        }
        let mut members = BTreeMap::new();
        for member in &self.members {
            let path = &member.path;
            let plain =
                path.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'/' | b'-'));
            if !(plain || path == SUMS) || path.parse::<RelPath>().is_err() || path == MANIFEST {
                return Err(format!("{path:?} is not a valid member name"));
            }
            if member.size > MAX_MEMBER || header::header(path, member.size).is_none() {
                return Err(format!("{path} with {} bytes does not fit tar", member.size));
            }
            let blob = path.strip_prefix("blobs/");
            if blob.is_some_and(|name| name != format!("sha256/{}", member.digest.hex())) {
                return Err(format!("{path} has the digest {}", member.digest));
            }
            if members.insert(path.as_str(), member).is_some() {
                return Err(format!("it lists {path} twice"));
            }
        }
        for name in ["oci-layout", "index.json"] {
            if !members.contains_key(name) {
                return Err(format!("it does not list {name}"));
            }
        }
        if members[SUMS].digest != Digest::of(sums(&self.members).as_bytes()) {
            return Err(format!("{SUMS} does not match the list of members"));
        }
        Ok(members)
    }

    fn check_dataset(&self, dataset: &Dataset, members: &BTreeMap<&str, &Member>) -> Result<(), String> {
        let tag = &dataset.tag;
        let good_tag = (1..=64).contains(&tag.len())
            && tag.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        if !good_tag {
            return Err(format!("has the tag {tag:?}, which is not valid"));
        }
        for blob in dataset.blobs() {
            let path = blob.path();
            if members.get(path.as_str()).is_none_or(|member| member.size != blob.size) {
                return Err(format!("needs {path}, which is not listed with its size"));
            }
        }
        let kind = dataset.name.kind();
        let layers = if kind == Kind::Vex { 2 } else { 1 };
        if dataset.layers.len() != layers {
            return Err(format!("has {} layers", dataset.layers.len()));
        }
        if kind.layer_media_type().is_some_and(|wanted| wanted != dataset.layers[0].media_type) {
            return Err(format!("has a layer of type {:?}", dataset.layers[0].media_type));
        }
        let archive = [catalogue::VEX_TAR_LAYER, catalogue::VEX_ZIP_LAYER];
        let types: Vec<&str> = dataset.layers.iter().map(|layer| layer.media_type.as_str()).collect();
        if kind == Kind::Vex && !(archive.contains(&types[0]) && types[1] == catalogue::VEX_MANIFEST_LAYER) {
            return Err(format!("has layers of types {types:?}"));
        }
        if kind == Kind::Vex {
            dataset.check_vex_source()?;
        }
        let contents = &dataset.contents;
        if let Some(delta) = &dataset.delta {
            if !kind.is_large() {
                return Err("has a delta, which only databases may have".into());
            }
            delta.check(contents)?;
        }
        if contents.tree.is_some() == kind.is_large()
            || contents.files.len() != if kind.is_large() { 2 } else { 0 }
        {
            return Err("does not describe its content as its kind requires".into());
        }
        if contents.unpacked_size() > kind.max_unpacked() {
            return Err(format!(
                "unpacks to {} bytes (limit: {})",
                contents.unpacked_size(),
                kind.max_unpacked()
            ));
        }
        // A date after that of the bundle would make the importer reject genuine data later.
        let ahead = |date: Timestamp| date.duration_since(self.created) > SignedDuration::from_hours(24);
        if contents.updated_at.is_some_and(ahead) {
            return Err("is dated more than 24 hours after the bundle".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_names_that_every_file_system_accepts() {
        for good in ["default", "a", "site-7.lab_x"] {
            assert!(good.parse::<Stream>().is_ok(), "{good}");
        }
        for bad in ["", "Default", "a/b", "..", "-a", &"a".repeat(33), "a b"] {
            assert!(bad.parse::<Stream>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_later_format_is_rejected_by_name() {
        let parse = |text: &str| Payload::parse(text.as_bytes()).unwrap_err();
        let unknown = |text: &str| BadPayload::Unknown(text.into());
        assert_eq!(parse(r#"{"format":2,"new":[]}"#), unknown("format version 2"));
        assert_eq!(parse(r#"{"format":1,"requires":["volumes","deltas","plain-2"]}"#), unknown("plain-2"));
        assert!(matches!(parse(r#"{"format":1}"#), BadPayload::Rule(_)));
        assert!(matches!(parse("[]"), BadPayload::Rule(_)));
    }

    /// Returns a valid payload with an image whose blobs exist.
    fn with_image(change: impl Fn(&mut serde_json::Value)) -> Result<Payload, BadPayload> {
        use crate::trust::envelope::Envelope;
        let bundle = crate::bundle::writer::tests::bundle();
        let mut first = [0; 512];
        first.copy_from_slice(&bundle[..512]);
        let capacity = tar::Header::from_byte_slice(&first).entry_size().unwrap() as usize;
        let envelope = Envelope::parse(&bundle[512..512 + capacity]).unwrap();
        let mut payload: serde_json::Value = serde_json::from_slice(envelope.payload()).unwrap();
        let dataset = payload["datasets"][0].clone();
        payload["images"] = serde_json::json!([{
            "name": "docker.io/aquasec/trivy:0.74.0", "source": "x",
            "manifest": dataset["manifest"], "manifests": [dataset["manifest"]], "blobs": [dataset["config"]],
        }]);
        change(&mut payload);
        Payload::parse(payload.to_string().as_bytes())
    }

    #[test]
    fn an_image_has_its_full_name_and_consists_of_members() {
        assert_eq!(with_image(|_| {}).unwrap().images.len(), 1);
        let pinned = |digest: &str| {
            let name = format!("r.example:5000/a:1@{digest}");
            with_image(move |p| p["images"][0]["name"] = name.clone().into())
        };
        let digest = with_image(|_| {}).unwrap().images[0].manifest.digest.to_string();
        assert!(pinned(&digest).is_ok());
        assert!(pinned(&format!("sha256:{}", "0".repeat(64))).is_err(), "another digest than it has");
        for name in ["", "trivy", "trivy:1", "/a:1", "h/a", "h/a:1 x", "h:1/a", "h/\u{202e}:1"] {
            let bad = with_image(|p| p["images"][0]["name"] = name.into()).unwrap_err();
            assert!(
                matches!(&bad, BadPayload::Rule(why) if why.raw().contains("not a full image name")),
                "{name}: {bad:?}"
            );
        }
        let rejected = |change: &dyn Fn(&mut serde_json::Value), wanted: &str| {
            let bad = with_image(change).unwrap_err();
            assert!(matches!(&bad, BadPayload::Rule(why) if why.raw().contains(wanted)), "{wanted}: {bad:?}");
        };
        rejected(&|p| p["images"][0]["blobs"][0]["size"] = 7.into(), "not listed with its size");
        rejected(&|p| p["images"][0]["manifest"]["mediaType"] = "text/html".into(), "manifest of type");
        rejected(&|p| p["images"] = vec![p["images"][0].clone(); 2].into(), "twice");
        rejected(&|p| p["images"] = vec![p["images"][0].clone(); 65].into(), "65 images");
    }

    #[test]
    fn a_manifest_names_the_signed_blobs() {
        let payload = with_image(|_| {}).unwrap();
        let dataset = &payload.datasets[0];
        let named = |digest: Digest, size: u64| {
            serde_json::json!({
                "schemaVersion": 2,
                "config": { "mediaType": "x", "digest": dataset.config.digest, "size": dataset.config.size },
                "layers": [{ "mediaType": "x", "digest": digest, "size": size }],
            })
            .to_string()
        };
        let layer = &dataset.layers[0];
        assert_eq!(dataset.agrees_with(named(layer.digest, layer.size).as_bytes()), Ok(()));
        for bad in
            [named(layer.digest, layer.size + 1), named(Digest::of(b"other"), layer.size), "null".into()]
        {
            assert!(dataset.agrees_with(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
