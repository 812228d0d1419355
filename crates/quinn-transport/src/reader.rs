//! `Reader`: reads a stream of the peer, so that all memory that it occupies is charged.
//!
//! quinn does not tell how much it holds. Everything that has arrived is therefore taken from it at once, even
//! behind gaps, and put in order here. Only while a stream waits for room does quinn hold its data:
//! [`Unread`] tells how much.

use crate::socket::BATCH;
use bytes::Bytes;
use net_kit::coop;
use net_kit::memory_budget::{Charge, Share};
use net_kit::reassembly::Reassembly;
use parking_lot::Mutex;
use quinn::{Connection, ConnectionStats, ReadError, RecvStream};
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::sleep;

/// The pause between two pieces of a stream that has too much behind a gap: a round trip within these bounds.
/// Without the first one, a peer next door could bring many pieces.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(100);

/// Reads a stream of the peer in order.
pub(crate) struct Reader {
    pub(crate) stream: RecvStream,
    connection: Connection,
    unread: Arc<Unread>,
    share: Arc<Share>,
    /// How many bytes may be held behind gaps until reading slows down.
    limit: usize,
    reassembly: Reassembly,
    /// The end of the stream, after all data. quinn tells a reset only once.
    end: Option<Result<(), ReadError>>,
    /// How many bytes the connection had received when quinn last held nothing of the stream.
    drained_at: u64,
}

impl Reader {
    /// Reads a stream with such a window.
    pub(crate) fn new(
        stream: RecvStream,
        connection: &Connection,
        unread: &Arc<Unread>,
        share: &Arc<Share>,
        window: u32,
    ) -> Self {
        Self {
            stream,
            connection: connection.clone(),
            unread: unread.clone(),
            share: share.clone(),
            limit: 2 * window as usize,
            reassembly: Reassembly::new(share),
            end: None,
            drained_at: 0, // data may have arrived before the stream was accepted
        }
    }

    /// Does not end the connection because of a gap, as the answers to requests have a deadline of their own and
    /// are read only while the application waits for them.
    pub(crate) fn without_timeout(self) -> Self {
        Self { reassembly: Reassembly::without_timeout(&self.share), ..self }
    }

    /// Waits for the next bytes; `None` is the end of the stream. Cancel-safe.
    ///
    /// Reading gives credit to the peer, even behind a gap. While two windows are behind gaps, one
    /// piece per [pause](PAUSE) is read.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        let mut has_drained = false;
        loop {
            if let Some(data) = self.reassembly.take() {
                return Ok(Some(data));
            }
            let is_open = || self.connection.close_reason().is_none();
            if has_drained && self.reassembly.held() >= self.limit && is_open() {
                let pause = sleep(self.connection.rtt().clamp(*PAUSE.start(), *PAUSE.end()));
                self.pausing(0, pause).await;
            }
            if poll_fn(|context| self.poll_drain(context)).await? {
                return Ok(None);
            }
            has_drained = true;
            coop::spend().await;
        }
    }

    /// Takes from quinn what has arrived, at least one piece, and more up to the limit. Returns whether
    /// nothing arrived before the end of the stream.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, ReadError>> {
        if let Some(end) = &self.end {
            return Poll::Ready(end.clone().map(|()| true));
        }
        let (mut has_read, mut asked_at) = (false, None);
        loop {
            match pin!(self.stream.read_chunk(usize::MAX, false)).poll(context) {
                Poll::Ready(Ok(Some(chunk))) => {
                    self.reassembly.insert(chunk.offset, &chunk.bytes);
                    if self.reassembly.held() >= self.limit {
                        return Poll::Ready(Ok(false));
                    }
                    (has_read, asked_at) = (true, None);
                }
                Poll::Ready(end) => {
                    let end = self.end.insert(end.map(drop));
                    // Data before the end comes first.
                    return Poll::Ready(if has_read {
                        Ok(false)
                    } else {
                        end.clone().map(|()| true)
                    });
                }
                Poll::Pending => match asked_at {
                    // More may arrive before the count is read.
                    None => asked_at = Some(received(&self.connection)),
                    Some(received) => {
                        self.drained_at = received;
                        return if has_read { Poll::Ready(Ok(false)) } else { Poll::Pending };
                    }
                },
            }
        }
    }

    /// Waits for `future`, which holds a piece of such a size; the stream is not read meanwhile. Cancel-safe if
    /// `future` is.
    ///
    /// A piece is charged only if it has to wait. Otherwise it would count in two places while it is
    /// copied to its message, and an honest connection could be the one that holds most.
    pub(crate) async fn pausing<T>(&self, piece: usize, future: impl Future<Output = T>) -> T {
        let (mut future, mut pause) = (pin!(future), None);
        let mut held = Charge::new(&self.share);
        poll_fn(|context| {
            held.set(0);
            let output = future.as_mut().poll(context);
            if output.is_pending() {
                held.set(piece);
                pause.get_or_insert_with(|| self.unread.pause(self.drained_at));
            }
            output
        })
        .await
    }
}

