//! Tests of sources on disk, and of VEX repositories from directories and web servers.

use std::fs;
use std::io::Read;
use std::path::Path;

use test_kit::answers::{chunked, header, ok, status};
use test_kit::http::{Response, Seen, Server};

use crate::dataset::vex::ArchiveFormat;
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::{self, Descriptor};
use crate::remote::{RemoteError, RemoteOptions, Service};
use crate::source::tests::testing::*;
use crate::source::*;

const CONTENT: &[u8] = b"the layer's content";
/// A gzip header, enough for an archive's first bytes.
const TAR_GZ: &[u8] = b"\x1f\x8b\x08\x00 not really";
const ZIP: &[u8] = b"PK\x03\x04 not really";

/// Writes an image layout with one manifest under `names`.
fn layout(directory: &Path, names: &[Option<&str>]) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let manifest = manifest(CONTENT);
    for bytes in [CONTENT, &manifest] {
        fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
    }
    let entries: Vec<Descriptor> = names
        .iter()
        .map(|name| {
            let name = name.map(|name| (oci::REF_NAME.to_owned(), name.to_owned()));
            let media_type = oci::MANIFEST.to_owned();
            Descriptor { media_type, annotations: name.into_iter().collect(), ..descriptor(&manifest) }
        })
        .collect();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": entries});
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
}

fn layout_source(directory: &Path) -> ArtifactSource {
    ArtifactSource::parse(&format!("oci-layout:{}:2", directory.display()), "1").unwrap()
}

#[test]
fn a_layout_has_the_same_content_as_a_registry() {
    let directory = tempfile::tempdir().unwrap();
    let network = network();
    for names in [&[Some("1"), Some("2")][..], &[None]] {
        layout(directory.path(), names);
        let artifact = network.resolve(&layout_source(directory.path())).unwrap();
        assert_eq!(artifact.manifest_bytes, manifest(CONTENT));
        let mut bytes = Vec::new();
        network.blob(&artifact.source, layer(&artifact)).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, CONTENT);
    }
    layout(directory.path(), &[Some("1")]);
    let error = network.resolve(&layout_source(directory.path())).unwrap_err();
    assert!(error.to_string().contains("it has 1"), "{error}");
    layout(directory.path(), &[None, None]);
    assert!(network.resolve(&layout_source(directory.path())).is_err());
    let error = network.resolve(&layout_source(&directory.path().join("none"))).unwrap_err();
    assert!(matches!(error, SourceError::Local { .. }) && !error.is_usage(), "{error}");
}

#[test]
fn a_layout_is_verified_as_strictly_as_a_registry() {
    let directory = tempfile::tempdir().unwrap();
    layout(directory.path(), &[Some("2")]);
    let source = layout_source(directory.path());
    let network = network();
    let blob = directory.path().join("blobs/sha256").join(Digest::of(CONTENT).hex());
    let open = || network.blob(&source, &descriptor(CONTENT));
    let read = || {
        open().and_then(|mut blob| match blob.read_to_end(&mut Vec::new()) {
            Ok(_) => Ok(()),
            Err(error) => Err(SourceError::from_io(error).unwrap()),
        })
    };
    read().unwrap();
    fs::write(&blob, b"another layer's one").unwrap();
    assert!(matches!(read(), Err(SourceError::Digest { .. })));
    // The reader of unhashed bytes compares the digest itself.
    assert_eq!(std::io::read_to_string(open().unwrap().unhashed()).unwrap(), "another layer's one");
    fs::write(&blob, b"short").unwrap();
    assert!(matches!(read(), Err(SourceError::Length { announced: 5, .. })));
    fs::remove_file(&blob).unwrap();
    assert!(matches!(read(), Err(SourceError::Local { .. })));
    // The right bytes, but behind a link.
    fs::write(directory.path().join("elsewhere"), CONTENT).unwrap();
    std::os::unix::fs::symlink(directory.path().join("elsewhere"), &blob).unwrap();
    assert!(read().unwrap_err().to_string().contains("links are not followed"));
    fs::remove_file(&blob).unwrap();
    fs::create_dir(&blob).unwrap();
    assert!(read().unwrap_err().to_string().contains("regular file"));
    let inner = directory.path().join("blobs");
    fs::rename(&inner, directory.path().join("moved")).unwrap();
    std::os::unix::fs::symlink("moved", &inner).unwrap();
    assert!(network.resolve(&source).unwrap_err().to_string().contains("links are not followed"));
}

fn vex_manifest(locations: &[&str]) -> Vec<u8> {
    let locations: Vec<_> = locations.iter().map(|url| serde_json::json!({"url": url})).collect();
    let versions = serde_json::json!([
        {"spec_version": "9.9", "locations": [{"url": "https://wrong.invalid/x.zip"}]},
        {"spec_version": "0.1", "locations": locations, "update_interval": "24h"},
    ]);
    serde_json::json!({"name": "n", "versions": versions}).to_string().into_bytes()
}

