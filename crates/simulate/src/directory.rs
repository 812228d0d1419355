//! `Directory`: the addresses and identities of the nodes, as a program gets them from a registry.

use fastrand::Rng;
use net_peers::Endpoint;
use net_traits::CertHash;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where each node is. Nodes have numbers, which they keep when they restart.
#[derive(Default)]
pub(crate) struct Directory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` while the node is down.
    nodes: Vec<Option<Entry>>,
    /// The node of each identity, including former ones. It is only searched: the order of a hash
    /// table differs in each run.
    owners: HashMap<CertHash, u32>,
    revoked: BTreeSet<CertHash>,
}

#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) address: SocketAddr,
    pub(crate) identity: CertHash,
    /// When the node started, since the begin.
    pub(crate) since: Duration,
}

impl Directory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a node that has started.
    pub(crate) fn add(&self, node: u32, entry: Entry) {
        let state = &mut *self.state();
        if state.nodes.len() <= node as usize {
            state.nodes.resize(node as usize + 1, None);
        }
        state.nodes[node as usize] = Some(entry);
        state.owners.insert(entry.identity, node);
    }

    /// Removes a node that has ended.
    pub(crate) fn remove(&self, node: u32) {
        if let Some(entry) = self.state().nodes.get_mut(node as usize) {
            *entry = None;
        }
    }

    /// Records that a node has an identity, which it may not use yet.
    pub(crate) fn own(&self, node: u32, identity: CertHash) {
        self.state().owners.insert(identity, node);
    }

    /// Records the new identity of a node, of which [`own`](Self::own) is known.
    pub(crate) fn rotate(&self, node: u32, identity: CertHash) {
        if let Some(Some(entry)) = self.state().nodes.get_mut(node as usize) {
            entry.identity = identity;
        }
    }

    pub(crate) fn get(&self, node: u32) -> Option<Entry> {
        *self.state().nodes.get(node as usize)?
    }

    /// Returns the node with an identity, also if it has another one now.
    pub(crate) fn owner(&self, identity: CertHash) -> Option<u32> {
        self.state().owners.get(&identity).copied()
    }

    /// Returns the address of an identity if a node has it now.
    pub(crate) fn address(&self, identity: CertHash) -> Option<SocketAddr> {
        let state = self.state();
        let entry = state.nodes[*state.owners.get(&identity)? as usize]?;
        (entry.identity == identity).then_some(entry.address)
    }

    /// Records that an identity must not be trusted any more.
    pub(crate) fn revoke(&self, identity: CertHash) {
        self.state().revoked.insert(identity);
    }

    /// Returns the identities that a node which starts now does not trust.
    pub(crate) fn revoked(&self) -> BTreeSet<CertHash> {
        self.state().revoked.clone()
    }

    /// Chooses a node other than `node` that is up. `None` if there is none among a few.
    pub(crate) fn choose(&self, node: u32, rng: &mut Rng) -> Option<u32> {
        let state = self.state();
        let count = u32::try_from(state.nodes.len()).unwrap_or(u32::MAX);
        (0..TRIES)
            .map(|_| rng.u32(0..count))
            .find(|it| *it != node && state.nodes[*it as usize].is_some())
    }

    /// Returns the endpoint of a node that is up. Half of the nodes are known by address only.
    pub(crate) fn endpoint(&self, node: u32) -> Option<Endpoint> {
        let Entry { address, identity, .. } = self.get(node)?;
        let endpoint = Endpoint::new(address);
        Some(if node.is_multiple_of(2) { endpoint.with_identity(identity) } else { endpoint })
    }
}

/// How many nodes are tried to find one that is up.
const TRIES: usize = 16;
