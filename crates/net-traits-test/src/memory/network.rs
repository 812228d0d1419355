//! `MemoryNetwork`: hosts, the links between them, and their listeners.

use super::link::{Link, LinkPlan};
use super::pipe::Pipe;
use super::wire::{Side, Wire};
use crate::Limits;
use fastrand::Rng;
use parking_lot::Mutex;
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use tokio::time::Instant;

/// The first port that a dialler or a listener on port 0 gets (RFC 6335).
const FIRST_DYNAMIC_PORT: u16 = 49_152;

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
    partitions: Vec<(Vec<IpAddr>, Vec<IpAddr>, Instant)>,
    listeners: HashMap<SocketAddr, Arc<dyn NetworkListener>>,
    wires: Vec<Live>,
}

impl State {
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
        let now = Instant::now();
        {
            let mut state = self.inner.state.lock();
            state.partitions.push((these.to_vec(), those.to_vec(), now));
        }
        for (one, other) in these.iter().flat_map(|one| those.iter().map(move |other| (one, other)))
        {
            self.link(*one, *other).block(now);
            self.link(*other, *one).block(now);
        }
        self.notify();
    }

    /// Ends all partitions. Connections that have received nothing for 30 s have ended.
    pub fn heal(&self) {
        self.live().iter().for_each(|(wire, _)| wire.expire());
        {
            let mut state = self.inner.state.lock();
            state.partitions.clear();
            state.links.values().for_each(|link| link.unblock());
        }
        self.notify();
    }

    /// Resets all connections between two hosts.
    pub fn reset(&self, one: IpAddr, other: IpAddr) {
        for (wire, hosts) in self.live() {
            if hosts == [one, other] || hosts == [other, one] {
                wire.reset();
            }
        }
    }

    /// Wakes waiters, which check the links again.
    fn notify(&self) {
        self.live().iter().for_each(|(wire, _)| wire.notify());
    }

    fn live(&self) -> Vec<(Arc<Wire>, [IpAddr; 2])> {
        let state = self.inner.state.lock();
        state.wires.iter().filter_map(|live| Some((live.wire.upgrade()?, live.hosts))).collect()
    }

    /// Returns the link from one host to another.
    pub(super) fn link(&self, from: IpAddr, to: IpAddr) -> Arc<Link> {
        let state = &mut *self.inner.state.lock();
        let link = state.links.entry((from, to)).or_insert_with(|| {
            let cuts =
                |one: &[IpAddr], other: &[IpAddr]| one.contains(&from) && other.contains(&to);
            let blocked = state.partitions.iter().find_map(|(these, those, since)| {
                (cuts(these, those) || cuts(those, these)).then_some(*since)
            });
            Arc::new(Link::new(state.default_plan.clone(), blocked))
        });
        link.clone()
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
        state.wires.retain(|live| live.wire.strong_count() > 0);
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
