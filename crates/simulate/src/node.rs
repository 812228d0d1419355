//! `Node`: the program under test, which spreads rumors over a `PeerPool`.
//!
//! A node follows a few neighbours of the directory, and accepts those that follow it. It passes a
//! new rumor on to some peers. To a peer that connects, and now and then to another one, it tells
//! which rumors it knows; the peer answers with those that are missing. It knows nothing of the
//! simulation but the journal.

use crate::directory::{Directory, Entry};
use crate::journal::{Arrived, Journal, Peer};
use crate::message::{Message, Rumor};
use crate::mutant::Mutant;
use anyhow::Result;
use bytes::Bytes;
use fastrand::Rng;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use net_peers::{
    DropError, Endpoint, Follow, PeerEvent, PeerEvents, PeerPool, PeerPoolConfig, Unsent,
    WatchResolver,
};
use net_traits::{
    CertHash, CertificateDer, NetCredential, NetListener, NetTransport, PeerIdentity, PeerVerifier,
    TrustPolicy,
};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{pending, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at};

pub(crate) const ALPN: &str = "gossip/1";

/// How many nodes of the directory a node follows.
const NEIGHBOURS: usize = 4;

/// How many connections a node has at most, on average: those with its neighbours, those that follow
/// it, and some that are about to be closed.
pub(crate) const CONNECTIONS: f64 = 2.0 * NEIGHBOURS as f64 + 1.0;

/// To how many peers a node passes a new rumor on.
const FANOUT: usize = 4;

/// How many rumors a node remembers, and tells its peers about.
const RECENT: usize = 32;

/// How many missing rumors a node sends in an answer.
const ANSWERED: usize = 8;

/// A neighbour is replaced every so many ticks, on average.
const TICKS_PER_CHANGE: u32 = 64;

/// After so many messages a node with [`Mutant::MissesWakeup`] receives nothing more.
const HEARD: u64 = 20;

/// What all nodes use.
pub(crate) struct Shared {
    pub(crate) journal: Journal,
    pub(crate) directory: Directory,
    pub(crate) mutant: Option<Mutant>,
    /// How often a node checks its neighbours and tells one of them what it knows.
    pub(crate) tick: Duration,
}

/// What the simulation tells a node.
#[derive(Debug)]
pub(crate) enum Command {
    Publish(Rumor),
    Rotate(NetCredential),
}

/// A node that runs. It ends when the sender of commands is dropped.
pub(crate) struct Running {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) task: JoinHandle<()>,
    pub(crate) neighbours: watch::Receiver<Vec<Endpoint>>,
}

struct Node<T: NetTransport> {
    number: u32,
    shared: Arc<Shared>,
    rng: Rng,
    transport: T,
    listener: Arc<T::Listener>,
    serving: JoinHandle<()>,
    pool: PeerPool<T>,
    events: PeerEvents<T::Connection>,
    credential: NetCredential,
    revoked: BTreeSet<CertHash>,
    neighbours: Vec<u32>,
    list: watch::Sender<Vec<Endpoint>>,
    follow: Follow,
    rumors: BTreeMap<u32, Rumor>,
    /// The messages to peers that are not neighbours.
    unsent: FuturesUnordered<BoxFuture<'static, (Arrived, Vec<Unsent>)>>,
    heard: u64,
}

/// The limits of the pool of each node. They bound what a node holds.
fn limits() -> PeerPoolConfig {
    PeerPoolConfig::new()
        .max_delay(Duration::from_secs(5))
        .max_attempts(4)
        .max_queued_messages(256)
        .max_queued_bytes(32 * 1024)
        .max_unconfirmed_bytes(32 * 1024)
        .max_held_bytes(MAX_HELD)
        .receive_queue(64 * 1024)
        .removal_delay(Duration::from_secs(5))
}

/// How many bytes of messages the pool of a node may hold.
pub(crate) const MAX_HELD: usize = 128 * 1024;

