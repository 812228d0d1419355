//! `--handshakes`: connections per second, each with certificates of both sides and one message.

use crate::report::Report;
use crate::{Options, tls};
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use msquic_transport::{MsQuicTransport, MsQuicTransportConfig};
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, ServerConfig};
use quinn_transport::{QuinnConfig, QuinnTransport};
use std::sync::Arc;
use std::time::Instant;
use tcp_tls_transport::{TcpTlsConfig, TcpTlsTransport};
use tokio::task::JoinSet;

/// How many handshakes one measurement completes.
const HANDSHAKES: usize = 512;

/// Numbers of handshakes in progress at once.
const AT_ONCE: [(&str, usize); 2] =
    [("handshakes, one at a time, 1/s", 1), ("handshakes, 16 at once, 1/s", 16)];

/// More connections of one identity and address than are ever open.
const UNLIMITED: usize = 1_000_000;

/// Measures in turns and prints a table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let credential = NetCredential::self_signed(TrustPolicy::Any)?;
    let msquic = MsQuicTransportConfig::new().max_connections_per_identity(UNLIMITED);
    let quinn = QuinnConfig::new().max_connections_per_identity(UNLIMITED);
    let tcp = TcpTlsConfig::new().max_connections_per_identity(UNLIMITED);
    let contenders: [Arc<dyn Dialler>; 4] = [
        Node::create("ours", MsQuicTransport::with_config(msquic)?, &credential).await?,
        Node::create("quinn-transport", QuinnTransport::with_config(quinn)?, &credential).await?,
        Node::create("tcp-tls-transport", TcpTlsTransport::with_config(tcp)?, &credential).await?,
        Arc::new(Quinn::new(&credential)?),
    ];
    let mut report = Report::new(&contenders.each_ref().map(|contender| contender.name()));
    for (name, at_once) in AT_ONCE {
        if options.only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        for round in 0..=options.rounds() {
            let mut figures = vec![0.0; contenders.len()];
            for turn in 0..contenders.len() {
                let index = (round + turn) % contenders.len(); // no contender is always first
                let count = HANDSHAKES / options.part();
                figures[index] = rate(&contenders[index], count, at_once).await?;
            }
            // The first round warms up.
            if round > 0 {
                report.add(name.to_owned(), figures);
            }
        }
    }
    report.finish(options.json.as_deref())
}

/// Returns connections per second.
async fn rate(contender: &Arc<dyn Dialler>, count: usize, at_once: usize) -> Result<f64> {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let contender = contender.clone();
        tasks.spawn(async move {
            for _ in 0..count / at_once {
                contender.once().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok((count / at_once * at_once) as f64 / started.elapsed().as_secs_f64())
}

/// A transport that dials its own listener.
#[async_trait]
trait Dialler: Send + Sync {
    fn name(&self) -> &'static str;

    /// Connects, sends a message of 128 bytes, receives it, and closes.
    async fn once(&self) -> Result<()>;
}

struct Node<T: NetTransport> {
    name: &'static str,
    transport: T,
    listener: T::Listener,
    credential: NetCredential,
}

impl<T: NetTransport> Node<T> {
    async fn create(
        name: &'static str,
        transport: T,
        credential: &NetCredential,
    ) -> Result<Arc<dyn Dialler>> {
        let address = "127.0.0.1:0".parse()?;
        let listener = transport.create_listener(address, &["bench"], credential.clone()).await?;
        Ok(Arc::new(Self { name, transport, listener, credential: credential.clone() }))
    }
}

#[async_trait]
impl<T: NetTransport> Dialler for Node<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn once(&self) -> Result<()> {
        let address = self.listener.local_addr();
        let dial = self.transport.connect(address, &["bench"], self.credential.clone());
        let accept = async { anyhow::Ok(self.listener.accept().await?.accept().await?) };
        let (client, server) = tokio::join!(dial, accept);
        let (client, server) = (client?, server?);
        client.send(&[7; 128]).await?;
        ensure!(server.recv().await?.0.len() == 128);
        client.close(0, "").await;
        Ok(())
    }
}

/// quinn without this project's code, with the same certificate and key exchange.
struct Quinn {
    dialler: Endpoint,
    listener: Endpoint,
}

impl Quinn {
    fn new(credential: &NetCredential) -> Result<Self> {
        let (client, server) = tls::mutual(credential, b"bench")?;
        let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
        let client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
        let listener = Endpoint::server(server, "127.0.0.1:0".parse()?)?;
        let mut dialler = Endpoint::client("127.0.0.1:0".parse()?)?;
        dialler.set_default_client_config(client);
        Ok(Self { dialler, listener })
    }
}

#[async_trait]
impl Dialler for Quinn {
    fn name(&self) -> &'static str {
        "quinn"
    }

    async fn once(&self) -> Result<()> {
        let dial = async {
            let address = self.listener.local_addr()?;
            anyhow::Ok(self.dialler.connect(address, "localhost")?.await?)
        };
        let accept = async {
            let incoming = self.listener.accept().await.context("the endpoint is closed")?;
            anyhow::Ok(incoming.await?)
        };
        let (client, server) = tokio::try_join!(dial, accept)?;
        let mut write = client.open_uni().await?;
        write.write_all(&[7; 128]).await?;
        write.finish()?;
        ensure!(server.accept_uni().await?.read_to_end(128).await?.len() == 128);
        // With several at once, `server` may be the peer of another task's client. The side that has
        // received closes, so that no message is lost.
        server.close(0_u32.into(), b"");
        client.closed().await;
        Ok(())
    }
}
