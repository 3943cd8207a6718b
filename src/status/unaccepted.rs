//! Databases that scanners use although no accepted bundle contained them: the cache was filled by hand, or the state
//! was lost. Also the datasets that `--max-age` requires and a target lacks.

use jiff::Timestamp;

use crate::dataset::{DatasetRef, Kind, Name, catalogue};
use crate::delivery::ledger::IMAGE;
use crate::delivery::target_id::TargetId;
use crate::error::Error;
use crate::status::drift::{self, Depth, DriftState};
use crate::status::report::{ItemStatus, StatusReport, TargetStatus};
use crate::trust::Rejection;
use crate::trust::max_age::MaxAge;
use crate::trust::state::{ImportState, TargetState};

/// Adds a row for each database in a cache that no target in use has accepted. If the retired record of another stream
/// has accepted it, the row is taken from that record.
pub(crate) fn add(status: &mut StatusReport, imports: &[(String, ImportState)]) {
    for index in 0..status.imports.len() {
        let of = &status.imports[index];
        let (TargetId::Cache(dir), false) = (&of.target, of.retired) else { continue };
        let (dir, has_failed) = (dir.clone(), of.failed.is_some());
        for (name, tag) in
            [(Name::trivy_db(), catalogue::DB_TAG), (Name::trivy_java_db(), catalogue::JAVA_DB_TAG)]
        {
            if has(status, &status.imports[index].target, &name) {
                continue;
            }
            match drift::date_in_cache(&dir, &name) {
                Ok(Some(date)) => {
                    let target = &status.imports[index].target;
                    let row = row(target, &DatasetRef::new(name, tag).to_string(), date, imports);
                    status.imports[index].datasets.push(row);
                }
                Ok(None) => {}
                Err(error) => {
                    let error = Error::from(error);
                    let is_known = status.unseen.iter().any(|known| known.to_string() == error.to_string());
                    // The failure of a target is reported already.
                    if !is_known && !has_failed {
                        status.unseen.push(error);
                    }
                }
            }
        }
    }
}

/// Returns an error for each dataset that `--max-age` names and a target lacks. A VEX repository may be in any target.
pub(crate) fn absent(status: &StatusReport, max_age: &MaxAge) -> Vec<Error> {
    let used = || status.used().filter(|target| target.failed.is_none());
    let mut errors = Vec::new();
    for name in max_age.explicit() {
        let rejection = || Rejection::Absent { dataset: name.to_string() };
        if name.kind() == Kind::Vex {
            if used().next().is_some() && !used().any(|target| has(status, &target.target, name)) {
                errors.push(rejection().into());
            }
            continue;
        }
        let mut judged: Vec<&TargetId> = Vec::new();
        for target in used().filter(|target| is_asked(target)) {
            if judged.contains(&&target.target) || has(status, &target.target, name) {
                continue;
            }
            judged.push(&target.target);
            errors.push(target.rejected(
                rejection(),
                "Import a bundle that has it, remove it from --max-age, or check a single target with --target.",
            ));
        }
    }
    errors
}

/// Whether a target should have a dataset that is not a VEX repository.
fn is_asked(target: &TargetStatus) -> bool {
    match &target.target {
        TargetId::Cache(_) => true,
        TargetId::WebRoot(_) => false,
        // A registry that holds only images is not for databases.
        _ => target.datasets.iter().any(|row| !row.name.starts_with(IMAGE)),
    }
}

/// Whether a target has a dataset, from any stream.
fn has(status: &StatusReport, target: &TargetId, name: &Name) -> bool {
    let of_target = status.used().filter(|of| of.target == *target);
    let mut names =
        of_target.flat_map(|of| &of.datasets).filter_map(|row| row.name.parse::<DatasetRef>().ok());
    names.any(|dataset| dataset.name == *name)
}

/// Returns the row of a database with this date in a cache.
fn row(target: &TargetId, name: &str, date: Timestamp, imports: &[(String, ImportState)]) -> ItemStatus {
    let key = target.to_string();
    let records = imports.iter().filter_map(|(_, imports)| imports.targets.get(&key));
    let is_there = |record: &&TargetState| {
        let origin = record.origins.get(name);
        let looked = drift::on_disk(target, name, date, origin, Depth::Dates);
        record.floors.get(name) == Some(&date) && looked.is_ok_and(|(state, _)| state == DriftState::InPlace)
    };
    let (state, row) = match records.into_iter().find(is_there) {
        Some(record) => (DriftState::InPlace, ItemStatus::of(name, date, record)),
        None => (DriftState::NotAccepted, ItemStatus::of(name, date, &TargetState::default())),
    };
    ItemStatus { state, in_use: Some(date), ..row }
}
