//! Messages over **QUIC** by quinn and rustls, without a C library.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backend;
mod config;
mod congestion;
mod drive;
mod native;
mod reader;
mod request;
mod socket;

pub use config::QuinnConfig;
pub use native::Quinn;
use net_kit::backend::{Connection, IncomingRequest, Listener, Question, Transport};
pub use net_kit::quic::CongestionControl;

/// Messages over QUIC by quinn. Clones share the transport.
pub type QuinnTransport = Transport<Quinn>;
/// A listener of [`QuinnTransport`].
pub type QuinnListener = Listener<Quinn>;
/// A connection attempt at a [`QuinnListener`].
pub type QuinnIncomingRequest = IncomingRequest<Quinn>;
/// A connection of [`QuinnTransport`].
pub type QuinnConnection = Connection<Quinn>;
/// A question of the peer. Answering it waits until the peer's QUIC has acknowledged the answer.
pub type QuinnQuestion = Question<Quinn>;
