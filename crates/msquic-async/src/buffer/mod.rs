//! Pure byte queues; nothing here knows msquic.

mod completions;
mod receive_queue;
mod send_queue;

pub(crate) use completions::Completions;
pub(crate) use receive_queue::{ReceiveQueue, Run};
pub(crate) use send_queue::SendQueue;
