//! `StreamConnection`: the trait through which a stream uses its connection, whose module imports
//! this one.

use super::credit::StreamCredit;
use super::error::ConnectionError;
use crate::StreamLimits;
use crate::ffi::calls::Calls;
use crate::ffi::connection::NativeConnection;
use crate::stream::StreamType;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

pub(crate) trait StreamConnection: Send + Sync + 'static {
    fn native(&self) -> &Arc<NativeConnection>;
    /// Why the connection has ended, if it has.
    fn error(&self) -> Option<ConnectionError>;
    /// The same for callers that know that it is ending: the reason, or `closing` while it is not
    /// known.
    fn error_or_closing(&self) -> ConnectionError {
        self.error().unwrap_or_else(ConnectionError::closing)
    }
    /// Whether the connection closes: what arrives now is the rest (C44).
    fn is_closing(&self) -> bool;
    fn stream_limits(&self) -> StreamLimits;
    /// What the queues of all streams store for readers.
    fn queued_bytes(&self) -> &Arc<AtomicUsize>;
    /// The credit with which streams of this type are opened.
    fn stream_credit(&self, stream_type: StreamType) -> &Arc<StreamCredit>;
    /// Ready once the connection has ended, with the reason.
    fn poll_over(&self, cx: &Context<'_>) -> Poll<ConnectionError>;
    /// Counts a stream that this side opened.
    fn count_opened(&self, stream_type: StreamType);
    /// Removes a stream of the peer whose sink has received the end.
    fn sink_ended(&self, id: u64);
    /// Sets the close reason, in the last event of a stream while this side's close is processed
    /// (C17).
    fn close_reason_in_stream_event(&self, calls: Calls<'_>);
}
