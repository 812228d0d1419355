//! `Journal`: what happened to each message and each rumor, and whether it may happen.
//!
//! A message must be received once or reported once, with the content that was sent. It may be both
//! only if the report says so. The receiver must see an identity of the node that has sent it, and
//! one that it has not revoked.
//! Each must have happened within a time: a message of which neither is known later was lost, or
//! a node that has to do something was not woken.

use anyhow::{Result, ensure};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Records the messages of all nodes.
pub(crate) struct Journal {
    began: Instant,
    /// After this time a message has been received or reported.
    settled: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The number of the first message in `recent`.
    first: u64,
    /// The messages that were sent at most `settled` ago.
    recent: VecDeque<Message>,
    /// The bytes of each node's messages that are neither received nor reported.
    held: Vec<u64>,
    /// The nodes that know each rumor, one bit for each.
    rumors: Vec<Vec<u64>>,
    counts: Counts,
    digest: Digest,
    /// The first violation.
    violation: Option<String>,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many messages were queued in pools.
    pub sent: u64,
    /// How many messages pools did not queue.
    pub refused: u64,
    /// How many messages were received.
    pub received: u64,
    /// How many messages were reported as undelivered.
    pub reported: u64,
    /// How many of these were received too.
    pub both: u64,
    /// How many messages with stolen keys were received, by nodes that did not know it yet.
    pub forged: u64,
    /// How many rumors were published.
    pub rumors: u64,
    /// The longest time until a message was received or reported.
    pub longest: Duration,
    /// The most bytes of one node that were neither received nor reported at a moment.
    pub most_held: u64,
}

/// A message that a node has received or got back, as it has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// Its number, as the message says.
    pub(crate) number: u64,
    /// A hash of its content.
    pub(crate) content: u64,
}

/// The other node of a message, as a node knows it by the identity of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) node: u32,
    /// Whether the node has revoked that identity before.
    pub(crate) is_revoked: bool,
}

/// The number of messages that are not sent by a node, but with its stolen key.
pub(crate) const FORGED: u64 = u64::MAX;

#[derive(Clone, Copy)]
struct Message {
    at: Duration,
    from: u32,
    to: Peer,
    bytes: u32,
    content: u64,
    is_received: bool,
    /// Whether it was reported, and whether the report said that it may have arrived.
    report: Option<bool>,
}

/// The kinds of records in the digest.
#[derive(Clone, Copy)]
enum Kind {
    Sent,
    Refused,
    Received,
    Reported,
    Learned,
}

impl Journal {
    pub(crate) fn new(settled: Duration) -> Self {
        Self { began: Instant::now(), settled, state: Mutex::default() }
    }

    /// Returns the time since the begin.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a node passes a message of so many bytes to its pool, with a hash of its
    /// content, and returns the number of the message.
    pub(crate) fn sent(&self, from: u32, to: Peer, bytes: usize, content: u64) -> u64 {
        let (at, state) = (self.now(), &mut *self.state());
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let message = Message { at, from, to, bytes, content, is_received: false, report: None };
        state.recent.push_back(message);
        state.counts.sent += 1;
        let node = from as usize;
        if state.held.len() <= node {
            state.held.resize(node + 1, 0);
        }
        state.held[node] += u64::from(bytes);
        state.counts.most_held = state.counts.most_held.max(state.held[node]);
        let number = state.first + state.recent.len() as u64 - 1;
        state.digest.add(at, Kind::Sent, u64::from(from), number);
        number
    }

    /// Records that the pool did not queue a message.
    pub(crate) fn refused(&self, number: u64) {
        let (at, state) = (self.now(), &mut *self.state());
        state.digest.add(at, Kind::Refused, 0, number);
        let Some(message) = state.message(number) else {
            return state.violates(format!("message {number} is refused, but was never sent"));
        };
        let before = message.report.replace(false);
        let message = *message;
        if before.is_some() || message.is_received {
            return state.violates(format!("message {number} is refused, but {message}"));
        }
        state.counts.sent -= 1;
        state.counts.refused += 1;
        state.settle(message, at);
    }

    /// Records that a node received a message from `from`. `None` if no node has had the identity of
    /// the connection.
    pub(crate) fn received(&self, node: u32, from: Option<Peer>, arrived: Arrived) {
        let (at, state) = (self.now(), &mut *self.state());
        let Arrived { number, content } = arrived;
        state.digest.add(at, Kind::Received, u64::from(node), number);
        if let Some(Peer { node: of, is_revoked: true }) = from {
            state.violates(format!(
                "node {node} received message {number} with a revoked key of node {of}"
            ));
        }
        if number == FORGED {
            state.counts.forged += 1;
            return;
        }
        state.counts.received += 1;
        let Some(message) = state.message(number) else {
            return state.violates(format!(
                "node {node} received message {number}, which is settled or unknown"
            ));
        };
        let before = *message;
        message.is_received = true;
        if before.is_received {
            return state.violates(format!("message {number} is received again, {before}"));
        }
        if before.to.node != node || before.to.is_revoked {
            state.violates(format!("node {node} received message {number}, {before}"));
        }
        if from.map(|it| it.node) != Some(before.from) {
            let from = from.map_or("no node".to_owned(), |it| format!("node {}", it.node));
            state.violates(format!(
                "message {number} is received with an identity of {from}, {before}"
            ));
        }
        if content != before.content {
            state.violates(format!("the content of message {number} has changed, {before}"));
        }
        match before.report {
            None => state.settle(before, at),
            Some(true) => state.counts.both += 1,
            Some(false) => state.violates(format!("message {number} is received, {before}")),
        }
    }

