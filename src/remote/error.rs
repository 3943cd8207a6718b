//! The errors of requests to servers.
//!
//! This module holds hosts, references and URLs as text only. Text from a server passes
//! [`text::escape`] before it is stored in a field here. No field holds a credential.

use std::path::PathBuf;
use std::time::Duration;

pub use crate::remote::route::proxy::ProxyUse;
use crate::remote::route::proxy::UnusableProxy;
use crate::util::redacted::Redacted;
use crate::util::text;

/// An error of a request to a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// An address is not valid. No request was sent.
    #[error("{} is not a usable address: {why}", text::escape(&text.to_string()))]
    Address {
        /// The address as given.
        text: Redacted,
        /// The reason.
        why: String,
        /// The hint.
        hint: String,
    },
    /// A file of CA certificates cannot be used.
    #[error("the CA file {} cannot be used: {why}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A client certificate cannot be used.
    #[error("the client certificate {} cannot be used: {why}", path.display())]
    ClientCertificate {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The network could not be set up.
    #[error("the network could not be set up: {why}")]
    Setup {
        /// The error of the system.
        why: String,
    },
    /// A required proxy cannot be used.
    #[error("the proxy in {variable} cannot be used: {why}")]
    Proxy {
        /// The environment variable.
        variable: &'static str,
        /// The reason.
        why: String,
    },
    /// The host could not be reached.
    #[error("{host} cannot be reached for {subject}: {why}")]
    Unreachable {
        /// The requested item.
        subject: String,
        /// The host that should answer.
        host: String,
        /// The reason.
        why: Unreachable,
        /// The proxy that was used, or the reason why none was.
        proxy: Option<Box<ProxyUse>>,
    },
    /// The host's certificate was not accepted.
    #[error("the certificate of {host} is not trusted: {why}")]
    Certificate {
        /// The host.
        host: String,
        /// The message of the TLS library.
        why: String,
    },
    /// The host requires a client certificate, and did not accept one.
    #[error("{host} requires a client certificate that it accepts: {why}")]
    ClientCertificateWanted {
        /// The host.
        host: String,
        /// The message of the TLS library.
        why: String,
    },
    /// Status 401 or 403 from the requested host.
    #[error("{host} denies access to {subject} (status {status}{})", also(said))]
    Denied {
        /// The requested item.
        subject: String,
        /// The host that rejected the request.
        host: String,
        /// The status, 401 or 403.
        status: u16,
        /// The message of the host; may be empty.
        said: String,
        /// The kind of service.
        service: Service,
        /// Whether a login was sent, and rejected.
        with_login: bool,
    },
    /// Status 401 from a host that the requested host redirects to.
    #[error("{host} redirects {subject} to {by}, which requires its own login (status 401)")]
    Elsewhere {
        /// The requested item.
        subject: String,
        /// The requested host.
        host: String,
        /// The host that requires a login.
        by: String,
    },
    /// Status 404 from the requested host.
    #[error("{host} {} {subject} (status 404{})", if *service == Service::Target { "has no place for" } else { "does not have" }, also(said))]
    NotFound {
        /// The requested item.
        subject: String,
        /// The host that does not have it.
        host: String,
        /// The message of the host; may be empty.
        said: String,
        /// The kind of service.
        service: Service,
    },
    /// Status 429: too many requests.
    #[error("{host} limits the rate of requests and rejected {subject} (status 429{})", wait(*retry_after))]
    RateLimited {
        /// The requested item.
        subject: String,
        /// The host that rejected the request.
        host: String,
        /// The time after which a retry is allowed, if given.
        retry_after: Option<Duration>,
    },
    /// Any other error status.
    #[error("{host} answered the request for {subject} with status {status}{}{}", also(said), wait(*retry_after))]
    Status {
        /// The kind of service.
        service: Service,
        /// The requested item.
        subject: String,
        /// The host that answered; the last one after redirects.
        host: String,
        /// The status.
        status: u16,
        /// The message of the host; may be empty.
        said: String,
        /// The time after which a retry is allowed, if given.
        retry_after: Option<Duration>,
    },
    /// A registry names a token service that must not be used.
    #[error("{host} names the token service {realm}, which must not be used: {why}")]
    Realm {
        /// The registry.
        host: String,
        /// The token service that it names.
        realm: String,
        /// The rule that forbids it.
        why: String,
    },
    /// A redirect was not followed.
    #[error("the redirect of {subject} from {host} is not followed: {why}")]
    Redirect {
        /// The requested item.
        subject: String,
        /// The host of the original request.
        host: String,
        /// The reason.
        why: String,
    },
    /// A server named an address that only the user may name.
    #[error("{host} directs the request for {subject} to {to}, which is {what}")]
    Misled {
        /// The requested item.
        subject: String,
        /// The host that the user named.
        host: String,
        /// The host in its answer or its DNS.
        to: String,
        /// The kind of that address.
        what: &'static str,
    },
    /// The answer is a web page instead of data.
    #[error("{host} answered the request for {subject} with an HTML page")]
    Html {
        /// The requested item.
        subject: String,
        /// The host that answered.
        host: String,
        /// The expected kind of service.
        service: Service,
    },
    /// An answer is larger than the limit for its kind.
    #[error("{subject} is larger than the limit of {}", text::format_size(*most))]
    TooLarge {
        /// The requested item.
        subject: String,
        /// The limit in bytes.
        most: u64,
    },
    /// The connection broke during a transfer.
    #[error("the connection to {host} broke after {got} bytes of {subject}: {why}")]
    Lost {
        /// The requested item.
        subject: String,
        /// The host.
        host: String,
        /// The number of bytes that were received.
        got: u64,
        /// The error of the network.
        why: String,
    },
    /// Too few bytes were received for too long.
    #[error("{host} sent almost nothing for {} after {got} bytes of {subject}", text::format_duration(*stall))]
    Stalled {
        /// The requested item.
        subject: String,
        /// The host.
        host: String,
        /// The number of bytes that were received.
        got: u64,
        /// The time that the client waited.
        stall: Duration,
    },
    /// A server asks for a pause that is too long, or for too many pauses.
    #[error("{why}; a run waits at most {} when servers ask for pauses", text::format_duration(*most))]
    LongPause {
        /// The answer of the server, which names it and the pause.
        why: String,
        /// The maximum time that a run waits.
        most: Duration,
    },
    /// The deadline of the run has passed.
    #[error("the time limit of --deadline has passed: {}{}", text::format_duration(*deadline), host.as_ref().map(|host| format!(", waiting for {host}")).unwrap_or_default())]
    Deadline {
        /// The time limit of the run.
        deadline: Duration,
        /// The server of the request that did not end in time; `None` if the request was not sent.
        host: Option<String>,
    },
    /// An answer is not valid.
    #[error("{subject} cannot be used: {why}")]
    Unusable {
        /// The requested item.
        subject: String,
        /// The reason.
        why: String,
    },
}

