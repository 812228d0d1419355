//! What a script gives to a peer and gets from it: `Policy`, `Received` and `PeerError`.

use crate::frame::Frame;
use crate::packet::{Opened, Space};
use std::io;

/// What a peer does by itself.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The packet number spaces in which packets are acknowledged.
    pub acknowledged: Vec<Space>,
    /// Whether PATH_CHALLENGE is answered.
    pub answers_challenges: bool,
    /// Whether a server sends HANDSHAKE_DONE when the handshake is complete.
    pub confirms: bool,
    /// Whether what would be sent is kept for [`Peer::release`].
    pub holds: bool,
    /// Which packets are taken for lost: they are neither handled nor acknowledged.
    pub lost: Option<fn(&Opened) -> bool>,
}

impl Default for Policy {
    /// What an honest peer does.
    fn default() -> Self {
        let acknowledged = vec![Space::Initial, Space::Handshake, Space::Data];
        Self { acknowledged, answers_challenges: true, confirms: true, holds: false, lost: None }
    }
}

/// A packet that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The packet.
    pub packet: Opened,
    /// Through which socket of the peer.
    pub socket: usize,
}

/// Why a peer cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// What was waited for did not come in time.
    #[error("timed out")]
    TimedOut,
    /// The other side closed the connection.
    #[error("the other side closed the connection: {0:?}")]
    Closed(Frame),
    /// TLS failed.
    #[error("tls failed")]
    Tls(#[from] rustls::Error),
    /// The system failed.
    #[error("the socket failed")]
    Io(#[from] io::Error),
}

impl Received {
    /// Returns whether the packet has a CONNECTION_CLOSE.
    pub fn has_close(&self) -> bool {
        self.close().is_some()
    }

    /// Returns the CONNECTION_CLOSE of the packet.
    pub fn close(&self) -> Option<&Frame> {
        self.packet.frames.iter().find(|frame| matches!(frame, Frame::Close { .. }))
    }
}
