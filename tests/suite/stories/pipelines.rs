//! Runs the scripts of the pipelines in `contrib` against real registries.

use std::fs;

use saphyr_parser::Parser;
use test_kit::artifact::Artifact;
use test_kit::host::Host;
use test_kit::process::Run;
use test_kit::real::{Distribution, Registry};
use test_kit::tools;

use crate::stories::{bare, equipped};

/// The user name for tokens of Azure's registries, with the token `carried`.
const AZURE: &str =
    "00000000-0000-0000-0000-000000000000:$2b$04$CyGLGKACWGUDpIzSBk7bOeaV79Rerr5wmb042oS/2q1qTE58qauyy\n";
/// A robot account of Harbor with the same token.
const ROBOT: &str = "robot$trivy+ferry:$2b$04$CyGLGKACWGUDpIzSBk7bOeaV79Rerr5wmb042oS/2q1qTE58qauyy\n";

fn path(recipe: &str) -> String {
    format!("{}/contrib/{recipe}", env!("CARGO_MANIFEST_DIR"))
}

/// Returns the scripts in a recipe: the blocks below a line that ends in `|`.
fn scripts(recipe: &str) -> Vec<String> {
    let text = fs::read_to_string(path(recipe)).unwrap();
    for event in Parser::new_from_str(&text) {
        event.unwrap_or_else(|error| panic!("{recipe}: {error}"));
    }
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = text.lines().collect();
    let begins = |line: &str| line.trim() == "- |" || line.ends_with(": |");
    let starts = (0..lines.len()).filter(|at| begins(lines[*at]));
    let script = |at: usize| {
        // A key after a dash is indented by two more columns.
        let key = indent(lines[at])
            + if lines[at].trim().starts_with("- ") && lines[at].ends_with(": |") { 2 } else { 0 };
        let body = lines[at + 1..].iter().take_while(|line| line.is_empty() || indent(line) > key);
        body.fold(String::new(), |script, line| script + line + "\n")
    };
    starts.map(script).collect()
}

/// The environment of a pipeline: upstream, the registry that it fills, and a runner.
struct Site {
    upstream: Registry,
    registry: Registry,
    runner: Host,
}

impl Site {
    fn new(tools: &str, users: &str) -> Site {
        let upstream = Registry::distribution(tools, None);
        for artifact in [Artifact::db(), Artifact::java_db(), Artifact::checks("2")] {
            upstream.publish_as_it_is(&artifact);
        }
        let registry = Distribution { users: Some(users), ..Distribution::default() }.start(tools);
        let runner = bare();
        // The output of Azure's client for the command in the recipes.
        let answer = "#!/bin/sh\n[ \"$*\" = 'acr login --name corp --expose-token --output tsv --query \
                      accessToken' ] && echo carried\n";
        runner.script("bin/az", answer);
        Site { upstream, registry, runner }
    }

    /// Runs a recipe's scripts with these variables, as the runner does.
    fn run(&self, recipe: &str, variables: &[(&str, &str)], max_age: &str) -> Run {
        let scripts = scripts(recipe).concat();
        let script = scripts.replace("$ACR_NAME.azurecr.io", &self.registry.address);
        assert!(script.contains("--max-age 3d"), "{script}");
        let script = script.replace("--max-age 3d", &format!("--max-age {max_age}"));
        let work = self.runner.dir("work");
        let mut command = self.runner.command("bash");
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", &script]).current_dir(work);
        let system = "/usr/local/bin:/usr/bin:/bin";
        command.env("PATH", format!("{}:{system}", self.runner.at("bin")));
        command.envs(variables.iter().copied());
        for (name, repository) in
            [("DB", "trivy-db"), ("JAVA_DB", "trivy-java-db"), ("CHECKS_BUNDLE", "trivy-checks")]
        {
            let source = format!("{}/aquasec/{repository}", self.upstream.address);
            command.env(format!("TRIVY_FERRY_{name}_REPOSITORY"), source);
        }
        Run::of(&mut command, recipe)
    }

    fn digest(&self, login: &str, reference: &str) -> String {
        crate::stories::upstream::log_in(&self.registry.publisher, &self.registry.address, login);
        self.registry.digest_of(reference)
    }
}

