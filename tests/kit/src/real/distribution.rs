//! Registries with the code of CNCF distribution, in the configurations of real sites.

use serde_json::json;

use super::Registry;
use crate::authority::Authority;
use crate::host::Host;

/// The configuration of a registry. By default, it uses plain HTTP and needs no login.
#[derive(Default)]
pub struct Distribution<'a> {
    /// Lines of an htpasswd file with the users.
    pub users: Option<&'a str>,
    /// Whether it uses TLS with a certificate of a private CA, the publisher's file `ca.pem`.
    pub tls: bool,
    /// Whether it requires a client certificate of that CA, such as the publisher's file `client.pem`, which
    /// contains the key as well.
    pub client_certificates: bool,
    /// The directory of its content, if it is not in the publisher's home.
    pub storage: Option<&'a str>,
    /// The registry for which it is a pull-through cache.
    pub cache_of: Option<&'a Registry>,
}

impl Distribution<'_> {
    /// Starts distribution v3.
    pub fn start(&self, tools: &str) -> Registry {
        self.start_program(&format!("{tools}/registry"), tools)
    }

    /// Starts Debian's package of distribution 2.8.
    pub fn start_debian(&self, tools: &str) -> Registry {
        self.start_program("docker-registry", tools)
    }

    fn start_program(&self, program: &str, tools: &str) -> Registry {
        let regctl = if self.tls { "insecure" } else { "disabled" };
        let registry = Registry::start_with(tools, regctl, "listening on ", |host| {
            host.file("registry.yml", self.configuration(host));
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

    /// Returns the configuration as JSON, which is valid YAML.
    fn configuration(&self, host: &Host) -> String {
        let storage = self.storage.map_or_else(|| host.dir("registry"), str::to_owned);
        let mut config = json!({
            "version": "0.1",
            "log": { "level": "info", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": storage } },
            "http": { "addr": "127.0.0.1:0" },
        });
        if let Some(users) = self.users {
            host.file("htpasswd", users);
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

/// Writes `ca.pem`, the certificate of a private CA. The CA issues two certificates: `server.pem`
/// for 127.0.0.1, with its key in `server.key`, and `client.pem` for a client, with its key.
pub fn write_certificates(host: &Host) {
    let authority = Authority::new();
    let (server, server_key) = authority.issue(&["127.0.0.1"]);
    let (client, client_key) = authority.issue(&["importer.example"]);
    host.file("ca.pem", &authority.pem);
    host.file("server.pem", server);
    host.file("server.key", server_key);
    host.file("client.pem", client + &client_key);
}
