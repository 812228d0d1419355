//! Datagrams (RFC 9221): unreliable, unordered, bounded on both sides.
//!
//! A datagram to be sent is *queued* until msquic has put it into a packet, and *in flight* until it
//! is acknowledged, lost or canceled. Received ones wait in a queue; when it is full, the oldest goes
//! and is counted, since newer data is worth more to applications that use datagrams.
//!
//! Queues are bounded by the memory that their datagrams hold, which is more than their bytes: empty ones
//! count too. In flight a datagram holds no bytes, so these are bounded in number.

use super::{Connection, ConnectionError, ConnectionInner, DatagramCounts};
use crate::ffi::connection::DatagramSendState;
use crate::waiters::wait_future;
use crate::{DatagramLimits, Status};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::{futures::Notified, oneshot};

/// What became of a datagram.
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::connection::DatagramOutcome;
///
/// match connection.send_datagram_tracked(&"position 4 2".into())?.await {
///     DatagramOutcome::Acknowledged => println!("it arrived"),
///     DatagramOutcome::Lost | DatagramOutcome::Canceled => println!("it did not"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramOutcome {
    /// The peer's QUIC has it.
    Acknowledged,
    /// It was sent and is taken for lost.
    Lost,
    /// It was not sent, because the path became too narrow or the connection ended.
    Canceled,
}

/// Why no datagram was received.
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::connection::DgramReceiveError;
///
/// match connection.receive_datagram().await {
///     Err(DgramReceiveError::ConnectionLost(error)) => println!("no more will come: {error}"),
///     result => println!("{} bytes", result?.len()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DgramReceiveError {
    /// The connection was not started.
    #[error("the connection was not started")]
    NotStarted,
    /// The connection is over, and every datagram that came before was handed out.
    #[error("the connection is over")]
    ConnectionLost(#[source] ConnectionError),
}

