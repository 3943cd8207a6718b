//! Logins to a registry: the challenge of a registry, and the token services that may get a password.
//!
//! This module prints no credential, and allows none to be sent to a token service that [`realm`] rejects.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use crate::remote::error::RemoteError;
use crate::remote::exchange::host_of;
use crate::util::redacted::Redacted;
use crate::util::text;

/// The login that a registry requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A name and a password with each request.
    Basic,
    /// A token from a token service.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Returns the challenge of an answer with status 401. A token takes precedence over a
    /// password.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<Raw> = values.flat_map(parse).collect();
        let bearer = all.iter().find(|raw| raw.scheme == "bearer").and_then(|raw| {
            let realm = raw.get("realm")?;
            Some(Challenge::Bearer { realm, service: raw.get("service"), scope: raw.get("scope") })
        });
        bearer.or_else(|| all.iter().any(|raw| raw.scheme == "basic").then_some(Challenge::Basic))
    }
}

struct Raw {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Raw {
    fn get(&self, name: &str) -> Option<String> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }
}

/// Parses a `WWW-Authenticate` header (RFC 9110, 11.6.1): one or more challenges, each with a scheme and its
/// parameters, all separated by commas.
fn parse(header: &str) -> Vec<Raw> {
    let mut challenges: Vec<Raw> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=', '"']).unwrap_or(rest.len());
        if end == 0 {
            return challenges;
        }
        let (word, after) = rest.split_at(end);
        let word = word.to_ascii_lowercase();
        match after.trim_start().strip_prefix('=') {
            None => {
                challenges.push(Raw { scheme: word, parameters: Vec::new() });
                rest = after;
            }
            Some(value) => {
                let (value, after) = parse_value(value.trim_start());
                if let Some(last) = challenges.last_mut() {
                    last.parameters.push((word, value));
                }
                rest = after;
            }
        }
    }
}

/// Parses a token or a quoted string. Returns it and the rest of the text.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// Returns the address of a token service that a registry names, if [`may_ask`] allows it.
pub(crate) fn realm(text: &str, registry: &Url) -> Result<Url, RemoteError> {
    let reject = |why: &str| RemoteError::Realm {
        host: host_of(registry),
        realm: text::escape(&Redacted::new(text).to_string()),
        why: why.to_owned(),
    };
    let realm = Url::parse(text).map_err(|_| reject("it is not a URL"))?;
    let realm = behind_tls(realm, registry);
    if realm.host_str().is_none() || !realm.username().is_empty() || realm.password().is_some() {
        return Err(reject("it is not a URL with a host and without a login"));
    }
    may_ask(&realm, registry).map_err(reject)?;
    Ok(realm)
}

/// Returns an address that a registry names, corrected to HTTPS if it is the registry's own and the request
/// used HTTPS. Behind a proxy that terminates TLS without setting `X-Forwarded-Proto`, a registry
/// cannot detect HTTPS and names addresses with the wrong scheme.
pub(crate) fn behind_tls(named: Url, asked: &Url) -> Url {
    let is_own = named.scheme() == "http"
        && asked.scheme() == "https"
        && named.host_str() == asked.host_str()
        && (matches!(named.port(), None | Some(443)) || named.port() == asked.port())
        && named.username().is_empty()
        && named.password().is_none();
    if !is_own {
        return named;
    }
    let mut own = asked.clone();
    own.set_path(named.path());
    own.set_query(named.query());
    own
}

/// Whether a registry may name this token service: it must use HTTPS or be at the origin of the registry
/// (scheme, host and port). Otherwise a password could be sent in plain text to another host, or the registry
/// could receive the answer of an internal service.
pub(super) fn may_ask(service: &Url, registry: &Url) -> Result<(), &'static str> {
    match service.scheme() {
        "https" => Ok(()),
        "http" if service.origin() == registry.origin() => Ok(()),
        "http" if registry.scheme() != "http" => Err("it uses plain HTTP while the registry uses HTTPS"),
        "http" => Err("it uses plain HTTP on another host or port"),
        _ => Err("it is not an HTTP address"),
    }
}

