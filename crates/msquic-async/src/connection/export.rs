//! Keying material that both sides of a connection can derive (RFC 8446, section 7.5).

use super::{Connection, ConnectionError, ConnectionState};
use crate::Status;
use crate::ffi::library::has_patch;
use crate::ffi::may_block::unblock;
use std::io;
use zeroize::Zeroizing;

/// Why no keying material was exported.
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::ExportError;
///
/// match connection.export_keying_material(b"EXPORTER-Channel-Binding", b"", 32).await {
///     Ok(binding) => println!("{} bytes that only the two sides know", binding.len()),
///     Err(ExportError::Unsupported) => println!("this build of msquic has no channel binding"),
///     Err(error) => println!("{error}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The linked libmsquic lacks the patch N32.
    #[error(
        "this libmsquic exports no keying material; the feature `vendored` builds one that does"
    )]
    Unsupported,
    /// The handshake is not done.
    #[error("the handshake is not complete")]
    NotConnected,
    /// The label or the output is longer than TLS can derive.
    #[error("{what} of {length} bytes is longer than the {max} that can be derived")]
    TooLong {
        /// The label or the keying material.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// How long it may be.
        max: usize,
    },
    /// The connection has ended.
    #[error("the connection has ended")]
    ConnectionLost(#[source] ConnectionError),
    /// msquic failed.
    #[error("msquic could not export keying material")]
    Other(#[source] Status),
}

impl From<ExportError> for io::Error {
    fn from(error: ExportError) -> Self {
        let kind = match &error {
            ExportError::Unsupported => io::ErrorKind::Unsupported,
            ExportError::NotConnected => io::ErrorKind::NotConnected,
            ExportError::TooLong { .. } => io::ErrorKind::InvalidInput,
            ExportError::ConnectionLost(error) => error.io_kind(),
            ExportError::Other(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// The longest label, in bytes: one byte counts it, with TLS's prefix of 6 (RFC 8446, section 7.1).
const MAX_LABEL: usize = 249;

/// The most that all cipher suites can derive, in bytes: 255 blocks of SHA-256 (RFC 5869, section 2.3).
const MAX_LENGTH: usize = 255 * 32;

impl Connection {
    /// Derives `length` bytes that only the two sides of this connection know; both sides derive the same bytes
    /// from the same `label` and `context` (RFC 8446, section 7.5; RFC 5705). Applications use them to bind
    /// their own messages to the connection. They are wiped from memory when they are dropped.
    ///
    /// Labels are registered with IANA or begin with `EXPERIMENTAL`; at most 249 bytes, and at most 8160 bytes of
    /// keying material. An empty context is the same as none.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let key = connection.export_keying_material(b"EXPERIMENTAL chat", b"room 7", 32).await?;
    /// assert_eq!(key.len(), 32);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ExportError`]. A server can export once the client has proven its identity.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn export_keying_material(
        &self,
        label: &[u8],
        context: &[u8],
        length: usize,
    ) -> Result<Zeroizing<Vec<u8>>, ExportError> {
        if !has_patch("N32") {
            return Err(ExportError::Unsupported); // C37: another library may use the number
        }
        for (what, length, max) in
            [("a label", label.len(), MAX_LABEL), ("keying material", length, MAX_LENGTH)]
        {
            if length > max {
                return Err(ExportError::TooLong { what, length, max });
            }
        }
        match &self.inner().exclusive.lock().state {
            ConnectionState::Connected => {}
            state => {
                let lost = |error: &ConnectionError| ExportError::ConnectionLost(error.clone());
                return Err(state.error().map_or(ExportError::NotConnected, lost));
            }
        }
        let (label, context) = (label.to_vec(), context.to_vec());
        let inner = self.inner().clone();
        unblock(move |may_block| {
            let mut output = Zeroizing::new(vec![0; length]);
            let calls = inner.native().calls(may_block);
            match calls.export_keying_material(&label, &context, &mut output) {
                Ok(()) => Ok(output),
                Err(status) => Err(inner
                    .error()
                    .map_or(ExportError::Other(status), ExportError::ConnectionLost)),
            }
        })
        .await
    }
}
