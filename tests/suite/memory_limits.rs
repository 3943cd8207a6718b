//! The peak memory of each command under hostile archives, bundles and clients, together with data
//! of a realistic size: at most 64 MiB, by the kernel's own accounting.

use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;
use test_kit::answers::ok;
use test_kit::http::Server;
use test_kit::noise::Noise;
use test_kit::peak::{MAX, Measured, high_water};
use test_kit::process::wait_for_address;
use test_kit::registry::Registry;
use trivy_ferry::dataset::check::UnpackLimits;
use trivy_ferry::dataset::vex::{self, ArchiveFormat};
use trivy_ferry::dataset::{Contents, Discard, Kind, Tree};
use trivy_ferry::digest::Digest;

use crate::forge::{self, Archive, Bundle, Host, Part, days, image_layout, metadata_json};

/// A time limit that is longer than all time limits of the program.
const TIME_LIMIT: Duration = Duration::from_secs(150);
const TRUST: [&str; 2] = ["--trust", "keys/exporter.pub"];
const INDEX: &str = r#"{"updated_at":"2026-01-15T06:00:00Z","packages":[]}"#;

/// A database of 219 MiB that compresses to 1/4 of its size, so that memory that grows with the
/// data exceeds the limit.
static DB: LazyLock<Part> = LazyLock::new(|| {
    let mut dice = Noise::new(1);
    let mut bytes = forge::bolt();
    for _ in 0..3500 {
        let block = dice.bytes(16 << 10);
        (0..4).for_each(|_| bytes.extend_from_slice(&block));
    }
    let layer = Archive::new().file("trivy.db", &bytes).file("metadata.json", &metadata_json(2, days(-1)));
    Part::of("trivy-db", "2", layer.pack())
});

/// A zip archive with `x/index.json` and directories that it only lists.
#[derive(Clone, Copy)]
struct Zip {
    directories: usize,
    /// The length of the extra fields of each directory, in bytes.
    extra: usize,
    comment: usize,
    /// The number of entries in the plain end record. `None` for the true number, if it fits.
    plain: Option<u16>,
}

impl Zip {
    fn pack(self) -> Vec<u8> {
        let mut crc = flate2::Crc::new();
        crc.update(INDEX.as_bytes());
        let (crc, size) = (crc.sum(), INDEX.len() as u32);
        let mut zip = Vec::new();
        let name = b"x/index.json";
        let fixed = |zip: &mut Vec<u8>| {
            // Version, flags, method and time.
            [20u16, 0, 0, 0, 0x21].iter().for_each(|value| zip.extend(value.to_le_bytes()));
            [crc, size, size].iter().for_each(|value| zip.extend(value.to_le_bytes()));
        };
        zip.extend(b"PK\x03\x04");
        fixed(&mut zip);
        [name.len() as u16, 0].iter().for_each(|value| zip.extend(value.to_le_bytes()));
        zip.extend(name);
        zip.extend(INDEX.as_bytes());
        let start = zip.len() as u64;
        let mut entry = |name: &[u8], extra: usize, comment: usize| {
            zip.extend(b"PK\x01\x02\x14\x00");
            fixed(&mut zip);
            let lengths = [name.len(), extra, comment].map(|length| length as u16);
            lengths.iter().for_each(|value| zip.extend(value.to_le_bytes()));
            // Disk, attributes, and the offset of its own header.
            zip.extend([0; 12]);
            zip.extend(name);
            // One extra field of an unknown type.
            let mut extra_field = vec![0; extra];
            if extra >= 4 {
                extra_field[..2].copy_from_slice(&0x7777u16.to_le_bytes());
                extra_field[2..4].copy_from_slice(&((extra - 4) as u16).to_le_bytes());
            }
            zip.extend(extra_field);
            zip.extend(vec![b'c'; comment]);
        };
        entry(name, 0, 0);
        (0..self.directories).for_each(|n| entry(format!("d{n}/").as_bytes(), self.extra, self.comment));
        self.end(&mut zip, start);
        zip
    }