/// Why a datagram was not sent.
///
/// ```no_run
/// # fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::connection::DgramSendError;
///
/// match connection.send_datagram(&"position 4 2".into()) {
///     Err(DgramSendError::Full) => println!("skipped: a newer one follows"),
///     Err(DgramSendError::TooBig { max, .. }) => println!("only {max} bytes fit"),
///     result => result?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DgramSendError {
    /// The connection is not up.
    #[error("the connection is not up")]
    NotConnected,
    /// The peer does not receive datagrams.
    #[error("the peer does not receive datagrams")]
    Denied,
    /// It is larger than what a packet carries now.
    #[error("a datagram of {size} bytes is larger than the {max} that fit")]
    TooBig {
        /// Bytes in the datagram.
        size: usize,
        /// Bytes that fit at the moment.
        max: usize,
    },
    /// The [limits](DatagramLimits) of datagrams that wait to be sent or are in flight are reached.
    #[error("too many datagrams wait to be sent or are in flight")]
    Full,
    /// The connection is over.
    #[error("the connection is over")]
    ConnectionLost(#[source] ConnectionError),
    /// msquic failed.
    #[error("msquic could not send the datagram")]
    Other(#[source] Status),
}

impl From<DgramReceiveError> for io::Error {
    fn from(error: DgramReceiveError) -> Self {
        let kind = match &error {
            DgramReceiveError::NotStarted => io::ErrorKind::NotConnected,
            DgramReceiveError::ConnectionLost(error) => error.io_kind(),
        };
        Self::new(kind, error)
    }
}

impl From<DgramSendError> for io::Error {
    fn from(error: DgramSendError) -> Self {
        let kind = match &error {
            DgramSendError::NotConnected => io::ErrorKind::NotConnected,
            DgramSendError::Denied => io::ErrorKind::Unsupported,
            DgramSendError::TooBig { .. } => io::ErrorKind::InvalidInput,
            DgramSendError::Full => io::ErrorKind::WouldBlock,
            DgramSendError::ConnectionLost(error) => error.io_kind(),
            DgramSendError::Other(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// The datagrams of a connection. Pure.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    pub(super) limits: DatagramLimits,
    /// The largest that fits now; `None` while the peer takes none.
    max_size: Option<usize>,
    next_id: usize,
    /// What the datagrams that are not yet in a packet cost.
    queued_cost: usize,
    queued: usize,
    /// Those that are queued or in flight.
    sent: HashMap<usize, Sent>,
    received: VecDeque<Bytes>,
    received_cost: usize,
    pub(super) counts: DatagramCounts,
}

#[derive(Debug)]
struct Sent {
    size: usize,
    /// Not yet in a packet.
    is_queued: bool,
    outcome: Option<oneshot::Sender<DatagramOutcome>>,
}

impl Datagrams {
    pub(super) fn set_max_size(&mut self, max_size: Option<usize>) {
        self.max_size = max_size;
    }

    /// Admits a datagram of `size` bytes and names it.
    fn admit(
        &mut self,
        size: usize,
        outcome: Option<oneshot::Sender<DatagramOutcome>>,
    ) -> Result<usize, DgramSendError> {
        let max = self.max_size.ok_or(DgramSendError::Denied)?;
        if size > max {
            return Err(DgramSendError::TooBig { size, max });
        }
        if !self.has_room() {
            return Err(DgramSendError::Full);
        }
        self.next_id = self.next_id.wrapping_add(1);
        self.queued_cost += cost(size);
        self.queued += 1;
        self.sent.insert(self.next_id, Sent { size, is_queued: true, outcome });
        Ok(self.next_id)
    }

    /// Whether another datagram may be queued.
    fn has_room(&self) -> bool {
        let in_flight = self.sent.len() - self.queued;
        (self.queued == 0 || self.queued_cost < self.limits.send_queue)
            && in_flight < self.limits.in_flight.max(1)
    }

    /// Follows a datagram; true when another may be queued.
    pub(super) fn on_state(
        &mut self,
        id: usize,
        state: DatagramSendState,
    ) -> (bool, Option<(oneshot::Sender<DatagramOutcome>, DatagramOutcome)>) {
        let Some(sent) = self.sent.get_mut(&id) else { return (false, None) };
        if std::mem::replace(&mut sent.is_queued, false) {
            self.queued_cost -= cost(sent.size);
            self.queued -= 1;
        }
        let (count, outcome) = match state {
            DatagramSendState::Sent => (&mut self.counts.sent, None),
            DatagramSendState::Acknowledged => {
                (&mut self.counts.acknowledged, Some(DatagramOutcome::Acknowledged))
            }
            DatagramSendState::Lost => (&mut self.counts.lost, Some(DatagramOutcome::Lost)),
            DatagramSendState::Canceled => {
                (&mut self.counts.canceled, Some(DatagramOutcome::Canceled))
            }
        };
        *count += 1;
        let Some(outcome) = outcome else { return (self.has_room(), None) };
        let sender = self.sent.remove(&id).and_then(|sent| sent.outcome);
        (self.has_room(), sender.map(|sender| (sender, outcome)))
    }

    /// Takes in a datagram; returns those that had to go.
    #[must_use]
    pub(super) fn on_received(&mut self, datagram: Bytes) -> Vec<Bytes> {
        self.counts.received += 1;
        self.received_cost += cost(datagram.len());
        self.received.push_back(datagram);
        let mut dropped = Vec::new();
        while self.received_cost > self.limits.receive_queue && self.received.len() > 1 {
            if let Some(oldest) = self.received.pop_front() {
                self.received_cost -= cost(oldest.len());
                self.counts.dropped += 1;
                dropped.push(oldest);
            }
        }
        dropped
    }

    fn pop(&mut self) -> Option<Bytes> {
        let datagram = self.received.pop_front()?;
        self.received_cost -= cost(datagram.len());
        Some(datagram)
    }
}

/// What a datagram of `size` bytes costs in memory.
const fn cost(size: usize) -> usize {
    size + OVERHEAD
}

/// What a datagram holds besides its bytes, at most: an entry of `sent`, twice as large while the map grows;
/// the native buffer and msquic's request; or `Bytes` in a queue that has grown, and the allocator's share.
const OVERHEAD: usize = 256;

impl Connection {
    /// The largest datagram that can be sent now, in bytes; `None` while the connection is not up
    /// or the peer does not [receive datagrams](crate::Settings::datagrams). It changes with the
    /// path.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(size) = connection.max_datagram_size() {
    ///     connection.send_datagram(&vec![0; size].into())?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_datagram_size(&self) -> Option<usize> {
        self.inner().exclusive.lock().datagrams.max_size
    }

    /// How many received datagrams were dropped because the queue was full.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// println!("{} datagrams came too fast", connection.dropped_datagrams());
    /// # }
    /// ```
    pub fn dropped_datagrams(&self) -> u64 {
        self.inner().exclusive.lock().datagrams.counts.dropped
    }

    /// Sends a datagram, without a copy, or fails at once.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// connection.send_datagram(&"position 4 2".into())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DgramSendError`]; [`DgramSendError::Full`] when too many wait to be sent.
    pub fn send_datagram(&self, buf: &Bytes) -> Result<(), DgramSendError> {
        self.inner().send_datagram(buf, None)
    }

    /// Sends a datagram and tells what became of it.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let outcome = connection.send_datagram_tracked(&"position 4 2".into())?;
    /// println!("{:?}", outcome.await);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`send_datagram`](Self::send_datagram).
    ///
    /// # Cancel safety
    ///
    /// The datagram is queued before this returns. Dropping the result only loses the outcome.
    pub fn send_datagram_tracked(&self, buf: &Bytes) -> Result<TrackDatagram, DgramSendError> {
        let (sender, outcome) = oneshot::channel();
        self.inner().send_datagram(buf, Some(sender))?;
        Ok(TrackDatagram { outcome })
    }

    /// [`send_datagram`](Self::send_datagram) that waits for room. Any number of tasks may wait.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let datagram = "position 4 2".into();
    /// std::future::poll_fn(|cx| connection.poll_send_datagram(cx, &datagram)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DgramSendError`], except [`DgramSendError::Full`].
    pub fn poll_send_datagram(
        &self,
        cx: &mut Context<'_>,
        buf: &Bytes,
    ) -> Poll<Result<(), DgramSendError>> {
        self.inner().datagram_room.register(cx);
        match self.send_datagram(buf) {
            Err(DgramSendError::Full) => Poll::Pending,
            result => Poll::Ready(result),
        }
    }

    /// [`send_datagram`](Self::send_datagram) that waits for room.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     connection: msquic_async::Connection,
    /// #     frames: Vec<bytes::Bytes>,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// for frame in &frames {
    ///     connection.send_datagram_wait(frame).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DgramSendError`], except [`DgramSendError::Full`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future has queued the datagram or not.
    pub fn send_datagram_wait<'a>(&'a self, buf: &'a Bytes) -> SendDatagram<'a> {
        let room = self.inner().datagram_room.notified();
        SendDatagram { connection: self, datagram: buf, room }
    }

    /// Waits for the next datagram.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) {
    /// while let Ok(datagram) = connection.receive_datagram().await {
    ///     println!("{} bytes", datagram.len());
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DgramReceiveError`], after all that had arrived were handed out.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no datagram.
    pub fn receive_datagram(&self) -> ReceiveDatagram<'_> {
        ReceiveDatagram::new(self)
    }

    /// [`receive_datagram`](Self::receive_datagram) for pollers. Any number of tasks may wait.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let datagram = std::future::poll_fn(|cx| connection.poll_receive_datagram(cx)).await?;
    /// println!("{} bytes", datagram.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DgramReceiveError`].
    pub fn poll_receive_datagram(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, DgramReceiveError>> {
        self.inner().inbound.datagrams.register(cx);
        self.next_datagram().map_or(Poll::Pending, Poll::Ready)
    }

    fn next_datagram(&self) -> Option<Result<Bytes, DgramReceiveError>> {
        let mut exclusive = self.inner().exclusive.lock();
        if let Some(datagram) = exclusive.datagrams.pop() {
            return Some(Ok(datagram));
        }
        match &exclusive.state {
            super::ConnectionState::Open => Some(Err(DgramReceiveError::NotStarted)),
            state => {
                state.error().map(|error| Err(DgramReceiveError::ConnectionLost(error.clone())))
            }
        }
    }
}

impl ConnectionInner {
    fn send_datagram(
        &self,
        datagram: &Bytes,
        outcome: Option<oneshot::Sender<DatagramOutcome>>,
    ) -> Result<(), DgramSendError> {
        let id = {
            let exclusive = &mut *self.exclusive.lock();
            match &exclusive.state {
                super::ConnectionState::Connected => {}
                state => {
                    return Err(state.error().map_or(DgramSendError::NotConnected, |error| {
                        DgramSendError::ConnectionLost(error.clone())
                    }));
                }
            }
            exclusive.datagrams.admit(datagram.len(), outcome)?
        };
        self.native().send_datagram(id, datagram.clone()).map_err(|status| {
            self.on_datagram_state(id, DatagramSendState::Canceled);
            match (status, self.error()) {
                (_, Some(error)) => DgramSendError::ConnectionLost(error),
                (Status::INVALID_STATE, None) => DgramSendError::Denied,
                // The path has just become narrower.
                (Status::INVALID_PARAMETER, None) => DgramSendError::TooBig {
                    size: datagram.len(),
                    max: datagram.len().saturating_sub(1),
                },
                (status, None) => DgramSendError::Other(status),
            }
        })
    }

    pub(super) fn on_datagram_state(&self, id: usize, state: DatagramSendState) {
        let (has_room, outcome) = self.exclusive.lock().datagrams.on_state(id, state);
        if has_room {
            self.datagram_room.wake_one();
        }
        if let Some((sender, outcome)) = outcome {
            let _ = sender.send(outcome); // the sender's future may be dropped
        }
    }

    pub(super) fn on_datagram_received(&self, datagram: &[u8]) {
        let datagram = Bytes::copy_from_slice(datagram);
        let dropped = {
            let exclusive = &mut *self.exclusive.lock();
            if exclusive.peer.is_none() {
                return; // not judged: the connection is being closed
            }
            exclusive.datagrams.on_received(datagram)
        };
        drop(dropped);
        self.inbound.datagrams.wake_one();
    }
}

wait_future! {
    /// Future of [`Connection::receive_datagram`].
    ReceiveDatagram(connection: &Connection) -> Result<Bytes, DgramReceiveError>,
    on connection.inner().inbound.datagrams, until connection.next_datagram()
}

pin_project_lite::pin_project! {
    /// Future of [`Connection::send_datagram_wait`].
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// connection.send_datagram_wait(&"position 4 2".into()).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct SendDatagram<'a> {
        connection: &'a Connection,
        datagram: &'a Bytes,
        #[pin]
        room: Notified<'a>,
    }
}

impl Future for SendDatagram<'_> {
    type Output = Result<(), DgramSendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            this.room.as_mut().enable();
            match this.connection.send_datagram(this.datagram) {
                Err(DgramSendError::Full) => {}
                result => {
                    // One waiter is woken for each datagram that goes; there may be room for further ones.
                    this.connection.inner().datagram_room.wake_one();
                    return Poll::Ready(result);
                }
            }
            ready!(this.room.as_mut().poll(cx));
            this.room.set(this.connection.inner().datagram_room.notified());
        }
    }
}

