//! The contract of `--format json`: `docs/json.md` documents every field that a command prints, and
//! `bundle-format.md` documents the fields of a payload.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use test_kit::artifact::laid_out;
use test_kit::process::Run;

use crate::stories::bare;

/// Adds the paths of all fields below a value. The keys of maps, such as the names of datasets, are
/// not fields.
fn fields(value: &Value, path: &[String], found: &mut BTreeSet<Vec<String>>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = [path, std::slice::from_ref(name)].concat();
                if !name.contains('-') && !path.iter().any(|step| step == "annotations") {
                    found.insert(path.clone());
                }
                fields(value, &path, found);
            }
        }
        Value::Array(array) => array.iter().for_each(|value| fields(value, path, found)),
        _ => {}
    }
}

#[test]
fn every_field_is_documented() {
    let (contract, format) = (page("docs/json.md"), page("bundle-format.md"));
    let (contract, format) = (words(&contract), words(&format));
    let host = bare();
    let mut runs: Vec<(&str, Run)> = vec![("keygen", host.ferry("keygen --name ferry --format json"))];
    let upstream = laid_out(&host);
    let out = host.dir("out");
    let key = "--key ferry.key";
    runs.push(("trust", host.ferry("trust list --format json")));
    runs.push((
        "export",
        host.ferry(&format!("export --format json --dry-run {key} {upstream} --output {out}")),
    ));
    let export = format!("export --format json {key} {upstream} --output {out} --parity 50% --heartbeat");
    runs.push(("export", host.ferry(&export)));
    runs.push(("verify", host.ferry(&format!("verify {out} --trust ferry.pub --format json"))));
    runs.push(("inspect", host.ferry(&format!("inspect {out} --trust ferry.pub --format json"))));
    let import =
        format!("import {out} --trust ferry.pub --cache-dir cache --registry 127.0.0.1:1 --plain-http");
    runs.push(("import", host.ferry(&format!("{import} --format json"))));
    runs.push(("repair", host.ferry(&format!("repair {out} --trust ferry.pub --format json"))));
    host.dir("inbox");
    let watch =
        "watch inbox --once --settle 1ms --interval 1ms --trust ferry.pub --cache-dir cache --format json";
    runs.push(("watch", host.ferry(watch)));
    runs.push(("status", host.ferry("status --format json")));
    let mut unknown = BTreeSet::new();
    for (command, run) in &runs {
        let mut found = BTreeSet::new();
        fields(&run.json(), &[(*command).to_owned()], &mut found);
        assert!(!found.is_empty(), "{run}");
        unknown.extend(found.into_iter().filter(|path| {
            // A payload is printed unchanged from the bundle.
            let of_payload = path.iter().any(|step| step == "payload") && path.last().unwrap() != "payload";
            let documented = if of_payload { &format } else { &contract };
            !documented.contains(path.last().unwrap().as_str())
        }));
    }
    assert!(unknown.is_empty(), "the documentation lacks {unknown:#?}");
}

/// Returns a page of the documentation.
fn page(name: &str) -> String {
    fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Returns the words of all code on a page.
fn words(page: &str) -> BTreeSet<&str> {
    let code = page.split('`').skip(1).step_by(2);
    code.flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).collect()
}
