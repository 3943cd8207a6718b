//! The writer: turns a plan into a signed bundle in one pass. It fetches nothing; the caller passes the bytes.
//!
//! Names, sizes and digests are known from the descriptors of the registries before the first byte is
//! written. Only the content of the large layers is unknown until then. The manifest is written last,
//! into the space that was reserved for it at the beginning.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read, Seek, SeekFrom, Write};

use jiff::Timestamp;

use crate::bundle::format::{FORMAT, MANIFEST, MAX_MANIFEST, PAYLOAD_TYPE, SUMS};
use crate::bundle::header;
use crate::bundle::payload::{Blob, Dataset, Image, Member, Payload, Stream, sums};
use crate::bundle::volumes::{self, Volume};
use crate::content_digest::ContentDigest;
use crate::dataset::{Contents, File, Kind, MissingItem};
use crate::digest::{Digest, Hasher};
use crate::oci;
use crate::trust::TrustError;
use crate::trust::envelope::Envelope;
use crate::trust::signer::Signer;

/// The properties of a new bundle.
#[derive(Debug, Clone)]
pub struct BundleInfo {
    /// The stream that it belongs to.
    pub stream: Stream,
    /// The creation time, in whole seconds.
    pub created: Timestamp,
    /// The time after which it must not be used.
    pub expires: Option<Timestamp>,
    /// Its number in the stream.
    pub sequence: Option<u64>,
    /// The identity of the bundle before it.
    pub previous: Option<Digest>,
    /// The largest file in bytes, if larger bundles should be split into volumes.
    pub volume_size: Option<u64>,
    /// The items that should be in it but could not be fetched.
    pub missing: Vec<MissingItem>,
}

/// A dataset to write. The contents of a large one are not known yet.
#[derive(Debug, Clone)]
pub struct PlannedDataset {
    /// The dataset. For a large one, its contents are ignored: they are passed when the writer finishes.
    pub dataset: Dataset,
    /// The bytes of its manifest.
    pub manifest: Vec<u8>,
}

/// An image to write.
#[derive(Debug, Clone)]
pub struct PlannedImage {
    /// The image.
    pub image: Image,
    /// The bytes of its manifests.
    pub manifests: Vec<Vec<u8>>,
}

/// The data of a bundle that is fixed before the bundle is written.
#[derive(Debug, Clone)]
pub struct BundlePlan {
    payload: Payload,
    capacity: u64,
    /// The bytes of the derived members: `SHA256SUMS`, `oci-layout`, `index.json` and the manifests.
    derived: BTreeMap<String, Vec<u8>>,
}

