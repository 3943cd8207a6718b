//! `export --delta`: carries a database as differences from the versions that earlier bundles of the stream carried.
//!
//! The layer is fetched into the base store first. Every patch is applied as an importer does before it is used. This
//! module does not know how a patch is made, and it does not write the bundle.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::payload::Blob;
use crate::bundle::payload::delta::{
    Base, Delta, DeltaFile, Encoding, HEAD_TYPE, MAX_BASES, MAX_WHOLE, RowStream, Rows, WHOLE_TYPE,
};
use crate::bundle::{Dataset, Payload};
use crate::collect::artifact::CollectedDataset;
use crate::collect::best_source::Rejected;
use crate::collect::validate::{self, Examined, bad_content, broke_off, validate_while};
use crate::content_digest::{ContentDigest, content_digest_of};
use crate::dataset::check::UnpackLimits;
use crate::dataset::{Contents, Kind, RelPath, Sink, layer};
use crate::delta::file_writer::FileWriter;
use crate::delta::java::build::MEMORY;
use crate::delta::java::extract::{ExtractError, extract};
use crate::delta::java::find::{FindError, find_layout};
use crate::delta::java::head::Head;
use crate::delta::java::sqlite::layout::Layout;
use crate::delta::patch;
use crate::delta::stream::{Form, Stream};
use crate::digest::{Digest, Hasher, digest_of};
use crate::error::Error;
use crate::export::base_store::{BaseStore, StoredBase};
use crate::export::stream::ExportFailure;
use crate::progress::Progress;
use crate::source::{Network, SourceError};
use crate::util::fs;
use crate::util::pipe::for_each_chunk;
use crate::util::spool::{ONE_IN_MEMORY, spool};

/// A database that a bundle carries as differences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExportedDelta {
    /// The reference name of the dataset.
    pub dataset: String,
    /// The number of versions that it can be made from.
    pub bases: usize,
    /// The date of the oldest of them.
    pub reaches_back_to: Option<Timestamp>,
    /// The bytes of all patches.
    pub size: u64,
    /// The bytes of the layer that is not carried.
    pub layer: u64,
}

/// What an export with deltas needs.
pub(crate) struct DeltaMaker<'a> {
    pub(crate) network: &'a Network<'a>,
    pub(crate) store: &'a BaseStore,
    /// Whether this bundle carries every database whole.
    pub(crate) whole: bool,
    pub(crate) progress: &'a dyn Progress,
}

/// A layer in the base store, and its content.
pub(crate) struct StoredLayer {
    pub(crate) file: File,
    pub(crate) examined: Examined,
}

