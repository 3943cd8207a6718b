//! Registries, web servers and directories that serve invalid data. Each is rejected with a message
//! that names it, and nothing is signed: there is no bundle, no incomplete file and no state.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use test_kit::answers::{breaking, chunked, header, ok, status, with};
use test_kit::host::names;
use test_kit::http::Response;
use test_kit::http::Server;
use test_kit::process::Run;
use trivy_ferry::dataset::Kind;
use trivy_ferry::digest::Digest;
use trivy_ferry::oci;

use crate::forge::{self, Archive, Host, days, metadata_json, sample, zeros};

/// Starts a server whose responses depend only on the path.
fn by_path(answer: impl Fn(&str) -> Response + Send + Sync + 'static) -> Server {
    Server::new(move |seen| answer(&seen.path))
}

/// Starts a registry in which every repository and tag is this artifact. `change` may respond to a
/// path instead.
fn artifact(
    kind: Kind,
    packed: Vec<u8>,
    change: impl Fn(&str, &[u8]) -> Option<Response> + Send + Sync + 'static,
) -> Server {
    let manifest = forge::manifest(kind.layer_media_type().unwrap(), &packed);
    let layer = format!("/blobs/{}", Digest::of(&packed));
    by_path(move |path| {
        let bytes: &[u8] = match path {
            path if path.contains("/manifests/") => &manifest,
            path if path.ends_with(&layer) => &packed,
            path if path.contains("/blobs/") => b"{}",
            _ => return status(404),
        };
        change(path, bytes).unwrap_or_else(|| ok(bytes.to_vec()))
    })
}

fn repository(server: &Server) -> String {
    format!("{}/r:2", server.host)
}

/// Returns a body in chunks, without a length.
fn in_pieces(bytes: &[u8]) -> Response {
    chunked(bytes.chunks(4000))
}

/// Returns a response that announces the full length of its body and ends in the middle.
fn half(bytes: &[u8]) -> Response {
    breaking(&bytes[..bytes.len() / 2], bytes.len())
}

const PAGE: &str = "<!DOCTYPE html><html><title>Please log in</title></html>";

/// Returns a host for exports, with a key and an empty output directory.
fn exporter() -> Host {
    let host = Host::new();
    host.write_key();
    host
}

impl Host {
    fn export_args(&self, more: &[&str]) -> Run {
        let defaults = [("--key", "exporter.key"), ("--output", "out"), ("--state-dir", "state")];
        let defaults = defaults.map(|(flag, name)| (flag, self.at(name)));
        let missing = defaults.iter().filter(|(flag, _)| !more.contains(flag));
        let mut args = vec!["export"];
        args.extend(missing.flat_map(|(flag, path)| [*flag, path.as_str()]));
        args.extend(more);
        self.run(&args)
    }

    fn export_db(&self, repository: &str) -> Run {
        self.export_args(&["--only", "trivy-db", "--db-repository", repository])
    }

    /// Exports the dataset of a kind from a repository.
    fn export_kind(&self, kind: Kind, repository: &str) -> Run {
        let (name, flag) = match kind {
            Kind::TrivyDb => ("trivy-db", "--db-repository"),
            Kind::TrivyJavaDb => ("trivy-java-db", "--java-db-repository"),
            _ => ("trivy-checks", "--checks-bundle-repository"),
        };
        self.export_args(&["--only", name, flag, repository])
    }

    fn export_vex(&self, source: &str) -> Run {
        self.export_args(&["--only", "vex-hub", "--vex", &format!("default={source}")])
    }

    /// Returns the names in the output directory.
    fn written(&self) -> Vec<String> {
        names(self.path("out"))
    }

    /// Asserts that nothing was signed, and that there is no state.
    #[track_caller]
    fn nothing_signed(&self) {
        assert_eq!(self.written(), Vec::<String>::new());
        assert!(!self.path("state/export-default.json").exists());
        assert_eq!(fs::read_dir(self.path("tmp")).unwrap().count(), 0);
    }
}

fn db() -> Vec<u8> {
    forge::db_layer(days(-1))
}

fn checks() -> Vec<u8> {
    forge::checks_layer("x")
}

#[test]
fn a_good_source_is_exported_and_imported() {
    let host = exporter();
    let server = artifact(Kind::TrivyDb, db(), |_, _| None);
    let ran = host.export_db(&repository(&server));
    ran.good().harmless().exits(0).prints("validated, signed, synced").prints("Signed by");
    let [name] = host.written().try_into().unwrap();
    assert!(name.starts_with("default-") && name.ends_with("z.tar"), "{name}");
    host.import(&host.path("out").join(name), &[]).good();
    assert_eq!(host.installed("cache", "db"), Some(days(-1).to_string()));
}

/// Returns bad manifests: a description, the text, and a word of the error.
fn bad_manifests() -> Vec<(&'static str, String, &'static str)> {
    let media_type = Kind::TrivyDb.layer_media_type().unwrap();
    let good: Value = serde_json::from_slice(&forge::manifest(media_type, &db())).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        manifest.to_string()
    };
    let index = json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [good["layers"][0]]});
    let layer = good["layers"][0].clone();
    vec![
        ("a page", PAGE.into(), "HTML page"),
        ("a page behind blanks", format!("\n\n  {PAGE}"), "HTML page"),
        ("nothing", String::new(), "JSON"),
        ("text", "not found".into(), "JSON"),
        ("an index", index.to_string(), "image index"),
        ("an index by its members", json!({"schemaVersion": 2, "manifests": []}).to_string(), "image index"),
        ("schema 1", json!({"schemaVersion": 1, "fsLayers": []}).to_string(), "schema version 2"),
        ("two layers", changed(&|m| m["layers"] = json!([layer, layer])), "2 layers"),
        ("no layer", changed(&|m| m["layers"] = json!([])), "0 layers"),
        (
            "another media type",
            changed(&|m| m["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip")),
            "Trivy accepts only",
        ),
        (
            "no title",
            changed(&|m| drop(m["layers"][0].as_object_mut().unwrap().remove("annotations"))),
            "annotation",
        ),
        ("an empty title", changed(&|m| m["layers"][0]["annotations"][oci::TITLE] = json!("")), "annotation"),
        (
            "a title with a path",
            changed(&|m| m["layers"][0]["annotations"][oci::TITLE] = json!("../../db.tar.gz")),
            "annotation",
        ),
        ("sha512", changed(&|m| m["layers"][0]["digest"] = json!("sha512:00")), "digest"),
        ("a layer of 9 GiB", changed(&|m| m["layers"][0]["size"] = json!(9u64 << 30)), "limit: 8589934592"),
        ("a layer of 2^64-1", changed(&|m| m["layers"][0]["size"] = json!(u64::MAX)), "limit: 8589934592"),
        ("a configuration of 9 GiB", changed(&|m| m["config"]["size"] = json!(9u64 << 30)), "bytes"),
        ("deep", "[".repeat(100_000), "JSON"),
        ("5 MiB", format!("{{\"x\":\"{}\"}}", "x".repeat(5 << 20)), "larger than"),
        (
            "escapes",
            changed(&|m| m["layers"][0]["mediaType"] = json!("\u{1b}[2J\u{9b}x")),
            "Trivy accepts only",
        ),
    ]
}

