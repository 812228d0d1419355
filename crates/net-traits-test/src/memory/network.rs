//! `MemoryNetwork`: hosts, the links between them, and their listeners.

use super::link::{Link, LinkPlan};
use super::pipe::Pipe;
use super::wire::{Side, Wire};
use crate::Limits;
use fastrand::Rng;
use parking_lot::Mutex;
use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use tokio::time::Instant;

/// The first port that a dialler or a listener on port 0 gets (RFC 6335).
const FIRST_DYNAMIC_PORT: u16 = 49_152;

/// From how many links, and how many connections, on unused ones are removed.
const PRUNE_AT: usize = 64;

/// A virtual network. Clones share the network.
#[derive(Clone)]
pub struct MemoryNetwork {
    inner: Arc<Network>,
}

struct Network {
    seed: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    hosts: u32,
    next_port: u16,
    connections: u64,
    default_plan: LinkPlan,
    /// Ordered, so that waiters are woken in the same order in each run.
    links: BTreeMap<(IpAddr, IpAddr), Arc<Link>>,
    /// The number of links at which unused ones are removed.
    prune_links_at: usize,
    partitions: Vec<Partition>,
    /// The hosts that have failed, and when.
    failed: HashMap<IpAddr, Instant>,
    listeners: HashMap<SocketAddr, Arc<dyn NetworkListener>>,
    wires: Vec<Live>,
    /// The number of connections at which those that were dropped are removed.
    prune_wires_at: usize,
}

/// Two groups of hosts between which nothing passes.
struct Partition {
    groups: [HashSet<IpAddr>; 2],
    since: Instant,
}

impl Partition {
    fn cuts(&self, hosts: [IpAddr; 2]) -> bool {
        let [these, those] = &self.groups;
        let [one, other] = &hosts;
        these.contains(one) && those.contains(other) || those.contains(one) && these.contains(other)
    }
}

impl State {
    /// Returns since when nothing passes between two hosts.
    fn blocked_since(&self, hosts: [IpAddr; 2]) -> Option<Instant> {
        let failed = hosts.iter().filter_map(|host| self.failed.get(host).copied());
        let cut = self.partitions.iter().filter(|it| it.cuts(hosts)).map(|it| it.since);
        failed.chain(cut).min()
    }

    /// Returns the connections between the hosts that `filter` selects.
    fn live(&self, filter: impl Fn([IpAddr; 2]) -> bool) -> Vec<Arc<Wire>> {
        let selected = self.wires.iter().filter(|live| filter(live.hosts));
        selected.filter_map(|live| live.wire.upgrade()).collect()
    }

    fn prune_links(&mut self) {
        if self.links.len() >= self.prune_links_at {
            let plan = &self.default_plan;
            self.links.retain(|_, link| Arc::strong_count(link) > 1 || link.plan() != *plan);
            self.prune_links_at = PRUNE_AT.max(2 * self.links.len());
        }
    }

    fn prune_wires(&mut self) {
        if self.wires.len() >= self.prune_wires_at {
            self.wires.retain(|live| live.wire.strong_count() > 0);
            self.prune_wires_at = PRUNE_AT.max(2 * self.wires.len());
        }
    }

    fn next_port(&mut self) -> u16 {
        self.next_port = self.next_port.wrapping_add(1).max(FIRST_DYNAMIC_PORT);
        self.next_port
    }
}

/// A listener that the network knows.
pub(super) trait NetworkListener: Any + Send + Sync {
    /// Rejects the waiting attempts and all later ones.
    fn close(&self);
}

/// A connection and the hosts of its dialler and its listener.
struct Live {
    wire: Weak<Wire>,
    hosts: [IpAddr; 2],
}

