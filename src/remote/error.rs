//! What can go wrong on the way to a server, each with what to do about it.
//!
//! Knows hosts, references and URLs as text only. Whatever a server said has passed
//! [`text::safe`] before it stands in a field here; no field ever holds a credential.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Next;
use crate::util::redacted::Redacted;
use crate::util::text;

/// Why a server did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// An address that was written wrongly; nothing was asked of anyone.
    #[error("{} is not a usable address: {why}", text::safe(&text.to_string()))]
    Address {
        /// What was written.
        text: Redacted,
        /// What is wrong with it.
        why: String,
        /// What to write instead.
        next: String,
    },
    /// A file of CA certificates that is none.
    #[error("the CA file {} cannot be used: {why}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A client certificate that is none.
    #[error("the client certificate {} cannot be used: {why}", path.display())]
    ClientCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The machinery for the network could not be set up.
    #[error("the network could not be set up: {why}")]
    Setup {
        /// What the system said.
        why: String,
    },
    /// The host could not be talked to.
    #[error("{host} cannot be reached for {subject}: {why}")]
    Unreachable {
        /// What was asked for.
        subject: String,
        /// The host that was to answer.
        host: String,
        /// In which way.
        why: Unreachable,
    },
    /// The host's certificate was not accepted.
    #[error("the certificate of {host} is not trusted: {why}")]
    Certificate {
        /// The host.
        host: String,
        /// What the TLS library said.
        why: String,
    },
    /// The host wants to see a client's certificate, and has not seen one that it accepts.
    #[error("{host} wants a client certificate that it accepts: {why}")]
    ClientCertificateWanted {
        /// The host.
        host: String,
        /// What the TLS library said.
        why: String,
    },
    /// 401 or 403 from the host that was asked.
    #[error("{host} refuses access to {subject} (status {status}{})", also(said))]
    Denied {
        /// What was asked for.
        subject: String,
        /// The host that refused.
        host: String,
        /// 401 or 403.
        status: u16,
        /// What the host said about it; may be empty.
        said: String,
        /// What kind of service it is.
        service: Service,
        /// Whether a login was shown, which was not accepted then.
        with_login: bool,
    },
    /// 404 from the host that was asked.
    #[error("{host} {} {subject} (status 404{})", if *service == Service::Target { "has no place for" } else { "does not have" }, also(said))]
    NotFound {
        /// What was asked for.
        subject: String,
        /// The host that does not have it.
        host: String,
        /// What the host said about it; may be empty.
        said: String,
        /// What kind of service it is.
        service: Service,
    },
    /// 429: too many requests.
    #[error("{host} limits how often it may be asked, and refused {subject} (status 429{})", wait(*retry_after))]
    RateLimited {
        /// What was asked for.
        subject: String,
        /// The host that refused.
        host: String,
        /// After how long it may be asked again, where it said so.
        retry_after: Option<Duration>,
    },
    /// Any other status than success.
    #[error("{host} answered {subject} with status {status}{}", also(said))]
    Status {
        /// What kind of service it is.
        service: Service,
        /// What was asked for.
        subject: String,
        /// The host that answered: after a redirect, the last one.
        host: String,
        /// The status.
        status: u16,
        /// What the host said about it; may be empty.
        said: String,
        /// After how long it may be asked again, where it said so.
        retry_after: Option<Duration>,
    },
    /// A registry names a token service that must not be asked.
    #[error("{host} names the token service {realm}, which must not be asked: {why}")]
    Realm {
        /// The registry.
        host: String,
        /// The token service that it names.
        realm: String,
        /// Which rule forbids it.
        why: String,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects {subject} in a way that is not followed: {why}")]
    Redirect {
        /// What was asked for.
        subject: String,
        /// The host that was asked first.
        host: String,
        /// Why not.
        why: String,
    },
    /// A server named a place that only the user may name.
    #[error("{host} leads {subject} to {to}, which is {what}")]
    Misled {
        /// What was asked for.
        subject: String,
        /// The host that the user named.
        host: String,
        /// The host to which its answer or its DNS led.
        to: String,
        /// What kind of address that is.
        what: &'static str,
    },
    /// A web page came in place of data.
    #[error("{host} answered {subject} with an HTML page")]
    Html {
        /// What was asked for.
        subject: String,
        /// The host that answered.
        host: String,
        /// What kind of service was expected.
        service: Service,
    },
    /// An answer beyond the limit for its kind.
    #[error("{subject} is larger than the {} that are allowed", text::size(*most))]
    TooLarge {
        /// What was asked for.
        subject: String,
        /// The limit in bytes.
        most: u64,
    },
    /// The connection broke in the middle.
    #[error("the connection to {host} broke after {got} bytes of {subject}: {why}")]
    Lost {
        /// What was asked for.
        subject: String,
        /// The host.
        host: String,
        /// The bytes that had come.
        got: u64,
        /// What the network said.
        why: String,
    },
    /// No byte came for too long.
    #[error("{host} sent next to nothing for {} after {got} bytes of {subject}", text::duration(*stall))]
    Stalled {
        /// What was asked for.
        subject: String,
        /// The host.
        host: String,
        /// The bytes that had come.
        got: u64,
        /// How long the client waited.
        stall: Duration,
    },
    /// An answer that is not what it must be.
    #[error("{subject} cannot be used: {why}")]
    Unusable {
        /// What was asked for.
        subject: String,
        /// What is wrong with the answer.
        why: String,
    },
}

