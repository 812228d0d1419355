//! The behaviours, one function each.
//!
//! `one` and `other` are two connected peers. The roles of dialler and listener are swapped between
//! two runs, unless the behaviour assigns them.

pub mod batch;
pub mod close;
pub mod connect;
pub mod credentials;
pub mod datagram;
pub mod dropping;
pub mod handles;
pub mod identity;
pub mod limits;
pub mod message;
pub mod operation;
pub mod polling;
pub mod request;