    fn end(self, zip: &mut Vec<u8>, start_of_directory: u64) {
        let end = zip.len() as u64;
        let entries = self.directories as u64 + 1;
        let plain = self.plain.unwrap_or(u16::try_from(entries).unwrap_or(u16::MAX));
        if u64::from(plain) != entries {
            zip.extend(b"PK\x06\x06");
            zip.extend(44u64.to_le_bytes());
            [45u16, 45].iter().for_each(|value| zip.extend(value.to_le_bytes()));
            zip.extend([0; 8]);
            [entries, entries, end - start_of_directory, start_of_directory]
                .iter()
                .for_each(|value| zip.extend(value.to_le_bytes()));
            zip.extend(b"PK\x06\x07\0\0\0\0");
            zip.extend(end.to_le_bytes());
            zip.extend(1u32.to_le_bytes());
        }
        zip.extend(b"PK\x05\x06\0\0\0\0");
        [plain, plain].iter().for_each(|value| zip.extend(value.to_le_bytes()));
        // A value that does not fit makes readers use the other record.
        let start = if self.plain.is_some() { u32::MAX } else { start_of_directory as u32 };
        [(end - start_of_directory) as u32, start].iter().for_each(|value| zip.extend(value.to_le_bytes()));
        zip.extend([0, 0]);
    }
}

/// Slightly fewer entries than the limit.
const MANY: Zip = Zip { directories: 390_000, extra: 0, comment: 0, plain: None };

fn vex_json(location: &str) -> String {
    json!({"name": "VEX", "versions": [{"spec_version": "0.1", "locations": [{"url": location}], "update_interval": "24h"}]}).to_string()
}

/// Returns the dataset of a VEX archive, with the contents that the exporter would find.
fn vex_part(archive: Vec<u8>) -> Part {
    let format = ArchiveFormat::of(&archive).unwrap();
    let limits = UnpackLimits::of(Kind::Vex);
    let contents = vex::unpack(format, Cursor::new(&archive), "x", limits, &mut Discard).unwrap();
    Part::vex_saying(archive, "x", contents)
}

/// Returns contents with this number of files. Their other values are wrong.
fn claimed(files: u64) -> Contents {
    let one = vex_part(Zip { directories: 0, ..MANY }.pack()).dataset.contents;
    let tree = one.tree.clone().unwrap();
    Contents { tree: Some(Tree { files, folders: 10, size: 32 << 20, ..tree }), ..one }
}

/// Returns a gzipped tar archive with an index and empty files below a directory with a long name.
fn long_names(files: usize, below: &str, index: &str) -> Vec<u8> {
    let mut archive = Archive::new().file("x/index.json", index.as_bytes());
    for number in 0..files {
        let name = format!("x/{below}/{number:08}");
        archive = archive.entry(b'L', "././@LongLink", name.len() as u64, name.as_bytes());
        archive = archive.entry(b'0', "x/short", 0, b"");
    }
    archive.pack()
}

impl Host {
    /// Writes a bundle of these datasets to the inbox, with a name for the case.
    fn bundle_of(&self, name: &str, parts: &[Part]) -> String {
        let name = format!("inbox/{name}.tar");
        self.file(&name, Bundle::of(days(0), parts).signed(&self.key));
        name
    }

    /// Runs `verify`, `import` into a cache and `import` into a registry.
    fn receives(&self, bundle: &str) -> [Measured; 3] {
        let registry = Registry::new(|_| None);
        // Earlier bundles must not affect the result, so each run gets its own directories.
        let fresh = tempfile::tempdir_in(self.path("tmp")).unwrap();
        let [cache, state, other] = ["cache", "state", "other"].map(|name| fresh.path().join(name));
        let [cache, state, other] = [&cache, &state, &other].map(|path| path.to_str().unwrap());
        let cache = ["import", bundle, "--cache-dir", cache, "--state-dir", state];
        let places = ["import", bundle, "--registry", &registry.host, "--plain-http", "--state-dir", other];
        [&["verify", bundle][..], &cache[..], &places[..]].map(|args| self.bounded(&[args, &TRUST].concat()))
    }

    /// Runs `export` with a VEX repository whose archive is in the directory of its manifest.
    fn exports_vex(&self, archive: &str, bytes: &[u8], more: &[&str]) -> Measured {
        self.file("vex/vex-repository.json", vex_json(&format!("https://h.example/{archive}//x")));
        let path = self.file(&format!("vex/{archive}"), bytes);
        self.write_key();
        let args = ["export", "--key", "exporter.key", "--output", "out", "--vex", "default=vex"];
        let ran = self.bounded(&[&args, more].concat());
        fs::remove_file(path).unwrap();
        ran
    }
}

#[track_caller]
fn all(runs: &[Measured], code: i32, word: &str) {
    for run in runs {
        assert_eq!(run.code, code, "{run:#?}");
        assert!(run.out.contains(word) || run.err.contains(word), "{word:?} is missing in {run:#?}");
    }
}

