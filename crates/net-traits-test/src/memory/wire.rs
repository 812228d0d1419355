//! `Wire`: one connection, consisting of two pipes and each side's view of its end.

use super::datagrams::Datagrams;
use super::pipe::{Pipe, Reset, Taken};
use super::requests::{Asked, Questions};
use bytes::Bytes;
use net_kit::memory_budget::Unfinished;
use net_kit::receipts::{MAX_UNWRITTEN, Receipts};
use net_traits::close_code::{self, sent_reason};
use net_traits::{Cause, CloseReason, DatagramStatistics, RecvError, RequestError, request_code};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// Idle timeout: a connection ends when a side receives nothing for this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialler,
    Listener,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Listener,
            Self::Listener => Self::Dialler,
        }
    }
}

#[derive(Debug)]
pub(super) struct Wire {
    state: Mutex<State>,
    /// The questions of the dialler and of the listener.
    questions: [Questions; 2],
    /// The marked messages of the dialler and of the listener.
    receipts: [Receipts; 2],
    /// For what the dialler and the listener wait for: an action of the other side, or the end.
    changed: [Notify; 2],
    /// For the tasks that wait for the end only.
    may_have_ended: Notify,
}

#[derive(Debug)]
struct State {
    /// The data sent by the dialler and by the listener.
    pipes: [Pipe; 2],
    /// The datagrams sent by the dialler and by the listener.
    datagrams: [Datagrams; 2],
    /// The receipts on their way to the dialler and to the listener, with their times of arrival.
    receipts: [VecDeque<(Instant, u32, bool)>; 2],
    /// The reasons of the end for the dialler and the listener, with their times.
    ends: [Option<(Instant, CloseReason)>; 2],
}

/// The result of a check: done, or repeat after a change or at a time.
pub(super) enum Step<T> {
    Done(T),
    Wait(Option<Instant>),
}

impl State {
    /// Returns the pipe in which `side` sends.
    fn outgoing(&mut self, side: Side) -> &mut Pipe {
        &mut self.pipes[side as usize]
    }

    /// Checks that all data of `side` has arrived before the other side ended.
    ///
    /// # Errors
    ///
    /// When the data arrives, if that is known.
    fn delivered(&mut self, side: Side, now: Instant) -> Result<(), Option<Instant>> {
        let closed = match &self.ends[side.other() as usize] {
            Some((at, CloseReason::Local { .. })) => Some(*at),
            _ => None,
        };
        self.outgoing(side).delivered(now, closed)
    }

    /// Returns why the connection has ended for `side`.
    ///
    /// # Errors
    ///
    /// When it will end, if that is known.
    fn end(&mut self, side: Side, now: Instant) -> Result<CloseReason, Option<Instant>> {
        let blocked = self.pipes.iter().filter_map(|pipe| pipe.link.blocked_since()).min();
        let times_out = blocked.map(|since| since + IDLE_TIMEOUT);
        let is_cut = self.pipes[side.other() as usize].link.blocked_since().is_some();
        match &self.ends[side as usize] {
            // The peer's close must arrive first.
            Some((_, CloseReason::Peer { .. })) if is_cut => {}
            Some((at, CloseReason::Peer { .. })) if *at > now => return Err(Some(*at)),
            Some((_, reason)) => return Ok(reason.clone()),
            None => {}
        }
        match times_out {
            Some(at) if at <= now => {
                self.ends[side as usize] = Some((now, CloseReason::TimedOut));
                Ok(CloseReason::TimedOut)
            }
            at => Err(at),
        }
    }

    fn has_ended(&mut self, side: Side, now: Instant) -> bool {
        self.end(side, now).is_ok()
    }

    /// Ends the connection for both sides at once.
    fn reset(&mut self, now: Instant) {
        let reason = CloseReason::Transport(Cause::new("the network reset the connection"));
        for end in &mut self.ends {
            end.get_or_insert((now, reason.clone()));
        }
    }
}