impl BundlePlan {
    /// Plans a bundle.
    ///
    /// # Errors
    /// If a manifest does not have the digest in its dataset, the manifest of the bundle would be too large, or
    /// the bundle cannot be split into volumes of the given size. The text says which.
    pub fn new(
        info: BundleInfo,
        planned: Vec<PlannedDataset>,
        images: Vec<PlannedImage>,
    ) -> Result<Self, String> {
        let mut derived = BTreeMap::from([
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index(&planned, &images)?),
        ]);
        let (members, sums) = members(&derived, &planned, &images);
        derived.insert(SUMS.into(), sums);
        derived.extend(manifests(&planned, &images)?);
        let mut payload = Payload {
            format: FORMAT,
            requires: Vec::new(),
            producer: concat!("trivy-ferry ", env!("CARGO_PKG_VERSION")).into(),
            stream: info.stream,
            created: info.created,
            expires: info.expires,
            sequence: info.sequence,
            previous: info.previous,
            length: u64::MAX,
            members,
            datasets: planned.into_iter().map(|planned| with_room(planned.dataset)).collect(),
            images: images.into_iter().map(|planned| planned.image).collect(),
            volumes: Vec::new(),
            missing: info.missing,
        };
        payload.requires = payload.delta_features().into_iter().map(str::to_owned).collect();
        let mut plan = BundlePlan { payload, capacity: 0, derived };
        let (small, large) = plan.footprints();
        plan.measure(small + large)?;
        if let Some(most) = info.volume_size.filter(|most| plan.length() > *most) {
            plan.split(large, most)?;
            plan.measure(small + large)?;
            let info = plan.payload.head_length();
            if info > most {
                return Err(format!(
                    "its head volume takes {info} bytes, more than the volume size of {most} bytes"
                ));
            }
        }
        Ok(plan)
    }

    /// Returns the number of bytes that the members before the first large one take, and that of the
    /// others.
    fn footprints(&self) -> (u64, u64) {
        let Payload { members, datasets, images, .. } = &self.payload;
        let of_datasets = datasets.iter().flat_map(Dataset::blobs).filter(|blob| blob.is_large());
        let of_images = images.iter().flat_map(Image::all);
        let last: BTreeSet<String> = of_datasets.chain(of_images).map(Blob::path).collect();
        let small = members.iter().position(|member| last.contains(&member.path)).unwrap_or(members.len());
        let footprint = |members: &[Member]| members.iter().map(|m| header::footprint(m.size)).sum::<u64>();
        (footprint(&members[..small]), footprint(&members[small..]))
    }

    /// Computes the space for the manifest and the length of the bundle.
    fn measure(&mut self, members: u64) -> Result<(), String> {
        self.payload.length = u64::MAX;
        let widest = serde_json::to_vec(&self.payload).map_err(|e| e.to_string())?.len();
        self.capacity = Envelope::capacity(PAYLOAD_TYPE, widest) as u64;
        if self.capacity > MAX_MANIFEST {
            return Err(format!("its manifest would take {} bytes", self.capacity));
        }
        self.payload.length = header::footprint(self.capacity) + members + 2 * header::BLOCK;
        Ok(())
    }

    /// Assigns the large members to volumes of this size. The digests of the volumes are not known yet.
    fn split(&mut self, large: u64, most: u64) -> Result<(), String> {
        let behind = large + 2 * header::BLOCK;
        let count = behind.div_ceil(most.max(1));
        if large == 0 || count > volumes::MAX_VOLUMES as u64 {
            let fewest = behind.div_ceil(volumes::MAX_VOLUMES as u64);
            return Err(match large {
                0 => {
                    format!("all its members belong in the head volume, which is larger than {most} bytes")
                }
                _ => format!("it would take {count} volumes; use a volume size of at least {fewest} bytes"),
            });
        }
        let size = |index: u64| most.min(behind - index * most);
        self.payload.requires.insert(0, volumes::FEATURE.into());
        self.payload.volumes =
            (0..count).map(|index| Volume { size: size(index), digest: Digest::of(b"") }).collect();
        Ok(())
    }

    /// Returns the length of the bundle in bytes, including all volumes.
    pub fn length(&self) -> u64 {
        self.payload.length
    }

    /// Returns the lengths of its files in bytes: the only file, or the head and the volumes after it.
    pub fn files(&self) -> Vec<u64> {
        let volumes = self.payload.volumes.iter().map(|volume| volume.size);
        [self.payload.head_length()].into_iter().chain(volumes).collect()
    }

    /// Returns the offset of the first member after the manifest.
    pub fn start(&self) -> u64 {
        header::footprint(self.capacity)
    }

    /// Returns the members after the manifest, in the order of the file.
    pub fn members(&self) -> &[Member] {
        &self.payload.members
    }

    /// Returns the offset of the content of a member of this size that begins at `at`, and the offset of the next
    /// member.
    pub fn place(at: u64, size: u64) -> (u64, u64) {
        (at.saturating_add(header::BLOCK), at.saturating_add(header::footprint(size)))
    }
}

/// Returns `index.json`, which names the manifests.
fn index(planned: &[PlannedDataset], images: &[PlannedImage]) -> Result<Vec<u8>, String> {
    let datasets = planned.iter().map(|planned| reference(&planned.dataset));
    let images = images.iter().map(|planned| image_reference(&planned.image));
    let index = oci::Index {
        schema_version: 2,
        media_type: Some(oci::INDEX.into()),
        manifests: datasets.chain(images).collect(),
    };
    serde_json::to_vec(&index).map_err(|e| e.to_string())
}

