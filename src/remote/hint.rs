//! The hints for the errors of requests to servers.

use std::time::Duration;

use crate::hint::Hint;
use crate::remote::PAUSE;
use crate::remote::cloud_login;
use crate::remote::error::{PROXY_LOGIN, ProxyUse, RemoteError, SPEAKS_TLS, Service, Unreachable};
use crate::remote::route::proxy::CGI;

const MORE_TIME: &str = "Run the command again to resume, or give it more time with --deadline.";
const NETWORK: &str = "Check the network and run the command again.";

impl Hint for RemoteError {
    fn hint(&self) -> String {
        match self {
            RemoteError::Address { hint, .. } => hint.clone(),
            RemoteError::CaFile { .. } => {
                "Give --cacert a PEM file with at least one certificate (-----BEGIN CERTIFICATE-----).".into()
            }
            RemoteError::ClientCertificate { .. } => {
                "Give --client-cert a PEM file with the certificate and its private key, or give the file of the key with --client-key."
                    .into()
            }
            RemoteError::Setup { .. } => {
                "Check the limits for threads and open files, then run the command again.".into()
            }
            RemoteError::Proxy { variable, why } => of_proxy(variable, why),
            RemoteError::Unreachable { host, why, proxy, .. } => of_unreachable(host, why, proxy.as_deref()),
            RemoteError::Certificate { why, .. } => of_certificate(why),
            RemoteError::ClientCertificateWanted { host, .. } => format!(
                "Give --client-cert a PEM file with a certificate from a CA that {host} accepts, and its private key."
            ),
            RemoteError::Denied { host, said, service: Service::Target, .. }
            | RemoteError::Status { host, said, service: Service::Target, .. }
                if is_full(said) =>
            {
                format!(
                    "Free space on {host}, or raise its quota, and run the command again; it skips existing data."
                )
            }
            RemoteError::Denied { host, status, with_login, service, .. } => {
                of_denied(host, *service, *status, *with_login)
            }
            RemoteError::Elsewhere { host, by, .. } => of_elsewhere(host, by),
            RemoteError::NotFound { host, service, .. } => of_not_found(host, *service),
            RemoteError::RateLimited { host, .. } => format!(
                "Wait and run the command again, log in with `docker login {host}`, or use another repository."
            ),
            RemoteError::Status { host, service, status, said, .. } => {
                of_status(host, *service, *status, said)
            }
            RemoteError::Realm { host, .. } => format!(
                "Ask the operator of {host} to serve its token service over HTTPS, or on the host and port of the registry."
            ),
            RemoteError::Redirect { .. } => {
                "Use the target of the redirect as the address, or give --insecure to allow plain HTTP."
                    .into()
            }
            RemoteError::Misled { host, to, .. } => format!(
                "Find out why {host} directs requests to {to}; if that is intended, give {to} instead, or fetch the files with another tool."
            ),
            RemoteError::Html { host, service, .. } => of_html(host, *service),
            RemoteError::TooLarge { .. } => {
                "Check the address: nothing that Trivy uses is this large.".into()
            }
            RemoteError::Unusable { .. } => {
                "Check that the address is that of a registry, and whether a proxy changes data.".into()
            }
            RemoteError::Deadline { .. } => MORE_TIME.into(),
            RemoteError::LongPause { most, .. } => of_long_pause(*most),
            RemoteError::Lost { .. } | RemoteError::Stalled { .. } => NETWORK.into(),
        }
    }
}

fn of_proxy(variable: &str, why: &str) -> String {
    if why == CGI {
        return "Unset REQUEST_METHOD, unless a web server runs this command.".into();
    }
    format!(
        "Set {variable} to the address of a proxy, http://HOST:PORT or socks5h://HOST:PORT, or list hosts that need no proxy in NO_PROXY."
    )
}

fn of_long_pause(most: Duration) -> String {
    let hint = if most < PAUSE {
        // Commands that only query registries have no `--deadline`.
        "Run the command again later."
    } else {
        "Run the command again later to resume, or give --deadline to allow several such pauses."
    };
    hint.into()
}

fn of_elsewhere(host: &str, by: &str) -> String {
    format!(
        "Give {by} instead of {host} and log in there, or make {host} serve the data itself: logins are not sent to the target of a redirect."
    )
}

fn of_unreachable(host: &str, why: &Unreachable, proxy: Option<&ProxyUse>) -> String {
    match proxy {
        Some(ProxyUse { variable, .. }) if matches!(why, Unreachable::Other(said) if said == PROXY_LOGIN) => {
            return format!(
                "The proxy requires a login: put it into {variable}, as in http://USER:PASSWORD@PROXY:PORT."
            );
        }
        Some(ProxyUse { variable, excepted_by: None }) => {
            return format!(
                "Check the proxy in {variable}, and that it lets this host reach {host}; NO_PROXY={} bypasses the proxy.",
                without_port(host)
            );
        }
        Some(ProxyUse { variable, excepted_by: Some(exception) }) => {
            return format!(
                "Check the network connection to {host}: because of {exception}, the proxy in {variable} is not used."
            );
        }
        None => {}
    }
    match why {
        Unreachable::Name => {
            format!("Check the spelling of {host} and the DNS of this host; behind a proxy, set HTTPS_PROXY.")
        }
        Unreachable::Refused => {
            format!(
                "Check that {host} is running and that the port is correct; behind a proxy, set HTTPS_PROXY."
            )
        }
        Unreachable::Timeout(_) => {
            format!("Check that the firewall lets this host reach {host}; behind a proxy, set HTTPS_PROXY.")
        }
        Unreachable::Other(_) => format!(
            "Check the network connection to {host}; for a registry that supports only plain HTTP, give --plain-http."
        ),
    }
}

