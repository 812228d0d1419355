//! `Receipts`: messages whose sender waits until the peer's application has taken them.
//!
//! The sender marks such a message with a number. When `recv` has returned it, the receiver sends a
//! receipt with the number. Both are control records in the byte stream, see
//! `docs/wire-protocol.md`.
//!
//! Memory is bounded. A sender has at most [`MAX_UNANSWERED`] marked messages without a receipt; a
//! dropped future counts until the receipt arrives. Receipts with unknown numbers are ignored.
//! While [`MAX_UNWRITTEN`] receipts wait to be written, a receiver drops further ones.

pub use crate::control_record::Control;
use crate::outbox::Outbox;
use bytes::Bytes;
use net_traits::{SendAckedError, SendError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How many messages of one side may wait for a receipt at once.
pub const MAX_UNANSWERED: usize = 64;

/// How many receipts may wait to be written. A sender that respects [`MAX_UNANSWERED`] and reads
/// its receipts never needs that many.
pub const MAX_UNWRITTEN: usize = 2 * MAX_UNANSWERED;

/// The code of [`SendError::Stopped`] for a message that exceeds the peer's limit.
const TOO_LARGE: u64 = 1;

/// The marked messages of both sides of a connection.
///
/// ```
/// use net_kit::receipts::Receipts;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let receipts = Receipts::default();
/// let mut expected = receipts.expect().await;
/// expected.queued(); // the message with `expected.number()`
/// receipts.on_receipt(expected.number(), true);
/// assert_eq!(expected.receipt().await, Ok(()));
/// # });
/// ```
#[derive(Debug)]
pub struct Receipts {
    places: Arc<Semaphore>,
    state: Mutex<State>,
    /// The positions of receipts in the outbox that were not written when the last one was queued.
    unwritten: Mutex<Vec<u64>>,
}

#[derive(Debug, Default)]
struct State {
    next: u32,
    waiting: HashMap<u32, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// The stream of the message.
    stream: Option<u64>,
    result: oneshot::Sender<Result<(), SendAckedError>>,
    _place: OwnedSemaphorePermit,
}

impl Default for Receipts {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(MAX_UNANSWERED));
        Self { places, state: Mutex::default(), unwritten: Mutex::default() }
    }
}

impl Receipts {
    /// Waits until another message may wait for a receipt, and returns its number.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn expect(&self) -> Expected<'_> {
        // The semaphore is never closed.
        let place = match self.places.clone().acquire_owned().await {
            Ok(place) => place,
            Err(_) => std::future::pending().await,
        };
        let (result, receipt) = oneshot::channel();
        let number = {
            let state = &mut *self.state.lock();
            state.next = state.next.wrapping_add(1);
            state.waiting.insert(state.next, Waiting { stream: None, result, _place: place });
            state.next
        };
        Expected { receipts: self, number, receipt, is_queued: false }
    }

    /// Records a receipt of the peer. Unknown numbers are ignored.
    pub fn on_receipt(&self, number: u32, is_taken: bool) {
        let rejected = || SendAckedError::NotSent(SendError::Stopped { code: TOO_LARGE });
        let waiting = self.state.lock().waiting.remove(&number);
        if let Some(Waiting { result, .. }) = waiting {
            let _ = result.send(if is_taken { Ok(()) } else { Err(rejected()) }); // the receiver may be dropped
        }
    }

    /// Records that the messages on `stream` without a receipt may be lost, as the peer has stopped it.
    pub fn lost(&self, stream: u64, error: &SendError) {
        let is_lost = |_: &u32, waiting: &mut Waiting| waiting.stream == Some(stream);
        let lost: Vec<_> = self.state.lock().waiting.extract_if(is_lost).collect();
        for (_, Waiting { result, .. }) in lost {
            let _ = result.send(Err(SendAckedError::Unknown(error.clone()))); // the receiver may be dropped
        }
    }

    /// Queues a receipt for the peer.
    pub fn send(&self, outbox: &Outbox, number: u32, is_taken: bool) {
        let mut unwritten = self.unwritten.lock();
        let written = outbox.written();
        unwritten.retain(|position| *position > written);
        if unwritten.len() < MAX_UNWRITTEN {
            let record = Bytes::from(Control::Receipt { number, is_taken }.encode());
            unwritten.extend(outbox.push_control(vec![record]).ok()); // fails after the end
        }
    }
}

