//! Hostile clients of `serve`, and bundles that change while they are served. In all cases, no
//! wrong byte is sent, memory stays bounded, and the next client is served.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use test_kit::http::read_head;
use test_kit::process::{ended, wait_for_address, wait_for_line};
use trivy_ferry::bundle::chunks::CHUNK;
use trivy_ferry::digest::Digest;

use crate::forge::{Bundle, Host, Part, days};

/// A time limit that is longer than all time limits of the server.
const TIME_LIMIT: Duration = Duration::from_secs(150);
/// The maximum memory of the server, in KiB.
const MAX_MEMORY: u64 = 64 << 10;

/// A layer of pseudorandom bytes, which do not compress.
static LAYER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next).take(6 << 20).flat_map(u64::to_le_bytes).collect()
});

static BLOB: LazyLock<String> = LazyLock::new(|| format!("/v2/trivy-java-db/blobs/{}", Digest::of(&LAYER)));

const HUB: &str = "/vex-hub/.well-known/vex-repository.json";

/// A server on its own host.
struct Serve {
    host: Host,
    bundle: PathBuf,
    child: Child,
    address: String,
}

impl Serve {
    fn plain() -> Serve {
        Serve::start(&[])
    }

    /// Starts a server with a self-signed certificate of 127.0.0.1, `cert.pem`.
    fn tls() -> Serve {
        Serve::start(&["--tls-cert", "cert.pem", "--tls-key", "key.pem"])
    }

    fn start(more: &[&str]) -> Serve {
        let host = Host::new();
        let contents = Part::java_db(days(-1)).dataset.contents;
        let java_db = Part::saying("trivy-java-db", "1", LAYER.clone(), contents);
        let parts = [Part::db(days(-1)), java_db, Part::vex(days(-1))];
        let bundle = Bundle::of(days(-1), &parts);
        Serve::of(host, &bundle, more)
    }

