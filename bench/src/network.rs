//! `--network`: one-way transfers through a relay with delay, a limited rate, loss and reordering.

use crate::report::Report;
use crate::{Options, tls};
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use msquic_transport::{CongestionControl, MsQuicTransport, MsQuicTransportConfig};
use net_relay::{Faults, Relay};
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, ServerConfig};
use quinn_transport::QuinnTransport;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A path: its round-trip time, rate, loss and reordering.
struct Network {
    name: &'static str,
    round_trip: Duration,
    megabits: u64,
    loss: f64,
    reorder: f64,
}

const fn network(
    name: &'static str,
    round_trip: u64,
    megabits: u64,
    loss: f64,
    reorder: f64,
) -> Network {
    Network { name, round_trip: Duration::from_millis(round_trip), megabits, loss, reorder }
}

const NETWORKS: [Network; 6] = [
    network("40 ms, 100 Mbit/s", 40, 100, 0.0, 0.0),
    network("40 ms, 100 Mbit/s, 0.1 % loss", 40, 100, 0.001, 0.0),
    network("40 ms, 100 Mbit/s, 1 % loss", 40, 100, 0.01, 0.0),
    network("40 ms, 100 Mbit/s, 5 % loss", 40, 100, 0.05, 0.0),
    network("40 ms, 100 Mbit/s, 2 % reordered", 40, 100, 0.0, 0.02),
    network("100 ms, 200 Mbit/s", 100, 200, 0.0, 0.0),
];

/// The size of a message.
const MESSAGE: usize = 64 << 10;

/// Messages of one measurement, 16 MiB. The start of the connection is a part of it.
const MESSAGES: usize = 256;

/// Measures in turns and prints a table, in megabits per second.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let credential = NetCredential::self_signed(TrustPolicy::Any)?;
    let bbr = MsQuicTransportConfig::new().congestion_control(CongestionControl::Bbr);
    let bbr = MsQuicTransport::with_config(bbr)?;
    let contenders: [Box<dyn Sender>; 4] = [
        Node::create("ours", MsQuicTransport::new(), &credential).await?,
        Node::create("ours, BBR", bbr, &credential).await?,
        Node::create("quinn-transport", QuinnTransport::new(), &credential).await?,
        Box::new(Quinn::new()?),
    ];
    let mut report = Report::new(&contenders.each_ref().map(|contender| contender.name()));
    for network in NETWORKS {
        if options.only.as_ref().is_some_and(|only| !network.name.contains(only)) {
            continue;
        }
        for round in 0..options.rounds() {
            let mut figures = vec![0.0; contenders.len()];
            for turn in 0..contenders.len() {
                let index = (round + turn) % contenders.len(); // no contender is always first
                let (contender, count) = (&contenders[index], MESSAGES / options.part());
                // All contenders of a round get the same seed.
                let relay = Relay::new(contender.address(), network.faults(), round as u64)?;
                let elapsed = contender.transfer(relay.address(), count).await?;
                figures[index] = (count * MESSAGE * 8) as f64 / 1e6 / elapsed.as_secs_f64();
            }
            report.add(format!("{}, Mbit/s", network.name), figures);
        }
    }
    report.finish(options.json.as_deref())
}

impl Network {
    fn faults(&self) -> Faults {
        let rate = self.megabits * 1_000_000;
        Faults {
            delay: self.round_trip / 2,
            rate: Some(rate),
            // What the path carries in a round trip.
            queue: (rate as f64 / 8.0 * self.round_trip.as_secs_f64()) as usize,
            loss: self.loss,
            reorder: self.reorder,
            ..Faults::default()
        }
    }
}

/// A transport whose listener is dialled through a relay.
#[async_trait]
trait Sender: Send + Sync {
    fn name(&self) -> &'static str;

    /// Returns the address of the listener.
    fn address(&self) -> SocketAddr;

    /// Connects to `address`, and returns the time from the first of `count` messages to the arrival
    /// of the last.
    async fn transfer(&self, address: SocketAddr, count: usize) -> Result<Duration>;
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
    ) -> Result<Box<dyn Sender>> {
        let address = "127.0.0.1:0".parse()?;
        let listener = transport.create_listener(address, &["bench"], credential.clone()).await?;
        Ok(Box::new(Self { name, transport, listener, credential: credential.clone() }))
    }
}

#[async_trait]
impl<T: NetTransport> Sender for Node<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    async fn transfer(&self, address: SocketAddr, count: usize) -> Result<Duration> {
        let dial = self.transport.connect(address, &["bench"], self.credential.clone());
        let accept = async { anyhow::Ok(self.listener.accept().await?.accept().await?) };
        let (client, server) = tokio::join!(dial, accept);
        let (client, server) = (client?, server?);
        let started = Instant::now();
        let send = async {
            let message = Bytes::from(vec![7; MESSAGE]);
            for _ in 0..count {
                client.send_bytes(message.clone()).await?;
            }
            anyhow::Ok(())
        };
        let receive = async {
            for _ in 0..count {
                ensure!(server.recv().await?.0.len() == MESSAGE);
            }
            Ok(started.elapsed())
        };
        let ((), elapsed) = tokio::try_join!(send, receive)?;
        client.abort(0, "");
        Ok(elapsed)
    }
}

/// quinn with its defaults, over one stream.
struct Quinn {
    dialler: Endpoint,
    listener: Endpoint,
    address: SocketAddr,
}

impl Quinn {
    fn new() -> Result<Self> {
        let (client, server) = tls::configs(b"bench")?;
        let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
        let client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
        let listener = Endpoint::server(server, "127.0.0.1:0".parse()?)?;
        let mut dialler = Endpoint::client("127.0.0.1:0".parse()?)?;
        dialler.set_default_client_config(client);
        Ok(Self { address: listener.local_addr()?, dialler, listener })
    }
}

#[async_trait]
impl Sender for Quinn {
    fn name(&self) -> &'static str {
        "quinn"
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn transfer(&self, address: SocketAddr, count: usize) -> Result<Duration> {
        let dial = async { anyhow::Ok(self.dialler.connect(address, "localhost")?.await?) };
        let accept = async {
            let incoming = self.listener.accept().await.context("the endpoint is closed")?;
            anyhow::Ok(incoming.await?)
        };
        let (client, server) = tokio::try_join!(dial, accept)?;
        let started = Instant::now();
        let send = async {
            let (mut write, message) = (client.open_uni().await?, vec![7; MESSAGE]);
            for _ in 0..count {
                write.write_all(&message).await?;
            }
            anyhow::Ok(write.finish()?)
        };
        let receive = async {
            let (mut read, mut message) = (server.accept_uni().await?, vec![0; MESSAGE]);
            for _ in 0..count {
                read.read_exact(&mut message).await?;
            }
            anyhow::Ok(started.elapsed())
        };
        let ((), elapsed) = tokio::try_join!(send, receive)?;
        client.close(0_u32.into(), b"");
        Ok(elapsed)
    }
}