    /// Records that a node received or got back bytes that are no message.
    pub(crate) fn malformed(&self, node: u32) {
        self.state().violates(format!("node {node} got bytes that are no message"));
    }

    /// Records that a node got the report of a message that is not delivered.
    pub(crate) fn reported(&self, node: u32, arrived: Arrived, may_have_arrived: bool) {
        let (at, state) = (self.now(), &mut *self.state());
        let Arrived { number, content } = arrived;
        state.counts.reported += 1;
        state.digest.add(at, Kind::Reported, u64::from(node), number);
        let Some(message) = state.message(number) else {
            return state.violates(format!(
                "node {node} got a report of message {number}, which is settled or unknown"
            ));
        };
        let before = *message;
        message.report = Some(may_have_arrived);
        if before.report.is_some() || before.from != node {
            return state
                .violates(format!("message {number} is reported to node {node}, {before}"));
        }
        if content != before.content {
            state.violates(format!("the content of message {number} has changed, {before}"));
        }
        match before.is_received {
            false => state.settle(before, at),
            true if may_have_arrived => state.counts.both += 1,
            true => {
                state.violates(format!("message {number} is reported as not arrived, {before}"));
            }
        }
    }

    /// Records a new rumor and returns its number.
    pub(crate) fn published(&self) -> u32 {
        let state = &mut *self.state();
        state.counts.rumors += 1;
        state.rumors.push(Vec::new());
        u32::try_from(state.rumors.len() - 1).unwrap_or(u32::MAX)
    }

    /// Records that a node knows a rumor.
    pub(crate) fn learned(&self, node: u32, rumor: u32) {
        let (at, state) = (self.now(), &mut *self.state());
        state.digest.add(at, Kind::Learned, u64::from(node), u64::from(rumor));
        let Some(known_by) = state.rumors.get_mut(rumor as usize) else {
            return state
                .violates(format!("node {node} knows rumor {rumor}, which no node has published"));
        };
        let (word, bit) = (node as usize / 64, node % 64);
        if known_by.len() <= word {
            known_by.resize(word + 1, 0);
        }
        known_by[word] |= 1 << bit;
    }

    /// Returns whether a node knows a rumor.
    pub(crate) fn is_known_by(&self, rumor: u32, node: u32) -> bool {
        let state = self.state();
        let word = state.rumors[rumor as usize].get(node as usize / 64);
        word.is_some_and(|word| word & 1 << (node % 64) != 0)
    }

    /// Checks what has happened so far. Forgets messages that are settled.
    ///
    /// # Errors
    ///
    /// The first violation.
    pub(crate) fn check(&self) -> Result<()> {
        let (now, state) = (self.now(), &mut *self.state());
        while let Some(oldest) = state.recent.front().copied() {
            if now.saturating_sub(oldest.at) <= self.settled {
                break;
            }
            let number = state.first;
            if !oldest.is_settled() {
                let after = self.settled.as_secs();
                state.violates(format!("message {number} is lost or a node was not woken: after {after} s it is {oldest}"));
                break;
            }
            state.recent.pop_front();
            state.first += 1;
        }
        ensure!(state.violation.is_none(), state.violation.take().unwrap_or_default());
        Ok(())
    }

    /// Returns how many messages are neither received nor reported.
    pub(crate) fn open(&self) -> usize {
        self.state().recent.iter().filter(|message| !message.is_settled()).count()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Returns a digest of all records and their times.
    pub(crate) fn digest(&self) -> u64 {
        self.state().digest.0
    }
}

impl State {
    /// Returns a message unless it has been forgotten.
    fn message(&mut self, number: u64) -> Option<&mut Message> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.recent.get_mut(index)
    }

    /// Records that a message was received or reported for the first time.
    fn settle(&mut self, message: Message, now: Duration) {
        if let Some(held) = self.held.get_mut(message.from as usize) {
            *held -= u64::from(message.bytes);
        }
        self.counts.longest = self.counts.longest.max(now.saturating_sub(message.at));
    }

