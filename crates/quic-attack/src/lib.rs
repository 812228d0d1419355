//! Packets that a hostile QUIC peer may send, and a scripted peer, for tests of endpoints.
//!
//! 1. Without a connection: [`Attempt`] seals Initial packets with any [`Frame`]s; [`packet`]
//!    creates Version Negotiation and Retry packets; [`client_hello`] creates a ClientHello with
//!    any ALPN and transport [`Parameters`].
//! 2. Within a connection: [`Peer`] completes the handshake as a client or, from a [`Host`], as a
//!    server, then sends packets for the script and returns the received ones.
//!
//! Data flow: `Frame` → [`packet::Draft`] → UDP, and back through [`packet::Packet`]. A script's
//! packets are sent once and never retransmitted. [`mangle`] damages packets, [`Burst`] sends
//! batches, and [`process`] measures the process of the test.
#![forbid(unsafe_code)]

pub mod frame;
pub mod mangle;
pub mod packet;
pub mod params;
pub mod process;
pub mod varint;

mod gso;
mod initial;
mod peer;
mod tls;

pub use frame::{Ack, Frame};
pub use gso::Burst;
pub use initial::{Attempt, initial_keys};
pub use packet::{Opened, Packet, Space};
pub use params::Parameters;
pub use peer::{First, Host, Peer, PeerError, Policy, Received};
pub use tls::{Identity, client_hello};
