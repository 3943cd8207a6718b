//! Chooses the proxy for a request from environment variables.
//!
//! The rules are those of Go (`golang.org/x/net/http/httpproxy`), which Trivy and most related tools use, and
//! `ALL_PROXY` as in curl. This module decides for requests with and without a body, and for error messages.
//! It opens no connection.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::OnceLock;

use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::util::text;

/// The proxies in the environment, and the exceptions to them.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    http: Option<Setting>,
    https: Option<Setting>,
    except: Vec<Exception>,
    /// The variable that holds the exceptions.
    except_variable: &'static str,
    /// Whether this program runs as a CGI program of a web server, whose clients could set `HTTP_PROXY` with
    /// the header `Proxy` (CVE-2016-5385 and similar).
    is_cgi: bool,
}

/// A variable and the proxy in it.
#[derive(Debug, Clone)]
struct Setting {
    variable: &'static str,
    proxy: Result<Proxy, String>,
}

/// The address and the login of a proxy.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    /// Its address, with a port and without a login. The scheme is `http`, `https` or `socks5h`.
    pub url: Url,
    pub login: Option<(String, String)>,
}

/// The route of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'a> {
    /// A direct connection; with the exception and the variable of the proxy, if an exception
    /// applies.
    Direct(Option<(&'a Exception, &'static str)>),
    /// A connection through the proxy in a variable.
    By(&'a Proxy, &'static str),
    /// No connection: the required proxy cannot be used.
    Refused(&'static str, &'a str),
}

/// A required proxy that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the proxy in {variable} cannot be used: {why}")]
pub(crate) struct UnusableProxy {
    pub variable: &'static str,
    pub why: String,
}

/// The role of a proxy in a request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyUse {
    /// The variable that names the proxy, such as `HTTPS_PROXY`.
    pub variable: &'static str,
    /// The exception that bypassed it, such as `NO_PROXY=.corp.example`.
    pub excepted_by: Option<String>,
}

/// An entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exception {
    /// The text of the entry.
    text: String,
    kind: Kind,
    /// Its port; `None` for any port.
    port: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Everything,
    Network(IpAddr, u8),
    Address(IpAddr),
    /// Names that end with this suffix, which begins with a dot; with `itself`, also the name after the dot.
    Domain {
        suffix: String,
        itself: bool,
    },
}

/// The reason for which a proxy for plain HTTP is not used.
pub(crate) const CGI: &str = "REQUEST_METHOD is set, so HTTP_PROXY could come from a client of a web server";

