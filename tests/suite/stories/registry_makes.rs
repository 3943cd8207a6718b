//! Other registries: older versions, registries with client certificates, and pull-through caches.

use test_kit::artifact::{Form, sample};
use test_kit::host::{Host, text};
use test_kit::real::{Distribution, Registry};
use test_kit::tools;

use crate::stories::bare;
use crate::stories::registry::{artifacts, carried, three};
use crate::stories::upstream::{USERS, crosses, log_in};

#[test]
#[ignore = "tools"]
fn debians_registry_accepts_the_data_of_upstream() {
    let tools = tools();
    let (_laptop, bundle, public) = carried();
    let plain = Distribution::default();
    let closed = Distribution { users: Some(USERS), tls: true, ..Distribution::default() };
    for set_up in [plain, closed] {
        let registry = set_up.start_debian(&tools);
        let importer = bare();
        let mut import = format!("import {bundle} --trust {public} --registry {}/security", registry.address);
        if set_up.tls {
            import += &format!(" --cacert {}", registry.publisher.at("ca.pem"));
        }
        if set_up.users.is_some() {
            importer.ferry(&import).exits(7).warns("docker login");
            for host in [&importer, &registry.publisher] {
                log_in(host, &registry.address, "ferry:carried");
            }
        }
        import += " --format json";
        assert_eq!(importer.ferry(&import).exits(0).statuses(), three("pushed"));
        for artifact in artifacts() {
            let reference = format!("security/{}:{}", artifact.dataset, artifact.tag);
            assert_eq!(registry.digest_of(&reference), artifact.digest(), "{reference}");
        }
        assert_eq!(importer.ferry(&import).exits(0).statuses(), three("unchanged"));
    }
}

#[test]
#[ignore = "tools"]
fn a_client_certificate_is_used_if_it_is_given() {
    let tools = tools();
    let (laptop, bundle, public) = carried();
    let set_up =
        || Distribution { tls: true, client_certificates: true, ..Distribution::default() }.start(&tools);
    let (registry, other) = (set_up(), set_up());
    let (address, importer) = (&registry.address, bare());
    let own = format!("--client-cert {}", registry.publisher.at("client.pem"));
    let of_another_ca = format!("--client-cert {}", other.publisher.at("client.pem"));
    let ca = registry.publisher.at("ca.pem");
    let import =
        format!("import {bundle} --trust {public} --registry {address}/mutual --cacert {ca} --format json");
    let export = format!(
        "export --key ferry.key --output {} --cacert {ca} --only trivy-db --db-repository {address}/mutual/trivy-db",
        laptop.dir("again")
    );
    let rejected = |host: &Host, line: &str, code: i32| {
        for certificate in ["", &of_another_ca] {
            let run = host.ferry(&format!("{line} {certificate}"));
            run.exits(code);
            run.warns(&format!("{address} requires a client certificate")).warns("--client-cert");
        }
    };
    rejected(&importer, &import, 7);
    assert_eq!(importer.ferry(&format!("{import} {own}")).exits(0).statuses(), three("pushed"));
    for artifact in artifacts() {
        // crane sends no client certificate; regctl does.
        let reference = format!("{address}/mutual/{}:{}", artifact.dataset, artifact.tag);
        let head = registry.publisher.sh(&format!("regctl manifest head {reference}"));
        head.exits(0);
        assert_eq!(head.out.trim(), artifact.digest(), "{reference}");
    }
    assert_eq!(importer.ferry(&format!("{import} {own}")).exits(0).statuses(), three("unchanged"));
    // The key may be in a separate file, as with cert-manager and Kubernetes.
    let pem = text(registry.publisher.at("client.pem"));
    let (certificate, key) = pem.split_at(pem.rfind("-----BEGIN").unwrap());
    importer.file("tls.crt", certificate);
    importer.file("tls.key", key);
    let apart = format!("{import} --client-cert tls.crt");
    importer.ferry(&apart).exits(2).warns("tls.crt").warns("it holds no private key");
    assert_eq!(
        importer.ferry(&format!("{apart} --client-key tls.key")).exits(0).statuses(),
        three("unchanged")
    );
    importer.ferry(&format!("{apart} --client-key tls.crt")).exits(2).warns("tls.crt");
    // An export from this registry needs the certificate as well.
    rejected(&laptop, &export, 3);
    laptop.ferry(&format!("{export} {own}")).exits(0);
}

#[test]
#[ignore = "tools"]
fn a_pull_through_cache_is_as_good_a_source_as_upstream() {
    let tools = tools();
    for form in [Form::ZeroByteConfig, Form::ArtifactType] {
        let artifacts = artifacts().map(|artifact| artifact.in_form(form));
        let upstream = Registry::distribution(&tools, None);
        artifacts.iter().for_each(|artifact| upstream.publish_as_it_is(artifact));
        let cache = Distribution { cache_of: Some(&upstream), ..Distribution::default() }.start(&tools);
        let flags = format!("{} --vex default={}", cache.flags(), sample("vex-hub"));
        // At the first export, the cache downloads the content; at the second, it has the content.
        for _ in 0..2 {
            crosses(&bare(), &artifacts, &flags);
        }
    }
}
