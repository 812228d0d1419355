//! Binds sockets. IPv6 sockets are dual-stack, whatever the default of the system is.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

/// How many connections the system queues until they are accepted.
const BACKLOG: i32 = 1024;

/// The size of the receive buffer that a UDP socket asks for, in bytes. A burst that does not fit is lost, of all
/// peers. It is a limit, not memory that is reserved.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;

/// Binds a UDP socket with a receive buffer of 8 MiB, or of what the system allows or has as its default. A socket on `[::]` receives IPv4 too, even if the default of the system is
/// not (`net.ipv6.bindv6only` of Linux).
///
/// # Errors
///
/// Those of the system.
pub fn bind_udp(addr: SocketAddr) -> io::Result<UdpSocket> {
    let mut socket = udp_socket(addr)?;
    let default = socket.recv_buffer_size()?;
    // Linux sets what it allows; where that is an error, the default stays.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    if socket.recv_buffer_size()? < default {
        socket = udp_socket(addr)?; // the default may be larger than what is allowed
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

fn udp_socket(addr: SocketAddr) -> io::Result<Socket> {
    socket(addr, Type::DGRAM, Protocol::UDP)
}

/// Returns the unspecified address of the family of `remote`, with port 0, to bind a socket that
/// dials it.
pub fn unspecified(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Returns the local address from which the system would send to `remote`; its port has no meaning.
/// Nothing is sent.
///
/// # Errors
///
/// Those of the system, for instance if there is no route.
pub fn source_addr(remote: SocketAddr) -> io::Result<SocketAddr> {
    let probe = bind_udp(unspecified(remote))?;
    probe.connect(remote)?;
    probe.local_addr()
}

/// Binds a non-blocking TCP socket as [`bind_udp`] does, and listens.
///
/// # Errors
///
/// Those of the system.
pub fn listen_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(addr, Type::STREAM, Protocol::TCP)?;
    if cfg!(unix) {
        socket.set_reuse_address(true)?; // connections that have ended do not occupy the port
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(addr: SocketAddr, of_type: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), of_type, Some(protocol))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_udp_socket_has_the_largest_receive_buffer_that_is_allowed() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
        let allowed: usize = allowed.trim().parse().unwrap();
        let socket = Socket::from(bind_udp("127.0.0.1:0".parse().unwrap()).unwrap());
        let default =
            udp_socket("127.0.0.1:0".parse().unwrap()).unwrap().recv_buffer_size().unwrap();
        // Linux doubles the size for its bookkeeping (socket(7)).
        let expected = default.max(2 * allowed.min(RECEIVE_BUFFER));
        assert_eq!(socket.recv_buffer_size().unwrap(), expected);
    }
}
