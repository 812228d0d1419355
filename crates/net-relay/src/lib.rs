//! A UDP relay with faults between a client and a server on loopback, for tests and measurements.
//!
//! 1. [`Faults`] says what happens to the datagrams of one direction; [`Counts`] what happened.
//! 2. [`Path`] makes the decisions. It has no socket and no clock: with the same seed and the same
//!    datagrams it decides the same.
//! 3. [`Relay`] is a task with two sockets and a path for each direction.
//! 4. [`matrix`] sends messages, requests and datagrams of a transport through combinations of faults.
//!
//! Data flow: client → [`Relay::address`] → path up → the relay's port → server, and back through
//! the path down.
#![forbid(unsafe_code)]

mod faults;
pub mod matrix;
mod path;
mod relay;

pub use faults::{Bursts, Counts, Faults};
pub use path::Path;
pub use relay::{Direction, Relay};
