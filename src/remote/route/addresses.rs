//! Distinguishes addresses of this host and link-local addresses from all others.
//!
//! A server must not be able to make this program send requests to services of this host, or to the services
//! of a cloud on a link-local address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::OnceLock;

use reqwest::Url;

/// The scope of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressScope {
    /// This host: loopback, "any" and the addresses of its interfaces.
    ThisHost,
    /// A link-local address, such as `169.254.169.254` of cloud metadata services.
    LinkLocal,
    /// Anything else, including private networks.
    Elsewhere,
}

impl AddressScope {
    /// Returns the scope of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        let address = embedded(address);
        let (this_host, link_local) = match address {
            // All of `0.0.0.0/8` is "this host" (RFC 1122, 3.2.1.3).
            IpAddr::V4(v4) => (v4.is_loopback() || v4.octets()[0] == 0, v4.is_link_local()),
            IpAddr::V6(v6) => (v6.is_loopback() || v6.is_unspecified(), v6.is_unicast_link_local()),
        };
        if link_local {
            AddressScope::LinkLocal
        } else if this_host || is_interface(address) {
            AddressScope::ThisHost
        } else {
            AddressScope::Elsewhere
        }
    }

    /// Returns the scope of the host in a URL without a lookup; a name is [`AddressScope::Elsewhere`].
    pub(crate) fn written(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        match host.parse() {
            Ok(address) => AddressScope::of(address),
            Err(_) if host == "localhost" || host.ends_with(".localhost") => AddressScope::ThisHost,
            Err(_) => AddressScope::Elsewhere,
        }
    }

    /// The scope in words, for errors.
    pub(crate) fn words(self) -> &'static str {
        match self {
            AddressScope::ThisHost => "an address of this host",
            AddressScope::LinkLocal => "a link-local address",
            AddressScope::Elsewhere => "an address of another host",
        }
    }
}

/// The IPv4 address in an IPv6 one: mapped (`::ffff:1.2.3.4`), compatible (`::1.2.3.4`) or for NAT64
/// (`64:ff9b::1.2.3.4`); else the address itself.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let nat64 = v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let v4 = match v6.to_ipv4() {
        None if nat64 => Some(Ipv4Addr::from_bits(v6.to_bits() as u32)),
        other => other,
    };
    v4.map_or(address, IpAddr::V4)
}

/// Whether an interface of this host has this address. The kernel binds a socket only to such addresses,
/// unless `net.ipv4.ip_nonlocal_bind` is on; then the address is local if it is also the source address of
/// packets to it. No packet is sent. Listing the interfaces would need `unsafe` or parsing `/proc`, which
/// is not always available.
fn is_interface(address: IpAddr) -> bool {
    let bound = UdpSocket::bind(SocketAddr::new(address, 0)).is_ok();
    if !bound || !binds_foreign(address.is_ipv6()) {
        return bound;
    }
    let any =
        if address.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
    let source = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| {
        socket.connect(SocketAddr::new(address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

/// Whether this host binds sockets to foreign addresses. It is tested with addresses that are reserved for
/// documentation (RFC 5737, RFC 3849).
fn binds_foreign(v6: bool) -> bool {
    static V4: OnceLock<bool> = OnceLock::new();
    static V6: OnceLock<bool> = OnceLock::new();
    let binds = |address: IpAddr| UdpSocket::bind(SocketAddr::new(address, 0)).is_ok();
    if v6 {
        *V6.get_or_init(|| binds(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1).into()))
    } else {
        *V4.get_or_init(|| binds(Ipv4Addr::new(192, 0, 2, 1).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_and_link_local_addresses_are_detected_in_every_form() {
        let cases = [
            ("0.0.0.0", AddressScope::ThisHost),
            ("0.1.2.3", AddressScope::ThisHost),
            ("127.0.0.1", AddressScope::ThisHost),
            ("127.9.9.9", AddressScope::ThisHost),
            ("::", AddressScope::ThisHost),
            ("::1", AddressScope::ThisHost),
            ("::ffff:127.0.0.1", AddressScope::ThisHost),
            ("::ffff:0.0.0.0", AddressScope::ThisHost),
            ("::127.0.0.1", AddressScope::ThisHost),
            ("64:ff9b::127.0.0.1", AddressScope::ThisHost),
            ("169.254.169.254", AddressScope::LinkLocal),
            ("::ffff:169.254.169.254", AddressScope::LinkLocal),
            ("64:ff9b::169.254.169.254", AddressScope::LinkLocal),
            ("fe80::1", AddressScope::LinkLocal),
            ("192.0.2.7", AddressScope::Elsewhere),
            ("2001:db8::7", AddressScope::Elsewhere),
            ("::ffff:192.0.2.7", AddressScope::Elsewhere),
        ];
        for (address, place) in cases {
            assert_eq!(AddressScope::of(address.parse().unwrap()), place, "{address}");
        }
    }

    #[test]
    fn every_way_to_write_an_address_in_a_url_is_understood() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "017700000001",
            "0177.0.0.1",
            "0",
            "127.0.0.1.",
            "[::1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:ffff:127.0.0.1]",
            "localhost",
            "LOCALHOST.",
            "x.localhost",
            "x.LocalHost.",
            "%31%32%37.0.0.1",
            "127。0。0。1",
            "①②⑦.0.0.1",
        ] {
            let url = Url::parse(&format!("http://{host}:8/x")).unwrap();
            assert_eq!(AddressScope::written(&url), AddressScope::ThisHost, "{host} is {url}");
        }
        for host in ["169.254.169.254", "2852039166", "0xa9fea9fe", "[fe80::1]", "[::ffff:a9fe:a9fe]"] {
            let url = Url::parse(&format!("http://{host}/x")).unwrap();
            assert_eq!(AddressScope::written(&url), AddressScope::LinkLocal, "{host} is {url}");
        }
        for host in ["192.0.2.7", "localhost.example", "alocalhost", "v.example", "[2001:db8::7]"] {
            let url = Url::parse(&format!("http://{host}/x")).unwrap();
            assert_eq!(AddressScope::written(&url), AddressScope::Elsewhere, "{host} is {url}");
        }
    }

    #[test]
    fn the_addresses_of_interfaces_belong_to_this_host() {
        // The address that packets from this host would have, if it has a route at all.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let address = match socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()) {
            Ok(own) => own.ip(),
            Err(_) => Ipv4Addr::LOCALHOST.into(),
        };
        assert!(is_interface(address), "{address}");
        assert!(!is_interface("192.0.2.1".parse().unwrap()));
    }
}
