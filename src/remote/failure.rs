//! Converts a request that failed without an answer into an error. `Http::refusal` handles answers with an
//! error status.

use std::error::Error;
use std::io;

use reqwest::Url;
use rustls::AlertDescription;

use crate::remote::connection::{ConnectTimeout, NoAddress};
use crate::remote::error::{PROXY_LOGIN, RemoteError, Unreachable};
use crate::remote::exchange::{CONNECT, find, host_of, innermost};
use crate::remote::route::Misled;
use crate::remote::route::proxy::{Proxies, UnusableProxy};
use crate::util::redacted::Redacted;
use crate::util::text;

/// Converts the error of a failed exchange. `url` is the address that failed, after all redirects.
pub(crate) fn failure(error: &(dyn Error + 'static), subject: String, url: &Url) -> RemoteError {
    let by_client = find::<reqwest::Error>(error);
    let host = host_of(url);
    if let Some(misled) = find::<Misled>(error) {
        return misled.clone().about(subject);
    }
    if let Some(WrongService { registry, realm, why }) = find::<WrongService>(error) {
        let (host, realm) = (registry.clone(), text::escape(&realm.to_string()));
        return RemoteError::Realm { host, realm, why: (*why).into() };
    }
    if let Some(unusable) = find::<UnusableProxy>(error) {
        return unusable.clone().into();
    }
    if by_client.is_some_and(reqwest::Error::is_redirect) {
        return RemoteError::Redirect { subject, host: host_of(url), why: innermost(error) };
    }
    match find::<rustls::Error>(error) {
        Some(tls @ rustls::Error::InvalidCertificate(_)) => {
            return RemoteError::Certificate { host, why: text::escape(&tls.to_string()) };
        }
        Some(tls @ rustls::Error::AlertReceived(alert)) if is_about_certificates(*alert) => {
            return RemoteError::ClientCertificateWanted { host, why: text::escape(&tls.to_string()) };
        }
        _ => {}
    }
    let refused = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
    let why = if by_client.is_some_and(reqwest::Error::is_dns) || find::<NoAddress>(error).is_some() {
        Unreachable::Name
    } else if find::<io::Error>(error).is_some_and(refused) {
        Unreachable::Refused
    } else if by_client.is_some_and(reqwest::Error::is_timeout) || find::<ConnectTimeout>(error).is_some() {
        Unreachable::Timeout(CONNECT)
    } else {
        Unreachable::Other(unify_message(innermost(error)))
    };
    RemoteError::Unreachable { subject, host, why, proxy: Proxies::of_environment().used_for(url) }
}

/// Replaces the various messages about a proxy's login with one.
fn unify_message(said: String) -> String {
    let wants_login = ["user/pass authentication", "credentials not accepted"];
    match said.strip_prefix("SOCKS error: ") {
        Some(why) if wants_login.iter().any(|words| why.contains(words)) => PROXY_LOGIN.to_owned(),
        None if said.contains("proxy auth") => PROXY_LOGIN.to_owned(),
        _ => said,
    }
}

/// Whether this alert of a server is about certificates: it rejects the client's certificate, or it requires
/// one.
pub(crate) fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
    )
}

/// A redirect of a token service to a disallowed one.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct WrongService {
    pub(crate) registry: String,
    pub(crate) realm: Redacted,
    pub(crate) why: &'static str,
}
