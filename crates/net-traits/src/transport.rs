//! `NetTransport`: listens and dials.

use crate::{
    CertHash, ConnectError, ListenError, NetConnection, NetCredential, NetListener,
    TransportStatistics, TrustPolicy,
};
use async_trait::async_trait;
use std::net::SocketAddr;
use std::time::Duration;

/// A transport, such as QUIC: listens for peers and dials them.
///
/// # Cancel safety
///
/// [`create_listener`](Self::create_listener) and [`connect`](Self::connect) are cancel-safe:
/// dropping the future closes its socket and its connection.
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

    /// Returns handles of the connections that have not ended, dialled and accepted.
    ///
    /// Connections whose last handle was dropped are not included. The returned handles keep their
    /// connections open.
    fn connections(&self) -> Vec<Self::Connection>;

    /// Aborts the connections with the peer `identity`, and returns their number.
    ///
    /// A handshake in progress is not affected; to keep a peer out, change the
    /// [trust](NetListener::set_trust) and [revoke](Self::revoke).
    fn close_peer(&self, identity: &CertHash, code: u64, reason: &str) -> usize {
        let mut connections = self.connections();
        connections.retain(|connection| connection.peer_identity().hash == *identity);
        connections.iter().for_each(|connection| connection.abort(code, reason));
        connections.len()
    }

    /// Aborts the connections whose peer `policy` does not trust, and returns the number of
    /// established ones.
    ///
    /// The code is [`REVOKED`](crate::close_code::REVOKED). Once the call has returned, nothing
    /// that these peers sent is delivered any more: neither messages that are queued for
    /// [`recv`](NetConnection::recv), nor datagrams, questions and answers. This includes
    /// connections that ended before. See [`NetConnection::is_trusted`].
    ///
    /// Handshakes in progress are affected too, on all listeners of the transport. Certificates are
    /// verified at the current time, so an expired certificate is not trusted either. The
    /// verification runs in the calling task, which yields to other tasks after every few peers.
    ///
    /// Later handshakes are not affected: give the listeners the new policy first, see
    /// [`NetListener::set_trust`], and dial with it.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may leave established connections open. Call it again.
    async fn revoke(&self, policy: &TrustPolicy) -> usize;

    /// Stops the listeners and closes all connections: gracefully until `deadline` has passed, then
    /// immediately.
    ///
    /// The code is [`SHUTDOWN`](crate::close_code::SHUTDOWN). The transport, and its clones, cannot
    /// be used afterwards. Dials in progress fail at once. Returns once everything has ended, at the
    /// latest after `deadline`. What the peers have not confirmed by then ends in the background.
    ///
    /// # Cancel safety
    ///
    /// A dropped future closes the connections that were sending queued messages immediately, and
    /// may leave others open.
    async fn shutdown(&self, deadline: Duration, reason: &str);

    /// Returns what the transport has counted so far, over all listeners and connections.
    fn statistics(&self) -> TransportStatistics;
}
