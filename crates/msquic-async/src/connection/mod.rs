//! Connections: handshake, streams, shutdown.
//!
//! [`Connection`] is a cheap handle; the connection is closed with code 0 when the last handle and
//! the last of its streams are dropped. Events of msquic go through a state machine; when one side
//! closes, everybody who waits is woken with the same [`ConnectionError`], after streams that had
//! arrived before were handed out.

mod change;
mod credit;
mod datagram;
mod dial;
mod error;
mod event;
mod export;
mod farewell;
mod future;
mod inner;
#[cfg(test)]
mod player;
mod race;
mod rebind;
mod state;
mod statistics;

pub use change::{ConnectionChange, NextChange};
pub(crate) use credit::Ticket;
pub use datagram::{
    DatagramOutcome, DgramReceiveError, DgramSendError, ReceiveDatagram, SendDatagram,
    TrackDatagram,
};
pub use dial::Dial;
pub use error::{ConnectionError, ShutdownError, StartError};
pub use export::ExportError;
pub use future::{
    AcceptInboundStream, AcceptInboundUniStream, ConnectionAccept, ConnectionStart,
    OpenOutboundStream, OpenSendStream, RemoteCertificateReceiver, WatchShutdown,
};
pub(crate) use inner::ConnectionInner;
pub use rebind::RebindError;
pub use statistics::{ConnectionStatistics, DatagramCounts, StreamCounts};

use crate::ffi::connection::NativeConnection;
use crate::ffi::may_block::unblock;
use crate::stream::{ReadStream, Stream, StreamType};
use crate::{Configuration, Registration, Settings, Status};
use net_traits::{NetCredential, PeerIdentity};
use rustls_pki_types::CertificateDer;
use state::ConnectionState;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A QUIC connection.
///
/// ```no_run
/// # async fn example(credential: msquic_async::NetCredential) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::{Configuration, Connection, Registration, Settings};
///
/// let registration = Registration::new("example")?;
/// let configuration =
///     Configuration::client(&registration, &["chat/1"], &Settings::new(), &credential)?;
/// let connection = Connection::new(&registration, credential)?;
/// connection.start(&configuration, "192.0.2.1", 4433).await?;
/// let mut stream = connection.open_send_stream().await?;
/// stream.send("hello").await?;
/// connection.shutdown(0, "bye");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connection {
    handle: Arc<ConnectionHandle>,
}

/// Closes the connection when the last handle and the last stream are gone.
pub(crate) struct ConnectionHandle {
    inner: Arc<ConnectionInner>,
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        self.inner.shutdown(0, "");
        self.inner.abandon_streams();
    }
}

impl Connection {
    /// A client's connection, which is not started. The trust policy of `credential` judges the
    /// peer's certificate; its own certificate and key are those of the configuration.
    ///
    /// ```no_run
    /// # fn example(
    /// #     registration: msquic_async::Registration,
    /// #     credential: msquic_async::NetCredential,
    /// #     peer: msquic_async::CertHash,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// use msquic_async::{Connection, TrustPolicy};
    ///
    /// let credential = credential.with_trust(TrustPolicy::hashes([peer]));
    /// let connection = Connection::new(&registration, credential)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError::ClosedByTransport`] when msquic cannot make it, for instance after
    /// [`Registration::shutdown`].
    pub fn new(
        registration: &Registration,
        credential: NetCredential,
    ) -> Result<Self, ConnectionError> {
        let failed = |status| ConnectionError::ClosedByTransport { status, code: 0 };
        let make = |native| ConnectionInner::new(native, credential);
        NativeConnection::open(registration.native(), make).map(Self::from_inner).map_err(failed)
    }

    pub(crate) fn from_inner(inner: Arc<ConnectionInner>) -> Self {
        Self { handle: Arc::new(ConnectionHandle { inner }) }
    }

    /// Connects to `port` of `host`, a name or an address. Names are resolved on a thread of their
    /// own; the first address counts. [`Dial::connect`] tries all of them.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     connection: msquic_async::Connection,
    /// #     configuration: msquic_async::Configuration,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// connection.start(&configuration, "node.example", 4433).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the attempt going on; [`accept`](Self::accept) waits for it.
    /// Nothing happens before the first poll.
    pub fn start(&self, configuration: &Configuration, host: &str, port: u16) -> ConnectionStart {
        self.start_with(configuration, Dial::new(host, port))
    }

