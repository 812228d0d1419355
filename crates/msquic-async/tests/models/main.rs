//! What threads share, under the orders of their steps (loom).
//!
//! The files of the crate are included here, with the mutex and the atomics of loom. Only what calls libmsquic is
//! replaced, by [`native`]: there the models are libmsquic's thread, and choose the events.
//!
//! Loom does not see the atomics of `Notify`, `OnceLock` and `Arc`. It may switch threads before a lock is taken and
//! after it is released, which is before and after each use of them that matters.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_macros,
    reason = "the models do not use everything"
)]

#[path = "../../src/buffer"]
mod buffer {
    mod datagrams;
    mod receive_queue;
    mod send_queue;

    pub(crate) use datagrams::Refused;
    pub(crate) use receive_queue::{ReceiveQueue, Run};
    pub(crate) use send_queue::SendQueue;
}

#[path = "../../src/connection"]
mod connection {
    mod credit;
    #[path = "../../tests/models/credits.rs"]
    pub(crate) mod credits;
    mod error;
    mod stream_connection;

    pub(crate) use credit::{StreamCredit, Ticket};
    pub(crate) use error::ConnectionError;
    pub(crate) use stream_connection::StreamConnection;
}

#[path = "../../src/ffi"]
mod ffi {
    #[path = "../../tests/models/closing.rs"]
    pub(crate) mod closing;
    pub(crate) mod gate;
    pub(crate) mod slot;
    pub(crate) mod status;

    pub(crate) use crate::native::{calls, connection, library, may_block, receive, stream};
    use loom::sync::atomic;
    use msquic::ffi::HQUIC;

    /// A native handle, as `ffi/mod.rs` has it.
    #[derive(Clone, Copy)]
    struct Handle(HQUIC);
}

#[path = "../../src/limits.rs"]
mod limits;

#[path = "../../src/stream"]
mod stream {
    mod error;
    mod event;
    mod inner;
    mod progress;
    mod receiving;
    mod recv_buffer;
    mod sending;
    mod sink;
    mod state;
    mod stream_type;

    #[path = "../../tests/models/sinks.rs"]
    pub(crate) mod sinks;
    #[path = "../../tests/models/streams.rs"]
    pub(crate) mod streams;

    pub(crate) use stream_type::StreamType;
}

#[path = "../../src/waiters.rs"]
mod waiters;
#[path = "../../src/waker_check.rs"]
mod waker_check;

mod native;
mod support;
mod waiting;

pub(crate) use ffi::status::Status;
pub(crate) use limits::{DatagramLimits, StreamLimits};

use std::future::{Future, poll_fn};
use std::pin::pin;
use support as lock;
use support::{bounded_model, deep_model, model, waker};
use waker_check::checked;

/// Runs a future that registers its waker. A missing wake is a deadlock, which loom reports.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    support::block_on(poll_fn(|cx| checked(|| future.as_mut().poll(cx))))
}

fn main() {
    support::run(&[
        ffi::closing::MODELS,
        connection::credits::MODELS,
        waiting::MODELS,
        stream::streams::MODELS,
        stream::sinks::MODELS,
    ]);
}
