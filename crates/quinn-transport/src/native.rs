//! `Quinn` and `Native`: the state of a transport and of a connection, and how one ends.

use crate::reader::{Reader, Unread};
use net_kit::backend::Session;
use net_kit::handshake::{Alert, Ended};
use net_traits::{Cause, CloseReason};
use parking_lot::Mutex;
use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, RecvStream, TransportConfig,
    TransportErrorCode as Code, VarInt,
};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::RwLock;
use tokio::time::sleep;

/// How often, and at which interval, `close_sent` polls whether the close was sent.
const CLOSE_POLLS: (u32, Duration) = (50, Duration::from_millis(1));

/// The [`Backend`](net_kit::backend::Backend) of [`QuinnTransport`](crate::QuinnTransport).
pub struct Quinn {
    pub(crate) transport: Arc<TransportConfig>,
    pub(crate) endpoint: EndpointConfig,
    pub(crate) backlog: usize,
    /// The endpoints that dial, for IPv4 and for IPv6.
    pub(crate) diallers: Mutex<[Option<Endpoint>; 2]>,
    /// How many connections need datagrams that do not share memory.
    pub(crate) separated: Arc<AtomicUsize>,
}

/// What the handles and the task of a connection share.
pub struct Native {
    pub(crate) connection: Connection,
    /// Read-locked while an answer is sent, so that a local close waits for it.
    pub(crate) answers: RwLock<()>,
    pub(crate) unread: Arc<Unread>,
    /// How many datagrams were sent before this side closed.
    sent_before: OnceLock<u64>,
}

impl Native {
    pub(crate) fn new(connection: Connection, separated: &Arc<AtomicUsize>) -> Self {
        Self {
            connection,
            answers: RwLock::default(),
            unread: Arc::new(Unread::new(separated.clone())),
            sent_before: OnceLock::new(),
        }
    }

    /// Records that this side closes. Returns false if it has closed before.
    pub(crate) fn begin_close(&self) -> bool {
        self.sent_before.set(self.sent()).is_ok()
    }

    /// Waits until the close was sent, since a program may end once `close` returns. Polls, because
    /// quinn has no notification.
    pub(crate) async fn close_sent(&self) {
        let (times, interval) = CLOSE_POLLS;
        for _ in 0..times {
            if self.sent_before.get().is_none_or(|before| self.sent() > *before) {
                break;
            }
            sleep(interval).await;
        }
    }

    fn sent(&self) -> u64 {
        self.connection.stats().udp_tx.datagrams
    }
}

/// Reads a stream of the peer.
pub(crate) fn reader(session: &Session<Quinn>, stream: RecvStream) -> Reader {
    let Native { connection, unread, .. } = session.native();
    let (share, window) = (session.inbox().share(), session.config().stream_window());
    Reader::new(stream, connection, unread, share, window)
}

/// Limits a code to what QUIC can send.
pub(crate) fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

/// Says how a connection ended.
pub(crate) fn ended(error: ConnectionError) -> Ended {
    let (code, alert): (_, fn(u8) -> Alert) = match &error {
        ConnectionError::ApplicationClosed(close) => {
            return Ended::by_peer(close.error_code.into(), &close.reason);
        }
        ConnectionError::LocallyClosed => {
            return Ended::new(CloseReason::Local { code: 0, reason: String::new() });
        }
        ConnectionError::TimedOut => return Ended::new(CloseReason::TimedOut),
        ConnectionError::TransportError(error) => (error.code, Alert::Sent),
        ConnectionError::ConnectionClosed(close) => (close.error_code, Alert::Received),
        _ => (Code::INTERNAL_ERROR, Alert::Sent),
    };
    Ended::by_quic(code.into(), alert, Cause::new(error))
}