/// Returns the members after the manifest in the order of the file, and the bytes of the first, `SHA256SUMS`.
fn members(
    derived: &BTreeMap<String, Vec<u8>>,
    planned: &[PlannedDataset],
    images: &[PlannedImage],
) -> (Vec<Member>, Vec<u8>) {
    let of_bytes = |path: &str, bytes: &[u8]| Member {
        path: path.into(),
        size: bytes.len() as u64,
        digest: Digest::of(bytes),
    };
    let mut members = vec![of_bytes(SUMS, b"")];
    for (path, bytes) in ["oci-layout", "index.json"].iter().filter_map(|path| derived.get_key_value(*path)) {
        members.push(of_bytes(path, bytes));
    }
    let mut blobs: Vec<&Blob> = planned.iter().flat_map(|planned| planned.dataset.blobs()).collect();
    // Small blobs in the order of the datasets, then large ones by size.
    blobs.sort_by_key(|blob| if blob.is_large() { (true, blob.size) } else { (false, 0) });
    // Images come last, because scanner caches do not use them.
    let of_images = images.iter().flat_map(|planned| planned.image.all());
    for blob in blobs.into_iter().chain(of_images) {
        if !members.iter().any(|member| member.digest == blob.digest && member.path == blob.path()) {
            members.push(Member { path: blob.path(), size: blob.size, digest: blob.digest });
        }
    }
    let sums = sums(&members).into_bytes();
    members[0] = of_bytes(SUMS, &sums);
    (members, sums)
}

/// Returns the bytes of the manifests by path.
fn manifests(
    planned: &[PlannedDataset],
    images: &[PlannedImage],
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut manifests = BTreeMap::new();
    for PlannedDataset { dataset, manifest } in planned {
        if Digest::of(manifest) != dataset.manifest.digest {
            return Err(format!("{} has a manifest with an unexpected digest", dataset.reference()));
        }
        manifests.insert(dataset.manifest.path(), manifest.clone());
    }
    for bytes in images.iter().flat_map(|planned| &planned.manifests) {
        manifests.insert(format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes.clone());
    }
    Ok(manifests)
}

/// Reserves space for the contents of a large dataset, which are not known yet.
fn with_room(mut dataset: Dataset) -> Dataset {
    if dataset.name.kind().is_large() {
        dataset.contents = widest(dataset.name.kind());
    }
    dataset
}

/// Returns the contents that take the most space in a payload, as a placeholder for the real ones.
fn widest(kind: Kind) -> Contents {
    let far = Timestamp::MAX;
    let name = if kind == Kind::TrivyDb { "trivy.db" } else { "trivy-java.db" };
    let file = |name: &str| {
        name.parse().ok().map(|path| File { path, size: u64::MAX, digest: ContentDigest::of(b"") })
    };
    Contents {
        schema: Some(u32::MAX),
        updated_at: Some(far),
        next_update: Some(far),
        files: ["metadata.json", name].into_iter().filter_map(file).collect(),
        tree: None,
    }
}

fn reference(dataset: &Dataset) -> oci::Descriptor {
    oci::Descriptor {
        media_type: dataset.manifest.media_type.clone(),
        digest: dataset.manifest.digest,
        size: dataset.manifest.size,
        annotations: BTreeMap::from([(oci::REF_NAME.to_owned(), dataset.reference())]),
    }
}

fn image_reference(image: &Image) -> oci::Descriptor {
    oci::Descriptor {
        media_type: image.manifest.media_type.clone(),
        digest: image.manifest.digest,
        size: image.manifest.size,
        annotations: BTreeMap::from([
            (oci::REF_NAME.to_owned(), image.reference()),
            (oci::IMAGE_NAME.to_owned(), image.name.clone()),
        ]),
    }
}

/// The reason why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The destination failed.
    #[error("cannot write: {0}")]
    Destination(io::Error),
    /// The source of a member failed.
    #[error("cannot read {member}: {error}")]
    Source {
        /// The name of the member.
        member: String,
        /// The error of its reader.
        error: io::Error,
    },
    /// A source has more or fewer bytes than planned.
    #[error("{member} {why}")]
    Content {
        /// The name of the member.
        member: String,
        /// The difference.
        why: String,
    },
    /// The bytes of a source do not have the planned digest.
    #[error("{member} has the unexpected digest {found}")]
    Digest {
        /// The name of the member.
        member: String,
        /// The digest of its bytes.
        found: Digest,
    },
    /// The signer failed.
    #[error(transparent)]
    Sign(TrustError),
    /// The members do not form a valid bundle.
    #[error("the bundle would break the rules of the bundle format: {0}")]
    Rules(String),
}

/// Writes a planned bundle.
pub struct BundleWriter<W> {
    plan: BundlePlan,
    out: VolumeWriter<W>,
    next: usize,
}

/// Computes the digest of each volume after the head while its bytes are written.
struct VolumeWriter<W> {
    out: W,
    /// The remaining bytes of the head.
    head: u64,
    /// The sizes of the incomplete volumes, and the remaining bytes of the first of them.
    sizes: VecDeque<u64>,
    left: u64,
    hasher: Hasher,
    done: Vec<Volume>,
}