/// Starts a node, which gets `seed` for its decisions.
pub(crate) async fn start<T: NetTransport + Clone>(
    number: u32,
    shared: &Arc<Shared>,
    transport: T,
    bind_addr: SocketAddr,
    credential: NetCredential,
    seed: u64,
) -> Result<Running> {
    let revoked = shared.directory.revoked();
    let credential = credential.with_trust(trusting_all_but(&revoked));
    let listener = transport.create_listener(bind_addr, &[ALPN], credential.clone()).await?;
    let listener = Arc::new(listener);
    let (pool, events) = PeerPool::new(transport.clone(), &[ALPN], credential.clone(), limits())?;
    let (list, neighbours) = watch::channel(Vec::new());
    let follow = pool.follow(WatchResolver::new(neighbours.clone()));
    let (accepting, listening) = (pool.clone(), listener.clone());
    let serving = tokio::spawn(async move {
        let insert = move |connection| {
            accepting.insert(connection);
            ready(())
        };
        net_peers::serve(&*listening, insert).await;
    });
    let (address, identity) = (listener.local_addr(), credential.identity());
    shared.directory.add(number, Entry { address, identity, since: shared.journal.now() });
    let node = Node {
        number,
        shared: shared.clone(),
        rng: Rng::with_seed(seed),
        transport,
        listener,
        serving,
        pool,
        events,
        credential,
        revoked,
        neighbours: Vec::new(),
        list,
        follow,
        rumors: BTreeMap::new(),
        unsent: FuturesUnordered::new(),
        heard: 0,
    };
    let (commands, commanded) = mpsc::channel(16);
    let task = tokio::spawn(node.run(commanded));
    Ok(Running { commands, task, neighbours })
}

