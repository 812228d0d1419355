//! Peers that make this side hold messages, questions or answers which they do not finish, or datagrams.

mod common;
#[path = "quinn_peer/mod.rs"]
mod quinn_peer;

use common::{ALPN, Pair, credentials, lacks_patch, pair_with, pattern, run};
use futures_util::future::join_all;
use msquic_transport::{
    MsQuicListener, MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig,
};
use net_traits::{
    CloseReason, Limit, NetConnection, NetIncomingRequest, NetListener, NetQuestion, NetRequests,
    NetTransport, RecvError, close_code,
};
use quinn_peer::{QuinnPeer, Verdict};
use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * 1024;

/// How many message streams a peer may open.
const STREAMS: usize = 16;

struct Hostile {
    transport: MsQuicTransport,
    _listener: MsQuicListener,
    connection: MsQuicNetConnection,
    peer: quinn::Connection,
    _endpoint: QuinnPeer,
}

/// Connects a bare QUIC peer.
async fn hostile_to(config: MsQuicTransportConfig) -> Hostile {
    let transport = MsQuicTransport::with_config(config).unwrap();
    let (for_server, for_client) = credentials();
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = transport.create_listener(any, &[ALPN], for_server).await.unwrap();
    let endpoint = QuinnPeer::new(Some(&for_client), Verdict::Accepts, ALPN);
    let dial = endpoint.connect(listener.local_addr());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (peer, connection) = tokio::join!(dial, accept);
    let peer = peer.unwrap();
    Hostile { transport, _listener: listener, connection, peer, _endpoint: endpoint }
}

#[test]
fn a_peer_that_finishes_no_message_holds_little_and_is_ended() {
    run(async {
        let config = MsQuicTransportConfig::new()
            .max_message_size(8 * MIB)
            .max_unfinished(MIB)
            .message_timeout(Duration::from_secs(1));
        let Hostile { transport, connection, peer: hostile, .. } = hostile_to(config).await;
        let attack = async {
            let mut streams = Vec::new();
            for _ in 0..STREAMS {
                streams.push(hostile.open_uni().await.unwrap());
            }
            let size = 8 * MIB - 1;
            let header = u32::try_from(size).unwrap().to_be_bytes();
            let message = [&header[..], &vec![7; size - 1]].concat();
            join_all(streams.iter_mut().map(|stream| stream.write_all(&message))).await;
            hostile.closed().await
        };
        let watch = async {
            let mut most = 0;
            loop {
                most = most.max(transport.statistics().held_bytes);
                tokio::select! {
                    end = connection.recv() => return (end, most),
                    () = tokio::task::yield_now() => {}
                }
            }
        };
        let (_, (end, most)) = tokio::join!(attack, watch);
        let code = Limit::MessageTimeout.code();
        let reason = close_code::name(code).unwrap().to_owned();
        assert_eq!(end, Err(RecvError::Closed(CloseReason::Local { code, reason })));
        // One message may exceed the limit, and the begin of each may arrive. The library holds what the
        // window of each stream permits.
        let limit = MIB + 8 * MIB + STREAMS * (64 + 512) * KIB;
        assert!((MIB..=limit).contains(&most), "{most} bytes held");
        let statistics = transport.statistics();
        assert_eq!((statistics.refused_message_timeout, statistics.held_bytes), (1, 0));
    });
}

#[test]
fn messages_on_several_streams_complete_one_after_another() {
    run(async {
        let config = MsQuicTransportConfig::new().send_streams(4).max_unfinished(256 * KIB);
        let Pair { client, server, .. } = pair_with(config.clone(), config).await;
        const COUNT: usize = 12;
        let message = pattern(4 * MIB);
        let send = join_all((0..COUNT).map(|_| client.send_bytes(message.clone())));
        let receive = async {
            for number in 0..COUNT {
                let received = server.recv().await.map(|(received, _)| received);
                assert!(received == Ok(message.clone()), "message {number}");
            }
        };
        let (sent, ()) = tokio::join!(send, receive);
        assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    });
}

#[test]
fn paused_messages_do_not_keep_the_oldest_from_its_window() {
    run(async {
        // The windows of two streams could take that of the connection.
        let config = MsQuicTransportConfig::new()
            .stream_receive_window(4 * MIB as u32)
            .connection_receive_window(8 * MIB as u32)
            .max_unfinished(64 * KIB);
        let Hostile { connection, peer: honest, .. } = &hostile_to(config).await;
        let message = |number| vec![number; 4 * MIB];
        let send = join_all((0..STREAMS).map(async |number| {
            let mut stream = honest.open_uni().await.unwrap();
            stream.write_all(&quinn_peer::frame(&message(number as u8))).await.unwrap();
            stream
        }));
        let receive = async {
            let mut left: Vec<_> = (0..STREAMS as u8).collect();
            while !left.is_empty() {
                let (received, _) = connection.recv().await.unwrap();
                left.retain(|number| received != message(*number));
            }
        };
        let _streams = tokio::join!(send, receive);
    });
}