    fn of(host: Host, bundle: &Bundle, more: &[&str]) -> Serve {
        let bundle = host.file("bundle.tar", bundle.signed(&host.key));
        let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        host.file("cert.pem", certificate.cert.pem());
        host.file("key.pem", certificate.signing_key.serialize_pem());
        let log = File::create(host.path("log")).unwrap();
        // The limit of a service, even if this process has raised its own limit for its clients.
        let program = host.command();
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", "ulimit -Sn 1024; exec \"$0\" \"$@\""]).arg(program.get_program());
        command.env_clear().envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(host.path(".")).stdin(Stdio::null());
        command.args(["serve", "bundle.tar", "--listen", "127.0.0.1:0", "--state-dir", "state"]);
        command.args(["--trust", "keys/exporter.pub"]).args(more).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().unwrap();
        let address = wait_for_address(&mut child, &host.path("log"));
        Serve { host, bundle, child, address }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.host.path("log")).unwrap()
    }

    /// Waits for a line with these words in the log.
    #[track_caller]
    fn logs(&self, words: &str) -> String {
        wait_for_line(&self.host.path("log"), words)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(TIME_LIMIT)).unwrap();
        stream.set_write_timeout(Some(TIME_LIMIT)).unwrap();
        stream
    }

    /// Connects with TLS. The client trusts the certificate only if `trusting` is true.
    fn connect_tls(&self, trusting: bool) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        if trusting {
            roots.add(CertificateDer::from_pem_file(self.host.path("cert.pem")).unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), self.connect())
    }

    /// Sends bytes, and returns the response until the server ends the connection.
    fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // A server that has read enough may close the connection before all bytes are written.
        let _ = stream.write_all(bytes);
        received(stream)
    }

    /// Sends a valid request with further lines in its head.
    fn get(&self, path: &str, lines: &str) -> Response {
        let mut stream = self.connect();
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{lines}\r\n", self.address);
        stream.write_all(head.as_bytes()).unwrap();
        Response::of(&received(stream))
    }

    /// Asserts that other clients are still served.
    #[track_caller]
    fn serves(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the server has ended:\n{}", self.log());
        let range = self.get(&BLOB, "Range: bytes=1000000-1000999\r\n");
        assert_eq!((range.status, &range.body[..]), (206, &LAYER[1_000_000..1_001_000]));
        assert!(self.peak() < MAX_MEMORY, "{} KiB", self.peak());
    }

    /// Sends SIGTERM.
    fn signal(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Returns the peak memory of the server in KiB.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns all bytes until the connection ends or fails.
fn received(mut stream: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}

#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    #[track_caller]
    fn of(bytes: &[u8]) -> Response {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Response { status, head, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Returns the number of responses in the bytes of a connection.
fn answers(bytes: &[u8]) -> usize {
    String::from_utf8_lossy(bytes).matches("HTTP/1.").count()
}

#[test]
fn if_the_bundle_is_replaced_the_verified_one_is_still_served() {
    let mut serve = Serve::plain();
    serve.host.file("another", b"another bundle, perhaps");
    fs::rename(serve.host.path("another"), &serve.bundle).unwrap();
    let all = serve.get(&BLOB, "");
    assert!(all.status == 200 && all.body == *LAYER, "{}", all.head);
    fs::remove_file(&serve.bundle).unwrap();
    serve.serves();
}

#[test]
fn no_byte_of_a_changed_chunk_is_sent() {
    let mut serve = Serve::plain();
    let held = fs::read(&serve.bundle).unwrap();
    let start = held.windows(64).position(|window| window == &LAYER[..64]).unwrap() as u64;
    let file = OpenOptions::new().write(true).open(&serve.bundle).unwrap();
    let at = 300 * CHUNK;
    file.write_all_at(b"tampered", start + at + 5000).unwrap();

    // The bytes before the changed chunk are good. Then the connection ends, although
    // `Content-Length` is larger.
    let torn = serve.get(&BLOB, "");
    assert_eq!((torn.status, torn.header("content-length").unwrap()), (200, "50331648"));
    let good = usize::try_from(at).unwrap();
    assert!(torn.body.len() <= good && torn.body == LAYER[..torn.body.len()], "{}", torn.body.len());
    assert!(serve.logs("error: ").contains("was changed after it was verified"), "{}", serve.log());
    assert!(serve.logs(" 200 ").contains(" broken-off "));
    // A range that begins in the chunk gets an error status. Other ranges are served.
    let range = serve.get(&BLOB, &format!("Range: bytes={at}-{}\r\n", at + 10));
    assert_eq!(range.status, 500);
    assert!(String::from_utf8(range.body).unwrap().contains("restart the server"));
    let next = usize::try_from(at + CHUNK).unwrap();
    let range = serve.get(&BLOB, &format!("Range: bytes={next}-\r\n"));
    assert!(range.status == 206 && range.body == LAYER[next..]);

    // After the bytes are restored, they are served again.
    file.write_all_at(&LAYER[good + 5000..good + 5008], start + at + 5000).unwrap();
    assert!(serve.get(&BLOB, "").body == *LAYER);
    // The file is truncated.
    file.set_len(start + at + 100).unwrap();
    let torn = serve.get(&BLOB, "");
    assert!(torn.body.len() <= good && torn.body == LAYER[..torn.body.len()], "{}", torn.body.len());
    assert_eq!(serve.get(&BLOB, &format!("Range: bytes={next}-\r\n")).status, 500);
    serve.serves();
    file.set_len(0).unwrap();
    assert_eq!(serve.get(&BLOB, "").status, 500);
    // Small blobs are in memory.
    assert_eq!(serve.get("/v2/trivy-java-db/manifests/1", "").status, 200);
}

#[test]
fn responses_follow_the_http_specification() {
    let serve = Serve::plain();
    let digest = Digest::of(&LAYER);
    // All requests use one connection. If a response to HEAD or a 304 had a body, the next response
    // would be misread.
    let mut stream = serve.connect();
    let mut ask = |method: &str, lines: &str, body: usize| {
        let request = format!("{method} {} HTTP/1.1\r\nHost: x\r\n{lines}\r\n", *BLOB);
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = Response::of(&read_head(&mut stream).unwrap());
        response.body.resize(body, 0);
        stream.read_exact(&mut response.body).unwrap();
        response
    };
    let head = ask("HEAD", "", 0);
    assert_eq!((head.status, head.header("content-length").unwrap()), (200, "50331648"));
    let known = ask("GET", &format!("If-None-Match: \"{digest}\"\r\n"), 0);
    assert_eq!((known.status, known.header("etag").unwrap()), (304, format!("\"{digest}\"").as_str()));
    // The range begins in the middle of one chunk and ends in the middle of another.
    let range = ask("GET", "Range: bytes=100000-250000\r\n", 150_001);
    assert_eq!(range.header("content-range").unwrap(), "bytes 100000-250000/50331648");
    assert!(range.status == 206 && range.body == LAYER[100_000..=250_000]);
    let outside = ask("GET", "Range: bytes=50331648-\r\n", 0);
    assert_eq!((outside.status, outside.header("content-range").unwrap()), (416, "bytes */50331648"));
    let last = ask("GET", "Range: bytes=-1\r\n", 1);
    assert!(last.status == 206 && last.body == LAYER[LAYER.len() - 1..]);
    // With HTTP/1.0, the connection ends after the response, and the request needs no host.
    let old = Response::of(&serve.raw(format!("GET {HUB} HTTP/1.0\r\n\r\n").as_bytes()));
    assert_eq!(old.status, 200);
    assert!(String::from_utf8(old.body).unwrap().contains(&format!("http://{}/vex-hub/", serve.address)));
    let head = format!("HEAD {} HTTP/1.1\r\nHost: x\r\n", *BLOB);
    let three = format!("{head}\r\n{head}\r\n{head}Connection: close\r\n\r\n");
    assert_eq!(answers(&serve.raw(three.as_bytes())), 3);
}

impl Serve {
    /// Asserts that these bytes get one response with this status.
    #[track_caller]
    fn answers_once(&self, what: &str, bytes: &[u8], status: u16) {
        let came = self.raw(bytes);
        assert_eq!(Response::of(&came).status, status, "{what}: {}", String::from_utf8_lossy(&came));
        assert_eq!(answers(&came), 1, "{what}");
    }
}

#[test]
fn invalid_requests_get_an_error_status() {
    let mut serve = Serve::plain();
    let blob = &*BLOB;
    let long = "a".repeat(20_000);
    let headers: String = (0..10_000).map(|number| format!("X-{number}: y\r\n")).collect();
    let requests: [(&str, String, u16); 13] = [
        ("a long header", format!("GET {blob} HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"), 431),
        ("many headers", format!("GET {blob} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"), 431),
        ("a long path", format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 431),
        ("garbage", "\x01\x02\x03\x7f\r\n\r\n".into(), 400),
        ("TLS", "\x16\x03\x01\x02\x05\x01\x05\x01\x03\x03".into(), 400),
        ("no version", format!("GET {blob}\r\n\r\n"), 400),
        ("a space before the colon", format!("GET {blob} HTTP/1.1\r\nHost : x\r\n\r\n"), 400),
        ("a folded header", format!("GET {blob} HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n"), 400),
        ("a NUL", format!("GET {blob} HTTP/1.1\r\nHost: x\0y\r\n\r\n"), 400),
        ("no host", format!("GET {blob} HTTP/1.1\r\n\r\n"), 400),
        ("two hosts", format!("GET {blob} HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"), 400),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".into(),
            400,
        ),
        ("a bad length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na".into(), 400),
    ];
    for (what, bytes, status) in requests {
        serve.answers_once(what, bytes.as_bytes(), status);
    }
    assert_eq!(answers(&serve.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")), 0, "HTTP/2 is not supported");
    serve.logs("not an HTTP request");
    serve.serves();
}

#[test]
fn content_that_is_not_served_cannot_be_reached_by_other_names() {
    let mut serve = Serve::plain();
    let requests = [
        ("CONNECT", "CONNECT 10.0.0.1:22 HTTP/1.1\r\nHost: 10.0.0.1:22\r\nConnection: close\r\n\r\n", 405),
        (
            "another server's address",
            "GET http://evil.example/etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            404,
        ),
        (
            "an upload",
            "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n",
            405,
        ),
        (
            "a request with Expect: 100-continue",
            "PUT /v2/a/manifests/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
            405,
        ),
        (
            "a path outside",
            "GET /v2/../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            404,
        ),
        (
            "an encoded path outside",
            "GET /vex-hub/%2e%2e%2f%2e%2e%2fetc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            404,
        ),
    ];
    for (what, bytes, status) in requests {
        serve.answers_once(what, bytes.as_bytes(), status);
    }
    serve.serves();
}

#[test]
fn data_after_a_body_is_not_parsed_as_a_request() {
    let mut serve = Serve::plain();
    let hidden = "GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = hidden.len();
    for lines in [
        format!("Content-Length: {length}\r\n\r\n"),
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n".into(),
        "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n".into(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n".into(),
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".into(),
        "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n".into(),
        "Content-Length: 0\r\nContent-Length: 5\r\n\r\n".into(),
        "Content-Length: 3\r\n\r\nabc".into(),
    ] {
        let bytes = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{lines}{hidden}");
        let came = serve.raw(bytes.as_bytes());
        assert_eq!(answers(&came), 1, "{lines:?}: {}", String::from_utf8_lossy(&came));
        assert!(!came.windows(12).any(|window| window == b"repositories"), "{lines:?}");
    }
    serve.serves();
}

#[test]
fn a_location_contains_no_text_of_an_attacker() {
    let serve = Serve::plain();
    let location = |host: &str| {
        let request = format!("GET {HUB} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        let response = Response::of(&serve.raw(request.as_bytes()));
        let document: Option<Value> = serde_json::from_slice(&response.body).ok();
        let url = document
            .map(|document| document["versions"][0]["locations"][0]["url"].as_str().unwrap().to_owned());
        (response.status, url)
    };
    let archive = "vex-hub/repository-vexhub-main.tar.gz//vexhub-main";
    let (asked, own) =
        (format!("http://ferry.corp.example:8080/{archive}"), format!("http://{}/{archive}", serve.address));
    assert_eq!(location("Host: ferry.corp.example:8080\r\n"), (200, Some(asked)));
    for junk in [
        "evil.example/x",
        "evil@x",
        "x\"y",
        "x y",
        "x#",
        "x?y",
        "%2e%2e",
        "x\\y",
        "{x}",
        "x:99999",
        "x,y",
        "",
        "ü",
    ] {
        assert_eq!(location(&format!("Host: {junk}\r\n")), (200, Some(own.clone())), "{junk}");
    }
    // A request with a second `Host` line, and the headers in which proxies describe the client.
    assert_eq!(location("Host: x\r\nHost: evil.example\r\n"), (400, None));
    let forwarded = "X-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n";
    assert_eq!(location(&format!("Host: a\r\n{forwarded}")), (200, Some(format!("http://a/{archive}"))));
    // If the server's URL is given, no request can change it.
    let serve = Serve::start(&["--url", "https://ferry.corp.example"]);
    let document = serve.get(HUB, "");
    let said = String::from_utf8(document.body).unwrap();
    assert!(said.contains(&format!("\"https://ferry.corp.example/{archive}\"")), "{said}");
    assert!(!said.contains(&serve.address), "{said}");
}

/// Raises this process's limit of open files to the maximum, and returns it.
fn raise_open_files() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(8192, |most| most.min(8192));
    limit.current = limit.current.map(|current| current.max(wanted));
    setrlimit(Resource::Nofile, limit).unwrap();
    limit.current.map_or(usize::MAX, |current| current as usize)
}

#[test]
fn up_to_1000_idle_clients_do_not_block_others() {
    let mut serve = Serve::plain();
    let allowed = raise_open_files();
    // The other end of each connection is in this process.
    let some = |of_thousand: usize| of_thousand * allowed.saturating_sub(250).min(1000) / 1000;
    let blob = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", *BLOB);
    let sent = |bytes: &str| {
        let mut stream = serve.connect();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream
    };
    let idle: Vec<TcpStream> = (0..some(450)).map(|_| sent("")).collect();
    let halves: Vec<TcpStream> =
        (0..some(200)).map(|_| sent("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: ")).collect();
    let done: Vec<TcpStream> = (0..some(200)).map(|_| sent("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    // These clients occupy all slots for large blobs, and read nothing.
    let slow: Vec<TcpStream> = (0..some(150)).map(|_| sent(&blob)).collect();
    for _ in 0..20 {
        assert_eq!(serve.get("/v2/trivy-java-db/manifests/1", "").status, 200);
    }
    // A client that requests a large blob is served as well, after the stalled clients have timed
    // out.
    let all = serve.get(&BLOB, "");
    assert!(all.status == 200 && all.body == *LAYER, "{}", all.head);
    println!("{} KiB with up to 1000 idle clients", serve.peak());
    serve.serves();
    // The server closes the connections of silent clients.
    for mut stream in idle.into_iter().chain(halves).chain(done) {
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        assert!(
            !read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
            "the connection is still open"
        );
    }
    drop(slow);
}

#[test]
fn the_server_frees_the_resources_of_clients_that_disconnect() {
    let mut serve = Serve::plain();
    for round in 0..300 {
        let mut stream = serve.connect();
        let _ = stream.write_all(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", *BLOB).as_bytes());
        if round % 2 == 0 {
            stream.read_exact(&mut [0; 1000]).unwrap();
        }
    }
    // A client sends requests without end, and does not read the responses.
    let mut stream = serve.connect();
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let many = "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    for _ in 0..1000 {
        if stream.write_all(many.as_bytes()).is_err() {
            break;
        }
    }
    assert!(serve.logs(" broken-off ").contains(" 200 "));
    drop(stream);
    serve.serves();
}

/// Reads the start of the layer from a response, and compares every byte.
fn pull(mut stream: impl Read + Write, bytes: usize) {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-{}\r\nConnection: close\r\n\r\n",
        *BLOB,
        bytes - 1
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut buffer = vec![0; 64 << 10];
    let head = read_head(&mut stream).unwrap();
    assert!(head.starts_with(b"HTTP/1.1 206"), "{}", String::from_utf8_lossy(&head));
    let mut at = 0;
    loop {
        let read = stream.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        assert!(LAYER[at..at + read] == buffer[..read], "other bytes at {at}");
        at += read;
    }
    assert_eq!(at, bytes);
}

#[test]
fn the_server_needs_little_memory_for_100_pulls_at_once() {
    let (plain, tls) = (Serve::plain(), Serve::tls());
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| pull(plain.connect(), LAYER.len()));
        }
    });
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| pull(tls.connect_tls(true), 16 << 20));
        }
    });
    println!("{} KiB plain, {} KiB over TLS", plain.peak(), tls.peak());
    for serve in [plain, tls] {
        assert!(serve.peak() < MAX_MEMORY, "{} KiB", serve.peak());
        assert!(!serve.log().contains("broken-off") && !serve.log().contains("error: "), "{}", serve.log());
    }
}

