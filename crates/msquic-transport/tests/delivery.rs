//! What was sent before an orderly close arrives, however slow the receiver is.

mod common;

use common::{ALPN, Pair, credentials, lacks_patch, pair_with, pattern, run};
use msquic_async::ConnectionError;
use msquic_async::{
    Configuration, Connection, ReadError, ReadStream, Registration, Settings, StreamType,
};
use msquic_transport::{
    MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig, STREAM_CODE_MESSAGE_TOO_LARGE,
};
use net_kit::alpn::RECEIPTS;
use net_kit::receipts::Control;
use net_traits::{
    CloseOutcome, CloseReason, NetConnection, NetIncomingRequest, NetListener, NetTransport,
    RecvError, SendAckedError, SendError,
};
use quinn_transport::QuinnTransport;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::timeout;

/// Receives until the end and returns the number of messages.
async fn count(connection: &impl NetConnection) -> (usize, CloseReason) {
    let mut count = 0;
    loop {
        match connection.recv().await {
            Ok(_) => count += 1,
            Err(RecvError::Closed(reason)) => return (count, reason),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_receiver_that_reads_after_the_close_loses_nothing() {
    if lacks_patch("N60") {
        return;
    }
    run(async {
        for streams in [1, 3] {
            // A queue of four messages; the window of each stream holds all the others.
            let server = MsQuicTransportConfig::new().receive_queue(64 * 1024);
            let client = MsQuicTransportConfig::new().send_streams(streams);
            let Pair { client, server, .. } = pair_with(server, client).await;
            for _ in 0..30 {
                client.send_bytes(pattern(16 * 1024)).await.unwrap();
            }
            assert_eq!(client.close(9, "").await, CloseOutcome::Acknowledged);
            let end = CloseReason::Peer { code: 9, reason: String::new() };
            assert_eq!(count(&server).await, (30, end), "with {streams} streams");
        }
    });
}

#[test]
fn a_first_message_that_a_close_follows_is_received() {
    if lacks_patch("N60") {
        return;
    }
    run(async {
        let (for_server, for_client) = credentials();
        let bind_addr = "127.0.0.1:0".parse().unwrap();
        let listening = MsQuicTransport::new();
        let listener = listening.create_listener(bind_addr, &[ALPN], for_server).await.unwrap();
        let dialling = MsQuicTransport::new();
        let message = pattern(300_000);
        let end = CloseReason::Peer { code: 9, reason: String::new() };
        for round in 0..200 {
            let dial = dialling.connect(listener.local_addr(), &[ALPN], for_client.clone());
            let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
            let (client, server) = tokio::join!(dial, accept);
            let client = client.unwrap();
            let send = async {
                client.send_bytes(message.clone()).await.unwrap();
                client.close(9, "").await
            };
            let (received, outcome) = tokio::join!(server.recv(), send); // `recv` waits first
            let received = received.map(|(received, _)| received);
            assert!(received.as_ref() == Ok(&message), "round {round}: {:?}", received.err());
            assert_eq!(outcome, CloseOutcome::Acknowledged, "round {round}");
            assert_eq!(count(&server).await, (0, end.clone()), "round {round}");
        }
    });
}

#[test]
fn many_drops_with_queued_messages_end_within_the_linger_time() {
    run(async {
        let (for_server, for_client) = credentials();
        let config = MsQuicTransportConfig::new().receive_queue(64 * 1024).max_inbound_streams(1);
        let listener = MsQuicTransport::with_config(config)
            .unwrap()
            .create_listener("127.0.0.1:0".parse().unwrap(), &[ALPN], for_server)
            .await
            .unwrap();
        // The second stream is opened in the background, and waits for the peer's permission.
        for streams in [1, 2] {
            let hour = Duration::from_secs(3600);
            let config = MsQuicTransportConfig::new().send_streams(streams);
            let config = config.stream_op_timeout(hour).operation_timeout(hour);
            let dialler = MsQuicTransport::with_config(config.linger(Duration::from_millis(300)));
            let dialler = dialler.unwrap();
            let mut peers = Vec::new();
            for _ in 0..15 {
                let dial = dialler.connect(listener.local_addr(), &[ALPN], for_client.clone());
                let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
                let (client, server) = tokio::join!(dial, accept);
                let client = client.unwrap();
                client.send_bytes(pattern(100_000)).await.unwrap();
                while client.try_send(pattern(100_000)).is_ok() {}
                peers.push(server); // it does not read
            }
            for server in peers {
                let end = CloseReason::Peer { code: 0, reason: String::new() };
                assert_eq!(server.watch_close().await, end);
            }
            dialler.shutdown(hour, "").await; // waits until the last connection has gone
            let lost = dialler.statistics().undelivered_messages;
            assert!(streams == 2 || lost >= 15, "{lost}");
        }
        while has_thread("msquic-linger") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

fn has_thread(name: &str) -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = threads.filter_map(|it| std::fs::read_to_string(it.path().join("comm")).ok());
    names.into_iter().any(|it| it.trim() == name)
}

#[test]
fn a_first_message_arrives_before_the_close_although_the_queue_is_full() {
    if lacks_patch("N60") {
        return; // of the second stream nothing arrives
    }
    run(async {
        let (client, server) = (MsQuicTransportConfig::new(), MsQuicTransportConfig::new());
        let client = client.receive_queue(64 * 1024);
        let Pair { client, server, .. } = pair_with(server, client).await;
        server.send_bytes(pattern(64 * 1024)).await.unwrap();
        server.flush().await.unwrap(); // the queue is full
        server.send_urgent(pattern(300_000)).await.unwrap();
        assert_eq!(server.close(9, "").await, CloseOutcome::Acknowledged);
        assert_eq!(client.recv().await.unwrap().0.len(), 64 * 1024);
        assert_eq!(client.recv().await.unwrap().0.len(), 300_000);
    });
}

/// Sends until the peer stops the stream because of a message over its limit.
async fn send_until_stopped(client: &MsQuicNetConnection, server: &MsQuicNetConnection) {
    client.send_bytes(pattern(2000)).await.unwrap();
    let error = server.recv().await.unwrap_err();
    assert!(matches!(error, RecvError::TooLarge { .. }), "{error}");
    loop {
        match client.send(b"behind").await {
            Ok(()) => tokio::task::yield_now().await,
            Err(SendError::Stopped { .. }) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_flush_and_a_close_tell_what_was_lost_with_a_stopped_stream() {
    run(async {
        let server = MsQuicTransportConfig::new().max_received_message(1000);
        let Pair { client, server, .. } = pair_with(server, MsQuicTransportConfig::new()).await;
        send_until_stopped(&client, &server).await; // another task learns of it
        let flushed = client.flush().await;
        assert!(matches!(flushed, Err(SendError::Stopped { .. })), "{flushed:?}");
        client.send(b"good").await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(server.recv().await.unwrap().0, "good");
        let outcome = client.close(0, "").await;
        assert!(matches!(outcome, CloseOutcome::Undelivered { messages: 1.., .. }), "{outcome:?}");
    });
}

/// Reads from a stream until it has brought these bytes.
async fn read_until(stream: &ReadStream, end: &[u8]) {
    let mut received = Vec::new();
    while !received.ends_with(end) {
        received.extend_from_slice(&stream.read_chunk().await.unwrap().unwrap());
    }
}

/// Confirms what arrives on a stream whenever the peer asks.
async fn confirm(raw: &Connection, stream: &ReadStream) -> Infallible {
    let opened = raw.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
    let confirmations = opened.split().1.unwrap();
    loop {
        let chunk = stream.read_chunk().await.unwrap().unwrap();
        let number = u32::from_be_bytes(*chunk.last_chunk().unwrap());
        assert_eq!(chunk[..], Control::Probe(number).encode());
        let confirmation = Control::Confirmation(number).encode();
        confirmations.enqueue(&[confirmation.into()]).await.unwrap();
    }
}

#[test]
fn a_stop_after_all_messages_are_confirmed_loses_nothing() {
    /// Connects to a bare peer that reads and confirms a message, and then stops the stream with this code.
    async fn stop<T: NetTransport>(transport: T, code: u64) -> (T::Connection, Connection) {
        let (server, raw) = raw_peer_of(transport, &[ALPN, RECEIPTS].concat()).await;
        let read_and_stop = async {
            let stream = raw.accept_inbound_uni_stream().await.unwrap();
            read_until(&stream, b"one").await;
            let flushed = tokio::select! {
                flushed = server.flush() => flushed,
                never = confirm(&raw, &stream) => match never {},
            };
            assert_eq!(flushed, Ok(()));
            stream.abort_read(code).unwrap();
        };
        let (acked, ()) = tokio::join!(server.send_acked("one".into()), read_and_stop);
        // The stop has arrived.
        assert_eq!(acked, Err(SendAckedError::Unknown(SendError::Stopped { code })));
        (server, raw)
    }
    async fn loses_nothing<T: NetTransport>(transport: T, code: u64) {
        let (server, raw) = stop(transport, code).await;
        assert_eq!((server.flush().await, server.clone().flush().await), (Ok(()), Ok(())));
        server.send(b"two").await.unwrap();
        read_until(&raw.accept_inbound_uni_stream().await.unwrap(), b"two").await;
    }
    run(async {
        for code in [7, STREAM_CODE_MESSAGE_TOO_LARGE] {
            loses_nothing(QuinnTransport::new(), code).await;
        }
        loses_nothing(MsQuicTransport::new(), 7).await;
        // An acknowledged message was refused.
        let code = STREAM_CODE_MESSAGE_TOO_LARGE;
        for is_flushed in [true, false] {
            let (server, _raw) = stop(MsQuicTransport::new(), code).await;
            let clone = server.clone();
            if is_flushed {
                assert_eq!(server.flush().await, Err(SendError::Stopped { code }));
                assert_eq!(clone.flush().await, Err(SendError::Stopped { code }));
            }
            let outcome = server.close(0, "").await;
            assert!(
                matches!(outcome, CloseOutcome::Undelivered { messages: 1, .. }),
                "{outcome:?}"
            );
        }
    });
}

/// A connection to a peer that accepts no requests, like those of older versions, and its end.
async fn older_peer(config: MsQuicTransportConfig) -> (MsQuicNetConnection, Connection) {
    older_peer_of(MsQuicTransport::with_config(config).unwrap()).await
}

async fn older_peer_of<T: NetTransport>(transport: T) -> (T::Connection, Connection) {
    raw_peer_of(transport, ALPN).await
}

/// Connects a bare QUIC peer that names this protocol, and returns the local connection and the peer.
async fn raw_peer_of<T: NetTransport>(transport: T, alpn: &str) -> (T::Connection, Connection) {
    let (for_server, for_client) = credentials();
    let listen = transport.create_listener("127.0.0.1:0".parse().unwrap(), &[ALPN], for_server);
    let listener = listen.await.unwrap();
    let registration = Registration::new("raw").unwrap();
    let settings = Settings::new().peer_uni_streams(4);
    let configuration =
        Configuration::client(&registration, &[alpn], &settings, &for_client).unwrap();
    let raw = Connection::new(&registration, for_client).unwrap();
    let start = raw.start(&configuration, "127.0.0.1", listener.local_addr().port());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (started, server) = tokio::join!(start, accept);
    started.unwrap();
    (server, raw)
}

#[test]
fn a_close_gives_an_older_peer_time_to_read() {
    run(async {
        let config = MsQuicTransportConfig::new().older_peer_delay(Duration::from_secs(3600));
        let (server, raw) = older_peer(config.clone()).await;
        server.send(b"hello").await.unwrap();
        let read = async {
            let stream = raw.accept_inbound_uni_stream().await.unwrap();
            while !stream.read_chunk().await.unwrap().unwrap().ends_with(b"hello") {}
            server.send(b"late").await.unwrap_err(); // it closes
            raw.shutdown(5, "read");
        };
        let (outcome, ()) = tokio::join!(server.close(9, ""), read);
        assert_eq!(outcome, CloseOutcome::Acknowledged);
        let end = CloseReason::Peer { code: 5, reason: "read".into() };
        assert_eq!(server.watch_close().await, end);

        let (server, _raw) = older_peer(config.clone().older_peer_delay(Duration::ZERO)).await;
        server.send(b"hello").await.unwrap();
        assert_eq!(server.close(9, "").await, CloseOutcome::Acknowledged);

        // The version tells that this peer is none of those, although it accepts no requests.
        let without_requests = config.clone().max_inbound_requests(0);
        let Pair { client, server, .. } = pair_with(config, without_requests).await;
        server.send(b"hello").await.unwrap();
        assert_eq!(server.close(9, "").await, CloseOutcome::Acknowledged);
        assert_eq!(client.recv().await.unwrap().0, "hello");
    });
}

#[test]
fn a_close_does_not_finish_the_streams_of_messages() {
    async fn close((server, raw): (impl NetConnection, Connection)) {
        server.send(b"hello").await.unwrap();
        let stream = raw.accept_inbound_uni_stream().await.unwrap();
        let read = async {
            let mut received = Vec::new();
            loop {
                match stream.read_chunk().await {
                    Ok(Some(chunk)) => received.extend_from_slice(&chunk),
                    end => return (received, end.map(drop)),
                }
            }
        };
        let (outcome, (received, end)) = tokio::join!(server.close(9, ""), read);
        assert_eq!(outcome, CloseOutcome::Acknowledged);
        assert_eq!(received, b"\0\0\0\x05hello");
        let closed = ConnectionError::ClosedByPeer { code: 9, reason: String::new() };
        assert_eq!(end, Err(ReadError::ConnectionLost(closed)));
    }
    run(async {
        close(older_peer_of(MsQuicTransport::new()).await).await;
        close(older_peer_of(QuinnTransport::new()).await).await;
    });
}

#[test]
fn a_close_that_gives_up_tells_how_much_was_not_delivered() {
    if lacks_patch("N60") {
        return; // the receiver loses what was acknowledged
    }
    run(async {
        let config = MsQuicTransportConfig::new;
        let server = config().receive_queue(64 * 1024);
        let client = config().stream_op_timeout(Duration::from_millis(200));
        let Pair { client, server, .. } = pair_with(server, client).await;
        let mut sent = 0;
        while client.send_bytes(pattern(16 * 1024)).await.is_ok() {
            sent += 1;
        }
        let outcome = client.close(1, "").await;
        let CloseOutcome::Undelivered { messages, bytes, .. } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(bytes, messages * 16 * 1024);
        let (received, _) = count(&server).await;
        assert!(received < sent && received as u64 + messages >= sent as u64);
    });
}

#[test]
fn a_close_ends_senders_that_wait_and_a_flush_beside_it_succeeds() {
    run(async {
        let server = MsQuicTransportConfig::new().receive_queue(64 * 1024);
        let client = MsQuicTransportConfig::new().send_queue(64 * 1024).max_send_queue(64 * 1024);
        let Pair { client, server, .. } = pair_with(server, client).await;
        let mut sent = 0;
        let pause = Duration::from_millis(300);
        while timeout(pause, client.send_bytes(pattern(16 * 1024))).await.is_ok() {
            sent += 1; // until the windows of the peer are full
        }
        let reading = async {
            tokio::task::yield_now().await; // the others begin
            count(&server).await.0
        };
        let (waiting, outcome, flushed, received) = tokio::join!(
            biased;
            client.send_bytes(pattern(16 * 1024)),
            client.close(9, ""),
            client.flush(),
            reading,
        );
        let closed = SendError::Closed(CloseReason::Local { code: 9, reason: String::new() });
        assert_eq!(waiting, Err(closed));
        assert_eq!((outcome, flushed), (CloseOutcome::Acknowledged, Ok(())));
        assert_eq!(received, sent);
    });
}
