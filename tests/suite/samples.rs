//! The samples in `README.md` and `docs`: each command is run, and its output must match the page.
//! Dates, sizes, digests, versions and widths may differ, but not the words and their order. A line
//! `…` represents any number of lines.
//!
//! `TRIVY_FERRY_MAKE_SESSION=1 cargo test --test suite samples` recreates `docs/session.svg`, a
//! picture of the terminal during a trip.

use std::fs;
use std::path::Path;

use test_kit::artifact::{laid_out, sample};
use test_kit::host::Host;
use test_kit::registry::Registry;

use crate::forge::PROGRAM;
use crate::stories::bare;

/// A command of a page, and its output on the page.
struct Sample {
    line: usize,
    command: String,
    output: Vec<String>,
}

/// Reads the blocks of a page that begin with ` ```console `.
fn samples(page: &str) -> Vec<Sample> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let (mut samples, mut is_inside) = (Vec::<Sample>::new(), false);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start_matches(if is_inside { "  " } else { " " });
        match (is_inside, line.strip_prefix("$ "), samples.last_mut()) {
            (false, ..) => is_inside = line == "```console",
            (true, ..) if line == "```" => is_inside = false,
            (true, Some(command), _) => {
                let (line, command) = (number + 1, command.trim_end_matches('\\').to_owned());
                samples.push(Sample { line, command, output: Vec::new() });
            }
            (true, None, Some(sample)) => sample.output.push(line.to_owned()),
            (true, None, None) => panic!("{page}:{number}: output without a command"),
        }
    }
    samples
}

/// Returns a line without the parts that differ between runs.
fn shape(line: &str) -> String {
    let line = line.replace("Safe to unplug.", "").replace("no date", "");
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let word = word.trim_matches(|c| "().,:".contains(c));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Vec<&str> = word.split('.').collect();
        let shape = match word {
            "" => continue,
            _ if word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) => "HEX".to_owned(),
            "h" | "d" | "min" | "s" | "B" | "KiB" | "MiB" | "GiB" => "UNIT".to_owned(),
            _ if parts.iter().all(|part| digits(part)) && parts.len() == 3 => continue,
            _ if parts.iter().all(|part| digits(part)) => "NUMBER".to_owned(),
            _ if word.len() == 10 && word.split('-').all(digits) => "DATE".to_owned(),
            _ if word.len() == 5 && word.split(':').all(digits) => "TIME".to_owned(),
            _ if word.starts_with("sha256:") => "DIGEST".to_owned(),
            _ => without_stamp(word),
        };
        if words.last() != Some(&shape) {
            words.push(shape);
        }
    }
    let line = words.join(" ");
    // In the samples, the manifests have no date.
    if line.contains("unchanged") { line.replace("DATE TIME UTC ", "") } else { line }
}

/// Returns a word without the date in the name of a bundle: `default-20261121t102008z.tar`.
fn without_stamp(word: &str) -> String {
    let Some(at) = word.find("default-2") else { return word.to_owned() };
    let begin = at + "default-".len();
    word.get(begin + 16..).map_or_else(|| word.to_owned(), |rest| format!("{}STAMP{rest}", &word[..begin]))
}