impl Proxies {
    /// Returns the proxies of this process, which are read once.
    pub(crate) fn of_environment() -> &'static Proxies {
        static OF_ENVIRONMENT: OnceLock<Proxies> = OnceLock::new();
        OF_ENVIRONMENT.get_or_init(|| Proxies::of(|name| std::env::var(name).ok()))
    }

    /// Returns the proxies of an environment. An empty variable is ignored, and the lower-case name
    /// takes precedence.
    pub(crate) fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            let set = |name: &'static str| Some((name, variable(name).filter(|value| !value.is_empty())?));
            names.iter().find_map(|name| set(name))
        };
        let setting = |names| first(names).map(|(variable, value)| Setting::new(variable, &value));
        let all = || setting(&["all_proxy", "ALL_PROXY"]);
        let (except_variable, except) = first(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
        Proxies {
            http: setting(&["http_proxy", "HTTP_PROXY"]).or_else(all),
            https: setting(&["https_proxy", "HTTPS_PROXY"]).or_else(all),
            except: except.split(',').filter_map(Exception::new).collect(),
            except_variable,
            is_cgi: variable("REQUEST_METHOD").is_some_and(|method| !method.is_empty()),
        }
    }

    /// Returns the route of a request to a URL.
    pub(crate) fn way(&self, url: &Url) -> Way<'_> {
        let setting = if url.scheme() == "https" { &self.https } else { &self.http };
        let Some(Setting { variable, proxy }) = setting else { return Way::Direct(None) };
        if self.is_cgi && url.scheme() == "http" {
            return Way::Refused(variable, CGI);
        }
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let address = host.parse().ok().map(|address: IpAddr| address.to_canonical());
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return Way::Direct(None);
        }
        let port = url.port_or_known_default().map(|port| port.to_string()).unwrap_or_default();
        if let Some(exception) = self.except.iter().find(|entry| entry.fits(host, address, &port)) {
            return Way::Direct(Some((exception, variable)));
        }
        match proxy {
            Ok(proxy) => Way::By(proxy, variable),
            Err(why) => Way::Refused(variable, why),
        }
    }

    /// Returns the proxy for a URL, if it needs one.
    ///
    /// # Errors
    /// If the proxy that it needs cannot be used.
    pub(crate) fn proxy_for(&self, url: &Url) -> Result<Option<&Proxy>, UnusableProxy> {
        match self.way(url) {
            Way::By(proxy, _) => Ok(Some(proxy)),
            Way::Direct(_) => Ok(None),
            Way::Refused(variable, why) => Err(UnusableProxy { variable, why: why.to_owned() }),
        }
    }

    /// Returns the role of a proxy in a request.
    pub(crate) fn used_for(&self, url: &Url) -> Option<Box<ProxyUse>> {
        let (variable, excepted_by) = match self.way(url) {
            Way::Direct(Some((exception, variable))) => {
                (variable, Some(format!("{}={}", self.except_variable, text::escape(&exception.text))))
            }
            Way::By(_, variable) => (variable, None),
            Way::Direct(None) | Way::Refused(..) => return None,
        };
        Some(Box::new(ProxyUse { variable, excepted_by }))
    }

    /// Describes the route of a request, for the debug log.
    pub(crate) fn describe(&self, url: &Url) -> String {
        match self.way(url) {
            Way::Direct(None) => "no proxy".into(),
            Way::Direct(Some((exception, _))) => {
                format!("no proxy because of {}={}", self.except_variable, text::escape(&exception.text))
            }
            Way::By(proxy, variable) => {
                format!("proxy {} of {variable}", proxy.url.host_str().unwrap_or_default())
            }
            Way::Refused(variable, _) => format!("the proxy of {variable} cannot be used"),
        }
    }

    /// The names and passwords for all proxies.
    pub(crate) fn logins(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = [&self.http, &self.https].into_iter().flatten();
        let logins = all.filter_map(|setting| setting.proxy.as_ref().ok()?.login.as_ref());
        logins.map(|(name, password)| (name.as_str(), password.as_str()))
    }

    /// The hosts of all proxies.
    pub(crate) fn hosts(&self) -> BTreeSet<String> {
        let all = [&self.http, &self.https].into_iter().flatten();
        all.filter_map(|setting| Some(setting.proxy.as_ref().ok()?.url.host_str()?.to_owned())).collect()
    }
}

impl Setting {
    fn new(variable: &'static str, value: &str) -> Self {
        Setting { variable, proxy: Proxy::parse(value) }
    }
}

