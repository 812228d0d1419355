//! `Ours`: this transport, `msquic-transport`, as a contender.

use crate::contender::Contender;
use anyhow::{Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use msquic_transport::{MsQuicNetConnection, MsQuicTransport};
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
};
use std::time::{Duration, Instant};

pub(crate) struct Ours {
    name: &'static str,
    client: MsQuicNetConnection,
    server: MsQuicNetConnection,
}

impl Ours {
    pub(crate) async fn new() -> Result<Self> {
        Self::named("ours").await
    }

    pub(crate) async fn named(name: &'static str) -> Result<Self> {
        let (client, server) = pair().await?;
        Ok(Self { name, client, server })
    }
}

/// Connects a client and a server.
pub(crate) async fn pair() -> Result<(MsQuicNetConnection, MsQuicNetConnection)> {
    let credential = NetCredential::self_signed(TrustPolicy::Any)?;
    let transport = MsQuicTransport::new();
    let address = "127.0.0.1:0".parse()?;
    let listener = transport.create_listener(address, &["bench"], credential.clone()).await?;
    let dial = transport.connect(listener.local_addr(), &["bench"], credential);
    let accept = async { anyhow::Ok(listener.accept().await?.accept().await?) };
    let (client, server) = tokio::join!(dial, accept);
    Ok((client?, server?))
}

#[async_trait]
impl Contender for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn one_way(&self, size: usize, count: usize) -> Result<Duration> {
        let started = Instant::now();
        let client = self.client.clone();
        let send = tokio::spawn(async move {
            let message = Bytes::from(vec![7; size]);
            for _ in 0..count {
                client.send_bytes(message.clone()).await?;
            }
            anyhow::Ok(())
        });
        for _ in 0..count {
            let (message, _) = self.server.recv().await?;
            ensure!(message.len() == size);
        }
        let elapsed = started.elapsed();
        send.await??;
        Ok(elapsed)
    }

    async fn ping_pong(&self, size: usize, count: usize) -> Result<Vec<Duration>> {
        let server = self.server.clone();
        let echo = tokio::spawn(async move {
            for _ in 0..count {
                let (message, _) = server.recv().await?;
                server.send_bytes(message).await?;
            }
            anyhow::Ok(())
        });
        let message = Bytes::from(vec![7; size]);
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let started = Instant::now();
            self.client.send_bytes(message.clone()).await?;
            self.client.recv().await?;
            times.push(started.elapsed());
        }
        echo.await??;
        Ok(times)
    }

    async fn close(self: Box<Self>) {
        self.client.close(0, "").await;
    }
}
