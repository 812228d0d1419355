//! `Batched`: this transport with `send_many` and `recv_many`, and with inline handlers.

use crate::contender::Contender;
use crate::ours::pair;
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use msquic_transport::MsQuicNetConnection;
use net_traits::NetConnection;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How many messages are given to one call.
const BATCH: usize = 512;

pub(crate) struct Batched {
    client: MsQuicNetConnection,
    server: MsQuicNetConnection,
}

impl Batched {
    pub(crate) async fn new() -> Result<Self> {
        let (client, server) = pair().await?;
        Ok(Self { client, server })
    }
}

#[async_trait]
impl Contender for Batched {
    fn name(&self) -> &'static str {
        "ours, batched and inline"
    }

    async fn one_way(&self, size: usize, count: usize) -> Result<Duration> {
        let started = Instant::now();
        let client = self.client.clone();
        let send = tokio::spawn(async move {
            let message = Bytes::from(vec![7; size]);
            let (mut batch, mut rest) = (VecDeque::with_capacity(BATCH), count);
            while rest > 0 {
                batch.extend(std::iter::repeat_n(message.clone(), BATCH.min(rest)));
                rest -= batch.len();
                client.send_many(&mut batch).await?;
            }
            anyhow::Ok(())
        });
        let (mut messages, mut rest) = (Vec::with_capacity(BATCH), count);
        while rest > 0 {
            rest -= self.server.recv_many(&mut messages, BATCH).await?;
            for (message, _) in messages.drain(..) {
                ensure!(message.len() == size);
            }
        }
        let elapsed = started.elapsed();
        send.await??;
        Ok(elapsed)
    }

    /// Uses its own connection, whose messages then go to the handlers.
    async fn ping_pong(&self, size: usize, count: usize) -> Result<Vec<Duration>> {
        let (client, server) = pair().await?;
        let echo = |connection: &MsQuicNetConnection, received| echo(connection, received);
        server.on_message(echo).await?;
        let message = Bytes::from(vec![7; size]);
        let (done, ended) = oneshot::channel();
        let state = Mutex::new((Instant::now(), Vec::with_capacity(count), Some(done)));
        let ping = message.clone();
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
                if connection.try_send(ping.clone()).is_err() {
                    done.take();
                }
            } else if let Some(done) = done.take() {
                let _ = done.send(std::mem::take(times)); // the caller may be gone
            }
        };
        client.on_message(pong).await?;
        client.send_bytes(message).await?;
        let times = ended.await.context("a message was not answered")?;
        client.close(0, "").await;
        Ok(times)
    }

    async fn close(self: Box<Self>) {
        self.client.close(0, "").await;
    }
}

type Received = Result<(Bytes, Duration), net_traits::RecvError>;

fn echo(connection: &MsQuicNetConnection, received: Received) {
    if let Ok((message, _)) = received
        && connection.try_send(message).is_err()
    {
        connection.abort(1, "the queue is full");
    }
}
