//! `Resumption`: the tickets with which sessions are resumed (RFC 8446, section 2.2).
//!
//! A server's tickets are encrypted by the TLS library with keys of the server's configuration.
//! They contain the client's certificate and a [`state`] of this crate: the epoch, the time when
//! the peers proved their keys, and the protocol. A client's [`ticket`]s contain the secret of the
//! session, and stay in memory until they are used, replaced or forgotten.

mod state;
mod ticket;

use crate::ffi::library::has_patch;
use parking_lot::Mutex;
pub(crate) use state::SessionState;
use std::collections::VecDeque;
use std::ffi::CString;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use ticket::without_limits;
use zeroize::Zeroizing;

/// How many tickets are kept in all, how many for one server, and how many bytes they may have
/// together.
const MAX_TICKETS: usize = 256;
const MAX_PER_SERVER: usize = 4;
const MAX_BYTES: usize = 1024 * 1024;

/// The longest certificate of a peer that gets a ticket, in bytes: the ticket holds it.
pub(crate) const MAX_CERTIFICATE: usize = 8 * 1024;

/// The required patches. Without them resumption makes handshakes fail, offers early data, or skips
/// the verification of the peer (contract C31), or a ticket cannot be set with an `ExecutionDriver`
/// (contract C33).
const REQUIRED_PATCHES: [&str; 4] = ["N11-A9", "N11b", "N12", "N30"];

/// Resumes sessions: a client and a server that were connected before prove their identities with a
/// secret of that connection instead of certificates and signatures.
///
/// It is off by default. To enable it, set a value in the [`Settings`](crate::Settings::resumption)
/// of a server's or a client's configuration. Several configurations may share a value; each has
/// its own keys and tickets.
///
/// - **Peers are verified again.** Both sides get the certificate of the first connection and
///   verify it with the current trust policy and time.
///   [`Connection::peer_identity`](crate::Connection::peer_identity) and errors are those of a full
///   handshake.
/// - **Tickets expire.** A server accepts a ticket for two hours after the handshake in which the
///   peers proved the keys of their certificates; resumed connections do not prolong that.
///   [`forget`](Self::forget) ends all of them.
/// - **A ticket is used once.** Each connection gives the client a new one, so that observers cannot see from a ticket
///   which connections are of the same client.
/// - **No early data** (0-RTT) is sent or accepted.
/// - **Otherwise a full handshake follows**, if a ticket is too old, damaged, or of another server,
///   configuration or protocol.
///
/// A client keeps at most 256 tickets, 4 for each server name and address, and 1 MiB of them. They are erased when they
/// are used, replaced or forgotten, and when their configuration and its connections are dropped.
///
/// ```
/// use msquic_async::{Resumption, Settings};
///
/// let resumption = Resumption::new();
/// let settings = Settings::new().resumption(resumption.clone());
/// // Later, after the application has changed its trust policy:
/// resumption.forget();
/// assert_eq!(resumption.kept(), 0);
/// ```
#[derive(Clone)]
pub struct Resumption {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    /// Tickets of other epochs are not accepted.
    epoch: u64,
    /// A client's tickets, the oldest first.
    kept: VecDeque<Kept>,
    bytes: usize,
}

struct Kept {
    scope: u64,
    server: Server,
    ticket: Zeroizing<Vec<u8>>,
}

/// The server that a client dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) name: CString,
    pub(crate) addr: SocketAddr,
}

