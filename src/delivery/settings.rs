//! The settings for scanners that use an internal registry and web server, combined from the targets of one run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::dataset::Name;
use crate::dataset::catalogue::TrivyVersion;
use crate::delivery::context::DeliveryContext;
use crate::delivery::options::SettingsOptions;
use crate::delivery::registry_place::RegistryPlace;
use crate::delivery::report::{SubcommandSettings, TargetReport};
use crate::delivery::target_id::TargetId;
use crate::error::Error;
use crate::scanner::pull_locations::PullLocations;
use crate::scanner::registry_settings::registry_settings;
use crate::scanner::settings::{Settings, command_to_load, may_write_config};
use crate::scanner::vex_entry::CarriedRepository;
use crate::scanner::vex_scanner::{self, repository_yaml};

/// Whether the targets of a run can share settings. They cannot if two of them have the same dataset.
pub(crate) fn can_share_settings(places: &[RegistryPlace], has_cache: bool) -> bool {
    let registries = places.iter().filter(|place| matches!(place, RegistryPlace::Registry { .. })).count();
    let datasets: Vec<_> = places.iter().filter_map(RegistryPlace::dataset).collect();
    let distinct: BTreeSet<_> = datasets.iter().collect();
    !has_cache && registries + usize::from(!datasets.is_empty()) <= 1 && distinct.len() == datasets.len()
}

/// The facts about the registries of a run that scanner settings depend on.
pub(crate) struct ScannerAccess<'a> {
    /// Returns whether scanners must accept plain HTTP or any certificate to reach a host.
    pub(crate) insecure: &'a dyn Fn(&str) -> bool,
    /// Returns whether a host asked for a login.
    pub(crate) login: &'a dyn Fn(&str) -> bool,
    /// Whether an internal CA was given.
    pub(crate) own_ca: bool,
    /// The directory into which the settings are written, if any.
    pub(crate) config: Option<&'a Path>,
}

/// Puts the settings into the reports, and writes them to files if requested.
pub(crate) fn settings(
    shared_settings: bool,
    write: &SettingsOptions,
    context: &DeliveryContext,
    access: &ScannerAccess<'_>,
    reports: &mut [TargetReport],
) {
    let version = context.host.version;
    let failed: Vec<String> =
        reports.iter().filter(|report| report.failed).map(|report| report.target.to_string()).collect();
    let mut targets: Vec<&mut TargetReport> =
        reports.iter_mut().filter(|report| !matches!(report.target, TargetId::Cache(_))).collect();
    if !shared_settings {
        for report in targets {
            let pulled = pulled(version, access.insecure, &[report]);
            say(version, &pulled, access, report);
        }
        return;
    }
    let all: Vec<&TargetReport> = targets.iter().map(|report| &**report).collect();
    let pulled = pulled(version, access.insecure, &all);
    // Shared settings are shown once, in the last report with changes.
    let changed = targets.iter().rposition(|report| report.tells_settings());
    let last = changed.or(targets.len().checked_sub(1));
    let Some(report) = last.and_then(|last| targets.get_mut(last)) else { return };
    say(version, &pulled, access, report);
    if !write.is_asked_for() {
        if changed.is_some() && pulled.is_in_registry() {
            report.settings_advice.push(MORE.into());
        }
    } else if !failed.is_empty() {
        // Existing files may be complete, and these settings are not.
        report.warnings.push(format!(
            "no settings were written, because {} failed and the settings would be incomplete",
            failed.join(" and ")
        ));
    } else if pulled != PullLocations::default() {
        let settings = registry_settings(version, &pulled);
        if let Err(error) = write_files(write, &settings, report) {
            report.errors.push(error);
        }
    }
}

const MORE: &str = "--write-config DIR also writes Helm values for trivy-operator and a Trivy server, and the environment of Harbor's adapter.";

/// Puts the settings for scanners and the advice on them into a report.
pub(crate) fn say(
    version: TrivyVersion,
    pulled: &PullLocations,
    access: &ScannerAccess<'_>,
    report: &mut TargetReport,
) {
    if *pulled == PullLocations::default() {
        return;
    }
    show(&registry_settings(version, pulled), report);
    report.heading = match (pulled.is_in_registry(), pulled.vex.is_empty()) {
        (true, true) => format!("With these settings, Trivy {version} uses this registry:"),
        (true, false) => format!("With these settings, Trivy {version} uses these servers:"),
        (false, _) => "For VEX, scanners need this in addition to their other settings:".into(),
    };
    if !report.tells_settings() {
        return;
    }
    let references = [&pulled.db, &pulled.java_db, &pulled.checks].into_iter().flatten();
    let hosts: BTreeSet<&str> = references.filter_map(|reference| reference.split('/').next()).collect();
    for host in hosts.iter().filter(|host| (access.login)(host)) {
        report.advice.push(format!(
            "{host} asks for a login: each scanner needs `docker login {host}`, or TRIVY_USERNAME and TRIVY_PASSWORD."
        ));
    }
    if access.own_ca {
        report.advice.push(
            "Each scanner needs the CA that you gave here: as --cacert FILE (TRIVY_CACERT), or as SSL_CERT_FILE before Trivy 0.74."
                .into(),
        );
    }
    if let (Some(dir), false) = (access.config, pulled.vex.is_empty()) {
        let file = dir.join(vex_scanner::FILE);
        report.advice.push(format!(
            "Copy {} to .trivy/vex/repository.yaml in each scanner's XDG_DATA_HOME (default: HOME). Without it, --vex repo tries to download from the internet and fails.",
            file.display()
        ));
    } else if !pulled.vex.is_empty() {
        let text = repository_yaml(&pulled.vex);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# Written")).collect();
        report.advice.push(format!(
            "Each scanner needs this as .trivy/vex/repository.yaml in its XDG_DATA_HOME (default: HOME). Without it, --vex repo tries to download from the internet and fails:\n{}",
            lines.join("\n")
        ));
    }
}

