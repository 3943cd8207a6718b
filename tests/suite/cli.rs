//! The output of the program: help, results and errors, with their exit codes.
//!
//! Each file in `tests/cmd` is one command with its stdout, its stderr and its exit code. After an
//! intended change, `TRYCMD=overwrite cargo test cli::` updates the files. Read the whole
//! difference before you commit it. The command updates only fields that a file has already, so a
//! new file begins with `stdout = ""`, `stderr = ""` and `status.code = 0`.

/// The settings of the machine do not affect the commands: every case has `env.inherit = false`,
/// and the width of the help texts is fixed here. `PATH` has no programs, so that trivy-ferry runs
/// no `trivy` to read its version.
#[test]
fn output_is_as_pinned() {
    let home = tempfile::tempdir().unwrap();
    // The directories for keys and state do not exist yet.
    let path = |name: &str| home.path().join(name).display().to_string();
    let cases = trycmd::TestCases::new();
    // trycmd ignores cases whose program does not exist.
    cases.register_bin("trivy-ferry", std::path::Path::new(crate::forge::PROGRAM));
    cases.env("COLUMNS", "100").env("PATH", path("bin")).env("TZ", "UTC");
    cases.env("HOME", path("home")).env("XDG_CONFIG_HOME", path("config"));
    cases.env("XDG_STATE_HOME", path("state"));
    cases.insert_var("[HOME]", home.path().display().to_string()).unwrap();
    cases.case("tests/cmd/*.toml");
    // These cases report that no key is trusted. The host's own directory of keys would change
    // that.
    if std::path::Path::new("/etc/trivy-ferry/trusted").exists() {
        cases.skip("tests/cmd/trust-list*.toml").skip("tests/cmd/import-no-key.toml");
    }
    cases.run();
}

/// A case that inherits the environment would depend on the machine. Output that a case does not
/// mention is not compared.
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

/// `-h` fits on a screen, with one line for each option. `--help` has the rest.
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

/// A shell puts the names of files on a medium onto the command line.
#[test]
fn hostile_arguments_are_escaped_and_logins_are_removed() {
    let host = crate::forge::Host::new();
    let run = host.run(&["import", "--x\nerror: forged \u{202e}"]);
    run.exits(2).warns("--x\\u{a}error: forged \\u{202e}").does_not_say("\nerror: forged");
    host.run(&["import", "--me:S3CRET@registry.example/x"]).exits(2).does_not_say("S3CRET");
}
