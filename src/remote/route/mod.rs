//! Decides which addresses a host that the user named may lead to: by a redirect, by an address in an answer,
//! or by DNS.
//!
//! This module sends no request and does not depend on any service.

pub(crate) mod addresses;
pub(crate) mod proxy;
pub(crate) mod socks;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::remote::error::RemoteError;
use crate::remote::exchange::host_of;
use crate::remote::route::addresses::AddressScope;

/// An address that a host must not lead to.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{to} is {}", place.words())]
pub(crate) struct Misled {
    /// The host that the user named.
    pub named: String,
    /// The host that it led to, with the port if known.
    pub to: String,
    pub place: AddressScope,
}

impl Misled {
    /// The error of a request that was led to this address.
    pub(crate) fn about(self, subject: String) -> RemoteError {
        let Misled { named: host, to, place } = self;
        RemoteError::Misled { subject, host, to, what: place.words() }
    }
}

/// The rules for addresses that a host from the user may lead to: other hosts are allowed, and this
/// host is allowed only if the user named it. The first lookup of the name decides whether it is
/// this host, so that its DNS cannot change this later.
pub(crate) struct Route {
    named: String,
    place: OnceLock<AddressScope>,
    proxies: Arc<BTreeSet<String>>,
}

impl Route {
    /// Creates the route for a URL from the user. The hosts in `proxies` may have any address, because the
    /// user named them as well.
    pub(crate) fn new(url: &Url, proxies: Arc<BTreeSet<String>>) -> Self {
        let place = OnceLock::new();
        if AddressScope::written(url) != AddressScope::Elsewhere {
            let _ = place.set(AddressScope::written(url));
        }
        Route { named: url.host_str().unwrap_or_default().to_owned(), place, proxies }
    }

    /// Checks the host in a URL. Behind a proxy nothing else can be checked.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Misled> {
        let place = AddressScope::written(url);
        let is_named = url.host_str() == Some(&self.named);
        if is_named || self.may_lead_to(place, false) {
            Ok(())
        } else {
            Err(self.misled(host_of(url), place))
        }
    }

    /// Returns the allowed addresses of a host, with port 0.
    pub(crate) async fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        let found = tokio::net::lookup_host((host, 0)).await?.collect();
        self.select(host, found)
    }

    fn select(&self, host: &str, found: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
        if self.proxies.contains(host) {
            return Ok(found);
        }
        let is_named = host == self.named;
        let places: Vec<AddressScope> = found.iter().map(|address| AddressScope::of(address.ip())).collect();
        if is_named && !found.is_empty() {
            self.place.get_or_init(|| combined(&places));
        }
        let good = |place: &AddressScope| self.may_lead_to(*place, is_named);
        let selected: Vec<_> =
            found.iter().zip(&places).filter(|(_, place)| good(place)).map(|(address, _)| *address).collect();
        match places.iter().find(|place| !good(place)) {
            Some(place) if selected.is_empty() => Err(io::Error::other(self.misled(host.to_owned(), *place))),
            _ => Ok(selected),
        }
    }

    fn may_lead_to(&self, place: AddressScope, is_named: bool) -> bool {
        match (place, self.place.get()) {
            (AddressScope::Elsewhere, _) => true,
            // The user named this host, so its other ports are allowed. Other hosts with link-local
            // addresses are not: the metadata service of a cloud issues credentials there.
            (AddressScope::ThisHost, Some(AddressScope::ThisHost)) => true,
            (AddressScope::LinkLocal, Some(AddressScope::LinkLocal)) => is_named,
            _ => false,
        }
    }

    fn misled(&self, to: String, place: AddressScope) -> Misled {
        Misled { named: self.named.clone(), to, place }
    }
}

/// The scope of a host with all these addresses. One address elsewhere makes it another host: otherwise the
/// owner of a name could add `127.0.0.1` to its addresses.
fn combined(places: &[AddressScope]) -> AddressScope {
    [AddressScope::Elsewhere, AddressScope::ThisHost]
        .into_iter()
        .find(|place| places.contains(place))
        .unwrap_or(AddressScope::LinkLocal)
}

/// Adapts a route to the interface of reqwest.
pub(crate) struct Resolver(pub Arc<Route>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let route = self.0.clone();
        Box::pin(async move {
            let addresses = route.resolve(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(url: &str) -> Route {
        Route::new(&url.parse().unwrap(), Arc::new(BTreeSet::from(["proxy.example".into()])))
    }

    fn selected(route: &Route, host: &str, found: &[&str]) -> Option<usize> {
        let found = found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
        route.select(host, found).ok().map(|selected| selected.len())
    }

    #[test]
    fn a_host_elsewhere_does_not_lead_to_this_one() {
        let route = route("https://r.example/v2/");
        assert_eq!(selected(&route, "r.example", &["192.0.2.7"]), Some(1));
        assert_eq!(selected(&route, "cdn.example", &["192.0.2.8"]), Some(1));
        for ip in ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "::"] {
            assert_eq!(selected(&route, "cdn.example", &[ip]), None, "{ip}");
            assert_eq!(selected(&route, "cdn.example", &[ip, "192.0.2.8"]), Some(1), "{ip}");
            // Its own name must not change to such an address later.
            assert_eq!(selected(&route, "r.example", &[ip]), None, "{ip}");
        }
        for url in ["http://127.0.0.1:22/", "http://localhost/", "https://[::ffff:127.0.0.1]/", "http://0/"] {
            assert!(route.check(&url.parse().unwrap()).is_err(), "{url}");
        }
        assert!(route.check(&"https://10.0.0.1/".parse().unwrap()).is_ok(), "private networks are allowed");
        // A proxy that the user named may have any address.
        assert_eq!(selected(&route, "proxy.example", &["127.0.0.1"]), Some(1));
    }

    #[test]
    fn a_name_with_an_address_elsewhere_is_not_this_host() {
        let route = route("http://r.example/v2/");
        assert_eq!(selected(&route, "r.example", &["127.0.0.1", "192.0.2.7"]), Some(1));
        assert_eq!(selected(&route, "r.example", &["127.0.0.1"]), None);
    }

    #[test]
    fn addresses_of_this_host_are_allowed_if_the_user_named_one() {
        for (url, ip) in [("http://r.example/", "127.0.0.1"), ("http://localhost:5000/", "::1")] {
            let route = route(url);
            let host = route.named.clone();
            assert_eq!(selected(&route, &host, &[ip]), Some(1));
            assert_eq!(selected(&route, "other.example", &["127.0.0.1"]), Some(1));
            assert!(route.check(&"http://127.0.0.1:5001/".parse().unwrap()).is_ok());
            assert!(route.check(&"http://169.254.169.254/x".parse().unwrap()).is_err(), "{url}");
            assert_eq!(selected(&route, "other.example", &["169.254.169.254"]), None, "{url}");
        }
        let link = route("http://169.254.7.7:5000/");
        assert!(link.check(&"http://169.254.7.7/x".parse().unwrap()).is_ok());
        assert!(link.check(&"http://169.254.169.254/x".parse().unwrap()).is_err());
        assert!(link.check(&"http://127.0.0.1/x".parse().unwrap()).is_err());
    }
}
