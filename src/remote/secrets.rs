//! The secrets of a request. Some servers and proxies repeat them in their messages, which are printed and recorded.
//!
//! This module sends nothing. It removes each secret as it was sent and as it was written, but not in other
//! encodings.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::remote::route::proxy::Proxies;

/// The parameters of a form that hold a secret (the Docker registry's token specification, "oauth").
const FORM: [&str; 2] = ["refresh_token", "password"];
/// The parameters of a query that hold no secret: those of the distribution specification, and of a request for a
/// token.
const OPEN: [&str; 10] =
    ["account", "client_id", "digest", "from", "last", "mount", "n", "offline_token", "scope", "service"];
/// The length in bytes below which the value of a query is no secret. Signatures are longer.
const SHORTEST: usize = 6;

/// The texts that must not be printed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// Returns the secrets of a request with this login and form, and of the proxies that it may use.
    pub(super) fn of(login: Option<&HeaderValue>, form: &[u8], url: &Url, proxies: &Proxies) -> Self {
        let mut secrets = Secrets::default();
        secrets.add_login(login);
        secrets.add_pairs(&String::from_utf8_lossy(form), |name| FORM.contains(&name));
        secrets.add_query(url);
        for (name, password) in proxies.logins() {
            secrets.0.push(STANDARD.encode(format!("{name}:{password}")));
            secrets.0.push(password.to_owned());
        }
        secrets
    }

    /// Adds the values in the query of a URL, such as the signature of a storage service.
    pub(super) fn add_query(&mut self, url: &Url) {
        self.add_pairs(url.query().unwrap_or_default(), |name| !OPEN.contains(&name));
    }

    fn add_login(&mut self, login: Option<&HeaderValue>) {
        let text = login.and_then(|login| login.to_str().ok()).unwrap_or_default();
        let (scheme, token) = text.split_once(' ').unwrap_or(("", text));
        self.0.push(token.to_owned());
        if scheme == "Basic"
            && let Ok(pair) = STANDARD.decode(token)
            && let Some((_, password)) = String::from_utf8_lossy(&pair).split_once(':')
        {
            self.0.push(password.to_owned());
        }
    }

    /// Adds the values of a form or query, encoded and decoded, whose names `is_secret` selects.
    fn add_pairs(&mut self, pairs: &str, is_secret: impl Fn(&str) -> bool) {
        for pair in pairs.split('&') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            if is_secret(name) && value.len() >= SHORTEST {
                self.0.push(value.to_owned());
                self.0.extend(url_decoded(pair));
            }
        }
    }

    /// Replaces the secrets in a text.
    pub(super) fn remove_from(&self, mut text: String) -> String {
        let mut secrets: Vec<&String> = self.0.iter().filter(|secret| !secret.is_empty()).collect();
        // A secret may hold another one.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        for secret in secrets {
            text = text.replace(secret, "…");
        }
        text
    }
}

/// Returns the decoded value of a pair.
fn url_decoded(pair: &str) -> Option<String> {
    let url = Url::parse(&format!("form:?{pair}")).ok()?;
    url.query_pairs().next().map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(login: Option<&'static str>, form: &str, url: &str, said: &str) -> String {
        let proxies = Proxies::of(|name| (name == "http_proxy").then(|| "http://me:pr%2Fxy@p:1".into()));
        let login = login.map(HeaderValue::from_static);
        let url = url.parse().unwrap();
        Secrets::of(login.as_ref(), form.as_bytes(), &url, &proxies).remove_from(said.to_owned())
    }

    #[test]
    fn a_login_that_a_server_repeats_is_removed() {
        let said = "bad Basic dTpzM2NyM3Q= with s3cr3t";
        assert_eq!(removed(Some("Basic dTpzM2NyM3Q="), "", "http://a/", said), "bad Basic … with …");
        assert_eq!(removed(Some("Bearer abc"), "", "http://a/", "token abc"), "token …");
        assert_eq!(removed(None, "", "http://a/", "plain"), "plain");
    }

    #[test]
    fn a_token_in_a_form_a_signature_and_a_proxy_login_are_removed() {
        let form = "grant_type=refresh_token&service=r.example&refresh_token=a%2Fb%2Bcdef";
        let said = "refresh_token=a%2Fb%2Bcdef of r.example is a/b+cdef";
        assert_eq!(removed(None, form, "http://a/", said), "refresh_token=… of r.example is …");
        let signed = "http://a/b?X-Amz-Signature=0123456789&service=registry";
        assert_eq!(removed(None, "", signed, "0123456789 of registry"), "… of registry");
        assert_eq!(removed(None, "", "http://a/", "pr/xy bWU6cHIveHk="), "… …");
    }
}