/// Future of [`Connection::send_datagram_tracked`]: what became of a datagram.
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// let outcome = connection.send_datagram_tracked(&"position 4 2".into())?;
/// tokio::spawn(async move { println!("{:?}", outcome.await) });
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct TrackDatagram {
    outcome: oneshot::Receiver<DatagramOutcome>,
}

impl Future for TrackDatagram {
    type Output = DatagramOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.outcome).poll(cx));
        Poll::Ready(outcome.unwrap_or(DatagramOutcome::Canceled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagrams(limit: usize) -> Datagrams {
        let limits =
            DatagramLimits { send_queue: limit, receive_queue: limit, ..DatagramLimits::default() };
        Datagrams { limits, max_size: Some(100), ..Datagrams::default() }
    }

    #[test]
    fn sending_is_bounded_by_what_waits_not_by_what_is_in_flight() {
        let mut datagrams = datagrams(cost(150));
        let first = datagrams.admit(100, None).unwrap();
        datagrams.admit(100, None).unwrap();
        assert_eq!(datagrams.admit(1, None), Err(DgramSendError::Full));
        assert!(datagrams.on_state(first, DatagramSendState::Sent).0);
        datagrams.admit(1, None).unwrap();
        assert!(!datagrams.on_state(first, DatagramSendState::Acknowledged).0);
        assert_eq!(datagrams.sent.len(), 2);
        assert_eq!(datagrams.admit(101, None), Err(DgramSendError::TooBig { size: 101, max: 100 }));
        datagrams.set_max_size(None);
        assert_eq!(datagrams.admit(1, None), Err(DgramSendError::Denied));
    }

    #[test]
    fn each_outcome_is_told_once() {
        let mut datagrams = datagrams(10_000);
        for (state, expected) in [
            (DatagramSendState::Acknowledged, DatagramOutcome::Acknowledged),
            (DatagramSendState::Lost, DatagramOutcome::Lost),
            (DatagramSendState::Canceled, DatagramOutcome::Canceled),
        ] {
            let (sender, _receiver) = oneshot::channel();
            let id = datagrams.admit(10, Some(sender)).unwrap();
            let (_, outcome) = datagrams.on_state(id, state);
            assert_eq!(outcome.map(|(_, outcome)| outcome), Some(expected));
            assert!(datagrams.on_state(id, state).1.is_none());
        }
        assert_eq!((datagrams.queued_cost, datagrams.queued, datagrams.sent.len()), (0, 0, 0));
    }

    #[test]
    fn the_oldest_go_first_and_are_counted() {
        let mut datagrams = datagrams(3 * cost(1));
        for letter in [b"a", b"b", b"c", b"d", b"e"] {
            drop(datagrams.on_received(Bytes::from_static(letter)));
        }
        assert_eq!((datagrams.counts.received, datagrams.counts.dropped), (5, 2));
        let rest = std::iter::from_fn(|| datagrams.pop()).collect::<Vec<_>>();
        assert_eq!(rest, ["c", "d", "e"]);
        assert_eq!(datagrams.received_cost, 0);
    }

    #[test]
    fn empty_ones_are_bounded_too() {
        let mut datagrams = datagrams(10 * OVERHEAD);
        datagrams.limits.in_flight = 3;
        let ids: Vec<_> = std::iter::from_fn(|| datagrams.admit(0, None).ok()).take(100).collect();
        assert_eq!(ids.len(), 10, "queued");
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(datagrams.on_state(*id, DatagramSendState::Sent).0, number < 2);
        }
        assert_eq!(datagrams.admit(0, None), Err(DgramSendError::Full), "in flight");
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(datagrams.on_state(*id, DatagramSendState::Lost).0, number >= 7);
        }
        for _ in 0..100 {
            drop(datagrams.on_received(Bytes::new()));
        }
        assert_eq!((datagrams.received.len(), datagrams.counts.dropped), (10, 90));
    }

    #[test]
    fn one_is_always_allowed() {
        let mut datagrams = datagrams(0);
        datagrams.limits.in_flight = 0;
        let only = datagrams.admit(100, None).unwrap();
        assert_eq!(datagrams.admit(0, None), Err(DgramSendError::Full));
        assert!(!datagrams.on_state(only, DatagramSendState::Sent).0);
        assert!(datagrams.on_state(only, DatagramSendState::Acknowledged).0);
    }
}
