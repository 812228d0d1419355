//! Where a dial to an address goes, and the canonical form of addresses: one rule for all
//! transports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Returns the address to which every transport connects for a dial of `addr`.
///
/// The unspecified addresses `0.0.0.0` and `[::]` mean this host, as with TCP sockets: the result
/// is the loopback address of their family. An IPv4-mapped IPv6 address becomes IPv4, see
/// [`canonical`].
///
/// ```
/// use net_traits::address::destination;
///
/// assert_eq!(destination("0.0.0.0:7".parse()?), Ok("127.0.0.1:7".parse()?));
/// assert_eq!(destination("[::]:7".parse()?), Ok("[::1]:7".parse()?));
/// assert!(destination("224.0.0.1:7".parse()?).is_err());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
///
/// # Errors
///
/// A description of the fault, for `InvalidInput` of [`ConnectError`](crate::ConnectError): port 0,
/// a multicast or broadcast address, or a link-local address without its zone.
pub fn destination(addr: SocketAddr) -> Result<SocketAddr, String> {
    let mut addr = canonical(addr);
    let cannot = |what: &str| Err(format!("cannot connect to {what}"));
    if addr.port() == 0 {
        return cannot("port 0");
    }
    if addr.ip().is_multicast() || addr.ip() == Ipv4Addr::BROADCAST {
        return cannot(&format!("{}, which is not the address of one host", addr.ip()));
    }
    match addr {
        SocketAddr::V6(it) if it.ip().is_unicast_link_local() && it.scope_id() == 0 => {
            return cannot(&format!("the link-local address {0} without a zone: {0}%1", it.ip()));
        }
        SocketAddr::V4(it) if it.ip().is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(it) if it.ip().is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Ok(addr)
}

/// Converts an IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) to IPv4. Other addresses are
/// unchanged.
///
/// Dual-stack sockets report IPv4 peers in the mapped form. Limits and logs need one form of each
/// address.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, addr.port()),
        IpAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_one_host_or_an_error() {
        for (text, expected) in [
            ("10.0.0.1:7", Some("10.0.0.1:7")),
            ("0.0.0.0:7", Some("127.0.0.1:7")),
            ("[::]:7", Some("[::1]:7")),
            ("[::ffff:0.0.0.0]:7", Some("127.0.0.1:7")),
            ("[::ffff:10.0.0.1]:7", Some("10.0.0.1:7")),
            ("[fe80::1%4]:7", Some("[fe80::1%4]:7")),
            ("[2001:db8::1]:7", Some("[2001:db8::1]:7")),
            ("[fe80::1]:7", None),
            ("10.0.0.1:0", None),
            ("[::]:0", None),
            ("239.1.2.3:7", None),
            ("[::ffff:239.1.2.3]:7", None),
            ("255.255.255.255:7", None),
            ("[ff02::1%4]:7", None),
        ] {
            let found = destination(text.parse().unwrap());
            assert_eq!(found.ok(), expected.map(|it| it.parse().unwrap()), "{text}");
        }
        let error = destination("[fe80::1]:7".parse().unwrap()).unwrap_err();
        assert_eq!(
            error,
            "cannot connect to the link-local address fe80::1 without a zone: fe80::1%1"
        );
    }
}
