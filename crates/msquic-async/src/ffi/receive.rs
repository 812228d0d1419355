//! Received bytes: borrowed during the callback, or held in msquic's memory beyond it.
//!
//! Held bytes belong to libmsquic; a [`Held`] borrows a run of them until it is dropped, on any thread. The runs of
//! a stream may be dropped in any order. Each drop marks its bytes as completed, and if this extends the contiguous
//! completed front of the stream, the dropping thread reports it to libmsquic, which gives the peer credit for those
//! bytes and reuses their memory (C32, C36). Each run keeps the stream's handle open, and with it the memory, the
//! connection and the registration: the bytes remain valid whatever ends first.

use super::holding::Holding;
use super::stream::{NativeStream, StreamHold};
use crate::buffer::Run;
use bytes::Bytes;
use msquic::ffi::QUIC_BUFFER;
use std::cell::Cell;
use std::ptr;
use std::slice;
use std::sync::Arc;

/// Bytes that arrived, valid during the callback.
pub(crate) struct Received<'a> {
    pub(super) stream: &'a Arc<NativeStream>,
    pub(super) buffers: &'a [QUIC_BUFFER],
    /// Their offset in the stream.
    pub(super) offset: u64,
    /// Whether the stream ends with them.
    pub(crate) is_last: bool,
    /// Set when they are held.
    pub(super) is_held: &'a Cell<bool>,
}

impl<'a> Received<'a> {
    pub(crate) fn slices(&self) -> impl Iterator<Item = &'a [u8]> {
        self.buffers.iter().filter(|buffer| buffer.Length > 0).map(|buffer| {
            // SAFETY: C25: the bytes are valid during the callback, which `'a` does not outlive.
            unsafe { slice::from_raw_parts(buffer.Buffer, buffer.Length as usize) }
        })
    }

    pub(crate) fn length(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.Length as usize).sum()
    }

    /// Returns whether the stream copies its bytes.
    pub(crate) fn is_copied(&self) -> bool {
        self.stream.holding() == Holding::No
    }

    /// Holds the bytes without a copy, beyond the callback; returns none where they [are
    /// copied](Self::is_copied). It consumes the value, since each byte is completed once (C32).
    pub(crate) fn hold(self) -> Vec<Held> {
        let holding = self.stream.holding();
        if holding == Holding::No {
            return Vec::new();
        }
        let mut start = self.offset;
        let held: Vec<_> = self
            .buffers
            .iter()
            .filter(|buffer| buffer.Length > 0)
            .map_while(|buffer| {
                let data =
                    ptr::slice_from_raw_parts(buffer.Buffer.cast_const(), buffer.Length as usize);
                // A stream can be held before its last event.
                let held = Held { data, start, stream: self.stream.hold()? };
                start += u64::from(buffer.Length);
                Some(held)
            })
            .collect();
        if !held.is_empty() {
            self.is_held.set(true);
            if holding != Holding::Several {
                self.stream.completions().lock().require(start);
            }
        }
        held
    }
}

/// A run of received bytes in libmsquic's memory.
pub(crate) struct Held {
    data: *const [u8],
    /// The offset of the bytes in the stream.
    start: u64,
    stream: StreamHold,
}

// SAFETY: C32: the bytes are only read, from any thread, until the value is dropped.
unsafe impl Send for Held {}

impl Held {
    fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }

    /// The first byte behind the run.
    fn end_ptr(&self) -> *const u8 {
        self.data.cast::<u8>().wrapping_add(self.data.len())
    }
}

impl Run for Held {
    fn len(&self) -> usize {
        self.data.len()
    }

    fn append(&mut self, mut next: Self) -> Result<(), Self> {
        // C36: then both are in one block of memory.
        if next.start != self.end() || next.data.cast() != self.end_ptr() {
            return Err(next);
        }
        let first = self.data.cast::<u8>();
        self.data = ptr::slice_from_raw_parts(first, self.data.len() + next.data.len());
        next.data = ptr::slice_from_raw_parts(next.data.cast(), 0); // this run completes them
        Ok(())
    }

