//! Received bytes: borrowed during the callback, or held beyond it where they are.

use super::stream::{NativeStream, StreamHold};
use bytes::Bytes;
use msquic::ffi::QUIC_BUFFER;
use std::cell::Cell;
use std::ptr;
use std::slice;
use std::sync::Arc;

/// Bytes that arrived, valid during the callback.
pub(crate) struct Received<'a> {
    pub(super) buffers: &'a [QUIC_BUFFER],
    /// Whether the stream ends behind them.
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

    /// The same bytes without a copy, beyond the callback. When all of them are dropped, libmsquic
    /// learns that they are done with, and no more arrive before.
    pub(crate) fn hold(&self, stream: &Arc<NativeStream>) -> Vec<Bytes> {
        let length = self.length() as u64;
        // The end alone has no bytes. Before the last event a stream can be held.
        let Some(stream) = stream.hold().filter(|_| length > 0) else { return Vec::new() };
        self.is_held.set(true);
        let block = Arc::new(Block { length, stream });
        let hold = |data| Bytes::from_owner(Held { data, _block: block.clone() });
        self.slices().map(|data| hold(ptr::from_ref(data))).collect()
    }
}

/// The bytes of one event, in libmsquic's memory. Keeps the stream's handle open.
struct Block {
    length: u64,
    stream: StreamHold,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.stream.complete_receive(self.length);
    }
}

/// A run of bytes of a block.
struct Held {
    data: *const [u8],
    _block: Arc<Block>,
}

// SAFETY: C32: the bytes are only read, from any thread, until the value is dropped.
unsafe impl Send for Held {}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: C32: they stay where they are, unchanged, until the block completes them or the
        // stream is closed, which the block prevents.
        unsafe { &*self.data }
    }
}

#[cfg(test)]
mod tests {
    use crate::ffi::raw::testing::{Pair, pair};
    use crate::{ReadError, ReceiveEnd, ReceiveSink, Settings, StreamType};
    use bytes::Bytes;
    use futures::executor::block_on;
    use parking_lot::Mutex;
    use std::sync::Arc;

    fn settings() -> Settings {
        let settings = Settings::new().peer_uni_streams(4).peer_bidi_streams(1);
        // SAFETY: both peers are this test.
        unsafe { settings.zero_copy_receive_from_trusted_peers() }
    }

    fn pattern(length: usize) -> Bytes {
        (0..length).map(|index| (index.wrapping_mul(31) >> 3) as u8).collect()
    }

    /// Sends `data` on a stream of its own.
    async fn send(pair: &Pair, data: &Bytes, fin: bool) -> crate::WriteStream {
        let open = pair.client.open_outbound_stream(StreamType::Unidirectional, false);
        let mut write = open.await.unwrap().split().1.unwrap();
        write.write_chunk(data, fin).await.unwrap();
        write
    }

    #[test]
    fn bytes_are_read_where_they_are() {
        block_on(async {
            let pair = pair(&settings()).await;
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
            let send = async { self::send(&pair, &data, true).await.finish_write().await.unwrap() };
            futures::join!(send, receive);
        });
    }

    #[test]
    fn a_held_chunk_stays_while_everything_else_goes() {
        block_on(async {
            let pair = pair(&settings()).await;
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
            std::thread::spawn(move || assert_eq!(part, expected.slice(100..kept))).join().unwrap();
            assert_eq!(&*chunk, &data[..kept]);
            assert!(futures::poll!(std::pin::pin!(registration.wait_idle())).is_pending());
            drop(chunk);
            registration.wait_idle().await;
        });
    }

    #[test]
    fn a_held_chunk_stops_the_stream_and_its_drop_resumes_it() {
        block_on(async {
            let pair = pair(&settings()).await;
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

    /// Takes a few bytes at a time and says when it is full.
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
        block_on(async {
            let pair = pair(&settings()).await;
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

    #[test]
    fn what_nobody_reads_is_given_back() {
        block_on(async {
            let Pair { registration, listener, client, server } = pair(&settings()).await;
            for _ in 0..20 {
                let stream = client.open_outbound_stream(StreamType::Unidirectional, false);
                let mut write = stream.await.unwrap().split().1.unwrap();
                write.write_chunk(&pattern(30_000), true).await.unwrap();
                // Dropped unread; the next ones need its place.
                drop(server.accept_inbound_uni_stream().await.unwrap());
            }
            drop((client, server, listener));
            registration.wait_idle().await;
        });
    }
}
