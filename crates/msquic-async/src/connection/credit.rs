//! `StreamCredit`: how many more streams of one type the peer allows, given to openers in order of arrival.
//!
//! msquic reports in STREAMS_AVAILABLE how many streams it would start, and the outcome of each start on the same
//! thread (contract C35). So its count, less the starts that it has not answered yet, is the number of
//! streams that may be started now. Each opener has a [`Ticket`]:
//!
//! ```text
//! waiting ─credit─▶ given ─native start─┬─▶ started    the credit is spent
//!    ▲                                  ├─▶ failed     the credit goes to the next
//!    └──────────────────────────────────┴── blocked    msquic's limit was reached all the same
//! ```
//!
//! *Blocked* happens when the application opens streams with the raw handle, and when there were more streams
//! than msquic can report. The ticket then waits again, in its old place, and there is no credit until msquic
//! reports some. A ticket that is dropped leaves the queue, or gives its credit to the next.
//!
//! A stream that is dropped while msquic starts it returns its ticket with START_COMPLETE. That comes as soon as msquic
//! processes the start, whatever the peer does, because starts fail where they would wait (contract C24, C35).
//!
//! No STREAMS_BLOCKED is sent to the peer while openers wait here. RFC 9000, section 4.6, recommends the frame, for
//! debugging; a peer must not wait for it before it gives credit. msquic sends it for starts above the limit only
//! (contract C35), so it would cost a native stream that fails, for each new limit. Blocked starts do send it.
//!
//! Each function is one step under the lock, and wakes after unlocking.

// The mutex of `parking_lot`, or of a model checker: `tests/models` includes this file too.
use crate::lock::Mutex;
use crate::waker_check::registered;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
pub(crate) struct StreamCredit(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// How many streams msquic would start now.
    available: u64,
    /// The peer has allowed a stream.
    was_available: bool,
    /// There may be more streams than `available`, which no event reports.
    is_capped: bool,
    /// Tickets that hold credit.
    given: u64,
    /// Tickets without credit by number, with the wakers of those that were polled.
    waiting: BTreeMap<u64, Option<Waker>>,
    tickets: u64,
    /// The connection has ended: no opener waits any more.
    is_closed: bool,
}

/// A place in the queue, or the credit for one stream.
#[derive(Debug)]
pub(crate) struct Ticket {
    credit: Arc<StreamCredit>,
    number: u64,
    is_spent: bool,
}

/// The largest count that msquic can report (`core/stream_set.c`, QuicStreamSetGetCountAvailable).
const MAX_COUNT: u16 = u16::MAX;

