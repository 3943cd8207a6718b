//! Real forms of upstream: manifests of all ages, several registries, and logins.

use base64::Engine;
use test_kit::artifact::{Artifact, Form, all_four, flags_of, sample};
use test_kit::host::Host;
use test_kit::real::Registry;
use test_kit::tools;

use crate::stories::bare;

const FORMS: [Form; 3] = [Form::ZeroByteConfig, Form::TypedConfig, Form::ArtifactType];

/// Returns the three registry artifacts in one form.
fn artifacts(form: Form) -> [Artifact; 3] {
    [Artifact::db(), Artifact::java_db(), Artifact::checks("2")].map(|artifact| artifact.in_form(form))
}

/// Exports, imports elsewhere, and compares the digests in the bundle with upstream's.
#[track_caller]
pub fn crosses(laptop: &Host, artifacts: &[Artifact; 3], flags: &str) {
    let (_, public) = laptop.keygen();
    let bundle = laptop.export(&laptop.dir("out"), flags);
    let importer = bare();
    let seen = importer.ferry(&format!("inspect {bundle} --trust {public} --format json")).exits(0).json();
    let datasets = seen["bundles"][0]["payload"]["datasets"].as_array().unwrap().clone();
    for artifact in artifacts {
        let dataset = datasets.iter().find(|dataset| dataset["name"] == artifact.dataset).unwrap();
        assert_eq!(dataset["manifest"]["digest"], artifact.digest(), "{:?} {dataset:#}", artifact.form);
    }
    let import = format!("import {bundle} --trust {public} --cache-dir cache --format json");
    assert_eq!(importer.ferry(&import).exits(0).statuses(), all_four("installed"));
}

#[test]
fn every_form_that_upstream_has_published_is_carried() {
    for form in FORMS {
        let laptop = bare();
        let upstream = laptop.dir("upstream");
        artifacts(form).iter().for_each(|artifact| artifact.lay_out(&upstream));
        crosses(&laptop, &artifacts(form), &flags_of(&upstream));
    }
}

#[test]
#[ignore = "tools"]
fn two_registry_implementations_serve_every_form() {
    let tools = tools();
    for make in [|tools: &str| Registry::distribution(tools, None), Registry::crane] {
        for form in FORMS {
            let registry = make(&tools);
            artifacts(form).iter().for_each(|artifact| registry.publish_as_it_is(artifact));
            let flags = format!("{} --vex default={}", registry.flags(), sample("vex-hub"));
            crosses(&bare(), &artifacts(form), &flags);
        }
    }
}

/// The user `ferry` with the password `carried`, as bcrypt, which is the only form that distribution accepts.
pub const USERS: &str = "ferry:$2b$04$CyGLGKACWGUDpIzSBk7bOeaV79Rerr5wmb042oS/2q1qTE58qauyy\n";

pub fn log_in(host: &Host, address: &str, login: &str) {
    let auth = base64::engine::general_purpose::STANDARD.encode(login);
    let config = serde_json::json!({ "auths": { address: { "auth": auth } } });
    std::fs::write(format!("{}/config.json", host.dir(".docker")), config.to_string()).unwrap();
}

#[test]
#[ignore = "tools"]
fn a_login_is_read_from_the_docker_configuration() {
    let tools = tools();
    let registry = Registry::distribution(&tools, Some(USERS));
    log_in(&registry.publisher, &registry.address, "ferry:carried");
    registry.publish(&Artifact::db());

    let laptop = bare();
    laptop.keygen();
    let out = laptop.dir("out");
    let flags = format!("{} --only trivy-db", registry.flags());
    for login in [None, Some("ferry:forgotten")] {
        if let Some(login) = login {
            log_in(&laptop, &registry.address, login);
        }
        laptop
            .ferry(&format!("export --key ferry.key --output {out} {flags}"))
            .exits(3)
            .warns(&format!("{} ", registry.address))
            .warns(&format!("docker login {}", registry.address))
            .does_not_say("forgotten");
        assert!(test_kit::host::files(&out).is_empty(), "nothing is left after a source failed");
    }
    log_in(&laptop, &registry.address, "ferry:carried");
    let bundle = laptop.export(&out, &flags);
    let public = laptop.at("ferry.pub");
    // The login is not in the bundle.
    laptop.ferry(&format!("inspect {bundle} --trust {public}")).exits(0).does_not_say("carried");
}