impl DeltaMaker<'_> {
    /// Fetches the large layer of a dataset into the base store, while another thread decompresses and validates it.
    ///
    /// # Errors
    /// If its sources fail or have content that Trivy could not use, or if the base store cannot be written.
    pub(crate) fn fetch(&self, item: &CollectedDataset) -> Result<StoredLayer, ExportFailure> {
        let dataset = &item.planned.dataset;
        let without = || Error::unexpected("fetching")(io::Error::other("a layer without its artifact"));
        let artifact = item.artifact.as_ref().ok_or_else(without)?;
        let descriptor = artifact.manifest.layers.first().ok_or_else(without)?;
        let sources: Vec<_> = std::iter::once(&artifact.source).chain(&item.others).cloned().collect();
        let bad = |error| ExportFailure::from(Rejected::from(error, dataset, descriptor.digest, &sources));
        if let Some(stored) = self.stored(dataset, &descriptor.digest)? {
            return Ok(stored);
        }
        let blob = self.network.blob_from(&sources, descriptor, 0).map_err(|error| bad(error.into()))?;
        let host = artifact.source.host().unwrap_or("");
        let step = self.progress.begin(&dataset.reference(), descriptor.size, host);
        let mut file = self.store.incoming(&descriptor.digest).map_err(|error| self.broken(error))?;
        let (copied, validated) =
            validate_while(dataset.name.kind(), blob, step, |layer| copy(layer, &mut file))?;
        let found = match copied {
            Ok(found) => found,
            Err(CopyError::Source(error)) => return Err(bad(broke_off(dataset, error, &validated))),
            Err(CopyError::Store(error)) => return Err(self.broken(error).into()),
        };
        if found != descriptor.digest {
            let subject = format!("blob {} of {}", descriptor.digest, artifact.source);
            return Err(bad(SourceError::Digest { subject, wanted: descriptor.digest, found }.into()));
        }
        let examined = validated.map_err(|error| {
            Rejected::anywhere(bad_content(dataset, &error.to_string()), dataset, descriptor.digest)
        })?;
        let file = self.store.keep(file, &descriptor.digest).map_err(|error| self.broken(error))?;
        Ok(StoredLayer { file, examined })
    }

    /// Returns a layer that an earlier run fetched, if it is still what it should be.
    fn stored(&self, dataset: &Dataset, layer: &Digest) -> Result<Option<StoredLayer>, Error> {
        let Some(mut file) = self.store.fetched(layer).map_err(|error| self.broken(error))? else {
            return Ok(None);
        };
        let found = digest_of(&file).map_err(|error| self.broken(error))?.0;
        file.rewind().map_err(|error| self.broken(error))?;
        if found != *layer {
            return Ok(None);
        }
        Ok(validate::examine(dataset.name.kind(), &file).ok().map(|examined| StoredLayer { file, examined }))
    }

    /// Replaces the layer of a dataset by patches from the versions in the store, if the smallest of them takes at most
    /// half of the layer. Returns `None` if the layer is carried whole.
    ///
    /// # Errors
    /// If the base store cannot be read or written, or a patch that was made does not make the file.
    pub(crate) fn replace(
        &self,
        item: &mut CollectedDataset,
        layer: &StoredLayer,
    ) -> Result<Option<ExportedDelta>, Error> {
        let dataset = &item.planned.dataset;
        let kind = dataset.name.kind();
        let (Some(form), Some(upstream)) = (form(kind), dataset.content_layer()) else { return Ok(None) };
        if self.whole || self.store.of(&dataset.reference()).next().is_none() {
            return Ok(None);
        }
        let new = self.new_version(kind, form, layer).map_err(|error| self.broken(error))?;
        let Some(new) = new else {
            item.remarks.push(NOT_ROWS.into());
            return Ok(None);
        };
        let (mut bases, mut patches) = (Vec::new(), Vec::new());
        for stored in self.store.of(&dataset.reference()).take(MAX_BASES) {
            let made = self.patch(stored, dataset, &new).map_err(|error| self.broken(error))?;
            let Some((base, patch)) = made else { continue };
            bases.push(base);
            patches.push(patch);
        }
        let smallest = bases.iter().map(|base| base.patch.size).min();
        if smallest.is_none_or(|smallest| smallest > upstream.size / 2) {
            return Ok(None);
        }
        let head = new.head.as_ref().map(|(bytes, stream)| (blob_of(HEAD_TYPE, bytes), bytes, *stream));
        let exported = ExportedDelta {
            dataset: dataset.reference(),
            bases: bases.len(),
            reaches_back_to: bases.iter().filter_map(|base| base.updated_at).min(),
            size: bases.iter().map(|base| base.patch.size).sum(),
            layer: upstream.size,
        };
        let metadata = blob_of(WHOLE_TYPE, &new.metadata);
        let small = head.iter().map(|(blob, bytes, _)| (blob, &bytes[..]));
        for (blob, bytes) in small.chain([(&metadata, &new.metadata[..])]) {
            let held = spool(bytes, ONE_IN_MEMORY, Error::spooling, Error::spooling)?;
            item.held.insert(blob.digest, held);
        }
        for (patch, base) in patches.into_iter().zip(&bases) {
            item.held
                .insert(base.patch.digest, spool(patch, ONE_IN_MEMORY, Error::spooling, Error::spooling)?);
        }
        let rows = head.map(|(head, _, stream)| Rows { head, stream });
        let files = layer.examined.contents.files.iter().map(|file| DeltaFile {
            path: file.path.clone(),
            encoding: match file.path.as_str() == METADATA {
                true => Encoding::Whole { whole: metadata.clone() },
                false => Encoding::Patched { form, rows: rows.clone(), bases: bases.clone() },
            },
        });
        item.planned.dataset.delta = Some(Delta { files: files.collect() });
        Ok(Some(exported))
    }

    /// Unpacks a layer that was validated, and returns its files with the stream that patches make. `None` if the
    /// database holds something other than the rows that a stream can hold, or cannot be made from them.
    fn new_version(&self, kind: Kind, form: Form, layer: &StoredLayer) -> io::Result<Option<NewVersion>> {
        let mut files = MainFile::new(self.temporary()?);
        let limits = UnpackLimits::exactly(&layer.examined.contents);
        (&layer.file).rewind()?;
        let contents = layer::unpack(kind, &layer.file, limits, &mut files).map_err(io::Error::other)?;
        let MainFile { file: main, metadata, .. } = files;
        let Some((digest, size)) = described(&contents) else { return Ok(None) };
        if form != Form::JavaRows {
            let stream = Stream::new(main, form)?;
            return Ok(Some(NewVersion { stream, digest, size, metadata, head: None }));
        }
        let Some((rows, head)) = self.rows(&main)? else { return Ok(None) };
        let head = match find_layout(&main, &rows, head, &self.temporary()?, UPSTREAM, MEMORY) {
            Ok(head) => head,
            Err(FindError::Io(error)) => return Err(error),
            Err(_) => return Ok(None),
        };
        let Some(head) = head.to_bytes().ok().filter(|head| head.len() as u64 <= MAX_WHOLE) else {
            return Ok(None);
        };
        (&rows).rewind()?;
        let (digest, size) = content_digest_of(io::BufReader::with_capacity(layer::CHUNK, &rows))?;
        let stream = Stream::new(rows, form)?;
        Ok(Some(NewVersion {
            stream,
            digest,
            size,
            metadata,
            head: Some((head, RowStream { size, digest })),
        }))
    }

    /// Reads the rows of a database into a temporary file.
    fn rows(&self, database: &File) -> io::Result<Option<(File, Head)>> {
        let rows = self.temporary()?;
        match extract(database, &rows) {
            Ok(head) => Ok(Some((rows, head))),
            Err(ExtractError::Io(error)) => Err(error),
            Err(ExtractError::NotRows(_)) => Ok(None),
        }
    }

    /// Makes the patch from a version in the store, and applies it as an importer does. `None` if the version is not what
    /// was stored.
    fn patch(
        &self,
        stored: &StoredBase,
        dataset: &Dataset,
        new: &NewVersion,
    ) -> io::Result<Option<(Base, File)>> {
        let Some(layer) = self.store.fetched(&stored.layer)? else { return Ok(None) };
        let kind = dataset.name.kind();
        let mut files = MainFile::new(self.temporary()?);
        let Ok(contents) = layer::unpack(kind, layer, UnpackLimits::of(kind), &mut files) else {
            return Ok(None);
        };
        if described(&contents) != Some((stored.digest, stored.size)) {
            return Ok(None);
        }
        let mut base = files.file;
        let form = new.stream.form();
        if form == Form::JavaRows {
            let Some((rows, _)) = self.rows(&base)? else { return Ok(None) };
            base = rows;
        }
        let from = Stream::new(base, form)?;
        let mut file = self.temporary()?;
        let segments = patch::make(Some(&from), &new.stream, &mut file).map_err(io::Error::other)?;
        file.rewind()?;
        let mut proof = FileWriter::new(io::sink(), form);
        patch::apply(Some(&from), &segments, &mut file, &mut proof).map_err(io::Error::other)?;
        if proof.finish()? != (new.digest, new.size) {
            let what = "does not make the version that it was made for";
            return Err(io::Error::other(format!("a patch for {} {what}", dataset.reference())));
        }
        file.rewind()?;
        let (digest, size) = digest_of(&file)?;
        file.rewind()?;
        let patch = Base::patch_of(digest, size);
        let StoredBase { digest, size, updated_at, .. } = *stored;
        Ok(Some((Base { digest, size, updated_at, patch, segments }, file)))
    }

    fn temporary(&self) -> io::Result<File> {
        fs::tempfile_in(self.store.path())
    }

    fn broken(&self, error: io::Error) -> Error {
        broken(self.store, error)
    }
}

