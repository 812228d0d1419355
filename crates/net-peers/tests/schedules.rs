//! Random schedules of what can happen to nodes that send to each other through pools: restarts,
//! crashes, partitions, resets, simultaneous dials, rotated keys, removals, slow applications.
//!
//! Every message must be received once or reported with its payload. It may be both only if the
//! report says so. A failure prints its seed: `SEED=7 cargo test -p net-peers --test schedules`
//! runs only that schedule. `SCHEDULES=10000` sets the number of schedules.

mod common;

use bytes::Bytes;
use common::{ALPN, Events, Pool, any_port, trusting};
use fastrand::Rng;
use net_peers::{PeerEvent, PeerPool, PeerPoolConfig, Undelivered};
use net_traits::{CertHash, NetCredential, NetIncomingRequest, NetListener, NetTransport};
use net_traits_test::memory::{LinkPlan, MemoryListener, MemoryNetwork, MemoryTransport};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::panic::catch_unwind;
use std::sync::{Arc, LazyLock};
use std::thread::{self, available_parallelism};
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

/// How many schedules run by default.
const SCHEDULES: u64 = 2000;

const NODES: usize = 3;

/// How many steps a schedule has.
const STEPS: usize = 40;

/// How often the applications poll for messages. Together with the largest delay of a message this
/// is shorter than `keep_sent`: a message that an ending process has not received is lost with it.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// After this time each message has been delivered or reported.
const SETTLED: Duration = Duration::from_secs(900);

/// Sorted, because the order of identities matters: a seed has to give the same schedule each time.
static CREDENTIALS: LazyLock<Vec<NetCredential>> = LazyLock::new(|| {
    let mut credentials: Vec<_> = (0..64).map(|_| trusting()).collect();
    credentials.sort_by_key(NetCredential::identity);
    credentials
});

#[test]
fn every_message_is_received_once_or_reported() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SCHEDULES").unwrap_or(SCHEDULES),
    };
    let workers = available_parallelism().map_or(1, |it| it.get() as u64);
    let seen = thread::scope(|scope| {
        let work = |worker| seeds.clone().filter(move |seed| seed % workers == worker);
        let workers: Vec<_> =
            (0..workers).map(|worker| scope.spawn(move || run_all(work(worker)))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .fold(Totals::default(), Totals::add)
    });
    if seeds.end - seeds.start > 100 {
        // The schedules cover the interesting cases.
        let Totals { received, reported, both, replaced } = seen;
        assert!(received > 3 * reported, "{seen:?}");
        assert!(reported > 0 && both > 0 && both < reported && replaced > 0, "{seen:?}");
    }
}

fn run_all(seeds: impl Iterator<Item = u64>) -> Totals {
    let run = |seed| {
        fastrand::seed(seed); // of the backoffs
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async { Schedule::new(seed).run().await })
    };
    seeds.fold(Totals::default(), |seen, seed| {
        let totals = catch_unwind(|| run(seed));
        seen.add(
            totals.unwrap_or_else(|_| panic!("the schedule with SEED={seed} failed, see above")),
        )
    })
}

#[derive(Debug, Default)]
struct Totals {
    received: usize,
    reported: usize,
    both: usize,
    replaced: usize,
}

impl Totals {
    fn add(self, other: Self) -> Self {
        Self {
            received: self.received + other.received,
            reported: self.reported + other.reported,
            both: self.both + other.both,
            replaced: self.replaced + other.replaced,
        }
    }
}

struct Schedule {
    rng: Rng,
    network: MemoryNetwork,
    nodes: Vec<Node>,
    /// Events of nodes that have ended.
    ended: Vec<(Events, Connected)>,
    /// Hosts of processes that have crashed, which stay partitioned.
    dead: Vec<IpAddr>,
    /// The receiver of each message.
    sent: Vec<CertHash>,
    received: BTreeSet<u32>,
    reported: BTreeMap<u32, Undelivered>,
    credentials: usize,
    replaced: usize,
}

/// A process.
struct Node {
    credential: NetCredential,
    /// All identities that it has had.
    identities: BTreeSet<CertHash>,
    host: MemoryTransport,
    address: SocketAddr,
    listener: Arc<MemoryListener>,
    accepting: JoinHandle<()>,
    /// Shared with the task that accepts.
    pool: Arc<Mutex<Option<Pool>>>,
    events: Events,
    connected: Connected,
    /// How many polls its application skips.
    busy: u32,
}

/// The peers that are connected according to the events.
type Connected = BTreeSet<CertHash>;