impl Resumption {
    /// Creates a value without tickets.
    ///
    /// ```
    /// use msquic_async::Resumption;
    ///
    /// assert_eq!(Resumption::new().kept(), 0);
    /// ```
    pub fn new() -> Self {
        let shared = Shared { epoch: next_number(), kept: VecDeque::new(), bytes: 0 };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Invalidates all tickets: those that servers have issued, also in handshakes that are in
    /// progress, and those that are kept for dialling. Established connections remain open.
    ///
    /// ```
    /// # fn example(resumption: msquic_async::Resumption) {
    /// resumption.forget();
    /// # }
    /// ```
    pub fn forget(&self) {
        let forgotten = {
            let mut shared = self.shared.lock();
            shared.epoch = next_number();
            shared.bytes = 0;
            std::mem::take(&mut shared.kept)
        };
        drop(forgotten); // erased without the lock
    }

    /// How many tickets are kept for dialling.
    ///
    /// ```
    /// # fn example(resumption: msquic_async::Resumption) {
    /// println!("{} tickets", resumption.kept());
    /// # }
    /// ```
    pub fn kept(&self) -> usize {
        self.shared.lock().kept.len()
    }

    fn epoch(&self) -> u64 {
        self.shared.lock().epoch
    }

    /// Takes out the newest ticket for `server`.
    fn take(&self, scope: u64, server: &Server) -> Option<Zeroizing<Vec<u8>>> {
        let mut shared = self.shared.lock();
        let newest = shared.kept.iter().rposition(|it| it.is_for(scope, server))?;
        Some(shared.remove(newest)?.ticket)
    }

    /// Keeps a ticket, unless the tickets of its epoch were forgotten.
    fn keep(&self, epoch: u64, kept: Kept) {
        let mut replaced = Vec::new();
        let mut shared = self.shared.lock();
        if shared.epoch != epoch || kept.ticket.len() > MAX_BYTES {
            return;
        }
        let same = |it: &&Kept| it.is_for(kept.scope, &kept.server);
        if shared.kept.iter().filter(same).count() >= MAX_PER_SERVER {
            let oldest = shared.kept.iter().position(|it| same(&it));
            replaced.extend(oldest.and_then(|oldest| shared.remove(oldest)));
        }
        shared.bytes += kept.ticket.len();
        shared.kept.push_back(kept);
        while shared.kept.len() > MAX_TICKETS || shared.bytes > MAX_BYTES {
            replaced.extend(shared.remove(0));
        }
        drop(shared);
        drop(replaced); // erased without the lock
    }
}

impl Shared {
    fn remove(&mut self, index: usize) -> Option<Kept> {
        let removed = self.kept.remove(index)?;
        self.bytes -= removed.ticket.len();
        Some(removed)
    }
}

impl Kept {
    fn is_for(&self, scope: u64, server: &Server) -> bool {
        self.scope == scope && self.server == *server
    }
}

impl Default for Resumption {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Resumption {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for Resumption {}

impl Hash for Resumption {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.shared).hash(state);
    }
}

impl fmt::Debug for Resumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumption").field("kept", &self.kept()).finish_non_exhaustive()
    }
}

/// The tickets of one configuration, which are forgotten with it.
pub(crate) struct Scope {
    resumption: Resumption,
    id: u64,
}

impl Scope {
    pub(crate) fn new(resumption: Resumption) -> Arc<Self> {
        Arc::new(Self { resumption, id: next_number() })
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let mut forgotten = Vec::new();
        let mut shared = self.resumption.shared.lock();
        while let Some(index) = shared.kept.iter().position(|it| it.scope == self.id) {
            forgotten.extend(shared.remove(index));
        }
        drop(shared);
        drop(forgotten); // erased without the lock
    }
}

/// The resumption state of a connection, from its start on.
pub(crate) struct Session {
    scope: Arc<Scope>,
    /// The epoch in which the handshake began.
    epoch: u64,
    /// The server that a client dials.
    server: Option<Server>,
    /// Of a server's connection: the state in the ticket that was accepted last.
    resumed: Option<SessionState>,
    /// Of a server's connection: the protocol that the listener chose.
    alpn: Vec<u8>,
}

impl Session {
    pub(crate) fn new(scope: &Arc<Scope>) -> Self {
        let (scope, epoch) = (scope.clone(), scope.resumption.epoch());
        Self { scope, epoch, server: None, resumed: None, alpn: Vec::new() }
    }

    pub(crate) fn set_alpn(&mut self, alpn: &[u8]) {
        self.alpn = alpn.to_vec();
    }

    /// For a client: takes the ticket for the server that it dials.
    pub(crate) fn dial(&mut self, server: Server) -> Option<Zeroizing<Vec<u8>>> {
        let ticket = self.scope.resumption.take(self.scope.id, &server);
        self.server = Some(server);
        ticket
    }

    /// For a client: keeps a ticket of the server.
    pub(crate) fn keep(&self, received: &[u8]) {
        let (Some(server), Some(ticket)) = (&self.server, without_limits(received)) else {
            return;
        };
        let kept = Kept { scope: self.scope.id, server: server.clone(), ticket };
        self.scope.resumption.keep(self.epoch, kept);
    }

    /// For a server: returns whether a ticket with this state is accepted.
    pub(crate) fn accepts(&mut self, state: &[u8]) -> bool {
        let epoch = self.scope.resumption.epoch();
        self.resumed = SessionState::decode(state)
            .filter(|state| state.epoch == epoch && state.alpn == self.alpn && state.is_young());
        self.resumed.is_some()
    }

    /// For a server: returns the state for the ticket that it issues once the handshake is
    /// complete.
    pub(crate) fn issue(&self, is_resumed: bool, alpn: &[u8]) -> Option<Vec<u8>> {
        if self.server.is_some() {
            return None;
        }
        let resumed = self.resumed.as_ref().filter(|_| is_resumed);
        let proven = resumed.map_or_else(state::now, |resumed| Some(resumed.proven))?;
        Some(SessionState { epoch: self.epoch, proven, alpn: alpn.to_vec() }.encode())
    }
}

