//! What to do about the errors of requests to servers.

use std::time::Duration;

use crate::hint::Hint;
use crate::remote::PAUSE;
use crate::remote::cloud_login;
use crate::remote::error::{PROXY_LOGIN, ProxyUse, RemoteError, SPEAKS_TLS, Service, Unreachable};

const MORE_TIME: &str = "Run the command again, which goes on where it was, or give it more time.";
const NETWORK: &str = "Check the network and run the command again.";

impl Hint for RemoteError {
    fn hint(&self) -> String {
        match self {
            RemoteError::Address { hint, .. } => hint.clone(),
            RemoteError::CaFile { .. } => {
                "Give --cacert a PEM file with at least one certificate (-----BEGIN CERTIFICATE-----).".into()
            }
            RemoteError::ClientCertificate { .. } => {
                "Give --client-cert a PEM file with the certificate and its private key, or name the file of the key with --client-key."
                    .into()
            }
            RemoteError::Setup { .. } => {
                "Check the limits for threads and open files, then run the command again.".into()
            }
            RemoteError::Proxy { variable, .. } => format!(
                "Set {variable} to the address of a proxy, http://HOST:PORT or socks5h://HOST:PORT, or name in NO_PROXY what is reached without one."
            ),
            RemoteError::Unreachable { host, why, proxy, .. } => of_unreachable(host, why, proxy.as_deref()),
            RemoteError::Certificate { why, .. } => of_certificate(why),
            RemoteError::ClientCertificateWanted { host, .. } => format!(
                "Give --client-cert a PEM file with a certificate of a CA that {host} accepts, and its private key."
            ),
            RemoteError::Denied { host, said, service: Service::Target, .. }
            | RemoteError::Status { host, said, service: Service::Target, .. }
                if is_full(said) =>
            {
                format!(
                    "There is no room left at {host}: make some, or raise its quota, and run the command again; what is there already is not sent again."
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
                "Ask who runs {host} to serve its token service over HTTPS, or at the registry's own host and port."
            ),
            RemoteError::Redirect { .. } => {
                "Use the address that it redirects to, or --insecure where plain HTTP is what you want."
                    .into()
            }
            RemoteError::Misled { host, to, .. } => format!(
                "Find out why {host} names {to}; if that is right, name {to} in its place, or fetch the files with another tool."
            ),
            RemoteError::Html { host, service, .. } => of_html(host, *service),
            RemoteError::TooLarge { .. } => {
                "Check that the address is right: nothing that Trivy uses is this large.".into()
            }
            RemoteError::Unusable { .. } => {
                "Check that the address is a registry's, and whether a proxy changes what passes.".into()
            }
            RemoteError::Deadline { .. } => MORE_TIME.into(),
            RemoteError::LongPause { most, .. } => of_long_pause(*most),
            RemoteError::Lost { .. } | RemoteError::Stalled { .. } => NETWORK.into(),
        }
    }
}

fn of_long_pause(most: Duration) -> String {
    let hint = if most < PAUSE {
        // Whoever only asks has no deadline to give.
        "Run the command again later."
    } else {
        "Run the command again later, which goes on where it was; with --deadline a run takes several such pauses."
    };
    hint.into()
}

fn of_elsewhere(host: &str, by: &str) -> String {
    format!(
        "No login is sent to where a redirect leads: name {by} in place of {host} and log in there, or have {host} serve it itself."
    )
}

fn of_unreachable(host: &str, why: &Unreachable, proxy: Option<&ProxyUse>) -> String {
    match proxy {
        Some(ProxyUse { variable, .. }) if matches!(why, Unreachable::Other(said) if said == PROXY_LOGIN) => {
            return format!(
                "The proxy wants a login: put it into {variable}, as in http://USER:PASSWORD@PROXY:PORT."
            );
        }
        Some(ProxyUse { variable, excepted_by: None }) => {
            return format!(
                "Check the proxy that {variable} names, and that it lets this host reach {host}; NO_PROXY={} goes round it.",
                without_port(host)
            );
        }
        Some(ProxyUse { variable, excepted_by: Some(exception) }) => {
            return format!(
                "Check the way to {host}: {exception} keeps it from the proxy that {variable} names."
            );
        }
        None => {}
    }
    match why {
        Unreachable::Name => {
            format!("Check the spelling of {host} and this host's DNS; behind a proxy set HTTPS_PROXY.")
        }
        Unreachable::Refused => {
            format!(
                "Check that {host} is running and that the port is right; behind a proxy set HTTPS_PROXY."
            )
        }
        Unreachable::Timeout(_) => {
            format!("Check that a firewall lets this host reach {host}; behind a proxy set HTTPS_PROXY.")
        }
        Unreachable::Other(_) => format!(
            "Check the way to {host}; if it is a registry that speaks only plain HTTP, give --plain-http."
        ),
    }
}

/// By what the TLS library says: somebody who is told to find a CA looks for days (rustls, issue 1335).
fn of_certificate(why: &str) -> String {
    let says = |words: &[&str]| words.iter().any(|word| why.contains(word));
    let hint = if says(&["CaUsedAsEndEntity"]) {
        "The server shows a CA's certificate as its own: give this very certificate with --cacert FILE, or the server one that a CA has issued for its name."
    } else if says(&["xpired", "not valid yet", "NotValidYet"]) {
        "Check the clock of this host, and have the server's certificate renewed if the clock is right."
    } else if says(&["not valid for name", "NotValidForName"]) {
        "Use a name that the certificate has, or have one issued with this name as a subjectAltName."
    } else if says(&["UnsupportedSignatureAlgorithm", "UnsupportedCertVersion"]) {
        "Have the certificate issued anew, of version 3 and with SHA-256 or better: SHA-1 and RSA keys of less than 2048 bits are not accepted."
    } else {
        "If the host or a proxy uses your organization's own CA, give its certificate with --cacert FILE; on a system without CA certificates install them or set SSL_CERT_FILE."
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
            format!("The login for {host} was not accepted: `docker login {host}` makes a new one.")
        }
        (Service::Registry, ..) => format!(
            "Log in with `docker login {host}`, and check that the repository exists and that this account may pull from it."
        ),
        (Service::Target, 401, true) => format!(
            "The login for {host} was not accepted: check the name and the password (--username and --password-stdin, or `docker login {host}`), and that the account may push."
        ),
        (Service::Target, 401, false) => format!(
            "Log in with `docker login {host}`, or give --username and --password-stdin: pushing needs an account."
        ),
        (Service::Target, ..) => format!(
            "Make sure that the project exists at {host} and that this account may push to it and pull from it."
        ),
        (Service::Web, _, true) => {
            format!("The login for {host} in ~/.netrc was not accepted, or this account may not read it.")
        }
        (Service::Web, _, false) => format!(
            "Put a login into ~/.netrc (`machine {host} login NAME password PASSWORD`), or fetch the repository with another tool and give its directory instead of the URL."
        ),
    }
}

