//! Tests the table of certificates with this module and with Go's `crypto/x509`.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use super::*;

const TABLE: &str = include_str!("../../../tests/rules/certificates.json");

/// Certificates: those that a server sends, those that a client trusts, and whether the client accepts the
/// server.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    what: String,
    certificates: Value,
    sends: Vec<String>,
    trusts: Vec<String>,
    host: String,
    trusted: bool,
    /// The reason why Go decides differently.
    why: Option<String>,
}

/// The certificates and decisions of the program with Go's library.
#[derive(serde::Deserialize)]
struct Decision {
    trusted: bool,
    why: String,
    pem: BTreeMap<String, String>,
}

fn options(roots: Vec<CertificateDer<'static>>) -> TlsOptions {
    TlsOptions { roots, ..TlsOptions::default() }
}

fn verdict(
    roots: Vec<CertificateDer<'static>>,
    chain: &[CertificateDer<'static>],
    host: &str,
) -> Result<(), rustls::Error> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let (own, above) = chain.split_first().unwrap();
    verifier(&options(roots)).unwrap().verify_server_cert(own, above, &name, &[], UnixTime::now()).map(drop)
}

#[test]
#[ignore = "tools"]
fn servers_are_trusted_as_by_go() {
    let cases: Vec<Case> = serde_json::from_str(TABLE).unwrap();
    let questions: Vec<Value> = cases
        .iter()
        .map(|Case { certificates, sends, trusts, host, .. }| {
            json!({ "certificates": certificates, "sends": sends, "trusts": trusts, "host": host })
        })
        .collect();
    let decisions = test_kit::decided_by_go("certificates", &questions);
    assert_eq!(decisions.len(), cases.len());
    let directory = tempfile::tempdir().unwrap();
    for (case, decision) in cases.iter().zip(decisions) {
        let Decision { trusted, why, pem } = serde_json::from_value(decision).unwrap();
        let der = |name: &String| CertificateDer::from_pem_slice(pem[name].as_bytes()).unwrap();
        let chain: Vec<_> = case.sends.iter().map(der).collect();
        // Read the certificates as `--cacert` does.
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, case.trusts.iter().map(|name| pem[name].as_str()).collect::<String>()).unwrap();
        let roots = certificates(&path).map(|file| file.roots).unwrap_or_default();
        let ours = verdict(roots, &chain, &case.host);
        assert_eq!(ours.is_ok(), case.trusted, "{}: {ours:?}; Go: {why}", case.what);
        assert_eq!(trusted != case.trusted, case.why.is_some(), "{}: {ours:?}; Go: {why}", case.what);
    }
}

/// A self-signed certificate that is marked as a CA, as users create it for a registry
/// (confidential-containers/guest-components pull request 1569).
fn own_certificate(names: &[&str], days: i64) -> rcgen::Certificate {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
    let date = until.to_zoned(jiff::tz::TimeZone::UTC);
    params.not_after = rcgen::date_time_ymd(date.year().into(), date.month() as u8, date.day() as u8);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn a_self_signed_certificate_of_a_server_is_accepted_only_if_it_is_trusted() {
    let own = own_certificate(&["r.example", "*.apps.example"], 30).der().clone();
    let other = own_certificate(&["r.example"], 30).der().clone();
    let expired = own_certificate(&["r.example"], -30).der().clone();
    let trusts = |roots: &[&CertificateDer<'static>], chain: &CertificateDer<'static>, host: &str| {
        let roots = roots.iter().map(|root| (*root).clone()).collect();
        verdict(roots, std::slice::from_ref(chain), host)
    };
    trusts(&[&own], &own, "r.example").unwrap();
    trusts(&[&other, &own], &own, "a.apps.example").unwrap();
    assert!(trusts(&[&other], &own, "r.example").is_err());
    assert!(trusts(&[], &own, "r.example").is_err());
    let name = trusts(&[&own], &own, "s.example").unwrap_err().to_string();
    assert!(name.contains("s.example") || name.contains("not valid for"), "{name}");
    let date = trusts(&[&expired], &expired, "r.example").unwrap_err().to_string();
    assert!(date.contains("xpired"), "{date}");
}

#[test]
fn a_bad_certificate_in_a_file_is_skipped_with_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bundle.pem");
    let good = own_certificate(&["r.example"], 30).pem();
    let cut = good.replacen("MII", "MI", 1);
    let no_base64 = "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n".to_owned();
    let other = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_owned();
    let open = "-----BEGIN CERTIFICATE-----\nMAA=\n".to_owned();
    for bad in [&cut, &no_base64, &other] {
        for text in [format!("# a remark\n{good}{bad}"), format!("{bad}\r\n{good}")] {
            std::fs::write(&path, text).unwrap();
            let file = certificates(&path).unwrap();
            assert_eq!((file.roots.len(), file.warnings.len()), (1, 1), "{bad}");
            assert!(file.warnings[0].contains("bundle.pem: certificate"), "{:?}", file.warnings);
        }
    }
    std::fs::write(&path, format!("{good}{open}")).unwrap();
    assert_eq!(certificates(&path).unwrap().roots.len(), 1);
    // Keys and other parts of a CA file are skipped; the old label of a certificate is accepted.
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(&path, key + &good.replace(" CERTIFICATE-", " X509 CERTIFICATE-")).unwrap();
    let file = certificates(&path).unwrap();
    assert_eq!((file.roots.len(), file.warnings.len()), (1, 0));
}

#[test]
#[ignore = "tools"]
fn the_trust_settings_of_openssl_are_applied() {
    let directory = tempfile::tempdir().unwrap();
    let (plain, trusted) = (directory.path().join("plain.pem"), directory.path().join("trusted.pem"));
    let certificate = own_certificate(&["r.example"], 30);
    std::fs::write(&plain, certificate.pem()).unwrap();
    let openssl = |more: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["x509", "-trustout", "-in"]).arg(&plain).arg("-out").arg(&trusted).args(more);
        assert!(command.output().unwrap().status.success());
        assert!(
            std::fs::read_to_string(&trusted).unwrap().starts_with("-----BEGIN TRUSTED CERTIFICATE-----")
        );
        certificates(&trusted)
    };
    for more in
        [&[][..], &["-addtrust", "serverAuth"], &["-setalias", "ours"], &["-addreject", "emailProtection"]]
    {
        assert_eq!(openssl(more).unwrap().roots, [certificate.der().clone()], "{more:?}");
    }
    for more in
        [["-addreject", "serverAuth"], ["-addtrust", "clientAuth"], ["-addreject", "anyExtendedKeyUsage"]]
    {
        let error = openssl(&more).unwrap_err().to_string();
        assert!(error.contains("exclude servers"), "{more:?}: {error}");
    }
}
