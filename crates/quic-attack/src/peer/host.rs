//! `Host`: a socket at which a scripted server waits for one client.

use super::{Peer, PeerError, Policy};
use crate::packet::{Packet, Space};
use crate::params::Parameters;
use crate::tls::Identity;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// A scripted server that waits for its client.
#[derive(Debug)]
pub struct Host {
    socket: UdpSocket,
    identity: Identity,
    parameters: Parameters,
}

/// A datagram of a client, with which a connection begins.
#[derive(Debug, Clone)]
pub struct First {
    /// The source address.
    pub remote: SocketAddr,
    /// The destination connection ID that the client chose.
    pub dst: Vec<u8>,
    /// The source connection ID of the client.
    pub src: Vec<u8>,
    /// The whole datagram.
    pub datagram: Vec<u8>,
}

impl Host {
    /// Binds a port of loopback.
    ///
    /// # Errors
    ///
    /// The error of the system.
    pub fn bind(identity: &Identity, parameters: &Parameters) -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let (identity, parameters) = (identity.clone(), parameters.clone());
        Ok(Self { socket, identity, parameters })
    }

    /// Returns the address to dial.
    ///
    /// # Errors
    ///
    /// The error of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for an Initial packet.
    ///
    /// # Errors
    ///
    /// [`PeerError::TimedOut`] if none arrives in time.
    pub fn first(&self, timeout: Duration) -> Result<First, PeerError> {
        let deadline = Instant::now() + timeout;
        let mut buffer = vec![0; 65_536];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(PeerError::TimedOut);
            }
            self.socket.set_read_timeout(Some(left))?;
            let Ok((length, remote)) = self.socket.recv_from(&mut buffer) else { continue };
            let datagram = &buffer[..length];
            let packets = Packet::split(datagram, 0).unwrap_or_default();
            if let Some(Packet::Protected(packet)) = packets.into_iter().next()
                && packet.space == Space::Initial
            {
                let (dst, src) = (packet.dst, packet.src);
                return Ok(First { remote, dst, src, datagram: datagram.to_vec() });
            }
        }
    }

    /// Sends raw bytes.
    ///
    /// # Errors
    ///
    /// The error of the system.
    pub fn send(&self, remote: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, remote).map(drop)
    }

    /// Creates the server side of the connection that `first` begins. It sends nothing before
    /// [`Peer::handshake`] or [`Peer::receive`].
    ///
    /// # Errors
    ///
    /// [`PeerError`].
    pub fn begin(self, first: &First, policy: Policy) -> Result<Peer, PeerError> {
        Peer::server(self.socket, first, &self.identity, self.parameters, policy)
    }

    /// Waits for a client and completes the handshake.
    ///
    /// # Errors
    ///
    /// [`PeerError`].
    pub fn accept(self, timeout: Duration) -> Result<Peer, PeerError> {
        let first = self.first(timeout)?;
        let mut peer = self.begin(&first, Policy::default())?;
        peer.handshake(timeout)?;
        Ok(peer)
    }
}
