//! Datagrams (RFC 9221): unreliable, unordered, bounded on both sides.

use super::state::ConnectionState;
use super::{
    Connection, ConnectionError, ConnectionInner, DatagramOutcome, DgramReceiveError,
    DgramSendError,
};
use crate::Status;
use crate::buffer::{DatagramCounts, DatagramSendState};
use crate::waiters::wait_future;
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;

impl Connection {
    /// The largest datagram that can be sent now, in bytes; `None` while the connection is not established
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
        self.inner().exclusive.lock().datagrams.max_size()
    }

    /// How many datagrams were sent and received so far, by outcome; see also
    /// [`statistics`](Self::statistics).
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// println!("{} datagrams arrived", connection.datagram_counts().received);
    /// # }
    /// ```
    pub fn datagram_counts(&self) -> DatagramCounts {
        let mut counts = self.inner().exclusive.lock().datagrams.counts;
        counts.received += self.inner().inbound.datagram_sink.passed();
        counts
    }

    /// How many received datagrams were dropped because the queue was full.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// println!("{} datagrams were dropped", connection.dropped_datagrams());
    /// # }
    /// ```
    pub fn dropped_datagrams(&self) -> u64 {
        self.inner().exclusive.lock().datagrams.counts.dropped
    }

    /// Queues a datagram to be sent, without a copy. Fails instead of waiting.
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

    /// Queues a datagram as [`send_datagram`](Self::send_datagram) does, and returns a future of
    /// its outcome.
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
        self.inner().datagram_room.poll_registered(cx, || self.send_if_room(buf))
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
    /// Cancel-safe: a dropped future has either queued the datagram or not; it is never sent in
    /// part.
    pub fn send_datagram_wait<'a>(&'a self, buf: &'a Bytes) -> SendDatagram<'a> {
        SendDatagram::new(self, buf)
    }

    /// Queues a datagram, or fails; `None`: wait for room.
    fn send_if_room(&self, datagram: &Bytes) -> Option<Result<(), DgramSendError>> {
        match self.send_datagram(datagram) {
            Err(DgramSendError::Full) => None,
            result => Some(result),
        }
    }

    /// As [`send_if_room`](Self::send_if_room), for futures. One of them is woken for each datagram that leaves the
    /// queue; there may be room for further ones.
    fn send_and_pass_on(&self, datagram: &Bytes) -> Option<Result<(), DgramSendError>> {
        self.send_if_room(datagram).inspect(|_| self.inner().datagram_room.pass_on())
    }

    /// Passes received datagrams to `sink` instead of a queue of this connection, beginning with those that
    /// wait in it. [`receive_datagram`](Self::receive_datagram) then gets none. Returns false, and changes
    /// nothing, before the handshake is complete or if there is a sink.
    ///
    /// `sink` has the rules of a [`ReceiveSink`](crate::ReceiveSink): it is called on msquic's thread, must be
    /// quick, and must neither block nor panic. It is dropped after the last handle of the connection, so it
    /// must not hold one.
    ///
    /// ```no_run
    /// # fn example(connection: &msquic_async::Connection) {
    /// connection.set_datagram_sink(|datagram| println!("{} bytes", datagram.len()));
    /// # }
    /// ```
    pub fn set_datagram_sink(&self, sink: impl Fn(&[u8]) + Send + Sync + 'static) -> bool {
        let set = &self.inner().inbound.datagram_sink;
        let waiting: Vec<_> = {
            // Under the lock, because `on_datagram_received` queues only what arrives before the sink.
            let exclusive = &mut *self.inner().exclusive.lock();
            if exclusive.peer.is_none() || !set.set(Box::new(sink)) {
                return false;
            }
            std::iter::from_fn(|| exclusive.datagrams.pop()).collect()
        };
        for datagram in waiting {
            set.pass_queued(&datagram);
        }
        true
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
    /// [`DgramReceiveError`], after all that had arrived were delivered.
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
        self.inner().inbound.datagrams.poll_registered(cx, || self.next_datagram())
    }

    fn next_datagram(&self) -> Option<Result<Bytes, DgramReceiveError>> {
        let mut exclusive = self.inner().exclusive.lock();
        if let Some(datagram) = exclusive.datagrams.pop() {
            return Some(Ok(datagram));
        }
        match &exclusive.state {
            ConnectionState::Open => Some(Err(DgramReceiveError::NotStarted)),
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
                ConnectionState::Connected => {}
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
                // The peer took them when this one was admitted: msquic has begun to close (C26).
                (Status::INVALID_STATE, None) => {
                    DgramSendError::ConnectionLost(ConnectionError::closing())
                }
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
        let sink = &self.inbound.datagram_sink;
        if sink.pass(datagram) {
            return;
        }
        let dropped = {
            let exclusive = &mut *self.exclusive.lock();
            if exclusive.peer.is_none() {
                return; // not verified: the connection is being closed
            }
            let is_queued = !sink.is_set(); // it may have been set meanwhile
            is_queued.then(|| exclusive.datagrams.on_received(Bytes::copy_from_slice(datagram)))
        };
        match dropped {
            Some(_dropped) => self.inbound.datagrams.wake_one(),
            None => {
                sink.pass(datagram);
            }
        }
    }
}

wait_future! {
    /// Future of [`Connection::receive_datagram`].
    ReceiveDatagram(connection: &Connection) -> Result<Bytes, DgramReceiveError>,
    on connection.inner().inbound.datagrams, take connection.next_datagram()
}

wait_future! {
    /// Future of [`Connection::send_datagram_wait`].
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// connection.send_datagram_wait(&"position 4 2".into()).await?;
    /// # Ok(())
    /// # }
    /// ```
    SendDatagram(connection: &Connection, datagram: &'a Bytes) -> Result<(), DgramSendError>,
    on connection.inner().datagram_room, take connection.send_and_pass_on(datagram)
}

/// Future of [`Connection::send_datagram_tracked`]: the outcome of a datagram.
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
