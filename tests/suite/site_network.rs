//! The network of a site: the program uses logins, proxies and certificates in the same way as
//! other tools on the host. The tables in `tests/rules` have the rules, and these tests apply them
//! in complete runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::json;
use test_kit::answers::{header, ok, status};
use test_kit::authority::{Authority, NAME};
use test_kit::http::{ClosedPort, Method, Server, each_connection, relay};
use test_kit::process::Run;
use test_kit::registry::Registry;

use crate::forge::{self, Bundle, Host, Part, days};

/// Returns a host with a bundle of all datasets.
fn importer() -> (Host, PathBuf) {
    let host = Host::new();
    let bundle = Bundle::of(days(-1), &Part::all(days(-1)));
    let path = host.file("bundle.tar", bundle.signed(&host.key));
    (host, path)
}

/// Pushes into these places, with these environment variables.
fn push(host: &Host, bundle: &PathBuf, places: &str, variables: &[(&str, &str)], more: &[&str]) -> Run {
    let mut command = host.command();
    command.envs(variables.iter().copied()).args(["import", "--registry", places]).args(more);
    command.args(["--trust", &host.at("keys/exporter.pub"), "--state-dir", &host.at("state")]).arg(bundle);
    forge::run(command)
}

fn base64(text: &str) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)
}