#[test]
fn an_invalid_manifest_is_rejected() {
    let host = exporter();
    for (what, body, word) in bad_manifests() {
        println!("{what}");
        let server = artifact(Kind::TrivyDb, db(), move |path, _| {
            path.contains("/manifests/").then(|| ok(body.clone()))
        });
        let ran = host.export_db(&repository(&server));
        ran.harmless().fails_with(3, &[&server.host, word]);
        host.nothing_signed();
    }
}

/// Returns the response of a server that should send these bytes.
type Answer = fn(&[u8]) -> Response;

/// Bad responses to a request for a manifest: a description, the response, and a word of the error.
const NO_MANIFEST: [(&str, Answer, &str); 13] = [
    (
        "another digest",
        |bytes| header(ok(bytes.to_vec()), "docker-content-digest", &Digest::of(b"x").to_string()),
        "digest",
    ),
    ("a page by its type", |_| header(ok("login"), "content-type", "text/html; charset=utf-8"), "HTML page"),
    ("401", |_| status(401), "docker login"),
    ("403", |_| status(403), "docker login"),
    ("404", |_| status(404), "status 404"),
    ("429", |_| header(status(429), "retry-after", "30"), "status 429"),
    ("500", |_| status(500), "status 500"),
    ("204", |_| status(204), "status 204"),
    ("broken off", half, "broke after"),
    ("a redirect loop", |_| header(status(307), "location", "/v2/r/manifests/2"), "redirects"),
    ("a redirect to a closed port", |_| header(status(307), "location", "http://127.0.0.1:1/x"), "refused"),
    ("a redirect to a file", |_| header(status(307), "location", "file:///etc/passwd"), "status 307"),
    (
        "words with escapes",
        |_| {
            let mut response =
                ok(json!({"errors": [{"code": "DENIED", "message": "\u{1b}[2J\u{202e}"}]}).to_string());
            response = with(response, 403);
            response
        },
        "DENIED",
    ),
];

#[test]
fn a_response_that_is_no_manifest_is_rejected() {
    let host = exporter();
    for (what, answer, word) in NO_MANIFEST {
        println!("{what}");
        let server = artifact(Kind::TrivyDb, db(), move |path, bytes| {
            path.contains("/manifests/").then(|| answer(bytes))
        });
        let ran = host.export_db(&repository(&server));
        ran.harmless().fails_with(3, &["127.0.0.1", word]);
        host.nothing_signed();
    }
}

#[test]
fn a_layer_other_than_the_requested_one_is_rejected() {
    let host = exporter();
    let answers: Vec<(&str, Answer, &str)> = vec![
        (
            "other bytes",
            |bytes| {
                let mut bytes = bytes.to_vec();
                bytes[20] ^= 1;
                ok(bytes)
            },
            "digest",
        ),
        ("a short body", |bytes| ok(bytes[..bytes.len() - 1].to_vec()), "bytes"),
        ("a longer body", |bytes| ok([bytes, b"x"].concat()), "bytes"),
        ("a short stream", |bytes| in_pieces(&bytes[..bytes.len() - 1]), "ended after"),
        ("a longer stream", |bytes| in_pieces(&[bytes, b"x"].concat()), "is longer than"),
        ("much longer", |bytes| in_pieces(&[bytes, &vec![0; 3 << 20]].concat()), "is longer than"),
        ("nothing", |_| ok(""), "bytes"),
        ("broken off", half, "broke after"),
        ("a page", |_| header(ok(PAGE), "content-type", "text/html"), "HTML page"),
        ("a page without a type", |_| ok(PAGE), "source announces 56"),
        (
            "a redirect to a page",
            |_| header(status(307), "location", "/v2/page/blobs/page"),
            "source announces 2",
        ),
        ("401", |_| status(401), "docker login"),
        ("403", |_| status(403), "docker login"),
        ("404", |_| status(404), "status 404"),
        ("429", |_| status(429), "status 429"),
        ("503", |_| status(503), "status 503"),
        (
            "206",
            |bytes| {
                let mut response = ok(bytes.to_vec());
                response = with(response, 206);
                response
            },
            "status 206",
        ),
    ];
    // A database is streamed into the bundle, and checks are first written to a temporary file.
    for (kind, packed) in [(Kind::TrivyDb, db()), (Kind::TrivyChecks, checks())] {
        for (what, answer, word) in &answers {
            println!("{kind:?}: {what}");
            let (answer, size) = (*answer, packed.len());
            let server = artifact(kind, packed.clone(), move |path, bytes| {
                (path.contains("/blobs/") && bytes.len() == size).then(|| answer(bytes))
            });
            let ran = host.export_kind(kind, &repository(&server));
            ran.harmless().fails_with(3, &["127.0.0.1", word]);
            host.nothing_signed();
        }
    }
    // A redirect to storage, as registries send it, is followed.
    let server = artifact(Kind::TrivyDb, db(), |path, _| {
        let to = path.strip_prefix("/v2/r/blobs/")?;
        Some(header(status(307), "location", &format!("/storage/blobs/{to}")))
    });
    host.export_db(&repository(&server)).good();
}

/// Asserts that none of these layers is signed. Each has a description, and a word of the error.
fn never_signs(kind: Kind, layers: Vec<(&str, Vec<u8>, &str)>) {
    let host = exporter();
    for (what, layer, word) in layers {
        println!("{kind:?}: {what}");
        let server = artifact(kind, layer, |_, _| None);
        let ran = host.export_kind(kind, &repository(&server));
        ran.harmless().fails_with(3, &[&server.host, word, "--skip"]);
        host.nothing_signed();
    }
}

/// Returns a database in a file of this name, with its metadata.
fn database(name: &str, bytes: &[u8], metadata: &[u8]) -> Archive {
    Archive::new().file(name, bytes).file("metadata.json", metadata)
}