/// Returns the locations from which scanners pull the datasets of these targets.
pub(crate) fn pulled(
    version: TrivyVersion,
    insecure: &dyn Fn(&str) -> bool,
    reports: &[&TargetReport],
) -> PullLocations {
    let rows = reports.iter().flat_map(|report| report.in_place());
    let now = rows.filter_map(|row| Some((&row.name, row.tag.as_str(), row.reference.as_ref()?)));
    let before = reports.iter().flat_map(|report| &report.existing);
    let before =
        before.map(|existing| (&existing.dataset.name, existing.dataset.tag.as_str(), &existing.reference));
    let all: Vec<(&Name, &str, &String)> = now.chain(before).collect();
    let there = |name: &str, tag: Option<&str>| {
        let found =
            all.iter().find(|(have, its, _)| have.as_str() == name && tag.is_none_or(|tag| *its == tag));
        found.map(|(_, _, reference)| (*reference).clone())
    };
    let (db, java_db) = (there("trivy-db", None), there("trivy-java-db", None));
    let checks = there("trivy-checks", Some(version.checks_tag()));
    let served = all.iter().filter_map(|(name, _, reference)| {
        // The repository on the internet, which is disabled, keeps the name `default`.
        let known = name.vex_repository()?;
        let known = if known == "default" { name.as_str() } else { known };
        Some(CarriedRepository { name: known.to_owned(), url: (*reference).clone(), origin: None })
    });
    let references = [&db, &java_db, &checks].into_iter().flatten();
    let insecure = references.filter_map(|reference| reference.split('/').next()).any(insecure);
    PullLocations { vex: served.collect(), db, java_db, checks, insecure }
}

/// Checks that settings can be written.
///
/// # Errors
/// If the targets need different settings.
pub(crate) fn check(shared_settings: bool, write: &SettingsOptions, targets: usize) -> Result<(), Error> {
    if write.is_asked_for() && targets > 1 && !shared_settings {
        return Err(Error::usage(
            "the given targets need different settings, which cannot be written together",
            "Import into one target at a time with --write-env or --write-config.",
        ));
    }
    Ok(())
}

/// Puts settings into the report.
pub(crate) fn show(settings: &Settings, report: &mut TargetReport) {
    report.commands = settings.lines.iter().map(crate::scanner::settings::TrivyCommand::command).collect();
    report.environment = settings.environment.clone();
    for line in &settings.lines {
        let (environment, flags) = (line.assignment(), line.arguments());
        let same = |have: &&mut SubcommandSettings| have.environment == environment && have.flags == flags;
        match report.settings.iter_mut().find(same) {
            Some(have) => have.subcommands.push(line.subcommand),
            None => {
                let subcommands = vec![line.subcommand];
                report.settings.push(SubcommandSettings { environment, subcommands, flags });
            }
        }
    }
    if report.tells_settings() {
        report.advice.extend(settings.advice.iter().cloned());
        report.settings_advice.extend(settings.notes.iter().cloned());
    }
}

/// Writes the settings to the requested files.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn write_files(
    options: &SettingsOptions,
    settings: &Settings,
    report: &mut TargetReport,
) -> Result<(), Error> {
    if let Some(path) = &options.write_env {
        settings.write_env(path)?;
        report.written.push(path.clone());
        report.advice.push(format!("Set them for every Trivy command: {}", command_to_load(path)));
    }
    if let Some(dir) = &options.write_config {
        report.written.push(settings.write_config(dir, options.force)?);
        for file in &settings.files {
            report.written.push(file.write(dir, options.force)?);
        }
    }
    Ok(())
}

/// Checks before an import that the settings can be written.
///
/// # Errors
/// If a directory does not exist, or if it contains files that trivy-ferry did not write.
pub(crate) fn places_for_settings(options: &SettingsOptions) -> Result<(), Error> {
    let parent =
        |file: &PathBuf| file.parent().filter(|dir| !dir.as_os_str().is_empty()).map(Path::to_path_buf);
    for directory in
        [options.write_env.as_ref().and_then(parent), options.write_config.clone()].into_iter().flatten()
    {
        if !directory.is_dir() {
            return Err(Error::usage(
                format!("the directory {} for the settings does not exist", directory.display()),
                "Create it first, or give another.",
            ));
        }
    }
    if let Some(dir) = &options.write_config {
        may_write_config(dir, options.force)?;
    }
    Ok(())
}