/// A repository whose locations are the given paths on the same server, or complete URLs.
fn vex_server(
    locations: &'static [&'static str],
    answer: impl Fn(&Seen) -> Response + Send + Sync + 'static,
) -> Server {
    Server::new(move |seen| match seen.target.as_str() {
        "/top/.well-known/vex-repository.json" => {
            let whole = |path: &&str| match path.starts_with('/') {
                true => format!("http://{}{path}", seen.host),
                false => (*path).to_owned(),
            };
            let urls: Vec<String> = locations.iter().map(whole).collect();
            ok(vex_manifest(&urls.iter().map(String::as_str).collect::<Vec<_>>()))
        }
        _ => answer(seen),
    })
}

fn fetch(server: &Server) -> Result<VexRepository, SourceError> {
    network().vex(&VexSource::parse(&server.url("/top/")).unwrap())
}

fn vex_error(answer: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> SourceError {
    fetch(&Server::new(answer)).err().unwrap()
}

#[test]
fn a_vex_repository_arrives_with_its_manifest() {
    let server = vex_server(&["/a/main.tar.gz//top/dir"], |seen| match seen.target.as_str() {
        "/a/main.tar.gz" => header(ok(TAR_GZ), "last-modified", "Sat, 21 Nov 2026 06:12:30 GMT"),
        _ => status(404),
    });
    let mut repository = fetch(&server).unwrap();
    assert_eq!(repository.source, server.url("/top"));
    assert_eq!(
        repository.manifest_json,
        vex_manifest(&[&server.url("/a/main.tar.gz//top/dir")]),
        "byte for byte"
    );
    assert_eq!((repository.archive_name.as_str(), repository.subdir.as_str()), ("main.tar.gz", "top/dir"));
    assert_eq!(repository.format, ArchiveFormat::TarGzip);
    assert_eq!(repository.archive_digest, Digest::of(TAR_GZ));
    assert_eq!(repository.archive_size, TAR_GZ.len() as u64);
    let mut bytes = Vec::new();
    repository.archive.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, TAR_GZ);
}

#[test]
fn the_next_location_is_tried_after_a_failure() {
    let server = vex_server(&["/gone.tar.gz", "s3://b/x.zip", "/b.zip//x"], |seen| {
        if seen.target == "/b.zip" { ok(ZIP) } else { status(404) }
    });
    let repository = fetch(&server).unwrap();
    assert_eq!((repository.archive_name.as_str(), repository.format), ("b.zip", ArchiveFormat::Zip));
    let server = vex_server(&["/gone.tar.gz", "/page.zip"], |seen| {
        if seen.target == "/page.zip" { ok("<html>") } else { status(404) }
    });
    let error = fetch(&server).err().unwrap().to_string();
    assert!(error.contains("/gone.tar.gz") && error.contains("/page.zip is not an archive"), "{error}");
}

#[test]
fn archives_must_match_their_extension_and_limit() {
    let error = fetch(&vex_server(&["/a.zip"], |_| ok(TAR_GZ))).err().unwrap().to_string();
    assert!(error.contains("a different kind"), "{error}");
    let error = fetch(&vex_server(&["/main"], |_| ok(TAR_GZ))).err().unwrap().to_string();
    assert!(error.contains("does not have the extension"), "{error}");
    let server = vex_server(&["/a.tar.gz"], |_| ok(TAR_GZ));
    let network = network();
    let url = reqwest::Url::parse(&server.url("/top")).unwrap();
    let error = vex::fetch(&network.remote, &url, false, TAR_GZ.len() as u64 - 1).err().unwrap();
    assert!(error.to_string().contains("larger"), "{error}");
    let server = vex_server(&["/a.tar.gz"], |_| chunked(vec![TAR_GZ; 3]));
    let url = reqwest::Url::parse(&server.url("/top")).unwrap();
    let error = vex::fetch(&network.remote, &url, false, TAR_GZ.len() as u64).err().unwrap();
    assert!(error.to_string().contains("larger"), "{error}");
}

