//! `StreamRecvBuffer`: a run of received bytes.

use bytes::{Buf, Bytes};
use std::ops::Deref;

/// Bytes that were received, owned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamRecvBuffer(pub(super) Bytes);

impl StreamRecvBuffer {
    /// The bytes; without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for StreamRecvBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for StreamRecvBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Buf for StreamRecvBuffer {
    fn remaining(&self) -> usize {
        self.0.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.0.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }
}

impl From<StreamRecvBuffer> for Bytes {
    fn from(buffer: StreamRecvBuffer) -> Self {
        buffer.0
    }
}
