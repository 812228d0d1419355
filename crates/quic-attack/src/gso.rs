//! Bursts of equal datagrams in one system call (UDP_SEGMENT), which arrive as one batch.

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use std::io;
use std::net::{SocketAddr, UdpSocket};

/// Sends bursts through a socket.
#[derive(Debug)]
pub struct Burst(UdpSocketState);

impl Burst {
    /// Prepares `socket` and makes it non-blocking.
    ///
    /// # Errors
    ///
    /// The error of the system.
    pub fn new(socket: &UdpSocket) -> io::Result<Self> {
        UdpSocketState::new(UdpSockRef::from(socket)).map(Self)
    }

    /// Returns how many datagrams the system accepts in one call; 1 without UDP_SEGMENT.
    pub fn limit(&self) -> usize {
        self.0.max_gso_segments()
    }

    /// Sends `bytes` in datagrams of `size` bytes; the last one may be shorter.
    ///
    /// # Errors
    ///
    /// The error of the system.
    pub fn send(
        &self,
        socket: &UdpSocket,
        destination: SocketAddr,
        bytes: &[u8],
        size: usize,
    ) -> io::Result<()> {
        let segment_size = Some(size);
        let transmit =
            Transmit { destination, ecn: None, contents: bytes, segment_size, src_ip: None };
        self.0.try_send(UdpSockRef::from(socket), &transmit)
    }
}