/// The scope of a requested token: the registry's own if it allows only pulling from one repository,
/// else the standard scope for pulling from `repository`.
pub(crate) fn scope(offered: Option<String>, repository: &str) -> String {
    let pull_only = |scope: &String| {
        scope.starts_with("repository:") && scope.ends_with(":pull") && !scope.contains([' ', ','])
    };
    offered.filter(pull_only).unwrap_or_else(|| format!("repository:{repository}:pull"))
}

/// The header for a name and a password.
pub(crate) fn basic(name: &str, password: &str) -> Option<HeaderValue> {
    header(&format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
}

/// The header for the token in a token service's answer.
pub(crate) fn bearer(answer: &[u8]) -> Option<HeaderValue> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = crate::util::json::from_slice(answer).ok()?;
    let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token)?;
    if token.is_empty() { None } else { self::token(&token) }
}

/// The header for a token.
pub(crate) fn token(token: &str) -> Option<HeaderValue> {
    header(&format!("Bearer {token}"))
}

fn header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(header: &'static str) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(header));
        Challenge::of(&headers)
    }

    #[test]
    fn challenges_are_read_in_all_their_forms() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            Some(Challenge::Bearer { realm: realm.into(), service: own(service), scope: own(scope) })
        };
        assert_eq!(
            challenge(r#"Bearer realm="https://a/t",service="s",scope="repository:x/y:pull,push""#),
            bearer("https://a/t", Some("s"), Some("repository:x/y:pull,push"))
        );
        assert_eq!(challenge(r#"bearer REALM = "a\"b" , service=s"#), bearer("a\"b", Some("s"), None));
        assert_eq!(
            challenge(r#"Basic realm="r", Bearer realm="https://a""#),
            bearer("https://a", None, None)
        );
        assert_eq!(challenge(r#"Basic realm="r""#), Some(Challenge::Basic));
        assert_eq!(challenge("Bearer"), None);
        assert_eq!(challenge(r#"Digest realm="x", ="", "\"#), None);
    }

    #[test]
    fn a_password_is_sent_only_to_safe_token_services() {
        let https = Url::parse("https://r.example/v2/").unwrap();
        let http = Url::parse("http://r.example:5000/v2/").unwrap();
        for (text, registry, allowed) in [
            ("https://auth.example/token", &https, true),
            ("https://auth.example/token", &http, true),
            ("https://r.example:5000/token", &https, true),
            ("http://r.example:5000/token", &http, true),
            // The registry itself, behind a proxy that terminates TLS.
            ("http://r.example/token", &https, true),
            ("http://r.example:5000/token", &https, false),
            ("http://u:p@r.example/token", &https, false),
            ("http://r.example:5001/token", &http, false),
            ("http://r.example/token", &http, false),
            ("http://auth.example/token", &http, false),
            ("https://u:p@auth.example/", &https, false),
            ("file:///etc/passwd", &https, false),
            ("/token", &https, false),
        ] {
            let realm = realm(text, registry);
            assert_eq!(realm.is_ok(), allowed, "{text} {registry}");
            let is_safe = |realm: Url| realm.scheme() == "https" || realm.origin() == registry.origin();
            assert!(realm.is_ok_and(is_safe) == allowed, "{text} {registry}");
        }
    }

    #[test]
    fn a_token_is_requested_only_for_pulling() {
        assert_eq!(scope(Some("repository:a:pull".into()), "b"), "repository:a:pull");
        for offered in ["repository:a:pull,push", "repository:a:push repository:b:pull", "registry:catalog:*"]
        {
            assert_eq!(scope(Some(offered.into()), "b"), "repository:b:pull");
        }
    }

    #[test]
    fn tokens_are_read_from_either_field_and_never_shown() {
        assert_eq!(bearer(br#"{"token":"a"}"#).unwrap(), "Bearer a");
        assert_eq!(bearer(br#"{"access_token":"b"}"#).unwrap(), "Bearer b");
        for bad in [&br#"{}"#[..], br#"{"token":""}"#, br#"{"token":"a\nb"}"#, b"<html>"] {
            assert!(bearer(bad).is_none());
        }
        assert!(!format!("{:?}", basic("u", "p").unwrap()).contains("dTpw"));
    }
}