fn of_not_found(host: &str, service: Service) -> String {
    match service {
        Service::Registry => {
            "Check the repository and its tag; a private repository may need `docker login` before it is shown."
                .into()
        }
        Service::Target => format!(
            "Make the project at {host} first, or check the path: some registries make none by themselves."
        ),
        Service::Web => {
            "Check the URL: it is the one that stands in Trivy's repository.yaml, without a file name; a private repository needs a login in ~/.netrc.".into()
        }
    }
}

fn of_status(host: &str, service: Service, status: u16, said: &str) -> String {
    match (service, status) {
        (_, 407) => {
            "The proxy wants a login: put it into HTTP_PROXY, as in http://USER:PASSWORD@PROXY:PORT.".into()
        }
        (Service::Target, 412) => {
            "The tag is immutable there: exempt this repository from the rule, or have the tag removed."
                .into()
        }
        (Service::Target, 413) => format!(
            "A proxy before {host} refuses even small requests: raise its limit (nginx: client_max_body_size 0)."
        ),
        (Service::Target, 500 | 507) => {
            format!("{host} could not store it: look at its disk and its log, then run the command again.")
        }
        (Service::Target, 501..) => format!(
            "{host}, or a proxy before it, is not well: run the command again later; what is there already is not sent again."
        ),
        _ if said == SPEAKS_TLS => format!("{host} wants HTTPS: leave out --plain-http."),
        (Service::Target, 400..=499) => {
            format!("{host} does not take it as it is: look at its log and at the rules of the repository.")
        }
        (_, 500..) => {
            format!("{host} has a fault of its own: run the command again later, or use another source.")
        }
        _ => format!("Check the address, and whether a proxy stands between this host and {host}."),
    }
}

fn of_html(host: &str, service: Service) -> String {
    match service {
        Service::Registry | Service::Target => {
            format!("Check that {host} is a registry, and whether a proxy or a portal wants a login first.")
        }
        Service::Web => {
            "Give the repository's URL as in Trivy's repository.yaml, not a page that shows it; check whether a portal wants a login first."
                .into()
        }
    }
}

/// A host without its port, which NO_PROXY would take for a condition.
fn without_port(host: &str) -> &str {
    if host.starts_with('[') { host } else { host.split(':').next().unwrap_or(host) }
}

/// Whether a registry says that it has no room: in the words of its system, or in Harbor's, of a
/// project's quota.
pub(super) fn is_full(said: &str) -> bool {
    ["no space left", "exceed the configured upper limit"].iter().any(|words| said.contains(words))
}
