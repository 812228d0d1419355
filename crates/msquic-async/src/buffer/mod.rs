//! Pure queues. They import no other module except the limits.

mod completions;
mod datagrams;
mod receive_queue;
mod send_queue;

pub(crate) use completions::Completions;
pub use datagrams::{DatagramCounts, DatagramOutcome};
pub(crate) use datagrams::{DatagramSendState, Datagrams, Refused};
pub(crate) use receive_queue::{ReceiveQueue, Run};
pub(crate) use send_queue::SendQueue;
