//! `Socket`: a UDP socket that bounds what unread data occupies, and what is sent at once.
//!
//! The system may return a batch of datagrams, of up to 64 KiB (GRO). quinn allocates it as a whole, which stays
//! while a byte of one datagram is unread, and counts that datagram only (quinn 0.11.12,
//! `RecvState::poll_socket`). A peer that does not send honestly could occupy some forty times what quinn
//! counts. This socket therefore returns the datagrams of a batch one by one if they are not all for one
//! connection, which counts them, and all datagrams while a connection may hold too much.
//!
//! quinn sends up to 10 packets at once (GSO; quinn 0.11.12, `MAX_TRANSMIT_SEGMENTS`). Of jumbo packets these are more
//! than the system takes, which sends none of them, and quinn-udp 0.5.16 drops the error, since the probes of
//! path MTU discovery cause it too.

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
pub(crate) const BATCH: usize = 64 * 1024;

/// The most that can be sent at once, in bytes: an IPv4 packet of 65,535 bytes without the headers of IPv4 and UDP.
const TRANSMIT: usize = 65_507;

/// How many batches are received at once.
const BATCHES: usize = quinn::udp::BATCH_SIZE;

pub(crate) struct Socket {
    socket: Arc<dyn AsyncUdpSocket>,
    /// How many connections need datagrams that do not share memory.
    separated: Arc<AtomicUsize>,
    /// The size of the largest datagram that is sent, in bytes.
    datagram: usize,
    received: Mutex<Received>,
}

/// Batches, and the datagrams in them that were not returned.
#[derive(Default)]
struct Received {
    /// Empty until it is needed.
    buffer: Vec<u8>,
    datagrams: VecDeque<(Range<usize>, RecvMeta)>,
}

impl Received {
    /// Adds the datagrams of batches, each at a multiple of `BATCH` in the buffer.
    fn separate(&mut self, batches: &[RecvMeta]) {
        for (index, batch) in batches.iter().enumerate() {
            let (start, stride) = (index * BATCH, batch.stride.max(1));
            // An empty batch is an empty datagram, so that each call returns something.
            for begin in (0..batch.len.max(1)).step_by(stride) {
                let len = stride.min(batch.len - begin);
                let range = start + begin..start + begin + len;
                self.datagrams.push_back((range, RecvMeta { len, stride: len, ..*batch }));
            }
        }
    }
}

/// The size of the connection IDs of an endpoint, in bytes: quinn-proto 0.11.19, `HashedConnectionIdGenerator`.
const CONNECTION_ID: usize = 8;

/// Returns whether all datagrams of a batch are for the same connection ID, in packets with short headers
/// (RFC 9000, section 17.3.1).
fn is_for_one_connection(batch: &[u8], stride: usize) -> bool {
    let connection_id = |datagram: &[u8]| match datagram {
        [first, rest @ ..] if first & 0x80 == 0 => rest.first_chunk::<CONNECTION_ID>().copied(),
        _ => None,
    };
    let mut datagrams = batch.chunks(stride.max(1)).map(connection_id);
    let first = datagrams.next().flatten();
    batch.len() <= stride || first.is_some() && datagrams.all(|id| id == first)
}

