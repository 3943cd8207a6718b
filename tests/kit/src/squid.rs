//! The proxy of a company: squid, on loopback.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::authority::{Authority, NAME};
use crate::http::own_address;
use crate::process::{Process, wait_for};

const HELPERS: &str = "/usr/lib/squid";

/// The configuration of squid.
#[derive(Default)]
pub struct Squid<'a> {
    /// Whether it requires the user `ann` with the password `secret`.
    pub login: bool,
    /// The authority with which it intercepts TLS, if it does.
    pub opens_tls: Option<&'a Authority>,
    /// The authority that it trusts for upstream servers.
    pub trusts: Option<&'a Authority>,
}

/// A running squid. It ends when dropped.
pub struct Running {
    /// `HOST:PORT`.
    pub address: String,
    dir: TempDir,
    process: Process,
}

impl Squid<'_> {
    /// Starts squid.
    ///
    /// # Panics
    /// If squid is missing or does not start.
    pub fn start(&self) -> Running {
        let dir = tempfile::Builder::new().prefix("squid").tempdir().unwrap();
        // squid drops root's privileges, so its files must belong to its user.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let address = own_address();
        fs::write(at("hosts"), format!("127.0.0.1 {NAME}\n")).unwrap();
        let mut config = format!(
            "hosts_file {}\naccess_log stdio:{}\ncache_log {}\ncache_store_log none\npid_filename none\n\
             cache deny all\nvisible_hostname proxy.test\nshutdown_lifetime 0 seconds\nworkers 1\n\
             connect_timeout 5 seconds\nforward_max_tries 1\nacl CONNECT method CONNECT\n",
            at("hosts"),
            at("access.log"),
            at("cache.log")
        );
        if self.login {
            let hash = Command::new("openssl").args(["passwd", "-apr1", "secret"]).output().unwrap();
            fs::write(at("users"), format!("ann:{}", String::from_utf8(hash.stdout).unwrap())).unwrap();
            config += &format!(
                "auth_param basic program {HELPERS}/basic_ncsa_auth {}\nacl known proxy_auth REQUIRED\n\
                 http_access allow known\n",
                at("users")
            );
        } else {
            config += "http_access allow all\n";
        }
        match self.opens_tls {
            Some(authority) => {
                fs::write(at("proxy.pem"), authority.with_key()).unwrap();
                let made = Command::new(format!("{HELPERS}/security_file_certgen"))
                    .args(["-c", "-s", &at("certificates"), "-M", "4MB"])
                    .stdout(Stdio::null())
                    .status()
                    .unwrap();
                assert!(made.success());
                let owned =
                    Command::new("chown").args(["-R", "proxy", &at("certificates")]).status().unwrap();
                assert!(owned.success());
                config += &format!(
                    "http_port {address} ssl-bump tls-cert={} generate-host-certificates=on\nssl_bump bump all\n\
                     sslcrtd_program {HELPERS}/security_file_certgen -s {} -M 4MB\n",
                    at("proxy.pem"),
                    at("certificates")
                );
            }
            None => config += &format!("http_port {address}\n"),
        }
        if let Some(authority) = self.trusts {
            fs::write(at("behind.pem"), &authority.pem).unwrap();
            config += &format!("tls_outgoing_options cafile={}\n", at("behind.pem"));
        }
        fs::write(at("squid.conf"), config).unwrap();
        let log = fs::File::create(at("stderr")).unwrap();
        let mut command = Command::new("squid");
        command.args(["-N", "-f", &at("squid.conf")]).stdout(Stdio::null()).stderr(log);
        let process = Process::start(&mut command);
        let mut running = Running { address, dir, process };
        wait_for("squid", || {
            assert!(running.process.is_running(), "{}", running.said());
            TcpStream::connect(&running.address).ok()
        });
        running
    }
}

impl Running {
    /// Returns the access log, a line for each request.
    pub fn passed(&self) -> String {
        fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default()
    }

    fn said(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        read("stderr") + &read("cache.log")
    }
}
