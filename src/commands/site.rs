//! The settings for scanners that fetch from a site's own registry and web server: what the targets of
//! one run have together.

use super::after;
use super::import::Setup;
use super::import_report::{Report, Target};
use super::place::Place;
use crate::cli::Import;
use crate::error::Error;
use crate::target::registry_settings::{Pulled, registry_settings};
use crate::target::vex_config::Carried;
use crate::target::vex_scanner::repository_yaml;

/// Whether scanners must accept plain HTTP or any certificate to reach a registry.
pub(super) type Insecure<'a> = dyn Fn(&str) -> bool + 'a;

/// Whether the targets of a run are one site: no scanner would have to choose between two of them.
pub(super) fn is_one(args: &Import) -> bool {
    let places = &args.registry.places;
    let whole = places.iter().filter(|place| matches!(place, Place::Registry { .. })).count();
    let datasets: Vec<_> = places.iter().filter_map(Place::dataset).collect();
    let distinct: std::collections::BTreeSet<_> = datasets.iter().collect();
    args.cache_dir.is_none()
        && whole + usize::from(!datasets.is_empty()) <= 1
        && distinct.len() == datasets.len()
}

/// Puts the settings into the reports, and writes them where that was asked for.
pub(super) fn settings(args: &Import, setup: &Setup, insecure: &Insecure<'_>, reports: &mut [Report]) {
    let mut site: Vec<&mut Report> =
        reports.iter_mut().filter(|report| !matches!(report.target, Target::Cache(_))).collect();
    if !is_one(args) {
        for report in site {
            let pulled = pulled(setup, insecure, &[report]);
            if pulled != Pulled::default() {
                after::show(&registry_settings(setup.host.version, &pulled), report);
            }
        }
        return;
    }
    let all: Vec<&Report> = site.iter().map(|report| &**report).collect();
    let pulled = pulled(setup, insecure, &all);
    if pulled == Pulled::default() {
        return;
    }
    // They are said once, where something has changed.
    let changed = site.iter().rposition(|report| report.changed().count() > 0);
    let last = changed.or(site.len().checked_sub(1));
    let Some(report) = last.and_then(|last| site.get_mut(last)) else { return };
    let settings = registry_settings(setup.host.version, &pulled);
    after::show(&settings, report);
    if changed.is_some() && args.settings.write_config.is_none() {
        report.advice.extend(hints(&pulled));
    }
    if let Err(error) = after::write_files(&args.settings, &settings, report) {
        report.errors.push(error);
    }
}

/// What is not written, and is to be known all the same.
pub(super) fn hints(pulled: &Pulled) -> Vec<String> {
    let mut hints = Vec::new();
    if !pulled.vex.is_empty() {
        hints.push(format!(
            "Each scanner needs this as .trivy/vex/repository.yaml in its XDG_DATA_HOME, else HOME:\n{}",
            repository_yaml(&pulled.vex)
                .lines()
                .filter(|line| !line.starts_with("# Written"))
                .collect::<Vec<_>>()
                .join("\n")
        ));
    }
    if pulled.is_in_registry() {
        hints.push(
            "--write-config DIR also writes Helm values for trivy-operator and a Trivy server, and the environment of Harbor's adapter."
                .into(),
        );
    }
    hints
}

/// Where scanners find what is in place in these targets.
pub(super) fn pulled(setup: &Setup, insecure: &Insecure<'_>, reports: &[&Report]) -> Pulled {
    let rows = || reports.iter().flat_map(|report| report.in_place());
    let there = |name: &str, tag: Option<&str>| {
        let row = rows().find(|row| row.name.as_str() == name && tag.is_none_or(|tag| row.tag == tag))?;
        row.reference.clone()
    };
    let served = rows().filter_map(|row| {
        // `default` stays the one on the internet, and disabled.
        let name = row.name.vex_repository()?;
        let name = if name == "default" { row.name.as_str() } else { name };
        Some(Carried { name: name.to_owned(), url: row.reference.clone()? })
    });
    let (db, java_db) = (there("trivy-db", None), there("trivy-java-db", None));
    let checks = there("trivy-checks", Some(setup.host.version.checks_tag()));
    let references = [&db, &java_db, &checks].into_iter().flatten();
    let insecure = references.filter_map(|reference| reference.split('/').next()).any(insecure);
    Pulled { db, java_db, checks, vex: served.collect(), insecure }
}

/// The settings are for one site.
pub(super) fn check(args: &Import, targets: usize) -> Result<(), Error> {
    let wanted = args.settings.write_env.is_some() || args.settings.write_config.is_some();
    if wanted && targets > 1 && !is_one(args) {
        return Err(Error::usage(
            "the settings differ from target to target, and several are named",
            "Import into one target at a time where --write-env or --write-config is given.",
        ));
    }
    Ok(())
}