impl Wire {
    /// `pipes` are the directions in which the dialler and the listener send.
    pub(super) fn new(pipes: [Pipe; 2]) -> Self {
        let questions = pipes.each_ref().map(|pipe| Questions::new(pipe.link.clone()));
        let state = State {
            pipes,
            datagrams: Default::default(),
            receipts: Default::default(),
            ends: [None, None],
        };
        Self {
            state: Mutex::new(state),
            questions,
            receipts: Default::default(),
            changed: Default::default(),
            may_have_ended: Notify::new(),
        }
    }

    /// Returns the questions that `side` asks.
    pub(super) fn questions(&self, side: Side) -> &Questions {
        &self.questions[side as usize]
    }

    /// Wakes all waiters, which check again.
    pub(super) fn notify(&self) {
        self.changed.iter().for_each(Notify::notify_waiters);
        self.may_have_ended.notify_waiters();
    }

    /// Wakes what waits for an action of `side`: data, receipts, or room for data.
    fn notify_peer(&self, side: Side) {
        self.changed[side.other() as usize].notify_waiters();
    }

    /// Repeats `check` for `side` until it is done.
    async fn until<T>(&self, side: Side, check: impl FnMut(&mut State, Instant) -> Step<T>) -> T {
        Self::until_with(&self.state, &self.changed[side as usize], || {}, check).await
    }

