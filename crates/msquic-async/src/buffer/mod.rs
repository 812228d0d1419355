//! Pure byte queues; nothing here knows msquic.

mod receive_queue;
mod send_queue;

pub(crate) use receive_queue::ReceiveQueue;
pub(crate) use send_queue::SendQueue;
