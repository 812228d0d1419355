//! Messages over loopback between two peers in one process: one way, and there and back.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use msquic_transport::{MsQuicNetConnection, MsQuicTransport};
use net_traits::{
    Bytes, NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Small messages are sent in bursts, so that one measurement is not the cost of starting it.
const BURST_BYTES: usize = 4 * 1024 * 1024;

async fn pair() -> (MsQuicNetConnection, MsQuicNetConnection) {
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let transport = MsQuicTransport::new();
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = transport.create_listener(address, &["bench/1"], credential.clone()).await;
    let listener = listener.unwrap();
    let connect = transport.connect(listener.local_addr(), &["bench/1"], credential);
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (client, server) = tokio::join!(connect, accept);
    (client.unwrap(), server)
}

fn one_way(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let (client, server) = runtime.block_on(pair());
    let mut group = criterion.benchmark_group("one-way");
    group.sample_size(10).measurement_time(Duration::from_secs(4));
    for size in [128, 4096, 64 * 1024, 1024 * 1024] {
        let message = Bytes::from(vec![7; size]);
        let count = (BURST_BYTES / size).min(10_000) as u64;
        group.throughput(Throughput::Bytes(count * size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.to_async(&runtime).iter_custom(|rounds| {
                let (client, server, message) = (client.clone(), server.clone(), message.clone());
                async move {
                    let messages = rounds * count;
                    let started = Instant::now();
                    let sender = tokio::spawn(async move {
                        for _ in 0..messages {
                            client.send_bytes(message.clone()).await.unwrap();
                        }
                    });
                    for _ in 0..messages {
                        server.recv().await.unwrap();
                    }
                    sender.await.unwrap();
                    started.elapsed()
                }
            });
        });
    }
    group.finish();
}

fn ping_pong(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let (client, server) = runtime.block_on(pair());
    runtime.spawn(async move {
        while let Ok((message, _)) = server.recv().await {
            server.send_bytes(message).await.unwrap();
        }
    });
    criterion.bench_function("ping-pong/128", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            client.send(&[7; 128]).await.unwrap();
            client.recv().await.unwrap();
        });
    });
}

criterion_group!(benches, one_way, ping_pong);
criterion_main!(benches);
