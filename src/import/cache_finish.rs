//! The last steps of an import into a cache: Trivy's VEX configuration, its scan cache, and the scanner settings.
//! This module does not depend on the rules of acceptance.

use jiff::{SignedDuration, Timestamp};

use crate::bundle::Dataset;
use crate::dataset::{Kind, Name};
use crate::delivery::context::HostContext;
use crate::delivery::report::{NEWER_BUNDLE, TargetReport};
use crate::delivery::settings::{show, write_files};
use crate::digest::Digest;
use crate::error::Error;
use crate::import::options::ImportOptions;
use crate::scanner::settings::{InstalledData, Scanner, settings};
use crate::scanner::vex_config::WantedEntries;
use crate::scanner::vex_entry::CarriedRepository;
use crate::targets::{Cache, CachedDataset, Layout, View};
use crate::trust::keyring::Keyring;

/// The data about an import of bundles that the VEX configuration needs.
pub(crate) struct ImportedVex<'a> {
    pub(crate) stream: &'a str,
    pub(crate) keyring: &'a Keyring,
    /// The result of [`crate::import::cache_choice::listed`].
    pub(crate) listed: Vec<(Digest, CarriedRepository)>,
}

/// Updates the VEX configuration, the scan cache and the settings. `brought` is `None` if no bundle was imported.
///
/// The data is already in place, so every step is tried, and the errors are added to the report.
pub(crate) fn finish(
    options: &ImportOptions,
    cache: &mut Cache<'_>,
    host: &HostContext,
    brought: Option<&ImportedVex<'_>>,
    report: &mut TargetReport,
) {
    report.warn_of_old(host.now, NEWER_BUNDLE);
    if let Err(error) = vex(cache, host, brought, report) {
        report.errors.push(error);
    }
    let cleared = scan_cache(options, cache, report);
    let written = write_settings(options, cache, host, report);
    report.errors.extend([cleared, written].into_iter().filter_map(Result::err));
    if report.changed().count() > 0 {
        report.advice.push("A running `trivy server` keeps the old database until it is restarted.".into());
    }
}

/// Adds the imported VEX repositories to Trivy's configuration: Trivy uses only those that are listed there.
fn vex(
    cache: &Cache<'_>,
    host: &HostContext,
    brought: Option<&ImportedVex<'_>>,
    report: &mut TargetReport,
) -> Result<(), Error> {
    let Some(brought) = brought else { return Ok(()) };
    // If two repositories have documents about one product, Trivy uses the first. The order of the report does not
    // depend on the earlier content of the cache.
    let in_place = report
        .in_place()
        .filter_map(|row| report.installed.datasets().find(|dataset| row.is(&dataset.dataset_ref())));
    let of = |dataset: &Dataset| {
        let digest = dataset.manifest.digest;
        let name = dataset.name.vex_repository()?;
        brought.listed.iter().rfind(|(of, listed)| *of == digest && listed.name == name)
    };
    let carried: Vec<CarriedRepository> =
        in_place.filter_map(of).map(|(_, carried)| carried.clone()).collect();
    let listed: Vec<CarriedRepository> = brought.listed.iter().map(|(_, listed)| listed.clone()).collect();
    let trusts = |keyid: &str| brought.keyring.public_keys().any(|key| key.id().hex() == keyid);
    let items = report.bundles.iter().flat_map(|bundle| &bundle.missing_items);
    let missing =
        items.filter_map(|item| item.name.parse::<Name>().ok()?.vex_repository().map(str::to_owned));
    let missing: Vec<String> = missing.collect();
    let wanted =
        WantedEntries { stream: brought.stream, listed: &listed, missing: &missing, trusts: &trusts };
    // Another import may have written the file since this one began.
    let vex = host.vex.reread()?;
    let merged = vex.merge(&carried, Some(&wanted), &|name| has_vex(cache, name))?;
    report.written.extend(merged.written);
    report.advice.extend(merged.findings);
    Ok(())
}

/// Whether the cache has a VEX repository of this name.
fn has_vex(cache: &View, name: &str) -> bool {
    // VEX Hub can have any name in Trivy's configuration, even one that is invalid as a dataset name.
    let slot = Name::vex("default").ok().and_then(|hub| cache.slot(&hub, name));
    slot.is_some_and(|slot| cache.installed(&slot).is_ok_and(|installed| installed.is_some()))
}

