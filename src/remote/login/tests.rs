//! Tests the table of logins with this module and with containers/image.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;

const TABLE: &str = include_str!("../../../tests/rules/logins.json");

/// The files and variables of a user, and the login of each repository.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    what: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    helpers: BTreeMap<String, BTreeMap<String, String>>,
    files: BTreeMap<String, Value>,
    logins: BTreeMap<String, String>,
    /// The result of containers/image, if it differs: `any` if it varies from run to run.
    #[serde(default)]
    go: BTreeMap<String, String>,
    /// The reason for the difference.
    why: Option<String>,
}

impl Case {
    fn all() -> Vec<Case> {
        let all: Vec<Case> = serde_json::from_str(TABLE).unwrap();
        assert!(
            all.iter().all(|case| case.go.is_empty() == case.why.is_none()),
            "a deviation has its reason"
        );
        all
    }

    /// Writes the files below a home directory, and returns the variables.
    fn set_up(&self, home: &Path) -> BTreeMap<String, String> {
        for (name, content) in &self.files {
            let path = home.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = content.as_str().map_or_else(|| encoded(content.clone()).to_string(), str::to_owned);
            fs::write(path, text).unwrap();
        }
        let programs = home.join("programs");
        for directory in [&programs, &home.join("run")] {
            fs::create_dir_all(directory).unwrap();
        }
        for (name, logins) in &self.helpers {
            let path = programs.join(format!("docker-credential-{name}"));
            fs::write(&path, helper(logins)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let home = home.to_str().unwrap();
        let own = [("HOME", "~"), ("XDG_RUNTIME_DIR", "~/run"), ("PATH", "~/programs")];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let all = own.into_iter().chain(self.env.clone());
        all.map(|(name, value)| (name, value.replace('~', home))).collect()
    }
}

/// The content of a file, with logins encoded as in such files; the text after a leading `=` is not encoded.
fn encoded(mut content: Value) -> Value {
    let Some(entries) = content.as_object_mut() else { return content };
    for (key, value) in entries {
        *value = match value.as_str().filter(|_| key == "auth") {
            Some(login) => {
                json!(login.strip_prefix('=').map_or_else(|| STANDARD.encode(login), str::to_owned))
            }
            None => encoded(value.take()),
        };
    }
    content
}

fn helper(logins: &BTreeMap<String, String>) -> String {
    let mut script = "#!/bin/sh\nread -r server || :\ncase $server in\n".to_owned();
    for (server, login) in logins {
        let (name, secret) = login.split_once(':').unwrap();
        script += &format!("'{server}') echo '{}' ;;\n", json!({ "Username": name, "Secret": secret }));
    }
    script + "*) echo 'credentials not found in native keychain'; exit 1 ;;\nesac\n"
}

fn decided(files: &LoginFiles, repository: &str) -> String {
    let (host, name) = repository.split_once('/').unwrap();
    match files.credentials(host, name).credentials {
        None => "none".into(),
        Some(Credentials::Password(name, password)) => format!("{name}:{password}"),
        Some(Credentials::Token(token)) => format!("token:{token}"),
    }
}

#[test]
fn every_repository_gets_its_login() {
    for case in Case::all() {
        let home = tempfile::tempdir().unwrap();
        let variables = case.set_up(home.path());
        let files = LoginFiles::of(|name| variables.get(name).map(OsString::from));
        for (repository, login) in &case.logins {
            assert_eq!(&decided(&files, repository), login, "{repository}: {}", case.what);
        }
    }
}

#[test]
#[ignore = "tools"]
fn logins_are_found_as_by_containers_image() {
    let (mut homes, mut questions, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for case in Case::all() {
        let home = tempfile::tempdir().unwrap();
        let variables = case.set_up(home.path());
        let files = LoginFiles::of(|name| variables.get(name).map(OsString::from));
        for repository in case.logins.keys() {
            questions.push(json!({ "env": variables, "repository": repository }));
            let ours = decided(&files, repository);
            answers.push((case.go.get(repository).cloned(), ours, format!("{repository}: {}", case.what)));
        }
        homes.push(home);
    }
    let theirs = test_kit::decided_by_go("logins", &questions);
    assert_eq!(theirs.len(), answers.len());
    for (theirs, (deviation, ours, what)) in theirs.into_iter().zip(answers) {
        match deviation {
            Some(deviation) if deviation == "any" => {}
            Some(deviation) => assert!(theirs == deviation && theirs != ours, "{theirs} {ours}: {what}"),
            None => assert_eq!(theirs, ours, "{what}"),
        }
    }
}

#[test]
fn a_broken_file_or_helper_causes_a_warning_without_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    let warning = |content: &str, host: &str| {
        fs::write(&file, content).unwrap();
        LoginFiles::only(file.clone()).credentials(host, "x").warning
    };
    assert_eq!(warning("{}", "r.example"), None);
    let broken = warning("{", "r.example").unwrap();
    assert!(broken.contains("config.json") && broken.contains("continuing without a login for r.example"));
    let entry = warning(r#"{"auths":{"r.example":{"auth":"c2VjcmV0"}}}"#, "r.example").unwrap();
    assert!(
        entry.contains("r.example") && !entry.contains("c2VjcmV0") && !entry.contains("secret"),
        "{entry}"
    );
    let helper = r#"{"credHelpers":{"h.example":"trivy-ferry-has-no-such","i.example":"../x"}}"#;
    assert!(warning(helper, "h.example").unwrap().contains("docker-credential-trivy-ferry-has-no-such"));
    assert!(warning(helper, "i.example").unwrap().contains("helper"));
    assert_eq!(warning(helper, "other.example"), None);
    let named = |name: &str| (name == "REGISTRY_AUTH_FILE").then(|| OsString::from("/nonexistent/auth.json"));
    let missing = LoginFiles::of(named).credentials("r.example", "x").warning.unwrap();
    assert!(missing.contains("REGISTRY_AUTH_FILE names /nonexistent/auth.json"), "{missing}");
}

#[test]
fn logins_may_be_in_a_named_pipe_which_is_read_once() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("config.json");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::write(pipe, r#"{"auths":{"registry.corp":{"auth":"dTpw"}}}"#).unwrap()
    });
    let files = LoginFiles::only(pipe);
    for repository in ["registry.corp/a", "registry.corp/b"] {
        assert_eq!(decided(&files, repository), "u:p");
    }
    writer.join().unwrap();
}

#[test]
fn files_and_answers_that_are_too_large_are_named_and_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let programs = directory.path().join("programs");
    fs::create_dir_all(&programs).unwrap();
    let helper = |name: &str, script: &str| {
        let path = programs.join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let letters = |count: usize| format!("printf '%*s' {count} '' | tr ' ' x");
    let answer = |count: usize| {
        format!("printf '{{\"Username\":\"u\",\"Secret\":\"'; {}; printf '\"}}'", letters(count))
    };
    helper("large", &answer(60 << 10));
    helper("larger", &answer(70 << 10));
    helper("endless", "while echo x; do :; done");
    helper("talks", &format!("{{ {}; }} >&2; {}", letters(300 << 10), answer(1)));
    helper("lacks", &format!("{{ echo credentials not found; {}; }} >&2; exit 1", letters(300 << 10)));
    let config = directory.path().join("config.json");
    let names = ["large", "larger", "endless", "talks", "lacks"];
    let helpers: BTreeMap<_, _> = names.iter().map(|name| (format!("{name}.example"), *name)).collect();
    fs::write(&config, json!({ "credHelpers": helpers }).to_string()).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let files = LoginFiles { search: Some(path.into()), ..LoginFiles::only(config.clone()) };
    assert_eq!(decided(&files, "large.example/x").len(), 2 + (60 << 10));
    assert_eq!(decided(&files, "talks.example/x"), "u:x");
    for name in ["larger", "endless"] {
        let lookup = files.credentials(&format!("{name}.example"), "x");
        let expected = format!(
            "the credential helper docker-credential-{name} cannot be used: its answer is larger than 64 KiB"
        );
        assert!(lookup.credentials.is_none() && lookup.warning.unwrap().contains(&expected), "{name}");
    }
    let lacks = files.credentials("lacks.example", "x");
    assert!(lacks.credentials.is_none() && lacks.warning.is_none(), "{lacks:?}");

    let mut content = r#"{"auths":{"r.example":{"auth":"dTpw"}}}"#.to_owned();
    content.push_str(&" ".repeat((1 << 20) - content.len()));
    fs::write(&config, &content).unwrap();
    assert_eq!(decided(&LoginFiles::only(config.clone()), "r.example/x"), "u:p");
    fs::write(&config, content + " ").unwrap();
    let lookup = LoginFiles::only(config.clone()).credentials("r.example", "x");
    let warning = lookup.warning.unwrap();
    assert!(lookup.credentials.is_none(), "{warning}");
    assert!(warning.contains("config.json cannot be read: it is larger than 1 MiB"), "{warning}");
    let named = |name: &str| (name == "NETRC").then(|| config.clone().into_os_string());
    assert!(netrc(named).1.unwrap().contains("it is larger than 1 MiB"));
    fs::write(&config, "machine r.example login u password").unwrap();
    let remark = netrc(named).1.unwrap();
    assert!(remark.contains("config.json: the entry for r.example is skipped"), "{remark}");
}