#[test]
fn answers_that_are_not_vex_manifests_have_distinct_errors() {
    let error = vex_error(|_| status(404));
    assert!(
        matches!(error, SourceError::Remote(RemoteError::NotFound { service: Service::Web, .. })),
        "{error}"
    );
    let error = vex_error(|_| ok("<!doctype html>"));
    assert!(
        matches!(error, SourceError::Remote(RemoteError::Html { .. }))
            && error.hint().contains("repository.yaml"),
        "{error}"
    );
    let error = vex_error(|_| ok("{}"));
    assert!(matches!(error, SourceError::Vex { .. }), "{error}");
    let error = vex_error(|_| ok(r#"{"versions":[{"spec_version":"1.0"}]}"#));
    assert!(error.to_string().contains("0.1"), "{error}");
    let error = vex_error(|_| ok(vex_manifest(&[])));
    assert!(error.to_string().contains("no location"), "{error}");
    let error = vex_error(|_| ok(vec![b' '; (1 << 20) + 1]));
    assert!(matches!(error, SourceError::Remote(RemoteError::TooLarge { .. })), "{error}");
}

#[test]
fn plain_http_is_used_only_if_the_user_allows_it() {
    // The repository uses HTTPS, and its location uses plain HTTP.
    let (server, certificate) = tls_server(vex_manifest(&["http://plain.invalid/a.zip"]));
    let directory = crate::util::fs::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    crate::util::fs::put(&path, &certificate);
    let source = VexSource::parse(&format!("https://{}", server.host)).unwrap();
    let options = RemoteOptions { ca_cert: Some(path), ..Default::default() };
    let error = network_with(options.clone(), None).vex(&source).err().unwrap();
    assert!(error.to_string().contains("uses plain HTTP") && error.hint().contains("--insecure"), "{error}");
    let error = network_with(RemoteOptions { insecure: true, ..options }, None).vex(&source).err().unwrap();
    assert!(error.to_string().contains("resolved"), "{error}");
}

fn read_directory(directory: &Path) -> Result<VexRepository, SourceError> {
    network().vex(&VexSource::Directory(directory.into()))
}

#[test]
fn the_archive_in_a_directory_is_used_unchanged() {
    let directory = crate::util::fs::tempdir().unwrap();
    let path = directory.path();
    let manifest = vex_manifest(&["https://h/a/main.tar.gz//hub-main", "https://h/main.zip//other"]);
    fs::write(path.join("vex-repository.json"), &manifest).unwrap();
    fs::write(path.join("main.zip"), ZIP).unwrap();
    fs::write(path.join("._main.zip"), "a file manager's").unwrap();
    let repository = read_directory(path).unwrap();
    assert_eq!(repository.manifest_json, manifest);
    assert_eq!((repository.archive_name.as_str(), repository.subdir.as_str()), ("main.zip", "other"));
    assert_eq!(repository.archive_digest, Digest::of(ZIP));
    fs::rename(path.join("main.zip"), path.join("renamed.zip")).unwrap();
    assert_eq!(read_directory(path).unwrap().subdir, "hub-main", "that of the first location");
    fs::write(path.join("second.tgz"), TAR_GZ).unwrap();
    let error = read_directory(path).err().unwrap().to_string();
    assert!(error.contains("renamed.zip, second.tgz"), "{error}");
}

fn unpacked(path: &Path, top: &str) {
    let top = path.join(top);
    let deep = top.join("pkg/golang").join("a-rather-long-directory-name/".repeat(6));
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir_all(top.join(".git")).unwrap();
    fs::write(top.join(".git/config"), "not this").unwrap();
    fs::write(top.join("index.json"), "{}").unwrap();
    fs::write(deep.join("openvex.json"), "{\"x\":1}").unwrap();
    let manifest = vex_manifest(&["https://h/a/main.zip//hub-main"]);
    fs::write(path.join("vex-repository.json"), manifest).unwrap();
}

#[test]
fn a_directory_with_unpacked_files_is_packed_the_same_every_time() {
    let mut digests = Vec::new();
    for top in ["", "0.1"] {
        let directory = tempfile::tempdir().unwrap();
        unpacked(directory.path(), top);
        let repository = read_directory(directory.path()).unwrap();
        assert_eq!(
            (repository.archive_name.as_str(), repository.subdir.as_str(), repository.format),
            ("main.tar.gz", "hub-main", ArchiveFormat::TarGzip)
        );
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(repository.archive));
        let mut found = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let header = entry.header();
            assert_eq!(
                (header.mode().unwrap(), header.uid().unwrap(), header.mtime().unwrap()),
                (0o644, 0, 0)
            );
            found.push((entry.path().unwrap().to_str().unwrap().to_owned(), text));
        }
        let deep = format!("hub-main/pkg/golang/{}openvex.json", "a-rather-long-directory-name/".repeat(6));
        assert_eq!(found, [("hub-main/index.json".into(), "{}".into()), (deep, "{\"x\":1}".into())]);
        digests.push(repository.archive_digest);
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn the_error_for_a_directory_without_a_repository_names_the_reason() {
    let directory = crate::util::fs::tempdir().unwrap();
    let path = directory.path();
    let error = || read_directory(path).err().unwrap().to_string();
    assert!(error().contains("has no vex-repository.json"), "{}", error());
    unpacked(path, "");
    read_directory(path).unwrap();
    fs::write(path.join("main.zip"), ZIP).unwrap();
    assert!(error().contains("both"), "{}", error());
    fs::remove_file(path.join("main.zip")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", path.join("pkg/passwd")).unwrap();
    assert!(error().contains("neither a file nor a directory"), "{}", error());
    fs::remove_file(path.join("pkg/passwd")).unwrap();
    fs::remove_file(path.join("index.json")).unwrap();
    assert!(error().contains("neither an archive nor"), "{}", error());
    std::os::unix::fs::symlink("/etc/passwd", path.join("main.zip")).unwrap();
    assert!(error().contains("links are not followed"), "{}", error());
    let error = read_directory(&path.join("none")).err().unwrap();
    assert!(matches!(error, SourceError::Local { .. }), "{error}");
}