/// The common message for the various answers of servers that expect HTTPS.
pub(crate) const SPEAKS_TLS: &str = "it expects HTTPS, but the request used plain HTTP";

/// The common message for the various answers of proxies that require a login or reject one.
pub(crate) const PROXY_LOGIN: &str = "proxy authorization required";

/// The reason why a host cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// The name has no address.
    #[error("its name cannot be resolved")]
    Name,
    /// No service listens on the port.
    #[error("the connection was refused")]
    Refused,
    /// The host did not answer in time.
    #[error("it did not answer within {}", text::format_duration(*.0))]
    Timeout(Duration),
    /// Any other reason: the error of the network.
    #[error("{0}")]
    Other(String),
}

/// The kind of service. Hints depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// An OCI registry.
    Registry,
    /// A web server with a VEX repository.
    Web,
    /// An OCI registry that is pushed to.
    Target,
}

impl From<UnusableProxy> for RemoteError {
    fn from(UnusableProxy { variable, why }: UnusableProxy) -> Self {
        RemoteError::Proxy { variable, why }
    }
}

impl RemoteError {
    /// Whether the command line is wrong, and not a server.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            RemoteError::Address { .. } | RemoteError::CaFile { .. } | RemoteError::ClientCertificate { .. }
        )
    }
}

fn also(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

fn wait(time: Option<Duration>) -> String {
    time.map_or_else(String::new, |time| format!("; retry allowed in {} s", time.as_secs_f64().ceil()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::Hint;

    #[test]
    fn the_message_and_the_hint_name_the_host_and_the_remedy() {
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
            "r.example denies access to r.example/p/x:2 (status 401: UNAUTHORIZED)"
        );
        assert!(error.hint().contains("docker login r.example"));
        assert!(!error.is_usage());
        let error = RemoteError::Denied {
            subject: "blob x".into(),
            host: "harbor.example".into(),
            status: 403,
            said: "DENIED, adding 1.0 GiB of storage resource will exceed the configured upper limit".into(),
            service: Service::Target,
            with_login: false,
        };
        assert!(error.hint().contains("raise its quota"), "{}", error.hint());
        for (why, helps) in [
            ("invalid peer certificate: UnknownIssuer", "--cacert"),
            ("invalid peer certificate: certificate expired: verification time 2 (UNIX)", "clock"),
            ("invalid peer certificate: certificate not valid for name \"r.example\"", "subjectAltName"),
            ("invalid peer certificate: UnsupportedSignatureAlgorithmContext", "SHA-1"),
        ] {
            let error = RemoteError::Certificate { host: "r.example".into(), why: why.into() };
            assert!(error.hint().contains(helps), "{why}: {}", error.hint());
        }
        let error = RemoteError::RateLimited {
            subject: "x".into(),
            host: "h".into(),
            retry_after: Some(Duration::from_secs(30)),
        };
        assert!(error.to_string().contains("in 30 s"));
        let error =
            RemoteError::Address { text: Redacted::new("\x1b[2J"), why: "w".into(), hint: "n".into() };
        assert!(error.is_usage() && error.to_string().contains("\\u{1b}"));
    }
}