impl StreamCredit {
    /// Returns credit if there is some and no opener waits for it.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Ticket> {
        let mut queue = self.0.lock();
        let has_credit = queue.is_closed || queue.given < queue.available;
        has_credit.then(|| queue.ticket(self))
    }

    /// Returns a ticket with credit, or one at the end of the queue.
    pub(crate) fn join(self: &Arc<Self>) -> Ticket {
        self.0.lock().ticket(self)
    }

    /// Records how many streams msquic would start now.
    pub(crate) fn set_available(&self, count: u16) {
        self.change(|queue| {
            queue.available = count.into();
            queue.was_available |= count > 0;
            queue.is_capped = count == MAX_COUNT;
        });
    }

    /// Whether the peer has allowed a stream since the handshake.
    pub(crate) fn was_available(&self) -> bool {
        self.0.lock().was_available
    }

    /// Ends waiting, since the connection has ended: wakes all openers with credit, whose starts
    /// then fail.
    pub(super) fn close(&self) {
        let waiting = {
            let mut queue = self.0.lock();
            queue.is_closed = true;
            std::mem::take(&mut queue.waiting)
        };
        waiting.into_values().flatten().for_each(Waker::wake);
    }

    /// Whether no ticket waits or holds credit.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn is_settled(&self) -> bool {
        let queue = self.0.lock();
        queue.given == 0 && queue.waiting.is_empty()
    }

    /// Changes the queue, and then gives the available credit to the tickets that wait longest.
    fn change(&self, change: impl FnOnce(&mut Queue)) {
        let mut woken = Vec::new();
        {
            let mut queue = self.0.lock();
            change(&mut queue);
            while queue.given < queue.available
                && let Some((_, waker)) = queue.waiting.pop_first()
            {
                queue.given += 1;
                woken.extend(waker);
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Queue {
    fn ticket(&mut self, credit: &Arc<StreamCredit>) -> Ticket {
        let number = self.tickets;
        self.tickets += 1;
        if self.given < self.available {
            self.given += 1;
        } else if !self.is_closed {
            self.waiting.insert(number, None);
        }
        Ticket { credit: credit.clone(), number, is_spent: false }
    }
}

impl Ticket {
    /// Ready when the ticket has credit; also when the connection has ended.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let before = match self.credit.0.lock().waiting.get_mut(&self.number) {
            Some(place) => place.replace(waker),
            None => return Poll::Ready(()),
        };
        drop(before); // foreign code, after unlocking
        registered();
        Poll::Pending
    }

    /// msquic has started the stream.
    pub(crate) fn spend(mut self) {
        self.is_spent = true;
        self.leave(|queue| {
            if !queue.is_capped {
                queue.available = queue.available.saturating_sub(1);
            }
        });
    }

    /// Puts the ticket back into its place in the queue: msquic has not started the stream, since the limit is
    /// reached.
    pub(crate) fn wait_again(&self) {
        let mut queue = self.credit.0.lock();
        queue.given = queue.given.saturating_sub(1);
        queue.available = 0;
        queue.is_capped = false;
        if !queue.is_closed {
            queue.waiting.insert(self.number, None);
        }
    }

    fn leave(&self, change: impl FnOnce(&mut Queue)) {
        let mut place = None;
        self.credit.change(|queue| {
            place = queue.waiting.remove(&self.number);
            if place.is_none() {
                queue.given = queue.given.saturating_sub(1);
            }
            change(queue);
        });
        drop(place); // foreign code, after unlocking
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_spent {
            self.leave(|_| ());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::{ArcWake, noop_waker, waker};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl ArcWake for Wakes {
        fn wake_by_ref(wakes: &Arc<Self>) {
            wakes.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn has_credit(ticket: &Ticket) -> bool {
        ticket.poll(&Context::from_waker(&noop_waker())).is_ready()
    }

    #[test]
    fn each_of_many_is_woken_once_and_in_order() {
        let credit = Arc::new(StreamCredit::default());
        let wakes = Arc::new(Wakes::default());
        let waker = waker(wakes.clone());
        let cx = Context::from_waker(&waker);
        let tickets: Vec<_> = (0..4000).map(|_| credit.join()).collect();
        assert!(tickets.iter().all(|ticket| ticket.poll(&cx).is_pending()));
        credit.set_available(10);
        let mut given = 10;
        for (started, ticket) in tickets.into_iter().enumerate() {
            assert_eq!(wakes.0.load(Ordering::SeqCst), given);
            assert!(has_credit(&ticket), "ticket {started} is the next");
            ticket.spend();
            // The peer replaces each stream, and msquic counts those that were not started yet.
            credit.set_available(10);
            given = 4000.min(given + 1);
        }
        assert_eq!(wakes.0.load(Ordering::SeqCst), 4000);
    }

    #[test]
    fn a_later_opener_does_not_overtake() {
        let credit = Arc::new(StreamCredit::default());
        let first = credit.join();
        assert!(credit.take().is_none());
        credit.set_available(1);
        assert!(credit.take().is_none(), "the credit is the first one's");
        let second = credit.join();
        assert!(has_credit(&first) && !has_credit(&second));
        drop(first);
        assert!(has_credit(&second), "passed on");
        second.spend();
        assert!(credit.take().is_none());
    }

    #[test]
    fn a_blocked_ticket_keeps_its_place() {
        let credit = Arc::new(StreamCredit::default());
        credit.set_available(2);
        let (first, second, third) = (credit.join(), credit.join(), credit.join());
        second.wait_again();
        first.wait_again();
        assert!(![&first, &second, &third].into_iter().any(has_credit));
        credit.set_available(1);
        assert!(has_credit(&first) && !has_credit(&second) && !has_credit(&third));
        credit.set_available(2);
        assert!(has_credit(&second) && !has_credit(&third));
    }

    #[test]
    fn a_capped_count_is_tried_until_it_is_used_up() {
        let credit = Arc::new(StreamCredit::default());
        credit.set_available(MAX_COUNT);
        for _ in 0..100_000 {
            credit.take().unwrap().spend();
        }
        let last = credit.take().unwrap();
        last.wait_again();
        assert!(credit.take().is_none());
        credit.set_available(1);
        assert!(has_credit(&last));
    }

    #[test]
    fn the_end_wakes_all_openers_and_none_waits_afterwards() {
        let credit = Arc::new(StreamCredit::default());
        let wakes = Arc::new(Wakes::default());
        let waker = waker(wakes.clone());
        let tickets: Vec<_> = (0..3).map(|_| credit.join()).collect();
        let cx = Context::from_waker(&waker);
        assert!(tickets.iter().all(|ticket| ticket.poll(&cx).is_pending()));
        credit.close();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 3);
        assert!(tickets.iter().all(has_credit) && has_credit(&credit.join()));
        tickets.into_iter().for_each(Ticket::spend);
        credit.take().unwrap().wait_again();
        assert!(has_credit(&credit.take().unwrap()));
    }

    /// What an opener does with its ticket.
    enum Opener {
        Waits(Ticket),
        /// msquic has its start in a queue.
        Starting(Ticket),
    }

    /// msquic, the peer, openers, and others that open streams with the raw handle.
    #[derive(Default)]
    struct World {
        credit: Arc<StreamCredit>,
        /// What the peer allows, and what was started.
        allowed: u64,
        total: u64,
        openers: Vec<Opener>,
        /// Numbers of the tickets in the order in which they were started.
        started: Vec<u64>,
    }

    impl World {
        const STEPS: usize = 7;

        fn step(&mut self, step: usize, choice: usize) {
            let chosen = (!self.openers.is_empty()).then(|| choice % self.openers.len().max(1));
            match (step, chosen) {
                (0, _) => self.openers.push(Opener::Waits(self.credit.join())),
                (1, Some(chosen)) => drop(self.openers.remove(chosen)),
                (2, Some(chosen)) => self.poll(chosen),
                (3, _) => self.answer(),
                (4, _) => {
                    self.allowed += 1 + (choice % 2) as u64;
                    let available = self.allowed.saturating_sub(self.total);
                    self.credit.set_available(available.try_into().unwrap());
                }
                (5, _) if self.total < self.allowed => self.total += 1, // with the raw handle
                (6, _) => {
                    if let Some(ticket) = self.credit.take() {
                        self.openers.push(Opener::Starting(ticket));
                    }
                }
                _ => {}
            }
        }

        fn poll(&mut self, index: usize) {
            if matches!(&self.openers[index], Opener::Waits(ticket) if has_credit(ticket))
                && let Opener::Waits(ticket) = self.openers.remove(index)
            {
                self.openers.push(Opener::Starting(ticket));
            }
        }

        /// msquic takes the next start out of its queue.
        fn answer(&mut self) {
            let is_start = |opener: &Opener| matches!(opener, Opener::Starting(_));
            let Some(index) = self.openers.iter().position(is_start) else { return };
            let Opener::Starting(ticket) = self.openers.remove(index) else { unreachable!() };
            if self.total < self.allowed {
                self.total += 1;
                self.started.push(ticket.number);
                ticket.spend();
            } else {
                ticket.wait_again();
                self.openers.push(Opener::Waits(ticket));
            }
        }

        fn check(&self) {
            let queue = self.credit.0.lock();
            let waiting = queue.waiting.len();
            assert_eq!(
                queue.given as usize + waiting,
                self.openers.len(),
                "each opener has one ticket"
            );
            assert!(waiting == 0 || queue.given >= queue.available, "credit is unused");
        }

        /// All openers continue until nothing changes; then none waits for credit that is
        /// available.
        fn settle(&mut self) {
            loop {
                let before = (self.total, self.openers.len());
                let blocked = self.credit.0.lock().waiting.len();
                (0..self.openers.len()).rev().for_each(|index| self.poll(index));
                self.answer();
                self.check();
                if before == (self.total, self.openers.len())
                    && blocked == self.credit.0.lock().waiting.len()
                {
                    break;
                }
            }
            let waiting = self.credit.0.lock().waiting.len();
            assert_eq!(waiting, self.openers.len(), "all starts were answered");
            assert!(waiting == 0 || self.total >= self.allowed, "an opener is stuck");
        }
    }

    #[test]
    fn no_short_order_of_steps_leaves_an_opener_stuck() {
        for mut number in 0..World::STEPS.pow(7) {
            let mut world = World::default();
            for choice in 0..7 {
                world.step(number % World::STEPS, choice);
                number /= World::STEPS;
                world.check();
            }
            world.settle();
        }
    }

    #[test]
    fn no_long_random_order_leaves_an_opener_stuck() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let mut world = World::default();
            for _ in 0..300 {
                world.step(random.usize(..World::STEPS), random.usize(..100));
                world.check();
            }
            world.settle();
            while !world.openers.is_empty() {
                let oldest = world.credit.0.lock().waiting.keys().next().copied();
                world.allowed = world.total + 1;
                world.credit.set_available(1);
                world.settle();
                assert_eq!(world.started.last().copied(), oldest, "in order of arrival");
            }
        }
    }
}