impl<T: NetTransport> Node<T> {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let tick = self.shared.tick;
        let mut ticks = interval_at(Instant::now() + tick.mul_f64(self.rng.f64()), tick);
        loop {
            let is_deaf = self.has_mutant(Mutant::MissesWakeup) && self.heard >= HEARD;
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Publish(rumor)) => self.learn(rumor, None).await,
                    Some(Command::Rotate(credential)) => self.rotate(&credential),
                    None if self.has_mutant(Mutant::NeverEnds) => pending().await,
                    None => break,
                },
                Some(event) = self.events.recv() => self.event(event),
                Some((message, reports)) = self.unsent.next() => {
                    self.shared.unsent(self.number, message, reports);
                }
                (peer, message) = self.pool.recv(), if !is_deaf => {
                    self.receive(peer, message).await;
                }
                _ = ticks.tick() => self.tick(),
            }
        }
        self.end().await;
    }

    /// Ends the node as a program does that exits.
    async fn end(mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await; // it was aborted
        while let Some((peer, message)) = self.pool.try_recv() {
            self.shared.received(self.number, self.peer(peer), message);
        }
        let Self { number, shared, pool, mut events, mut unsent, follow, listener, .. } = self;
        drop((follow, pool, listener));
        while let Some((message, reports)) = unsent.next().await {
            shared.unsent(number, message, reports);
        }
        while let Some(event) = events.recv().await {
            if let PeerEvent::Undelivered(report) = event {
                shared.reported(number, report.message, report.may_have_arrived);
            }
        }
    }

    fn has_mutant(&self, mutant: Mutant) -> bool {
        self.shared.mutant == Some(mutant)
    }

    async fn receive(&mut self, mut peer: CertHash, mut message: Bytes) {
        self.heard += 1;
        if self.has_mutant(Mutant::LeaksMemory) {
            std::mem::forget(vec![1_u8; 64 * 1024]);
        }
        let mutant = self.shared.mutant.filter(|_| self.heard.is_multiple_of(50));
        match mutant {
            Some(Mutant::LosesMessages) => return,
            Some(Mutant::ReceivesTwice) => {
                self.shared.received(self.number, self.peer(peer), message.clone());
            }
            Some(Mutant::AltersMessages) => message = altered(&message),
            Some(Mutant::Panics) => panic!("the mutant panics"),
            Some(Mutant::MistakesSenders) => peer = self.credential.identity(),
            _ => {}
        }
        match self.shared.received(self.number, self.peer(peer), message) {
            None => {}
            Some(Message::Rumor(rumor)) => self.learn(rumor, Some(peer)).await,
            Some(Message::Known(known)) => {
                let missing = self.rumors.values().rev().filter(|it| !known.contains(&it.number));
                let missing: Vec<_> = missing.take(ANSWERED).cloned().collect();
                for rumor in missing {
                    self.send(peer, &Message::Rumor(rumor));
                }
            }
        }
    }

    /// Remembers a rumor and passes it on.
    async fn learn(&mut self, rumor: Rumor, from: Option<CertHash>) {
        let is_full = self.rumors.len() >= RECENT;
        let is_old = is_full && self.rumors.keys().next().is_some_and(|it| rumor.number < *it);
        if is_old || self.rumors.contains_key(&rumor.number) {
            return;
        }
        self.shared.journal.learned(self.number, rumor.number);
        if let Some(revoked) = rumor.revoked {
            self.revoke(revoked).await;
        }
        let mut peers = self.pool.peers();
        peers.retain(|peer| Some(*peer) != from);
        self.rng.shuffle(&mut peers);
        let message = Message::Rumor(rumor.clone());
        for peer in peers.into_iter().take(FANOUT) {
            self.send(peer, &message);
        }
        self.rumors.insert(rumor.number, rumor);
        if self.rumors.len() > RECENT {
            self.rumors.pop_first();
        }
    }

    fn send(&mut self, peer: CertHash, message: &Message) {
        if self.has_mutant(Mutant::KeepsRumors) && matches!(message, Message::Rumor(_)) {
            return;
        }
        let Shared { journal, directory, .. } = &*self.shared;
        let Some(to) = self.peer(peer) else { return };
        let mut sent = Arrived { number: 0, content: 0 };
        let bytes = message.encode(|length, content| {
            let number = journal.sent(self.number, to, length, content);
            sent = Arrived { number, content };
            number
        });
        // Other peers have dialled this node. With their addresses, the pool would dial them after
        // they have closed the connection.
        let is_ours = self.neighbours.contains(&to.node);
        let is_ours = is_ours || self.has_mutant(Mutant::KeepsConnections);
        match directory.address(peer).filter(|_| is_ours) {
            Some(address) => {
                if self.pool.send(peer, address, bytes).is_err() {
                    journal.refused(sent.number);
                }
            }
            None => {
                let unsent = self.pool.broadcast([peer], bytes).unsent();
                self.unsent.push(Box::pin(async move { (sent, unsent.await) }));
            }
        }
    }

    fn event(&mut self, event: PeerEvent<T::Connection>) {
        match event {
            PeerEvent::Connected { peer, .. } => self.tell(peer),
            PeerEvent::Undelivered(report) if !self.has_mutant(Mutant::NeverReports) => {
                let may_have_arrived =
                    report.may_have_arrived && !self.has_mutant(Mutant::DeniesArrivals);
                self.shared.reported(self.number, report.message, may_have_arrived);
            }
            _ => {}
        }
    }

    /// Returns the node with an identity.
    fn peer(&self, identity: CertHash) -> Option<Peer> {
        let node = self.shared.directory.owner(identity)?;
        Some(Peer { node, is_revoked: self.revoked.contains(&identity) })
    }

    /// Tells a peer which rumors this node knows.
    fn tell(&mut self, peer: CertHash) {
        let known = self.rumors.keys().copied().collect();
        self.send(peer, &Message::Known(known));
    }

    fn tick(&mut self) {
        let peers = self.pool.peers();
        if let Some(peer) = self.rng.choice(peers) {
            self.tell(peer);
        }
        let directory = &self.shared.directory;
        self.neighbours.retain(|it| directory.get(*it).is_some());
        if !self.neighbours.is_empty() && self.rng.u32(0..TICKS_PER_CHANGE) == 0 {
            let leaves = self.rng.usize(0..self.neighbours.len());
            self.neighbours.swap_remove(leaves);
        }
        for _ in self.neighbours.len()..NEIGHBOURS {
            let chosen = directory.choose(self.number, &mut self.rng);
            if let Some(chosen) = chosen.filter(|it| !self.neighbours.contains(it)) {
                self.neighbours.push(chosen);
            }
        }
        let list: Vec<_> =
            self.neighbours.iter().filter_map(|it| directory.endpoint(*it)).collect();
        self.list.send_if_modified(|before| {
            let is_changed = *before != list;
            *before = list;
            is_changed
        });
    }

    /// Uses another certificate from now on.
    fn rotate(&mut self, credential: &NetCredential) {
        // Peers may see it before this function returns.
        self.shared.directory.own(self.number, credential.identity());
        self.credential = credential.with_trust(self.credential.trust().clone());
        self.pool.set_credential(self.credential.clone());
        // A transport that cannot use it keeps the earlier one, and so does the directory.
        if self.listener.set_credential(self.credential.clone()).is_ok() {
            self.shared.directory.rotate(self.number, self.credential.identity());
        }
    }

    /// Does not trust an identity from now on.
    async fn revoke(&mut self, identity: CertHash) {
        if self.revoked.insert(identity) {
            let trust = trusting_all_but(&self.revoked);
            self.credential = self.credential.with_trust(trust.clone());
            self.pool.set_credential(self.credential.clone());
            if !self.has_mutant(Mutant::AcceptsRevoked) {
                self.listener.set_trust(trust.clone());
            }
            if !self.has_mutant(Mutant::KeepsRevoked) {
                self.transport.revoke(&trust).await;
            }
        }
    }
}