#[test]
fn after_a_signal_the_server_finishes_running_pulls() {
    let mut serve = Serve::plain();
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", *BLOB);
    let begun = |serve: &Serve| {
        let mut stream = serve.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
        stream
    };
    let (mut silent, mut idle, mut half) = (serve.connect(), serve.connect(), serve.connect());
    half.write_all(b"GET /v2/ HT").unwrap();
    idle.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    idle.read_exact(&mut [0; 20]).unwrap();
    let pull = begun(&serve);
    serve.signal();
    serve.logs("Stopping: ");
    assert!(TcpStream::connect(&serve.address).is_err(), "new connections are refused");
    for stream in [&mut silent, &mut idle] {
        received(stream);
    }
    assert!(serve.child.try_wait().unwrap().is_none(), "the server ended before the pull");
    assert!(received(pull).ends_with(&LAYER[LAYER.len() - (1 << 20)..]));
    // An incomplete request does not delay the end of the server until the time limit for heads.
    let through = Instant::now();
    assert_eq!(ended(&mut serve.child).code(), Some(0));
    assert!(through.elapsed() < Duration::from_secs(20), "{}", serve.log());
    assert!(serve.log().ends_with("Stopped.\n") && !serve.log().contains("broken-off"), "{}", serve.log());

    // A second signal ends the server at once.
    let mut serve = Serve::plain();
    let pull = begun(&serve);
    serve.signal();
    serve.logs("Stopping: ");
    serve.signal();
    assert_eq!(ended(&mut serve.child).code(), Some(0));
    assert!(received(pull).len() < LAYER.len());
    serve.logs(" broken-off ");
}

