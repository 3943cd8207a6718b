//! Settings files for other scanners that pull from a local registry: trivy-operator, a Trivy server and
//! Harbor's scanner adapter.
//!
//! The keys come from these sources, and the two charts were rendered with the files:
//! - trivy-operator v0.32.0, chart 0.34.0 (`deploy/helm`: `values.yaml`, `templates/configmaps/trivy.yaml`
//!   and `operator.yaml`). The chart joins `dbRegistry`, a slash and `dbRepository`, and has no key for
//!   the tag, which therefore follows the repository. Only `policiesBundle` has a `tag`. Its default is
//!   `1`, although this operator is built with Trivy v0.72.0, which needs version 2.
//!   `dbRepositoryInsecure` applies to the scan jobs for both databases (`pkg/plugins/trivy/image.go`).
//! - The operator's own audit uses the checks of the bundle only with `useBuiltinRegoPolicies`, and falls
//!   back to embedded checks without a message if `useEmbeddedRegoPolicies` is on
//!   (`pkg/policy/policy.go`: `loadPolicies`, `scannerOptions`).
//! - Trivy v0.74.0, chart 0.25.0 (`helm/trivy`: `values.yaml`, `templates/configmap.yaml`):
//!   `dbRepository` is one string with its tag, and `extraEnvVars` sets environment variables.
//! - harbor-scanner-trivy v0.38.0 (`pkg/etc/config.go`; `pkg/trivy/wrapper.go` passes its environment to
//!   Trivy). Its repositories can be configured since v0.33.0. Harbor's installer (2.15.0,
//!   `make/harbor.yml.tmpl`) and its chart (v1.19.1, `templates/trivy/trivy-sts.yaml`) set the same variables.

use crate::scanner::pull_locations::PullLocations;
use crate::scanner::settings::{ConfigFile, OURS};
use crate::scanner::yaml::quoted;

/// Returns the files for the scanners that can use the datasets in the registry.
pub(crate) fn config_files(pulled: &PullLocations) -> Vec<ConfigFile> {
    let files = [
        ("trivy-operator-values.yaml", operator(pulled)),
        ("trivy-server-values.yaml", server(pulled)),
        ("harbor-adapter.env", harbor(pulled)),
    ];
    files.into_iter().filter_map(|(name, text)| Some(ConfigFile { name, text: text? })).collect()
}

/// Returns the comment at the beginning of a file.
fn beginning(comments: &[&str]) -> String {
    let comments: Vec<String> = comments.iter().map(|line| format!("# {line}\n")).collect();
    String::from_utf8_lossy(OURS).into_owned() + comments.concat().trim_start_matches('#')
}

fn operator(pulled: &PullLocations) -> Option<String> {
    let insecure = pulled.insecure;
    let mut trivy = String::new();
    for (key, reference) in [("db", &pulled.db), ("javaDb", &pulled.java_db)] {
        if let Some(Parts { registry, repository, tag }) = parts(reference) {
            trivy += &format!("  {key}Registry: {}\n", quoted(registry));
            trivy += &format!("  {key}Repository: {}\n", quoted(&format!("{repository}:{tag}")));
        }
    }
    let mut bundle = String::new();
    if let Some(Parts { registry, repository, tag }) = parts(&pulled.checks) {
        trivy += "  useBuiltinRegoPolicies: \"true\"\n  useEmbeddedRegoPolicies: \"false\"\n";
        bundle += &format!("policiesBundle:\n  registry: {}\n", quoted(registry));
        bundle += &format!("  repository: {}\n  tag: {}\n", quoted(repository), quoted(tag));
        bundle += &format!("  insecure: {insecure}\n");
    }
    if trivy.is_empty() {
        return None;
    }
    let beginning = beginning(&[
        "trivy-operator pulls the imported data from this registry.",
        "helm upgrade --install trivy-operator CHART -f YOURS.yaml -f trivy-operator-values.yaml",
        "The keys are those of chart 0.34.0. The cluster also needs its images (operator, Trivy, node-collector).",
        "Put a login into your own values: trivy.dbRepositoryUsername and .dbRepositoryPassword,",
        "policiesBundle.registryUser and .registryPassword. For a private CA, set trivy.sslCertDir for the scans, and",
        "volumes, volumeMounts and extraEnv (SSL_CERT_DIR) for the operator, which pulls trivy-checks itself.",
    ]);
    Some(format!(
        "{beginning}operator:\n  builtInServerRegistryInsecure: {insecure}\n\
         trivy:\n{trivy}  dbRepositoryInsecure: \"{insecure}\"\n  offlineScan: true\n\
         \x20 configFile:\n    scan:\n      skip-version-check: true\n      disable-telemetry: true\n{bundle}"
    ))
}

