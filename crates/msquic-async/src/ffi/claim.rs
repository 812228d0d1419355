//! `Claim`: the address of a listener, which no other process shares.
//!
//! libmsquic listens with SO_REUSEPORT, so a listener would silently share the port of another
//! process, and each of them would get a part of the packets (C21). The system even assigns such a
//! port for port 0. Binding a socket without that option first detects it.

use super::library;
use super::status::Status;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// How many listeners of this process have an address, or are about to get it. Listeners with different protocols
/// share one.
static CLAIMS: Mutex<BTreeMap<SocketAddr, usize>> = Mutex::new(BTreeMap::new());

/// The right of one listener to an address, until it is dropped.
pub(super) struct Claim(SocketAddr);

impl Claim {
    /// Claims the address. Fails if another process has it; for port 0, a port that no process has
    /// is chosen.
    pub(super) fn new(mut addr: SocketAddr) -> Result<Self, Status> {
        // Locked during the probe, so that the probes of two listeners do not collide. If a
        // listener of this process has the address, no probe is needed, and it could collide with a
        // listener that is about to be bound.
        let mut claims = CLAIMS.lock();
        if !claims.contains_key(&addr) {
            addr.set_port(match probe(addr) {
                Ok(port) => port,
                // Connections that a stopped listener has accepted keep its socket, on which
                // libmsquic can listen again.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    is_bound_here(addr).then_some(addr.port()).ok_or(Status::ADDRESS_IN_USE)?
                }
                Err(error) => return Err(Status::of_system(&error)),
            });
        }
        *claims.entry(addr).or_default() += 1;
        Ok(Self(addr))
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = CLAIMS.lock();
        if let Some(count) = claims.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                claims.remove(&self.0);
            }
        }
    }
}

/// Binds the address, closes the socket, and returns the port.
fn probe(addr: SocketAddr) -> io::Result<u16> {
    let port = |addr: SocketAddr| UdpSocket::bind(addr)?.local_addr().map(|addr| addr.port());
    match port(addr) {
        // A machine without IPv6 has only IPv4 addresses.
        Err(error)
            if error.kind() != io::ErrorKind::AddrInUse
                && addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) =>
        {
            port((Ipv4Addr::UNSPECIFIED, addr.port()).into())
        }
        result => result,
    }
}

/// Whether a UDP socket of this process has the address.
#[cfg(unix)]
fn is_bound_here(addr: SocketAddr) -> bool {
    // Without the patch N8 listeners are bound to all addresses (C21).
    let is_all = addr.ip().is_unspecified() || !library::has_patch("N8");
    let has_it = |bound: SocketAddr| {
        let is_wide = bound.ip().is_unspecified();
        bound.port() == addr.port() && (bound.ip() == addr.ip() || is_wide && is_all)
    };
    let descriptors: Vec<_> = match std::fs::read_dir("/dev/fd") {
        Ok(all) => all.filter_map(|one| one.ok()?.file_name().to_str()?.parse().ok()).collect(),
        Err(_) => (0..1 << 16).collect(),
    };
    descriptors.into_iter().filter_map(udp_addr).any(has_it)
}

#[cfg(not(unix))]
fn is_bound_here(_: SocketAddr) -> bool {
    true // other systems have no SO_REUSEPORT: libmsquic fails if the address is in use
}

/// The address of a descriptor that is a UDP socket.
#[cfg(unix)]
fn udp_addr(descriptor: libc::c_int) -> Option<SocketAddr> {
    let mut kind: libc::c_int = 0;
    let mut length = size_of_val(&kind) as libc::socklen_t;
    // SAFETY: at most `length` bytes are written. A number that is no descriptor is an error.
    let status = unsafe {
        let kind = (&raw mut kind).cast();
        libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_TYPE, kind, &raw mut length)
    };
    if status != 0 || kind != libc::SOCK_DGRAM {
        return None;
    }
    let mut addr = std::mem::MaybeUninit::<msquic::Addr>::zeroed();
    let mut length = size_of_val(&addr) as libc::socklen_t;
    // SAFETY: as above, over zeroed bytes, which are a valid address (C6).
    unsafe {
        let status = libc::getsockname(descriptor, addr.as_mut_ptr().cast(), &raw mut length);
        (status == 0).then(|| super::address::from_native(&addr.assume_init())).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_kept_as_long_as_a_listener_has_the_address() {
        let first = Claim::new((Ipv4Addr::new(127, 0, 0, 9), 0).into()).unwrap();
        let addr = first.addr();
        assert_ne!(addr.port(), 0);
        let second = Claim::new(addr).unwrap();
        drop(first);
        assert_eq!(CLAIMS.lock().get(&addr), Some(&1));
        drop(second);
        assert_eq!(CLAIMS.lock().get(&addr), None);
    }

    #[cfg(unix)]
    #[test]
    fn the_error_of_the_system_is_kept() {
        // An address of no host (RFC 5737).
        let failed = Claim::new((Ipv4Addr::new(192, 0, 2, 1), 0).into()).err();
        assert_eq!(failed, Some(Status::ADDRESS_NOT_AVAILABLE));
    }

    #[test]
    fn sockets_of_this_process_are_found() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = socket.local_addr().unwrap();
        assert!(is_bound_here(addr));
        assert!(!is_bound_here((Ipv4Addr::new(127, 0, 0, 2), addr.port()).into()));
    }
}