/// A host for the commands of a page, with the real paths for the names on the page.
struct Stage {
    host: Host,
    /// The names on the page, and their replacements.
    names: Vec<(&'static str, String)>,
    environment: Vec<(&'static str, String)>,
}

impl Stage {
    /// Returns a host with sources that has exported nothing yet.
    fn new() -> Self {
        let host = bare();
        let flags = laid_out(&host);
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let value = |name: &str| {
            let at = flags.iter().position(|flag| *flag == name).unwrap();
            flags[at + 1].to_owned()
        };
        let environment = vec![
            ("TRIVY_FERRY_DB_REPOSITORY", value("--db-repository")),
            ("TRIVY_FERRY_JAVA_DB_REPOSITORY", value("--java-db-repository")),
            ("TRIVY_FERRY_CHECKS_BUNDLE_REPOSITORY", value("--checks-bundle-repository")),
            ("TRIVY_FERRY_VEX", value("--vex")),
            ("TRIVY_FERRY_STATE_DIR", host.at("state")),
            ("TRIVY_FERRY_TRUST", host.at("ferry.pub")),
            ("TRIVY_FERRY_CACHE_DIR", host.at("cache")),
        ];
        let names = vec![
            ("/home/ann", host.at("").trim_end_matches('/').to_owned()),
            ("mirror.gcr.io/aquasec", format!("oci-layout:{}", host.at("upstream"))),
            ("https://github.com/aquasecurity/vexhub", sample("vex-hub")),
            ("/media/usb", host.dir("usb")),
            ("/var/cache/trivy", host.at("cache")),
            ("/var/lib/trivy-ferry", host.at("state")),
            ("/srv/www/vex", host.dir("www")),
        ];
        Stage { host, names, environment }
    }

    /// Returns a host with a bundle on its medium.
    fn carried() -> Self {
        let stage = Stage::new();
        stage.prints("trivy-ferry keygen");
        stage.prints("trivy-ferry export --key ferry.key --output /media/usb");
        stage
    }

    fn without(mut self, variable: &str) -> Self {
        self.environment.retain(|(name, _)| *name != variable);
        self
    }

    fn named(mut self, name: &'static str, real: &str) -> Self {
        self.names.push((name, real.to_owned()));
        self
    }

    /// Runs a command of a page, and returns its output with the names of the page.
    fn prints(&self, command: &str) -> Vec<String> {
        self.prints_with(command, "state")
    }

    /// Runs a command as [`Stage::prints`] does, with another state.
    fn prints_with(&self, command: &str, state: &str) -> Vec<String> {
        let mut line = command.replacen("trivy-ferry ", &format!("{PROGRAM} "), 1);
        for (name, real) in &self.names {
            line = line.replace(name, real);
        }
        let mut shell = self.host.shell(&line);
        shell.envs(self.environment.iter().map(|(name, value)| (*name, value.as_str())));
        if self.environment.iter().any(|(name, _)| *name == "TRIVY_FERRY_STATE_DIR") {
            shell.env("TRIVY_FERRY_STATE_DIR", self.host.at(state));
        }
        let run = test_kit::process::Run::of(&mut shell, command);
        run.exits(0);
        let mut out = run.out.clone();
        for (name, real) in self.names.iter().rev() {
            out = out.replace(real.as_str(), name);
        }
        out.lines().map(str::to_owned).collect()
    }

    /// Runs the samples of a page whose commands begin with one of these words, and asserts that
    /// their output matches the page.
    fn shows(&self, page: &str, commands: &[&str]) {
        let mut count = 0;
        for sample in samples(page) {
            if !commands.iter().any(|command| sample.command.starts_with(command)) {
                continue;
            }
            count += 1;
            let printed = self.prints(&sample.command);
            let shown: Vec<String> = sample.output.iter().map(|line| shape(line)).collect();
            let real: Vec<String> = printed.iter().map(|line| shape(line)).collect();
            assert!(
                fits(&shown, &real),
                "{page}:{}: {} prints\n{}\nand the page says\n{}",
                sample.line,
                sample.command,
                printed.join("\n"),
                sample.output.join("\n")
            );
        }
        assert!(count > 0, "{page} has no sample of {commands:?}");
    }
}

/// Whether lines are as a page shows them.
fn fits(shown: &[String], real: &[String]) -> bool {
    match shown.split_first() {
        None => real.is_empty(),
        Some((any, rest)) if any == "…" => (0..=real.len()).any(|skipped| fits(rest, &real[skipped..])),
        Some((line, rest)) => real.first() == Some(line) && fits(rest, &real[1..]),
    }
}

#[test]
fn the_first_trip_matches_the_readme() {
    Stage::new().shows("README.md", &["trivy-ferry"]);
}

#[test]
fn settings_match_the_page() {
    let stage = Stage::carried();
    stage.prints("trivy-ferry import /media/usb");
    stage.shows("docs/offline-trivy.md", &["trivy-ferry settings"]);
}

#[test]
fn a_repair_matches_the_page() {
    let stage = Stage::new().named("out/", "out/");
    stage.host.dir("out");
    stage.prints("trivy-ferry keygen");
    stage.prints("trivy-ferry export --key ferry.key --output out --volume-size 28K --parity 100%");
    stage.prints("rm out/*.tar.001");
    stage.shows("docs/media.md", &["trivy-ferry repair"]);
}

#[test]
fn imports_into_servers_match_the_page() {
    let page = "docs/registry.md";
    let registry = Registry::new(|_| None);
    let stage =
        || Stage::carried().without("TRIVY_FERRY_CACHE_DIR").named("harbor.corp.example", &registry.host);
    let site = stage();
    site.prints("trivy-ferry import /media/usb --registry harbor.corp.example/security --only trivy-java-db");
    site.shows(page, &["trivy-ferry import /media/usb --registry harbor"]);
    site.shows(page, &["trivy-ferry import /media/usb --web-root"]);
    let registry = Registry::new(|_| None);
    let dmz = Stage::new().named("harbor.corp.example", &registry.host);
    dmz.prints("trivy-ferry mirror --registry harbor.corp.example/security --skip trivy-db");
    dmz.shows(page, &["trivy-ferry mirror"]);
}

/// Bundles 1 and 3 arrive, 2 is lost, and the last export found nothing new.
#[test]
fn the_status_of_a_watched_inbox_matches_the_page() {
    let mut stage = Stage::new();
    let inbox = stage.host.dir("inbox");
    stage.prints("trivy-ferry keygen");
    let export = "trivy-ferry export --key ferry.key --output out --state-dir exports";
    stage.host.dir("out");
    for number in 1..=3 {
        let clock = ("TRIVY_FERRY_TEST_CLOCK", format!("{}s", 2 * number));
        stage.environment.retain(|(name, _)| *name != clock.0);
        stage.environment.push(clock);
        stage.prints(export);
        if number != 2 {
            stage.prints(&format!("cp \"$(ls -t out/*.tar | head -n 1)\" {inbox}"));
            stage.prints(&format!("trivy-ferry watch {inbox} --once --settle 1ms"));
        }
    }
    stage.prints(&format!("{export} --if-changed --heartbeat"));
    stage.prints(&format!("cp out/*.json {inbox}"));
    stage.prints(&format!("trivy-ferry watch {inbox} --once --settle 1ms"));
    stage.shows("docs/unattended.md", &["trivy-ferry status"]);
}

/// Returns the commands of a trip with their output.
fn session() -> Vec<String> {
    let mut stage = Stage::new();
    // The clock is set to the day on which the sample data was built.
    let day: jiff::Timestamp = "2026-01-15T09:00:00Z".parse().unwrap();
    let ahead = day.as_second() - jiff::Timestamp::now().as_second();
    stage.environment.push(("TRIVY_FERRY_TEST_CLOCK", format!("{ahead}s")));
    stage.prints("trivy-ferry keygen");
    let mut lines = Vec::new();
    for (command, state) in [
        ("trivy-ferry export --key ferry.key --output /media/usb", "exports"),
        ("trivy-ferry import /media/usb --write-env settings.env", "state"),
        ("trivy-ferry status", "state"),
    ] {
        lines.push(format!("$ {command}"));
        lines.extend(stage.prints_with(command, state));
        lines.push(String::new());
    }
    lines.pop();
    lines
}

/// Returns a picture of a terminal.
fn terminal(lines: &[String]) -> String {
    let height = 40 + 18 * lines.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 980 {height}\" width=\"980\" height=\"{height}\" \
         role=\"img\" aria-label=\"Terminal: export, import and status\">\n\
         <style>text {{ font: 13px ui-monospace, monospace; fill: #d1d7e0; white-space: pre; }} .command {{ fill: #6cb6ff; }}</style>\n\
         <rect width=\"980\" height=\"{height}\" rx=\"8\" fill=\"#22272e\"/>\n"
    );
    for (number, line) in lines.iter().enumerate() {
        let most: String = line.chars().take(118).collect();
        let cut = if most.len() < line.len() { "…" } else { "" };
        let text = format!("{most}{cut}").replace('&', "&amp;").replace('<', "&lt;");
        let class = if line.starts_with("$ ") { " class=\"command\"" } else { "" };
        let y = 28 + 18 * number;
        svg.push_str(&format!("<text x=\"16\" y=\"{y}\" xml:space=\"preserve\"{class}>{text}</text>\n"));
    }
    svg + "</svg>\n"
}

/// Returns the lines of a picture that [`terminal`] created.
fn lines_of(svg: &str) -> Vec<String> {
    let text =
        |line: &str| Some(line.strip_prefix("<text")?.split_once('>')?.1.strip_suffix("</text>")?.to_owned());
    svg.lines().filter_map(text).map(|line| line.replace("&lt;", "<").replace("&amp;", "&")).collect()
}

#[test]
fn the_picture_of_a_session_matches_the_output() {
    let fresh = terminal(&session());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/session.svg");
    if std::env::var_os("TRIVY_FERRY_MAKE_SESSION").is_some_and(|value| value == "1") {
        fs::write(&path, &fresh).unwrap();
    }
    let shapes = |svg: &str| lines_of(svg).iter().map(|line| shape(line)).collect::<Vec<_>>();
    let kept = fs::read_to_string(path).unwrap();
    assert_eq!(shapes(&kept), shapes(&fresh), "recreate docs/session.svg");
}