/// Returns the hint for the TLS library's message. General advice about CAs would mislead the user in special
/// cases (rustls, issue 1335).
fn of_certificate(why: &str) -> String {
    let says = |words: &[&str]| words.iter().any(|word| why.contains(word));
    let hint = if says(&["CaUsedAsEndEntity"]) {
        "Give the server's certificate, which is that of a CA, with --cacert FILE, or install a server certificate that a CA has issued for its name."
    } else if says(&["xpired", "not valid yet", "NotValidYet"]) {
        "Check the clock of this host; if it is correct, ask for the server's certificate to be renewed."
    } else if says(&["not valid for name", "NotValidForName"]) {
        "Use a name that is in the certificate, or ask for a certificate with this name as a subjectAltName."
    } else if says(&["UnsupportedSignatureAlgorithm", "UnsupportedCertVersion"]) {
        "Ask for a new certificate of version 3 with SHA-256 or better: SHA-1 and RSA keys of less than 2048 bits are not accepted."
    } else {
        "If the host or a proxy uses your organization's CA, give its certificate with --cacert FILE; on a system without CA certificates, install them or set SSL_CERT_FILE."
    };
    hint.into()
}

fn of_denied(host: &str, service: Service, status: u16, with_login: bool) -> String {
    if service != Service::Web
        && let Some(hint) = cloud_login::hint(host, service == Service::Target)
    {
        return hint;
    }
    match (service, status, with_login) {
        (Service::Registry, 401, true) => {
            format!("{host} rejected the login: run `docker login {host}` again.")
        }
        (Service::Registry, ..) => format!(
            "Log in with `docker login {host}`, and check that the repository exists and that this account may pull from it."
        ),
        (Service::Target, 401, true) => format!(
            "{host} rejected the login: check the name and the password (--username and --password-stdin, or `docker login {host}`), and that the account may push."
        ),
        (Service::Target, 401, false) => format!(
            "Log in with `docker login {host}`, or give --username and --password-stdin: pushing needs an account."
        ),
        (Service::Target, ..) => format!(
            "Check that the project exists on {host} and that this account may push to it and pull from it."
        ),
        (Service::Web, _, true) => {
            format!(
                "{host} rejected the login in the netrc file (NETRC, or ~/.netrc): check it, and that this account may read the repository."
            )
        }
        (Service::Web, _, false) => format!(
            "Put a login into ~/.netrc (`machine {host} login NAME password PASSWORD`), or fetch the repository with another tool and give its directory instead of the URL."
        ),
    }
}

fn of_not_found(host: &str, service: Service) -> String {
    match service {
        Service::Registry => {
            "Check the repository and its tag; a private repository may need `docker login` to be found."
                .into()
        }
        Service::Target => format!(
            "Create the project on {host} first, or check the path: some registries do not create projects automatically."
        ),
        Service::Web => {
            "Check the URL: give the one from Trivy's repository.yaml, without a file name; a private repository needs a login in ~/.netrc.".into()
        }
    }
}

fn of_status(host: &str, service: Service, status: u16, said: &str) -> String {
    match (service, status) {
        (_, 407) => {
            "The proxy requires a login: put it into HTTP_PROXY, as in http://USER:PASSWORD@PROXY:PORT."
                .into()
        }
        (Service::Target, 412) => {
            "The tag is immutable there: exempt this repository from the rule, or remove the tag.".into()
        }
        (Service::Target, 413) => format!(
            "A proxy in front of {host} rejects even small requests: raise its limit (nginx: client_max_body_size 0)."
        ),
        (Service::Target, 500 | 507) => format!(
            "{host} could not store the data: check its disk and its log, then run the command again."
        ),
        (Service::Target, 501..) => format!(
            "{host}, or a proxy in front of it, is failing: run the command again later; it skips existing data."
        ),
        _ if said == SPEAKS_TLS => format!("{host} requires HTTPS: remove --plain-http."),
        (Service::Target, 400..=499) => {
            format!("{host} rejected the data: check its log and the rules of the repository.")
        }
        (_, 500..) => {
            format!("{host} returned a server error: run the command again later, or use another source.")
        }
        _ => format!("Check the address, and whether there is a proxy between this host and {host}."),
    }
}

fn of_html(host: &str, service: Service) -> String {
    match service {
        Service::Registry | Service::Target => {
            format!("Check that {host} is a registry, and whether a proxy or a portal requires a login first.")
        }
        Service::Web => {
            "Give the URL of the repository from Trivy's repository.yaml, not that of a web page, and check whether a portal requires a login first."
                .into()
        }
    }
}

/// A host without its port: an entry of `NO_PROXY` with a port applies only to that port.
fn without_port(host: &str) -> &str {
    if host.starts_with('[') { host } else { host.split(':').next().unwrap_or(host) }
}

/// Whether a registry reports that it is full: with the message of its system, or with Harbor's about the
/// quota of a project.
pub(super) fn is_full(said: &str) -> bool {
    ["no space left", "exceed the configured upper limit"].iter().any(|words| said.contains(words))
}