impl Node {
    async fn start(host: MemoryTransport, credential: NetCredential, port: u16) -> Self {
        let bind_addr = SocketAddr::new(any_port().ip(), port);
        let listener = host.create_listener(bind_addr, &[ALPN], credential.clone()).await.unwrap();
        let listener = Arc::new(listener);
        let config = PeerPoolConfig::new().receive_queue(4096).max_unconfirmed_bytes(16 * 1024);
        let (pool, events) =
            PeerPool::new(host.clone(), &[ALPN], credential.clone(), config).unwrap();
        let pool = Arc::new(Mutex::new(Some(pool)));
        let accepting = tokio::spawn(accept_all(listener.clone(), pool.clone()));
        let identities = BTreeSet::from([credential.identity()]);
        let (address, connected) = (listener.local_addr(), Connected::new());
        Self {
            credential,
            identities,
            host,
            address,
            listener,
            accepting,
            pool,
            events,
            connected,
            busy: 0,
        }
    }

    fn pool(&self) -> Pool {
        self.pool.lock().clone().unwrap()
    }
}

async fn accept_all(listener: Arc<MemoryListener>, pool: Arc<Mutex<Option<Pool>>>) {
    while let Ok(request) = listener.accept().await {
        let pool = pool.clone();
        tokio::spawn(async move {
            if let Ok(connection) = request.accept().await
                && let Some(pool) = &*pool.lock()
            {
                pool.insert(connection);
            }
        });
    }
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let network = MemoryNetwork::new(seed);
        Self {
            rng: Rng::with_seed(seed),
            network,
            nodes: Vec::new(),
            ended: Vec::new(),
            dead: Vec::new(),
            sent: Vec::new(),
            received: BTreeSet::new(),
            reported: BTreeMap::new(),
            credentials: 0,
            replaced: 0,
        }
    }

    async fn run(mut self) -> Totals {
        let latency = Duration::from_millis(self.rng.u64(0..50));
        let jitter = Duration::from_millis(self.rng.u64(0..20));
        self.network.set_links(LinkPlan::new().latency(latency).jitter(jitter));
        for _ in 0..NODES {
            let node = Node::start(self.network.transport(), self.credential(), 0).await;
            self.nodes.push(node);
        }
        for _ in 0..STEPS {
            self.step().await;
        }
        self.heal();
        self.nodes.iter_mut().for_each(|node| node.busy = 0);
        self.pass(SETTLED, Duration::from_secs(15)).await;
        for (number, to) in self.sent.iter().enumerate() {
            let number = u32::try_from(number).unwrap();
            assert!(
                self.received.contains(&number) || self.reported.contains_key(&number),
                "message {number} to {to} is neither received nor reported"
            );
        }
        for index in 0..NODES {
            self.end(index, false).await;
        }
        self.poll();
        for (events, connected) in &mut self.ended {
            assert!(events.recv().await.is_none(), "there are more events");
            assert!(connected.is_empty(), "ends are not reported: {connected:?}");
        }
        let both = self.reported.keys().filter(|number| self.received.contains(number)).count();
        let (received, reported) = (self.received.len(), self.reported.len());
        Totals { received, reported, both, replaced: self.replaced }
    }

    /// Performs a random step.
    async fn step(&mut self) {
        let (one, other) = (self.rng.usize(0..NODES), self.rng.usize(0..NODES));
        let ips = (self.nodes[one].host.ip(), self.nodes[other].host.ip());
        match self.rng.u32(0..100) {
            0..40 => self.send(one, other, 6),
            40..55 => {
                // Both dial at the same time, if they are not connected.
                self.send(one, other, 3);
                self.send(other, one, 3);
            }
            55..61 => self.restart(one, false).await,
            61..67 => self.restart(one, true).await,
            67..73 if one != other => self.network.partition(&[ips.0], &[ips.1]),
            73..80 => self.heal(),
            80..84 => self.network.reset(ips.0, ips.1),
            84..88 => {
                let peer = self.nodes[other].credential.identity();
                self.nodes[one].pool().remove(peer);
            }
            88..92 => self.rotate(one),
            92..96 => self.nodes[one].busy = self.rng.u32(1..200),
            _ => {
                let seconds = self.rng.u64(1..40);
                self.pass(Duration::from_secs(seconds), 5 * POLL_INTERVAL).await;
            }
        }
        let pause = [0, 1, 10, 100, 1000, 3000][self.rng.usize(0..6)];
        self.pass(Duration::from_millis(pause), POLL_INTERVAL).await;
    }

    fn credential(&mut self) -> NetCredential {
        // Each once, in an order that differs from that of the identities.
        self.credentials += 1;
        CREDENTIALS[self.credentials * 29 % CREDENTIALS.len()].clone()
    }

    fn send(&mut self, from: usize, to: usize, most: u32) {
        let (address, peer) = (self.nodes[to].address, self.nodes[to].credential.identity());
        for _ in 0..self.rng.u32(1..=most) {
            let number = u32::try_from(self.sent.len()).unwrap();
            let size = [0, 100, 3000][self.rng.usize(0..3)];
            let message = [&number.to_be_bytes()[..], &vec![7; size]].concat();
            if self.nodes[from].pool().send(peer, address, message.into()).is_ok() {
                self.sent.push(peer);
            }
        }
    }

    fn rotate(&mut self, index: usize) {
        let credential = self.credential();
        let node = &mut self.nodes[index];
        node.pool().set_credential(credential.clone());
        node.listener.set_credential(credential.clone()).unwrap();
        node.identities.insert(credential.identity());
        node.credential = credential;
    }

    fn heal(&self) {
        self.network.heal();
        self.cut_dead();
    }

    fn cut_dead(&self) {
        let alive: Vec<_> = self.nodes.iter().map(|node| node.host.ip()).collect();
        self.network.partition(&self.dead, &alive);
    }

    /// Ends a process and starts it again. If it crashes, its connections are not closed, and its
    /// address changes.
    async fn restart(&mut self, index: usize, crashes: bool) {
        let (credential, host, port) = self.end(index, crashes).await;
        let (host, port) = if crashes { (self.network.transport(), 0) } else { (host, port) };
        let pause = Duration::from_millis([0, 100, 5000][self.rng.usize(0..3)]);
        self.pass(pause, POLL_INTERVAL).await;
        self.nodes[index] = Node::start(host, credential, port).await;
        self.cut_dead();
    }

    /// Ends a process, after its application has received the messages that the process had
    /// received.
    async fn end(&mut self, index: usize, crashes: bool) -> (NetCredential, MemoryTransport, u16) {
        self.nodes[index].accepting.abort();
        let mut quiet = 0;
        while quiet < 20 {
            quiet = if self.poll_node(index) { 0 } else { quiet + 1 };
            yield_now().await;
        }
        if crashes {
            self.dead.push(self.nodes[index].host.ip());
            self.cut_dead();
        }
        let pool = self.nodes[index].pool.lock().take();
        drop(pool);
        // A placeholder that is not reachable, until the process is started again.
        let placeholder = Node::start(self.network.transport(), self.credential(), 0).await;
        let node = std::mem::replace(&mut self.nodes[index], placeholder);
        drop(node.listener);
        self.ended.push((node.events, node.connected));
        (node.credential, node.host, node.address.port())
    }

    /// Lets time pass, polling at each `interval`.
    async fn pass(&mut self, time: Duration, interval: Duration) {
        let mut left = time;
        loop {
            self.poll();
            if left.is_zero() {
                return;
            }
            let next = left.min(interval);
            sleep(next).await;
            left -= next;
        }
    }

    /// Lets all applications receive.
    fn poll(&mut self) {
        for index in 0..self.nodes.len() {
            self.poll_node(index);
        }
        let mut ended = std::mem::take(&mut self.ended);
        ended.iter_mut().for_each(|(events, connected)| self.events(events, connected));
        self.ended = ended;
    }

    /// Lets one application receive, and returns whether there was a message.
    fn poll_node(&mut self, index: usize) -> bool {
        let node = &mut self.nodes[index];
        let mut connected = std::mem::take(&mut node.connected);
        // All events are taken before they are processed, since processing borrows `self`.
        let mut events = Vec::new();
        while let Some(event) = node.events.try_recv() {
            events.push(event);
        }
        for event in events {
            self.event(event, &mut connected);
        }
        let node = &mut self.nodes[index];
        node.connected = connected;
        if node.busy > 0 {
            node.busy -= 1;
            return true;
        }
        let Some(pool) = node.pool.lock().clone() else { return false };
        let mut any = false;
        while let Some((_, message)) = pool.try_recv() {
            any = true;
            let number = number(&message);
            let to = self.sent[number as usize];
            assert!(self.nodes[index].identities.contains(&to), "message {number} came to another");
            assert!(self.received.insert(number), "message {number} was received twice");
            self.check(number);
        }
        any
    }

    fn events(&mut self, events: &mut Events, connected: &mut Connected) {
        while let Some(event) = events.try_recv() {
            self.event(event, connected);
        }
    }

    fn event<C: std::fmt::Debug>(&mut self, event: PeerEvent<C>, connected: &mut Connected) {
        match event {
            PeerEvent::Connected { peer, .. } => assert!(connected.insert(peer), "connected twice"),
            PeerEvent::Replaced { peer, .. } => {
                self.replaced += 1;
                assert!(connected.contains(&peer), "replaced before it was connected");
            }
            PeerEvent::Disconnected { peer, changes, .. } => {
                assert!(connected.remove(&peer) || changes > 1, "lost before it was connected");
            }
            PeerEvent::Undelivered(report) => {
                let number = number(&report.message);
                assert_eq!(report.peer, self.sent[number as usize]);
                let before = self.reported.insert(number, report);
                assert_eq!(before, None, "message {number} was reported twice");
                self.check(number);
            }
            event => panic!("{event:?}"),
        }
    }

    /// A message that was received and reported says that this is possible.
    fn check(&self, number: u32) {
        if let Some(report) = self.reported.get(&number) {
            let is_wrong = !report.may_have_arrived && self.received.contains(&number);
            assert!(!is_wrong, "message {number} was received, but {:?}", report.error);
        }
    }
}

fn number(message: &Bytes) -> u32 {
    u32::from_be_bytes(message[..4].try_into().unwrap())
}
