//! What the program prints: help, results and errors, with their exit codes.
//!
//! Each file in `tests/cmd` is one command with its stdout, its stderr and its exit code. After a
//! change that is meant, `TRYCMD=overwrite cargo test cli::` writes them anew: read the
//! difference aloud before you commit it. It writes only what a file has already, so a new one begins with
//! `stdout = ""`, `stderr = ""` and `status.code = 0`.

/// Nothing of the machine's own settings reaches the commands: every case says
/// `env.inherit = false`, and the width of the help texts is fixed here. Nothing is on the PATH,
/// so that no `trivy` is asked for its version.
#[test]
fn output_is_as_pinned() {
    let home = tempfile::tempdir().unwrap();
    // Keys and state of a user who has none yet.
    let path = |name: &str| home.path().join(name).display().to_string();
    let cases = trycmd::TestCases::new();
    // A program that is not found is no failure for trycmd.
    cases.register_bin("trivy-ferry", std::path::Path::new(crate::forge::PROGRAM));
    cases.env("COLUMNS", "100").env("PATH", path("bin")).env("TZ", "UTC");
    cases.env("HOME", path("home")).env("XDG_CONFIG_HOME", path("config"));
    cases.env("XDG_STATE_HOME", path("state"));
    cases.insert_var("[HOME]", home.path().display().to_string()).unwrap();
    cases.case("tests/cmd/*.toml");
    // These say that no key is trusted, which a host's own folder of keys would change.
    if std::path::Path::new("/etc/trivy-ferry/trusted").exists() {
        cases.skip("tests/cmd/trust-list*.toml").skip("tests/cmd/import-no-key.toml");
    }
    cases.run();
}

/// A case that inherits the environment would pass or fail with the machine that it runs on, and what it does
/// not mention is not compared.
#[test]
fn every_case_pins_all_of_the_output_and_inherits_nothing() {
    let mut cases = 0;
    for entry in std::fs::read_dir("tests/cmd").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            for line in [r#"bin.name = "trivy-ferry""#, "env.inherit = false", "stdout = \"", "stderr = \""] {
                assert!(text.lines().any(|has| has.starts_with(line)), "{}: no {line}", path.display());
            }
            cases += 1;
        }
    }
    assert!(cases > 20, "{cases} cases");
}

/// `-h` fits on a screen, with one line for each option: the rest is in `--help`.
#[test]
fn the_short_help_is_short() {
    for (command, most) in [("import", 50), ("export", 52), ("watch", 56), ("mirror", 40), ("serve", 40)] {
        let mut program = std::process::Command::new(crate::forge::PROGRAM);
        let output = program.args([command, "-h"]).env_clear().env("COLUMNS", "100").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let lines = help.lines().count();
        assert!(lines <= most, "{command}: {lines} lines\n{help}");
        let wrapped: Vec<&str> = help.lines().filter(|line| line.starts_with("                ")).collect();
        assert!(wrapped.is_empty(), "{command}: {wrapped:#?}");
    }
}
