//! A site with a web server: it serves VEX repositories as files to all scanners.

use std::fs;
use std::net::TcpStream;

use test_kit::artifact::{findings, flags_of, laid_out, sample};
use test_kit::host::{Host, files, json_file, read, text};
use test_kit::http::own_address;
use test_kit::process::{Process, wait_for};
use test_kit::tools;
use trivy_ferry::digest::Digest;

use crate::stories::{bare, equipped};

const HUB: &str = "vex-hub/.well-known/vex-repository.json";
const ARCHIVE: &str = "vex-hub/repository-vexhub-main.tar.gz";

/// Returns VEX Hub of a later day, without the document that suppressed a finding.
fn later_hub(host: &Host) -> String {
    let directory = host.dir("later");
    fs::copy(sample("vex-hub/vex-repository.json"), format!("{directory}/vex-repository.json")).unwrap();
    host.sh(&format!(
        "mkdir later/x && tar xzf {} -C later/x && \
         echo '{{\"updated_at\": \"2026-02-15T06:00:00Z\", \"packages\": []}}' >later/x/vexhub-main/index.json && \
         tar czf later/main.tar.gz -C later/x vexhub-main && rm -r later/x",
        sample("vex-hub/main.tar.gz")
    ))
    .exits(0);
    directory
}

/// Returns two bundles, a month apart, and their public key.
fn two_bundles() -> (Host, [String; 2], String) {
    let laptop = bare();
    let (_, public) = laptop.keygen();
    let first = laptop.export(&laptop.dir("first"), &laid_out(&laptop));
    let flags = flags_of(&laptop.at("upstream")).replace(&sample("vex-hub"), &later_hub(&laptop));
    // The only document is missing on purpose.
    let second = laptop.export(&laptop.dir("second"), &format!("{flags} --accept vex-hub"));
    (laptop, [first, second], public)
}

#[test]
fn a_web_root_has_all_files_that_trivy_requests() {
    let (_laptop, [first, second], public) = two_bundles();
    let importer = bare();
    let root = importer.dir("www");
    let import = |bundle: &str, more: &str| {
        let flags = format!("--web-root {root} --web-url https://web.corp.example/vex --format json {more}");
        importer.ferry(&format!("import {bundle} --trust {public} {flags}"))
    };
    let done = import(&first, "");
    done.exits(0);
    assert_eq!(done.statuses(), ["vex-hub installed"]);
    assert_eq!(done.target(0)["datasets"][0]["reference"], "https://web.corp.example/vex/vex-hub");
    assert!(!std::path::Path::new(&importer.at(".cache")).exists(), "no cache is touched");
    let archive = read(sample("vex-hub/main.tar.gz"));
    let by_digest = format!("vex-hub/sha256-{}.tar.gz", Digest::of(&archive).hex());
    assert_eq!(read(format!("{root}/{ARCHIVE}")), archive);
    assert_eq!(read(format!("{root}/{by_digest}")), archive);
    let location = || {
        json_file(format!("{root}/{HUB}"))["versions"][0]["locations"][0]["url"].as_str().unwrap().to_owned()
    };
    let wanted = format!("https://web.corp.example/vex/{ARCHIVE}//vexhub-main");
    assert_eq!(location(), wanted);
    assert_eq!(import(&first, "").exits(0).statuses(), ["vex-hub unchanged"]);

    // A scanner keeps the location forever, so it must stay valid when the documents change.
    assert_eq!(import(&second, "").exits(0).statuses(), ["vex-hub installed"]);
    assert_eq!(location(), wanted);
    assert_ne!(read(format!("{root}/{ARCHIVE}")), archive);
    assert_eq!(read(format!("{root}/{by_digest}")), archive, "the previous archive is kept");
    // An older version is installed only with `--allow-rollback`.
    let older = import(&first, "");
    older.exits(0).prints("--allow-rollback");
    assert_eq!(older.statuses(), ["vex-hub older"]);
    assert_ne!(read(format!("{root}/{ARCHIVE}")), archive);
    assert_eq!(import(&first, "--allow-rollback").exits(0).statuses(), ["vex-hub restored"]);
    assert_eq!(read(format!("{root}/{ARCHIVE}")), archive);

    // Changed and removed files are restored.
    fs::write(format!("{root}/{ARCHIVE}"), "<html>").unwrap();
    assert_eq!(import(&first, "").exits(0).statuses(), ["vex-hub restored"]);
    fs::remove_dir_all(format!("{root}/vex-hub")).unwrap();
    assert_eq!(import(&first, "").exits(0).statuses(), ["vex-hub restored"]);
    let held = files(&root);
    assert_eq!(held, [".trivy-ferry.lock", HUB, ARCHIVE, &by_digest]);
}

