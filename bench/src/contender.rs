//! `Contender`: a transport under comparison, with both peers in this process.

use anyhow::Result;
use async_trait::async_trait;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

#[async_trait]
pub(crate) trait Contender: Send + Sync {
    fn name(&self) -> &'static str;

    /// Returns the time from the first message to the arrival of the last.
    async fn one_way(&self, size: usize, count: usize) -> Result<Duration>;

    /// Returns the round-trip time of each message.
    async fn ping_pong(&self, size: usize, count: usize) -> Result<Vec<Duration>>;

    async fn close(self: Box<Self>);
}

/// Encodes a message with its length prefix.
pub(crate) fn frame(size: usize) -> Vec<u8> {
    [&(size as u32).to_be_bytes()[..], &vec![7; size]].concat()
}

/// Reads a message and returns its length.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Result<usize> {
    let length = stream.read_u32().await? as usize;
    buffer.resize(length, 0);
    stream.read_exact(buffer).await?;
    Ok(length)
}
