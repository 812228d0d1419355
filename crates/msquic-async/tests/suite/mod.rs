//! The tests that need msquic. The including binary says in `crate::executors` what runs them.

mod address;
mod cancel;
mod closing;
mod connection;
mod datagram;
mod dial;
mod export;
mod held;
mod nat;
mod observe;
mod peers;
mod rebind;
mod resumption;
mod sinks;
mod skip;
pub(crate) mod stream;
mod teardown;
mod waiting;
pub(crate) mod watchdog;
