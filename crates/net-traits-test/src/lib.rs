//! A conformance suite for transports that implement [`net_traits`].
//!
//! An implementor writes a [`Harness`] and calls [`conformance!`], which defines one test per
//! behaviour. Each has a time limit, and most run again with the roles of dialler and listener
//! swapped. Tests of capabilities that the transport lacks are ignored, not passed.
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
//!     without: [raw_peer, anonymous_peer, path],
//! }
//! # }
//! # fn main() {}
//! ```
//!
//! Each behaviour is a function in [`suite`], whose documentation states the contract and its
//! reason. The suite is tested too: for each behaviour a faulty transport proves that the test
//! detects its violation.
//!
//! [`Checked`] polls any future as strictly as its contract permits, or drops it at a chosen step.
//!
//! [`key_log`] tests the key logs of transports that encrypt.
//!
//! [`memory`] provides a transport without sockets, for tests of protocols on top of the traits.
#![forbid(unsafe_code)]

mod checked;
mod conformance;
mod harness;
pub mod key_log;
mod limits;
pub mod memory;
#[cfg(target_os = "linux")]
mod no_threads;
mod own_network;
pub mod random;
mod relay;
mod stage;
pub mod suite;

pub use checked::Checked;
pub use conformance::{Behaviour, Capability, Roles, behaviours, run};
pub use harness::{Harness, Path, RawPeer};
pub use limits::Limits;
#[cfg(target_os = "linux")]
pub use no_threads::{is_in_own_process, without_threads};
pub use own_network::in_own_network;
pub use relay::Relay;
pub use stage::{Pair, Stage};
