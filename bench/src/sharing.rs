//! `--sharing`: connections that share sockets against connections with sockets of their own, for
//! messages over many connections and for handshakes.

use crate::Options;
use crate::report::Report;
use anyhow::{Result, ensure};
use bytes::Bytes;
use msquic_transport::{
    MsQuicListener, MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig,
};
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
};
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

/// Numbers of connections that carry messages at once.
const CONNECTIONS: [(&str, usize); 3] = [
    ("128 B one-way over 1 connection, 1000/s", 1),
    ("128 B one-way over 16 connections, 1000/s", 16),
    ("128 B one-way over 256 connections, 1000/s", 256),
];

/// How many messages one measurement sends, over all its connections.
const MESSAGES: usize = 256_000;

/// How many handshakes one measurement completes.
const HANDSHAKES: usize = 512;

/// How many handshakes are in progress at once.
const AT_ONCE: usize = 16;

/// Measures everything in turns and prints a table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let (rounds, part, only) = (options.rounds(), options.part(), options.only.as_deref());
    let contenders = [Node::new(true).await?, Node::new(false).await?];
    let mut report = Report::new(&["shared", "own"]);
    let is_wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    for (name, count) in CONNECTIONS.into_iter().filter(|(name, _)| is_wanted(name)) {
        let mut pairs = [Vec::new(), Vec::new()];
        for (node, pairs) in contenders.iter().zip(&mut pairs) {
            for _ in 0..count {
                pairs.push(node.pair().await?);
            }
        }
        for round in 0..=rounds {
            let mut figures = vec![0.0; 2];
            for turn in 0..2 {
                let index = (round + turn) % 2;
                figures[index] = messages(&pairs[index], MESSAGES / part).await? / 1e3;
            }
            // The first round warms up.
            if round > 0 {
                report.add(name.to_owned(), figures);
            }
        }
        for (client, _) in pairs.iter().flatten() {
            client.close(0, "").await;
        }
    }
    let name = "handshakes, 16 at once, 1/s";
    for round in 0..=if is_wanted(name) { rounds } else { 0 } {
        let mut figures = vec![0.0; 2];
        for turn in 0..2 {
            let index = (round + turn) % 2;
            figures[index] = contenders[index].handshakes(HANDSHAKES / part).await?;
        }
        if round > 0 {
            report.add(name.to_owned(), figures);
        }
    }
    report.finish(options.json.as_deref())
}

/// A transport that dials its own listener.
#[derive(Clone)]
struct Node {
    transport: Arc<MsQuicTransport>,
    listener: Arc<MsQuicListener>,
    credential: NetCredential,
}

impl Node {
    async fn new(share_sockets: bool) -> Result<Self> {
        let config = MsQuicTransportConfig::new()
            .share_sockets(share_sockets)
            .max_connections_per_identity(1_000_000);
        let transport = MsQuicTransport::with_config(config)?;
        let credential = NetCredential::self_signed(TrustPolicy::Any)?;
        let listen =
            transport.create_listener("127.0.0.1:0".parse()?, &["bench"], credential.clone());
        let listener = Arc::new(listen.await?);
        Ok(Self { transport: Arc::new(transport), listener, credential })
    }

    async fn pair(&self) -> Result<(MsQuicNetConnection, MsQuicNetConnection)> {
        let address = self.listener.local_addr();
        let dial = self.transport.connect(address, &["bench"], self.credential.clone());
        let accept = async { anyhow::Ok(self.listener.accept().await?.accept().await?) };
        let (client, server) = tokio::join!(dial, accept);
        Ok((client?, server?))
    }

    /// Connections per second, each of which carries a message before it is closed.
    async fn handshakes(&self, count: usize) -> Result<f64> {
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..AT_ONCE {
            let node = self.clone();
            tasks.spawn(async move {
                for _ in 0..count / AT_ONCE {
                    let (client, server) = node.pair().await?;
                    client.send(&[7; 128]).await?;
                    server.recv().await?;
                    client.close(0, "").await;
                }
                anyhow::Ok(())
            });
        }
        while let Some(result) = tasks.join_next().await {
            result??;
        }
        Ok(count as f64 / started.elapsed().as_secs_f64())
    }
}

/// Messages per second over all pairs.
async fn messages(
    pairs: &[(MsQuicNetConnection, MsQuicNetConnection)],
    count: usize,
) -> Result<f64> {
    let each = count / pairs.len();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for pair in pairs {
        let (client, server) = pair.clone();
        tasks.spawn(async move {
            let message = Bytes::from_static(&[7; 128]);
            for _ in 0..each {
                client.send_bytes(message.clone()).await?;
            }
            anyhow::Ok(())
        });
        tasks.spawn(async move {
            for _ in 0..each {
                ensure!(server.recv().await?.0.len() == 128);
            }
            Ok(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok((each * pairs.len()) as f64 / started.elapsed().as_secs_f64())
}
