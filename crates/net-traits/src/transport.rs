//! `NetTransport`: listens and dials.

use crate::{ConnectError, ListenError, NetConnection, NetCredential, NetListener};
use async_trait::async_trait;
use std::net::SocketAddr;

/// A way to reach peers, such as QUIC.
///
/// # Cancel safety
///
/// Both methods are cancel-safe: a dropped future leaves no socket and no connection behind.
#[async_trait]
pub trait NetTransport: Send + Sync + 'static {
    /// What `connect` gives.
    type Connection: NetConnection;
    /// What `create_listener` gives.
    type Listener: NetListener<Connection = Self::Connection>;

    /// Listens on `bind_addr` for peers that speak one of the protocols `alpn` (RFC 7301; the
    /// first that the peer offers too wins). Port 0 takes a free port, see
    /// [`NetListener::local_addr`].
    ///
    /// # Errors
    ///
    /// [`ListenError`], for instance when the port is taken.
    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Self::Listener, ListenError>;

    /// Connects to `remote_addr`, offering the protocols `alpn` in order of preference.
    ///
    /// It resolves once **this** side accepted the peer. With TLS 1.3 the peer judges this side's
    /// certificate a moment later: its rejection then ends the connection, and whatever is in
    /// progress fails with [`CloseReason::Rejected`](crate::CloseReason::Rejected).
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; every attempt ends within the transport's handshake timeout. One that makes several attempts
    /// says how long they take together.
    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Self::Connection, ConnectError>;
}