#[test]
fn a_damaged_bundle_changes_nothing_in_a_web_root() {
    let (laptop, [first, second], public) = two_bundles();
    let importer = bare();
    let root = importer.dir("www");
    let flags = format!("--trust {public} --web-root {root} --web-url https://web.corp.example");
    importer.ferry(&format!("import {first} {flags}")).exits(0);
    let before: Vec<_> = files(&root).iter().map(|name| read(format!("{root}/{name}"))).collect();
    let mut bytes = read(&second);
    let archive = read(laptop.at("later/main.tar.gz"));
    let at = bytes.windows(64).position(|window| window == &archive[archive.len() - 64..]).unwrap();
    bytes[at] ^= 1;
    fs::write(&second, bytes).unwrap();
    importer.ferry(&format!("import {second} {flags}")).exits(4).warns("does not match the signed manifest");
    let after: Vec<_> = files(&root).iter().map(|name| read(format!("{root}/{name}"))).collect();
    assert_eq!(before, after);
    importer
        .ferry(&format!("import {first} --trust {public} --web-root {root}/none --web-url http://x"))
        .exits(7)
        .warns("the web root ")
        .warns("does not exist");
    importer.ferry(&format!("import {first} --trust {public} --web-root {root}")).exits(2).warns("--web-url");
}

/// nginx for a directory of the host, with a login. It ends when dropped.
struct Nginx {
    url: String,
    _process: Process,
}

impl Nginx {
    /// Starts nginx with the user `ferry` and the password `carried`.
    fn start(host: &Host, root: &str) -> Nginx {
        let places = host.dir("nginx");
        fs::write(format!("{places}/users"), "ferry:{PLAIN}carried\n").unwrap();
        let address = own_address();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {places}/{name};\n"))
            .concat();
        let config = format!(
            "daemon off; master_process off; pid {places}/pid; error_log {places}/error.log;\n\
             events {{}}\nhttp {{\naccess_log {places}/access.log;\n{temporary}\
             server {{ listen {address}; root {root}; location /vex/ {{ alias {root}/;\n\
             auth_basic vex; auth_basic_user_file {places}/users; }} }} }}\n"
        );
        fs::write(format!("{places}/nginx.conf"), config).unwrap();
        let mut command = host.command("nginx");
        command.args(["-p", &places, "-e", &format!("{places}/error.log"), "-c", "nginx.conf"]);
        let mut process = Process::start(&mut command);
        wait_for("nginx", || {
            assert!(process.is_running(), "nginx has ended: see its error log");
            TcpStream::connect(&address).ok()
        });
        Nginx { url: format!("http://{address}/vex"), _process: process }
    }
}

/// Makes a scanner's copies of VEX repositories older than a week.
fn age_vex(scanner: &Host) {
    let path = scanner.at(".cache/trivy/vex/repositories/vex-hub/cache.json");
    let mut metadata = json_file(&path);
    metadata["UpdatedAt"] = "2026-01-01T00:00:00Z".into();
    fs::write(path, metadata.to_string()).unwrap();
}