    fn split_to(&mut self, count: usize) -> Option<Self> {
        let stream = self.stream.again()?;
        let first = self.data.cast::<u8>();
        let front =
            Self { data: ptr::slice_from_raw_parts(first, count), start: self.start, stream };
        self.start += count as u64;
        self.data = ptr::slice_from_raw_parts(front.end_ptr(), self.data.len() - count);
        Some(front)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let length = self.stream.completions().lock().complete(self.start..self.end());
        if length > 0 {
            self.stream.complete_receive(length);
        }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: C32, C36: the bytes are neither moved nor changed until this run is completed or
        // the stream is closed, which the run prevents.
        unsafe { &*self.data }
    }
}

impl From<Held> for Bytes {
    fn from(held: Held) -> Self {
        Self::from_owner(held)
    }
}

#[cfg(test)]
mod tests {
    use crate::ffi::holding::Holding;
    use crate::ffi::raw::TrustedPeers;
    use crate::ffi::testing::{Pair, pair};
    use crate::settings::ZeroCopy;
    use crate::{ReadError, ReceiveEnd, ReceiveSink, Settings, StreamType};
    use bytes::Bytes;
    use futures::executor::block_on;
    use parking_lot::Mutex;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    fn settings() -> Settings {
        let settings = Settings::new().peer_uni_streams(4).peer_bidi_streams(1);
        // SAFETY: both peers are this test.
        settings.zero_copy_receive_from_trusted_peers(unsafe { TrustedPeers::promise() })
    }

    fn one_by_one() -> Settings {
        let mut settings = settings();
        settings.zero_copy_receive = ZeroCopy::OneByOne;
        settings
    }

    /// With several receives at a time, if the library supports it, and with one.
    fn both() -> [Settings; 2] {
        [settings(), one_by_one()]
    }

    fn pattern(length: usize) -> Bytes {
        (0..length).map(|index| (index.wrapping_mul(31) >> 3) as u8).collect()
    }

    /// Sends `data` on a new stream.
    async fn send(pair: &Pair, data: &Bytes, fin: bool) -> crate::WriteStream {
        let open = pair.client.open_outbound_stream(StreamType::Unidirectional, false);
        let mut write = open.await.unwrap().split().1.unwrap();
        write.write_chunk(data, fin).await.unwrap();
        write
    }

    #[test]
    fn bytes_are_read_in_the_memory_of_msquic() {
        for settings in both() {
            block_on(async {
                let pair = pair(&settings).await;
                let data = pattern(5_000_000);
                let receive = async {
                    let stream = pair.server.accept_inbound_uni_stream().await.unwrap();
                    let mut received = Vec::new();
                    while let Some(chunk) = stream.read_chunk().await.unwrap() {
                        received.extend_from_slice(&chunk);
                    }
                    assert!(received == data);
                };
                let send = async { send(&pair, &data, true).await.finish_write().await.unwrap() };
                futures::join!(send, receive);

                let receive = async {
                    let mut stream = pair.server.accept_inbound_uni_stream().await.unwrap();
                    assert!(stream.read_to_end(usize::MAX).await.unwrap() == data);
                };
                let send =
                    async { self::send(&pair, &data, true).await.finish_write().await.unwrap() };
                futures::join!(send, receive);
            });
        }
    }

    #[test]
    fn a_held_chunk_outlives_its_stream_connection_and_registration() {
        for settings in both() {
            block_on(async {
                let pair = pair(&settings).await;
                let data = pattern(1000);
                let write = send(&pair, &data, false).await;
                let stream = pair.server.accept_inbound_uni_stream().await.unwrap();
                let chunk = stream.read_chunk().await.unwrap().unwrap();
                // A chunk of which only a part is kept, on another thread.
                let part = chunk.clone().into_bytes().slice(100..);
                write.abort_write(7).unwrap();
                assert_eq!(stream.received_reset().await, Ok(Some(7)));
                assert_eq!(stream.read_chunk().await, Err(ReadError::Reset(7)));
                let Pair { registration, listener, client, server } = pair;
                client.shutdown(0, "");
                client.watch_shutdown().await;
                server.watch_shutdown().await;
                drop((write, stream, client, server, listener));
                let (kept, expected) = (chunk.len(), data.clone());
                std::thread::spawn(move || assert_eq!(part, expected.slice(100..kept)))
                    .join()
                    .unwrap();
                assert_eq!(&*chunk, &data[..kept]);
                assert!(futures::poll!(std::pin::pin!(registration.wait_idle())).is_pending());
                drop(chunk);
                registration.wait_idle().await;
            });
        }
    }