/// Returns the databases of a bundle, for the base store.
pub(crate) fn bases(payload: &Payload) -> Vec<StoredBase> {
    let large = payload.datasets.iter().filter(|dataset| dataset.name.kind().is_large());
    let base = |dataset: &Dataset| {
        let (digest, size) = described(&dataset.contents)?;
        Some(StoredBase {
            dataset: dataset.reference(),
            layer: dataset.content_layer()?.digest,
            digest,
            size,
            updated_at: dataset.contents.updated_at,
            created: payload.created,
            whole: dataset.delta.is_none(),
        })
    };
    large.filter_map(base).collect()
}

/// Converts an error of the base store.
pub(crate) fn broken(store: &BaseStore, error: io::Error) -> Error {
    Error::Destination {
        path: store.path().into(),
        what: error.to_string(),
        hint: "Free space there, or name another directory with --base-store.".into(),
    }
}

/// The large layers that were fetched before the bundle is planned, by the reference name of their dataset, and those
/// that the bundle carries as differences.
#[derive(Default)]
pub(crate) struct Prepared {
    pub(crate) layers: BTreeMap<String, StoredLayer>,
    pub(crate) deltas: Vec<ExportedDelta>,
}

/// The name of the small file of a database.
const METADATA: &str = "metadata.json";