/// Returns the first required patch that the libmsquic of this program lacks.
pub(crate) fn missing_patch() -> Option<&'static str> {
    REQUIRED_PATCHES.into_iter().find(|fault| !has_patch(fault))
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) // only unique: it publishes nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(number: u16) -> Server {
        Server { name: c"name".to_owned(), addr: SocketAddr::from(([127, 0, 0, 1], number)) }
    }

    fn received(length: usize) -> Vec<u8> {
        ticket::tests::encode(&[0x04, 0x01, 0x05], &vec![7; length])
    }

    /// A connection to `server`, and the ticket with which it was dialled.
    fn dial(scope: &Arc<Scope>, server: Server) -> (Session, bool) {
        let mut session = Session::new(scope);
        let has_ticket = session.dial(server).is_some();
        (session, has_ticket)
    }

    #[test]
    fn a_ticket_is_for_one_configuration_and_server_and_used_once() {
        let resumption = Resumption::new();
        let (one, other) = (Scope::new(resumption.clone()), Scope::new(resumption.clone()));
        let (session, has_ticket) = dial(&one, server(1));
        assert!(!has_ticket);
        session.keep(&received(100));
        assert_eq!(resumption.kept(), 1);
        assert!(!dial(&other, server(1)).1, "another configuration");
        assert!(!dial(&one, server(2)).1, "another address");
        assert!(!dial(&one, Server { name: c"other".to_owned(), ..server(1) }).1, "another name");
        assert!(dial(&one, server(1)).1);
        assert!(!dial(&one, server(1)).1, "used");
        session.keep(&received(100));
        drop((one, session));
        assert_eq!(resumption.kept(), 0, "the configuration is gone");
    }

    #[test]
    fn tickets_are_bounded_for_each_server_in_number_and_in_bytes() {
        let resumption = Resumption::new();
        let scope = Scope::new(resumption.clone());
        let fill = |number, count, length| {
            let (session, _) = dial(&scope, server(number));
            (0..count).for_each(|_| session.keep(&received(length)));
        };
        fill(1, 1000, 100);
        assert_eq!(resumption.kept(), MAX_PER_SERVER);
        (2..1000).for_each(|number| fill(number, 1, 100));
        assert_eq!(resumption.kept(), MAX_TICKETS);
        assert!(!dial(&scope, server(1)).1, "the oldest was replaced");
        (1000..1200).for_each(|number| fill(number, 1, 60_000));
        let shared = resumption.shared.lock();
        assert_eq!(shared.kept.len(), MAX_BYTES / 60_013);
        assert_eq!(shared.bytes, shared.kept.iter().map(|it| it.ticket.len()).sum::<usize>());
    }

    #[test]
    fn forgotten_tickets_are_not_accepted_and_not_kept() {
        let resumption = Resumption::new();
        let scope = Scope::new(resumption.clone());
        let (client, _) = dial(&scope, server(1));
        let mut peer = Session::new(&scope);
        peer.set_alpn(b"one");
        let state = peer.issue(false, b"one").unwrap();
        assert!(peer.accepts(&state));
        resumption.forget();
        client.keep(&received(100));
        assert_eq!(resumption.kept(), 0);
        assert!(!peer.accepts(&state));
        // A handshake that began before issues tickets that are not accepted.
        let late = peer.issue(false, b"one").unwrap();
        assert!(!peer.accepts(&late));
        let mut next = Session::new(&scope);
        next.set_alpn(b"one");
        assert!(next.accepts(&next.issue(false, b"one").unwrap()));
        assert!(!next.accepts(&next.issue(false, b"two").unwrap()), "another protocol");
    }

    #[test]
    fn resuming_does_not_prolong_the_proof() {
        let scope = Scope::new(Resumption::new());
        let mut peer = Session::new(&scope);
        peer.set_alpn(b"one");
        let proven = state::now().unwrap() - 1000;
        let old = SessionState { epoch: peer.epoch, proven, alpn: b"one".to_vec() };
        assert!(peer.accepts(&old.encode()));
        let next = SessionState::decode(&peer.issue(true, b"one").unwrap()).unwrap();
        assert_eq!(next.proven, old.proven);
        let full = SessionState::decode(&peer.issue(false, b"one").unwrap()).unwrap();
        assert!(full.proven >= old.proven + 1000);
    }

    #[test]
    fn a_client_issues_nothing_and_debug_shows_no_ticket() {
        let resumption = Resumption::new();
        let (session, _) = dial(&Scope::new(resumption.clone()), server(1));
        assert_eq!(session.issue(false, b"one"), None);
        session.keep(&received(100));
        assert_eq!(format!("{resumption:?}"), "Resumption { kept: 1, .. }");
    }
}
