//! `MsQuicNetConnection`: messages over one QUIC connection.

use crate::MsQuicTransportConfig;
use crate::certificate::resolve_bad_certificate;
use crate::frame;
use crate::inbox::Inbox;
use crate::stream_pool::{QueueError, StreamPool};
use crate::transport::RegistrationWrapper;
use async_trait::async_trait;
use bytes::Bytes;
use msquic_async::{Connection, ConnectionError, ConnectionStatistics};
use net_traits::{CertHash, CertificateDer, CloseReason, NetConnection, RecvError, SendError};
use parking_lot::Mutex;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A connection of [`MsQuicTransport`](crate::MsQuicTransport).
#[derive(Clone)]
pub struct MsQuicNetConnection {
    shared: Arc<Shared>,
}

struct Shared {
    /// Dropped before the connection: its streams belong to it.
    stream_pool: StreamPool,
    inner: Connection,
    local_addr: SocketAddr,
    remote_addr: SocketAddr,
    local_identity: String,
    local_hash: CertHash,
    remote_identity: String,
    certificate: CertificateDer<'static>,
    alpn: String,
    config: Arc<MsQuicTransportConfig>,
    /// What this side closes with, from the moment it began to.
    closing: Mutex<Option<CloseReason>>,
    /// The registration closes its connections when the transport and all of them are gone.
    _registration: Arc<RegistrationWrapper>,
}

impl MsQuicNetConnection {
    /// Wraps a connection whose handshake is done. `None` if it is over already and what belongs to
    /// it is not known.
    pub(crate) fn new(
        inner: Connection,
        local_hash: CertHash,
        config: Arc<MsQuicTransportConfig>,
        registration: Arc<RegistrationWrapper>,
    ) -> Option<Self> {
        let certificate = inner.get_remote_certificate()?;
        let inbox = Inbox::new(config.receive_queue, config.max_message_size);
        let shared = Shared {
            stream_pool: StreamPool::new(inbox),
            local_addr: inner.get_local_addr().ok()?,
            remote_addr: inner.get_remote_addr().ok()?,
            local_identity: local_hash.to_string(),
            local_hash,
            remote_identity: CertHash::of(&certificate).to_string(),
            certificate,
            alpn: String::from_utf8(inner.get_negotiated_alpn()?).ok()?,
            config,
            closing: Mutex::default(),
            inner,
            _registration: registration,
        };
        Some(Self { shared: Arc::new(shared) })
    }

    /// Measurements of the connection, such as the round-trip time.
    ///
    /// # Errors
    ///
    /// The reason why the connection is over.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn statistics(&self) -> Result<ConnectionStatistics, CloseReason> {
        match self.shared.inner.statistics().await {
            Ok(statistics) => Ok(statistics),
            Err(_) => Err(self.watch_close().await),
        }
    }
}

impl Shared {
    fn close_reason(&self, error: &ConnectionError) -> CloseReason {
        resolve_bad_certificate(error, self.remote_addr, self.local_hash)
    }

    /// Why nothing is sent while this side closes.
    fn closing(&self) -> CloseReason {
        let closing = self.closing.lock().clone();
        closing.unwrap_or(CloseReason::Local { code: 0, reason: String::new() })
    }
}

#[async_trait]
impl NetConnection for MsQuicNetConnection {
    fn local_addr(&self) -> SocketAddr {
        self.shared.inner.get_local_addr().unwrap_or(self.shared.local_addr)
    }

    fn remote_addr(&self) -> SocketAddr {
        self.shared.inner.get_remote_addr().unwrap_or(self.shared.remote_addr)
    }

    fn local_identity(&self) -> &str {
        &self.shared.local_identity
    }

    fn remote_identity(&self) -> &str {
        &self.shared.remote_identity
    }

    fn remote_certificate(&self) -> Option<CertificateDer<'static>> {
        Some(self.shared.certificate.clone())
    }

    fn alpn_negotiated(&self) -> &str {
        &self.shared.alpn
    }

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.send_bytes(Bytes::copy_from_slice(message)).await
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        let Shared { stream_pool, inner, config, .. } = &*self.shared;
        let (size, limit) = (message.len(), config.max_message_size);
        let header = frame::header(&message).filter(|_| size <= limit);
        let Some(header) = header else { return Err(SendError::TooLarge { size, limit }) };
        let after = config.stream_op_timeout;
        let Err(error) = stream_pool.send(inner, header, message, after).await else {
            return Ok(());
        };
        Err(match error {
            QueueError::TimedOut => SendError::TimedOut { after },
            QueueError::Stopped(code) => SendError::Stopped { code },
            // The peer's reason is known when the shutdown is complete.
            QueueError::Connection => SendError::Closed(self.watch_close().await),
            QueueError::Closed => SendError::Closed(self.shared.closing()),
            QueueError::Other(what) => SendError::Closed(CloseReason::Transport(what)),
        })
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        let Shared { stream_pool, inner, .. } = &*self.shared;
        let inbox = stream_pool.inbox();
        let take = || {
            let (entry, resume) = inbox.pop()?;
            if resume {
                stream_pool.resume();
            }
            if entry.is_err() {
                stream_pool.stop_broken();
            }
            Some(entry)
        };
        loop {
            let arrived = inbox.arrived();
            if let Some(entry) = take() {
                return entry;
            }
            tokio::select! {
                biased;
                () = arrived => {}
                stream = inner.accept_inbound_uni_stream() => match stream {
                    Ok(stream) => stream_pool.add_inbound(stream),
                    Err(_) => {
                        // The streams have told their sinks the end when the shutdown is complete,
                        // and until then may still have given them messages.
                        let error = inner.watch_shutdown().await;
                        stream_pool.resume(); // whoever made room may not have come to it yet
                        return take()
                            .unwrap_or_else(|| Err(RecvError::Closed(self.shared.close_reason(&error))));
                    }
                },
            }
        }
    }

    async fn close(&self, code: u64, reason: &str) {
        let Shared { stream_pool, inner, config, closing, .. } = &*self.shared;
        {
            let mut closing = closing.lock();
            if closing.is_none() {
                *closing = Some(CloseReason::Local { code, reason: reason.to_owned() });
            }
        }
        let shutdown = ShutdownOnDrop { inner, code, reason };
        let is_first = stream_pool.finish(inner, config.stream_op_timeout).await;
        if is_first {
            drop(shutdown);
        } else {
            std::mem::forget(shutdown); // whoever closes first also shuts down
        }
        inner.watch_shutdown().await;
    }

    async fn watch_close(&self) -> CloseReason {
        self.shared.close_reason(&self.shared.inner.watch_shutdown().await)
    }
}

/// Closes the connection, also when the future that drains it is dropped.
struct ShutdownOnDrop<'a> {
    inner: &'a Connection,
    code: u64,
    reason: &'a str,
}

impl Drop for ShutdownOnDrop<'_> {
    fn drop(&mut self) {
        self.inner.shutdown(self.code, self.reason);
    }
}

impl fmt::Debug for MsQuicNetConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MsQuicNetConnection")
            .field("remote_addr", &self.shared.remote_addr)
            .field("remote_identity", &self.shared.remote_identity)
            .finish_non_exhaustive()
    }
}
