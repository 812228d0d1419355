//! The types between a script and a peer: `Policy`, `Received` and `PeerError`.

use crate::frame::Frame;
use crate::packet::{Opened, Space};
use std::io;

/// The automatic behaviour of a peer.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The packet number spaces in which packets are acknowledged.
    pub acknowledged: Vec<Space>,
    /// Whether PATH_CHALLENGE is answered.
    pub answers_challenges: bool,
    /// Whether a server sends HANDSHAKE_DONE when the handshake is complete.
    pub confirms: bool,
    /// Whether packets are held for [`Peer::release`] instead of being sent.
    pub holds: bool,
    /// Which packets are treated as lost: neither handled nor acknowledged.
    pub lost: Option<fn(&Opened) -> bool>,
}

impl Default for Policy {
    /// The behaviour of a peer that follows the protocol.
    fn default() -> Self {
        let acknowledged = vec![Space::Initial, Space::Handshake, Space::Data];
        Self { acknowledged, answers_challenges: true, confirms: true, holds: false, lost: None }
    }
}

/// A received packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The packet.
    pub packet: Opened,
    /// The index of the receiving socket.
    pub socket: usize,
}

/// Why a peer failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The expected packet did not arrive in time.
    #[error("timed out")]
    TimedOut,
    /// The other side closed the connection.
    #[error("the other side closed the connection: {0:?}")]
    Closed(Frame),
    /// TLS failed.
    #[error("TLS failed")]
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
