//! `PeerEvent`: a change of a peer, or a message that was not delivered.

use super::config::DropError;
use crate::resolver::ResolveError;
use bytes::Bytes;
use net_traits::{CertHash, CloseReason, ConnectError, RecvError};
use std::net::SocketAddr;

/// An event of a [`PeerPool`](crate::PeerPool).
///
/// Events of one peer that the application has not received yet are merged: it receives the newest
/// state, and `changes` says how many there were.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PeerEvent<C> {
    /// A connection with a peer was established, by either side.
    Connected {
        /// The peer.
        peer: CertHash,
        /// The connection on which messages are sent. The pool receives from it; see
        /// [`PeerPool::recv`](crate::PeerPool::recv).
        connection: C,
        /// Number of merged changes; 1 if none were merged.
        changes: u64,
    },
    /// Messages are sent on another connection with the peer.
    Replaced {
        /// The peer.
        peer: CertHash,
        /// The connection on which messages are sent.
        connection: C,
        /// Why an earlier connection ended; `None` if none has ended.
        reason: Option<CloseReason>,
        /// Number of merged changes; 1 if none were merged.
        changes: u64,
    },
    /// The last connection with a peer has ended.
    Disconnected {
        /// The peer.
        peer: CertHash,
        /// Why the last connection ended.
        reason: CloseReason,
        /// Number of merged changes; 1 if none were merged.
        changes: u64,
    },
    /// A message was not delivered.
    Undelivered(Undelivered),
    /// Messages of a peer were not received, for instance because they were too long. Its connection
    /// remains open, unless the error is [`RecvError::Closed`]: what a connection held was dropped,
    /// because the peer had [too many](crate::PeerPool#limits) or at a limit of the transport.
    ReceiveFailed {
        /// The peer.
        peer: CertHash,
        /// Why the last of them was not received.
        error: RecvError,
        /// Number of messages, at least.
        messages: u64,
    },
    /// Peers connected and disconnected while the application had not received the events of 1024
    /// others.
    Missed {
        /// How many of these events were left out.
        times: u64,
    },
    /// A [followed](crate::PeerPool::follow) address cannot be reached. It is dialled again with
    /// backoff. Further failures are not reported until an attempt has succeeded.
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: ConnectError,
    },
    /// A [followed](crate::PeerPool::follow) resolver failed, or listed too many addresses. The
    /// pool keeps following the addresses that it has. Repetitions of an error are not reported.
    ResolveFailed {
        /// Why.
        error: ResolveError,
    },
}

/// A message that a pool did not deliver, or does not know to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undelivered {
    /// The peer.
    pub peer: CertHash,
    /// The message.
    pub message: Bytes,
    /// Why.
    pub error: DropError,
    /// Whether a connection had taken the message. If so, the peer may have received it, at most
    /// once. Otherwise the peer has not received it.
    pub may_have_arrived: bool,
}