impl Shared {
    /// Records and returns a message that a node has received.
    pub(crate) fn received(
        &self,
        node: u32,
        from: Option<Peer>,
        message: Bytes,
    ) -> Option<Message> {
        let (arrived, message) = self.decode(node, message)?;
        self.journal.received(node, from, arrived);
        Some(message)
    }

    /// Records that a node got back a message that is not delivered.
    fn reported(&self, node: u32, message: Bytes, may_have_arrived: bool) {
        if let Some((arrived, _)) = self.decode(node, message) {
            self.journal.reported(node, arrived, may_have_arrived);
        }
    }

    /// Records the reports of a broadcast.
    fn unsent(&self, node: u32, message: Arrived, reports: Vec<Unsent>) {
        for report in reports {
            match report.error {
                DropError::Queue(_) => self.journal.refused(message.number),
                _ => self.journal.reported(node, message, false),
            }
        }
    }

    fn decode(&self, node: u32, message: Bytes) -> Option<(Arrived, Message)> {
        let decoded = Message::decode(message);
        if decoded.is_none() {
            self.journal.malformed(node);
        }
        decoded
    }
}

/// Returns a message whose last bit differs.
fn altered(message: &Bytes) -> Bytes {
    let mut bytes = message.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}

fn trusting_all_but(revoked: &BTreeSet<CertHash>) -> TrustPolicy {
    // Certificates expire by the clock of the machine, which a simulation must not depend on.
    TrustPolicy::custom(AllBut(revoked.clone())).at_handshake()
}

/// Trusts all identities except some.
struct AllBut(BTreeSet<CertHash>);

impl PeerVerifier for AllBut {
    fn verify(&self, peer: &PeerIdentity, _: &CertificateDer<'_>) -> Result<(), String> {
        match self.0.contains(&peer.hash) {
            true => Err("the identity is revoked".to_owned()),
            false => Ok(()),
        }
    }
}
