//! Pushes the chosen datasets: streams the blobs that a registry lacks from the bundle, then sets the tags.
//!
//! Decides nothing: the datasets and their references are already chosen.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Mutex;

use jiff::Timestamp;

use crate::bundle::payload::{Blob, Member};
use crate::bundle::reader::{MemberReader, Members};
use crate::bundle::{BundleError, Dataset, VerifiedBundle};
use crate::delivery::candidates::DatasetCandidate;
use crate::delivery::report::{DeliveryStatus, TargetReport, rewritten};
use crate::digest::Digest;
use crate::error::{Error, panicked};
use crate::import::options::ImportOptions;
use crate::intake::open::Blame;
use crate::oci;
use crate::progress::{Counted, Progress};
use crate::remote::Repository;
use crate::targets::compat::Compat;
use crate::targets::registry::{BlobContent, PushError, PushOutcome, Registry, push_under};
use crate::trust::acceptance::Admission;
use crate::util::text::escape;
use crate::util::threads::lock;

/// A dataset to push.
pub(crate) struct PushChoice {
    pub(crate) bundle: usize,
    pub(crate) dataset: Dataset,
    pub(crate) reference: Repository,
    /// The extra tags.
    pub(crate) tags: Vec<String>,
    /// The manifest that the tags will name: upstream's, or the one of `--compat`.
    pub(crate) manifest: Vec<u8>,
    pub(crate) media_type: String,
    /// The rewritten manifest of `--compat`.
    pub(crate) compat: Option<Compat>,
    /// The date that is compared with the floor.
    pub(crate) date: Timestamp,
    /// Whether its bundle was received after newer ones. Older datasets in it need no warning then.
    pub(crate) late: bool,
    /// Whether it is older than the existing data, and imported because of `--allow-rollback`.
    pub(crate) rollback: bool,
    /// Whether it was accepted here before.
    pub(crate) known: bool,
    /// Whether its tag is missing, or names other data.
    pub(crate) lost: bool,
}

impl PushChoice {
    /// Returns a choice before its manifest is read and its date is compared.
    pub(crate) fn new(reference: Repository, candidate: DatasetCandidate) -> PushChoice {
        let DatasetCandidate { bundle, dataset, date, late } = candidate;
        PushChoice {
            bundle,
            media_type: dataset.manifest.media_type.clone(),
            dataset,
            reference,
            tags: Vec::new(),
            manifest: Vec::new(),
            compat: None,
            date,
            late,
            rollback: false,
            known: false,
            lost: false,
        }
    }
}

/// Reads the manifests of the chosen datasets, and rewrites them for `--compat`.
///
/// # Errors
/// If a bundle is damaged; the error has the index of the bundle.
pub(crate) fn load_manifests(
    options: &ImportOptions,
    bundles: &[VerifiedBundle],
    chosen: &mut [PushChoice],
) -> Result<(), Blame> {
    for (index, bundle) in bundles.iter().enumerate() {
        let mut mine: Vec<&mut PushChoice> =
            chosen.iter_mut().filter(|choice| choice.bundle == index).collect();
        let wanted = mine.iter().map(|choice| choice.dataset.manifest.path()).collect();
        let manifests = bundle.small_members(&wanted, oci::MAX_MANIFEST).map_err(Blame::on(index))?;
        for choice in &mut mine {
            let lacks = |why: String| BundleError::Payload { path: bundle.path().into(), why: why.into() };
            let upstream = manifests.get(&choice.dataset.manifest.path()).cloned();
            let none = || lacks(format!("{} has no manifest", choice.dataset.reference()));
            choice.manifest = upstream.ok_or_else(none).map_err(Blame::on(index))?;
            let differs = |why: String| lacks(format!("{}: {}", choice.dataset.reference(), escape(&why)));
            let agrees = choice.dataset.agrees_with(&choice.manifest);
            agrees.map_err(differs).map_err(Blame::on(index))?;
            if options.registry.compat {
                let compat = Compat::of(&choice.manifest).map_err(|why| lacks(escape(&why)));
                let compat = compat.map_err(Blame::on(index))?;
                choice.manifest.clone_from(&compat.manifest);
                choice.media_type = Compat::MEDIA_TYPE.to_owned();
                choice.compat = Some(compat);
            }
        }
    }
    Ok(())
}

/// The errors of datasets that could not be pushed, by reference.
pub(crate) type Failed = BTreeMap<String, Error>;

/// Pushes the missing blobs, 2 at a time, in one pass over each bundle. Only signed bytes are sent.
/// If the registry rejects a blob of one dataset, the others are still pushed.
///
/// # Errors
/// If a bundle is damaged; the error has the index of the bundle.
pub(crate) fn push_blobs(
    registry: &Registry<'_>,
    bundles: &[VerifiedBundle],
    chosen: &[PushChoice],
    progress: &dyn Progress,
) -> Result<Failed, Blame> {
    let mut failed = Failed::new();
    for (index, bundle) in bundles.iter().enumerate() {
        let mine: Vec<&PushChoice> = chosen.iter().filter(|choice| choice.bundle == index).collect();
        if !mine.is_empty() {
            push_from(registry, bundle, &mine, &mut failed, progress).map_err(Blame::on(index))?;
        }
    }
    for choice in chosen {
        if choice.compat.is_none() {
            continue;
        }
        if let Err(PushError::Target(error)) = registry.push_compat_config(&choice.reference) {
            failed.entry(choice.reference.to_string()).or_insert(error.into());
        }
    }
    Ok(failed)
}

