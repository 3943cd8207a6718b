//! Tests of the pull half of the distribution specification, rule by rule, and of bad requests.

use std::sync::Arc;

use hyper::Request;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

const LAYER: &[u8] = b"0123456789";
const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;
const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn site() -> Site {
    let mut site = Site::default();
    for (repository, tags) in [("trivy-db", &["2"][..]), ("security/checks", &["1", "2", "latest"])] {
        for tag in tags {
            site.manifest(repository, Some(tag), TYPE, MANIFEST.to_vec());
        }
    }
    site.blob("trivy-db", Digest::of(LAYER), Arc::new(Bytes::from_static(LAYER)));
    site.file("vex-hub/x.tar.gz", File::Fixed(Arc::new(Bytes::from_static(b"vex")), "application/gzip"));
    let naming = |base: &str| Some(format!("{{\"at\":\"{base}\"}}").into_bytes());
    site.file("vex-hub/.well-known/vex-repository.json", File::Naming(Box::new(naming)));
    site
}

fn ask(method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    answer(&site(), &parts, "https://ferry.example:5000")
}

fn get(path: &str) -> Answer {
    ask("GET", path, &[])
}

fn blob() -> String {
    format!("/v2/trivy-db/blobs/{}", Digest::of(LAYER))
}

fn bytes(answer: &Answer) -> Vec<u8> {
    match &answer.body {
        Body::Bytes(bytes) | Body::Made(bytes) => bytes.to_vec(),
        Body::Blob(blob, begin, end) => {
            let from = blob.read(*begin).unwrap();
            from[..usize::try_from(end - begin).unwrap()].to_vec()
        }
    }
}

fn document(answer: &Answer) -> Value {
    serde_json::from_slice(&bytes(answer)).unwrap()
}

#[track_caller]
fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
}

/// Returns the status and the code of an error.
fn error(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), document(answer)["errors"][0]["code"].as_str().unwrap().to_owned())
}

#[test]
fn a_client_learns_that_this_is_a_registry() {
    for path in ["/v2/", "/v2"] {
        let answer = get(path);
        assert_eq!(answer.status, 200);
        assert_eq!(header(&answer, "docker-distribution-api-version"), "registry/2.0");
    }
    assert_eq!(get("/v2x").status, 404);
    assert_eq!(get("/").status, 404);
}

#[test]
fn a_manifest_is_served_by_tag_and_by_digest_with_its_own_type() {
    let digest = Digest::of(MANIFEST).to_string();
    for reference in ["2", &digest, &digest.replace(':', "%3A")] {
        for (method, accept) in [("GET", TYPE), ("HEAD", "*/*")] {
            let answer = ask(method, &format!("/v2/trivy-db/manifests/{reference}"), &[("accept", accept)]);
            assert_eq!(answer.status, 200, "{reference}");
            assert_eq!(bytes(&answer), MANIFEST);
            assert_eq!(header(&answer, "content-type"), TYPE);
            assert_eq!(header(&answer, "docker-content-digest"), digest);
            assert_eq!(header(&answer, "content-length"), MANIFEST.len().to_string());
        }
    }
    assert_eq!(get("/v2/security/checks/manifests/latest").status, 200);
}

