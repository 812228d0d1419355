//! `Transport` and `End`: a transport under measurement, with both peers in this process.

use anyhow::Result;
use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A listener, and what dials it.
pub(crate) trait Transport: Send + Sync + 'static {
    type End: End;

    /// Returns the address of the listener.
    fn address(&self) -> SocketAddr;

    /// Connects to the listener by way of `address`, and passes a message of [`FIRST`] bytes to the
    /// listener's side, since a peer of QUIC sees a stream with its first byte.
    ///
    /// Returns the dialled end and the accepted one. If several tasks connect at once, these may
    /// belong to different connections.
    fn connect(&self, address: SocketAddr) -> impl Future<Output = Result<Ends<Self>>> + Send;

    /// Returns how many descriptors the two ends of a connection take. With QUIC all connections share
    /// a socket.
    fn descriptors(&self) -> usize {
        0
    }

    /// Closes connections whose messages have all arrived.
    fn close(&self, client: Self::End, server: Self::End) -> impl Future<Output = ()> + Send;
}

/// The dialled end and the accepted one.
pub(crate) type Ends<T> = (<T as Transport>::End, <T as Transport>::End);

/// One end of a connection. Messages keep their order.
pub(crate) trait End: Send + Sync + 'static {
    /// Sends `count` messages of `size` bytes.
    fn send(&self, size: usize, count: usize) -> impl Future<Output = Result<()>> + Send;

    /// Receives `count` messages of `size` bytes.
    fn receive(&self, size: usize, count: usize) -> impl Future<Output = Result<()>> + Send;

    /// Sends messages of `size` bytes of which the peer returns each, and returns the times of the
    /// round trips.
    fn ping(
        &self,
        size: usize,
        count: usize,
    ) -> impl Future<Output = Result<Vec<Duration>>> + Send {
        async move {
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

    /// Returns each of `count` messages to the peer.
    fn echo(&self, size: usize, count: usize) -> impl Future<Output = Result<()>> + Send {
        async move {
            for _ in 0..count {
                self.receive(size, 1).await?;
                self.send(size, 1).await?;
            }
            Ok(())
        }
    }
}

/// The size of the message with which a connection begins.
pub(crate) const FIRST: usize = 128;