/// What quinn holds of streams that are not read.
pub(crate) struct Unread {
    paused: Mutex<Paused>,
    /// How many connections need datagrams that do not share memory.
    separated: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Paused {
    streams: usize,
    /// How many bytes the connection had received when quinn held nothing of these streams.
    drained_at: u64,
    is_separated: bool,
}

impl Unread {
    pub(crate) fn new(separated: Arc<AtomicUsize>) -> Self {
        Self { paused: Mutex::default(), separated }
    }

    /// Records that a stream is not read while the value exists.
    fn pause(&self, drained_at: u64) -> Pause<'_> {
        let paused = &mut *self.paused.lock();
        paused.drained_at =
            if paused.streams == 0 { drained_at } else { paused.drained_at.min(drained_at) };
        paused.streams += 1;
        Pause(self)
    }

    /// Returns how many bytes quinn holds of streams with such windows, and in packets of such a size: at most all that has arrived
    /// since it held nothing. If that is more than quinn itself permits, datagrams are
    /// [separated](crate::socket) until the connection has ended, so that quinn holds what it permits, and as much
    /// from before. What it holds because of [frames](of_frames) comes on top.
    pub(crate) fn bytes(
        &self,
        stats: &ConnectionStats,
        has_ended: bool,
        window: u32,
        mtu: u16,
    ) -> usize {
        let paused = &mut *self.paused.lock();
        let streams = paused.streams as u64;
        let permitted = streams * permitted(window);
        let since = match streams {
            0 => 0,
            _ => stats.udp_rx.bytes.saturating_sub(paused.drained_at),
        };
        if has_ended {
            self.resume(paused); // it gets no more datagrams
        } else if since > permitted && !paused.is_separated {
            paused.is_separated = true;
            self.separated.fetch_add(1, Ordering::Relaxed);
        }
        // A piece may keep its whole datagram, although quinn counts its packet only.
        let most = (2 * permitted).max(streams * PIECES * u64::from(mtu.max(1500)));
        let bytes = since.min(most) + of_frames(stats);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    fn resume(&self, paused: &mut Paused) {
        if std::mem::take(&mut paused.is_separated) {
            self.separated.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.resume(&mut self.paused.lock());
    }
}

struct Pause<'a>(&'a Unread);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        let paused = &mut *self.0.paused.lock();
        paused.streams -= 1;
        if paused.streams == 0 {
            self.0.resume(paused);
        }
    }
}

/// How many pieces quinn keeps at most of a stream, or of the handshake: quinn-proto 0.11.19,
/// `COMPACT_THRESHOLD`.
const PIECES: u64 = 2048;

/// Returns how many bytes quinn permits to a stream with such a window: quinn-proto 0.11.19,
/// `Assembler::insert`.
fn permitted(window: u32) -> u64 {
    let window = u64::from(window);
    window + (window / 2 * 3).max(32 * 1024)
}

/// Returns how many bytes quinn may hold because of frames that a peer sends more often than it needs to.
///
/// - A CRYPTO frame behind a gap may keep a batch of datagrams. quinn does not tell which are behind gaps, so that
///   all are counted beyond those that certificates need.
/// - New connection IDs replace those that the peer retires. They wait while nothing can be sent, each
///   in 96 bytes of a list without a limit (quinn-proto 0.11.19, `new_cids`).
fn of_frames(stats: &ConnectionStats) -> u64 {
    const CERTIFICATES: u64 = 128;
    const CONNECTION_ID: u64 = 96;
    let ConnectionStats { frame_rx, frame_tx, .. } = stats;
    let frames = frame_rx.crypto.saturating_sub(CERTIFICATES).min(PIECES);
    let ids = frame_rx.retire_connection_id.saturating_sub(frame_tx.new_connection_id);
    frames * BATCH as u64 + ids * CONNECTION_ID
}

fn received(connection: &Connection) -> u64 {
    connection.stats().udp_rx.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_not_separated_for_a_connection_that_has_ended() {
        let separated = Arc::new(AtomicUsize::new(0));
        let mut stats = ConnectionStats::default();
        stats.udp_rx.bytes = 1 << 30;
        for lasts in [true, false] {
            let unread = Unread::new(separated.clone());
            let paused = unread.pause(0);
            let bytes = |has_ended| unread.bytes(&stats, has_ended, 1000, 1500);
            if lasts {
                bytes(false);
                assert_eq!(separated.load(Ordering::Relaxed), 1);
            }
            assert!(bytes(true) > 0, "what it holds is counted");
            assert_eq!(separated.load(Ordering::Relaxed), 0);
            drop(paused);
            assert_eq!(separated.load(Ordering::Relaxed), 0);
        }
    }
}