#[test]
#[ignore = "tools"]
fn scanners_get_vex_from_a_web_server_with_a_login_even_after_changes() {
    let tools = tools();
    let (_laptop, [first, second], public) = two_bundles();
    let registry = test_kit::real::Registry::crane(&tools);
    let importer = bare();
    let root = importer.dir("www");
    let nginx = Nginx::start(&importer, &root);
    let settings = importer.dir("settings");
    let import = |bundle: &str| {
        importer.ferry(&format!(
            "import {bundle} --trust {public} --registry {} --plain-http --web-root {root} --web-url {} \
             --write-env settings.env --write-config {settings}",
            registry.address, nginx.url
        ))
    };
    import(&first).exits(0).prints("vex-hub").prints("over http:// an attacker");

    let scanner = equipped(&tools);
    let vex = scanner.dir(".trivy/vex");
    let config = text(format!("{settings}/vex-repository.yaml"));
    let project = sample("project");
    let scan = |subcommand: &str, target: &str| {
        let env = text(importer.at("settings.env"));
        scanner.sh(&format!(
            "set -a; {}; HTTPS_PROXY=http://127.0.0.1:1 NO_PROXY=127.0.0.1 \
             trivy {subcommand} --quiet --format json --show-suppressed {target}",
            env.lines().collect::<Vec<_>>().join("; ")
        ))
    };
    let gems = || scan("fs", &format!("{project}/Gemfile.lock"));
    fs::write(format!("{vex}/repository.yaml"), &config).unwrap();
    gems().fails().warns("401");
    // The login is added at the place that the comment in the file names.
    let enabled = config.rfind("username: \"\"").unwrap();
    let config = config[..enabled].to_owned()
        + &config[enabled..].replacen("username: \"\"", "username: ferry", 1).replacen(
            "password: \"\"",
            "password: carried",
            1,
        );
    fs::write(format!("{vex}/repository.yaml"), &config).unwrap();
    assert_eq!(findings(gems().exits(0)), ["CVE-2099-0001", "suppressed CVE-2099-0002"]);
    assert_eq!(findings(scan("rootfs", &project).exits(0)), ["CVE-2099-0003"], "by trivy-java-db");
    let config = scanner.sh(&format!(
        "set -a; {}; trivy config --quiet --format json {project}",
        text(importer.at("settings.env")).lines().collect::<Vec<_>>().join("; ")
    ));
    assert_eq!(findings(config.exits(0)), ["SAMPLE-9999"], "by the imported checks");

    // A scanner that keeps its cache also keeps the location, and finds the new documents there.
    import(&second).exits(0);
    age_vex(&scanner);
    assert_eq!(findings(gems().exits(0)), ["CVE-2099-0001", "CVE-2099-0002"]);
    let log = text(importer.at("nginx/access.log"));
    let asked = |what: &str| {
        log.lines()
            .filter(|line| line.contains("GET ") && line.contains(what) && line.contains(" 200 "))
            .count()
    };
    assert_eq!(asked("vex-repository.json"), 1, "Trivy requests it once: {log}");
    assert_eq!(asked(ARCHIVE), 2, "{log}");
}

#[test]
#[ignore = "tools"]
fn settings_stay_complete_if_a_bundle_has_less_data_or_a_target_fails() {
    let tools = tools();
    let (laptop, [first, _], public) = two_bundles();
    let flags = format!("{} --skip trivy-java-db,vex-hub", flags_of(&laptop.at("upstream")));
    let less = laptop.export(&laptop.dir("less"), &flags);
    let registry = test_kit::real::Registry::crane(&tools);
    let importer = bare();
    let root = importer.dir("www");
    let import = |bundle: &str, root: &str, more: &str| {
        importer.ferry(&format!(
            "import {bundle} --trust {public} --registry {}/site --web-root {root} \
             --web-url https://web.corp.example --write-env settings.env {more}",
            registry.address
        ))
    };
    import(&first, &root, "").exits(0);
    let whole = text(importer.at("settings.env"));
    assert!(whole.contains("TRIVY_JAVA_DB_REPOSITORY=") && whole.contains("TRIVY_VEX=repo"), "{whole}");
    // The data that this bundle lacks is from an earlier bundle.
    import(&less, &root, "").exits(0).does_not_say("No trivy-java-db");
    assert_eq!(text(importer.at("settings.env")), whole);
    // A web root that is not mounted.
    import(&first, "/nonexistent/www", "")
        .exits(7)
        .warns("no settings were written, because web:/nonexistent");
    assert_eq!(text(importer.at("settings.env")), whole);
    // An extra tag is not a restored dataset.
    let tagged = import(&less, &root, "--extra-tag latest --format json");
    tagged.exits(0);
    assert_eq!(tagged.statuses(), ["trivy-checks pushed", "trivy-db pushed"]);
    import(&less, &root, "--extra-tag latest").exits(0).prints("trivy-db:2 (also :latest)");
    // For an empty web root, it is an error if there is no VEX repository.
    import(&less, &importer.dir("other"), "").exits(2).warns("no bundle here holds a VEX repository");
}
