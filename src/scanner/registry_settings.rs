//! Settings for scanners that pull from a local registry and no other.
//!
//! The flags of each subcommand come from `trivy SUBCOMMAND --help` of v0.74.0, and the keys of
//! `trivy.yaml` from the output of `--generate-default-config`. A repository always has its tag: a
//! checks repository without a tag means `latest`, and if there is no `latest`, Trivy uses its
//! built-in checks without a message.

use crate::dataset::catalogue::TrivyVersion;
use crate::scanner::config_files::config_files;
use crate::scanner::pull_locations::PullLocations;
use crate::scanner::settings::{ConfigFile, OURS, SUBCOMMANDS, Settings, TrivyCommand};
use crate::scanner::{vex_scanner, yaml};

/// Returns the settings for scanners that pull from these locations.
pub fn registry_settings(version: TrivyVersion, pulled: &PullLocations) -> Settings {
    let since = |minor| version.major > 0 || version.minor >= minor;
    // If only VEX is served here, the other datasets are configured elsewhere.
    let alone = !pulled.is_in_registry();
    let lines = SUBCOMMANDS
        .iter()
        .filter(|subcommand| !alone || subcommand.scans)
        .map(|subcommand| {
            let mut flags = Vec::new();
            let mut add = |wanted: bool, flag: &str, value: &Option<String>| {
                if let (true, Some(value)) = (wanted, value) {
                    flags.extend([flag.to_owned(), value.clone()]);
                }
            };
            add(subcommand.db, "--db-repository", &pulled.db);
            add(subcommand.java, "--java-db-repository", &pulled.java_db);
            // `vm` pulls checks too, though it has no flag to skip that.
            let checks = subcommand.checks || subcommand.name == "vm";
            add(checks, "--checks-bundle-repository", &pulled.checks);
            let mut switch = |wanted: bool, switches: &str| {
                if wanted {
                    flags.extend(switches.split(' ').map(str::to_owned));
                }
            };
            switch(lacks_checks(pulled) && subcommand.checks, "--skip-check-update");
            switch(!pulled.vex.is_empty() && subcommand.scans, "--vex repo");
            switch(pulled.insecure, "--insecure");
            switch(!alone && subcommand.scans, "--offline-scan");
            switch(
                !alone && subcommand.version_check.is_some_and(since),
                "--skip-version-check --disable-telemetry",
            );
            TrivyCommand { environment: None, subcommand: subcommand.name, flags }
        })
        .collect();
    Settings {
        lines,
        environment: environment(pulled, since(63)),
        config: config(pulled, since(63)),
        files: config_files(pulled).into_iter().chain(vex_file(pulled)).collect(),
        advice: advice(pulled),
        notes: Vec::new(),
    }
}

/// Whether Trivy must use its built-in checks: the registry has none for this version, and Trivy would try to download
/// them from the internet at each scan.
fn lacks_checks(pulled: &PullLocations) -> bool {
    pulled.is_in_registry() && pulled.checks.is_none()
}

/// Returns the VEX configuration for scanners.
fn vex_file(pulled: &PullLocations) -> Option<ConfigFile> {
    let text = || vex_scanner::repository_yaml(&pulled.vex);
    (!pulled.vex.is_empty()).then(|| ConfigFile { name: vex_scanner::FILE, text: text() })
}

fn environment(pulled: &PullLocations, version_check: bool) -> Vec<(String, String)> {
    let repositories = [
        ("TRIVY_DB_REPOSITORY", &pulled.db),
        ("TRIVY_JAVA_DB_REPOSITORY", &pulled.java_db),
        ("TRIVY_CHECKS_BUNDLE_REPOSITORY", &pulled.checks),
    ];
    let switches = [
        ("TRIVY_SKIP_CHECK_UPDATE", lacks_checks(pulled)),
        ("TRIVY_INSECURE", pulled.insecure),
        ("TRIVY_OFFLINE_SCAN", pulled.is_in_registry()),
        ("TRIVY_SKIP_VERSION_CHECK", pulled.is_in_registry() && version_check),
        ("TRIVY_DISABLE_TELEMETRY", pulled.is_in_registry() && version_check),
    ];
    let repositories = repositories.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    let vex = (!pulled.vex.is_empty()).then(|| ("TRIVY_VEX", "repo".to_owned()));
    let switches =
        switches.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| (name, "true".to_owned()));
    repositories.chain(vex).chain(switches).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn config(pulled: &PullLocations, version_check: bool) -> String {
    let mut text =
        String::from_utf8_lossy(OURS).into_owned() + " Trivy pulls the imported data from local servers.\n";
    let mut line = |wanted: bool, line: String| {
        if wanted {
            text.push_str(&line);
            text.push('\n');
        }
    };
    let quoted = |value: &Option<String>| yaml::quoted(value.as_deref().unwrap_or_default());
    let (db, java_db, checks) = (&pulled.db, &pulled.java_db, &pulled.checks);
    line(db.is_some() || java_db.is_some(), "db:".into());
    line(db.is_some(), format!("  repository: {}", quoted(db)));
    line(java_db.is_some(), format!("  java-repository: {}", quoted(java_db)));
    line(checks.is_some(), format!("misconfiguration:\n  checks-bundle-repository: {}", quoted(checks)));
    line(lacks_checks(pulled), "rego:\n  skip-check-update: true".into());
    line(!pulled.vex.is_empty(), "vulnerability:\n  vex:\n    - repo".into());
    line(pulled.insecure, "insecure: true".into());
    let offline = pulled.is_in_registry();
    line(offline, "scan:\n  offline: true".into());
    line(offline && version_check, "  skip-version-check: true\n  disable-telemetry: true".into());
    text
}

