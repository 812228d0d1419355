//! `Socket`: a UDP socket that bounds what unread data occupies.
//!
//! The system may return a batch of datagrams, of up to 64 KiB (GRO). quinn allocates it as a whole, which stays
//! while a byte of one datagram is unread, and counts that datagram only (quinn 0.11.12,
//! `RecvState::poll_socket`). A peer that does not send honestly could occupy some forty times what quinn
//! counts. While a connection may hold that much, this socket returns datagrams one by one.

use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

/// The size of the largest batch, in bytes.
const BATCH: usize = 64 * 1024;

/// How many batches are received at once.
const BATCHES: usize = quinn::udp::BATCH_SIZE;

pub(crate) struct Socket {
    socket: Arc<dyn AsyncUdpSocket>,
    /// How many connections need datagrams that do not share memory.
    separated: Arc<AtomicUsize>,
    received: Mutex<Received>,
}

/// Batches, and the datagrams in them that were not returned.
#[derive(Default)]
struct Received {
    /// Empty until it is needed.
    buffer: Vec<u8>,
    datagrams: VecDeque<(Range<usize>, RecvMeta)>,
}

impl Socket {
    pub(crate) fn new(socket: Arc<dyn AsyncUdpSocket>, separated: Arc<AtomicUsize>) -> Self {
        Self { socket, separated, received: Mutex::default() }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Received { buffer, datagrams } = &mut *self.received.lock();
        if datagrams.is_empty() && self.separated.load(Ordering::Relaxed) == 0 {
            return self.socket.poll_recv(context, buffers, metas);
        }
        while datagrams.is_empty() {
            buffer.resize(BATCH * BATCHES, 0);
            let mut batches = [RecvMeta::default(); BATCHES];
            let mut slices = buffer.chunks_mut(BATCH).map(IoSliceMut::new).collect::<Vec<_>>();
            let count = ready!(self.socket.poll_recv(context, &mut slices, &mut batches))?;
            for (index, batch) in batches[..count].iter().enumerate() {
                let (start, stride) = (index * BATCH, batch.stride.max(1));
                for begin in (0..batch.len).step_by(stride) {
                    let len = stride.min(batch.len - begin);
                    let range = start + begin..start + begin + len;
                    datagrams.push_back((range, RecvMeta { len, stride: len, ..*batch }));
                }
            }
        }
        let mut count = 0;
        for (to, meta) in buffers.iter_mut().zip(metas) {
            let Some((range, of_datagram)) = datagrams.pop_front() else { break };
            *meta = of_datagram;
            meta.len = meta.len.min(to.len()); // a longer one is not for this endpoint
            to[..meta.len].copy_from_slice(&buffer[range][..meta.len]);
            count += 1;
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.socket).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};
    use std::task::Waker;

    /// Returns a batch of three datagrams, an empty one and a single one, and then nothing.
    #[derive(Debug)]
    struct Batches(Mutex<bool>);

    const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7);

    impl AsyncUdpSocket for Batches {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!()
        }

        fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
            unreachable!()
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            buffers: &mut [IoSliceMut<'_>],
            metas: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            if std::mem::replace(&mut *self.0.lock(), true) {
                return Poll::Pending;
            }
            let batches = [(&b"aaabbbcc"[..], 3), (b"", 0), (b"dddd", 4)];
            for ((buffer, meta), (data, stride)) in buffers.iter_mut().zip(metas).zip(batches) {
                buffer[..data.len()].copy_from_slice(data);
                let (addr, len) = (ADDRESS, data.len());
                *meta = RecvMeta { addr, len, stride, ecn: None, dst_ip: None };
            }
            Poll::Ready(Ok(batches.len()))
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(ADDRESS)
        }
    }

    /// Returns what is received while so many connections need it separated.
    fn receive(separated: usize) -> Vec<(String, usize)> {
        let socket = Socket::new(Arc::new(Batches(Mutex::new(false))), Arc::new(separated.into()));
        let context = &mut Context::from_waker(Waker::noop());
        let mut received = Vec::new();
        loop {
            let mut memory = [[0; 100]; 3];
            let mut buffers = memory.each_mut().map(|buffer| IoSliceMut::new(buffer));
            let mut metas = [RecvMeta::default(); 3];
            let Poll::Ready(count) = socket.poll_recv(context, &mut buffers, &mut metas) else {
                return received;
            };
            for (buffer, meta) in buffers.iter().zip(metas).take(count.unwrap()) {
                assert_eq!(meta.addr, ADDRESS);
                let data = String::from_utf8(buffer[..meta.len].to_vec()).unwrap();
                received.push((data, meta.stride));
            }
        }
    }

    #[test]
    fn batches_are_separated_on_demand() {
        let expect = |datagrams: &[(&str, usize)]| {
            datagrams.iter().map(|(data, stride)| (data.to_string(), *stride)).collect::<Vec<_>>()
        };
        assert_eq!(receive(0), expect(&[("aaabbbcc", 3), ("", 0), ("dddd", 4)]));
        assert_eq!(receive(1), expect(&[("aaa", 3), ("bbb", 3), ("cc", 2), ("dddd", 4)]));
    }
}