/// Runs a recipe until the registry has the data of upstream, and with conditions that must make it fail.
#[track_caller]
fn fills_the_registry(recipe: &str, users: &str, url: &str, sha256: &str, more: &[(&str, &str)]) {
    let tools = tools();
    let site = Site::new(&tools, users);
    let program = format!("file://{}", env!("CARGO_BIN_EXE_trivy-ferry"));
    let digest = trivy_ferry::digest::Digest::of(&fs::read(env!("CARGO_BIN_EXE_trivy-ferry")).unwrap());
    let place = format!("{}/trivy", site.registry.address);
    let variables = |digest: &str| -> Vec<(String, String)> {
        let own = [(url, program.as_str()), (sha256, digest), ("HARBOR", &place)];
        own.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let run = |digest: &str, max_age: &str| {
        let variables = variables(digest);
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        site.run(recipe, &variables, max_age)
    };
    // A program with another digest is not run.
    run(&"0".repeat(64), "3650d").exits(1).warns("computed checksum did NOT match");
    // The sample data is months old, and the recipe has a `--max-age`.
    run(&digest.hex(), "3d").exits(5).warns("--max-age allows 3 d");
    run(&digest.hex(), "3650d").exits(0).prints("pushed");
    run(&digest.hex(), "3650d").exits(0).prints("unchanged");
    let login = format!("{}:carried", users.split(':').next().unwrap());
    for artifact in [Artifact::db(), Artifact::java_db(), Artifact::checks("2")] {
        let reference = format!("trivy/{}:{}", artifact.dataset, artifact.tag);
        assert_eq!(site.digest(&login, &reference), artifact.digest(), "{reference}");
    }
}

#[test]
#[ignore = "tools"]
fn the_workflow_for_github_fills_a_registry() {
    fills_the_registry("github/mirror.yml", AZURE, "URL", "SHA256", &[("ACR_NAME", "corp")]);
}

#[test]
#[ignore = "tools"]
fn the_pipeline_for_azure_fills_a_registry() {
    fills_the_registry("azure/azure-pipelines.yml", AZURE, "URL", "SHA256", &[("ACR_NAME", "corp")]);
}

#[test]
#[ignore = "tools"]
fn the_pipeline_for_gitlab_fills_a_registry() {
    let robot = [("HARBOR_ROBOT", "robot$trivy+ferry"), ("HARBOR_TOKEN", "carried")];
    let names = ["TRIVY_FERRY_URL", "TRIVY_FERRY_SHA256"];
    fills_the_registry("gitlab/mirror.gitlab-ci.yml", ROBOT, names[0], names[1], &robot);
}

#[test]
#[ignore = "tools"]
fn actionlint_finds_nothing_wrong_with_the_workflows() {
    let tools = tools();
    let host = equipped(&tools);
    let own = |name: &str| format!("{}/.github/workflows/{name}", env!("CARGO_MANIFEST_DIR"));
    for workflow in [own("ci.yml"), own("release.yml")] {
        host.sh(&format!("actionlint -pyflakes= {workflow}")).exits(0);
    }
    let run = host.sh(&format!("actionlint -pyflakes= {}", path("github/mirror.yml")));
    run.exits(0);
    assert_eq!(run.out, "", "{run}");
    // The linter finds errors, also in the scripts.
    let text = fs::read_to_string(path("github/mirror.yml")).unwrap();
    for bad in [
        text.replace("vars.ACR_NAME", "vars.ACR_NAME + 1"),
        text.replace("\"$ACR_NAME\" --expose", "$ACR_NAME --expose"),
    ] {
        assert_ne!(bad, text);
        fs::write(host.at("bad.yml"), bad).unwrap();
        host.sh(&format!("actionlint -pyflakes= {}", host.at("bad.yml"))).fails();
    }
}

#[test]
#[ignore = "tools"]
fn shellcheck_finds_nothing_wrong_with_the_scripts_of_the_other_pipelines() {
    let tools = tools();
    let host = equipped(&tools);
    for (recipe, shell) in [("azure/azure-pipelines.yml", "bash"), ("gitlab/mirror.gitlab-ci.yml", "sh")] {
        let check = |script: &str| {
            let script = host.file("script", script);
            host.sh(&format!("shellcheck --shell {shell} {}", script.display()))
        };
        let scripts = scripts(recipe);
        assert!(!scripts.is_empty(), "{recipe}");
        for script in scripts {
            check(&script).good();
            check(&format!("{script}\nfor file in $(ls *.tar); do echo $file; done\n")).fails();
        }
    }
}

#[test]
#[ignore = "tools"]
fn kubernetes_accepts_the_manifests_and_trivy_finds_no_problem() {
    let tools = tools();
    let host = equipped(&tools);
    for (name, kinds) in [
        ("export", "PersistentVolumeClaim\nCronJob\n"),
        ("import", "PersistentVolumeClaim\nPersistentVolumeClaim\nCronJob\n"),
        ("serve", "PersistentVolumeClaim\nPersistentVolumeClaim\nService\nDeployment\n"),
        ("watch", "PersistentVolumeClaim\nDeployment\n"),
    ] {
        let run = host.sh(&format!("kube {}", path(&format!("kubernetes/{name}.yaml"))));
        run.exits(0);
        assert_eq!(run.out, kinds);
    }
    let manifest = path("kubernetes/export.yaml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(host.at("bad.yaml"), text.replace("readOnlyRootFilesystem", "readonlyRootFilesystem")).unwrap();
    host.sh(&format!("kube {}", host.at("bad.yaml"))).fails().warns("unknown field");
    // Trivy's built-in checks for Kubernetes and images.
    let misconfigured = |path: &str| -> Vec<String> {
        let scan = "trivy config --skip-check-update --quiet --severity MEDIUM,HIGH,CRITICAL --format json";
        let report = host.offline(&format!("{scan} {path}")).exits(0).json();
        let results = report["Results"].as_array().unwrap().iter();
        let found = results.filter_map(|result| result["Misconfigurations"].as_array()).flatten();
        found.map(|found| found["ID"].as_str().unwrap().to_owned()).collect()
    };
    // The only finding in each file is that the registry of the image is unknown.
    assert_eq!(misconfigured(&path("kubernetes")), ["KSV-0125"; 4]);
    fs::write(host.at("bad.yaml"), text.replace("readOnlyRootFilesystem: true", "privileged: true")).unwrap();
    assert!(misconfigured(&host.at("bad.yaml")).len() > 1);
}
