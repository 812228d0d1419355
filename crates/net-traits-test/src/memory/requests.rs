//! Requests of the in-memory transport: each passes the links once in each direction.
//!
//! A question is an entry in the queue of the other side, with a channel for the answer. Each side
//! sees when the other one drops its end of the channel.

use super::link::Link;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// How many questions may wait to be accepted.
const WAITING: usize = 16;

/// The questions of one side that the other side has not accepted.
#[derive(Debug)]
pub(super) struct Questions {
    pub(super) sender: mpsc::Sender<Asked>,
    pub(super) waiting: tokio::sync::Mutex<mpsc::Receiver<Asked>>,
    /// The link from the side that asks.
    pub(super) link: Arc<Link>,
}

impl Questions {
    pub(super) fn new(link: Arc<Link>) -> Self {
        let (sender, waiting) = mpsc::channel(WAITING);
        Self { sender, waiting: waiting.into(), link }
    }
}

/// A question in flight.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Bytes,
    /// Whether the question is complete.
    pub(super) is_whole: bool,
    /// The answer, or the code of a refusal.
    pub(super) answer: oneshot::Sender<Result<Bytes, u64>>,
    /// Closed when the side that asked stops waiting.
    pub(super) asker: watch::Receiver<()>,
}
