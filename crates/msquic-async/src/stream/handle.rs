//! `StreamHandle`: what the directions of a stream share.

use super::inner::StreamInner;
use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The stream, and a handle that keeps its connection open.
#[derive(Clone)]
pub(super) struct StreamHandle {
    pub(super) inner: Arc<StreamInner>,
    connection: KeepsConnection,
}

/// A handle of the connection: while a stream has it, the connection stays open.
pub(crate) type KeepsConnection = Arc<dyn Any + Send + Sync>;

impl StreamHandle {
    pub(super) fn new(inner: Arc<StreamInner>, connection: KeepsConnection) -> Self {
        Self { inner, connection }
    }

    pub(super) fn connection(&self) -> KeepsConnection {
        self.connection.clone()
    }
}

impl Deref for StreamHandle {
    type Target = Arc<StreamInner>;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner;
        write!(f, "{:?} stream {:?}", inner.stream_type, inner.id.get())
    }
}
