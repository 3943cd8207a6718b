//! The unattended export of every night.

use std::fs;

use test_kit::artifact::laid_out;
use test_kit::host::{Host, json_file, names};

use crate::stories::bare;

/// Returns the names in a host's output directory, sorted.
fn bundles(host: &Host) -> Vec<String> {
    names(host.at("out"))
}

#[test]
fn an_export_without_new_data_writes_nothing() {
    let host = bare();
    let (key, _) = host.keygen();
    host.dir("out");
    let flags = laid_out(&host);
    let line = format!("export --key {key} --output out --if-changed {flags}");
    let first = host.ferry(&format!("{line} --format json")).exits(0).json();
    assert_eq!((&first["unchanged"], bundles(&host).len()), (&false.into(), 1));
    host.ferry(&line).exits(0).prints("Nothing new since the last bundle of this stream");
    let again = host.ferry(&format!("{line} --format json")).exits(0).json();
    assert_eq!((&again["unchanged"], &again["bundle"]), (&true.into(), &serde_json::Value::Null));
    assert_eq!(again["datasets"].as_array().unwrap().len(), 4, "{again:#}");
    assert_eq!(bundles(&host).len(), 1);
    assert_eq!(json_file(host.at("state/export-default.json"))["sequence"], 1);
    // A removed or added dataset counts as a change, and for another stream, all data is new.
    host.ferry(&format!("{line} --skip trivy-java-db --format json")).exits(0).prints("\"unchanged\": false");
    host.ferry(&format!("{line} --stream other --format json")).exits(0).prints("\"unchanged\": false");
    assert_eq!(bundles(&host).len(), 3);
    // The export fails if there was no new data for too long.
    host.ferry(&format!("{line} --stream other --max-age trivy-db=1m")).exits(5).warns("--max-age");
    // Without the flag, every run writes a bundle.
    host.ferry(&line.replace("--if-changed", "")).exits(0);
    assert_eq!(bundles(&host).len(), 4);
}

#[test]
fn old_bundles_are_removed_and_the_last_of_every_dataset_is_kept() {
    let host = bare();
    let (key, public) = host.keygen();
    host.dir("out");
    let flags = laid_out(&host);
    let export = |more: &str| {
        host.ferry(&format!("export --key {key} --output out {flags} --format json {more}")).exits(0).json()
    };
    // The first bundle has trivy-java-db, and the next 3 of its stream lack it. Files of others are
    // never removed.
    export("");
    let java = bundles(&host);
    fs::write(host.at("out/notes.txt"), "mine").unwrap();
    fs::write(host.at("out/default-20200101t000000z.tar"), "no bundle").unwrap();
    export("--stream other");
    for _ in 0..3 {
        export("--skip trivy-java-db --keep 2");
    }
    let left = bundles(&host);
    assert_eq!(left.len(), 6, "2 bundles, the last bundle with trivy-java-db, 3 other files: {left:?}");
    assert!(left.contains(&java[0]), "{left:?}");
    let last = export("--keep 1");
    assert_eq!(last["removed"].as_array().unwrap().len(), 3, "{last:#}");
    let left = bundles(&host);
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(left.iter().any(|name| name.starts_with("other-")), "{left:?}");
    fs::remove_file(host.at("out/default-20200101t000000z.tar")).unwrap();
    host.ferry(&format!("verify out --trust {public}")).exits(0);
}

#[test]
fn files_of_others_do_not_decide_which_bundles_are_removed() {
    let host = bare();
    let (key, _) = host.keygen();
    host.ferry("keygen --name other").exits(0);
    host.dir("out");
    let flags = laid_out(&host);
    let export = |key: &str| {
        let line = format!("export --key {key} --output out {flags} --keep 1 --format json");
        let json = host.ferry(&line).exits(0).json();
        (json["bundle"]["path"].as_str().unwrap().to_owned(), json["removed"].as_array().unwrap().len())
    };
    let (first, _) = export(&key);
    // A copy with a date in the year 2099, a truncated one, and one with another key.
    let bytes = fs::read(host.at(&first)).unwrap();
    fs::write(host.at("out/default-20990101t000000z.tar"), &bytes[..bytes.len() - 512]).unwrap();
    let mut forged = bytes.clone();
    let at = forged.windows(9).position(|window| window == b"\"payload\"").unwrap() + 40;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    fs::write(host.at("out/default-20990101t000001z.tar"), forged).unwrap();
    let (theirs, removed) = export("other.key");
    assert_eq!(removed, 0, "bundles of another key are not removed");
    let (second, removed) = export(&key);
    assert_eq!(removed, 1);
    let left = bundles(&host);
    for path in [&second, &theirs] {
        assert!(left.iter().any(|name| path.ends_with(name)), "{path} is gone: {left:?}");
    }
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn a_log_has_a_line_of_json_for_everything() {
    let host = bare();
    let (key, _) = host.keygen();
    host.dir("out");
    let flags = laid_out(&host);
    let log = |more: &str, code: i32| -> Vec<serde_json::Value> {
        let line = format!("export --key {key} --output out --log-format json {flags} {more}");
        let output = host.ferry_command(&line).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        let entries: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect();
        assert!(entries.iter().all(|entry| entry["time"].is_string() && entry["what"].is_string()), "{text}");
        entries
    };
    let good = log("", 0);
    let of_java = good.iter().find(|entry| entry["what"] == "trivy-java-db-1").unwrap();
    assert_eq!((&of_java["level"], of_java["total"].is_u64()), (&"info".into(), true), "{of_java}");
    let failed = log("--require all --image 127.0.0.1:1/an/image:1", 3);
    let error = failed.last().unwrap();
    assert_eq!((&error["level"], &error["exit_code"]), (&"error".into(), &3.into()), "{error}");
    assert!(error["next"].as_str().unwrap().contains("127.0.0.1:1"), "{error}");
    let quiet = log("--quiet --require all --image 127.0.0.1:1/an/image:1", 3);
    assert_eq!(quiet.len(), 1, "only the error: {quiet:?}");
}

#[test]
fn the_command_of_the_operator_runs_after_every_export() {
    let host = bare();
    let (key, _) = host.keygen();
    host.dir("out");
    let flags = laid_out(&host);
    let run = |more: &str, command: &str| {
        let line = format!("export --key {key} --output out --if-changed {flags} {more}");
        let mut export = host.ferry_command(&line);
        export.args(["--exec-after", command]);
        test_kit::process::Run::of(&mut export, &line)
    };
    let note = "echo \"$TRIVY_FERRY_RESULT $TRIVY_FERRY_BUNDLE\" >>heard";
    run("", note).exits(0);
    run("", note).exits(0);
    run("--require all --image 127.0.0.1:1/an/image:1", note).exits(3);
    let heard = fs::read_to_string(host.at("heard")).unwrap();
    let lines: Vec<&str> = heard.lines().collect();
    assert_eq!(lines.len(), 3, "{heard}");
    assert!(lines[0].starts_with("written out/default-") && lines[0].ends_with(".tar"), "{heard}");
    assert_eq!(lines[1..], ["unchanged ", "failed "]);
    // A failed command is an error, but the bundle is written.
    run("--skip trivy-checks", "exit 3").exits(1).warns("`exit …` failed");
    assert_eq!(bundles(&host).len(), 2);
}