#[test]
fn missing_content_gets_the_right_error_code() {
    let other = Digest::of(b"other");
    for (path, status, code) in [
        ("/v2/trivy-db/manifests/3".to_owned(), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/trivy-db/manifests/{other}"), 404, "MANIFEST_UNKNOWN"),
        ("/v2/none/manifests/2".into(), 404, "NAME_UNKNOWN"),
        ("/v2/none/tags/list".into(), 404, "NAME_UNKNOWN"),
        (format!("/v2/trivy-db/blobs/{other}"), 404, "BLOB_UNKNOWN"),
        // This blob is in another repository.
        (format!("/v2/security/checks/blobs/{}", Digest::of(LAYER)), 404, "BLOB_UNKNOWN"),
        ("/v2/trivy-db/blobs/sha256:12".into(), 400, "DIGEST_INVALID"),
        ("/v2/trivy-db/manifests/md5:12".into(), 400, "DIGEST_INVALID"),
        ("/v2/trivy-db/referrers/x".into(), 400, "DIGEST_INVALID"),
        ("/v2/trivy-db/nothing/x".into(), 404, "NAME_UNKNOWN"),
        ("/v2/trivy-db".into(), 404, "NAME_UNKNOWN"),
    ] {
        assert_eq!(error(&get(&path)), (status, code.into()), "{path}");
        assert_eq!(ask("HEAD", &path, &[]).status, status, "{path}");
    }
}

#[test]
fn a_blob_is_served_complete_or_in_the_requested_range() {
    for method in ["GET", "HEAD"] {
        let answer = ask(method, &blob(), &[]);
        assert_eq!((answer.status.as_u16(), bytes(&answer)), (200, LAYER.to_vec()));
        assert_eq!(header(&answer, "content-length"), "10");
        assert_eq!(header(&answer, "accept-ranges"), "bytes");
        assert_eq!(header(&answer, "docker-content-digest"), Digest::of(LAYER).to_string());
        assert_eq!(header(&answer, "content-type"), "application/octet-stream");
    }
    for (range, wanted, place) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-5", "2345", "bytes 2-5/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-99", "0123456789", "bytes 0-9/10"),
        ("bytes=8-99999999999999999999999", "89", "bytes 8-9/10"),
    ] {
        let answer = ask("GET", &blob(), &[("range", range)]);
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(bytes(&answer), wanted.as_bytes(), "{range}");
        assert_eq!(header(&answer, "content-range"), place);
        assert_eq!(header(&answer, "content-length"), wanted.len().to_string());
    }
    for range in ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=99999999999999999999999-"] {
        let answer = ask("GET", &blob(), &[("range", range)]);
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(header(&answer, "content-range"), "bytes */10");
    }
    for range in
        ["bytes=5-2", "bytes=0-1,4-5", "bytes=a-b", "bytes=-", "lines=0-1", "bytes 0-1", "bytes=+1-2"]
    {
        assert_eq!(ask("GET", &blob(), &[("range", range)]).status, 200, "{range}");
    }
    assert_eq!(ask("HEAD", &blob(), &[("range", "bytes=0-0")]).status, 200);
    let (same, other) = (format!("\"{}\"", Digest::of(LAYER)), "\"x\"");
    for (condition, status) in [(same.as_str(), 206), (other, 200)] {
        let headers = [("range", "bytes=0-0"), ("if-range", condition)];
        assert_eq!(ask("GET", &blob(), &headers).status, status, "{condition}");
    }
}

#[test]
fn a_client_that_has_the_content_gets_not_modified() {
    let manifest = "/v2/trivy-db/manifests/2";
    for (path, digest) in [(blob(), Digest::of(LAYER)), (manifest.into(), Digest::of(MANIFEST))] {
        let known = format!("\"x\", W/\"{digest}\"");
        let answer = ask("GET", &path, &[("if-none-match", &known)]);
        assert_eq!((answer.status.as_u16(), bytes(&answer).len()), (304, 0));
        assert_eq!(header(&answer, "etag"), format!("\"{digest}\""));
        assert_eq!(ask("GET", &path, &[("if-none-match", "\"x\"")]).status, 200);
    }
    // VEX files are always sent, because older versions of Trivy lose theirs otherwise.
    let archive = ask("GET", "/vex-hub/x.tar.gz", &[("if-none-match", "*")]);
    assert_eq!((archive.status.as_u16(), archive.headers.get("etag")), (200, None));
}