/// Returns the form of the large file of a dataset; `None` if its layer is always carried whole.
fn form(kind: Kind) -> Option<Form> {
    match kind {
        Kind::TrivyDb => Some(Form::Bolt),
        Kind::TrivyJavaDb => Some(Form::JavaRows),
        Kind::TrivyChecks | Kind::Vex => None,
    }
}

/// The remark for a database that could not be carried as differences.
const NOT_ROWS: &str = "trivy-java-db is carried whole: its database is not built as usual";

/// The layout of the databases that upstream's SQLite wrote last (modernc.org/sqlite 1.20 to 1.23, SQLite 3.40).
const UPSTREAM: Layout = Layout { old_free_blocks: true, secure_delete: false };

/// Describes bytes as a member.
fn blob_of(media_type: &str, bytes: &[u8]) -> Blob {
    Blob { media_type: media_type.into(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

/// The version of a database that a bundle carries.
struct NewVersion {
    stream: Stream,
    /// The digest of what a reader makes from the stream, without the step from rows to the database.
    digest: ContentDigest,
    size: u64,
    metadata: Vec<u8>,
    /// The head of a database that is made from rows, and the description of the rows.
    head: Option<(Vec<u8>, RowStream)>,
}

/// A sink that stores the large file of a database, and keeps the small one in memory.
struct MainFile {
    file: File,
    metadata: Vec<u8>,
    is_metadata: bool,
}

impl MainFile {
    fn new(file: File) -> Self {
        MainFile { file, metadata: Vec::new(), is_metadata: false }
    }
}

impl Sink for MainFile {
    fn begin(&mut self, path: &RelPath, _: u64) -> io::Result<()> {
        self.is_metadata = path.as_str() == METADATA;
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.is_metadata {
            true => self.metadata.extend_from_slice(bytes),
            false => self.file.write_all(bytes)?,
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the content digest and the length of the large file of a database.
fn described(contents: &Contents) -> Option<(ContentDigest, u64)> {
    let file = contents.files.iter().find(|file| file.path.as_str() != METADATA)?;
    Some((file.digest, file.size))
}

/// The side of a copy that failed.
enum CopyError {
    Source(io::Error),
    Store(io::Error),
}

/// Copies a layer, and returns its digest.
fn copy(from: impl Read, to: &mut impl Write) -> Result<Digest, CopyError> {
    let mut hasher = Hasher::new();
    for_each_chunk(from, CopyError::Source, |bytes| {
        hasher.update(bytes);
        to.write_all(bytes).map_err(CopyError::Store)
    })?;
    Ok(hasher.finish())
}