#[test]
fn what_is_held_for_paused_streams_is_charged() {
    if lacks_patch("N66") {
        return;
    }
    run(async {
        let config = MsQuicTransportConfig::new().receive_queue(1000);
        let Hostile { transport, connection, peer, .. } = &hostile_to(config).await;
        let held = async |bytes| {
            while transport.statistics().held_bytes < bytes {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // The second message waits in the library.
        let mut stream = peer.open_uni().await.unwrap();
        let message = quinn_peer::frame(&vec![7; 100 * KIB]);
        stream.write_all(&message.repeat(2)).await.unwrap();
        held(200 * KIB).await;
        for _ in 0..2 {
            assert_eq!(connection.recv().await.unwrap().0.len(), 100 * KIB);
        }
        while transport.statistics().held_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The application accepts no questions. Of each, 256 KiB are buffered above the library, and the
        // rest in it.
        let mut questions = Vec::new();
        for _ in 0..4 {
            let (mut write, read) = peer.open_bi().await.unwrap();
            write.write_all(&vec![7; 500 * KIB]).await.unwrap();
            questions.push((write, read));
        }
        held(4 * 500 * KIB).await;
        // A refused question is not buffered. The library forgets its part when the peer resets the stream.
        connection.accept_request().await.unwrap().refuse(7);
        while transport.statistics().held_bytes > (4 * 500 - 256) * KIB {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn peers_that_fill_the_windows_are_ended_by_memory() {
    const CONNECTIONS: usize = 6;
    if lacks_patch("N66") {
        return;
    }
    run(async {
        // Each window has room for a quarter of the memory.
        let config = MsQuicTransportConfig::new()
            .max_message_size(MIB)
            .receive_queue(1000)
            .connection_receive_window(4 * MIB as u32)
            .stream_receive_window(2 * MIB as u32)
            .max_inbound_streams(1)
            .max_inbound_requests(0)
            .max_memory(8 * MIB);
        let transport = MsQuicTransport::with_config(config).unwrap();
        let (for_server, for_client) = credentials();
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = transport.create_listener(any, &[ALPN], for_server).await.unwrap();
        let endpoint = QuinnPeer::new(Some(&for_client), Verdict::Accepts, ALPN);
        let mut attackers = Vec::new();
        for _ in 0..CONNECTIONS {
            let dial = endpoint.connect(listener.local_addr());
            let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
            let (peer, connection) = tokio::join!(dial, accept);
            attackers.push((peer.unwrap(), connection));
        }
        let fill = attackers.iter().map(async |(peer, _)| {
            let mut stream = peer.open_uni().await.unwrap();
            let _ = stream.write_all(&vec![0; 8 * MIB]).await; // empty messages
        });
        let ended = async {
            while transport.statistics().refused_memory == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = ended => {}
            _ = join_all(fill) => panic!("the windows are not limited"),
        }
        assert!(transport.connections().len() < CONNECTIONS);
    });
}

#[test]
fn datagrams_that_are_not_received_are_charged() {
    run(async {
        let Hostile { transport, connection, peer, .. } = &hostile_to(Default::default()).await;
        let held = async |expected: fn(usize) -> bool| {
            while !expected(transport.statistics().held_bytes) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let flood = async {
            loop {
                // It fails while the queue of the peer is full.
                let _ = peer.send_datagram(vec![0; 1000].into());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = held(|bytes| bytes >= 60 * KIB) => {}
            () = flood => unreachable!(),
        }
        let datagrams = connection.datagrams().unwrap();
        let drain = async { while datagrams.recv_datagram().await.is_ok() {} };
        tokio::select! {
            () = held(|bytes| bytes == 0) => {}
            () = drain => unreachable!("the connection stays"),
        }
    });
}

#[test]
fn an_answer_is_charged_while_it_is_read() {
    run(async {
        let Hostile { transport, connection, peer, .. } = &hostile_to(Default::default()).await;
        let ask = connection.request("how much?".into(), Duration::from_secs(30));
        let answer = async {
            let (mut write, _read) = peer.accept_bi().await.unwrap();
            write.write_all(&vec![7; 500 * KIB]).await.unwrap();
            while transport.statistics().held_bytes < 500 * KIB {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            write.finish().unwrap();
            write.stopped().await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask, answer);
        assert_eq!(answer.unwrap().len(), 500 * KIB);
        while transport.statistics().held_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}