    #[test]
    fn a_held_chunk_stops_the_stream_and_its_drop_resumes_it() {
        block_on(async {
            let pair = pair(&one_by_one()).await;
            let mut write = send(&pair, &"first".into(), false).await;
            let stream = pair.server.accept_inbound_uni_stream().await.unwrap();
            let first = stream.read_chunk().await.unwrap().unwrap();
            write.write_chunk(&"second".into(), true).await.unwrap();
            write.flush().await.unwrap();
            assert!(futures::poll!(std::pin::pin!(stream.read_chunk())).is_pending());
            assert_eq!(&*first, b"first");
            drop(first);
            assert_eq!(&*stream.read_chunk().await.unwrap().unwrap(), b"second");
            assert_eq!(stream.read_chunk().await, Ok(None));
        });
    }

    /// A sink that does not always take all bytes.
    struct Slow {
        received: Arc<Mutex<(Vec<u8>, Option<ReceiveEnd>)>>,
        turn: usize,
    }

    impl ReceiveSink for Slow {
        fn receive(&mut self, data: &[u8]) -> usize {
            self.turn += 1;
            let taken = if self.turn.is_multiple_of(3) { data.len() / 2 } else { data.len() };
            self.received.lock().0.extend_from_slice(&data[..taken]);
            taken
        }

        fn end(&mut self, end: ReceiveEnd) {
            self.received.lock().1 = Some(end);
        }
    }

    #[test]
    fn a_sink_gets_every_byte_once() {
        for settings in both() {
            block_on(async {
                let pair = pair(&settings).await;
                let data = pattern(3_000_000);
                let received = Arc::new(Mutex::new((Vec::new(), None)));
                let receive = async {
                    let stream = pair.server.accept_inbound_uni_stream().await.unwrap();
                    let sink = Box::new(Slow { received: received.clone(), turn: 0 });
                    assert!(stream.set_sink(sink).is_ok());
                    while received.lock().1.is_none() {
                        std::thread::yield_now();
                        stream.resume();
                    }
                };
                let send = async { send(&pair, &data, true).await.finish_write().await.unwrap() };
                futures::join!(send, receive);
                let (received, end) = std::mem::take(&mut *received.lock());
                assert!(received == data);
                assert_eq!(end, Some(ReceiveEnd::Finished));
            });
        }
    }

    #[test]
    fn streams_that_are_never_read_give_their_credit_back() {
        for settings in both() {
            block_on(async {
                let Pair { registration, listener, client, server } = pair(&settings).await;
                for _ in 0..20 {
                    let stream = client.open_outbound_stream(StreamType::Unidirectional, false);
                    let mut write = stream.await.unwrap().split().1.unwrap();
                    write.write_chunk(&pattern(30_000), true).await.unwrap();
                    // Dropped unread; further streams need its credit.
                    drop(server.accept_inbound_uni_stream().await.unwrap());
                }
                drop((client, server, listener));
                registration.wait_idle().await;
            });
        }
    }

