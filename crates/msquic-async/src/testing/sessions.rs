//! The sessions that are resumed: which tickets are kept, used and accepted.

use super::handles::number;
use crate::ffi::scripted::{self, ConnectionStep, tickets};
use crate::{Configuration, Connection, ConnectionStartError, Resumption};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

pub(super) struct Sessions {
    resumption: Resumption,
    /// How often all were forgotten. Each time a new epoch begins.
    epoch: Cell<usize>,
    /// The epochs in which handshakes began, by connection.
    begun: RefCell<BTreeMap<usize, usize>>,
    /// The ports that clients have dialled.
    dialled: RefCell<BTreeMap<usize, u16>>,
    /// The ports and the tickets for them, the oldest first.
    kept: RefCell<Vec<(u16, Vec<u8>)>>,
    /// The tickets with which connections start.
    used: RefCell<BTreeMap<usize, Vec<u8>>>,
    /// The ages of the proofs of servers' connections that were resumed, in seconds.
    ages: RefCell<BTreeMap<usize, u64>>,
    received: Cell<u8>,
}

/// How many tickets are kept for a server.
const MAX_KEPT: usize = 4;

/// How long a proof is valid, in seconds.
const LIFETIME: u64 = 7200;

impl Sessions {
    pub(super) fn new(resumption: Resumption) -> Self {
        resumption.forget();
        Self {
            resumption,
            epoch: Cell::default(),
            begun: RefCell::default(),
            dialled: RefCell::default(),
            kept: RefCell::default(),
            used: RefCell::default(),
            ages: RefCell::default(),
            received: Cell::default(),
        }
    }

    /// Starts a connection, with the newest ticket for the port, which is used once.
    pub(super) async fn start(&self, connection: &Connection, with: &Configuration, port: u16) {
        let number = number(connection);
        let mut start = connection.start(with, "127.0.0.1", port);
        // It begins in the first poll, or never.
        let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut start).poll(cx))).await;
        use ConnectionStartError as Error;
        let has_begun =
            !matches!(first, Poll::Ready(Err(Error::AlreadyStarted | Error::ConnectionLost(_))));
        if let Some(number) = number.filter(|_| has_begun) {
            self.begin(number);
            self.dialled.borrow_mut().insert(number, port);
            let kept = &mut *self.kept.borrow_mut();
            if let Some(newest) = kept.iter().rposition(|(of, _)| *of == port) {
                self.used.borrow_mut().insert(number, kept.remove(newest).1);
            }
        }
        self.check_kept();
        if first.is_pending() {
            let _ = start.await;
        }
    }

    /// The handshake of a connection begins.
    pub(super) fn begin(&self, number: usize) {
        self.begun.borrow_mut().insert(number, self.epoch.get());
    }

    pub(super) fn forget(&self) {
        self.epoch.set(self.epoch.get() + 1);
        self.kept.borrow_mut().clear();
        self.resumption.forget();
        self.check_kept();
    }

    /// A client gets a ticket, or what is none.
    pub(super) fn receive(&self, id: usize, is_whole: bool) {
        self.received.set(self.received.get().wrapping_add(1));
        let (mut received, used) = tickets::encode(self.received.get());
        if !is_whole {
            received.pop();
        }
        let Some(port) = self.dialled.borrow().get(&id).copied() else { return };
        if scripted::connection(id, ConnectionStep::Ticket(received))
            && is_whole
            && self.begun.borrow().get(&id) == Some(&self.epoch.get())
        {
            let kept = &mut *self.kept.borrow_mut();
            kept.push((port, used));
            let same: Vec<_> = (0..kept.len()).filter(|at| kept[*at].0 == port).collect();
            if same.len() > MAX_KEPT {
                kept.remove(same[0]);
            }
        }
        self.check_kept();
    }

    /// A client sends a ticket, which is accepted if this side has issued it in this epoch and it is young.
    pub(super) fn resume(&self, id: usize, which: u8, change: u8) {
        let issued = scripted::issued();
        let (issuer, mut state) = match issued.len() {
            0 => (0, vec![change; which.into()]),
            count => issued[usize::from(which) % count].clone(),
        };
        let ages = &mut *self.ages.borrow_mut();
        let mut age = ages.get(&issuer).copied().unwrap_or(0);
        let is_of_epoch = self.begun.borrow().get(&issuer) == Some(&self.epoch.get());
        let mut is_whole = !issued.is_empty();
        match change % 8 {
            1 | 2 if is_whole => {
                let older = if change % 8 == 1 { 1000 } else { LIFETIME };
                age += older;
                let proven = &mut state[tickets::PROVEN];
                let before = u64::from_be_bytes(proven.try_into().expect("eight bytes"));
                proven.copy_from_slice(&(before - older).to_be_bytes());
            }
            3 => {
                state.push(b'2'); // another protocol
                is_whole = false;
            }
            4 => {
                state.truncate(8);
                is_whole = false;
            }
            _ => {}
        }
        let is_used = change & 8 == 0;
        if let Some(is_accepted) = scripted::resume(id, &state, is_used) {
            let is_young = age < LIFETIME;
            assert_eq!(is_accepted, is_whole && is_young && is_of_epoch, "a ticket of {age} s");
            ages.insert(id, if is_accepted && is_used { age } else { 0 });
        }
    }

    fn check_kept(&self) {
        assert_eq!(self.resumption.kept(), self.kept.borrow().len(), "other tickets are kept");
    }

    /// Connections have started with the tickets that were taken for them.
    pub(super) fn check(&self) {
        let used = self.used.borrow();
        for (id, ticket) in scripted::started() {
            assert_eq!(ticket, used.get(&id).cloned(), "another ticket");
        }
    }
}