impl Proxy {
    /// Parses the address of a proxy: a URL, or `HOST:PORT` for HTTP.
    fn parse(value: &str) -> Result<Self, String> {
        let is_url = |url: &Url| url.has_host() && url.host_str() != Some("");
        let with_scheme = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
        let url = Url::parse(&with_scheme).ok().filter(is_url);
        let Some(mut url) = url else {
            // The value may hold a password.
            return Err("its value is not the address of a proxy".into());
        };
        // As in Go, the proxy resolves names for both forms of SOCKS: this host may not be able to.
        let default = match url.scheme() {
            "http" => 80,
            "https" => 443,
            "socks5" | "socks5h" => 1080,
            other => return Err(format!("{other}:// is not supported")),
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let has_login = !url.username().is_empty() || url.password().is_some();
        let login = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
        let (host, port) = (url.host_str().unwrap_or_default(), url.port().unwrap_or(default));
        let scheme = if url.scheme() == "socks5" { "socks5h" } else { url.scheme() };
        url = Url::parse(&format!("{scheme}://{host}:{port}")).map_err(|error| error.to_string())?;
        Ok(Proxy { url, login: has_login.then_some(login) })
    }

    /// Whether it uses SOCKS.
    pub(crate) fn is_socks(&self) -> bool {
        self.url.scheme() == "socks5h"
    }

    /// Its address with its login.
    pub(crate) fn with_login(&self) -> Url {
        let mut url = self.url.clone();
        if let Some((name, password)) = &self.login {
            // These cannot fail for a URL with a host.
            let _ = url.set_username(name);
            let _ = url.set_password(Some(password.as_str()).filter(|password| !password.is_empty()));
        }
        url
    }
}

impl Exception {
    /// Parses an entry; `None` if it is empty. It may be an address, a network, a name with all subdomains, a
    /// name after `.` or `*.` with subdomains only, or `*`.
    fn new(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_lowercase();
        let exception = |kind, port: &str| {
            let port = Some(port.to_owned()).filter(|port| !port.is_empty());
            Some(Exception { text: entry.clone(), kind, port })
        };
        if entry == "*" {
            return exception(Kind::Everything, "");
        }
        if let Some((address, length)) = network(&entry) {
            return exception(Kind::Network(address, length), "");
        }
        let (host, port) = split_port(&entry).unwrap_or((&entry, ""));
        if let Ok(address) = host.parse::<IpAddr>() {
            return exception(Kind::Address(address.to_canonical()), port);
        }
        if host.is_empty() {
            return None;
        }
        let name = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let itself = !name.starts_with('.');
        let dot = if itself { "." } else { "" };
        exception(Kind::Domain { suffix: format!("{dot}{}", in_ascii(name)), itself }, port)
    }

    fn fits(&self, host: &str, address: Option<IpAddr>, port: &str) -> bool {
        let fits = match (&self.kind, address) {
            (Kind::Everything, _) => true,
            (Kind::Network(network, length), Some(address)) => contains(*network, *length, address),
            (Kind::Address(one), Some(address)) => *one == address,
            (Kind::Domain { suffix, itself }, None) => {
                host.ends_with(suffix.as_str()) || *itself && suffix.strip_prefix('.') == Some(host)
            }
            _ => false,
        };
        fits && self.port.as_ref().is_none_or(|only| only == port)
    }
}

/// Parses `ADDRESS/LENGTH`. An IPv4 network that is written as IPv6 is returned as IPv4.
fn network(entry: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = entry.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let length: u8 = length.parse().ok().filter(|_| digits)?;
    let (most, canonical) = (if address.is_ipv4() { 32 } else { 128 }, address.to_canonical());
    match (address, canonical) {
        _ if length > most => None,
        (IpAddr::V6(_), IpAddr::V4(_)) if length >= 96 => Some((canonical, length - 96)),
        _ => Some((address, length)),
    }
}

fn contains(network: IpAddr, length: u8, address: IpAddr) -> bool {
    let same = |a: u128, b: u128, bits: u32| {
        let shift = bits - u32::from(length);
        a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
    };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            same(u128::from(network.to_bits()), u128::from(address.to_bits()), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => same(network.to_bits(), address.to_bits(), 128),
        _ => false,
    }
}

/// Splits `HOST:PORT` or `[HOST]:PORT`; no other form has a port (Go's `net.SplitHostPort`).
fn split_port(entry: &str) -> Option<(&str, &str)> {
    let (before, port) = entry.rsplit_once(':')?;
    let host = match before.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']')?,
        None if before.contains(':') => return None,
        None => before,
    };
    let stray = |text: &str| text.contains(['[', ']']);
    (!stray(host) && !stray(port)).then_some((host, port))
}

