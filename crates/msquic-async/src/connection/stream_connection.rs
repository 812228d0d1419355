//! `StreamConnection`: what a stream needs of its connection, which stands above it.

use super::credit::StreamCredit;
use super::error::ConnectionError;
use crate::StreamLimits;
use crate::ffi::calls::Calls;
use crate::ffi::connection::NativeConnection;
use crate::stream::StreamType;
use std::sync::Arc;
use std::task::{Context, Poll};

pub(crate) trait StreamConnection: Send + Sync + 'static {
    fn native(&self) -> &Arc<NativeConnection>;
    /// Why the connection has ended, if it has.
    fn error(&self) -> Option<ConnectionError>;
    /// The same for callers that know that it is.
    fn error_or_closing(&self) -> ConnectionError {
        self.error().unwrap_or_else(ConnectionError::closing)
    }
    /// Whether the peer's close or that of the transport was indicated: what arrives now is the rest (C44).
    fn is_closing(&self) -> bool;
    fn stream_limits(&self) -> StreamLimits;
    /// What streams of this type are opened with.
    fn stream_credit(&self, stream_type: StreamType) -> &Arc<StreamCredit>;
    /// Ready once the connection has ended, with the reason.
    fn poll_over(&self, cx: &Context<'_>) -> Poll<ConnectionError>;
    /// This side opened a stream.
    fn count_opened(&self, stream_type: StreamType);
    /// The sink of a stream of the peer has got the end.
    fn sink_ended(&self, id: u64);
    /// A stream of the connection ends because this side closes it: the moment to say why.
    fn close_reason_in_stream_event(&self, calls: Calls<'_>);
}