    fn violates(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}

impl Message {
    fn is_settled(&self) -> bool {
        self.is_received || self.report.is_some()
    }
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, from, to, bytes, content: _, is_received, report } = self;
        let Peer { node, is_revoked } = to;
        let to = if *is_revoked { "a revoked key of node" } else { "node" };
        write!(f, "sent by node {from} to {to} {node} at {at:?} with {bytes} bytes, ")?;
        f.write_str(if *is_received { "received, " } else { "not received, " })?;
        f.write_str(match report {
            None => "not reported",
            Some(true) => "reported as possibly arrived",
            Some(false) => "reported as not arrived",
        })
    }
}

/// A hash of a sequence of records (FNV-1a over words).
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn add(&mut self, at: Duration, kind: Kind, one: u64, other: u64) {
        let nanoseconds = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        for word in [nanoseconds, kind as u64, one, other] {
            self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLED: Duration = Duration::from_secs(60);
    const CONTENT: u64 = 5;
    const TO: Peer = Peer { node: 2, is_revoked: false };

    #[expect(clippy::unnecessary_wraps, reason = "as the journal gets it")]
    fn peer(node: u32) -> Option<Peer> {
        Some(Peer { node, is_revoked: false })
    }

    fn arrived(number: u64) -> Arrived {
        Arrived { number, content: CONTENT }
    }

    /// Returns the violation after `steps`, with message 0 from node 1 to node 2.
    async fn violation(steps: impl FnOnce(&Journal)) -> Option<String> {
        let journal = Journal::new(SETTLED);
        assert_eq!(journal.sent(1, TO, 100, CONTENT), 0);
        steps(&journal);
        journal.check().err().map(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_received_or_reported_or_possibly_both() {
        assert_eq!(violation(|it| it.received(2, peer(1), arrived(0))).await, None);
        assert_eq!(violation(|it| it.reported(1, arrived(0), false)).await, None);
        assert_eq!(violation(|it| it.refused(0)).await, None);
        let both = |it: &Journal| {
            it.received(2, peer(1), arrived(0));
            it.reported(1, arrived(0), true);
            assert_eq!((it.counts().both, it.open()), (1, 0));
        };
        assert_eq!(violation(both).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn violations_are_named() {
        let twice = |it: &Journal| (0..2).for_each(|_| it.received(2, peer(1), arrived(0)));
        assert!(violation(twice).await.unwrap().contains("received again"));
        let twice = |it: &Journal| (0..2).for_each(|_| it.reported(1, arrived(0), true));
        assert!(violation(twice).await.unwrap().contains("reported to node 1"));
        let denied = |it: &Journal| {
            it.reported(1, arrived(0), false);
            it.received(2, peer(1), arrived(0));
        };
        assert!(violation(denied).await.unwrap().contains("reported as not arrived"));
        assert!(
            violation(|it| it.received(3, peer(1), arrived(0)))
                .await
                .unwrap()
                .contains("node 3 received")
        );
        assert!(
            violation(|it| it.received(2, peer(1), arrived(1))).await.unwrap().contains("unknown")
        );
        assert!(
            violation(|it| it.reported(2, arrived(0), true)).await.unwrap().contains("to node 2")
        );
        let forged = |from| move |it: &Journal| it.received(2, from, arrived(0));
        assert!(violation(forged(peer(3))).await.unwrap().contains("an identity of node 3"));
        assert!(violation(forged(None)).await.unwrap().contains("an identity of no node"));
        let altered = || Arrived { number: 0, content: CONTENT + 1 };
        let changed = violation(|it| it.received(2, peer(1), altered())).await.unwrap();
        assert!(changed.contains("has changed"), "{changed}");
        let changed = violation(|it| it.reported(1, altered(), false)).await.unwrap();
        assert!(changed.contains("has changed"), "{changed}");
        let revoked = || Some(Peer { node: 1, is_revoked: true });
        let late = violation(|it| it.received(2, revoked(), arrived(0))).await.unwrap();
        assert!(late.contains("with a revoked key of node 1"), "{late}");
        let late = violation(|it| it.received(2, revoked(), arrived(FORGED))).await.unwrap();
        assert!(late.contains("with a revoked key of node 1"), "{late}");
        assert_eq!(violation(|it| it.received(2, peer(1), arrived(FORGED))).await, None);
        let to_thief = |it: &Journal| {
            it.sent(1, Peer { node: 2, is_revoked: true }, 100, CONTENT);
            it.received(2, peer(1), arrived(1));
        };
        let late = violation(to_thief).await.unwrap();
        assert!(late.contains("to a revoked key of node 2"), "{late}");
        assert!(violation(|it| it.malformed(2)).await.unwrap().contains("no message"));
        assert!(violation(|it| it.learned(1, 0)).await.unwrap().contains("rumor 0"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_must_be_settled_in_time() {
        let journal = Journal::new(SETTLED);
        journal.sent(1, TO, 100, CONTENT);
        tokio::time::sleep(SETTLED).await;
        assert!(journal.check().is_ok());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let error = journal.check().unwrap_err().to_string();
        assert!(error.starts_with("message 0 is lost or a node was not woken"), "{error}");
    }
}
