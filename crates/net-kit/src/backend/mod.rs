//! `Backend`: the part of a transport that depends on its wire protocol. This module has the rest.
//!
//! A backend opens sockets, completes handshakes, and has a task per connection that moves messages
//! between the wire and the queues of a [`Session`]. For each backend, the types of this module
//! implement the traits of [`net_traits`]. The crate of the backend defines aliases for them:
//!
//! ```text
//! pub type QuinnTransport = Transport<Quinn>;
//! ```
//!
//! ```text
//! Transport ──▶ Listener ──▶ IncomingRequest ──▶ Connection ──▶ Session ◀── drive(), the task
//!     └────────── dial() ─────────────────────────────▲           queues, end of the connection
//! ```

mod bind;
mod connection;
mod datagrams;
mod incoming;
mod inner;
mod listener;
mod questions;
mod request;
mod session;
mod transport;

pub use bind::{bind_udp, listen_tcp, source_addr, unspecified};
pub use connection::Connection;
pub use incoming::IncomingRequest;
pub use listener::Listener;
pub use questions::Questions;
pub use request::Question;
pub use session::Session;
pub use transport::Transport;

use crate::admission::{ListenerAdmission, Place};
use crate::facts::ConnectionFacts;
use crate::handshake::Handshake;
use crate::options::TransportOptions;
use crate::telemetry::Sample;
use crate::tls::TlsIdentity;
use bytes::Bytes;
use net_traits::{Cause, CloseOutcome, ConnectError, Limit, ListenError, RequestError};
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// How one kind of transport listens, dials, and moves messages.
///
/// Each transport has one value of this type, which holds what its sockets share.
pub trait Backend: Send + Sync + Sized + 'static {
    /// The transport's name in spans, events and metrics.
    const NAME: &'static str;

    /// The outcome of a close after the peer has [confirmed](crate::outbox::Outbox::confirm) all
    /// messages.
    const CONFIRMED: CloseOutcome;

    /// The configuration of a transport.
    type Config: TransportOptions;
    /// The socket of a listener. Clones share it; it is closed when the last one is dropped.
    type Socket: Clone + Send + Sync + 'static;
    /// A connection attempt of a peer. Dropping it rejects it.
    type Attempt: Send + 'static;
    /// What the handles and the task of a connection share, in addition to the queues.
    type Native: Send + Sync + 'static;
    /// What only the task of a connection uses.
    type Io: Send + 'static;
    /// A question of the peer.
    type Question: PeerQuestion<Self>;

    /// Creates the backend of a transport.
    fn new(config: &Self::Config) -> Self;

    /// Returns the lanes of each connection. Default: one, and none for urgent messages or
    /// receipts.
    fn lanes(config: &Self::Config) -> Lanes {
        let _ = config;
        Lanes { ordinary: 1, has_urgent: false, has_receipts: false }
    }

    /// Listens, and returns the socket and its address.
    fn listen(
        &self,
        bind_addr: SocketAddr,
        alpn: &[String],
        identity: &TlsIdentity,
    ) -> impl Future<Output = Result<(Self::Socket, SocketAddr), ListenError>> + Send;

    /// Waits for the next attempt and returns it with the peer's address, or `None` if the socket
    /// is closed. Cancel-safe.
    fn accept(
        socket: &Self::Socket,
        listener: &ListenerAdmission,
    ) -> impl Future<Output = Option<(Self::Attempt, SocketAddr)>> + Send;

    /// Rejects an attempt without waiting, with the code if it can be sent before the handshake.
    fn refuse(attempt: Self::Attempt, code: u64);

    /// Stops listening and rejects the attempts that wait, without waiting. Connections remain
    /// open.
    fn stop(socket: Self::Socket);

    /// Completes the handshake of an attempt at the listener with the address `local_addr`. The
    /// place of the attempt is freed when it is dropped. Dropping the future rejects the attempt.
    fn handshake(
        &self,
        attempt: Self::Attempt,
        local_addr: SocketAddr,
        identity: &TlsIdentity,
        handshake: &Handshake,
        place: Place,
    ) -> impl Future<Output = Result<(Secured<Self>, Place), ConnectError>> + Send;

    /// Closes a connection beyond a limit, with the limit's code and without waiting.
    fn reject(secured: Secured<Self>, limit: Limit, place: Place);

    /// Connects to the peer of `handshake` and completes the handshake. Dropping the future closes
    /// the attempt.
    fn dial(
        &self,
        identity: &TlsIdentity,
        handshake: &Handshake,
    ) -> impl Future<Output = Result<Secured<Self>, ConnectError>> + Send;

    /// Runs a connection: fills its inbox, empties its lanes, and calls [`Session::end`] and
    /// [`Session::drained`]. After a local close it sends the queued messages first.
    fn drive(
        session: Arc<Session<Self>>,
        io: Self::Io,
        handshake: Handshake,
    ) -> impl Future<Output = ()> + Send + 'static;

    /// Waits until the library below has ended the connection, after [`drive`](Self::drive) began. The place in the
    /// limits is free then, although the task may still hold what the application has not received. Default:
    /// never, so that the place is free when `drive` returns.
    fn ended(session: &Session<Self>) -> impl Future<Output = ()> + Send {
        let _ = session;
        pending()
    }

    /// Closes the connection without waiting and drops what is queued to be sent.
    fn abort(session: &Session<Self>, code: u64, reason: &str);

    /// Returns the peer's address, if it can change during a connection.
    fn remote_addr(native: &Self::Native) -> Option<SocketAddr> {
        let _ = native;
        None
    }

    /// Returns a counter that changes whenever the peer takes data. Default: 0, for a backend that
    /// does not see it.
    fn progress(native: &Self::Native) -> u64 {
        let _ = native;
        0
    }

    /// Returns how many received bytes the library below holds, at most, that were not taken from it.
    /// Default: `None`, not known.
    fn unread(session: &Session<Self>) -> Option<usize> {
        let _ = session;
        None
    }

    /// Returns what the backend has measured of the path; [`queued`](Sample::queued) is set by the
    /// caller. Default: nothing.
    fn path(native: &Self::Native) -> Sample {
        let _ = native;
        Sample::default()
    }

    /// Returns the size of the queues of datagrams, in bytes; 0 if there are no datagrams, the default.
    /// Otherwise the next two functions are to be implemented, and those that arrive are
    /// [queued](Session::datagrams).
    fn datagram_queue(config: &Self::Config) -> usize {
        let _ = config;
        0
    }

    /// Returns the size of the largest datagram that can be sent now, with the byte that
    /// [`datagram`](crate::datagram) puts in front; `None` if the peer accepts none.
    fn max_datagram_size(native: &Self::Native) -> Option<usize> {
        let _ = native;
        None
    }

    /// Queues a datagram without waiting. Returns false if the queue is full.
    fn send_datagram(native: &Self::Native, datagram: Bytes) -> bool {
        let _ = (native, datagram);
        false
    }

    /// Asks the peer and waits for the answer. Remains pending if the connection ends. Dropping the
    /// future cancels the request.
    fn request(
        session: &Session<Self>,
        question: Bytes,
    ) -> impl Future<Output = Result<Bytes, RequestError>> + Send;

    /// Waits for the next question of the peer. Remains pending if the connection ends.
    /// Cancel-safe.
    fn accept_request(
        session: &Session<Self>,
    ) -> impl Future<Output = Result<Self::Question, RequestError>> + Send;
}

