//! Socket addresses as libmsquic lays them out.

use msquic::Addr;
use std::ffi::c_void;
use std::net::SocketAddr;

/// The native form of `addr`.
pub(super) fn to_native(addr: SocketAddr) -> Addr {
    addr.into()
}

/// The address that `addr` holds; IPv4 in IPv6 is unwrapped. None for an unset address.
pub(super) fn from_native(addr: &Addr) -> Option<SocketAddr> {
    let addr = addr.as_socket()?;
    Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
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
        for text in ["127.0.0.1:4433", "[2001:db8::1]:1", "[::]:0"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(from_native(&to_native(addr)), Some(addr));
        }
        let mapped = to_native("[::ffff:10.0.0.7]:9".parse().unwrap());
        assert_eq!(from_native(&mapped), Some("10.0.0.7:9".parse().unwrap()));
    }
}