    /// [`start`](Self::start), with a choice of server name, local address, interface and sockets. What `dial` leaves open
    /// is as it was set on the connection.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     connection: msquic_async::Connection,
    /// #     configuration: msquic_async::Configuration,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// use msquic_async::Dial;
    ///
    /// let dial = Dial::new("192.0.2.1", 4433).server_name("node.example");
    /// connection.start_with(&configuration, dial).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError`].
    ///
    /// # Cancel safety
    ///
    /// As for [`start`](Self::start).
    pub fn start_with(&self, configuration: &Configuration, dial: Dial) -> ConnectionStart {
        ConnectionStart::new(self.clone(), configuration.clone(), dial)
    }

    /// The local address of a connection that is not started, see [`Dial::local_addr`].
    ///
    /// ```no_run
    /// # fn example(
    /// #     connection: msquic_async::Connection,
    /// #     listener: msquic_async::Listener,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// connection.set_local_addr(listener.local_addr()?)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError::AlreadyStarted`], [`StartError::ConnectionLost`].
    pub fn set_local_addr(&self, addr: SocketAddr) -> Result<(), StartError> {
        self.inner().set_source(|source| source.local_addr = Some(addr))
    }

    /// Whether a connection that is not started may share its sockets, see [`Dial::share_binding`].
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// connection.set_share_binding(false)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError::AlreadyStarted`], [`StartError::ConnectionLost`].
    pub fn set_share_binding(&self, share: bool) -> Result<(), StartError> {
        self.inner().set_source(|source| source.share_binding = Some(share))
    }