/// A question of the peer. [`end`](Self::end) is called before it is dropped.
///
/// Futures may remain pending after the connection has ended: the caller reports the end.
pub trait PeerQuestion<B: Backend>: Send + Sync + 'static {
    /// Waits for the whole question.
    fn read(
        &mut self,
        session: &Session<B>,
    ) -> impl Future<Output = Result<Bytes, RequestError>> + Send;

    /// Sends the answer, which is within the limit, and waits until the peer has it.
    fn answer(
        &mut self,
        session: &Session<B>,
        answer: Bytes,
    ) -> impl Future<Output = Result<(), RequestError>> + Send;

    /// Rejects the question with a code and without waiting, unless it has ended.
    fn end(&mut self, session: &Session<B>, code: u64);

    /// Waits until the peer cancels the question. Cancel-safe.
    fn canceled(&self) -> impl Future<Output = ()> + Send;
}

/// A backend whose [`lanes`](Backend::lanes) have one for urgent messages.
pub trait Urgent: Backend {}

/// The queues of messages to be sent that each connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    /// How many lanes are of equal priority; at least one.
    pub ordinary: usize,
    /// Whether there is a lane of higher priority for urgent messages.
    pub has_urgent: bool,
    /// Whether receipts and confirmations have a lane, which a full inbox of the peer does not stop.
    /// Otherwise they use the first lane.
    pub has_receipts: bool,
}

/// A connection after its handshake.
pub struct Secured<B: Backend> {
    /// What the handles and the task share.
    pub native: B::Native,
    /// What only the task uses.
    pub io: B::Io,
    /// What does not change during the connection.
    pub facts: ConnectionFacts,
}

/// Returns the error for a socket that could not listen on `bind_addr`.
pub fn cannot_listen(bind_addr: SocketAddr, error: io::Error) -> ListenError {
    match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::AddressInUse(bind_addr),
        _ => ListenError::Transport(Cause::new(error)),
    }
}