/// The files with logins for Podman (sigstore/cosign issue 587, skopeo issue 962), and keys for
/// organizations (quay/quay PR 2823, osscontainertools/kaniko PR 1002).
#[test]
fn each_repository_gets_its_login_of_podman_or_docker() {
    let (host, bundle) = importer();
    let registry = Registry::new(|seen| {
        let name = if seen.path.starts_with("/v2/p/") { "p" } else { "q" };
        let login = format!("Basic {}", base64(&format!("{name}-robot:secret")));
        let is_known = seen.authorization.as_deref() == Some(&login);
        (!is_known).then(|| header(status(401), "www-authenticate", r#"Basic realm="r""#))
    });
    let places = format!("{0}/p,{0}/q/deep", registry.host);
    let login = |name: &str| json!({ "auth": base64(&format!("{name}-robot:secret")) });
    let keys = |p: &str, q: &str| {
        let key = |end: &str| format!("{}{end}", registry.host);
        json!({ "auths": { key(p): login("p"), key(q): login("q"), key("/q/other"): login("x") } })
            .to_string()
    };
    let session = host.at("session");
    let variables = [("XDG_RUNTIME_DIR", session.as_str())];
    push(&host, &bundle, &places, &variables, &[]).exits(7).warns("docker login");
    // An entry for the repository in an earlier file takes precedence over an entry for the host in
    // a later one.
    for (file, text) in [
        ("session/containers/auth.json", keys("/p", "/q")),
        ("xdg-config/containers/auth.json", keys("/p", "")),
        ("home/.docker/config.json", keys("/p", "/q/deep")),
    ] {
        println!("{file}");
        registry.forget_tags();
        let path = host.file(file, text);
        push(&host, &bundle, &places, &variables, &[]).good();
        assert_eq!(registry.tags().len(), 6, "{:#?}", registry.tags());
        std::fs::remove_file(path).unwrap();
    }
    let named = host.file("named.json", keys("/p", "/q")).display().to_string();
    registry.forget_tags();
    push(&host, &bundle, &places, &[("REGISTRY_AUTH_FILE", &named)], &[]).good();
    let missing = [("REGISTRY_AUTH_FILE", "/nonexistent/auth.json")];
    push(&host, &bundle, &places, &missing, &[]).exits(7).warns("REGISTRY_AUTH_FILE names");
}

/// The meaning of `NO_PROXY`, and the messages about it (request/request issue 2194,
/// seanmonstar/reqwest issues 2579 and 2873).
#[test]
fn messages_about_a_proxy_are_true() {
    let (host, bundle) = importer();
    let closed = ClosedPort::new();
    let proxy = format!("http://{}", closed.address());
    let place = format!("{NAME}/p");
    let run = |variables: &[(&str, &str)]| push(&host, &bundle, &place, variables, &[]).exits(7).err.clone();
    let through = "Check the proxy in HTTPS_PROXY";
    for except in ["", "other.test", ".upstream.test", "*.upstream.test", "upstream.test:5000", "u*"] {
        let said = run(&[("HTTPS_PROXY", &proxy), ("NO_PROXY", except)]);
        assert!(said.contains(through) && said.contains(&format!("NO_PROXY={NAME}")), "{except}: {said}");
    }
    for except in ["upstream.test", "*.test", ".TEST", "a.test, test", "upstream.test:443", "*"] {
        let said = run(&[("HTTPS_PROXY", &proxy), ("NO_PROXY", except)]);
        assert!(said.contains("cannot be resolved") && !said.contains(through), "{except}: {said}");
        assert!(said.contains("the proxy in HTTPS_PROXY is not used"), "{except}: {said}");
    }
    // An empty variable counts as unset, and the next one applies.
    let said = run(&[("HTTPS_PROXY", ""), ("ALL_PROXY", &proxy)]);
    assert!(said.contains("Check the proxy in ALL_PROXY"), "{said}");
    // If a proxy cannot be used, nothing is sent without it.
    for (value, why) in
        [("socks4://u:s3cret@h:1", "socks4:// is not supported"), ("http://u:s3cret@[", "address")]
    {
        let said = run(&[("https_proxy", value)]);
        assert!(said.contains("the proxy in https_proxy cannot be used") && said.contains(why), "{said}");
        assert!(said.contains("socks5h://") && !said.contains("s3cret"), "{said}");
    }
}

/// Starts a SOCKS 5 proxy (RFC 1928, RFC 1929) that connects all clients to one place. It requires
/// the login, if there is one, and responds with `status`. Returns its address, and records the
/// requested names.
fn socks_to(
    place: String,
    login: Option<&'static str>,
    status: u8,
    asked: Arc<Mutex<Vec<String>>>,
) -> String {
    each_connection(move |mut client| {
        let mut receive = |length: usize| {
            let mut bytes = vec![0; length];
            client.read_exact(&mut bytes).ok().map(|()| bytes)
        };
        let mut talk = || {
            let methods = receive(2)?;
            let offered = receive(methods[1].into())?;
            let wanted = if login.is_some() { 2 } else { 0 };
            let chosen = if offered.contains(&wanted) { wanted } else { 0xff };
            Some(chosen)
        };
        let Some(chosen) = talk() else { return };
        client.write_all(&[5, chosen]).unwrap();
        if chosen == 0xff {
            return;
        }
        let text = |client: &mut TcpStream, before: usize| {
            let mut head = vec![0; before + 1];
            client.read_exact(&mut head).ok()?;
            let mut bytes = vec![0; (*head.last().unwrap()).into()];
            client.read_exact(&mut bytes).ok()?;
            Some(String::from_utf8(bytes).unwrap())
        };
        if let Some(login) = login {
            let (name, password) = (text(&mut client, 1).unwrap(), text(&mut client, 0).unwrap());
            let is_known = format!("{name}:{password}") == login;
            client.write_all(&[1, u8::from(!is_known)]).unwrap();
            if !is_known {
                return;
            }
        }
        // The version, the command, a reserved byte, and the type of the address, which is a name.
        let Some(name) = text(&mut client, 4) else { return };
        asked.lock().unwrap().push(name);
        let mut port = [0; 2];
        client.read_exact(&mut port).unwrap();
        client.write_all(&[5, status, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        if status != 0 {
            return;
        }
        relay(client, TcpStream::connect(&place).unwrap());
    })
}

/// A jump host with `ssh -D` (lambdaclass/ethrex PR 4481, rust-lang/rustup issue 2409).
#[test]
fn all_connections_use_socks_and_no_name_is_looked_up_here() {
    let (host, bundle) = importer();
    let authority = Authority::new();
    let ca = host.file("ca.pem", &authority.pem).display().to_string();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    // Reads and pushes use TLS and plain HTTP, with and without a login.
    let tls = Registry::over(Some(authority.server(false)), |_| None);
    let plain = Registry::new(|_| None);
    let flags = ["--cacert", ca.as_str()];
    for (registry, scheme, login, variable, more) in [
        (&tls, "socks5h://ann:se%63ret@", Some("ann:secret"), "HTTPS_PROXY", flags.as_slice()),
        (&tls, "socks5://", None, "all_proxy", flags.as_slice()),
        (&plain, "socks5h://", None, "http_proxy", ["--plain-http"].as_slice()),
    ] {
        println!("{scheme} {variable}");
        registry.forget_tags();
        registry.forget_blobs();
        let proxy = socks_to(registry.host.clone(), login, 0, asked.clone());
        let place = registry.host.replace("127.0.0.1", NAME) + "/p";
        push(&host, &bundle, &place, &[(variable, &format!("{scheme}{proxy}"))], more).good();
        assert_eq!(registry.tags().len(), 3, "{:#?}", registry.tags());
        assert!(registry.seen().iter().any(|seen| seen.method == Method::PUT));
    }
    assert!(asked.lock().unwrap().iter().all(|name| name == NAME), "{asked:?}");
    // A proxy requires a login, rejects the connection, or does not speak SOCKS.
    let place = tls.host.replace("127.0.0.1", NAME) + "/p";
    let run =
        |proxy: &str| push(&host, &bundle, &place, &[("HTTPS_PROXY", proxy)], &flags).exits(7).err.clone();
    let wants = socks_to(tls.host.clone(), Some("ann:secret"), 0, Arc::default());
    for login in ["", "ann:wrong@"] {
        let said = run(&format!("socks5h://{login}{wants}"));
        assert!(said.contains("The proxy requires a login: put it into HTTPS_PROXY"), "{said}");
    }
    let forbids = socks_to(tls.host.clone(), None, 2, Arc::default());
    let said = run(&format!("socks5h://{forbids}"));
    assert!(said.contains("Check the proxy in HTTPS_PROXY"), "{said}");
    let said = run(&format!("socks5h://{}", plain.host));
    assert!(said.contains("Check the proxy in HTTPS_PROXY"), "{said}");
}

/// Logins for VEX repositories: Trivy reads them from `repository.yaml` and `~/.netrc` (trivy
/// v0.74.0, `pkg/downloader/download.go`; requested in kubewarden/sbomscanner PR 326).
#[test]
fn a_vex_repository_gets_the_login_of_its_host_and_no_other() {
    let elsewhere = Server::new(|_| ok(forge::vex_archive("x", days(-1))));
    let other = elsewhere.url("/vex.tar.gz//x");
    let server = Server::new(move |seen| {
        let logins = [Some(format!("Basic {}", base64("ann:s3cret"))), Some("Bearer s3cret".to_owned())];
        let leads_away = seen.path.starts_with("/away/");
        if !leads_away && !logins.contains(&seen.authorization) {
            return status(401);
        }
        if seen.path.ends_with("vex-repository.json") {
            let own = format!("http://{}/vex.tar.gz//x", seen.host);
            let location = if leads_away { &other } else { &own };
            return ok(json!({"name": "x", "description": "", "versions": [{"spec_version": "0.1",
                "locations": [{"url": location}], "update_interval": "24h"}]})
            .to_string());
        }
        ok(forge::vex_archive("x", days(-1)))
    });
    let host = Host::new();
    host.write_key();
    let export = |path: &str, variables: &[(&str, &str)]| {
        let mut command = host.command();
        let vex = format!("default=http://{}{path}", server.host);
        command.envs(variables.iter().copied()).args(["export", "--only", "vex-hub", "--vex", &vex]);
        command.args(["--key", &host.at("exporter.key"), "--output", &host.at("out")]);
        command.args(["--state-dir", &host.at("state")]);
        forge::run(command)
    };
    export("", &[]).fails_with(3, &["status 401", "~/.netrc"]);
    let (host_name, _) = server.host.split_once(':').unwrap();
    host.file("home/.netrc", format!("machine {host_name} login ann password wrong"));
    export("", &[]).fails_with(3, &["rejected the login in the netrc file"]);
    host.file("home/.netrc", "default login ann password s3cret");
    export("", &[]).fails_with(3, &["status 401", "~/.netrc"]);
    host.file("home/.netrc", format!("# hub\nmachine {host_name}\n  login ann\n  password s3cret\n"));
    let ran = export("", &[]);
    ran.good();
    assert!(!ran.out.contains("s3cret") && !ran.err.contains("s3cret"));
    std::fs::remove_file(host.path("home/.netrc")).unwrap();
    let named = host.file("netrc", format!("machine {} login <token> password s3cret", server.host));
    let named = named.display().to_string();
    host.wait(2);
    export("", &[("NETRC", &named)]).good();
    // The manifest names another server, and there is a login for that server as well.
    let both = format!(
        "machine {} login ann password s3cret\nmachine {} login ann password s3cret",
        server.host, elsewhere.host
    );
    host.file("netrc", both);
    host.wait(2);
    export("/away", &[("NETRC", &named)]).good();
    assert!(elsewhere.seen().iter().all(|seen| seen.authorization.is_none()), "{:#?}", elsewhere.seen());
    assert!(!elsewhere.seen().is_empty());
}

/// Returns a TLS server with a self-signed certificate, which may be marked as a CA, and the
/// certificate.
fn own_certificate(key: &rcgen::KeyPair, is_ca: bool) -> (Arc<rustls::ServerConfig>, rcgen::Certificate) {
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    if is_ca {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    let certificate = params.self_signed(key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    (Arc::new(config), certificate)
}

/// Servers with their own CA (confidential-containers/guest-components PR 1569), and keys of a
/// company's CA (kanidm/kanidm issue 4002, rustls issue 2054). The rules for chains are in
/// `tests/rules/certificates.json`.
#[test]
fn a_registry_with_a_self_signed_certificate_is_trusted_if_the_certificate_is_given() {
    let (host, bundle) = importer();
    for (algorithm, is_ca) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, true),
        (&rcgen::PKCS_ECDSA_P521_SHA512, true),
        (&rcgen::PKCS_ECDSA_P384_SHA384, false),
    ] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let (config, certificate) = own_certificate(&key, is_ca);
        let registry = Registry::over(Some(config), |_| None);
        let place = format!("{}/p", registry.host);
        let pem = certificate.pem();
        let broken = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let ca = host.file("ca.pem", format!("{broken}{pem}")).display().to_string();
        push(&host, &bundle, &place, &[], &[]).exits(7).warns("is not trusted").warns("--cacert");
        let ran = push(&host, &bundle, &place, &[], &["--cacert", &ca]);
        ran.good();
        assert!(ran.err.contains("ca.pem: certificate 1 in it cannot be used"), "{ran}");
        assert_eq!(registry.tags().len(), 3);
        // The certificate is in the system's store, in both forms.
        let trusted = pem.replace(" CERTIFICATE-", " TRUSTED CERTIFICATE-");
        for text in [&pem, &trusted] {
            registry.forget_tags();
            let system = host.file("system.pem", text).display().to_string();
            push(&host, &bundle, &place, &[("SSL_CERT_FILE", &system)], &[]).good();
        }
        // The certificate is trusted only for its names, and not as a CA.
        let elsewhere = place.replace("127.0.0.1", "localhost");
        push(&host, &bundle, &elsewhere, &[], &["--cacert", &ca])
            .exits(7)
            .warns("not valid for")
            .warns("a name that is in the certificate");
    }
}

/// An attacker with the key of a trusted self-signed server cannot impersonate another server: curl
/// and Go (`crypto/x509`, `CheckSignatureFrom`) accept no certificate without `CA:TRUE` as an
/// issuer.
#[test]
fn the_key_of_a_trusted_server_cannot_issue_trusted_certificates() {
    let (host, bundle) = importer();
    let key = rcgen::KeyPair::generate().unwrap();
    for (is_ca, is_trusted) in [(false, false), (true, true)] {
        let mut params = rcgen::CertificateParams::new(vec!["r.example".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "r.example");
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        if is_ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let trusted = params.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::from_params(&params, &key);
        let own_key = rcgen::KeyPair::generate().unwrap();
        let minted = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let minted = minted.signed_by(&own_key, &issuer).unwrap();
        let chain = vec![minted.der().clone(), trusted.der().clone()];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, own_key.serialize_der().try_into().unwrap())
            .unwrap();
        let registry = Registry::over(Some(Arc::new(config)), |_| None);
        let place = format!("{}/p", registry.host);
        let pem = host.file("trusted.pem", trusted.pem()).display().to_string();
        let other = trusted.pem().replace(" CERTIFICATE-", " TRUSTED CERTIFICATE-");
        let other = host.file("other.pem", other).display().to_string();
        for (system, given) in [
            ("", &["--cacert", pem.as_str()][..]),
            ("", &["--cacert", other.as_str()]),
            (pem.as_str(), &[]),
            (other.as_str(), &[]),
        ] {
            let variables = [("SSL_CERT_FILE", system)];
            let variables = if system.is_empty() { &[][..] } else { &variables[..] };
            let ran = push(&host, &bundle, &place, variables, given);
            if is_trusted {
                ran.good();
            } else {
                ran.exits(7).warns("is not trusted");
            }
        }
    }
}