fn advice(pulled: &PullLocations) -> Vec<String> {
    let mut advice = Vec::new();
    for (missing, name) in [(pulled.db.is_none(), "trivy-db"), (pulled.java_db.is_none(), "trivy-java-db")] {
        if missing && pulled.is_in_registry() {
            advice.push(format!("The registry has no {name}: Trivy tries to download it from the internet."));
        }
    }
    if lacks_checks(pulled) {
        advice
            .push("The registry has no trivy-checks for this Trivy: Trivy uses its built-in checks.".into());
    }
    if pulled.insecure {
        advice.push(
            "Trivy's --insecure also accepts any certificate: use a registry with TLS if you can.".into(),
        );
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scanner::vex_entry::CarriedRepository;

    fn pulled() -> PullLocations {
        PullLocations {
            db: Some("h/trivy-db:2".into()),
            java_db: Some("h/trivy-java-db:1".into()),
            checks: Some("h/trivy-checks:2".into()),
            vex: Vec::new(),
            insecure: true,
        }
    }

    #[test]
    fn each_subcommand_gets_the_flags_that_it_has() {
        let settings = registry_settings(TrivyVersion::newest(), &pulled());
        let of = |name: &str| settings.lines.iter().find(|line| line.subcommand == name).unwrap().arguments();
        assert_eq!(
            of("image"),
            "--db-repository h/trivy-db:2 --java-db-repository h/trivy-java-db:1 --checks-bundle-repository h/trivy-checks:2 --insecure --offline-scan --skip-version-check --disable-telemetry"
        );
        assert_eq!(of("server"), "--db-repository h/trivy-db:2 --insecure");
        assert_eq!(
            of("config"),
            "--checks-bundle-repository h/trivy-checks:2 --insecure --skip-version-check --disable-telemetry"
        );
        assert!(!of("sbom").contains("checks"));
        assert!(of("vm").contains("checks"));
    }

    #[test]
    fn vex_from_a_web_server_is_enabled() {
        let hub = CarriedRepository { name: "vex-hub".into(), url: "https://w/vex-hub".into(), origin: None };
        let settings =
            registry_settings(TrivyVersion::newest(), &PullLocations { vex: vec![hub], ..pulled() });
        let of = |name: &str| settings.lines.iter().find(|line| line.subcommand == name).unwrap().arguments();
        assert!(of("image").contains("--vex repo --insecure"), "{}", of("image"));
        assert!(!of("config").contains("vex") && !of("server").contains("vex"));
        assert!(settings.environment.contains(&("TRIVY_VEX".into(), "repo".into())));
        assert!(settings.config.contains("  vex:\n    - repo\n"), "{}", settings.config);
        assert_eq!(settings.files.last().map(|file| file.name), Some("vex-repository.yaml"));
    }

    #[test]
    fn missing_datasets_are_reported() {
        let some = PullLocations { java_db: None, insecure: false, ..pulled() };
        let settings = registry_settings(TrivyVersion::newest(), &some);
        assert!(settings.advice[0].contains("has no trivy-java-db"), "{:?}", settings.advice);
        assert!(
            !settings.config.contains("java") && !settings.config.contains("insecure"),
            "{}",
            settings.config
        );
        assert!(!settings.environment.iter().any(|(name, _)| name == "TRIVY_INSECURE"));
        // Without checks for this version, Trivy would try to download them.
        let some = PullLocations { checks: None, ..pulled() };
        let settings = registry_settings(TrivyVersion::newest(), &some);
        let skips = |name: &str| {
            let line = settings.lines.iter().find(|line| line.subcommand == name).unwrap();
            line.flags.iter().any(|flag| flag == "--skip-check-update")
        };
        assert!(skips("image") && skips("config") && skips("image --server URL"));
        assert!(!skips("sbom") && !skips("vm") && !skips("server"), "they do not have the flag");
        assert!(settings.environment.contains(&("TRIVY_SKIP_CHECK_UPDATE".into(), "true".into())));
        assert!(settings.config.contains("rego:\n  skip-check-update: true\n"), "{}", settings.config);
        assert!(settings.advice[0].contains("built-in checks"), "{:?}", settings.advice);
    }
}