/// Returns the file for a Trivy server, which uses only trivy-db.
fn server(pulled: &PullLocations) -> Option<String> {
    let db = quoted(pulled.db.as_deref()?);
    let beginning = beginning(&[
        "a Trivy server pulls trivy-db from this registry.",
        "helm upgrade --install trivy CHART -f YOURS.yaml -f trivy-server-values.yaml",
        "The keys are those of chart 0.25.0. Clients pull trivy-java-db and trivy-checks: see trivy.yaml.",
        "Put a login into your own values: trivy.registryUsername and .registryPassword.",
    ]);
    Some(format!(
        "{beginning}trivy:\n  skipDBUpdate: false\n  dbRepository: {db}\n  extraEnvVars:\n    TRIVY_INSECURE: \"{}\"\n",
        pulled.insecure
    ))
}

fn harbor(pulled: &PullLocations) -> Option<String> {
    let mut variables = Vec::new();
    for (key, reference) in [("DB", &pulled.db), ("JAVA_DB", &pulled.java_db)] {
        if let Some(reference) = reference {
            let skip = if key == "DB" { "SKIP_UPDATE" } else { "SKIP_JAVA_DB_UPDATE" };
            variables.push(format!("SCANNER_TRIVY_{key}_REPOSITORY={reference}\n"));
            variables.push(format!("SCANNER_TRIVY_{skip}=false\n"));
        }
    }
    if variables.is_empty() {
        return None;
    }
    let beginning = beginning(&[
        "Harbor's scanner adapter pulls the imported data from this registry.",
        "This is the environment of harbor-scanner-trivy 0.33 or later: docker run --env-file, or env_file in Compose.",
        "Harbor's installer and chart create that environment themselves. Set the same values there instead:",
        "in harbor.yml as trivy.db_repository, .java_db_repository, .offline_scan and .insecure,",
        "in the chart's values as trivy.dbRepository and .javaDBRepository (lists), .offlineScan, .insecure.",
        "The repositories must be readable without a login (in Harbor: a public project), because the",
        "adapter logs in with an account for the image that it scans.",
        "For VEX (adapter 0.34.2 or later), mount vex-repository.yaml as",
        "/home/scanner/.trivy/vex/repository.yaml.",
    ]);
    if !pulled.vex.is_empty() {
        variables.push("SCANNER_TRIVY_VEX_SOURCE=repo\n".into());
    }
    Some(format!(
        "{beginning}{}SCANNER_TRIVY_OFFLINE_SCAN=true\nSCANNER_TRIVY_INSECURE={}\n\
         TRIVY_SKIP_VERSION_CHECK=true\nTRIVY_DISABLE_TELEMETRY=true\n",
        variables.concat(),
        pulled.insecure
    ))
}

/// The parts of `HOST[:PORT]/REPOSITORY:TAG`.
struct Parts<'a> {
    registry: &'a str,
    repository: &'a str,
    tag: &'a str,
}

fn parts(reference: &Option<String>) -> Option<Parts<'_>> {
    let (registry, rest) = reference.as_ref()?.split_once('/')?;
    let (repository, tag) = rest.rsplit_once(':')?;
    Some(Parts { registry, repository, tag })
}

#[cfg(test)]
mod tests {
    use saphyr_parser::Parser;

    use super::*;
    use crate::scanner::vex_entry::CarriedRepository;

    fn pulled() -> PullLocations {
        PullLocations {
            db: Some("h:5000/s/trivy-db:2".into()),
            java_db: Some("h:5000/s/trivy-java-db:1".into()),
            checks: Some("h:5000/s/trivy-checks:2".into()),
            vex: Vec::new(),
            insecure: true,
        }
    }

    fn file(pulled: &PullLocations, name: &str) -> Option<String> {
        config_files(pulled).into_iter().find(|file| file.name == name).map(|file| file.text)
    }

