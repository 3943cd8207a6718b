//! `settings`: the scanner settings for caches, registries and web servers, without an import.
//!
//! Reads the targets, and writes only the requested settings files.

use std::path::{Path, PathBuf};

use crate::dataset::catalogue::{self, TrivyVersion, VEX_SPEC};
use crate::dataset::{DatasetRef, Kind, Name};
use crate::delivery::context::{DeliveryContext, HostContext};
use crate::delivery::registry_access::RegistryAccess;
use crate::delivery::registry_place::RegistryPlace;
use crate::delivery::report::{ExistingDataset, TargetReport};
use crate::delivery::settings::{self, places_for_settings};
use crate::delivery::target_id::TargetId;
use crate::delivery::web_url::WebUrl;
use crate::error::Error;
use crate::import::cache::harbor_context;
use crate::import::cache_finish::write_settings;
use crate::import::deliver::{cache_dirs, host};
use crate::import::options::ImportOptions;
use crate::import::report::ImportReport;
use crate::targets::Cache;
use crate::targets::registry::Registry;
use crate::targets::web_root::WebRoot;
use crate::trust::keyring::Keyring;

/// Returns the scanner settings for the datasets in the targets.
///
/// # Errors
/// If a target cannot be read or has nothing for scanners, or if the settings of several targets differ and would be
/// written to one file.
pub(crate) fn settings(options: &ImportOptions) -> Result<ImportReport, Error> {
    places_for_settings(&options.settings)?;
    let places = &options.registry.places;
    let elsewhere = !places.is_empty() || options.web_url.is_some();
    let (caches, warnings) = match options.cache_dirs.is_empty() && elsewhere {
        true => (Vec::new(), Vec::new()),
        false => cache_dirs(options)?,
    };
    let count = caches.len() + places.len() + usize::from(options.web_url.is_some());
    let shared = settings::can_share_settings(places, !caches.is_empty());
    settings::check(shared, &options.settings, count)?;
    let context = DeliveryContext::new(host(options)?, Keyring::default(), &options.acceptance);
    let mut targets = Vec::new();
    for dir in &caches {
        targets.push(of_cache(options, &context, dir)?);
    }
    let registries = RegistryAccess::to(places, &options.registry.remote)?;
    if let Some(registry) = registries.to_read(&crate::progress::Silent) {
        for place in places {
            targets.push(of_registry(&registry, place, context.host.version)?);
        }
    }
    if let Some(url) = &options.web_url {
        targets.push(of_web_server(options, url, &context.host)?);
    }
    let access = settings::ScannerAccess {
        insecure: &|host| registries.is_insecure(host),
        login: &|host| registries.has_login(host),
        own_ca: options.registry.remote.ca_cert.is_some(),
        config: options.settings.write_config.as_deref(),
    };
    settings::settings(shared, &options.settings, &context, &access, &mut targets);
    Ok(ImportReport { targets, warnings, repaired: Vec::new(), errors_at_the_end: Vec::new() })
}

fn asked(target: TargetId, version: TrivyVersion) -> TargetReport {
    let mut report = TargetReport::of(target, version);
    (report.on_request, report.shows_all_settings) = (true, true);
    report
}

fn of_cache(options: &ImportOptions, context: &DeliveryContext, dir: &Path) -> Result<TargetReport, Error> {
    let Some(view) = Cache::inspect(dir, options.layout)? else {
        return Err(Error::usage(
            format!("there is no cache directory {}", dir.display()),
            "Import into it first, or name another with --cache-dir.",
        ));
    };
    let harbors = harbor_context(options, context, view.dir())?;
    let host = &harbors.as_ref().unwrap_or(context).host;
    let mut report = asked(TargetId::Cache(view.dir().into()), host.version);
    write_settings(options, &view, host, &mut report)?;
    Ok(report)
}

fn of_registry(
    registry: &Registry<'_>,
    place: &RegistryPlace,
    version: TrivyVersion,
) -> Result<TargetReport, Error> {
    let mut report = asked(TargetId::Registry(place.clone()), version);
    for (name, tag) in [
        (Name::trivy_db(), catalogue::DB_TAG),
        (Name::trivy_java_db(), catalogue::JAVA_DB_TAG),
        (Name::trivy_checks(), version.checks_tag()),
    ] {
        let Some(repository) = place.repository(&name, tag)? else { continue };
        if registry.manifest(&repository)?.is_some() {
            let (dataset, reference) = (DatasetRef::new(name, tag), repository.to_string());
            report.existing.push(ExistingDataset { dataset, reference });
        }
    }
    if report.existing.is_empty() {
        return Err(Error::usage(
            format!("{place} holds none of Trivy's datasets"),
            "Import into it first (`trivy-ferry import --registry`), or name the prefix of their repositories.",
        ));
    }
    Ok(report)
}

/// Returns the report of a web server: the VEX repositories in the web root or, if that is on another host, those that
/// are named.
fn of_web_server(options: &ImportOptions, url: &WebUrl, host: &HostContext) -> Result<TargetReport, Error> {
    let names: Vec<Name> = match &options.web_root {
        Some(dir) => WebRoot::look(dir)?.repositories()?,
        None if options.selection.only.is_empty() => Name::vex("default").into_iter().collect(),
        None => options.selection.only.iter().filter(|name| name.kind() == Kind::Vex).cloned().collect(),
    };
    let names: Vec<Name> = names.into_iter().filter(|name| options.selection.wants(name)).collect();
    let place = options.web_root.clone().unwrap_or_else(|| PathBuf::from(url.to_string()));
    if names.is_empty() {
        return Err(Error::usage(
            format!("there are no VEX repositories in {}", place.display()),
            "Import into it first (`trivy-ferry import --web-root`), or name them with --only.",
        ));
    }
    let mut report = asked(TargetId::WebRoot(place), host.version);
    let existing = |name: Name| {
        let reference = url.of(&name);
        ExistingDataset { dataset: DatasetRef::new(name, VEX_SPEC), reference }
    };
    report.existing = names.into_iter().map(existing).collect();
    Ok(report)
}