fn metadata(schema: u32) -> Vec<u8> {
    metadata_json(schema, days(-1))
}

#[test]
fn a_database_with_bad_metadata_is_never_signed() {
    let bolt = forge::bolt();
    let bolt_with = |metadata: &[u8]| database("trivy.db", &bolt, metadata).pack();
    never_signs(
        Kind::TrivyDb,
        vec![
            ("schema 3", bolt_with(&metadata(3)), "schema version 3"),
            ("schema 1", bolt_with(&metadata(1)), "schema version 1"),
            ("no dates", bolt_with(b"{\"Version\":2}"), "metadata.json cannot be read"),
            (
                "impossible dates",
                bolt_with(
                    br#"{"Version":2,"UpdatedAt":"2026-02-30T00:00:00Z","NextUpdate":"2026-03-01T00:00:00Z"}"#,
                ),
                "metadata.json cannot be read",
            ),
            (
                "the zero date",
                bolt_with(
                    br#"{"Version":2,"UpdatedAt":"0001-01-01T00:00:00Z","NextUpdate":"0001-01-01T00:00:00Z"}"#,
                ),
                "implausible dates",
            ),
            ("a page for metadata", bolt_with(PAGE.as_bytes()), "metadata.json cannot be read"),
            ("no metadata", Archive::new().file("trivy.db", &bolt).pack(), "does not contain metadata.json"),
        ],
    );
}

#[test]
fn a_database_of_other_files_is_never_signed() {
    let (bolt, sqlite) = (forge::bolt(), forge::sqlite());
    never_signs(
        Kind::TrivyDb,
        vec![
            (
                "no database",
                Archive::new().file("metadata.json", &metadata(2)).pack(),
                "does not contain trivy.db",
            ),
            ("an empty archive", Archive::new().pack(), "does not contain trivy.db"),
            (
                "a file too many",
                database("trivy.db", &bolt, &metadata(2)).file("x.so", b"x").pack(),
                "contains the unexpected file x.so",
            ),
            (
                "a name twice",
                database("trivy.db", &bolt, &metadata(2)).file("trivy.db", &bolt).pack(),
                "twice",
            ),
            ("a cut database", database("trivy.db", &bolt[..8192], &metadata(2)).pack(), "is truncated"),
            ("an empty database", database("trivy.db", b"", &metadata(2)).pack(), "not a bbolt"),
            ("another database", database("trivy.db", &sqlite, &metadata(2)).pack(), "not a bbolt"),
            ("the java database", forge::java_db_layer(days(-1)), "contains the unexpected file"),
        ],
    );
}

#[test]
fn an_archive_that_is_damaged_or_hostile_is_never_signed() {
    let bolt = forge::bolt();
    never_signs(
        Kind::TrivyDb,
        vec![
            ("plain text", b"this is no archive".to_vec(), "not a complete gzipped tar"),
            ("a page", PAGE.into(), "not a complete gzipped tar"),
            ("a plain tar", forge::plain_tar("trivy.db", &bolt), "not a complete gzipped tar"),
            ("cut gzip", db()[..db().len() / 2].to_vec(), "not a complete gzipped tar"),
            ("a gzip without its end", db()[..db().len() - 4].to_vec(), "not a complete gzipped tar"),
            ("a path outside", Archive::new().file("../../etc/cron.d/x", b"x").pack(), "unsafe name"),
            ("an absolute name", Archive::new().file("/etc/cron.d/x", b"x").pack(), "unsafe name"),
            ("escapes in a name", Archive::new().file("\u{1b}[2Jx", b"x").pack(), "unsafe name"),
            ("a symbolic link", Archive::new().entry(b'2', "trivy.db", 0, b"").pack(), "link"),
            ("a hard link", Archive::new().entry(b'1', "trivy.db", 0, b"").pack(), "link"),
            ("a device", Archive::new().entry(b'4', "trivy.db", 0, b"").pack(), "entry of type"),
        ],
    );
}

#[test]
fn a_java_database_that_trivy_could_not_use_is_never_signed() {
    let (bolt, sqlite) = (forge::bolt(), forge::sqlite());
    // Replaces all occurrences with text of the same length.
    let without = |what: &[u8]| {
        let mut bytes = sqlite.clone();
        for at in 0..bytes.len() - what.len() {
            if bytes[at..].starts_with(what) {
                bytes[at] = b'x';
            }
        }
        bytes
    };
    never_signs(
        Kind::TrivyJavaDb,
        vec![
            ("schema 2", database("trivy-java.db", &sqlite, &metadata(2)).pack(), "schema version 2"),
            (
                "no artifacts",
                database("trivy-java.db", &without(b"artifacts"), &metadata(1)).pack(),
                "no table artifacts",
            ),
            (
                "no indices",
                database("trivy-java.db", &without(b"indices"), &metadata(1)).pack(),
                "no table indices",
            ),
            (
                "a cut database",
                database("trivy-java.db", &sqlite[..sqlite.len() - 512], &metadata(1)).pack(),
                "is damaged",
            ),
            ("another database", database("trivy-java.db", &bolt, &metadata(1)).pack(), "not a SQLite"),
        ],
    );
}

#[test]
fn checks_that_trivy_could_not_use_are_never_signed() {
    let rego = "policies/docker/policies/x.rego";
    let library = "policies/docker/lib/x.rego";
    never_signs(
        Kind::TrivyChecks,
        vec![
            ("no checks", Archive::new().file(library, b"package x").pack(), "no .rego file"),
            ("no libraries", Archive::new().file(rego, b"package x").pack(), "no libraries"),
            ("a path outside", Archive::new().file("policies/../../x.rego", b"x").pack(), "unsafe name"),
            ("a link", Archive::new().file(rego, b"").entry(b'2', library, 0, b"").pack(), "link"),
            ("an unknown entry", Archive::new().entry(b'S', rego, 0, b"").pack(), "entry of type"),
            ("an empty archive", Archive::new().pack(), "no .rego file"),
        ],
    );
}

