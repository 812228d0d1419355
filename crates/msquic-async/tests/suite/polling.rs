//! Each future and each polling function needs only the waker of its last poll, and keeps one while it is pending.

use super::peers::{client_configuration, credential, listen, pair_with, pattern, settings};
use crate::executors::run;
use futures::join;
use msquic_async::{Connection, ConnectionError, Registration, StreamLimits, StreamType};
use net_traits_test::Checked;
use std::future::poll_fn;

/// How often each operation is tried, each time with another sequence of spurious polls.
const ROUNDS: u64 = 3;

#[test]
fn connections_need_only_the_last_waker() {
    run(async || {
        for seed in 0..ROUNDS {
            let (settings, limits) = (settings().datagrams(true), StreamLimits::default());
            let registration = Registration::new("test").unwrap();
            let listener = listen(&registration, &settings, credential(), limits);
            let configuration = client_configuration(&registration, &settings, limits);
            let port = listener.local_addr().unwrap().port();
            let client = Connection::new(&registration, credential()).unwrap();
            let start = Checked::new(client.start(&configuration, "127.0.0.1", port), seed);
            let accept = async {
                let server = Checked::new(listener.accept(), seed).await.unwrap();
                Checked::new(server.accept(), seed).await.unwrap();
                server
            };
            let (started, server) = join!(start, accept);
            started.unwrap();

            let again = Connection::new(&registration, credential()).unwrap();
            let start = Checked::new(again.start(&configuration, "127.0.0.1", port), seed);
            let accept = Checked::new(poll_fn(|cx| listener.poll_accept(cx)), seed);
            let (started, accepted) = join!(start, accept);
            started.unwrap();
            drop((again, accepted));

            let datagram = pattern(1000);
            let send = async {
                for _ in 0..100 {
                    Checked::new(client.send_datagram_wait(&datagram), seed).await.unwrap();
                    let send = poll_fn(|cx| client.poll_send_datagram(cx, &datagram));
                    Checked::new(send, seed).await.unwrap();
                }
            };
            let receive = async {
                Checked::new(server.receive_datagram(), seed).await.unwrap();
                let receive = poll_fn(|cx| server.poll_receive_datagram(cx));
                Checked::new(receive, seed).await.unwrap();
            };
            join!(receive, send);

            let watch = Checked::new(server.watch_shutdown(), seed);
            let close = Checked::new(poll_fn(|cx| client.poll_shutdown(cx, 5)), seed);
            let (end, closed) = join!(watch, close);
            closed.unwrap();
            assert!(matches!(end, ConnectionError::ClosedByPeer { code: 5, .. }), "{end:?}");
            Checked::new(listener.stop(), seed).await.unwrap();
            Checked::new(poll_fn(|cx| listener.poll_stop(cx)), seed).await.unwrap();
        }
    });
}

#[test]
fn streams_need_only_the_last_waker() {
    run(async || {
        let limits = StreamLimits::new().send_buffer(1000).max_send_buffer(1000);
        let pair = pair_with(settings().send_buffering(false), limits).await;
        let chunk = pattern(5000);
        for seed in 0..ROUNDS {
            let send = async {
                let open = pair.client.open_outbound_stream(StreamType::Unidirectional, false);
                let stream = Checked::new(open, seed).await.unwrap();
                let mut write = stream.split().1.unwrap();
                for _ in 0..20 {
                    Checked::new(write.write_chunk(&chunk, false), seed).await.unwrap();
                    let chunks = std::slice::from_ref(&chunk);
                    Checked::new(write.enqueue(chunks), seed).await.unwrap();
                    let polled = poll_fn(|cx| write.poll_write_chunk(cx, &chunk, false));
                    Checked::new(polled, seed).await.unwrap();
                }
                Checked::new(write.flush(), seed).await.unwrap();
                Checked::new(write.finish_write(), seed).await.unwrap();
                Checked::new(write.stopped(), seed).await
            };
            let receive = async {
                let accept = pair.server.accept_inbound_uni_stream();
                let read = Checked::new(accept, seed).await.unwrap();
                let (mut received, mut buffer) = (0, [0; 777]);
                loop {
                    let polled = poll_fn(|cx| read.poll_read(cx, &mut buffer));
                    received += Checked::new(polled, seed).await.unwrap();
                    match Checked::new(read.read_chunk(), seed).await.unwrap() {
                        Some(chunk) => received += chunk.len(),
                        None => break,
                    }
                }
                assert_eq!(Checked::new(read.received_reset(), seed).await, Ok(None));
                received
            };
            let (stopped, received) = join!(send, receive);
            assert_eq!((stopped, received), (Ok(None), 20 * 3 * 5000));
        }
    });
}
