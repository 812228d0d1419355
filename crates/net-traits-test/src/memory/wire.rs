//! `Wire`: one connection: two pipes, and how each side sees its end.

use super::pipe::{Pipe, Reset, Taken};
use bytes::Bytes;
use net_traits::{CloseReason, RecvError};
use parking_lot::Mutex;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// A side hears nothing for so long, and the connection is over.
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
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// What the dialler sends, and what the listener sends.
    pipes: [Pipe; 2],
    /// How the dialler and the listener see the end, and when.
    ends: [Option<(Instant, CloseReason)>; 2],
}

/// What a check found: something, or that it is to be repeated after a change or at a time.
pub(super) enum Step<T> {
    Done(T),
    Wait(Option<Instant>),
}

impl State {
    /// What `side` sends.
    fn outgoing(&mut self, side: Side) -> &mut Pipe {
        &mut self.pipes[side as usize]
    }

    /// Why the connection is over for `side`; if it is not, when it will be as far as is known.
    fn end(&mut self, side: Side, now: Instant) -> Result<CloseReason, Option<Instant>> {
        let blocked = self.pipes.iter().filter_map(|pipe| pipe.link.blocked_since()).min();
        let times_out = blocked.map(|since| since + IDLE_TIMEOUT);
        let is_cut = self.pipes[side.other() as usize].link.blocked_since().is_some();
        match &self.ends[side as usize] {
            // What the peer says has to come through first.
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

    fn is_over(&mut self, side: Side, now: Instant) -> bool {
        self.end(side, now).is_ok()
    }

    /// Ends the connection for both sides at once.
    fn reset(&mut self, now: Instant) {
        let reason = CloseReason::Transport("the network reset the connection".to_owned());
        for end in &mut self.ends {
            end.get_or_insert((now, reason.clone()));
        }
    }
}

impl Wire {
    /// `pipes` are what the dialler and what the listener sends.
    pub(super) fn new(pipes: [Pipe; 2]) -> Self {
        let state = State { pipes, ends: [None, None] };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Whoever waits looks again.
    pub(super) fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Repeats `check` until it is done.
    async fn until<T>(&self, mut check: impl FnMut(&mut State, Instant) -> Step<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let step = check(&mut self.state.lock(), Instant::now());
            match step {
                Step::Done(output) => return output,
                Step::Wait(None) => changed.await,
                Step::Wait(Some(at)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(at) => {}
                },
            }
        }
    }

    /// Puts `bytes` on the way if there is room; false if not.
    ///
    /// # Errors
    ///
    /// Why the connection is over.
    pub(super) fn try_push(&self, side: Side, bytes: &Bytes) -> Result<bool, CloseReason> {
        let pushed = try_push(&mut self.state.lock(), side, bytes, Instant::now());
        self.notify();
        pushed
    }

    /// [`try_push`](Self::try_push), as soon as there is room.
    pub(super) async fn push(&self, side: Side, bytes: Bytes) -> Result<(), CloseReason> {
        let pushed = self
            .until(|state, now| match try_push(state, side, &bytes, now) {
                Ok(true) => Step::Done(Ok(())),
                Ok(false) => Step::Wait(state.end(side, now).err().flatten()),
                Err(reason) => Step::Done(Err(reason)),
            })
            .await;
        self.notify();
        pushed
    }

    /// Says that what `side` sent so far ends here.
    pub(super) fn end(&self, side: Side) {
        self.state.lock().outgoing(side).end(Instant::now());
        self.notify();
    }

    /// How much the peer of `side` has taken.
    pub(super) fn progress(&self, side: Side) -> u64 {
        self.state.lock().outgoing(side).taken
    }

    /// Whether something that `side` sent is still on its way, over a link that is open.
    pub(super) fn is_moving(&self, side: Side) -> bool {
        matches!(self.state.lock().outgoing(side).delivered(Instant::now()), Err(Some(_)))
    }

    /// Waits for the next message to `side`.
    pub(super) async fn take(&self, side: Side) -> Result<(Bytes, Duration), RecvError> {
        let taken = self
            .until(|state, now| {
                let later = match state.outgoing(side.other()).take(now) {
                    Taken::Entry(entry) => return Step::Done(entry),
                    Taken::Later(at) => Some(at),
                    Taken::Nothing => None,
                };
                match state.end(side, now) {
                    Ok(reason) => Step::Done(Err(RecvError::Closed(reason))),
                    Err(at) => Step::Wait(at.into_iter().chain(later).min()),
                }
            })
            .await;
        self.notify(); // there is room
        taken
    }

    /// Waits until all that `side` sent has arrived, or the connection is over.
    pub(super) async fn delivered(&self, side: Side) -> Result<(), CloseReason> {
        self.until(|state, now| match (state.outgoing(side).delivered(now), state.end(side, now)) {
            (_, Ok(reason)) => Step::Done(Err(reason)),
            (Ok(()), _) => Step::Done(Ok(())),
            (Err(at), Err(end)) => Step::Wait(at.into_iter().chain(end).min()),
        })
        .await
    }

    /// Waits until the connection is over for `side`.
    pub(super) async fn over(&self, side: Side) -> CloseReason {
        self.until(|state, now| match state.end(side, now) {
            Ok(reason) => Step::Done(reason),
            Err(at) => Step::Wait(at),
        })
        .await
    }

    /// Ends the connection by `side`. Does nothing the second time.
    pub(super) fn close(&self, side: Side, code: u64, reason: &str) {
        {
            let state = &mut *self.state.lock();
            let now = Instant::now();
            if state.is_over(side, now) {
                return;
            }
            let reason = reason.to_owned();
            let pipe = state.outgoing(side);
            let arrival =
                pipe.link.arrival(now).max(pipe.delivered(now).err().flatten().unwrap_or(now));
            let local = CloseReason::Local { code, reason: reason.clone() };
            state.ends[side as usize] = Some((now, local));
            state.ends[side.other() as usize]
                .get_or_insert((arrival, CloseReason::Peer { code, reason }));
        }
        self.notify();
    }

    /// Ends the connection for both sides at once.
    pub(super) fn reset(&self) {
        self.state.lock().reset(Instant::now());
        self.notify();
    }

    /// A connection that heard nothing for too long is over.
    pub(super) fn expire(&self) {
        let state = &mut *self.state.lock();
        let now = Instant::now();
        state.is_over(Side::Dialler, now);
        state.is_over(Side::Listener, now);
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