#[test]
fn decompression_bombs_take_little_memory_and_processor_time() {
    let host = exporter();
    const GIB: u64 = 1 << 30;
    let bomb = |start: Vec<u8>, gibibytes: usize| [start, zeros(gibibytes)].concat();
    let layers: Vec<(Kind, &str, Vec<u8>, &str)> = vec![
        (
            Kind::TrivyDb,
            "32 GiB of zeros",
            bomb(Archive::new().entry(b'0', "trivy.db", 32 * GIB, b"").open_end(), 32),
            "more than",
        ),
        (Kind::TrivyDb, "zeros after the end", bomb(db(), 32), "bytes follow"),
        (
            Kind::TrivyDb,
            "a directory of zeros",
            bomb(Archive::new().entry(b'5', "x/", 32 * GIB, b"").open_end(), 32),
            "not a file",
        ),
        (
            Kind::TrivyDb,
            "32 GiB of metadata",
            bomb(Archive::new().entry(b'0', "metadata.json", 32 * GIB, b"").open_end(), 32),
            "limit: 16777216",
        ),
        (
            Kind::TrivyChecks,
            "32 GiB of checks",
            bomb(Archive::new().entry(b'0', "policies/x.rego", 32 * GIB, b"").open_end(), 32),
            "more than",
        ),
    ];
    let rejected = |kind: Kind, what: &str, layer: &[u8], word: &str| {
        let directory = host.path("layout");
        let manifest = forge::manifest(kind.layer_media_type().unwrap(), layer);
        let source = forge::image_layout(&directory, "2", &manifest, &[b"{}", layer]);
        let ran = host.export_kind(kind, &source);
        println!("{what}: {} KiB, {:?}", ran.peak, ran.busy);
        ran.harmless().fails_with(3, &["layout", word]);
        host.nothing_signed();
        fs::remove_dir_all(directory).unwrap();
        ran
    };
    for (kind, what, layer, word) in layers {
        let ran = rejected(kind, what, &layer, word);
        assert!(ran.busy < forge::inflating(8), "{what}: {ran:#?}");
    }
    // The size is valid for a database, so only the content is wrong.
    let database = bomb(Archive::new().entry(b'0', "trivy.db", GIB, b"").open_end(), 1);
    rejected(Kind::TrivyDb, "1 GiB of zeros", &database, "does not contain metadata.json");
    // Files beside the VEX repository are not its content, but are bounded as well.
    let beside = bomb(Archive::new().entry(b'0', "elsewhere/x", 32 * GIB, b"").open_end(), 32);
    host.file("vex/main.tar.gz", beside);
    host.file("vex/vex-repository.json", sample("vex-hub/vex-repository.json"));
    let ran = host.export_vex(&host.at("vex"));
    ran.fails_with(3, &["vex", "the other skipped files take more"]);
    assert!(ran.busy < forge::inflating(8), "{ran:#?}");
    host.nothing_signed();
}

/// Starts a web server with a VEX repository whose manifest names this directory of the archive.
fn vex_server(archive: Vec<u8>, subdir: &'static str) -> Server {
    vex_with(move |path, host| match path {
        "/hub/.well-known/vex-repository.json" => {
            Some(ok(vex_json(&format!("http://{host}/main.tar.gz{subdir}"))))
        }
        "/main.tar.gz" => Some(ok(archive.clone())),
        _ => None,
    })
}

fn vex_with(answer: impl Fn(&str, &str) -> Option<Response> + Send + Sync + 'static) -> Server {
    // The address is known only after the server listens.
    let address = Arc::new(std::sync::OnceLock::new());
    let known: Arc<std::sync::OnceLock<String>> = address.clone();
    let server = by_path(move |path| {
        let host = known.get().cloned().unwrap_or_default();
        answer(path, &host).unwrap_or_else(|| status(404))
    });
    address.set(server.host.clone()).unwrap();
    server
}

fn vex_json(location: &str) -> String {
    json!({"name": "VEX", "versions": [{"spec_version": "0.1", "locations": [{"url": location}], "update_interval": "24h"}]}).to_string()
}