#[test]
fn lists_are_paged_and_each_page_links_to_the_next() {
    assert_eq!(document(&get("/v2/_catalog"))["repositories"], json!(["security/checks", "trivy-db"]));
    let all = document(&get("/v2/security/checks/tags/list"));
    assert_eq!(all, json!({ "name": "security/checks", "tags": ["1", "2", "latest"] }));
    let first = get("/v2/security/checks/tags/list?n=2");
    assert_eq!(document(&first)["tags"], json!(["1", "2"]));
    let link = header(&first, "link");
    assert_eq!(link, "</v2/security/checks/tags/list?n=2&last=2>; rel=\"next\"");
    let second = get(link.split(['<', '>']).nth(1).unwrap());
    assert_eq!(document(&second)["tags"], json!(["latest"]));
    assert!(second.headers.get("link").is_none());
    let none = get("/v2/security/checks/tags/list?n=0");
    assert_eq!((document(&none)["tags"].clone(), none.headers.get("link")), (json!([]), None));
    assert_eq!(document(&get("/v2/_catalog?last=s"))["repositories"], json!(["security/checks", "trivy-db"]));
    assert_eq!(document(&get("/v2/_catalog?last=security%2Fchecks"))["repositories"], json!(["trivy-db"]));
    assert_eq!(error(&get("/v2/_catalog?n=-1")), (400, "PAGINATION_NUMBER_INVALID".into()));
}

#[test]
fn referrers_are_an_empty_index_and_not_an_error() {
    let answer = get(&format!("/v2/trivy-db/referrers/{}", Digest::of(MANIFEST)));
    assert_eq!(answer.status, 200);
    assert_eq!(header(&answer, "content-type"), "application/vnd.oci.image.index.v1+json");
    assert_eq!(document(&answer)["manifests"], json!([]));
}

#[test]
fn nothing_can_be_changed() {
    for (method, path) in [
        ("POST", "/v2/trivy-db/blobs/uploads/".to_owned()),
        ("PUT", "/v2/trivy-db/manifests/2".into()),
        ("DELETE", blob()),
        ("PATCH", "/vex-hub/x.tar.gz".into()),
    ] {
        let answer = ask(method, &path, &[]);
        assert_eq!(error(&answer), (405, "UNSUPPORTED".into()), "{method} {path}");
        assert_eq!(header(&answer, "allow"), "GET, HEAD");
    }
}

#[test]
fn a_document_names_the_server_as_the_client_does() {
    let answer = get("/vex-hub/.well-known/vex-repository.json");
    assert_eq!(document(&answer)["at"], "https://ferry.example:5000");
    assert_eq!(header(&answer, "content-type"), "application/json");
    assert_eq!(header(&answer, "cache-control"), "no-store");
    assert_eq!(bytes(&get("/vex-hub/x.tar.gz")), b"vex");
}

#[test]
fn paths_outside_the_site_are_not_found() {
    for path in [
        "/../etc/passwd",
        "/vex-hub/../../etc/passwd",
        "/vex-hub/%2e%2e/x.tar.gz",
        "/vex-hub/%2E%2E%2F%2e%2e%2fetc%2fpasswd",
        "/vex-hub//x.tar.gz",
        "/v2/../vex-hub/x.tar.gz",
        "/v2/trivy-db/../trivy-db/manifests/2",
        "/v2/trivy-db/manifests/2/",
        "/v2//trivy-db/manifests/2/..",
        "/vex-hub/x.tar.gz%00",
    ] {
        assert_eq!(get(path).status, 404, "{path}");
    }
    assert_eq!(get("/%ff").status, 400);
}

proptest! {
    #![proptest_config(crate::util::seed::cases(256))]
    #[test]
    fn any_range_is_answered_within_the_blob(text in "(bytes=)?[0-9,-]{0,30}") {
        match parse_range(&text, 10) {
            Some(Range::Of(begin, end)) => prop_assert!(begin < end && end <= 10, "{}-{}", begin, end),
            Some(Range::Outside) | None => {}
        }
    }
}
