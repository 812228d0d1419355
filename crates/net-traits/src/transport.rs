//! `NetTransport`: listens and dials.

use crate::{ConnectError, ListenError, NetConnection, NetCredential, NetListener};
use async_trait::async_trait;
use std::net::SocketAddr;

/// A way to reach peers, such as QUIC.
///
/// # Cancel safety
///
/// Both methods are cancel-safe: dropping the future closes its socket and its connection.
#[async_trait]
pub trait NetTransport: Send + Sync + 'static {
    /// The connection that `connect` returns.
    type Connection: NetConnection;
    /// The listener that `create_listener` returns.
    type Listener: NetListener<Connection = Self::Connection>;

    /// Listens on `bind_addr` for peers that support one of the protocols `alpn` (RFC 7301).
    ///
    /// The first protocol in `alpn` that the peer offers is selected. With port 0 the system
    /// assigns a port, see [`NetListener::local_addr`].
    ///
    /// # Errors
    ///
    /// [`ListenError`], for instance if the port is in use.
    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Self::Listener, ListenError>;

    /// Connects to `remote_addr`, offering the protocols `alpn` in order of preference.
    ///
    /// Resolves once **this** side accepted the peer. With TLS 1.3 the peer verifies this side's
    /// certificate later. If the peer rejects it, the connection ends and pending operations fail
    /// with [`CloseReason::Rejected`](crate::CloseReason::Rejected).
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; every attempt ends within the transport's handshake timeout. A transport
    /// that makes several attempts documents their total time.
    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Self::Connection, ConnectError>;
}