/// Converts a name to the ASCII form that URLs use.
fn in_ascii(name: &str) -> String {
    let bare = name.trim_start_matches('.');
    if bare.is_ascii() {
        return name.to_owned();
    }
    let url = Url::parse(&format!("http://{bare}/"));
    let host = url.ok().and_then(|url| url.host_str().map(str::to_owned));
    host.map_or_else(|| name.to_owned(), |host| format!("{}{host}", &name[..name.len() - bare.len()]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    const TABLE: &str = include_str!("../../../tests/rules/proxies.json");

    /// An environment, and the route of each URL in it.
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        what: String,
        env: BTreeMap<String, String>,
        /// `direct`, `refused`, or the address of the proxy.
        ways: BTreeMap<String, String>,
        /// Go's result, if it differs.
        #[serde(default)]
        go: BTreeMap<String, String>,
        /// The reason for the difference.
        why: Option<String>,
    }

    fn cases() -> Vec<Case> {
        let all: Vec<Case> = serde_json::from_str(TABLE).unwrap();
        assert!(
            all.iter().all(|case| case.go.is_empty() == case.why.is_none()),
            "a deviation has its reason"
        );
        all
    }

    fn decided(case: &Case, url: &str) -> String {
        let proxies = Proxies::of(|name| case.env.get(name).cloned());
        match proxies.way(&url.parse().unwrap()) {
            Way::Direct(_) => "direct".into(),
            Way::Refused(..) => "refused".into(),
            Way::By(proxy, _) => proxy.with_login().as_str().trim_end_matches('/').to_owned(),
        }
    }

    #[test]
    fn every_url_gets_the_expected_route() {
        for case in cases() {
            for (url, way) in &case.ways {
                assert_eq!(&decided(&case, url), way, "{url}: {}", case.what);
            }
        }
    }

    #[test]
    #[ignore = "tools"]
    fn proxies_are_chosen_as_by_go() {
        let cases = cases();
        let rows: Vec<_> =
            cases.iter().flat_map(|case| case.ways.keys().map(move |url| (case, url))).collect();
        let questions: Vec<_> =
            rows.iter().map(|(case, url)| json!({ "env": case.env, "url": url })).collect();
        let theirs = test_kit::decided_by_go("proxies", &questions);
        assert_eq!(theirs.len(), rows.len());
        for (theirs, (case, url)) in theirs.iter().zip(rows) {
            let ours = decided(case, url);
            // Normalize default ports and the scheme of SOCKS.
            let theirs = match theirs.as_str().unwrap() {
                word @ ("direct" | "refused") => word.to_owned(),
                proxy => Proxy::parse(proxy).map_or("unusable".into(), |proxy| {
                    proxy.with_login().as_str().trim_end_matches('/').to_owned()
                }),
            };
            match case.go.get(url) {
                Some(way) => {
                    assert!(theirs == *way && theirs != ours, "{theirs} {ours} {url}: {}", case.what)
                }
                None => assert_eq!(theirs, ours, "{url}: {}", case.what),
            }
        }
    }

    #[test]
    fn the_reported_use_of_a_proxy_is_correct_and_holds_no_secret() {
        let env = [("HTTPS_PROXY", "http://u:s3cret@p.example:3128"), ("NO_PROXY", "*.corp.example")];
        let proxies = Proxies::of(|name| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        });
        let used = |url: &str| proxies.used_for(&url.parse().unwrap());
        let by = used("https://corp.example/").unwrap();
        assert_eq!((by.variable, by.excepted_by), ("HTTPS_PROXY", None));
        let past = used("https://r.corp.example/").unwrap();
        assert_eq!(past.excepted_by.as_deref(), Some("NO_PROXY=*.corp.example"));
        assert!(used("http://corp.example/").is_none() && used("https://localhost/").is_none());
        for (value, says) in [("socks4://u:s3cret@h:1", "socks4"), ("http://u:s3cret@[x", "address")] {
            let proxies = Proxies::of(|name| (name == "HTTPS_PROXY").then(|| value.to_owned()));
            let error = proxies.proxy_for(&"https://r.example/".parse().unwrap()).err().unwrap().to_string();
            assert!(error.contains(says) && error.contains("HTTPS_PROXY"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
            assert!(proxies.proxy_for(&"http://r.example/".parse().unwrap()).is_ok());
        }
    }
}
