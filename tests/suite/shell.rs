//! Completions for shells, and manual pages.

use std::fs;
use std::process::Command;

fn ferry(args: &[&str]) -> String {
    let ran = Command::new(env!("CARGO_BIN_EXE_trivy-ferry")).args(args).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn bash_completes_commands_and_flags() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("completions");
    fs::write(&script, ferry(&["completions", "bash"])).unwrap();
    let complete = |words: &str| {
        // The script runs the completion function as bash does.
        let line = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _trivy__ferry trivy-ferry \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let ran = Command::new("bash").args(["--norc", "-c", &line]).output().unwrap();
        assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("trivy-ferry exp"), "export");
    assert_eq!(complete("trivy-ferry export --if"), "--if-changed");
    assert_eq!(complete("trivy-ferry trust rem"), "remove");
    assert_eq!(complete("trivy-ferry import --format js"), "json");
}

#[test]
fn the_manual_matches_the_help() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("share/man1");
    let write = || ferry(&["man", pages.to_str().unwrap(), "--format", "json"]);
    assert_eq!(write(), write(), "the pages of an earlier version are replaced");
    let report: serde_json::Value = serde_json::from_str(&write()).unwrap();
    let named = report["pages"].as_array().unwrap();
    assert_eq!(named.len(), fs::read_dir(&pages).unwrap().count());
    for command_name in ["export", "import", "trust-add"] {
        let page = fs::read_to_string(pages.join(format!("trivy-ferry-{command_name}.1"))).unwrap();
        // In roff, a literal hyphen is written with a backslash.
        let page = page.replace('\\', "");
        let mut args: Vec<&str> = command_name.split('-').collect();
        args.push("--help");
        for line in ferry(&args).lines() {
            let flag = line.split_whitespace().find(|word| word.starts_with("--"));
            if let Some(flag) = flag.filter(|_| line.starts_with("      --")) {
                assert!(page.contains(flag), "{command_name} {flag}: {page}");
            }
            if let Some((_, name)) = line.split_once("[env: ") {
                assert!(
                    page.contains(name.trim_end_matches(']').trim_end_matches('=')),
                    "{command_name} {name}"
                );
            }
        }
    }
    let main = fs::read_to_string(pages.join("trivy-ferry.1")).unwrap();
    assert!(main.contains("Exit codes"), "{main}");
}
