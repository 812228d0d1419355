//! The tests that need msquic. The module `executors` of the including binary runs them.

mod address;
mod cancel;
mod closing;
mod connection;
mod datagram;
mod dial;
mod export;
mod held;
mod listener;
mod nat;
mod nat_rebinding;
mod observe;
mod peers;
mod polling;
mod rebind;
mod resumption;
mod sinks;
mod skip;
pub(crate) mod stream;
mod teardown;
mod trust;
mod waiting;
pub(crate) mod watchdog;
