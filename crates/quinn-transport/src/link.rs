//! `Quinn` and `Link`: the state of a transport and of a connection.

use parking_lot::Mutex;
use quinn::{Connection, Endpoint, TransportConfig, VarInt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::RwLock;

/// The [`Backend`](net_kit::backend::Backend) of [`QuinnTransport`](crate::QuinnTransport).
pub struct Quinn {
    pub(crate) transport: Arc<TransportConfig>,
    pub(crate) backlog: usize,
    /// The endpoints that dial, for IPv4 and for IPv6.
    pub(crate) diallers: Mutex<[Option<Endpoint>; 2]>,
}

/// What the handles and the task of a connection share.
pub struct Link {
    pub(crate) connection: Connection,
    /// Read-locked while an answer is sent: the close of this side waits for it.
    pub(crate) answers: RwLock<()>,
    is_aborted: AtomicBool,
    /// How many datagrams were sent before the close.
    sent_before: AtomicU64,
}

impl Link {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            connection,
            answers: RwLock::default(),
            is_aborted: AtomicBool::new(false),
            sent_before: AtomicU64::new(0),
        }
    }

    /// Returns whether this side is to close the connection now, which has not ended.
    pub(crate) fn begin_close(&self) -> bool {
        let is_open = self.connection.close_reason().is_none();
        let is_first = is_open && !self.is_aborted.swap(true, Ordering::AcqRel);
        if is_first {
            self.sent_before.store(self.sent(), Ordering::Release);
        }
        is_first
    }

    /// Whether the close was sent.
    pub(crate) fn has_sent_close(&self) -> bool {
        self.sent() > self.sent_before.load(Ordering::Acquire)
    }

    /// Returns how many datagrams were sent.
    fn sent(&self) -> u64 {
        self.connection.stats().udp_tx.datagrams
    }
}

/// Limits a code to what QUIC can send.
pub(crate) fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}