/// Reads the blobs of a bundle, again for each retry.
pub(crate) struct MemberSource<'b> {
    pub(crate) bundle: &'b VerifiedBundle,
    pub(crate) progress: &'b dyn Progress,
}

impl<'b> MemberSource<'b> {
    /// Returns a blob. The name and the host are for the progress. The first read uses `first`, if there is one; later
    /// reads open the blob in the bundle again.
    pub(crate) fn content(
        &self,
        (digest, size): (Digest, u64),
        (name, host): (String, &'b str),
        first: Option<MemberReader<'b>>,
    ) -> impl BlobContent + 'b {
        let MemberSource { bundle, progress } = *self;
        MemberContent { bundle, progress, digest, size, name, host, first }
    }
}

/// A blob of a bundle.
struct MemberContent<'b> {
    bundle: &'b VerifiedBundle,
    progress: &'b dyn Progress,
    digest: Digest,
    size: u64,
    name: String,
    host: &'b str,
    first: Option<MemberReader<'b>>,
}

impl BlobContent for MemberContent<'_> {
    fn open<'s>(&'s mut self) -> io::Result<Box<dyn Read + 's>> {
        let member = match self.first.take() {
            Some(member) => member,
            None => self.bundle.blob(self.digest).map_err(io::Error::other)?,
        };
        let step = self.progress.begin(&self.name, self.size, self.host);
        Ok(Box::new(Counted::new(member, step)))
    }
}

/// The number of blobs that are pushed at the same time: while a registry stores one, it can receive the next.
const AT_ONCE: usize = 2;

fn push_from(
    registry: &Registry<'_>,
    bundle: &VerifiedBundle,
    mine: &[&PushChoice],
    failed: &mut Failed,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let members = Mutex::new(Some(bundle.members()));
    let source = MemberSource { bundle, progress };
    let failed = Mutex::new(failed);
    std::thread::scope(|scope| {
        let work = || {
            let done = push_members(registry, &members, &source, mine, &failed);
            // After an error of the bundle the other worker must stop too.
            done.inspect_err(|_| *lock(&members) = None)
        };
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let done: Vec<_> =
            workers.into_iter().map(|worker| worker.join().map_err(panicked("pushing"))).collect();
        done.into_iter().try_for_each(|done| done?)
    })
}

/// Pushes the wanted members of a bundle until none is left.
fn push_members(
    registry: &Registry<'_>,
    members: &Mutex<Option<Members<'_>>>,
    source: &MemberSource<'_>,
    mine: &[&PushChoice],
    failed: &Mutex<&mut Failed>,
) -> Result<(), Error> {
    let next = || lock(members).as_mut().map_or(Ok(None), Members::next);
    while let Some(mut member) = next()? {
        let &Member { path: ref name, digest, size, .. } = member.member();
        let path = member.bundle_path();
        let wanting: Vec<&PushChoice> = mine
            .iter()
            .copied()
            .filter(|choice| !lock(failed).contains_key(&choice.reference.to_string()))
            .filter(|choice| content(choice).any(|blob| blob.path() == *name))
            .collect();
        let written = |choice: &PushChoice, pushed: Result<PushOutcome, PushError>| match pushed {
            Ok(_) => Ok(()),
            Err(PushError::Source(error)) => Err(BundleError::from_io(path, error)),
            Err(PushError::Target(error)) => {
                lock(failed).insert(choice.reference.to_string(), error.into());
                Ok(())
            }
        };
        match wanting[..] {
            [] => {}
            [choice] => {
                let what = (choice.dataset.reference(), choice.reference.host());
                let content = source.content((digest, size), what, Some(member));
                written(choice, registry.push_blob(&choice.reference, digest, size, content))?;
            }
            // Several datasets share only the configuration of 2 bytes, never large layers.
            _ => {
                let mut bytes = Vec::new();
                member.read_to_end(&mut bytes).map_err(|error| BundleError::from_io(path, error))?;
                for choice in wanting {
                    written(choice, registry.push_blob(&choice.reference, digest, size, &bytes[..]))?;
                }
            }
        }
    }
    Ok(())
}

/// Returns the blobs that the manifest names and the bundle holds.
pub(crate) fn content(choice: &PushChoice) -> impl Iterator<Item = &Blob> {
    let config = Some(&choice.dataset.config).filter(|_| choice.compat.is_none());
    config.into_iter().chain(&choice.dataset.layers)
}

/// Pushes the manifests of one bundle's datasets under their tags, after everything that they name.
pub(crate) fn push_tags(
    registry: &Registry<'_>,
    mine: &[&PushChoice],
    admission: &Admission,
    report: &mut TargetReport,
) {
    for choice in mine {
        let PushChoice { reference, tags, .. } = choice;
        let status = match push_under(registry, reference, tags, &choice.media_type, &choice.manifest) {
            Ok(()) if admission.seen && choice.known && choice.lost => DeliveryStatus::Restored,
            Ok(()) => DeliveryStatus::Pushed,
            Err(error) => {
                report.errors.push(error.into());
                DeliveryStatus::Failed
            }
        };
        if let (DeliveryStatus::Pushed | DeliveryStatus::Restored, Some(compat)) = (status, &choice.compat) {
            report.advice.push(rewritten(&choice.dataset, compat));
        }
        match status.is_in_place() {
            true => report.installs(&choice.dataset, None, status, None),
            false => report.set(&choice.dataset, status, None),
        }
    }
}