impl Socket {
    /// Wraps the socket of an endpoint whose largest datagram has so many bytes.
    pub(crate) fn new(
        socket: Arc<dyn AsyncUdpSocket>,
        separated: Arc<AtomicUsize>,
        datagram: usize,
    ) -> Self {
        Self { socket, separated, datagram, received: Mutex::default() }
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
        let received = &mut *self.received.lock();
        if received.datagrams.is_empty() && self.separated.load(Ordering::Relaxed) == 0 {
            let count = ready!(self.socket.poll_recv(context, buffers, metas))?;
            let batches = || {
                buffers.iter().zip(&*metas).take(count).map(|(buffer, meta)| &buffer[..meta.len])
            };
            if batches().zip(&*metas).all(|(batch, meta)| is_for_one_connection(batch, meta.stride))
            {
                return Poll::Ready(Ok(count));
            }
            let size = received.buffer.len().max(BATCH * count);
            received.buffer.resize(size, 0);
            for (batch, to) in batches().zip(received.buffer.chunks_mut(BATCH)) {
                to[..batch.len()].copy_from_slice(batch);
            }
            received.separate(&metas[..count]);
        } else if received.datagrams.is_empty() {
            received.buffer.resize(BATCH * BATCHES, 0);
            let mut batches = [RecvMeta::default(); BATCHES];
            let mut slices =
                received.buffer.chunks_mut(BATCH).map(IoSliceMut::new).collect::<Vec<_>>();
            let count = ready!(self.socket.poll_recv(context, &mut slices, &mut batches))?;
            received.separate(&batches[..count]);
        }
        let Received { buffer, datagrams } = received;
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
        self.socket.max_transmit_segments().min((TRANSMIT / self.datagram).max(1))
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
    use quinn::{Runtime, TokioRuntime};
    use std::net::{IpAddr, Ipv4Addr, UdpSocket};
    use std::task::Waker;

    /// Returns these batches, each with its stride, and then nothing.
    #[derive(Debug)]
    struct Batches(Mutex<Vec<(Vec<u8>, usize)>>);

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
            let batches = std::mem::take(&mut *self.0.lock());
            for ((buffer, meta), (data, stride)) in buffers.iter_mut().zip(metas).zip(&batches) {
                buffer[..data.len()].copy_from_slice(data);
                let (addr, len, stride) = (ADDRESS, data.len(), *stride);
                *meta = RecvMeta { addr, len, stride, ecn: None, dst_ip: None };
            }
            if batches.is_empty() { Poll::Pending } else { Poll::Ready(Ok(batches.len())) }
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(ADDRESS)
        }
    }

    /// The datagrams of a batch, and the stride of its metadata.
    type Batch = (Vec<u8>, usize);

    /// Returns what is received of these batches while so many connections need them separated.
    fn receive(batches: &[Batch], separated: usize) -> Vec<Batch> {
        let socket = Batches(Mutex::new(batches.to_vec()));
        let socket = Socket::new(Arc::new(socket), Arc::new(separated.into()), 100);
        let context = &mut Context::from_waker(Waker::noop());
        let mut received = Vec::new();
        loop {
            let mut memory = [[0; 100]; 3];
            let mut buffers = memory.each_mut().map(|buffer| IoSliceMut::new(buffer));
            let mut metas = [RecvMeta::default(); 3];
            let Poll::Ready(count) = socket.poll_recv(context, &mut buffers, &mut metas) else {
                return received;
            };
            let count = count.unwrap();
            assert!(count > 0);
            for (buffer, meta) in buffers.iter().zip(metas).take(count) {
                assert_eq!(meta.addr, ADDRESS);
                received.push((buffer[..meta.len].to_vec(), meta.stride));
            }
        }
    }

    /// A datagram whose packet has a short header and this connection ID.
    fn short(connection_id: u8, payload: &[u8]) -> Vec<u8> {
        [&[0x40][..], &[connection_id; CONNECTION_ID], payload].concat()
    }

    fn batch(datagrams: &[Vec<u8>]) -> Batch {
        (datagrams.concat(), datagrams[0].len())
    }

    /// The same datagrams, each as a batch.
    fn alone(datagrams: &[Vec<u8>]) -> Vec<Batch> {
        datagrams.iter().map(|datagram| (datagram.clone(), datagram.len())).collect()
    }

    #[test]
    fn batches_are_separated_on_demand() {
        let of_one = [short(1, b"abc"), short(1, b"def"), short(1, b"g")];
        let (empty, single) = ((vec![], 0), batch(&[vec![0x80; 9]]));
        let batches = [batch(&of_one), empty.clone(), single.clone()];
        assert_eq!(receive(&batches, 0), batches);
        assert_eq!(receive(&batches, 1), [alone(&of_one), vec![empty, single]].concat());
    }

    #[test]
    fn batches_for_more_than_one_connection_are_separated() {
        let of_one = [short(1, b"abc"), short(1, b"d")];
        let long = |payload: u8| vec![0xC0, 1, 1, 1, 1, 1, 1, 1, 1, payload];
        for of_more in [
            [short(1, b"abc"), short(1, b"def"), short(2, b"ghi")],
            [short(2, b"abc"), short(1, b"def"), short(1, b"ghi")],
            [short(1, b"abc"), short(1, b"def"), vec![0x40, 1]],
            [vec![0x40, 1, 1, 1], vec![0x40, 1, 1, 1], vec![0x40, 1, 1, 1]],
            [long(1), long(2), long(3)],
        ] {
            let received = receive(&[batch(&of_one), batch(&of_more), batch(&of_one)], 0);
            let expected = [alone(&of_one), alone(&of_more), alone(&of_one)].concat();
            assert_eq!(received, expected);
        }
    }

    #[tokio::test]
    async fn what_is_sent_at_once_arrives() {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        receiver.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let destination = receiver.local_addr().unwrap();
        for size in [1472, 8972] {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let socket = TokioRuntime.wrap_udp_socket(socket).unwrap();
            let socket = Socket::new(socket, Arc::default(), size);
            let segments = socket.max_transmit_segments().min(10); // as quinn does
            let contents = vec![7; segments * size];
            let (contents, segment_size) = (contents.as_slice(), Some(size));
            let ecn = None;
            let transmit = Transmit { destination, ecn, contents, segment_size, src_ip: None };
            let mut poller = socket.socket.clone().create_io_poller();
            std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
            socket.try_send(&transmit).unwrap();
            for _ in 0..segments {
                let mut buffer = [0; 9000];
                assert_eq!(receiver.recv(&mut buffer).unwrap(), size, "{segments} segments");
            }
        }
    }
}
