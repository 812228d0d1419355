//! Connections: handshake, streams, shutdown.
//!
//! Events of msquic go through a state machine; when one side closes, all waiting tasks are woken
//! with the same [`ConnectionError`], after streams that had arrived before were delivered.

mod change;
mod close_reason;
mod credit;
mod datagram;
mod datagram_sink;
mod dial;
mod error;
mod event;
#[cfg(test)]
mod event_orders;
mod export;
mod facts;
mod follow;
mod future;
mod inner;
mod peer_streams;
mod race;
mod raw;
mod rebind;
mod start;
mod state;
mod statistics;
mod stream_connection;
mod streams;

pub use crate::buffer::{DatagramCounts, DatagramOutcome};
pub use change::ConnectionChange;
pub(crate) use credit::Ticket;
pub use datagram::{ReceiveDatagram, SendDatagram, TrackDatagram};
pub use dial::Dial;
pub use error::{ConnectionError, DgramReceiveError, DgramSendError, ShutdownError, StartError};
pub use export::ExportError;
pub use follow::NextChange;
pub use future::{ConnectionAccept, RemoteCertificateReceiver, WatchShutdown};
pub(crate) use inner::ConnectionInner;
pub use rebind::RebindError;
pub use start::ConnectionStart;
pub use statistics::{ConnectionStatistics, StreamCounts};
pub(crate) use stream_connection::StreamConnection;
pub use streams::{
    AcceptInboundStream, AcceptInboundUniStream, OpenOutboundStream, OpenSendStream,
};

use crate::ffi::connection::NativeConnection;
use crate::ffi::may_block::unblock;
use crate::{Registration, Settings, Status};
use net_traits::NetCredential;
use rustls_pki_types::CertificateDer;
use state::ConnectionState;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A QUIC connection.
///
/// This is a handle, which is cheap to clone. The connection is closed with code 0 when its last handle and the
/// last of its streams are dropped. When it ends, all tasks that wait on it get the same [`ConnectionError`],
/// after the streams that had arrived before.
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

/// Closes the connection when the last handle and the last stream are dropped.
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
    /// Creates a client's connection, which is not started. The trust policy of `credential` verifies the
    /// peer's certificate; the certificate and key of this side are those of the configuration.
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
    /// [`ConnectionError::ClosedByTransport`] when msquic cannot create it, for instance after
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

    /// Sets the local address of a connection that is not started, see [`Dial::local_addr`].
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

    /// Sets whether a connection that is not started may share its sockets, see
    /// [`Dial::share_binding`].
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
    /// [`StartError::ConnectionLost`] when it fails, or the connection has ended. A close by the peer after the
    /// handshake is no error here, because what the peer sent before it can still be received.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub fn accept(&self) -> ConnectionAccept<'_> {
        ConnectionAccept::new(self)
    }

    /// Closes the connection with a code of the application (below 2^62) and a reason for the peer, which is
    /// truncated to 511 bytes. Does not wait for queued data, which is lost. Closing again does nothing.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// connection.shutdown(0, "bye");
    /// # }
    /// ```
    pub fn shutdown(&self, error_code: u64, reason: &str) {
        self.inner().shutdown(error_code, reason);
    }

    /// Closes the connection as [`shutdown`](Self::shutdown) does, without a reason; ready when the connection has
    /// ended. Any number of tasks may wait.
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
        self.inner().shutdown(error_code, "");
        self.inner().changed.poll_registered(cx, || self.shut_down()).map(|end| match end {
            ConnectionError::ClosedLocally { .. } => Ok(()),
            error => Err(ShutdownError::ConnectionLost(error)),
        })
    }

    /// Waits until the connection has ended and its native handle is closed, and returns the reason.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) {
    /// let error = connection.watch_shutdown().await;
    /// println!("the connection has ended: {error}");
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub fn watch_shutdown(&self) -> WatchShutdown<'_> {
        WatchShutdown::new(self)
    }

    /// Sets a hook that is called once when the connection has ended, before the tasks that wait for the end are
    /// woken; at once if it has ended already. It replaces a hook that was set before, and does not keep the
    /// connection open.
    ///
    /// The hook runs on a thread of msquic and must not block. It is not called if the process exits before
    /// msquic reports the end.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// connection.on_shutdown(|error| println!("the connection has ended: {error}"));
    /// # }
    /// ```
    pub fn on_shutdown(&self, hook: impl FnOnce(ConnectionError) + Send + 'static) {
        self.inner().set_end_hook(Box::new(hook));
    }

    /// Returns why the connection has ended, if it has. The peer's reason phrase may still be missing; it is
    /// included when [`watch_shutdown`](Self::watch_shutdown) is ready.
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

    /// Changes settings of the running connection, as far as msquic allows it: windows for new streams, how many
    /// streams the peer may have open, timeouts, keep-alive, pacing, send buffering.
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
    /// [`Status::INVALID_PARAMETER`] when a value is out of range, or for cipher suites, which a configuration
    /// chooses; [`Status::INVALID_STATE`] when the setting cannot be changed any more, or the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may or may not have changed them.
    pub async fn set_settings(&self, settings: &Settings) -> Result<(), Status> {
        settings.validate().map_err(|_| Status::INVALID_PARAMETER)?;
        if settings.cipher_suites.is_some() {
            return Err(Status::INVALID_PARAMETER);
        }
        let (native, settings) = (self.inner().native().clone(), settings.to_native());
        unblock(move |may_block| native.calls(may_block).set_settings(&settings)).await
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
    /// [`StartError::ConnectionLost`] when the connection has ended before one was received.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub fn receive_remote_certificate(&self) -> RemoteCertificateReceiver<'_> {
        RemoteCertificateReceiver::new(self)
    }

    pub(crate) fn inner(&self) -> &Arc<ConnectionInner> {
        &self.handle.inner
    }

    pub(crate) fn handle(&self) -> Arc<ConnectionHandle> {
        self.handle.clone()
    }

    fn connected(&self) -> Option<Result<(), StartError>> {
        let exclusive = self.inner().exclusive.lock();
        match (exclusive.state.error(), &exclusive.state) {
            (Some(ConnectionError::ClosedByPeer { .. }), _) if exclusive.was_connected => {
                Some(Ok(()))
            }
            (Some(error), _) => Some(Err(StartError::ConnectionLost(error.clone()))),
            (None, ConnectionState::Connected) => Some(Ok(())),
            (None, _) => None,
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
