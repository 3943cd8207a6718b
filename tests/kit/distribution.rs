//! Registries of distribution's code, in the set-ups that sites have.

use std::fs;

use serde_json::json;

use super::{Host, Registry};

/// How one is set up. Without anything: over plain HTTP, open to everybody.
#[derive(Default)]
pub struct Distribution<'a> {
    /// Lines of an htpasswd file: who may come in.
    pub users: Option<&'a str>,
    /// It speaks TLS with a certificate of a private CA, the publisher's file `ca.pem`.
    pub tls: bool,
    /// It asks for a client certificate of that CA, such as the publisher's file `client.pem`, which
    /// holds the key as well.
    pub client_certificates: bool,
    /// Where its content lies, if not in a folder of the publisher's.
    pub storage: Option<&'a str>,
    /// The registry that it is a pull-through cache of.
    pub cache_of: Option<&'a Registry>,
}

impl Distribution<'_> {
    /// Starts distribution v3.
    pub fn start(&self, tools: &str) -> Registry {
        self.start_program(&format!("{tools}/registry"), tools)
    }

    /// Starts Debian's, which is distribution 2.8.
    pub fn start_debian(&self, tools: &str) -> Registry {
        self.start_program("docker-registry", tools)
    }

    fn start_program(&self, program: &str, tools: &str) -> Registry {
        let regctl = if self.tls { "insecure" } else { "disabled" };
        let registry = Registry::start_with(tools, regctl, |host, address| {
            fs::write(host.at("registry.yml"), self.configuration(host, address)).unwrap();
            let mut command = host.command(program);
            command.args(["serve", "registry.yml"]).env("OTEL_TRACES_EXPORTER", "none");
            command
        });
        if self.client_certificates {
            let pem = "\"$(cat client.pem)\"";
            let address = &registry.address;
            let set =
                format!("regctl registry set --skip-check --client-cert {pem} --client-key {pem} {address}");
            registry.publisher.sh(&set).exits(0);
        }
        registry
    }

    /// The configuration as JSON, which YAML takes.
    fn configuration(&self, host: &Host, address: &str) -> String {
        let storage = self.storage.map_or_else(|| host.folder("registry"), str::to_owned);
        let mut config = json!({
            "version": "0.1",
            "log": { "level": "error", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": storage } },
            "http": { "addr": address },
        });
        if let Some(users) = self.users {
            fs::write(host.at("htpasswd"), users).unwrap();
            config["auth"] = json!({ "htpasswd": { "realm": "test", "path": host.at("htpasswd") } });
        }
        if self.tls {
            write_certificates(host);
            let tls = json!({ "certificate": host.at("server.pem"), "key": host.at("server.key") });
            config["http"]["tls"] = tls;
        }
        if self.client_certificates {
            config["http"]["tls"]["clientcas"] = json!([host.at("ca.pem")]);
        }
        if let Some(upstream) = self.cache_of {
            config["proxy"] = json!({ "remoteurl": format!("http://{}", upstream.address) });
        }
        config.to_string()
    }
}

/// Writes the certificate of a private CA, `ca.pem`, a certificate of 127.0.0.1 that it issued,
/// `server.pem` with `server.key`, and one of a client, `client.pem`.
pub fn write_certificates(host: &Host) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &ca_key);
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let (server, server_key) = issue("127.0.0.1");
    let (client, client_key) = issue("station.example");
    let files = [
        ("ca.pem", ca.pem()),
        ("server.pem", server),
        ("server.key", server_key),
        ("client.pem", client + &client_key),
    ];
    for (name, pem) in files {
        fs::write(host.at(name), pem).unwrap();
    }
}