#[test]
fn the_memory_for_a_zip_archive_does_not_depend_on_the_number_of_its_entries() {
    let host = Host::new();
    for (what, zip, refusal) in [
        // Before the directory was counted entry by entry, these took more than 200 MiB.
        ("zip64", Zip { directories: 600_000, ..MANY }, Some("too many entries")),
        ("bypass", Zip { directories: 350_000, plain: Some(2), ..MANY }, Some("two end records differ")),
        ("allowed", MANY, None),
        ("headers", Zip { directories: 400, extra: 65_000, comment: 65_000, plain: None }, None),
    ] {
        println!("{what}");
        let packed = zip.pack();
        let exported = host.exports_vex("main.zip", &packed, &["--only", "vex-hub"]);
        let part = match refusal {
            Some(_) => Part::vex_saying(packed, "x", claimed(1)),
            None => vex_part(packed),
        };
        let received = host.receives(&host.bundle_of(what, &[part]));
        match refusal {
            Some(word) => {
                all(&[exported], 3, word);
                all(&received[..2], 4, word);
            }
            None => {
                all(&[exported], 0, "");
                all(&received[..2], 0, "");
            }
        }
    }
}

#[test]
fn names_of_files_take_bounded_memory() {
    let host = Host::new();
    // The number of files and the length of their names are slightly below the limits, and the
    // index has its maximum size.
    let (short, long) = ("a".repeat(75), format!("{}/{}", "a".repeat(245), "b".repeat(243)));
    let packages = r#"{"location":"a/b"},"#.repeat((16 << 20) / 19 - 60);
    let index = format!(r#"{{"packages":[{packages}{{"location":"{short}/00000007"}}]}}"#);
    let most = long_names(99_000, &short, &index);
    all(&host.receives(&host.bundle_of("most", &[vex_part(most.clone()), DB.clone()])), 0, "");
    // The index names no valid document.
    let exported = host.exports_vex("main.tar.gz", &most, &["--only", "vex-hub", "--accept", "vex-hub"]);
    all(&[exported], 0, "");
    let more = long_names(99_990, &long, INDEX);
    let exported = host.exports_vex("main.tar.gz", &more, &["--only", "vex-hub"]);
    all(&[exported], 3, "names of its files");
    let received = host.receives(&host.bundle_of("more", &[Part::vex_saying(more, "x", claimed(99_991))]));
    all(&received[..2], 4, "names of its files");
    // The same content in a directory.
    let below = format!("unpacked/{long}");
    host.file("unpacked/vex-repository.json", vex_json("https://h.example/main.tar.gz"));
    host.file("unpacked/index.json", INDEX);
    host.file(&format!("{below}/first"), "");
    (0..17_500).for_each(|n| drop(File::create(host.path(&below).join(format!("{n:08}"))).unwrap()));
    let args = ["export", "--key", "exporter.key", "--output", "out", "--only", "vex-hub"];
    let exported = host.bounded(&[&args[..], &["--vex", "default=unpacked"]].concat());
    all(&[exported], 3, "bytes of file names");
}

#[test]
fn full_size_data_and_hostile_archives_are_carried_together() {
    let host = Host::new();
    let layout = image_layout(&host.path("db"), "2", &DB.manifest, &[&DB.blobs[0], &DB.blobs[1]]);
    let more = ["--only", "trivy-db,vex-hub", "--db-repository", &layout];
    let exported = host.exports_vex("main.zip", &MANY.pack(), &more);
    all(&[exported], 0, "");
    let written = fs::read_dir(host.path("out")).unwrap().next().unwrap().unwrap().path();
    all(&host.receives(written.to_str().unwrap()), 0, "");
}

/// A server with the large database and a VEX repository.
struct Serve {
    host: Host,
    child: Child,
    address: String,
    tls: bool,
}

/// A connection between a client and a server.
trait Wire: Read + Write {}

impl<W: Read + Write> Wire for W {}

impl Serve {
    fn start(tls: bool) -> Serve {
        // Thousands of connections are open on both sides.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
        let host = Host::new();
        let bundle = host.bundle_of("served", &[DB.clone(), Part::vex(days(-1))]);
        let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        host.file("cert.pem", certificate.cert.pem());
        host.file("key.pem", certificate.signing_key.serialize_pem());
        let log = File::create(host.path("log")).unwrap();
        let mut command = host.command();
        command.args(["serve", &bundle, "--listen", "127.0.0.1:0"]).args(TRUST);
        if tls {
            command.args(["--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
        }
        let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let address = wait_for_address(&mut child, &host.path("log"));
        Serve { host, child, address, tls }
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(TIME_LIMIT)).unwrap();
        stream.set_write_timeout(Some(TIME_LIMIT)).unwrap();
        stream
    }

    fn tls(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.host.path("cert.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), self.tcp())
    }

    /// Connects, sends these bytes, and reads no response.
    fn sent(&self, bytes: &[u8]) -> Box<dyn Wire> {
        let mut wire: Box<dyn Wire> = if self.tls { Box::new(self.tls()) } else { Box::new(self.tcp()) };
        wire.write_all(bytes).unwrap();
        wire
    }

    /// Asserts that a good client is served.
    fn pulls_a_manifest(&self) {
        let request = "GET /v2/trivy-db/manifests/2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut answer = Vec::new();
        let _ = self.sent(request.as_bytes()).read_to_end(&mut answer);
        assert!(answer.ends_with(&DB.manifest), "{}", String::from_utf8_lossy(&answer));
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects up to 2,000 clients that use as much memory as they can, in all known ways.
fn crowd(serve: &Serve) {
    let layer = format!("/v2/trivy-db/blobs/{}", Digest::of(&DB.blobs[1]));
    // The head has almost the maximum size, so that it stays in memory while the blob is sent.
    let pull = format!("GET {layer} HTTP/1.1\r\nHost: x\r\nUser-Agent: {}\r\n\r\n", "u".repeat(7000));
    let short: String = (0..60).map(|n| format!("H{n}: {}\r\n", "v".repeat(40))).collect();
    let many = format!("GET /{} HTTP/1.1\r\n{short}", "p".repeat(3900));
    let lines: String = (0..55).map(|n| format!("X-{n}: {}\r\n", "y".repeat(120))).collect();
    let waiting = format!("GET {layer} HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
    let half = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: {}", "z".repeat(8000));
    // The responses are small, but together they fill the kernel's buffers of a client.
    let piece = format!("GET {layer} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-65535\r\n\r\n");
    let documents = "GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n";
    let kinds = [
        (150, pull),
        (if serve.tls { 150 } else { 250 }, many),
        (if serve.tls { 100 } else { 150 }, waiting),
        (if serve.tls { 100 } else { 200 }, half.clone()),
        (100, piece.repeat(60)),
        (40, documents.repeat(100)),
    ];
    let attackers = kinds.iter().flat_map(|(count, bytes)| (0..*count).map(|_| serve.sent(bytes.as_bytes())));
    let attackers: Vec<_> = attackers.collect();
    serve.pulls_a_manifest();
    // With TLS, these bytes are the first half of a record.
    let record = [&b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb"[..], &[3; 12_000]].concat();
    let first = if serve.tls { record } else { [half.as_bytes(), &[b'z'; 8000]].concat() };
    let address = serve.address.parse().unwrap();
    let connects = |_: &i32| TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok();
    let more: Vec<TcpStream> = (0..1000).map_while(|n| connects(&n)).collect();
    for mut stream in &more {
        let _ = stream.write_all(&first);
    }
    drop((attackers, more));
    serve.pulls_a_manifest();
    let peak = high_water(serve.child.id());
    println!("{} KiB, TLS: {}", peak >> 10, serve.tls);
    assert!(peak < MAX, "{} KiB", peak >> 10);
}

#[test]
fn clients_cost_bounded_memory() {
    crowd(&Serve::start(false));
}

#[test]
fn clients_over_tls_cost_bounded_memory() {
    crowd(&Serve::start(true));
}

#[test]
fn the_memory_for_a_manifest_is_only_slightly_larger_than_its_size() {
    // The manifest has 4 MiB of annotations and URLs, which are not used.
    let annotations: String = (0..250_000).map(|n| format!("\"{n:06}\":\"\",")).collect();
    let urls = format!("[{}]", "\"\",".repeat(350_000) + "\"\"");
    let blob = format!(r#""mediaType":"x","digest":"{}","size":2"#, Digest::of(b"{}"));
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{{blob}}},"layers":[{{{blob},"urls":{urls},"annotations":{{{annotations}"x":""}}}}]}}"#
    );
    assert!(manifest.len() < 4 << 20);
    let host = Host::new();
    host.write_key();
    let server = Server::new(move |_| ok(manifest.clone()));
    let args = ["export", "--key", "exporter.key", "--output", "out", "--only", "trivy-db"];
    let image = format!("{}/i:1", server.host);
    let also = host.bounded(
        &[
            &args[..3],
            &["--output", "out", "--skip", "trivy-db,trivy-java-db,trivy-checks,vex-hub", "--image", &image],
        ]
        .concat(),
    );
    assert_ne!(also.code, 0, "{also:#?}");
    let db = host.bounded(&[&args[..], &["--db-repository", &image]].concat());
    assert_ne!(db.code, 0, "{db:#?}");
}
