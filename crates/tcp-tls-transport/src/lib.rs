//! Messages over **TCP and TLS 1.3**, for networks that block UDP.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backend;
mod config;
mod driver;
mod handshake;
mod native;
mod question;
mod record;
mod requests;

pub use config::TcpTlsConfig;
pub use native::TcpTls;
use net_kit::backend::{Connection, IncomingRequest, Listener, Question, Transport};

/// Messages over TCP and TLS 1.3. Clones share the transport.
pub type TcpTlsTransport = Transport<TcpTls>;
/// A listener of [`TcpTlsTransport`].
pub type TcpTlsListener = Listener<TcpTls>;
/// A connection attempt at a [`TcpTlsListener`].
pub type TcpTlsIncomingRequest = IncomingRequest<TcpTls>;
/// A connection of [`TcpTlsTransport`].
pub type TcpTlsConnection = Connection<TcpTls>;
/// A question of the peer. [`answer`](net_traits::NetQuestion::answer) waits until the system's
/// socket has the answer.
pub type TcpTlsQuestion = Question<TcpTls>;