#[test]
fn a_vex_archive_must_have_its_repository_at_the_location_in_the_manifest() {
    let host = exporter();
    let archive = |top: &str| forge::vex_archive(top, days(-1));
    let hub = |server: &Server| format!("http://{}/hub", server.host);
    let good = vex_server(archive("vexhub-main"), "//vexhub-main");
    host.export_vex(&hub(&good)).good();
    fs::remove_file(host.path("out").join(&host.written()[0])).unwrap();
    fs::remove_file(host.path("state/export-default.json")).unwrap();
    let index = |json: &str| Archive::new().file("x/index.json", json.as_bytes()).pack();
    for (what, packed, subdir, word) in [
        (
            "one level too deep",
            archive("vexhub-main/0.1"),
            "//vexhub-main",
            "but index.json is at vexhub-main/0.1/index.json",
        ),
        ("a pattern for two", two_directories(), "//*", "several in the archive match"),
        ("two repositories, and the location of neither", two_directories(), "//c", "points to c,"),
        ("no index", Archive::new().file("x/readme", b"x").pack(), "//x", "contains no index.json"),
        ("an index that is an array", index("[]"), "//x", "index.json cannot be read"),
        ("a page for an index", index(PAGE), "//x", "index.json cannot be read"),
        (
            "missing documents",
            index(r#"{"packages":[{"location":"pkg/x.json"}]}"#),
            "//x",
            "none of their documents",
        ),
        ("a path outside", Archive::new().file("x/../../y", b"x").pack(), "//x", "unsafe name"),
        ("a link for an index", Archive::new().entry(b'2', "x/index.json", 0, b"").pack(), "//x", "link"),
        ("a page", PAGE.into(), "//x", "not an archive"),
        ("another archive format", b"PK\x03\x04zip".to_vec(), "//x", "a different kind of archive"),
        ("nothing", Vec::new(), "//x", "not an archive"),
        ("a directory outside the archive", archive("x"), "//../x", "plain relative path"),
        ("cut", archive("x")[..80].to_vec(), "//x", "not a complete gzipped tar"),
    ] {
        println!("{what}");
        let server = vex_server(packed, subdir);
        host.export_vex(&hub(&server)).harmless().fails_with(3, &[&server.host, word]);
        host.nothing_signed();
    }
}

/// Returns an archive with two repositories.
fn two_directories() -> Vec<u8> {
    Archive::new()
        .file("a/index.json", br#"{"packages":[]}"#)
        .file("b/index.json", br#"{"packages":[]}"#)
        .pack()
}

#[test]
fn a_location_that_misses_the_only_repository_of_its_archive_is_corrected() {
    let host = exporter();
    for (top, subdir) in
        [("vexhub-main", "//vexhub-main/0.1"), ("vexhub-main", ""), ("vexhub-main", "//vexhub")]
    {
        let server = vex_server(forge::vex_archive(top, days(-1)), subdir);
        let ran = host.export_vex(&format!("http://{}/hub", server.host));
        ran.good().warns(&format!("the one at {top} is used"));
        fs::remove_file(host.path("out").join(&host.written()[0])).unwrap();
    }
}

#[test]
fn an_invalid_vex_repository_manifest_is_rejected() {
    let host = exporter();
    let cases: Vec<(&str, String, &str)> = vec![
        ("a page", PAGE.into(), "HTML page"),
        ("no JSON", "x".into(), "vex-repository.json is not valid"),
        ("nothing", String::new(), "vex-repository.json is not valid"),
        (
            "another version",
            json!({"versions": [{"spec_version": "9.9", "locations": []}]}).to_string(),
            "no data for version 0.1",
        ),
        (
            "no location",
            json!({"versions": [{"spec_version": "0.1", "locations": []}]}).to_string(),
            "no location",
        ),
        ("a local file", vex_json("file:///etc/passwd.tar.gz"), "cannot be fetched"),
        (
            "a repository of git",
            vex_json("git::https://example.invalid/x.git"),
            "git::https addresses cannot be fetched",
        ),
        ("a closed port", vex_json("http://127.0.0.1:1/x.tar.gz"), "127.0.0.1:1"),
        ("escapes", vex_json("\u{1b}[2Jx://y"), "cannot be used"),
        ("too long", format!("{{\"x\":\"{}\"}}", "x".repeat(2 << 20)), "larger than"),
    ];
    for (what, body, word) in cases {
        println!("{what}");
        let server = by_path(move |_| ok(body.clone()));
        let ran = host.export_vex(&format!("http://{}", server.host));
        ran.harmless().fails_with(3, &[&server.host, word]);
        host.nothing_signed();
    }
}

#[test]
fn a_response_that_is_no_vex_repository_is_rejected() {
    let host = exporter();
    type Answer = fn() -> Response;
    let answers: [(Answer, &str); 7] = [
        (|| status(401), "status 401"),
        (|| status(403), "status 403"),
        (|| status(404), "status 404"),
        (|| status(429), "status 429"),
        (|| status(500), "status 500"),
        (|| header(ok("{}"), "content-type", "text/html"), "HTML page"),
        (|| header(status(302), "location", "/again"), "redirects"),
    ];
    for (answer, word) in answers {
        let server = by_path(move |_| answer());
        host.export_vex(&format!("http://{}", server.host)).harmless().fails_with(3, &[&server.host, word]);
        host.nothing_signed();
    }
}

/// Addresses that users copy from a browser are rejected before any request, and the error names
/// the right address.
#[test]
fn the_address_of_a_web_page_is_rejected_before_any_request() {
    let host = exporter();
    for (address, word) in [
        (
            "https://github.com/aquasecurity/vexhub/blob/main/vex-repository.json",
            "Give https://github.com/aquasecurity/vexhub instead.",
        ),
        (
            "https://github.com/aquasecurity/vexhub/tree/main",
            "Give https://github.com/aquasecurity/vexhub instead.",
        ),
        (
            "https://raw.githubusercontent.com/aquasecurity/vexhub/main/vex-repository.json",
            "Give https://github.com/aquasecurity/vexhub instead.",
        ),
        ("https://example.com/.well-known/vex-repository.json", "Give https://example.com instead."),
        ("git@github.com:aquasecurity/vexhub.git", "git@github.com"),
        ("ftp://example.com/vex", "neither an https:// URL nor a directory"),
        ("https://user:secret@example.com/vex", "it holds a login"),
    ] {
        let ran = host.export_vex(address);
        let code = if address.starts_with("git@") { 3 } else { 2 };
        ran.fails_with(code, &[word]);
        assert!(!ran.err.contains("secret"), "{ran:#?}");
        host.nothing_signed();
    }
}

#[test]
fn a_directory_without_a_vex_repository_is_rejected() {
    let host = exporter();
    host.export_vex(&host.at("nowhere")).fails_with(3, &["nowhere"]);
    host.export_vex(&host.at("tmp")).fails_with(3, &["it has no vex-repository.json"]);
}

/// Starts a proxy for all hosts, whose responses depend on the host and the path.
fn behind_a_proxy(answer: impl Fn(&str, &str) -> Option<Response> + Send + Sync + 'static) -> Server {
    Server::new(move |seen| {
        let host = seen.host.split(':').next().unwrap_or_default();
        answer(host, &seen.path).unwrap_or_else(|| status(404))
    })
}

#[test]
fn a_remote_source_cannot_redirect_to_an_address_of_this_host() {
    let host = exporter();
    let own_asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = own_asked.clone();
    let own = by_path(move |_| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ok(forge::vex_archive("x", days(-1)))
    });
    let port = own.host.rsplit(':').next().unwrap();
    let (this_host, link) = ("an address of this host", "a link-local address");
    for (address, what) in [
        ("127.0.0.1", this_host),
        ("127.1", this_host),
        ("2130706433", this_host),
        ("0x7f000001", this_host),
        ("0177.0.0.1", this_host),
        ("0.0.0.0", this_host),
        ("[::1]", this_host),
        ("[::]", this_host),
        ("[::ffff:127.0.0.1]", this_host),
        ("localhost", this_host),
        ("localhost.", this_host),
        ("a.localhost", this_host),
        ("169.254.169.254", link),
        ("[fe80::1]", link),
    ] {
        println!("{address}");
        let place = format!("http://{address}:{port}/main.tar.gz");
        let redirected = "http://cdn.example/main.tar.gz".to_owned();
        for location in [place.clone(), redirected] {
            let to = place.clone();
            let proxy = behind_a_proxy(move |host, path| match (host, path) {
                ("vex.example", "/hub/.well-known/vex-repository.json") => Some(ok(vex_json(&location))),
                ("cdn.example", "/main.tar.gz") => Some(header(status(302), "location", &to)),
                ("r.example", _) => Some(header(status(307), "location", &to)),
                _ => Some(ok(forge::vex_archive("x", days(-1)))),
            });
            let export = |args: &[&str]| {
                let mut command = host.command();
                command.env("HTTP_PROXY", format!("http://{}", proxy.host));
                let (key, out, state) = (host.at("exporter.key"), host.at("out"), host.at("state"));
                command.args(["export", "--key", &key, "--output", &out, "--state-dir", &state]).args(args);
                forge::run(command)
            };
            let vex = ["--only", "vex-hub", "--vex", "default=http://vex.example/hub"];
            export(&vex).harmless().fails_with(3, &["vex.example directs the request", what]);
            let db = ["--only", "trivy-db", "--db-repository", "r.example/x:2", "--plain-http"];
            export(&db).harmless().fails_with(3, &["r.example directs the request", what]);
            host.nothing_signed();
        }
    }
    assert_eq!(own_asked.load(std::sync::atomic::Ordering::Relaxed), 0);
}

/// The secret, which must not be shown or recorded.
const SECRET: &str = "SeSaMe73";

/// Asserts that neither the output nor any file of a run contains the secret.
#[track_caller]
fn keeps_the_secret(host: &Host, ran: &Run) {
    assert!(!ran.out.contains(SECRET) && !ran.err.contains(SECRET), "{ran:#?}");
    for directory in ["out", "state", "tmp", "xdg-state", "xdg-cache"] {
        let files = walkdir::WalkDir::new(host.path(directory)).into_iter().flatten();
        for file in files.filter(|file| file.file_type().is_file()) {
            let bytes = fs::read(file.path()).unwrap();
            let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            assert!(!found, "{}", file.path().display());
        }
    }
}

/// Starts a web server with a VEX repository that requires the secret in the query. `answer` may
/// respond instead.
fn vex_with_token(answer: fn(&str) -> Option<Response>, location: &'static str) -> Server {
    Server::new(move |seen| {
        let path = seen.path.as_str();
        let is_shown = seen.query == format!("token={SECRET}");
        match path {
            "/main.tar.gz" => answer(path).unwrap_or_else(|| ok(forge::vex_archive("x", days(-1)))),
            _ if is_shown => {
                answer(path).unwrap_or_else(|| ok(vex_json(&location.replace("HOST", &seen.host))))
            }
            _ => status(401),
        }
    })
}

#[test]
fn the_token_of_a_vex_url_is_used_and_never_shown_or_recorded() {
    type Answer = fn(&str) -> Option<Response>;
    let answers: [(i32, Answer); 6] = [
        (0, |_| None),
        (3, |_| Some(status(404))),
        (3, |_| Some(status(500))),
        (3, |_| Some(ok(PAGE))),
        (3, |_| Some(header(status(302), "location", "ftp://h/x?token=SeSaMe73"))),
        (3, |path| path.ends_with(".tar.gz").then(|| ok("x"))),
    ];
    for (code, answer) in answers {
        // An exported manifest is published unchanged, so only manifests of failing exports may
        // contain the secret.
        let secret = "http://HOST/main.tar.gz//x?token=SeSaMe73";
        let server = vex_with_token(answer, if code == 0 { "http://HOST/main.tar.gz//x" } else { secret });
        for format in ["text", "json"] {
            let host = exporter();
            let vex = format!("corp=http://{}/hub?token={SECRET}", server.host);
            let args = ["--only", "vex-corp", "--vex", &vex, "--format", format, "--log-format", format];
            for more in [&["--dry-run"][..], &[]] {
                let ran = host.export_args(&[&args, more].concat());
                assert!(ran.code == code || code == 0 || more == ["--dry-run"], "{ran:#?}");
                assert!(ran.code == 0 || ran.err.contains(&server.host), "{ran:#?}");
                keeps_the_secret(&host, &ran);
            }
            if code == 0 {
                let bundle = host.path("out").join(&host.written()[0]);
                for command_name in ["inspect", "verify", "import"] {
                    let ran = host.run(&[
                        command_name,
                        bundle.to_str().unwrap(),
                        "--trust",
                        &host.at("keys/exporter.pub"),
                    ]);
                    assert!(
                        ran.out.contains(&format!("http://{}/hub", server.host)) || command_name != "inspect",
                        "{ran:#?}"
                    );
                    keeps_the_secret(&host, &ran);
                }
            }
        }
    }
}

#[test]
fn a_login_in_an_address_is_never_shown() {
    let host = exporter();
    let bundle = host.at("nothing");
    let (at, url) = (format!("me:{SECRET}@r.example"), format!("https://me:{SECRET}@r.example/x"));
    let (at, url) = (at.as_str(), url.as_str());
    let own = |prefix: &str, rest: &str| format!("{prefix}{rest}");
    for (command_name, flag, value) in [
        ("export", "--db-repository", own(at, "/p/trivy-db:2")),
        ("export", "--db-repository", own(url, ":2")),
        ("export", "--vex", own("corp=", url)),
        ("export", "--vex", own(url, "?token=SeSaMe73")),
        ("export", "--vex", own("corp=https://me:", "SeSaMe73/x@r.example/x")),
        ("export", "--vex", own("corp=ftp://r.example/x?token=", SECRET)),
        ("export", "--also", own(at, "/p/x:1")),
        ("export", "--also", own("x/y:1=", url)),
        ("export", "--also", at.to_owned()),
        ("export", "--registry-mirror", own("ghcr.io=", at)),
        ("import", "--registry", own(at, "/p")),
        ("import", "--registry", own(url, "")),
        ("import", "--registry", own("trivy-db=", &own(at, "/p/x:2"))),
        ("import", "--web-url", url.to_owned()),
        ("import", "--web-url", own("https://r.example/?token=", SECRET)),
        ("mirror", "--registry", own(at, "/p")),
        ("serve", "--url", url.to_owned()),
    ] {
        for format in ["text", "json"] {
            let (key, out, state) = (host.at("exporter.key"), host.at("out"), host.at("state"));
            let mut args = vec![command_name, flag, &value, "--format", format, "--log-format", format];
            match command_name {
                "export" => args.extend(["--key", &key, "--output", &out, "--state-dir", &state]),
                "mirror" => {}
                "serve" => args.extend([bundle.as_str(), "--listen", "127.0.0.1:0"]),
                _ => args.push(&bundle),
            }
            let ran = host.run(&args);
            assert_ne!(ran.code, 0, "{ran:#?}");
            keeps_the_secret(&host, &ran);
            // The login is also not shown if the address is in the environment.
            let mut command = host.command();
            command.env(format!("TRIVY_FERRY_{}", flag[2..].to_uppercase().replace('-', "_")), &value);
            command.args([command_name, "--help"]);
            keeps_the_secret(&host, &forge::run(command));
        }
    }
}

#[test]
fn an_invalid_address_is_a_usage_error() {
    let host = exporter();
    for (address, word) in [
        ("https://ghcr.io/aquasecurity/trivy-db", "no scheme"),
        ("trivy-db", "no repository"),
        ("ghcr.io/Upper/Case:2", "ghcr.io/Upper/Case:2"),
        ("oci-layout:", "no directory"),
    ] {
        host.export_db(address).harmless().fails_with(2, &[word]);
    }
    host.export_db("oci-layout:nowhere:2").fails_with(3, &["nowhere"]);
    // No server listens on this port.
    host.export_db("127.0.0.1:1/x/trivy-db:2").fails_with(3, &["127.0.0.1:1", "connection was refused"]);
    host.file("page.pem", PAGE);
    let ca = host.at("page.pem");
    host.export_args(&["--only", "trivy-db", "--db-repository", "127.0.0.1:1/x", "--cacert", &ca])
        .fails_with(2, &["page.pem", "--cacert"]);
    host.nothing_signed();
}

#[test]
fn the_next_source_is_tried_if_one_fails_and_the_output_says_so() {
    let host = exporter();
    let good = artifact(Kind::TrivyChecks, checks(), |_, _| None);
    let bad_content = artifact(Kind::TrivyChecks, Archive::new().pack(), |_, _| None);
    let page = by_path(|_| ok(PAGE));
    let limited = by_path(|_| status(429));
    let none = "127.0.0.1:1/x:2".to_owned();
    for first in [repository(&bad_content), repository(&page), repository(&limited), none.clone()] {
        let both = format!("{first},{}", repository(&good));
        let ran = host.export_args(&["--only", "trivy-checks", "--checks-bundle-repository", &both]);
        ran.good();
        let host_name = first.split('/').next().unwrap();
        let noted = ran.err.lines().any(|line| line.contains(host_name) && line.contains("skipped"));
        assert!(noted, "{ran:#?}");
        assert!(ran.out.contains(&good.host), "the output does not name the source: {ran:#?}");
    }
    // If all sources fail, the output ends with the error of the last one, and has the error of the
    // first one before it.
    let before = host.written().len();
    let both = format!("{},{}", repository(&page), repository(&limited));
    let ran = host.export_args(&["--only", "trivy-checks", "--checks-bundle-repository", &both]);
    ran.fails_with(3, &[&limited.host, "status 429"]);
    assert!(ran.err.contains(&page.host), "{ran:#?}");
    assert_eq!(host.written().len(), before);
    // For a database, the next source is tried if the manifest fails.
    let database = artifact(Kind::TrivyDb, db(), |_, _| None);
    let ran = host.export_db(&format!("{none},{}", repository(&database)));
    ran.good();
    assert!(ran.err.contains("skipped"), "{ran:#?}");
}

#[test]
fn nothing_older_than_the_last_export_is_signed() {
    let host = exporter();
    let serve = |layer: Vec<u8>| artifact(Kind::TrivyDb, layer, |_, _| None);
    let newer = serve(forge::db_layer(days(-2)));
    host.export_db(&repository(&newer)).good();
    let state = fs::read(host.path("state/export-default.json")).unwrap();
    let older = serve(forge::db_layer(days(-5)));
    let ran = host.export_db(&repository(&older));
    ran.fails_with(5, &[&older.host, "trivy-db", "this stream has carried", "--skip trivy-db"]);
    assert_eq!(host.written().len(), 1, "{:?}", host.written());
    assert_eq!(fs::read(host.path("state/export-default.json")).unwrap(), state);
    // Another stream has its own state. The same or newer data may be signed again.
    host.export_args(&["--only", "trivy-db", "--db-repository", &repository(&older), "--stream", "lab"])
        .good();
    host.export_db(&repository(&newer)).good();
    host.export_db(&repository(&serve(forge::db_layer(days(-1))))).good();
    // VEX repositories have dates as well.
    let vex = |date| vex_server(forge::vex_archive("x", date), "//x");
    let (new, old) = (vex(days(-1)), vex(days(-3)));
    host.export_vex(&format!("http://{}/hub", new.host)).good();
    host.export_vex(&format!("http://{}/hub", old.host)).fails_with(5, &["vex-hub", &old.host]);
    // A damaged state is not treated as a missing one.
    fs::write(host.path("state/export-default.json"), &state[..state.len() / 2]).unwrap();
    host.export_db(&repository(&older)).fails_with(2, &["export-default.json", "cannot be read"]);
}

#[test]
fn no_file_is_overwritten_and_no_directory_is_created() {
    let host = exporter();
    let server = artifact(Kind::TrivyDb, db(), |_, _| None);
    let export = |output: &str| {
        host.export_args(&["--only", "trivy-db", "--db-repository", &repository(&server), "--output", output])
    };
    host.file("out/mine.tar", "mine");
    let mine = host.at("out/mine.tar");
    export(&mine).fails_with(2, &["mine.tar", "already exists", "never overwritten"]);
    assert_eq!(fs::read(&mine).unwrap(), b"mine");
    std::os::unix::fs::symlink("/nonexistent", host.path("out/link.tar")).unwrap();
    export(&host.at("out/link.tar")).fails_with(2, &["link.tar", "already exists"]);
    for missing in ["nowhere/x.tar", "nowhere/deep/", "nowhere/"] {
        let ran = export(&host.at(missing));
        ran.fails_with(2, &["the directory", "nowhere", "does not exist", "mounted"]);
        assert!(!host.path("nowhere").exists());
    }
    export("/dev/full").fails_with(2, &["/dev/full"]);
    assert_eq!(host.written().len(), 2, "{:?}", host.written());
    // With a file name in `--output`, a bundle can have any name, and the rules for names of the
    // stream do not apply.
    export(&host.at("out/new.tar")).good();
    assert_eq!(host.written().len(), 3);
    // Leftover files of a killed export are removed, but files of others are not.
    host.file("out/default-20260101t000000z.tar.partial", "left");
    host.file("out/other-20260101t000000z.tar.partial", "another stream's");
    export(&host.at("out")).good();
    let mut left = host.written();
    left.retain(|name| name.ends_with(".partial"));
    assert_eq!(left, ["other-20260101t000000z.tar.partial"]);
}

#[test]
fn exports_of_one_second_do_not_collide() {
    let host = exporter();
    let server = artifact(Kind::TrivyDb, db(), |_, _| None);
    let repository = repository(&server);
    // Parallel runs get different times and numbers from the state.
    let all: Vec<Run> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| host.export_db(&repository))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for ran in &all {
        ran.good();
    }
    assert_eq!(host.written().len(), 4, "{:?}", host.written());
    for name in host.written() {
        host.verify(&host.path("out").join(name), &[]).good();
    }
    let inspected = host.run(&["inspect", &host.at("out")]);
    let numbers: Vec<&str> = inspected.out.lines().filter(|line| line.starts_with("  sequence")).collect();
    let mut distinct = numbers.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "{numbers:?}");
    // Three hosts share a directory and no state. Some exports may fail with an error. All bundles
    // in the directory are complete.
    let other = exporter();
    let out = other.at("out");
    let states = ["a", "b", "c"].map(|name| other.at(name));
    let all: Vec<Run> = std::thread::scope(|scope| {
        let run = |state: &str| {
            other.export_args(&[
                "--only",
                "trivy-db",
                "--db-repository",
                &repository,
                "--output",
                &out,
                "--state-dir",
                state,
            ])
        };
        let runs: Vec<_> = states.iter().map(|state| scope.spawn(move || run(state))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let good = all.iter().filter(|ran| ran.code == 0).count();
    assert!(good >= 1, "{all:#?}");
    for ran in all.iter().filter(|ran| ran.code != 0) {
        ran.fails_with(7, &["default-"]);
    }
    assert_eq!(other.written().len(), good, "{all:#?}");
    for name in other.written() {
        other.verify(&other.path("out").join(name), &[]).good();
    }
}

#[test]
fn an_unusable_key_is_an_error_before_any_download() {
    let host = exporter();
    // trivy-ferry sends no request for data that it cannot sign.
    let server = by_path(|path| panic!("unexpected request for {path}"));
    let export = |key: &str, more: &[&str]| {
        let key = host.at(key);
        host.export_args(
            &[&["--only", "trivy-db", "--db-repository", &repository(&server), "--key", &key], more].concat(),
        )
    };
    host.file("page.key", PAGE);
    host.file("empty.key", "");
    host.file("binary.key", [0xff, 0xfe]);
    host.file("cut.key", &host.key.to_pem(None).unwrap().as_bytes()[..60]);
    host.file("public.key", host.key.public().to_pem());
    for (name, word) in [
        ("missing.key", "keygen"),
        ("page.key", "PEM"),
        ("empty.key", "PEM"),
        ("binary.key", "binary.key"),
        ("cut.key", "PEM"),
        ("public.key", "public key"),
        ("tmp", "tmp"),
    ] {
        println!("{name}");
        export(name, &[]).harmless().fails_with(2, &[name, word]);
    }
    host.file("right.txt", "correct horse\nbattery staple\n");
    host.file("wrong.txt", "correct horse battery\n");
    host.file("blank.txt", "\n");
    let (right, wrong, blank) = (host.at("right.txt"), host.at("wrong.txt"), host.at("blank.txt"));
    host.run(&["keygen", "--name", &host.at("secret"), "--passphrase-file", &right]).good();
    export("secret.key", &["--passphrase-file", &wrong])
        .fails_with(2, &["secret.key", "passphrase does not decrypt it", "--passphrase-file"]);
    export("secret.key", &["--passphrase-file", &blank]).fails_with(2, &["blank.txt"]);
    export("secret.key", &["--passphrase-file", &host.at("none.txt")]).fails_with(2, &["none.txt"]);
    host.nothing_signed();
    // Without a terminal, there is no prompt for the passphrase. The user who runs the tests may
    // have a terminal.
    if let Some(setsid) = ["/usr/bin/setsid", "/bin/setsid"].into_iter().find(|path| Path::new(path).exists())
    {
        let plain = host.command();
        let mut command = Command::new(setsid);
        command.arg("--wait").arg(plain.get_program()).stdin(std::process::Stdio::null()).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let (key, out, state) = (host.at("secret.key"), host.at("out"), host.at("state"));
        command.args(["export", "--key", &key, "--output", &out, "--state-dir", &state]);
        command.args(["--only", "trivy-db", "--db-repository", &repository(&server)]);
        forge::run(command).fails_with(2, &["secret.key", "no passphrase was given", "--passphrase-file"]);
    }
    host.nothing_signed();
    // The right passphrase decrypts the key.
    let server = artifact(Kind::TrivyDb, db(), |_, _| None);
    let key = host.at("secret.key");
    let only = ["--only", "trivy-db", "--db-repository", &repository(&server), "--key", &key];
    host.export_args(&[&only[..], &["--passphrase-file", &right]].concat()).good();
}

#[test]
fn a_dry_run_writes_nothing_anywhere() {
    let host = exporter();
    let server = artifact(Kind::TrivyDb, db(), |_, _| None);
    let (out, state) = (host.at("out"), host.at("state"));
    let only = ["export", "--dry-run", "--only", "trivy-db", "--db-repository", &repository(&server)];
    host.run(&only).good().prints("Nothing was written");
    host.run(&[&only[..], &["--output", &out, "--state-dir", &state]].concat()).good();
    host.nothing_signed();
    assert!(!host.path("state").exists() && !host.path("xdg-state").exists());
}

/// Uses a separate small file system, which needs root and `unshare`.
#[test]
#[ignore = "tools"]
fn a_medium_without_free_space_is_reported_before_and_during_writing() {
    let host = exporter();
    // The data hardly compresses, so the medium is full long before the end.
    let noise: Vec<u8> =
        (0u64..14_000).flat_map(|n| Digest::of(&n.to_le_bytes()).hex().into_bytes()).collect();
    let library = Archive::new().file("policies/docker/lib/x.rego", b"package x");
    let layer = library.file("policies/docker/policies/x.rego", &noise).pack();
    // The layer fits into memory, so only the medium has too little space.
    assert!((600 << 10..1 << 20).contains(&layer.len()), "{}", layer.len());
    let server = artifact(Kind::TrivyChecks, layer, |_, _| None);
    let program = host.command().get_program().to_str().unwrap().to_owned();
    let export = |size: &str, before: &str| {
        let script = format!(
            "mount -t tmpfs -o size={size} tmpfs out && {before} \"$@\"; code=$?; ls -A out >&2; exit $code"
        );
        let mut command = host.in_own_mounts(&script);
        command.args([&program, "export", "--key", "exporter.key"]);
        command.args(["--output", "out", "--state-dir", "state", "--only", "trivy-checks"]);
        command.args(["--checks-bundle-repository", &repository(&server)]);
        forge::run(command)
    };
    export("256k", "").fails_with(7, &["out: the bundle needs", "only 256.0 KiB are free", "--skip"]);
    export("64m,nr_inodes=1", "").fails_with(7, &["out/default-", "Free space"]);
    // The file cannot grow although there is free space, as on FAT32.
    export("64m", "trap '' XFSZ; ulimit -f 512;").fails_with(7, &["out/default-", "FAT32"]);
    host.nothing_signed();
    export("64m", "").good();
}
