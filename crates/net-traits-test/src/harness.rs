//! `Harness`: the interface between an implementor and the suite.

use crate::Limits;
use async_trait::async_trait;
use net_traits::{NetCredential, NetRequests, NetTransport};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

/// Creates the transport under test and provides operations that the traits lack.
///
/// A method with a panicking default belongs to a [capability](crate::Capability). If the transport
/// lacks the capability, list it in [`conformance!`](crate::conformance) and do not implement the
/// method.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The transport. It and its handles must be [`Debug`](fmt::Debug), whose output is searched
    /// for secrets.
    type Transport: NetTransport<Connection: NetRequests + fmt::Debug, Listener: fmt::Debug>
        + fmt::Debug;

    /// Creates an independent transport with these limits, which shares no counters with another
    /// one.
    fn transport(&self, limits: &Limits) -> Self::Transport;

    /// Returns the address for listeners, with port 0. Default: `127.0.0.1:0`.
    fn bind_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    /// Returns whether a receiver keeps data that its side has acknowledged when the peer closes.
    /// Default: true.
    ///
    /// msquic without this project's patches drops the data for which its receive queue had no
    /// room.
    fn keeps_what_is_acknowledged(&self) -> bool {
        true
    }

    /// Connects as a peer that can violate the protocol. Capability `raw_peer`.
    async fn raw_peer(
        &self,
        remote_addr: SocketAddr,
        alpn: &str,
        credential: NetCredential,
    ) -> Box<dyn RawPeer> {
        let _ = (remote_addr, alpn, credential);
        lacks("raw_peer")
    }

    /// Tries to connect without a certificate while trusting every peer, and waits until that
    /// fails.
    ///
    /// Capability `anonymous_peer`.
    async fn anonymous_peer(&self, remote_addr: SocketAddr, alpn: &str) {
        let _ = (remote_addr, alpn);
        lacks("anonymous_peer")
    }

    /// Creates a path to a listener, which can be interrupted. Capability `path`.
    ///
    /// [`Relay`](crate::Relay) is one for transports over UDP or TCP.
    async fn path(&self, listener: SocketAddr) -> Box<dyn Path> {
        let _ = listener;
        lacks("path")
    }
}

/// A path between a dialler and a listener.
pub trait Path: Send + Sync {
    /// Returns the address to dial instead of that of the listener.
    fn address(&self) -> SocketAddr;

    /// Forwards nothing from now on. `dialler` is the local address of the dialled connection.
    fn interrupt(&self, dialler: SocketAddr);

    /// Forwards again.
    fn restore(&self);
}

/// A peer that writes raw bytes instead of messages. Frames are those of [`net_kit::frame`].
#[async_trait]
pub trait RawPeer: Send {
    /// Sends bytes unmodified.
    async fn write(&mut self, bytes: &[u8]);

    /// Ends the byte stream gracefully, and keeps the connection open if the transport can.
    async fn finish(&mut self);

    /// Begins a question with these bytes and does not finish it. Returns the code with which it is
    /// refused, or `None` once the connection has ended. Default: `None`, for a transport without
    /// requests.
    async fn begin_question(&mut self, bytes: &[u8]) -> Option<u64> {
        let _ = bytes;
        None
    }
}

fn lacks(capability: &str) -> ! {
    panic!("the harness lacks `{capability}`: implement it, or list it in `without:`")
}
