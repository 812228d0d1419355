//! Closing a connection with a reason that reaches the peer.
//!
//! libmsquic discards a reason that was set before the close, and sends the CONNECTION_CLOSE frame right
//! after it has processed the close. In between, only the streams of the connection get events (contract
//! C17). So a close with a reason opens a stream of which nothing is sent, closes the connection when the
//! stream has started, and sets the reason in the last event of that stream.

use super::stream_connection::StreamConnection;
use crate::ffi::calls::Calls;
use crate::ffi::receive::Received;
use crate::ffi::stream::{NativeStream, StreamEvent, StreamHandler};
use std::sync::Arc;

/// The stream in whose last event the reason is set.
struct ReasonStream {
    connection: Arc<dyn StreamConnection>,
    code: u64,
}

/// Closes `connection`, whose reason is set already.
pub(super) fn shutdown(connection: Arc<dyn StreamConnection>, code: u64) {
    let native = Arc::new(NativeStream::new(connection.native()));
    let stream = Arc::new(ReasonStream { connection, code });
    let started = native.start(true, false, &stream);
    if started.is_err() {
        stream.connection.native().shutdown(code, false);
    }
}

impl StreamHandler for ReasonStream {
    fn on_event(self: &Arc<Self>, event: StreamEvent, calls: Calls<'_>) {
        match event {
            StreamEvent::StartComplete { .. } => {
                self.connection.native().shutdown(self.code, false);
            }
            StreamEvent::ShutdownComplete { connection: true } => {
                self.connection.close_reason_in_stream_event(calls);
            }
            _ => {}
        }
    }

    fn on_receive(self: &Arc<Self>, _: Received<'_>) -> usize {
        0
    }
}
