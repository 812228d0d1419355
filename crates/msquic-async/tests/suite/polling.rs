//! Each future and each polling function needs only the waker of its last poll, and keeps one while it is pending.

use super::peers::{client_configuration, credential, listen, pair_with, pattern, settings};
use crate::executors::run;
use futures::join;
use msquic_async::{
    Configuration, Connection, ConnectionError, Dial, Listener, Registration, SendStream, Stream,
    StreamLimits, StreamType,
};
use net_traits_test::Checked;
use std::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How often each operation is tried, each time with another sequence of spurious polls.
const ROUNDS: u64 = 3;

/// Returns a listener and the configuration of its clients, with datagrams.
fn endpoints() -> (Registration, Listener, Configuration) {
    let (settings, limits) = (settings().datagrams(true), StreamLimits::default());
    let registration = Registration::new("test").unwrap();
    let listener = listen(&registration, &settings, credential(), limits);
    let configuration = client_configuration(&registration, &settings, limits);
    (registration, listener, configuration)
}

#[test]
fn connections_need_only_the_last_waker() {
    run(async || {
        for seed in 0..ROUNDS {
            let (registration, listener, configuration) = endpoints();
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
            drop((client, server, listener, configuration));
            Checked::new(registration.wait_idle(), seed).await;
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

#[test]
fn observers_of_connections_need_only_the_last_waker() {
    run(async || {
        for seed in 0..ROUNDS {
            let (registration, listener, configuration) = endpoints();
            let (dial, credential) = (Dial::from(listener.local_addr().unwrap()), credential());
            let connect = dial.connect(&registration, &configuration, &credential);
            let accept = async {
                let server = Checked::new(listener.accept(), seed).await.unwrap();
                let (accepted, certificate) = join!(
                    Checked::new(server.accept(), seed),
                    Checked::new(server.receive_remote_certificate(), seed)
                );
                assert_eq!(accepted.map(|()| certificate.is_ok()), Ok(true));
                server
            };
            let (client, server) = join!(Checked::new(connect, seed), accept);
            let client = client.unwrap();

            let sent = client.send_datagram_tracked(&pattern(100)).unwrap();
            Checked::new(sent, seed).await; // it may be lost
            Checked::new(client.statistics(), seed).await.unwrap();
            Checked::new(client.settings(), seed).await.unwrap();
            Checked::new(client.set_settings(&settings().datagrams(true)), seed).await.unwrap();
            let keys = client.export_keying_material(b"label", b"context", 32);
            Checked::new(keys, seed).await.unwrap();

            // All of them wait for the end.
            let moved = Checked::new(client.address_changed(), seed);
            let change = async { while Checked::new(client.next_change(), seed).await.is_ok() {} };
            let polled = async {
                while Checked::new(poll_fn(|cx| client.poll_change(cx)), seed).await.is_ok() {}
            };
            let close = async { server.shutdown(0, "") };
            assert!(join!(moved, change, polled, close).0.is_err());

            let again = Connection::new(&registration, credential).unwrap();
            let start = Checked::new(again.start_with(&configuration, dial), seed);
            let refuse = async {
                Checked::new(listener.accept_incoming(), seed).await.unwrap().refuse(0);
            };
            assert!(join!(start, refuse).0.is_err());
        }
    });
}

#[test]
fn both_directions_of_a_stream_need_only_the_last_waker() {
    run(async || {
        let limits = StreamLimits::new().send_buffer(1000).max_send_buffer(1000);
        let pair = pair_with(settings().send_buffering(false), limits).await;
        let data = &pattern(5000)[..];
        for seed in 0..ROUNDS {
            let ask = async {
                let mut stream = Stream::open(&pair.client, StreamType::Bidirectional).unwrap();
                let start = poll_fn(|cx| stream.poll_start(cx, false));
                Checked::new(start, seed).await.unwrap();
                Checked::new(stream.write_all(data), seed).await.unwrap();
                Checked::new(stream.flush(), seed).await.unwrap();
                let chunks = [pattern(900), pattern(100)];
                let written = poll_fn(|cx| stream.poll_write_chunks(cx, &chunks, false));
                assert_eq!(Checked::new(written, seed).await, Ok(1000));
                Checked::new(stream.shutdown(), seed).await.unwrap();
                let mut read = stream.split().0.unwrap();
                let answer = Checked::new(read.read_to_end(6000), seed).await.unwrap();
                assert_eq!(answer.len(), 6000);
            };
            let answer = async {
                let accept = poll_fn(|cx| pair.server.poll_accept_inbound_stream(cx));
                let mut stream = Checked::new(accept, seed).await.unwrap();
                let mut question = vec![0; 5000];
                Checked::new(stream.read_exact(&mut question), seed).await.unwrap();
                assert!(question == data);
                loop {
                    let chunk = poll_fn(|cx| stream.poll_read_chunk(cx));
                    match Checked::new(chunk, seed).await.unwrap() {
                        Some(chunk) => question.extend_from_slice(&chunk),
                        None => break,
                    }
                }
                let mut write = stream.split().1.unwrap();
                let mut written = 0;
                while written < question.len() {
                    let write = poll_fn(|cx| write.poll_write(cx, &question[written..], true));
                    written += Checked::new(write, seed).await.unwrap();
                }
                let finish = poll_fn(|cx| write.poll_finish_write(cx));
                Checked::new(finish, seed).await.unwrap();
                let chunks = [pattern(1)];
                assert!(Checked::new(write.write_chunks(&chunks, true), seed).await.is_err());
            };
            join!(ask, answer);

            let send = async {
                let mut stream = match seed {
                    0 => SendStream::open(&pair.server).unwrap(),
                    _ => Checked::new(pair.server.open_send_stream(), seed).await.unwrap(),
                };
                let start = poll_fn(|cx| stream.poll_start(cx, false));
                Checked::new(start, seed).await.unwrap();
                for _ in 0..5 {
                    Checked::new(stream.send(pattern(5000)), seed).await.unwrap();
                }
                Checked::new(poll_fn(|cx| stream.poll_finish(cx)), seed).await.unwrap();
            };
            let receive = async {
                let accept = poll_fn(|cx| pair.client.poll_accept_inbound_uni_stream(cx));
                let mut stream = Checked::new(accept, seed).await.unwrap();
                Checked::new(stream.read_to_end(25_000), seed).await.unwrap().len()
            };
            assert_eq!(join!(send, receive).1, 25_000);
        }
    });
}
