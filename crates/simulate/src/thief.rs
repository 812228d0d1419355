//! `Thief`: a program with the stolen key of a node.
//!
//! It connects to nodes and sends them messages, before and after they know that the key is stolen.
//! What it receives is recorded as received by the node that owns the key.

use crate::journal::{FORGED, Peer};
use crate::message::Message;
use crate::node::{ALPN, Shared};
use bytes::Bytes;
use fastrand::Rng;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use net_traits::{NetConnection, NetCredential, NetTransport, TrustPolicy};
use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::interval;

/// To how many nodes it connects in each period.
const DIALS: usize = 4;

/// A thief that runs. It ends when the sender is dropped.
pub(crate) struct Running {
    pub(crate) stop: watch::Sender<()>,
    pub(crate) task: JoinHandle<()>,
}

struct Thief<T> {
    shared: Arc<Shared>,
    transport: T,
    credential: NetCredential,
    /// The node that owns the key.
    owner: u32,
}

/// Starts a thief, which gets `seed` for its decisions.
pub(crate) fn start<T: NetTransport>(
    shared: &Arc<Shared>,
    transport: T,
    owner: u32,
    credential: &NetCredential,
    seed: u64,
) -> Running {
    let credential = credential.with_trust(TrustPolicy::Any.at_handshake());
    let thief = Thief { shared: shared.clone(), transport, credential, owner };
    let (stop, stopped) = watch::channel(());
    let task = tokio::spawn(async move { thief.run(Rng::with_seed(seed), stopped).await });
    Running { stop, task }
}

impl<T: NetTransport> Thief<T> {
    async fn run(&self, mut rng: Rng, mut stopped: watch::Receiver<()>) {
        let mut ticks = interval(self.shared.tick);
        let mut visits = FuturesUnordered::new();
        let stopping = stopped.clone();
        loop {
            tokio::select! {
                biased;
                _ = stopped.changed() => break,
                Some(()) = visits.next() => {}
                _ = ticks.tick() => for _ in 0..DIALS {
                    let directory = &self.shared.directory;
                    let node = directory.choose(self.owner, &mut rng);
                    let address = node.and_then(|it| directory.get(it)).map(|it| it.address);
                    visits.extend(address.map(|it| self.visit(it, stopping.clone())));
                }
            }
        }
        while visits.next().await.is_some() {}
    }

    /// Connects to a node, and sends and receives until the connection ends.
    async fn visit(&self, address: SocketAddr, mut stopped: watch::Receiver<()>) {
        let dial = self.transport.connect(address, &[ALPN], self.credential.clone());
        let connection = tokio::select! {
            biased;
            _ = stopped.changed() => return,
            connected = dial => match connected {
                Ok(connection) => connection,
                Err(_) => return,
            }
        };
        let from = connection.peer_identity().hash;
        let received = |message: Bytes| {
            let node = self.shared.directory.owner(from);
            let from = node.map(|node| Peer { node, is_revoked: false });
            self.shared.received(self.owner, from, message);
        };
        let mut sending = pin!(self.send(&connection));
        loop {
            tokio::select! {
                biased;
                _ = stopped.changed() => break,
                next = connection.recv() => match next {
                    Ok((message, _)) => received(message),
                    Err(_) => return,
                },
                never = &mut sending => match never {},
            }
        }
        // What has arrived is not reported to its sender.
        while let Some(Ok((message, _))) = connection.recv().now_or_never() {
            received(message);
        }
    }

    /// Sends messages until the connection ends.
    async fn send(&self, connection: &T::Connection) -> Infallible {
        let mut ticks = interval(self.shared.tick);
        loop {
            ticks.tick().await;
            let message = Message::Known(Vec::new()).encode(|_, _| FORGED);
            if connection.send_bytes(message).await.is_err() {
                return pending().await;
            }
        }
    }
}
