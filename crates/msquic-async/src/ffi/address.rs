//! Socket addresses as libmsquic lays them out.

use msquic::Addr;
use std::ffi::c_void;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The native form of `addr`.
pub(super) fn to_native(addr: SocketAddr) -> Addr {
    addr.into()
}

/// The native form of an address to listen on. `[::]` means both families, as with TCP: for
/// libmsquic that is an address without a family (C21).
pub(super) fn to_native_listen(addr: SocketAddr) -> Addr {
    let mut native = to_native(addr);
    if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        native.ipv6.sin6_family = msquic::ADDRESS_FAMILY_UNSPEC;
    }
    native
}

/// The address in `addr`. An IPv4-mapped address becomes IPv4, and a link-local address keeps its
/// zone. `None` for an unset address.
pub(super) fn from_native(addr: &Addr) -> Option<SocketAddr> {
    let addr = addr.as_socket()?;
    match addr.ip().to_canonical() {
        ip @ IpAddr::V4(_) => Some(SocketAddr::new(ip, addr.port())),
        IpAddr::V6(_) => Some(addr),
    }
}

/// The address that a listener is bound to: the reverse of [`to_native_listen`].
pub(super) fn from_native_listen(addr: &Addr) -> SocketAddr {
    from_native(addr).unwrap_or_else(|| (Ipv6Addr::UNSPECIFIED, addr.port()).into())
}

/// The address that an event points to.
///
/// # Safety
///
/// `addr` is null or points to a `QUIC_ADDR` that is valid for the call.
pub(super) unsafe fn from_event(addr: *const c_void) -> Option<SocketAddr> {
    // SAFETY: the caller's promise; `Addr` has the layout of `QUIC_ADDR` (C6).
    unsafe { addr.cast::<Addr>().as_ref() }.and_then(from_native)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_unwraps_mapped_addresses() {
        for text in ["127.0.0.1:4433", "[2001:db8::1]:1", "[::]:0", "[fe80::1%4]:5"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(from_native(&to_native(addr)), Some(addr));
            assert_eq!(from_native_listen(&to_native_listen(addr)), addr);
        }
        let mapped = to_native("[::ffff:10.0.0.7]:9".parse().unwrap());
        assert_eq!(from_native(&mapped), Some("10.0.0.7:9".parse().unwrap()));
    }

    #[test]
    fn all_addresses_have_no_family_to_listen_on() {
        assert_eq!(from_native(&to_native_listen("[::]:7".parse().unwrap())), None);
        let ipv4 = "0.0.0.0:7".parse().unwrap();
        assert_eq!(from_native(&to_native_listen(ipv4)), Some(ipv4));
    }
}
