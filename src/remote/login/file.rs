//! A file with logins, and the entry in it for a repository.
//!
//! This module parses such files. It runs no helper.

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::remote::login::credentials::Credentials;

/// The key that Docker and its helpers use for the login of Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// Base64 with optional padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The format of a file with logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `{"auths": {…}}`
    Current,
    /// `{"HOST": {…}}`, as Docker wrote it before 2015.
    Legacy,
}

/// The result of looking up a repository in a file.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    Login(Credentials),
    /// A helper has the login under the name of a server.
    Helper {
        helper: String,
        server: String,
    },
    /// The entry cannot be used; the text is the reason.
    Broken(String),
}

/// The content of a file with logins.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Logins {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
    #[serde(skip)]
    is_legacy: bool,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an entry")
    }
}

impl Logins {
    /// Parses the content of a file; `None` if it has another format.
    pub(super) fn parse(bytes: &[u8], form: Form) -> Option<Self> {
        match form {
            Form::Current => crate::util::json::from_slice(bytes).ok(),
            Form::Legacy => {
                let auths = Some(crate::util::json::from_slice(bytes).ok()?);
                Some(Logins { auths, is_legacy: true, ..Logins::default() })
            }
        }
    }

    /// Finds the login for a repository: from a helper for its host, else from the entry with the longest
    /// matching key, else from the helper for everything without an entry.
    pub(super) fn find(&self, host: &str, name: &str) -> Found {
        let server = if is_docker_hub(host) { DOCKER_HUB } else { host };
        if let Some(helper) = self.helper(host) {
            return Found::Helper { helper, server: server.to_owned() };
        }
        let entry = self.entry(host, name).map_or(Found::Nothing, |(key, entry)| entry.login(key));
        match (entry, &self.creds_store) {
            // An empty entry means that the helper has the login.
            (Found::Nothing, Some(helper)) if !helper.is_empty() => {
                Found::Helper { helper: helper.clone(), server: server.to_owned() }
            }
            (found, _) => found,
        }
    }

    fn helper(&self, host: &str) -> Option<String> {
        let helpers = self.cred_helpers.as_ref()?;
        let aliases: &[&str] =
            if is_docker_hub(host) { &["docker.io", "index.docker.io", DOCKER_HUB] } else { &[] };
        let mut names = [host].into_iter().chain(aliases.iter().copied());
        names.find_map(|name| helpers.get(name)).filter(|helper| !helper.is_empty()).cloned()
    }

    fn entry(&self, host: &str, name: &str) -> Option<(&str, &Entry)> {
        let auths = self.auths.as_ref()?;
        let entries = || auths.iter().filter_map(|(key, entry)| Some((key.as_str(), entry.as_ref()?)));
        let full = format!("{host}/{name}");
        if !self.is_legacy {
            // First the keys that match exactly, the longest first.
            let prefixes = std::iter::successors(Some(full.as_str()), |key| Some(key.rsplit_once('/')?.0));
            let mut exact = prefixes.filter_map(|prefix| auths.get_key_value(prefix));
            if let Some((key, Some(entry))) = exact.next() {
                return Some((key, entry));
            }
        }
        // Then the keys that match after normalization: with a scheme, a trailing slash, or another name of
        // Docker Hub.
        let meant = |key: &str| Key::of(key).filter(|key| key.host == canonical(host));
        let fits = |key: &Key| key.path.is_empty() || is_prefix(&key.path, name);
        let fitting = entries().filter_map(|(key, entry)| Some((meant(key).filter(fits)?, key, entry)));
        // If two keys have the same meaning, the first in alphabetical order is used.
        let longest = fitting.rev().max_by_key(|(meant, ..)| meant.path.len());
        // Docker wrote addresses with an arbitrary path for a host.
        let has_address = |key: &str| self.is_legacy || key.contains("://");
        let of_host = || entries().find(|(key, _)| has_address(key) && meant(key).is_some());
        longest.map(|(_, key, entry)| (key, entry)).or_else(of_host)
    }
}

/// The normalized key of an entry.
struct Key {
    host: String,
    /// The first components of a repository's name; may be empty.
    path: String,
}

impl Key {
    fn of(key: &str) -> Option<Self> {
        let bare = key.strip_prefix("http://").or_else(|| key.strip_prefix("https://")).unwrap_or(key);
        let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
        let path = path.trim_end_matches('/');
        // The address of an API, not of an organization.
        let is_api = bare.len() < key.len() && matches!(path, "v1" | "v2");
        let path = if is_api { "" } else { path };
        (!host.is_empty()).then(|| Key { host: canonical(host).to_owned(), path: path.to_owned() })
    }
}

/// Whether a repository's name is `path` or begins with `path` and a slash.
fn is_prefix(path: &str, name: &str) -> bool {
    name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_docker_hub(host: &str) -> bool {
    canonical(host) == "index.docker.io"
}

/// Returns one name for each registry: Docker Hub has three.
fn canonical(host: &str) -> &str {
    match host {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        other => other,
    }
}

impl Entry {
    fn login(&self, key: &str) -> Found {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = set(&self.identitytoken) {
            return Found::Login(Credentials::Token(token));
        }
        if let Some(auth) = set(&self.auth) {
            // The text itself is a secret.
            let broken = || Found::Broken(format!("the login for {key} has no valid format"));
            let pair = decode(&auth);
            let pair = pair.as_deref().and_then(|pair| pair.split_once(':'));
            return pair.map_or_else(broken, |(name, password)| {
                let password = password.trim_matches('\0');
                Found::Login(Credentials::Password(name.to_owned(), password.to_owned()))
            });
        }
        match (set(&self.username), set(&self.password)) {
            (Some(name), Some(password)) => Found::Login(Credentials::Password(name, password)),
            _ => Found::Nothing,
        }
    }
}

fn decode(auth: &str) -> Option<String> {
    let text: String = auth.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    String::from_utf8(BASE64.decode(text).ok()?).ok()
}