    /// Returns the lines of a file that are not comments.
    fn content(pulled: &PullLocations, name: &str) -> String {
        let text = file(pulled, name).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn trivy_operator_gets_a_tag_after_each_repository() {
        let values = r#"operator:
  builtInServerRegistryInsecure: true
trivy:
  dbRegistry: "h:5000"
  dbRepository: "s/trivy-db:2"
  javaDbRegistry: "h:5000"
  javaDbRepository: "s/trivy-java-db:1"
  useBuiltinRegoPolicies: "true"
  useEmbeddedRegoPolicies: "false"
  dbRepositoryInsecure: "true"
  offlineScan: true
  configFile:
    scan:
      skip-version-check: true
      disable-telemetry: true
policiesBundle:
  registry: "h:5000"
  repository: "s/trivy-checks"
  tag: "2"
  insecure: true
"#;
        assert_eq!(content(&pulled(), "trivy-operator-values.yaml"), values);
        let secure = content(&PullLocations { insecure: false, ..pulled() }, "trivy-operator-values.yaml");
        assert_eq!(
            secure,
            values
                .replace("nsecure: \"true\"", "nsecure: \"false\"")
                .replace("nsecure: true", "nsecure: false")
        );
    }

    #[test]
    fn a_server_and_the_adapter_get_complete_references() {
        assert_eq!(
            content(&pulled(), "trivy-server-values.yaml"),
            r#"trivy:
  skipDBUpdate: false
  dbRepository: "h:5000/s/trivy-db:2"
  extraEnvVars:
    TRIVY_INSECURE: "true"
"#
        );
        assert_eq!(
            content(&pulled(), "harbor-adapter.env"),
            "SCANNER_TRIVY_DB_REPOSITORY=h:5000/s/trivy-db:2\n\
             SCANNER_TRIVY_SKIP_UPDATE=false\n\
             SCANNER_TRIVY_JAVA_DB_REPOSITORY=h:5000/s/trivy-java-db:1\n\
             SCANNER_TRIVY_SKIP_JAVA_DB_UPDATE=false\n\
             SCANNER_TRIVY_OFFLINE_SCAN=true\n\
             SCANNER_TRIVY_INSECURE=true\n\
             TRIVY_SKIP_VERSION_CHECK=true\n\
             TRIVY_DISABLE_TELEMETRY=true\n"
        );
    }

    #[test]
    fn missing_datasets_are_left_to_the_chart() {
        let checks = PullLocations { db: None, java_db: None, ..pulled() };
        let names: Vec<_> = config_files(&checks).iter().map(|file| file.name).collect();
        assert_eq!(names, ["trivy-operator-values.yaml"]);
        let values = content(&checks, "trivy-operator-values.yaml");
        assert!(!values.contains("dbRepository:") && !values.contains("avaDb"), "{values}");
        // Without a checks bundle, the embedded checks stay on.
        let db = PullLocations { db: pulled().db, ..PullLocations::default() };
        let values = content(&db, "trivy-operator-values.yaml");
        assert!(!values.contains("Rego") && !values.contains("policiesBundle"), "{values}");
        assert_eq!(config_files(&PullLocations::default()), []);
        // The adapter has its own variable for VEX.
        let url = "https://w/vex-hub".into();
        let hub = CarriedRepository { name: "vex-hub".into(), url, origin: None };
        let adapter = content(&PullLocations { vex: vec![hub], ..pulled() }, "harbor-adapter.env");
        assert!(adapter.contains("\nSCANNER_TRIVY_VEX_SOURCE=repo\n"), "{adapter}");
    }

    #[test]
    fn every_file_begins_with_a_comment_and_parses() {
        for file in config_files(&pulled()) {
            assert!(file.text.as_bytes().starts_with(OURS), "{}", file.text);
            if file.name.ends_with(".yaml") {
                assert!(file.text.contains(&format!("-f {}\n", file.name)), "{}", file.text);
                assert!(Parser::new_from_str(&file.text).all(|event| event.is_ok()), "{}", file.text);
            }
        }
    }

    #[test]
    fn a_host_of_any_form_keeps_its_port() {
        for host in ["[::1]:5000", "registry", "10.0.0.1:80"] {
            let reference = Some(format!("{host}/a/b:t"));
            let parts = parts(&reference).unwrap();
            assert_eq!((parts.registry, parts.repository, parts.tag), (host, "a/b", "t"));
        }
    }
}
