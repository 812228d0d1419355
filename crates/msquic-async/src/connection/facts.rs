//! Getters of a connection: addresses, certificate, protocol, statistics, settings.

use super::stream_connection::StreamConnection;
use super::{Connection, ConnectionError, ConnectionStatistics};
use crate::ffi::may_block::unblock;
use crate::{Settings, Status, StreamType};
use net_traits::PeerIdentity;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

impl Connection {
    /// The address of this side.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// println!("reached at {}", connection.get_local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError::NotStarted`] before it is known, which is when the handshake is done.
    pub fn get_local_addr(&self) -> Result<SocketAddr, ConnectionError> {
        self.inner().exclusive.lock().local_addr.ok_or(ConnectionError::NotStarted)
    }

    /// The address of the peer.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// println!("connected to {}", connection.get_remote_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError::NotStarted`] before it is known.
    pub fn get_remote_addr(&self) -> Result<SocketAddr, ConnectionError> {
        self.inner().exclusive.lock().remote_addr.ok_or(ConnectionError::NotStarted)
    }

    /// Whether the peer has allowed streams of this type that this side opens, in the handshake or later.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// use msquic_async::StreamType;
    ///
    /// if !connection.peer_allows_streams(StreamType::Bidirectional) {
    ///     println!("the peer accepts no bidirectional streams");
    /// }
    /// # }
    /// ```
    pub fn peer_allows_streams(&self, stream_type: StreamType) -> bool {
        self.inner().stream_credit(stream_type).was_available()
    }

    /// How many bytes of streams have arrived and were not read: what msquic holds for streams that are paused,
    /// and behind gaps, up to the connection's window; and what is buffered for the readers of streams, up to
    /// `StreamLimits::receive_buffer` of each. Once the connection is closed, only the latter. While it is
    /// open, `None` with any library but the vendored one. Does not wait.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// if connection.unread_stream_bytes().is_some_and(|bytes| bytes > 1024 * 1024) {
    ///     println!("this program reads too slowly");
    /// }
    /// # }
    /// ```
    pub fn unread_stream_bytes(&self) -> Option<u64> {
        let queued = self.inner().queued_bytes().load(Ordering::Relaxed) as u64;
        match self.inner().native().unread_stream_bytes() {
            Some(unread) => Some(unread.saturating_add(queued)),
            None => self.inner().error().map(|_| queued),
        }
    }

    /// The certificate that the peer has presented, also if it was rejected; `None` before.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// use msquic_async::CertHash;
    ///
    /// if let Some(certificate) = connection.get_remote_certificate() {
    ///     println!("the peer is {}", CertHash::of(&certificate));
    /// }
    /// # }
    /// ```
    pub fn get_remote_certificate(&self) -> Option<CertificateDer<'static>> {
        self.inner().exclusive.lock().certificate.clone()
    }

    /// The identity of the peer, once the trust policy has accepted it.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// if let Some(peer) = connection.peer_identity() {
    ///     println!("{} with {} endorsers", peer.hash, peer.endorsers.len());
    /// }
    /// # }
    /// ```
    pub fn peer_identity(&self) -> Option<PeerIdentity> {
        self.inner().exclusive.lock().peer.clone()
    }

    /// Whether the handshake resumed the session of an earlier connection, see [`Resumption`](crate::Resumption). False
    /// before it is done.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// println!("{} handshake", if connection.is_resumed() { "a short" } else { "a full" });
    /// # }
    /// ```
    pub fn is_resumed(&self) -> bool {
        self.inner().exclusive.lock().is_resumed
    }

    /// The application protocol that both sides agreed on, once they have.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// if connection.get_negotiated_alpn().is_some_and(|alpn| alpn == b"chat/2") {
    ///     println!("the peer supports the new version");
    /// }
    /// # }
    /// ```
    pub fn get_negotiated_alpn(&self) -> Option<Vec<u8>> {
        let exclusive = self.inner().exclusive.lock();
        (!exclusive.alpn.is_empty()).then(|| exclusive.alpn.clone())
    }

    /// Returns measurements, such as the round-trip time. They are read on a thread that may block, since msquic
    /// answers on the connection's own thread.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let statistics = connection.statistics().await?;
    /// println!("{:?}, {} packets lost", statistics.rtt, statistics.lost_packets);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Status::INVALID_STATE`] once the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn statistics(&self) -> Result<ConnectionStatistics, Status> {
        let native = self.inner().native().clone();
        let measured = unblock(move |may_block| native.calls(may_block).statistics()).await?;
        let exclusive = self.inner().exclusive.lock();
        Ok(ConnectionStatistics {
            resumed: exclusive.is_resumed,
            opened_streams: exclusive.opened_streams,
            inbound_streams: exclusive.inbound_streams,
            datagrams: exclusive.datagrams.counts,
            ..ConnectionStatistics::measured(&measured)
        })
    }

    /// Returns the settings that msquic uses for this connection, with its defaults for those that were not given.
    /// [`resumption`](crate::Settings::resumption) and [`zero_copy_receive`](crate::Settings::zero_copy_receive) are not
    /// among them. They are read on a thread that may block, as [`statistics`](Self::statistics) are.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// println!("{:?}", connection.settings().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Status::INVALID_STATE`] once the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn settings(&self) -> Result<Settings, Status> {
        let native = self.inner().native().clone();
        let in_effect = unblock(move |may_block| native.calls(may_block).settings()).await?;
        Ok(Settings::in_effect(&in_effect))
    }
}
