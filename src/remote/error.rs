//! The errors of requests to servers.
//!
//! Knows hosts, references and URLs as text only. Text from a server has passed [`text::escape`] before it is
//! stored in a field here. No field holds a credential.

use std::path::PathBuf;
use std::time::Duration;

pub use crate::remote::route::proxy::ProxyUse;
use crate::remote::route::proxy::UnusableProxy;
use crate::util::redacted::Redacted;
use crate::util::text;

/// Why a server did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// An address that was written wrongly; nothing was asked of anyone.
    #[error("{} is not a usable address: {why}", text::escape(&text.to_string()))]
    Address {
        /// What was written.
        text: Redacted,
        /// What is wrong with it.
        why: String,
        /// What to write instead.
        hint: String,
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
    /// A proxy that a request needs, and that cannot be used.
    #[error("the proxy that {variable} names cannot be used: {why}")]
    Proxy {
        /// The variable of the environment.
        variable: &'static str,
        /// What is wrong with it.
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
        /// The proxy that was used, or why none was.
        proxy: Option<Box<ProxyUse>>,
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
    /// 401 from a host to which the one that was asked redirects.
    #[error("{host} redirects {subject} to {by}, which wants a login of its own (status 401)")]
    Elsewhere {
        /// What was asked for.
        subject: String,
        /// The host that was asked.
        host: String,
        /// The host that wants a login.
        by: String,
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
    #[error("{host} answered {subject} with status {status}{}{}", also(said), wait(*retry_after))]
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
    #[error("{subject} is larger than the {} that are allowed", text::format_size(*most))]
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
    #[error("{host} sent next to nothing for {} after {got} bytes of {subject}", text::format_duration(*stall))]
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
    /// A server asks for a longer pause than a run takes, or for too many.
    #[error("{why}; a run waits {} at most for servers that ask for pauses", text::format_duration(*most))]
    LongPause {
        /// What the server answered, which names it and the pause.
        why: String,
        /// How long a run waits.
        most: Duration,
    },
    /// The time that a run was given is over.
    #[error("the time that --deadline gives is over: {}{}", text::format_duration(*deadline), host.as_ref().map(|host| format!(", waiting for {host}")).unwrap_or_default())]
    Deadline {
        /// How long the run was given.
        deadline: Duration,
        /// The server that was waited for, or was to be asked next.
        host: Option<String>,
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

/// What is made of the many ways in which a proxy says that it wants a login, or another one.
pub(crate) const PROXY_LOGIN: &str = "proxy authorization required";

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
    #[error("it did not answer within {}", text::format_duration(*.0))]
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

impl From<UnusableProxy> for RemoteError {
    fn from(UnusableProxy { variable, why }: UnusableProxy) -> Self {
        RemoteError::Proxy { variable, why }
    }
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
    use crate::hint::Hint;

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