/// Clears Trivy's scan cache if requested, or else adds the advice to do so: cached image analyses contain results of
/// the earlier trivy-java-db.
fn scan_cache(
    options: &ImportOptions,
    cache: &mut Cache<'_>,
    report: &mut TargetReport,
) -> Result<(), Error> {
    let java = report.changed().any(|row| row.name.kind() == Kind::TrivyJavaDb);
    if options.clear_scan_cache {
        if cache.clear_scan_cache()? {
            report.advice.push("The scan cache was cleared: the next scans analyze images again.".into());
        }
    } else if java {
        report.advice.push(
            "Images scanned earlier keep the results of the old trivy-java-db: import with --clear-scan-cache, or run `trivy clean --scan-cache`."
                .into(),
        );
    }
    Ok(())
}

/// Adds the scanner settings for a cache to the report, and writes them to the requested files.
///
/// # Errors
/// If the cache cannot be read, or a file cannot be written.
pub(crate) fn write_settings(
    options: &ImportOptions,
    cache: &View,
    host: &HostContext,
    report: &mut TargetReport,
) -> Result<(), Error> {
    if options.layout == Layout::Harbor {
        if !report.on_request && !rustix::process::geteuid().is_root() && options.owner.is_none() {
            report.warnings.push(
                "the files belong to you, but Harbor's adapter runs as 10000:10000: import as root".into(),
            );
        }
        report.advice.push(
            "Set skip_update, skip_java_db_update and offline_scan to true in harbor.yml's trivy section."
                .into(),
        );
        if vex_is_in_place(cache, host)? {
            report.advice.push(harbor_vex(options));
        }
        return Ok(());
    }
    let installed = |name: Name| -> Result<Option<CachedDataset>, Error> {
        let slot = cache.slot(&name, "");
        Ok(slot.map(|slot| cache.installed(&slot)).transpose()?.flatten())
    };
    let (db, java_db) = (installed(Name::trivy_db())?, installed(Name::trivy_java_db())?);
    let in_place = InstalledData {
        db: db.is_some(),
        java_db: java_db.is_some(),
        checks: installed(Name::trivy_checks())?.is_some(),
        vex: vex_is_in_place(cache, host)?,
    };
    let scanner = Scanner { read_only_cache: false, data_home: host.data_home.clone() };
    let settings = settings(cache.dir(), host.version, in_place, &scanner);
    show(&settings, report);
    report.heading = format!("Scan with these settings, or Trivy {} uses the network:", host.version);
    report.fails_from = fails_from(db.as_ref(), java_db.as_ref());
    write_files(&options.settings, &settings, report)
}

/// Whether the cache has a VEX repository that is listed in Trivy's configuration.
fn vex_is_in_place(cache: &View, host: &HostContext) -> Result<bool, Error> {
    let vex = host.vex.reread()?;
    let enabled = vex.entries().iter().filter(|entry| entry.enabled);
    let names: Vec<&str> = enabled.map(|entry| entry.name.as_str()).chain(["default"]).collect();
    Ok(names.iter().any(|name| has_vex(cache, name)))
}

/// The path of the cache directory inside Harbor's adapter (harbor-scanner-trivy, `pkg/etc/config.go`:
/// `SCANNER_TRIVY_CACHE_DIR`).
const HARBOR_CACHE: &str = "/home/scanner/.cache/trivy";

/// Returns the advice for VEX with Harbor's adapter. The adapter passes its environment to Trivy from
/// harbor-scanner-trivy v0.34.2 on (`pkg/etc/config.go`, `pkg/trivy/wrapper.go`); `harbor.yml` and
/// Harbor's chart have no key for VEX.
fn harbor_vex(options: &ImportOptions) -> String {
    let home = match &options.data_home {
        Some(home) => format!("the path of {} in the adapter's container", home.display()),
        None => HARBOR_CACHE.into(),
    };
    format!(
        "For VEX, give the adapter (0.34.2 or later) SCANNER_TRIVY_VEX_SOURCE=repo, SCANNER_TRIVY_SKIP_VEX_REPO_UPDATE=true and XDG_DATA_HOME={home} in its environment: with an override file of Compose, or extraEnvVars of the chart."
    )
}

/// Returns when Trivy will try to download a newer database: `NextUpdate` has passed, and the last
/// download is 1 hour old, or 24 hours for trivy-java-db (Trivy v0.74.0, `pkg/db` and `pkg/javadb`:
/// `NeedsUpdate`).
fn fails_from(db: Option<&CachedDataset>, java_db: Option<&CachedDataset>) -> Option<Timestamp> {
    let due = |installed: &CachedDataset, hours| {
        let rested = installed.downloaded_at?.checked_add(SignedDuration::from_hours(hours)).ok()?;
        Some(installed.next_update?.max(rested))
    };
    [db.and_then(|db| due(db, 1)), java_db.and_then(|db| due(db, 24))].into_iter().flatten().min()
}