#[test]
fn clients_without_tls_or_without_the_ca_are_logged() {
    let serve = Serve::tls();
    for bytes in
        [&b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0x16; 100_000], b"", b"\x16\x03\x01\x02\x00\x01"]
    {
        let came = serve.raw(bytes);
        assert_eq!(answers(&came), 0, "{}", String::from_utf8_lossy(&came));
    }
    serve.logs("the TLS handshake failed");
    let stranger = serve.connect_tls(false).write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(stranger.unwrap_err().to_string().contains("UnknownIssuer"));
    assert!(serve.logs("UnknownCA").contains(" 127.0.0.1:"), "{}", serve.log());
    pull(serve.connect_tls(true), 1000);
}

#[test]
fn a_client_that_sends_too_much_before_a_response_is_disconnected() {
    let mut serve = Serve::tls();
    // The message of 64 KiB is incomplete, so rustls would wait for the rest.
    let record = |bytes: &[u8]| [&[0x16, 3, 1][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let hello = [record(&[&[1, 0, 0xff, 0xf0][..], &[3; 16_000]].concat()), record(&[3; 8000])].concat();
    assert!(serve.raw(&hello).len() < 100);
    serve.logs("sends too much before it gets a response");
    let mut range = Vec::new();
    let mut stream = serve.connect_tls(true);
    let request =
        format!("GET {} HTTP/1.1\r\nHost: x\r\nRange: bytes=7-7\r\nConnection: close\r\n\r\n", *BLOB);
    stream.write_all(request.as_bytes()).unwrap();
    let _ = stream.read_to_end(&mut range);
    assert_eq!(Response::of(&range).body, LAYER[7..8]);
    assert!(serve.child.try_wait().unwrap().is_none());
}

#[test]
fn the_log_has_one_harmless_line_for_each_request() {
    let serve = Serve::plain();
    let agent = format!("User-Agent: a\u{9b}31m\u{202e}\"{}\r\n", "x".repeat(7000));
    serve.get("/%0aerror:%20all%20is%20lost%1b[2J", &agent);
    serve.get(&format!("/{}", "y".repeat(7000)), "");
    for number in 0..500 {
        serve.get(&format!("/none/{number}"), "");
    }
    serve.logs("/none/499 ");
    let log = serve.log();
    let lines = || log.lines().filter(|line| line.contains(" GET "));
    assert_eq!(lines().count(), 502, "{log}");
    assert!(
        lines().all(|line| line.contains(" 127.0.0.1:") && line.contains(" 404 ") && line.len() < 2000),
        "{log}"
    );
    let bad = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!log.contains(bad), "{log:?}");
}

#[test]
fn a_client_that_reads_slowly_but_steadily_is_not_stalled() {
    let serve = Serve::plain();
    let mut stream = serve.connect();
    stream.write_all(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", *BLOB).as_bytes()).unwrap();
    let mut some = vec![0; 8 << 10];
    // This is longer than the time after which a client counts as stalled.
    let until = Instant::now() + Duration::from_secs(45);
    while Instant::now() < until {
        stream.read_exact(&mut some).unwrap();
        std::thread::sleep(Duration::from_millis(250));
    }
    assert!(!serve.log().contains("broken-off"), "{}", serve.log());
}

#[test]
fn requested_images_are_served_below_the_host_of_their_source() {
    let host = Host::new();
    let part = Part::db(days(-1));
    let mut bundle = Bundle::of(days(-1), std::slice::from_ref(&part));
    bundle.edit(|payload| {
        let dataset = payload["datasets"][0].clone();
        let image = |name: &str| serde_json::json!({
            "name": name, "source": "x", "manifest": dataset["manifest"], "blobs": [dataset["config"], dataset["layers"][0]],
        });
        let names = [
            "a.example-5000/foo:1", "a.example:5000/foo:1", "b.example/foo:1", "x/trivy-db:2", "c.example/secret:1",
        ];
        payload["images"] = names.map(image).to_vec().into();
    });
    let more = ["--image", "*/foo", "--image", "x/trivy-db:2", "--image", "none.example/*"];
    let serve = Serve::of(host, &bundle, &more);
    let log = serve.log();
    assert!(
        log.contains(
            "a.example:5000/foo:1 is not served: a.example-5000/foo:1 is already used by a.example-5000/foo:1"
        ),
        "{log}"
    );
    for (path, status) in [
        ("trivy-db/manifests/2", 200),
        ("a.example-5000/foo/manifests/1", 200),
        ("b.example/foo/manifests/1", 200),
        ("docker.io/x/trivy-db/manifests/2", 200),
        // These references lack the host, or were not requested.
        ("foo/manifests/1", 404),
        ("x/trivy-db/manifests/2", 404),
        ("secret/manifests/1", 404),
        ("c.example/secret/manifests/1", 404),
    ] {
        assert_eq!(serve.get(&format!("/v2/{path}"), "").status, status, "{path}");
    }
    let digest = part.dataset.layers[0].digest;
    assert_eq!(serve.get(&format!("/v2/b.example/foo/blobs/{digest}"), "").status, 200);
    assert_eq!(serve.get(&format!("/v2/c.example/secret/blobs/{digest}"), "").status, 404);
}

#[test]
fn no_image_is_served_unless_it_is_requested() {
    let host = Host::new();
    let part = Part::db(days(-1));
    let mut bundle = Bundle::of(days(-1), std::slice::from_ref(&part));
    bundle.edit(|payload| {
        let dataset = payload["datasets"][0].clone();
        payload["images"] = serde_json::json!([{
            "name": "a.example/foo:1", "source": "x", "manifest": dataset["manifest"],
            "blobs": [dataset["config"], dataset["layers"][0]],
        }]);
    });
    let serve = Serve::of(host, &bundle, &[]);
    for path in ["foo/manifests/1", "a.example/foo/manifests/1"] {
        assert_eq!(serve.get(&format!("/v2/{path}"), "").status, 404, "{path}");
    }
    assert_eq!(serve.get("/v2/trivy-db/manifests/2", "").status, 200);
}