    #[test]
    fn a_kept_chunk_stops_its_own_stream_at_the_window() {
        const WINDOW: usize = 1 << 16;
        if settings().holding() != Holding::Several {
            return;
        }
        block_on(async {
            let pair = pair(&settings()).await;
            let data = pattern(1_000_000);
            let write = send(&pair, &data, true).await;
            let stream = pair.server.accept_inbound_uni_stream().await.unwrap();
            let kept = stream.read_chunk().await.unwrap().unwrap();
            let mut received = kept.len();
            // All later chunks are dropped at once, and give no credit while the first is kept.
            while received < WINDOW {
                let chunk = stream.read_chunk().await.unwrap().unwrap();
                assert_eq!(*chunk, data[received..received + chunk.len()]);
                received += chunk.len();
            }
            assert_eq!(received, WINDOW);
            // Other streams are not affected.
            let receive = async {
                let mut stream = pair.server.accept_inbound_uni_stream().await.unwrap();
                assert!(stream.read_to_end(usize::MAX).await.unwrap() == data);
            };
            let send = async { send(&pair, &data, true).await.finish_write().await.unwrap() };
            futures::join!(send, receive);
            assert!(futures::poll!(std::pin::pin!(stream.read_chunk())).is_pending());
            assert_eq!(*kept, data[..kept.len()]);
            drop(kept);
            while let Some(chunk) = stream.read_chunk().await.unwrap() {
                assert_eq!(*chunk, data[received..received + chunk.len()]);
                received += chunk.len();
            }
            assert_eq!(received, data.len());
            drop(write);
        });
    }

    #[test]
    fn many_threads_drop_chunks_in_any_order() {
        for settings in both() {
            let settings = settings.stream_receive_window(1 << 18);
            let data = pattern(8_000_000);
            let (chunks, queue) = mpsc::channel::<(usize, crate::StreamRecvBuffer)>();
            let queue = Mutex::new(queue);
            std::thread::scope(|scope| {
                for seed in 1..=4_usize {
                    let (queue, data) = (&queue, &data);
                    scope.spawn(move || {
                        let (mut held, mut random) = (Vec::new(), seed);
                        loop {
                            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                            let next = queue.lock().recv_timeout(Duration::from_millis(1));
                            let is_idle = next.is_err();
                            if held.is_empty() && next == Err(mpsc::RecvTimeoutError::Disconnected)
                            {
                                return;
                            }
                            held.extend(next);
                            if held.len() > 5 || is_idle && !held.is_empty() {
                                let (start, chunk): (usize, crate::StreamRecvBuffer) =
                                    held.swap_remove((random >> 33) % held.len());
                                assert_eq!(*chunk, data[start..start + chunk.len()]);
                            }
                        }
                    });
                }
                block_on(async {
                    let pair = pair(&settings).await;
                    let receive = async {
                        let stream = pair.server.accept_inbound_uni_stream().await.unwrap();
                        let mut start = 0;
                        while let Some(chunk) = stream.read_chunk().await.unwrap() {
                            let length = chunk.len();
                            chunks.send((start, chunk)).unwrap();
                            start += length;
                        }
                        assert_eq!(start, data.len());
                    };
                    let send =
                        async { send(&pair, &data, true).await.finish_write().await.unwrap() };
                    futures::join!(send, receive);
                });
                drop(chunks);
            });
        }
    }

    #[test]
    fn chunks_are_dropped_while_the_stream_is_reset_or_stopped() {
        for settings in both() {
            block_on(async {
                let Pair { registration, listener, client, server } = pair(&settings).await;
                let data = pattern(100_000);
                for round in 0..40 {
                    let stream = client.open_outbound_stream(StreamType::Unidirectional, false);
                    let mut write = stream.await.unwrap().split().1.unwrap();
                    write.write_chunk(&data, false).await.unwrap();
                    let stream = server.accept_inbound_uni_stream().await.unwrap();
                    let first = stream.read_chunk().await.unwrap().unwrap();
                    let (kept, length) = (first.clone().into_bytes(), first.len());
                    let dropper = std::thread::spawn(move || drop(first));
                    match round % 4 {
                        0 => write.abort_write(7).unwrap(),
                        1 => stream.abort_read(7).unwrap(),
                        2 => drop(stream),
                        _ => {}
                    }
                    assert_eq!(kept, data[..length]);
                    std::thread::spawn(move || drop(kept)).join().unwrap();
                    dropper.join().unwrap();
                }
                drop((client, server, listener));
                registration.wait_idle().await;
            });
        }
    }
}
