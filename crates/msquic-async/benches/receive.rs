//! Messages in one direction over loopback, copied out of msquic or read in its memory. The time
//! that criterion reports is the processor time of both ends. Each sample has its own connection,
//! since it matters whether both ends share one of msquic's workers.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use msquic_async::{
    Configuration, Connection, Listener, NetCredential, ReadStream, Registration, Settings,
    StreamType, TrustPolicy, WriteStream,
};
use std::hint::black_box;
use std::time::Duration;
use tokio::runtime::Runtime;

const ALPN: &str = "bench/1";

/// How many bytes one measurement sends at least.
const BURST_BYTES: usize = 4 * 1024 * 1024;

/// Two ends of a stream, and what keeps them alive.
struct Lane {
    write: WriteStream,
    read: ReadStream,
    _peers: (Connection, Connection, Listener),
}

async fn lane(zero_copy: bool) -> Lane {
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let settings = Settings::new().peer_uni_streams(1).zero_copy_receive(zero_copy);
    let registration = Registration::new("bench").unwrap();
    let server = Configuration::server(&registration, &[ALPN], &settings, &credential).unwrap();
    let listener = Listener::new(&registration, server, credential.clone()).unwrap();
    listener.start(&[ALPN], Some("127.0.0.1:0".parse().unwrap())).unwrap();
    let client = Connection::new(&registration, credential.clone()).unwrap();
    let configuration =
        Configuration::client(&registration, &[ALPN], &settings, &credential).unwrap();
    let port = listener.local_addr().unwrap().port();
    let accept = async {
        let server = listener.accept().await.unwrap();
        server.accept().await.unwrap();
        server
    };
    let (started, server) = tokio::join!(client.start(&configuration, "127.0.0.1", port), accept);
    started.unwrap();
    let stream = client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
    let mut write = stream.split().1.unwrap();
    write.write_chunk(&Bytes::from_static(b"!"), false).await.unwrap();
    let read = server.accept_inbound_uni_stream().await.unwrap();
    assert_eq!(read.read_chunk().await.unwrap().unwrap().len(), 1);
    Lane { write, read, _peers: (client, server, listener) }
}

/// Writes `message` `messages` times and passes each chunk to `take`.
async fn transfer(lane: &mut Lane, message: &Bytes, messages: u64, mut take: impl FnMut(&[u8])) {
    let Lane { write, read, .. } = lane;
    let send = async {
        for _ in 0..messages {
            let mut rest = message.clone();
            while !rest.is_empty() {
                let written = write.write_chunk(&rest, false).await.unwrap();
                rest = rest.slice(written..);
            }
        }
    };
    let receive = async {
        let mut missing = messages as usize * message.len();
        while missing > 0 {
            let chunk = read.read_chunk().await.unwrap().unwrap();
            take(&chunk);
            missing -= chunk.len();
        }
    };
    tokio::join!(send, receive);
}

/// The processor time that this process has used.
fn used() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(now).unwrap()
}

fn receive(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    for (name, zero_copy) in [("copied", false), ("in-place", true)] {
        let mut group = criterion.benchmark_group(format!("receive/{name}"));
        group.sample_size(20).measurement_time(Duration::from_secs(5));
        for size in [64 * 1024, 256 * 1024, 1024 * 1024] {
            let message = Bytes::from(vec![7; size]);
            let count = (BURST_BYTES / size) as u64;
            group.throughput(Throughput::Bytes(count * size as u64));
            // Each byte is read once.
            group.bench_function(BenchmarkId::new("read", size), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut lane = runtime.block_on(lane(zero_copy));
                    let before = used();
                    let take = |bytes: &[u8]| {
                        black_box(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
                    };
                    runtime.block_on(transfer(&mut lane, &message, rounds * count, take));
                    used() - before
                });
            });
            // The message is assembled in memory of the application.
            let mut whole = Vec::with_capacity(2 * size);
            group.bench_function(BenchmarkId::new("collect", size), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut lane = runtime.block_on(lane(zero_copy));
                    let before = used();
                    let take = |bytes: &[u8]| {
                        if whole.len() + bytes.len() > whole.capacity() {
                            whole.clear();
                        }
                        whole.extend_from_slice(bytes);
                    };
                    runtime.block_on(transfer(&mut lane, &message, rounds * count, take));
                    used() - before
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, receive);
criterion_main!(benches);