impl<W> VolumeWriter<W> {
    fn new(plan: &BundlePlan, out: W) -> Self {
        let mut sizes: VecDeque<u64> = plan.files().into();
        let head = sizes.pop_front().unwrap_or(0);
        let left = sizes.front().copied().unwrap_or(0);
        VolumeWriter { out, head, sizes, left, hasher: Hasher::new(), done: Vec::new() }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        let of_head = usize::try_from(self.head).unwrap_or(usize::MAX).min(bytes.len());
        self.head -= of_head as u64;
        bytes = &bytes[of_head..];
        while let (Some(size), false) = (self.sizes.front().copied(), bytes.is_empty()) {
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.hasher.update(&bytes[..count]);
            self.left -= count as u64;
            bytes = &bytes[count..];
            if self.left == 0 {
                self.done.push(Volume { size, digest: std::mem::take(&mut self.hasher).finish() });
                self.sizes.pop_front();
                self.left = self.sizes.front().copied().unwrap_or(0);
            }
        }
    }
}

impl<W: Write> Write for VolumeWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.take(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write + Seek> BundleWriter<W> {
    /// Begins a bundle: reserves space for the manifest.
    ///
    /// # Errors
    /// [`WriteError::Destination`] if the destination cannot be written.
    pub fn new(plan: BundlePlan, out: W) -> Result<Self, WriteError> {
        let mut out = VolumeWriter::new(&plan, out);
        io::copy(&mut io::repeat(0).take(plan.start()), &mut out).map_err(WriteError::Destination)?;
        let mut writer = BundleWriter { plan, out, next: 0 };
        writer.derived()?;
        Ok(writer)
    }

    /// Returns the member to write next; `None` if all are written.
    pub fn wants(&self) -> Option<&Member> {
        self.plan.payload.members.get(self.next)
    }

    /// Writes the next member with all bytes of the reader.
    ///
    /// # Errors
    /// [`WriteError::Source`] if the reader fails; [`WriteError::Destination`] if the destination cannot be
    /// written; [`WriteError::Content`] or [`WriteError::Digest`] if the bytes are not the planned ones;
    /// [`WriteError::Rules`] if no further member is planned, or the member does not fit tar.
    pub fn member(&mut self, mut source: impl Read) -> Result<(), WriteError> {
        let Some(member) = self.plan.payload.members.get(self.next).cloned() else {
            return Err(WriteError::Rules("no further member is planned".into()));
        };
        let content = |why: String| WriteError::Content { member: member.path.clone(), why };
        let header = header::header(&member.path, member.size)
            .ok_or_else(|| WriteError::Rules(format!("{} does not fit tar", member.path)))?;
        self.out.write_all(&header).map_err(WriteError::Destination)?;
        let mut hasher = Hasher::new();
        let mut left = member.size;
        let mut buffer = vec![0; crate::dataset::layer::CHUNK];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(WriteError::Source { member: member.path.clone(), error }),
            };
            if count == 0 {
                break;
            }
            left = left
                .checked_sub(count as u64)
                .ok_or_else(|| content(format!("has more than the expected {} bytes", member.size)))?;
            hasher.update(&buffer[..count]);
            self.out.write_all(&buffer[..count]).map_err(WriteError::Destination)?;
        }
        if left > 0 {
            return Err(content(format!("ends {left} bytes early")));
        }
        let found = hasher.finish();
        if found != member.digest {
            return Err(WriteError::Digest { member: member.path, found });
        }
        let padding = header::padding(member.size);
        io::copy(&mut io::repeat(0).take(padding), &mut self.out).map_err(WriteError::Destination)?;
        self.next += 1;
        self.derived()
    }

    /// Writes the derived members that are next.
    fn derived(&mut self) -> Result<(), WriteError> {
        match self.wants().and_then(|member| self.plan.derived.get(&member.path)).cloned() {
            Some(bytes) => self.member(&bytes[..]),
            None => Ok(()),
        }
    }

    /// Fills in the contents of the large datasets, which are keyed by reference name, and signs the bundle.
    /// Returns the payload, its digest, and the destination for syncing.
    ///
    /// # Errors
    /// [`WriteError::Rules`] if members or contents are missing, or the payload would break the rules of
    /// the format; [`WriteError::Sign`] if the signer fails; [`WriteError::Destination`] if the destination
    /// cannot be written.
    pub fn finish(
        mut self,
        mut contents: BTreeMap<String, Contents>,
        signer: &dyn Signer,
    ) -> Result<(Payload, Digest, W), WriteError> {
        if let Some(member) = self.wants() {
            return Err(WriteError::Rules(format!("{} was not written", member.path)));
        }
        let mut payload = self.plan.payload;
        for dataset in payload.datasets.iter_mut().filter(|dataset| dataset.name.kind().is_large()) {
            let reference = dataset.reference();
            dataset.contents = contents
                .remove(&reference)
                .ok_or_else(|| WriteError::Rules(format!("{reference} was not validated")))?;
        }
        self.out.write_all(&[0; 2 * header::BLOCK as usize]).map_err(WriteError::Destination)?;
        if self.out.done.len() != payload.volumes.len() {
            return Err(WriteError::Rules("its length is not the planned one".into()));
        }
        payload.volumes = self.out.done;
        payload.check().map_err(WriteError::Rules)?;
        let bytes = serde_json::to_vec(&payload).map_err(|e| WriteError::Rules(e.to_string()))?;
        let identity = Digest::of(&bytes);
        let envelope = Envelope::signed(PAYLOAD_TYPE, bytes, signer).map_err(WriteError::Sign)?;
        let too_small = || WriteError::Rules("its manifest is larger than planned".into());
        let manifest = envelope.to_bytes(self.plan.capacity as usize).ok_or_else(too_small)?;
        let header = header::header(MANIFEST, self.plan.capacity).ok_or_else(too_small)?;
        let mut out = self.out.out;
        let mut end = || -> io::Result<()> {
            out.seek(SeekFrom::Start(0))?;
            out.write_all(&header)?;
            out.write_all(&manifest)?;
            out.flush()
        };
        end().map_err(WriteError::Destination)?;
        Ok((payload, identity, out))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::dataset::Tree;
    use crate::trust::key::SigningKey;

    pub(in crate::bundle) const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";

    pub(in crate::bundle) fn head() -> BundleInfo {
        BundleInfo {
            stream: "default".parse().unwrap(),
            created: "2026-01-15T09:00:00Z".parse().unwrap(),
            expires: None,
            sequence: Some(7),
            previous: None,
            volume_size: None,
            missing: Vec::new(),
        }
    }

    /// A dataset and the bytes of its blobs by the names of their members.
    type Made = (PlannedDataset, BTreeMap<String, Vec<u8>>);

    fn dataset(name: &str, tag: &str, layer: &[u8], contents: Contents) -> Made {
        let name: crate::dataset::Name = name.parse().unwrap();
        let media_type = name.kind().layer_media_type().unwrap().to_owned();
        let blob = |media_type: &str, bytes: &[u8]| Blob {
            media_type: media_type.into(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        };
        let manifest = format!(r#"{{"of":"{name}:{tag}"}}"#).into_bytes();
        let (config, layer_blob) =
            (blob("application/vnd.oci.empty.v1+json", b"{}"), blob(&media_type, layer));
        let blobs = BTreeMap::from([(config.path(), b"{}".to_vec()), (layer_blob.path(), layer.to_vec())]);
        let dataset = Dataset {
            name,
            tag: tag.into(),
            source: "registry.example/x:1".into(),
            manifest: blob(oci::MANIFEST, &manifest),
            config,
            layers: vec![layer_blob],
            delta: None,
            version: None,
            subdir: None,
            contents,
        };
        (PlannedDataset { dataset, manifest }, blobs)
    }

    fn tree() -> Contents {
        Contents {
            schema: None,
            updated_at: None,
            next_update: None,
            files: Vec::new(),
            tree: Some(Tree { digest: ContentDigest::of(b"t"), files: 3, folders: 1, size: 9 }),
        }
    }

    pub(in crate::bundle) fn database() -> Contents {
        let mut contents = widest(Kind::TrivyDb);
        contents.schema = Some(2);
        contents.updated_at = Some("2026-01-15T06:00:00Z".parse().unwrap());
        contents.next_update = Some("2026-01-16T06:00:00Z".parse().unwrap());
        contents.files.iter_mut().for_each(|file| file.size = 100);
        contents
    }

    fn made() -> Vec<Made> {
        vec![
            dataset("trivy-db", "2", &[7; 3000], database()),
            dataset("trivy-checks", "1", b"checks one", tree()),
            dataset("trivy-checks", "2", b"checks two", tree()),
        ]
    }

    /// Returns a bundle with one database and two checks bundles.
    pub(in crate::bundle) fn bundle() -> Vec<u8> {
        bundle_of(head()).0
    }

    /// Returns the same bundle in volumes of at most this size in bytes.
    pub(in crate::bundle) fn volumes(size: u64) -> Vec<Vec<u8>> {
        let (bytes, files) = bundle_of(BundleInfo { volume_size: Some(size), ..head() });
        let mut rest = &bytes[..];
        files
            .into_iter()
            .map(|length| {
                let (file, behind) = rest.split_at(length as usize);
                rest = behind;
                file.to_vec()
            })
            .collect()
    }

    fn bundle_of(info: BundleInfo) -> (Vec<u8>, Vec<u64>) {
        let made = made();
        let plan =
            BundlePlan::new(info, made.iter().map(|(planned, _)| planned.clone()).collect(), Vec::new())
                .unwrap();
        let files = plan.files();
        let blobs: BTreeMap<_, _> = made.into_iter().flat_map(|(_, blobs)| blobs).collect();
        let length = plan.length();
        let mut writer = BundleWriter::new(plan, Cursor::new(Vec::new())).unwrap();
        while let Some(member) = writer.wants().cloned() {
            writer.member(&blobs[&member.path][..]).unwrap();
        }
        let contents = BTreeMap::from([("trivy-db-2".to_owned(), database())]);
        let key = SigningKey::from_pem(KEY, None).unwrap();
        let (payload, _, out) = writer.finish(contents, &key).unwrap();
        assert_eq!((payload.length, out.get_ref().len() as u64), (length, length));
        (out.into_inner(), files)
    }

    #[test]
    fn bytes_are_a_function_of_plan_content_and_key() {
        assert!(bundle() == bundle());
    }

    #[test]
    fn volumes_hold_the_bytes_that_the_head_does_not_hold() {
        let head_length = |size| volumes(size)[0].len();
        // 512 bytes of header, 3072 of content and 1024 zeros.
        let behind = |size| volumes(size)[1..].iter().map(Vec::len).collect::<Vec<_>>();
        let large = head_length(20_000) as u64;
        assert_eq!(behind(large), [4608]);
        assert_eq!(volumes(1 << 20).len(), 1, "a bundle that fits into one file is not split");
        let plan = |size| {
            let planned = made().into_iter().map(|(planned, _)| planned).collect();
            BundlePlan::new(BundleInfo { volume_size: Some(size), ..head() }, planned, Vec::new())
        };
        let error = plan(large - 1).unwrap_err();
        assert!(error.contains("head volume takes"), "{error}");
        let error = plan(4).unwrap_err();
        assert!(error.contains("would take 1152 volumes; use a volume size of at least 5 bytes"), "{error}");
    }

    #[test]
    fn any_tar_reads_a_bundle_and_large_layers_come_last() {
        let bytes = bundle();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut names = Vec::new();
        let mut sizes = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            names.push(entry.path().unwrap().to_str().unwrap().to_owned());
            sizes.push(entry.size());
        }
        assert_eq!(names[..4], [MANIFEST, SUMS, "oci-layout", "index.json"]);
        assert_eq!(sizes.last(), Some(&3000));
        // Three manifests, two checks layers, one database and one shared configuration.
        assert_eq!(names.len(), 4 + 3 + 3 + 1);
    }

    #[test]
    fn a_source_that_differs_from_the_plan_is_rejected() {
        let (planned, blobs) = dataset("trivy-db", "2", &[7; 3000], database());
        let begin = || {
            let plan = BundlePlan::new(head(), vec![planned.clone()], Vec::new()).unwrap();
            let mut writer = BundleWriter::new(plan, Cursor::new(Vec::new())).unwrap();
            writer.member(&b"{}"[..]).unwrap();
            writer
        };
        for (bytes, why) in
            [(vec![7; 2999], "1 bytes early"), (vec![7; 3001], "more than"), (vec![8; 3000], "digest")]
        {
            let error = begin().member(&bytes[..]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let key = SigningKey::from_pem(KEY, None).unwrap();
        assert!(
            matches!(begin().finish(BTreeMap::new(), &key), Err(WriteError::Rules(_))),
            "a member is missing"
        );
        let mut writer = begin();
        writer.member(&blobs[&planned.dataset.layers[0].path()][..]).unwrap();
        assert!(
            matches!(writer.finish(BTreeMap::new(), &key), Err(WriteError::Rules(_))),
            "contents are missing"
        );
    }
}