    /// Waits until the handshake is done, on either side.
    ///
    /// ```no_run
    /// # async fn example(listener: msquic_async::Listener) -> Result<(), Box<dyn std::error::Error>> {
    /// let connection = listener.accept().await?;
    /// connection.accept().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError::ConnectionLost`] when it fails, or the connection is over.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub fn accept(&self) -> ConnectionAccept<'_> {
        ConnectionAccept::new(self)
    }

    /// Opens a stream. While the peer allows no further stream it waits, or fails if
    /// `fail_on_blocked`. Those who wait get their streams in order of arrival.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// use msquic_async::StreamType;
    ///
    /// let mut stream = connection.open_outbound_stream(StreamType::Unidirectional, false).await?;
    /// stream.write_chunk(&"news".into(), true).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`stream::StartError`](crate::stream::StartError).
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the line. If its stream was being started, it aborts the stream, which counts
    /// against the peer's limit all the same.
    pub fn open_outbound_stream(
        &self,
        stream_type: StreamType,
        fail_on_blocked: bool,
    ) -> OpenOutboundStream<'_> {
        OpenOutboundStream::new(self, stream_type, fail_on_blocked)
    }

    /// Opens a unidirectional stream for messages; waits while the peer allows none, in order of arrival.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut stream = connection.open_send_stream().await?;
    /// stream.send("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`stream::StartError`](crate::stream::StartError).
    ///
    /// # Cancel safety
    ///
    /// As for [`open_outbound_stream`](Self::open_outbound_stream).
    pub fn open_send_stream(&self) -> OpenSendStream<'_> {
        OpenSendStream::new(self)
    }

    /// Waits for the next bidirectional stream of the peer.
    ///
    /// ```no_run
    /// # async fn answer(stream: msquic_async::Stream) {}
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// loop {
    ///     let stream = connection.accept_inbound_stream().await?;
    ///     tokio::spawn(answer(stream));
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError`], after all streams that had arrived were handed out.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no stream.
    pub fn accept_inbound_stream(&self) -> AcceptInboundStream<'_> {
        AcceptInboundStream::new(self)
    }

    /// Waits for the next unidirectional stream of the peer.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut stream = connection.accept_inbound_uni_stream().await?;
    /// let message = stream.read_to_end(64 * 1024).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError`], after all streams that had arrived were handed out.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no stream.
    pub fn accept_inbound_uni_stream(&self) -> AcceptInboundUniStream<'_> {
        AcceptInboundUniStream::new(self)
    }

    /// [`accept_inbound_stream`](Self::accept_inbound_stream) for pollers. Any number of tasks may wait.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let stream = std::future::poll_fn(|cx| connection.poll_accept_inbound_stream(cx)).await?;
    /// println!("stream {:?}", stream.id());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`accept_inbound_stream`](Self::accept_inbound_stream).
    pub fn poll_accept_inbound_stream(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        let arrived = &self.inner().inbound.bidirectional;
        arrived.poll_registered(cx, || self.next_inbound(StreamType::Bidirectional))
    }

    /// [`accept_inbound_uni_stream`](Self::accept_inbound_uni_stream) for pollers. Any number of tasks
    /// may wait.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::future::poll_fn;
    ///
    /// let mut stream = poll_fn(|cx| connection.poll_accept_inbound_uni_stream(cx)).await?;
    /// let message = stream.read_to_end(64 * 1024).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`accept_inbound_uni_stream`](Self::accept_inbound_uni_stream).
    pub fn poll_accept_inbound_uni_stream(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ReadStream, ConnectionError>> {
        self.inner().inbound.unidirectional.poll_registered(cx, || self.next_inbound_uni())
    }

    /// Closes the connection with a code of the application (below 2^62) and a reason for the
    /// peer, cut after 511 bytes. Nothing that is queued is waited for. Closing again does nothing.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// connection.shutdown(0, "bye");
    /// # }
    /// ```
    pub fn shutdown(&self, error_code: u64, reason: &str) {
        self.inner().shutdown(error_code, reason);
    }

    /// [`shutdown`](Self::shutdown) without a reason; ready when the connection is over. Any number
    /// of tasks may wait.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// std::future::poll_fn(|cx| connection.poll_shutdown(cx, 0)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ShutdownError::ConnectionLost`] when it ended for another reason first.
    pub fn poll_shutdown(
        &self,
        cx: &mut Context<'_>,
        error_code: u64,
    ) -> Poll<Result<(), ShutdownError>> {
        self.inner().changed.register(cx);
        self.inner().shutdown(error_code, "");
        match self.shut_down() {
            None => Poll::Pending,
            Some(ConnectionError::ClosedLocally { .. }) => Poll::Ready(Ok(())),
            Some(error) => Poll::Ready(Err(ShutdownError::ConnectionLost(error))),
        }
    }

    /// Waits until the connection is over, the peer told and everything cleaned up, and says why.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) {
    /// let error = connection.watch_shutdown().await;
    /// println!("the connection is over: {error}");
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub fn watch_shutdown(&self) -> WatchShutdown<'_> {
        WatchShutdown::new(self)
    }

    /// Why the connection is over, if it is. The peer's text may still be missing; it is there when
    /// [`watch_shutdown`](Self::watch_shutdown) is ready.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// if let Some(error) = connection.close_reason() {
    ///     println!("{error}");
    /// }
    /// # }
    /// ```
    pub fn close_reason(&self) -> Option<ConnectionError> {
        self.inner().error()
    }

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

    /// Waits until the local or the peer's address changes, and tells both. Changes before the call do
    /// not count.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) {
    /// while let Ok((_, remote)) = connection.address_changed().await {
    ///     println!("the peer is at {remote} now");
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError`] when the connection is over.
    ///
    /// # Cancel safety
    ///
    /// A change between two calls is missed; compare with [`get_remote_addr`](Self::get_remote_addr).
    pub async fn address_changed(&self) -> Result<(SocketAddr, SocketAddr), ConnectionError> {
        let addresses = || {
            let exclusive = self.inner().exclusive.lock();
            (exclusive.local_addr, exclusive.remote_addr, exclusive.state.error().cloned())
        };
        let before = addresses();
        loop {
            let mut changed = pin!(self.inner().changed.notified());
            changed.as_mut().enable();
            match addresses() {
                (_, _, Some(error)) => return Err(error),
                (Some(local), Some(remote), None)
                    if (before.0, before.1) != (Some(local), Some(remote)) =>
                {
                    return Ok((local, remote));
                }
                _ => changed.await,
            }
        }
    }

    /// Changes settings of the running connection, as far as msquic allows: windows for streams that
    /// come, how many streams the peer may have open, timeouts, keep-alive, pacing, send buffering.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// use msquic_async::Settings;
    ///
    /// connection.set_settings(&Settings::new().peer_uni_streams(64)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Status::INVALID_PARAMETER`] when a value is out of range; [`Status::INVALID_STATE`] when the
    /// setting cannot be changed any more, or the connection is over.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may or may not have changed them.
    pub async fn set_settings(&self, settings: &Settings) -> Result<(), Status> {
        settings.check().map_err(|_| Status::INVALID_PARAMETER)?;
        let (native, settings) = (self.inner().native().clone(), settings.to_native());
        unblock(move |may_block| native.calls(may_block).set_settings(&settings)).await
    }

    /// The certificate that the peer showed, once it did. It is there even if it was rejected.
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

    /// Who the peer is, once the trust policy has accepted it.
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

    /// Waits for the certificate of the peer.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// use msquic_async::CertHash;
    ///
    /// let peer = CertHash::of(&connection.receive_remote_certificate().await?);
    /// println!("the peer is {peer}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError::ConnectionLost`] when the connection is over before one came.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub fn receive_remote_certificate(&self) -> RemoteCertificateReceiver<'_> {
        RemoteCertificateReceiver::new(self)
    }

    /// The application protocol that both sides agreed on, once they have.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// if connection.get_negotiated_alpn().is_some_and(|alpn| alpn == b"chat/2") {
    ///     println!("the peer speaks the new version");
    /// }
    /// # }
    /// ```
    pub fn get_negotiated_alpn(&self) -> Option<Vec<u8>> {
        let exclusive = self.inner().exclusive.lock();
        (!exclusive.alpn.is_empty()).then(|| exclusive.alpn.clone())
    }

    pub(crate) fn inner(&self) -> &Arc<ConnectionInner> {
        &self.handle.inner
    }

    pub(crate) fn handle(&self) -> Arc<ConnectionHandle> {
        self.handle.clone()
    }

    /// The next stream of the peer, or why there will be none; `None`: wait.
    fn next_inbound(&self, stream_type: StreamType) -> Option<Result<Stream, ConnectionError>> {
        let inner = {
            let mut exclusive = self.inner().exclusive.lock();
            let queue = match stream_type {
                StreamType::Bidirectional => &mut exclusive.bidirectional,
                StreamType::Unidirectional => &mut exclusive.unidirectional,
            };
            match queue.pop_front() {
                Some(inner) => inner,
                None => match &exclusive.state {
                    ConnectionState::Open => return Some(Err(ConnectionError::NotStarted)),
                    state => return state.error().map(|error| Err(error.clone())),
                },
            }
        };
        inner.release();
        Some(Ok(Stream::new(inner, self.handle())))
    }

    fn next_inbound_uni(&self) -> Option<Result<ReadStream, ConnectionError>> {
        let stream = match self.next_inbound(StreamType::Unidirectional)? {
            Ok(stream) => stream,
            Err(error) => return Some(Err(error)),
        };
        stream.split().0.map(Ok)
    }

    fn connected(&self) -> Option<Result<(), StartError>> {
        match &self.inner().exclusive.lock().state {
            ConnectionState::Open | ConnectionState::Connecting => None,
            ConnectionState::Connected => Some(Ok(())),
            ConnectionState::Shutdown(error) | ConnectionState::ShutdownComplete(error) => {
                Some(Err(StartError::ConnectionLost(error.clone())))
            }
        }
    }

    fn shut_down(&self) -> Option<ConnectionError> {
        match &self.inner().exclusive.lock().state {
            ConnectionState::ShutdownComplete(error) => Some(error.clone()),
            _ => None,
        }
    }

    fn certificate(&self) -> Option<Result<CertificateDer<'static>, StartError>> {
        let exclusive = self.inner().exclusive.lock();
        match (&exclusive.certificate, exclusive.state.error()) {
            (Some(certificate), _) => Some(Ok(certificate.clone())),
            (None, Some(error)) => Some(Err(StartError::ConnectionLost(error.clone()))),
            (None, None) => None,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exclusive = self.inner().exclusive.lock();
        f.debug_struct("Connection")
            .field("state", &exclusive.state)
            .field("remote_addr", &exclusive.remote_addr)
            .finish_non_exhaustive()
    }
}
