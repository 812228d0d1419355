//! Pure queues.

mod completions;
mod datagrams;
mod receive_queue;
mod send_queue;

pub(crate) use completions::Completions;
pub use datagrams::DatagramOutcome;
pub(crate) use datagrams::Datagrams;
pub(crate) use receive_queue::{ReceiveQueue, Run};
pub(crate) use send_queue::SendQueue;