    /// Repeats `check` until it is done, after each notification, and calls `after` after each check,
    /// without the lock.
    async fn until_with<T>(
        state: &Mutex<State>,
        notify: &Notify,
        after: impl Fn(),
        mut check: impl FnMut(&mut State, Instant) -> Step<T>,
    ) -> T {
        loop {
            let mut changed = pin!(notify.notified());
            changed.as_mut().enable();
            let step = check(&mut state.lock(), Instant::now());
            after();
            match step {
                Step::Done(output) => return output,
                Step::Wait(None) => changed.await,
                Step::Wait(Some(at)) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = sleep_until(at) => {}
                },
            }
        }
    }

    /// Sends `bytes` if there is room; returns false otherwise.
    ///
    /// # Errors
    ///
    /// The reason why the connection has ended.
    pub(super) fn try_push(&self, side: Side, bytes: &Bytes) -> Result<bool, CloseReason> {
        let pushed = try_push(&mut self.state.lock(), side, bytes, Instant::now());
        self.notify_pushed(side, pushed.is_ok());
        pushed
    }

    /// Sends `bytes` as soon as there is room.
    pub(super) async fn push(&self, side: Side, bytes: Bytes) -> Result<(), CloseReason> {
        let pushed = self
            .until(side, |state, now| match try_push(state, side, &bytes, now) {
                Ok(true) => Step::Done(Ok(())),
                Ok(false) => Step::Wait(state.end(side, now).err().flatten()),
                Err(reason) => Step::Done(Err(reason)),
            })
            .await;
        self.notify_pushed(side, pushed.is_ok());
        pushed
    }

    /// Wakes waiters after an attempt of `side` to send. If it failed, it may have reset the
    /// connection.
    fn notify_pushed(&self, side: Side, is_ok: bool) {
        match is_ok {
            true => self.notify_peer(side),
            false => self.notify(),
        }
    }

    /// Marks the end of the data that `side` sent so far.
    pub(super) fn end(&self, side: Side) {
        self.state.lock().outgoing(side).end(Instant::now());
        self.notify_peer(side);
    }

    /// Returns how much the peer of `side` has received.
    pub(super) fn progress(&self, side: Side) -> u64 {
        self.state.lock().outgoing(side).taken
    }

    /// Returns whether data of `side` is in flight over a link that is not blocked.
    pub(super) fn is_moving(&self, side: Side) -> bool {
        matches!(self.state.lock().delivered(side, Instant::now()), Err(Some(_)))
    }

    /// Waits for the next message to `side`, and returns its number if it is marked. Meanwhile
    /// charges the part that has arrived to `unfinished`.
    pub(super) async fn take(
        &self,
        side: Side,
        unfinished: &Mutex<Unfinished>,
    ) -> (Result<(Bytes, Duration), RecvError>, Option<u32>) {
        let arrived = Mutex::new((0, 0));
        let charge = || {
            let (arrived, buffer) = *arrived.lock();
            unfinished.lock().set(arrived, buffer);
        };
        let changed = &self.changed[side as usize];
        let taken = Self::until_with(&self.state, changed, charge, |state, now| {
            let taken = state.outgoing(side.other()).take(now);
            *arrived.lock() = state.outgoing(side.other()).unfinished();
            let later = match taken {
                Taken::Entry(entry) => {
                    return Step::Done((entry, state.outgoing(side.other()).take_mark()));
                }
                Taken::Later(at) => Some(at),
                Taken::Nothing => None,
            };
            match state.end(side, now) {
                Ok(reason) => Step::Done((Err(RecvError::Closed(reason)), None)),
                Err(at) => Step::Wait(at.into_iter().chain(later).min()),
            }
        })
        .await;
        self.notify_peer(side); // there is room
        taken
    }

    /// Waits until all data of `side` has arrived, or the connection has ended.
    pub(super) async fn delivered(&self, side: Side) -> Result<(), CloseReason> {
        self.until(side, |state, now| match (state.delivered(side, now), state.end(side, now)) {
            (Ok(()), _) => Step::Done(Ok(())),
            (_, Ok(reason)) => Step::Done(Err(reason)),
            (Err(at), Err(end)) => Step::Wait(at.into_iter().chain(end).min()),
        })
        .await
    }

    /// Returns how many messages of `side` have not arrived, and their bytes.
    pub(super) fn undelivered(&self, side: Side) -> (u64, u64) {
        self.state.lock().outgoing(side).undelivered(Instant::now())
    }

    /// Waits until the connection has ended for `side`.
    pub(super) async fn ended(&self, side: Side) -> CloseReason {
        let end = |state: &mut State, now| match state.end(side, now) {
            Ok(reason) => Step::Done(reason),
            Err(at) => Step::Wait(at),
        };
        Self::until_with(&self.state, &self.may_have_ended, || {}, end).await
    }

    /// Closes the connection by `side`. A second call does nothing.
    pub(super) fn close(&self, side: Side, code: u64, reason: &str) {
        {
            let state = &mut *self.state.lock();
            let now = Instant::now();
            if state.has_ended(side, now) {
                return;
            }
            let pipe = state.outgoing(side);
            let arrival = pipe
                .link
                .arrival(now)
                .max(pipe.delivered(now, None).err().flatten().unwrap_or(now));
            let local = CloseReason::Local { code, reason: reason.to_owned() };
            let peer =
                CloseReason::Peer { code: code.min(close_code::MAX), reason: sent_reason(reason) };
            state.ends[side as usize] = Some((now, local));
            state.ends[side.other() as usize].get_or_insert((arrival, peer));
        }
        self.notify();
    }

    /// Ends the connection for both sides at once.
    pub(super) fn reset(&self) {
        self.state.lock().reset(Instant::now());
        self.notify();
    }

    /// Ends the connection after the idle timeout.
    pub(super) fn expire(&self) {
        let state = &mut *self.state.lock();
        let now = Instant::now();
        state.has_ended(Side::Dialler, now);
        state.has_ended(Side::Listener, now);
    }
}

fn try_push(
    state: &mut State,
    side: Side,
    bytes: &Bytes,
    now: Instant,
) -> Result<bool, CloseReason> {
    if let Ok(reason) = state.end(side, now) {
        return Err(reason);
    }
    let pipe = state.outgoing(side);
    if !pipe.has_room() {
        return Ok(false);
    }
    if let Err(Reset) = pipe.push(now, bytes.clone()) {
        state.reset(now);
        return state.end(side, now).map_or(Ok(false), Err);
    }
    Ok(true)
}

/// Datagrams.
impl Wire {
    /// Sends a datagram from `side`; a link that is blocked loses it.
    pub(super) fn send_datagram(&self, side: Side, datagram: Bytes) -> Result<(), CloseReason> {
        {
            let (state, now) = (&mut *self.state.lock(), Instant::now());
            if let Ok(reason) = state.end(side, now) {
                return Err(reason);
            }
            let link = state.outgoing(side).link.clone();
            let datagrams = &mut state.datagrams[side as usize];
            match link.blocked_since() {
                Some(_) => datagrams.lose(),
                None => datagrams.push(link.arrival(now), datagram),
            }
        }
        self.notify_peer(side);
        Ok(())
    }