/// A message that is about to be sent, or that waits for its receipt.
#[derive(Debug)]
pub struct Expected<'a> {
    receipts: &'a Receipts,
    number: u32,
    receipt: oneshot::Receiver<Result<(), SendAckedError>>,
    is_queued: bool,
}

impl Expected<'_> {
    /// Returns the number of the message.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Records the stream of the message, for [`Receipts::lost`].
    pub fn set_stream(&self, stream: u64) {
        if let Some(waiting) = self.receipts.state.lock().waiting.get_mut(&self.number) {
            waiting.stream = Some(stream);
        }
    }

    /// Records that the message is queued. Before that, dropping this frees its place.
    pub fn queued(&mut self) {
        self.is_queued = true;
    }

    /// Records that no receipt will arrive because the message may be lost: dropping this frees its
    /// place.
    pub fn lost(&mut self) {
        self.is_queued = false;
    }

    /// Waits for the receipt.
    ///
    /// # Errors
    ///
    /// [`SendAckedError::Unknown`] after [`Receipts::lost`], and [`SendAckedError::NotSent`] if the
    /// peer has rejected the message.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn receipt(&mut self) -> Result<(), SendAckedError> {
        match (&mut self.receipt).await {
            Ok(result) => result,
            Err(_) => std::future::pending().await, // the receipt was returned before
        }
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        if !self.is_queued {
            let unused = self.receipts.state.lock().waiting.remove(&self.number);
            drop(unused); // wakes the next task after unlocking
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_dropped_future_keeps_its_place_until_the_receipt() {
        let receipts = Receipts::default();
        let mut numbers = Vec::new();
        for _ in 0..MAX_UNANSWERED {
            drop(receipts.expect().await); // nothing was queued: the place is free
            let mut expected = receipts.expect().await;
            expected.queued();
            numbers.push(expected.number());
        }
        tokio::task::yield_now().await; // with a new cooperative budget
        assert!(receipts.expect().now_or_never().is_none(), "all places are taken");
        receipts.on_receipt(numbers[0].wrapping_sub(1), true); // of no message
        assert!(receipts.expect().now_or_never().is_none());
        receipts.on_receipt(numbers[5], true);
        receipts.on_receipt(numbers[5], true);
        let _expected = receipts.expect().now_or_never().unwrap();
        assert!(receipts.expect().now_or_never().is_none(), "one receipt frees one place");
    }

    #[tokio::test]
    async fn a_rejection_and_a_loss_are_returned() {
        let receipts = Receipts::default();
        let (mut one, mut two) = (receipts.expect().await, receipts.expect().await);
        one.queued();
        receipts.on_receipt(one.number(), false);
        let rejected = SendError::Stopped { code: TOO_LARGE };
        assert_eq!(one.receipt().await, Err(SendAckedError::NotSent(rejected.clone())));
        two.set_stream(4);
        receipts.lost(8, &rejected);
        assert!(two.receipt().now_or_never().is_none(), "it is on another stream");
        receipts.lost(4, &rejected);
        assert_eq!(two.receipt().await, Err(SendAckedError::Unknown(rejected)));
    }

    #[test]
    fn receipts_that_the_peer_does_not_read_are_bounded() {
        let (receipts, outbox) = (Receipts::default(), Outbox::new(1));
        (0..1000).for_each(|number| receipts.send(&outbox, number, true));
        let size = outbox.queued();
        assert!(size <= MAX_UNWRITTEN * 200, "{size} bytes are queued");
    }
}
