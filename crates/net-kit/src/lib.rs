//! What implementors of message transports share.
//!
//! A transport moves messages over one wire protocol; this crate has the rest. It knows no wire
//! protocol. In reading order:
//!
//! 1. [`registry`]: one [`Registry`](registry::Registry) per transport knows its live connections.
//!    It applies revocations, shuts down, and counts. Each connection holds an
//!    [`Entry`](registry::Entry), and the application a [`Handle`](registry::Handle).
//! 2. [`admission`]: limits on the connections and handshakes of peers. A
//!    [`Place`](admission::Place) counts while it exists.
//! 3. [`facts`]: what does not change during a connection, and the getters of
//!    [`NetConnection`](net_traits::NetConnection) for it.
//! 4. [`inbox`]: messages that the application has not received yet. [`outbox`]: messages that wait
//!    to be written. Both are bounded in bytes. [`unacknowledged`] and [`loss_reports`]: messages
//!    that the peer has not confirmed, and those that are lost. [`receipts`]: messages that the
//!    peer's application has taken. [`memory_budget`]: the memory that peers occupy, per connection
//!    and in total. [`request_reader`]: questions and answers that are read piece by piece.
//!    [`reassembly`]: what arrived behind gaps of a stream.
//! 5. [`progress`]: ends operations whose peer takes no data. [`guard`]: steps that a cancelled
//!    future must not skip. [`coop`]: lets other tasks run. [`blocking`]: threads for jobs that block.
//!    [`revocations`]: revocations during a handshake.
//! 6. [`frame`]: messages in a byte stream. [`datagram`]: the byte in front of datagrams. [`alpn`]:
//!    names of protocols.
//! 7. [`statistics`] and [`telemetry`]: metrics, spans and events, with one vocabulary.
//! 8. [`handshake`]: what the errors of a handshake mean. `tls` (feature `rustls`): TLS 1.3 in
//!    which both sides verify certificates by a [`TrustPolicy`](net_traits::TrustPolicy).
//! 9. `backend` (feature `rustls`): all of the above as a whole transport over a small trait, for
//!    protocols that one task per connection drives. [`options`](mod@options): its configuration.
//!    [`quic`]: options of transports over QUIC.
//!
//! No lock is held while code of the caller runs: hooks, members and wakers are called after
//! unlocking.
//!
//! # Features
//!
//! - `metrics`: the metrics of [`telemetry`], by the facade of the crate `metrics`.
//! - `rustls`: the modules `tls` and `backend`.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod admission;
pub mod alpn;
#[cfg(feature = "rustls")]
pub mod backend;
pub mod blocking;
mod control_record;
pub mod coop;
pub mod datagram;
pub mod facts;
pub mod frame;
pub mod guard;
pub mod handshake;
pub mod inbox;
pub mod loss_reports;
pub mod memory_budget;
pub mod options;
pub mod outbox;
pub mod progress;
pub mod quic;
mod rate_limit;
pub mod reassembly;
pub mod receipts;
pub mod registry;
pub mod request_reader;
pub mod revocations;
pub mod statistics;
pub mod telemetry;
#[cfg(feature = "rustls")]
pub mod tls;
mod trust_expiry;
pub mod unacknowledged;
mod violations;

use parking_lot as lock;