/// What is made of the many ways to say it.
pub(crate) const SPEAKS_TLS: &str = "it speaks HTTPS and was asked over plain HTTP";

/// In which way a host cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// The name has no address.
    #[error("its name cannot be resolved")]
    Name,
    /// Nobody listens there.
    #[error("the connection was refused")]
    Refused,
    /// It did not answer in time.
    #[error("it did not answer within {}", text::duration(*.0))]
    Timeout(Duration),
    /// Anything else, in the network's words.
    #[error("{0}")]
    Other(String),
}

/// What kind of service was asked; advice differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// An OCI registry.
    Registry,
    /// A web server with a VEX repository.
    Web,
    /// An OCI registry that is pushed to.
    Target,
}

impl RemoteError {
    /// Whether the command line is wrong rather than a server: exit code 2.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            RemoteError::Address { .. } | RemoteError::CaFile { .. } | RemoteError::ClientCertificate { .. }
        )
    }
}

impl Next for RemoteError {
    fn next(&self) -> String {
        match self {
            RemoteError::Address { next, .. } => next.clone(),
            RemoteError::CaFile { .. } => {
                "Give --cacert a PEM file with at least one certificate (-----BEGIN CERTIFICATE-----).".into()
            }
            RemoteError::ClientCertificate { .. } => {
                "Give --client-cert a PEM file with the certificate and its private key, one after the other.".into()
            }
            RemoteError::Setup { .. } => {
                "Check the limits for threads and open files, then run the command again.".into()
            }
            RemoteError::Unreachable { why: Unreachable::Other(said), .. } if said.contains("proxy auth") => {
                PROXY_LOGIN.into()
            }
            RemoteError::Unreachable { host, .. } if proxy_of(host).is_some() => format!(
                "Check the proxy that {} names, and that it lets this host reach {host}; NO_PROXY={host} goes round it.",
                proxy_of(host).unwrap_or_default()
            ),
            RemoteError::Unreachable { host, why, .. } => match why {
                Unreachable::Name => format!(
                    "Check the spelling of {host} and this host's DNS; behind a proxy set HTTPS_PROXY."
                ),
                Unreachable::Refused => format!(
                    "Check that {host} is running and that the port is right; behind a proxy set HTTPS_PROXY."
                ),
                Unreachable::Timeout(_) => {
                    format!("Check that a firewall lets this host reach {host}; behind a proxy set HTTPS_PROXY.")
                }
                Unreachable::Other(_) => format!(
                    "Check the way to {host}; if it is a registry that speaks only plain HTTP, give --plain-http."
                ),
            },
            RemoteError::Certificate { why, .. } if why.contains("CaUsedAsEndEntity") => {
                "The server shows a CA's certificate as its own: give it one that a CA has issued for its name, and that CA's with --cacert."
                    .into()
            }
            RemoteError::Certificate { .. } => {
                "If the host or a proxy uses your organisation's own CA, give its certificate with --cacert FILE; \
                 on a system without CA certificates install them or set SSL_CERT_FILE."
                    .into()
            }
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
            RemoteError::Denied { host, status: 401, with_login: true, service: Service::Registry, .. } => format!(
                "The login for {host} was not accepted: `docker login {host}` makes a new one."
            ),
            RemoteError::Denied { host, status: 401, with_login: true, service: Service::Target, .. } => format!(
                "The login for {host} was not accepted: check the name and the password (--username and --password-stdin, or `docker login {host}`), and that the account may push."
            ),
            RemoteError::Denied { host, service: Service::Registry, .. } => format!(
                "Log in with `docker login {host}`, and check that the repository exists and that this account may pull from it."
            ),
            RemoteError::Denied { host, status: 401, service: Service::Target, .. } => format!(
                "Log in with `docker login {host}`, or give --username and --password-stdin: pushing needs an account."
            ),
            RemoteError::Denied { host, service: Service::Target, .. } => format!(
                "Make sure that the project exists at {host} and that this account may push to it and pull from it."
            ),
            RemoteError::Denied { service: Service::Web, .. } => {
                "Fetch the repository with a tool that can log in, and give the folder instead of the URL.".into()
            }
            RemoteError::NotFound { service: Service::Registry, .. } => {
                "Check the repository and its tag; a private repository may need `docker login` before it is shown."
                    .into()
            }
            RemoteError::NotFound { host, service: Service::Target, .. } => format!(
                "Make the project at {host} first, or check the path: some registries make none by themselves."
            ),
            RemoteError::NotFound { service: Service::Web, .. } => {
                "Check the URL: it is the one that stands in Trivy's repository.yaml, without a file name.".into()
            }
            RemoteError::RateLimited { host, .. } => format!(
                "Wait and run the command again, log in with `docker login {host}`, or use another repository."
            ),
            RemoteError::Status { status: 412, service: Service::Target, .. } => {
                "The tag is immutable there: exempt this repository from the rule, or have the tag removed.".into()
            }
            RemoteError::Status { status: 413, service: Service::Target, host, .. } => format!(
                "A proxy before {host} limits the size of a request: raise it (nginx: client_max_body_size 0)."
            ),
            RemoteError::Status { status: 507 | 500, service: Service::Target, host, .. } => format!(
                "{host} could not store it: look at its disk and its log, then run the command again."
            ),
            RemoteError::Status { status: 501.., service: Service::Target, host, .. } => format!(
                "{host}, or a proxy before it, is not well: run the command again later; what is there already is not sent again."
            ),
            RemoteError::Status { host, said, .. } if said == SPEAKS_TLS => {
                format!("{host} wants HTTPS: leave out --plain-http.")
            }
            RemoteError::Status { status: 400..=499, service: Service::Target, host, .. } => format!(
                "{host} does not take it as it is: look at its log and at the rules of the repository."
            ),
            RemoteError::Status { status: 407, .. } => PROXY_LOGIN.into(),
            RemoteError::Status { status: 500.., host, .. } => {
                format!("{host} has a fault of its own: run the command again later, or use another source.")
            }
            RemoteError::Status { host, .. } => {
                format!("Check the address, and whether a proxy stands between this host and {host}.")
            }
            RemoteError::Realm { host, .. } => format!(
                "Ask who runs {host} to serve its token service over HTTPS, or at the registry's own host and port."
            ),
            RemoteError::Redirect { .. } => {
                "Use the address that it redirects to, or --insecure where plain HTTP is what you want.".into()
            }
            RemoteError::Misled { host, to, .. } => format!(
                "Find out why {host} names {to}; if that is right, name {to} in its place, or fetch the files with another tool."
            ),
            RemoteError::Html { service: Service::Registry | Service::Target, host, .. } => format!(
                "Check that {host} is a registry, and whether a proxy or a portal wants a login first."
            ),
            RemoteError::Html { service: Service::Web, .. } => {
                "Give the repository's URL as in Trivy's repository.yaml, not a page that shows it; check whether a portal wants a login first."
                    .into()
            }
            RemoteError::TooLarge { .. } => {
                "Check that the address is right: nothing that Trivy uses is this large.".into()
            }
            RemoteError::Unusable { .. } => {
                "Check that the address is a registry's, and whether a proxy changes what passes.".into()
            }
            RemoteError::Lost { .. } | RemoteError::Stalled { .. } => {
                "Check the network and run the command again.".into()
            }
        }
    }
}

