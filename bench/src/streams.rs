//! Messages over a pair of byte streams, buffered as in a well-written application.

use crate::contender::{frame, read_frame};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::Mutex;

/// The buffer in which small messages are gathered.
const BUFFER: usize = 64 * 1024;

/// Whether messages are gathered until the buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// Each message is written at once, as ours are.
    Single,
    /// 64 KiB are gathered first. The last message of a round is flushed.
    Gathered,
}

/// One side: reads and writes.
pub(crate) struct Side<R, W> {
    read: Mutex<BufReader<R>>,
    write: Mutex<BufWriter<W>>,
    writes: Writes,
}

impl<R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Side<R, W> {
    pub(crate) fn new(read: R, write: W, writes: Writes) -> Self {
        let read = Mutex::new(BufReader::with_capacity(BUFFER, read));
        Self { read, write: Mutex::new(BufWriter::with_capacity(BUFFER, write)), writes }
    }

    pub(crate) async fn send(&self, size: usize, count: usize) -> Result<()> {
        let message = frame(size);
        let mut write = self.write.lock().await;
        for _ in 0..count {
            write.write_all(&message).await?;
            if self.writes == Writes::Single {
                write.flush().await?;
            }
        }
        Ok(write.flush().await?)
    }

    pub(crate) async fn receive(&self, size: usize, count: usize) -> Result<()> {
        let (mut read, mut buffer) = (self.read.lock().await, Vec::new());
        for _ in 0..count {
            ensure!(read_frame(&mut *read, &mut buffer).await? == size);
        }
        Ok(())
    }

    pub(crate) async fn echo(&self, size: usize, count: usize) -> Result<()> {
        for _ in 0..count {
            self.receive(size, 1).await?;
            self.send(size, 1).await?;
        }
        Ok(())
    }

    pub(crate) async fn ping(&self, size: usize, count: usize) -> Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let started = Instant::now();
            self.send(size, 1).await?;
            self.receive(size, 1).await?;
            times.push(started.elapsed());
        }
        Ok(times)
    }
}

macro_rules! contender_over_streams {
    ($name:ident, $shown:expr, $close:expr) => {
        #[async_trait::async_trait]
        impl $crate::contender::Contender for $name {
            fn name(&self) -> &'static str {
                let shown: fn(&Self) -> &'static str = $shown;
                shown(self)
            }

            async fn one_way(
                &self,
                size: usize,
                count: usize,
            ) -> anyhow::Result<std::time::Duration> {
                let started = std::time::Instant::now();
                let client = self.client.clone();
                let send = tokio::spawn(async move { client.send(size, count).await });
                self.server.receive(size, count).await?;
                let elapsed = started.elapsed();
                send.await??;
                Ok(elapsed)
            }

            async fn ping_pong(
                &self,
                size: usize,
                count: usize,
            ) -> anyhow::Result<Vec<std::time::Duration>> {
                let server = self.server.clone();
                let echo = tokio::spawn(async move { server.echo(size, count).await });
                let times = self.client.ping(size, count).await?;
                echo.await??;
                Ok(times)
            }

            async fn close(self: Box<Self>) {
                let close: fn(&Self) = $close;
                close(&self);
            }
        }
    };
}
pub(crate) use contender_over_streams;
