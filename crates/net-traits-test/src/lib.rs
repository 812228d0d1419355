//! Does a transport keep the contracts of [`net_traits`]? This crate asks it.
//!
//! An implementor writes a [`Harness`] and calls [`conformance!`]: one test per behaviour, each with a time limit,
//! most of them with the roles of dialler and listener swapped. What the transport cannot do is named, and its
//! tests show as ignored with that name, never as passed.
//!
//! ```no_run
//! # mod memory_conformance {
//! use net_traits_test::memory::{MemoryNetwork, MemoryTransport};
//! use net_traits_test::{Harness, Limits};
//! use std::net::SocketAddr;
//!
//! struct Memory(MemoryNetwork);
//!
//! impl Harness for Memory {
//!     type Transport = MemoryTransport;
//!
//!     fn transport(&self, limits: &Limits) -> MemoryTransport {
//!         self.0.transport_with(limits.clone())
//!     }
//!
//!     fn bind_addr(&self) -> SocketAddr {
//!         ([0, 0, 0, 0], 0).into()
//!     }
//! }
//!
//! net_traits_test::conformance! {
//!     Memory(MemoryNetwork::new(0)),
//!     without: [raw_peer, anonymous_peer, hot_reload, revocation],
//! }
//! # }
//! # fn main() {}
//! ```
//!
//! Each behaviour is a function of [`suite`], whose documentation says what the contract is and why. That the suite
//! bites is proven by its own tests: for each behaviour there is a transport that breaks just that.
//!
//! [`memory`] has a transport without sockets, for tests of protocols on top of the traits.
#![forbid(unsafe_code)]

mod conformance;
mod harness;
mod limits;
pub mod memory;
mod stage;
pub mod suite;

pub use conformance::{Behaviour, Capability, Roles, behaviours, run};
pub use harness::{Harness, RawPeer};
pub use limits::Limits;
pub use stage::{Pair, Stage};
