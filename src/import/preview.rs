//! `import --dry-run` for a cache: verifies and decides everything as an import does, but installs and records nothing.

use std::io;
use std::path::Path;

use crate::bundle::{Dataset, VerifiedBundle};
use crate::delivery::admission::admit_all;
use crate::delivery::report::{DeliveryStatus, TargetReport};
use crate::delivery::target_id::TargetId;
use crate::error::Error;
use crate::import::cache::harbor_context;
use crate::import::cache_choice::{CacheChoice, choose, filter_chosen};
use crate::import::run::ImportRun;
use crate::intake::open::Blame;
use crate::intake::receiver::Check;
use crate::intake::unpack::unpack_bundle;
use crate::progress::Progress;
use crate::targets::{Cache, Slot};
use crate::util::fs::tempdir_in;

/// Returns the report of an import into a cache, and changes nothing.
///
/// # Errors
/// If the cache cannot be read, or the only bundle is damaged. The errors of single datasets are in the report.
pub(crate) fn of_cache(run: &mut ImportRun<'_>, dir: &Path) -> Result<TargetReport, Error> {
    let ImportRun { options, context, progress, .. } = *run;
    let scratch = tempdir_in(run.ledger.scratch()?, "dry-run-");
    let scratch = scratch.map_err(Error::unexpected("creating a directory for the dry run"))?;
    let absolute = || std::path::absolute(dir).map_err(Error::unexpected("finding --cache-dir"));
    // A cache that does not exist yet is treated as empty.
    let (view, place) = match Cache::inspect(dir, options.layout)? {
        Some(view) => {
            let place = view.dir().to_path_buf();
            (Some(view), place)
        }
        None => (Cache::inspect(scratch.path(), options.layout)?, absolute()?),
    };
    let gone = || Error::unexpected("looking at the cache")(io::ErrorKind::NotFound.into());
    let view = view.ok_or_else(gone)?;
    let harbors = harbor_context(options, context, &place)?;
    let context = harbors.as_ref().unwrap_or(context);
    let target = TargetId::Cache(place.clone());
    let ledger = run.ledger.for_target(&target);
    let ignored = run.found.ignored.clone();
    let (mut report, damaged) = run.found.without_damaged(|bundles| {
        let mut report = TargetReport::new(target.clone(), context, ignored.clone());
        let admitted = admit_all(bundles, ledger.state(), context, &mut report);
        if report.bundles.is_empty() {
            return Ok(report);
        }
        let chosen = choose(options, &view, &context.host, bundles, &admitted, &mut report)?;
        let holds = |slot: &Slot, contents: &_, fresh: &_| view.holds(slot, contents, fresh);
        let chosen = filter_chosen((&view, &holds), ledger.state(), context, chosen, &mut report)?;
        let size = |choice: &CacheChoice| choice.dataset.contents.unpacked_size();
        view.has_room(&place, chosen.iter().map(size).fold(0, u64::saturating_add))?;
        let wanted: Vec<(usize, &Dataset)> =
            chosen.iter().map(|choice| (choice.bundle, &choice.dataset)).collect();
        check_content(bundles, &wanted, progress)?;
        chosen.iter().for_each(|choice| report.set(&choice.dataset, DeliveryStatus::WouldInstall, None));
        Ok(report)
    })?;
    report.errors.splice(0..0, damaged);
    Ok(report)
}

/// Verifies the content of datasets that would be imported. Each has the index of its bundle.
///
/// # Errors
/// If a bundle is damaged; the error has the index of the bundle.
pub(crate) fn check_content(
    bundles: &[VerifiedBundle],
    wanted: &[(usize, &Dataset)],
    progress: &dyn Progress,
) -> Result<(), Blame> {
    for (index, bundle) in bundles.iter().enumerate() {
        let mine: Vec<String> =
            wanted.iter().filter(|(at, _)| *at == index).map(|(_, dataset)| dataset.reference()).collect();
        if !mine.is_empty() {
            unpack_bundle(bundle, &mut Check::Only(mine), progress).map_err(Blame::on(index))?;
        }
    }
    Ok(())
}
