//! Messages over a pair of byte streams, buffered as in a well-written application.

use crate::transport::End;
use anyhow::{Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::Mutex;

/// The buffer in which small messages are gathered.
const BUFFER: usize = 64 * 1024;

/// Whether messages are gathered until the buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// Each message is written at once, as ours are.
    Single,
    /// 64 KiB are gathered first. The last message of a call is flushed.
    Gathered,
}

/// One end of a connection: reads and writes.
pub(crate) struct Side<R, W, C> {
    read: Mutex<(BufReader<R>, Vec<u8>)>,
    write: Mutex<(BufWriter<W>, Vec<u8>)>,
    writes: Writes,
    /// What closes the connection.
    pub(crate) connection: C,
}

impl<R, W, C> Side<R, W, C>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
    C: Send + Sync + 'static,
{
    pub(crate) fn new(read: R, write: W, writes: Writes, connection: C) -> Self {
        Self {
            read: Mutex::new((BufReader::with_capacity(BUFFER, read), Vec::new())),
            write: Mutex::new((BufWriter::with_capacity(BUFFER, write), Vec::new())),
            writes,
            connection,
        }
    }
}

impl<R, W, C> End for Side<R, W, C>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
    C: Send + Sync + 'static,
{
    async fn send(&self, size: usize, count: usize) -> Result<()> {
        let mut guard = self.write.lock().await;
        let (write, message) = &mut *guard;
        if message.len() != size + PREFIX {
            *message = frame(size);
        }
        for _ in 0..count {
            write.write_all(message).await?;
            if self.writes == Writes::Single {
                write.flush().await?;
            }
        }
        Ok(write.flush().await?)
    }

    async fn receive(&self, size: usize, count: usize) -> Result<()> {
        let mut guard = self.read.lock().await;
        let (read, message) = &mut *guard;
        for _ in 0..count {
            let length = read.read_u32().await? as usize;
            ensure!(length == size, "a message has {length} bytes instead of {size}");
            message.resize(length, 0);
            read.read_exact(message).await?;
        }
        Ok(())
    }
}

/// Encodes a message with its length prefix.
pub(crate) fn frame(size: usize) -> Vec<u8> {
    [&(size as u32).to_be_bytes()[..], &vec![7; size]].concat()
}

/// The size of a length prefix.
const PREFIX: usize = 4;