impl MemoryNetwork {
    /// Creates a network without delays and faults. All random values are derived from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { inner: Arc::new(Network { seed, state: Mutex::default() }) }
    }

    /// Adds a host and returns its address.
    pub(super) fn add_host(&self) -> IpAddr {
        let mut state = self.inner.state.lock();
        state.hosts += 1;
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + state.hosts).into()
    }

    /// Sets the plan of all links, replacing earlier plans.
    pub fn set_links(&self, plan: LinkPlan) {
        let mut state = self.inner.state.lock();
        state.links.values().for_each(|link| link.set_plan(plan.clone()));
        state.default_plan = plan;
    }

    /// Sets the plan of the links between two hosts, in both directions. Its faults apply to
    /// connections that begin later.
    pub fn set_link(&self, one: IpAddr, other: IpAddr, plan: LinkPlan) {
        self.link(one, other).set_plan(plan.clone());
        self.link(other, one).set_plan(plan);
    }

    /// Blocks the links between two groups of hosts until [`heal`](Self::heal).
    ///
    /// Data in flight waits. Connections that receive nothing for 30 s end.
    pub fn partition(&self, these: &[IpAddr], those: &[IpAddr]) {
        let groups = [these, those].map(|group| group.iter().copied().collect());
        let partition = Partition { groups, since: Instant::now() };
        let cut = {
            let mut state = self.inner.state.lock();
            let is_cut = |(from, to): &(IpAddr, IpAddr)| partition.cuts([*from, *to]);
            let cut = state.links.iter().filter(|(hosts, _)| is_cut(hosts));
            cut.for_each(|(_, link)| link.block(partition.since));
            let cut = state.live(|hosts| partition.cuts(hosts));
            state.partitions.push(partition);
            cut
        };
        cut.iter().for_each(|wire| wire.notify());
    }

    /// Blocks all links of a host for good, as if it had lost its power. [`heal`](Self::heal) does
    /// not end it.
    ///
    /// Connections that receive nothing for 30 s end.
    pub fn fail_host(&self, host: IpAddr) {
        let cut = {
            let (mut state, now) = (self.inner.state.lock(), Instant::now());
            state.failed.insert(host, now);
            let of_host = state.links.iter().filter(|((from, to), _)| [from, to].contains(&&host));
            of_host.for_each(|(_, link)| link.block(now));
            state.live(|hosts| hosts.contains(&host))
        };
        cut.iter().for_each(|wire| wire.notify());
    }

    /// Ends all partitions. Connections that have received nothing for 30 s have ended.
    pub fn heal(&self) {
        let live = self.inner.state.lock().live(|_| true);
        live.iter().for_each(|wire| wire.expire());
        {
            let state = &mut *self.inner.state.lock();
            state.partitions.clear();
            let failed = &state.failed;
            let works = |host| !failed.contains_key(host);
            let healed = state.links.iter().filter(|((from, to), _)| works(from) && works(to));
            healed.for_each(|(_, link)| link.unblock());
        }
        live.iter().for_each(|wire| wire.notify());
    }

    /// Resets all connections between two hosts.
    pub fn reset(&self, one: IpAddr, other: IpAddr) {
        let between = |hosts| hosts == [one, other] || hosts == [other, one];
        let live = self.inner.state.lock().live(between);
        live.iter().for_each(|wire| wire.reset());
    }

    /// Returns the link from one host to another.
    pub(super) fn link(&self, from: IpAddr, to: IpAddr) -> Arc<Link> {
        let state = &mut *self.inner.state.lock();
        if let Some(link) = state.links.get(&(from, to)) {
            return link.clone();
        }
        state.prune_links();
        let blocked = state.blocked_since([from, to]);
        let link = Arc::new(Link::new(state.default_plan.clone(), blocked));
        state.links.insert((from, to), link.clone());
        link
    }

    /// Creates a connection with the limits of the dialler and of the listener.
    pub(super) fn wire(&self, hosts: [IpAddr; 2], limits: [&Limits; 2]) -> Arc<Wire> {
        let links = [self.link(hosts[0], hosts[1]), self.link(hosts[1], hosts[0])];
        let mut state = self.inner.state.lock();
        state.connections += 1;
        let mut rng =
            Rng::with_seed(self.inner.seed ^ state.connections.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let [there, back] = links;
        let to = |side: Side| limits[side as usize].max_message_size;
        let wire = Arc::new(Wire::new([
            Pipe::new(there, to(Side::Listener), rng.fork()),
            Pipe::new(back, to(Side::Dialler), rng.fork()),
        ]));
        state.prune_wires();
        state.wires.push(Live { wire: Arc::downgrade(&wire), hosts });
        wire
    }

    /// Returns a port for a dialler.
    pub(super) fn port(&self) -> u16 {
        self.inner.state.lock().next_port()
    }

    /// Registers a listener at `address`, assigning a port instead of 0. `None` if the address is
    /// in use.
    pub(super) fn listen(
        &self,
        mut address: SocketAddr,
        listener: Arc<dyn NetworkListener>,
    ) -> Option<SocketAddr> {
        let is_any = address.port() == 0;
        let candidates = if is_any { usize::from(u16::MAX - FIRST_DYNAMIC_PORT) } else { 0 };
        let mut state = self.inner.state.lock();
        for _ in 0..candidates {
            address.set_port(state.next_port());
            if !state.listeners.contains_key(&address) {
                break;
            }
        }
        if state.listeners.contains_key(&address) {
            return None;
        }
        state.listeners.insert(address, listener);
        Some(address)
    }

    pub(super) fn listener<D: NetworkListener>(&self, address: SocketAddr) -> Option<Arc<D>> {
        let listener = self.inner.state.lock().listeners.get(&address).cloned()?;
        (listener as Arc<dyn Any + Send + Sync>).downcast().ok()
    }

    pub(super) fn forget_listener(&self, address: SocketAddr) {
        let listener = self.inner.state.lock().listeners.remove(&address);
        drop(listener);
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetwork").field("seed", &self.inner.seed).finish_non_exhaustive()
    }
}