    /// Waits for the next datagram to `side`.
    pub(super) async fn recv_datagram(&self, side: Side) -> Result<Bytes, CloseReason> {
        self.until(side, |state, now| {
            let arrives = match state.datagrams[side.other() as usize].take(now) {
                Ok(datagram) => return Step::Done(Ok(datagram)),
                Err(arrives) => arrives,
            };
            match state.end(side, now) {
                Ok(reason) => Step::Done(Err(reason)),
                Err(end) => Step::Wait(end.into_iter().chain(arrives).min()),
            }
        })
        .await
    }

    pub(super) fn datagram_statistics(&self, side: Side) -> DatagramStatistics {
        let state = self.state.lock();
        let sent = state.datagrams[side as usize].sent();
        let (arrived, received) = state.datagrams[side.other() as usize].received(Instant::now());
        DatagramStatistics::new(sent, arrived, received)
    }
}

/// Receipts.
impl Wire {
    /// Returns the marked messages of `side`.
    pub(super) fn receipts(&self, side: Side) -> &Receipts {
        &self.receipts[side as usize]
    }

    /// Sends a receipt from `side`.
    pub(super) fn send_receipt(&self, side: Side, number: u32, is_taken: bool) {
        {
            let (state, now) = (&mut *self.state.lock(), Instant::now());
            let arrival = state.outgoing(side).link.arrival(now);
            let receipts = &mut state.receipts[side.other() as usize];
            if receipts.len() < MAX_UNWRITTEN {
                receipts.push_back((arrival, number, is_taken));
            }
        }
        self.notify_peer(side);
    }

    /// Records the receipts that arrive at `side`, until the connection has ended.
    pub(super) async fn receive_receipts(&self, side: Side) -> CloseReason {
        self.until(side, |state, now| {
            let link = state.outgoing(side.other()).link.clone();
            let next = loop {
                let Some((at, number, is_taken)) = state.receipts[side as usize].front().copied()
                else {
                    break None;
                };
                match link.arrives(at) {
                    Some(at) if at <= now => self.receipts(side).on_receipt(number, is_taken),
                    at => break at,
                }
                state.receipts[side as usize].pop_front();
            };
            match state.end(side, now) {
                Ok(reason) => Step::Done(reason),
                Err(end) => Step::Wait(end.into_iter().chain(next).min()),
            }
        })
        .await
    }
}

/// Requests.
impl Wire {
    /// Asks from `side`, where answers up to `limit` bytes are accepted.
    pub(super) async fn ask(
        &self,
        side: Side,
        (question, is_whole): (Bytes, bool),
        limit: usize,
        deadline: Duration,
    ) -> Result<Bytes, RequestError> {
        let (there, back) = (self.questions(side), self.questions(side.other()));
        let ask = async {
            there.link.pass().await;
            let (answer, answered) = oneshot::channel();
            let (_asking, asker) = watch::channel(());
            let _ = there.sender.send(Asked { question, is_whole, answer, asker }).await; // both ends live
            let answer = answered.await.unwrap_or(Err(request_code::NO_ANSWER));
            back.link.pass().await;
            match answer {
                Ok(answer) if answer.len() > limit => {
                    Err(RequestError::TooLarge { size: answer.len(), limit })
                }
                Ok(answer) => Ok(answer),
                Err(code) => Err(RequestError::NoAnswer { code }),
            }
        };
        tokio::select! {
            biased;
            reason = self.ended(side) => Err(RequestError::Closed(reason)),
            answer = timeout(deadline, ask) => {
                answer.unwrap_or(Err(RequestError::TimedOut { after: deadline }))
            }
        }
    }

    /// Waits for the next question to `side`.
    pub(super) async fn asked(&self, side: Side) -> Result<Asked, RequestError> {
        let next = async { self.questions(side.other()).waiting.lock().await.recv().await };
        tokio::select! {
            biased;
            reason = self.ended(side) => Err(RequestError::Closed(reason)),
            Some(asked) = next => Ok(asked),
        }
    }
}