const PROXY_LOGIN: &str =
    "The proxy wants a login: put it into HTTPS_PROXY as http://USER:PASSWORD@PROXY:PORT.";

/// The variable that names the proxy for a host, where one does (as reqwest 0.13 reads them).
fn proxy_of(host: &str) -> Option<&'static str> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let around = set("NO_PROXY").or_else(|| set("no_proxy")).unwrap_or_default();
    let excepted = |entry: &str| {
        let entry = entry.trim().trim_start_matches('.');
        entry == "*"
            || !entry.is_empty() && (name == entry || name.ends_with(&format!(".{entry}")) || host == entry)
    };
    if crate::remote::reference::is_loopback(host) || around.split(',').any(excepted) {
        return None;
    }
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].into_iter().find(|name| set(name).is_some())
}

/// Whether a registry says that it has no room: in the words of its system, or in Harbor's, of a
/// project's quota.
fn is_full(said: &str) -> bool {
    ["no space left", "exceed the configured upper limit"].iter().any(|words| said.contains(words))
}

fn also(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

fn wait(time: Option<Duration>) -> String {
    time.map_or_else(String::new, |time| {
        format!("; it may be asked again in {} s", time.as_secs_f64().ceil())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sentences_name_what_matters() {
        let error = RemoteError::Denied {
            subject: "r.example/p/x:2".into(),
            host: "r.example".into(),
            status: 401,
            said: "UNAUTHORIZED".into(),
            service: Service::Registry,
            with_login: false,
        };
        assert_eq!(
            error.to_string(),
            "r.example refuses access to r.example/p/x:2 (status 401: UNAUTHORIZED)"
        );
        assert!(error.next().contains("docker login r.example"));
        assert!(!error.is_usage());
        let error = RemoteError::Denied {
            subject: "blob x".into(),
            host: "harbor.example".into(),
            status: 403,
            said: "DENIED, adding 1.0 GiB of storage resource will exceed the configured upper limit".into(),
            service: Service::Target,
            with_login: false,
        };
        assert!(error.next().contains("raise its quota"), "{}", error.next());
        let error = RemoteError::RateLimited {
            subject: "x".into(),
            host: "h".into(),
            retry_after: Some(Duration::from_secs(30)),
        };
        assert!(error.to_string().contains("in 30 s"));
        let error =
            RemoteError::Address { text: Redacted::new("\x1b[2J"), why: "w".into(), next: "n".into() };
        assert!(error.is_usage() && error.to_string().contains("\\u{1b}"));
    }
}
