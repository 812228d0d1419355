//! `Incoming`: a connection attempt of a peer, before its handshake.

use crate::Configuration;
use crate::connection::{Connection, ConnectionError, ConnectionInner, StreamConnection};
use crate::ffi::connection::PeerConnection;
use bytes::Bytes;
use net_traits::NetCredential;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// The code with which connections that were not accepted are refused.
const REFUSED: u64 = 0;

/// A connection attempt of a peer. Dropping it refuses the connection.
///
/// ```no_run
/// # async fn example(
/// #     listener: msquic_async::Listener,
/// #     configuration: msquic_async::Configuration,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let incoming = listener.accept_incoming().await?;
/// if incoming.server_name() == Some("node.example") {
///     let connection = incoming.accept(&configuration)?;
///     connection.accept().await?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Incoming {
    connection: Option<Connection>,
    remote_addr: Option<SocketAddr>,
    server_name: Option<String>,
    alpn: Bytes,
}

impl Incoming {
    pub(super) fn new(inner: &Arc<ConnectionInner>, offered: &PeerConnection<'_>) -> Self {
        Self {
            connection: Some(Connection::from_inner(inner.clone())),
            remote_addr: offered.remote_addr,
            server_name: offered.server_name.clone(),
            alpn: offered.alpn.clone(),
        }
    }

    /// The address of the peer. It may be forged until the handshake is complete.
    ///
    /// ```no_run
    /// # fn example(incoming: msquic_async::Incoming) {
    /// if let Some(address) = incoming.remote_addr() {
    ///     println!("an attempt from {address}");
    /// }
    /// # }
    /// ```
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.remote_addr
    }

    /// The server name that the peer sent (SNI, RFC 6066). Do not trust it.
    ///
    /// ```no_run
    /// # fn example(incoming: msquic_async::Incoming) {
    /// let tenant = incoming.server_name().unwrap_or("default");
    /// # }
    /// ```
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The application protocol that will be used.
    ///
    /// ```no_run
    /// # fn example(incoming: msquic_async::Incoming) {
    /// let is_new_version = incoming.alpn() == b"chat/2";
    /// # }
    /// ```
    pub fn alpn(&self) -> &[u8] {
        &self.alpn
    }

    /// Continues the handshake with `configuration`; [`Connection::accept`] waits for its end.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     incoming: msquic_async::Incoming,
    /// #     configuration: msquic_async::Configuration,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let connection = incoming.accept(&configuration)?;
    /// connection.accept().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError`] when the connection has ended already.
    pub fn accept(mut self, configuration: &Configuration) -> Result<Connection, ConnectionError> {
        let Some(connection) = self.connection.take() else {
            return Err(ConnectionError::NotStarted);
        };
        let inner = connection.inner();
        inner.begin(configuration);
        inner.set_offered_alpn(&self.alpn);
        inner.native().set_configuration(configuration.native()).map_err(|status| {
            inner.start_failed(status);
            inner.error_or_closing()
        })?;
        Ok(connection)
    }

    /// Accepts as [`accept`](Self::accept) does, with another credential than that of the listener:
    /// its trust policy verifies the peer. The certificate that this side presents is that of
    /// `configuration`.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     incoming: msquic_async::Incoming,
    /// #     configuration: msquic_async::Configuration,
    /// #     credential: msquic_async::NetCredential,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let connection = incoming.accept_with(&configuration, credential)?;
    /// connection.accept().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError`] when the connection has ended already.
    pub fn accept_with(
        self,
        configuration: &Configuration,
        credential: NetCredential,
    ) -> Result<Connection, ConnectionError> {
        if let Some(connection) = &self.connection {
            connection.inner().set_credential(credential);
        }
        self.accept(configuration)
    }

    /// Refuses the connection with a code of the application (below 2^62).
    ///
    /// Before the handshake a code of the application cannot be sent: the peer sees QUIC's
    /// APPLICATION_ERROR (RFC 9000, section 10.2.3).
    ///
    /// ```no_run
    /// # fn example(incoming: msquic_async::Incoming) {
    /// incoming.refuse(0);
    /// # }
    /// ```
    pub fn refuse(mut self, error_code: u64) {
        if let Some(connection) = self.connection.take() {
            connection.shutdown(error_code, "");
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.shutdown(REFUSED, "");
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("remote_addr", &self.remote_addr)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}
