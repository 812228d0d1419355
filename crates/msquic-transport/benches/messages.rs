//! Two peers in one process over loopback: one-way messages, round trips and handshakes.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use msquic_transport::{MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig};
use net_traits::{
    Bytes, NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Small messages are sent in bursts, so that the start of a measurement does not dominate it.
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

/// Handshakes with mutual TLS: the time of each, for several at once.
fn handshake(criterion: &mut Criterion) {
    handshakes(criterion, "handshake", false, false);
    // With a message; the ticket arrives before it.
    handshakes(criterion, "handshake-full", true, false);
    handshakes(criterion, "handshake-resumed", true, true);
}

fn handshakes(criterion: &mut Criterion, name: &str, with_message: bool, resumption: bool) {
    let runtime = Runtime::new().unwrap();
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let config =
        MsQuicTransportConfig::new().max_connections_per_identity(1_000_000).resumption(resumption);
    let transport = Arc::new(MsQuicTransport::with_config(config).unwrap());
    let address = "127.0.0.1:0".parse().unwrap();
    let listen = transport.create_listener(address, &["bench/1"], credential.clone());
    let listener = runtime.block_on(listen).unwrap();
    let address = listener.local_addr();
    let serve = runtime.spawn(async move {
        while let Ok(request) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(connection) = request.accept().await {
                    if with_message {
                        connection.send(b"hello").await.unwrap();
                    }
                    connection.watch_close().await;
                }
            });
        }
    });
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).measurement_time(Duration::from_secs(4));
    for at_once in [1, 16] {
        group.throughput(Throughput::Elements(at_once));
        group.bench_function(BenchmarkId::from_parameter(at_once), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                let dials = (0..at_once).map(|_| {
                    let (transport, credential) = (transport.clone(), credential.clone());
                    tokio::spawn(async move {
                        let dial = transport.connect(address, &["bench/1"], credential);
                        let connection = dial.await.unwrap();
                        if with_message {
                            connection.recv().await.unwrap();
                        }
                    })
                });
                for dial in dials.collect::<Vec<_>>() {
                    dial.await.unwrap();
                }
            });
        });
    }
    group.finish();
    serve.abort();
}

criterion_group!(benches, one_way, ping_pong, handshake);
criterion_main!(benches);
