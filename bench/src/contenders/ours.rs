//! `Node`: this project's transports, and `Batched`: with batches and inline handlers.

use crate::tls::ALPN;
use crate::transport::{End, Ends, FIRST, Transport};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use msquic_transport::{MsQuicNetConnection, MsQuicTransport};
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, RecvError,
    TrustPolicy,
};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A transport that dials its own listener. One message is passed to each call.
pub(crate) struct Node<T: NetTransport> {
    transport: T,
    listener: T::Listener,
    credential: NetCredential,
    descriptors: usize,
}

impl<T: NetTransport> Node<T> {
    /// Creates a node. The two ends of a connection take `descriptors`.
    pub(crate) async fn new(transport: T, descriptors: usize) -> Result<Self> {
        let credential = NetCredential::self_signed(TrustPolicy::Any)?;
        let address = "127.0.0.1:0".parse()?;
        let listener = transport.create_listener(address, &[ALPN], credential.clone()).await?;
        Ok(Self { transport, listener, credential, descriptors })
    }
}

impl<T: NetTransport> Transport for Node<T> {
    type End = T::Connection;

    fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    async fn connect(&self, address: SocketAddr) -> Result<Ends<Self>> {
        let dial = async {
            let connect = self.transport.connect(address, &[ALPN], self.credential.clone());
            let client = connect.await?;
            client.send_bytes(message(FIRST)).await?;
            anyhow::Ok(client)
        };
        let accept = async {
            let server = self.listener.accept().await?.accept().await?;
            ensure!(server.recv().await?.0.len() == FIRST);
            Ok(server)
        };
        tokio::try_join!(dial, accept)
    }

    fn descriptors(&self) -> usize {
        self.descriptors
    }

    async fn close(&self, client: Self::End, _server: Self::End) {
        client.close(0, "").await;
    }
}

impl<C: NetConnection> End for C {
    async fn send(&self, size: usize, count: usize) -> Result<()> {
        let message = message(size);
        for _ in 0..count {
            self.send_bytes(message.clone()).await?;
        }
        Ok(())
    }

    async fn receive(&self, size: usize, count: usize) -> Result<()> {
        for _ in 0..count {
            ensure!(self.recv().await?.0.len() == size);
        }
        Ok(())
    }
}

/// msquic-transport with many messages in each call, and round trips between inline handlers.
pub(crate) struct Batched(pub(crate) Node<MsQuicTransport>);

pub(crate) struct BatchedEnd(MsQuicNetConnection);

impl Transport for Batched {
    type End = BatchedEnd;

    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    async fn connect(&self, address: SocketAddr) -> Result<Ends<Self>> {
        let (client, server) = self.0.connect(address).await?;
        Ok((BatchedEnd(client), BatchedEnd(server)))
    }

    async fn close(&self, client: Self::End, server: Self::End) {
        self.0.close(client.0, server.0).await;
    }
}

impl End for BatchedEnd {
    async fn send(&self, size: usize, count: usize) -> Result<()> {
        let message = message(size);
        let (mut batch, mut rest) = (VecDeque::with_capacity(BATCH), count);
        while rest > 0 {
            batch.extend(std::iter::repeat_n(message.clone(), BATCH.min(rest)));
            rest -= batch.len();
            self.0.send_many(&mut batch).await?;
        }
        Ok(())
    }

    async fn receive(&self, size: usize, count: usize) -> Result<()> {
        let (mut messages, mut rest) = (Vec::with_capacity(BATCH), count);
        while rest > 0 {
            rest -= self.0.recv_many(&mut messages, BATCH.min(rest)).await?;
            for (message, _) in messages.drain(..) {
                ensure!(message.len() == size);
            }
        }
        Ok(())
    }

    async fn ping(&self, size: usize, count: usize) -> Result<Vec<Duration>> {
        let ping = message(size);
        let (done, ended) = oneshot::channel();
        let state = Mutex::new((Instant::now(), Vec::with_capacity(count), Some(done)));
        let next = ping.clone();
        let pong = move |connection: &MsQuicNetConnection, received: Received| {
            let Ok(mut state) = state.lock() else { return };
            let (started, times, done) = &mut *state;
            if received.is_err() {
                done.take();
                return;
            }
            times.push(started.elapsed());
            if times.len() < count {
                *started = Instant::now();
                if connection.try_send(next.clone()).is_err() {
                    done.take();
                }
            } else if let Some(done) = done.take() {
                let _ = done.send(std::mem::take(times)); // the caller may be gone
            }
        };
        self.0.on_message(pong).await?;
        self.0.send_bytes(ping).await?;
        ended.await.context("a message was not answered")
    }

    async fn echo(&self, _size: usize, _count: usize) -> Result<()> {
        Ok(self.0.on_message(echo).await?)
    }
}

type Received = Result<(Bytes, Duration), RecvError>;

fn echo(connection: &MsQuicNetConnection, received: Received) {
    if let Ok((message, _)) = received
        && connection.try_send(message).is_err()
    {
        connection.abort(1, "the queue is full");
    }
}

/// Returns a message, without copying or allocating bytes.
fn message(size: usize) -> Bytes {
    static BYTES: [u8; 1 << 20] = [7; 1 << 20];
    Bytes::from_static(&BYTES[..size])
}

/// How many messages are passed to one call.
const BATCH: usize = 512;
