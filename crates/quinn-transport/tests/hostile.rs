//! Peers that violate the protocol, stay silent, or disappear.

mod common;

use common::{ALPN, Relay, dial_quic, listen, raw, run, trusting};
use futures_util::future::join_all;
use net_kit::alpn::RECEIPTS;
use net_kit::receipts::Control;
use net_traits::{
    CloseReason, ConnectError, Limit, NetConnection, NetCredential, NetIncomingRequest,
    NetListener, NetQuestion, NetRequests, NetTransport, RecvError, RejectionBy, RequestError,
    SendError, TrustError, TrustPolicy, close_code, request_code,
};
use quinn::VarInt;
use quinn_transport::{QuinnConfig, QuinnTransport};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

fn frame(message: &[u8]) -> Vec<u8> {
    [&net_kit::frame::header(message.len()).unwrap()[..], message].concat()
}

#[test]
fn a_vanished_peer_times_out_after_its_messages() {
    run(async {
        let config = QuinnConfig::new().idle_timeout(Duration::from_millis(500));
        let (_, listener) = listen(config).await;
        let relay = Relay::new(listener.local_addr(), usize::MAX).await;
        let dialler = QuinnTransport::new();
        let dial = dialler.connect(relay.address, &[ALPN], trusting());
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (peer, connection) = tokio::join!(dial, accept);
        let peer = peer.unwrap();
        peer.send(b"last words").await.unwrap();
        assert_eq!(connection.recv().await.unwrap().0, "last words");
        drop(relay);
        let end = connection.recv().await;
        assert_eq!(end, Err(RecvError::Closed(CloseReason::TimedOut)));
    });
}

#[test]
fn garbage_instead_of_a_handshake_is_ignored() {
    run(async {
        let (transport, listener) = listen(QuinnConfig::default()).await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for length in [0, 1, 20, 1200] {
            socket.send_to(&vec![0xff; length], listener.local_addr()).await.unwrap();
        }
        let credential = trusting();
        let dial = dial_quic(listener.local_addr(), ALPN, Some(&credential));
        let accept = async { listener.accept().await.unwrap().accept().await };
        let (dialled, accepted) = tokio::join!(dial, accept);
        assert!(dialled.is_ok() && accepted.is_ok());
        assert_eq!(transport.connections().len(), 1);
    });
}

#[test]
fn a_certificate_without_its_key_is_rejected() {
    run(async {
        let (_, listener) = listen(QuinnConfig::default()).await;
        let (own, victim) = (trusting(), trusting());
        let key = own.private_key().clone_key();
        let chain = victim.certificate_chain().to_vec();
        let thief = NetCredential::new(chain, key, TrustPolicy::Any).unwrap();
        let dial = async {
            if let Ok(connection) = dial_quic(listener.local_addr(), ALPN, Some(&thief)).await {
                connection.closed().await;
            }
        };
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap_err() };
        let ((), error) = tokio::join!(dial, accept);
        let ConnectError::Rejected(rejection) = error else { panic!("{error:?}") };
        let cause = TrustError::Unproven { identity: victim.identity() };
        assert_eq!((rejection.by, rejection.cause.as_deref()), (RejectionBy::Us, Some(&cause)));
    });
}

#[test]
fn a_reset_is_an_error_only_inside_a_message() {
    run(async {
        let (peer, connection) = raw(QuinnConfig::default()).await;
        let mut cut = peer.open_uni().await.unwrap();
        cut.write_all(&frame(b"hello")).await.unwrap();
        assert_eq!(connection.recv().await.unwrap().0, "hello");
        cut.write_all(&frame(b"never complete")[..9]).await.unwrap();
        // The bytes arrive before the reset.
        let mut whole = peer.open_uni().await.unwrap();
        whole.write_all(&frame(b"complete")).await.unwrap();
        assert_eq!(connection.recv().await.unwrap().0, "complete");
        cut.reset(VarInt::from_u32(9)).unwrap();
        assert_eq!(connection.recv().await, Err(RecvError::Reset { code: 9 }));
        whole.reset(VarInt::from_u32(9)).unwrap();
        let mut third = peer.open_uni().await.unwrap();
        third.write_all(&frame(b"on another stream")).await.unwrap();
        assert_eq!(connection.recv().await.unwrap().0, "on another stream");
    });
}

#[test]
fn a_stopped_stream_is_reported_once_and_replaced() {
    run(async {
        let (peer, connection) = raw(QuinnConfig::default()).await;
        connection.send(b"one").await.unwrap();
        let mut stream = peer.accept_uni().await.unwrap();
        stream.stop(VarInt::from_u32(7)).unwrap();
        let stopped = loop {
            match connection.send(b"two").await {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        };
        assert_eq!(stopped, SendError::Stopped { code: 7 });
        connection.send(b"three").await.unwrap();
        let mut next = peer.accept_uni().await.unwrap();
        let mut header = [0; 4];
        next.read_exact(&mut header).await.unwrap();
        assert!(u32::from_be_bytes(header) <= 5, "a new stream begins with a whole message");
    });
}

#[test]
fn a_stopped_stream_is_reported_by_a_flush_of_each_clone() {
    run(async {
        let (peer, connection) = raw(QuinnConfig::default()).await;
        let clone = connection.clone();
        connection.send(b"one").await.unwrap();
        let mut stream = peer.accept_uni().await.unwrap();
        stream.stop(VarInt::from_u32(7)).unwrap();
        let stopped = Err(SendError::Stopped { code: 7 });
        while connection.send(b"two").await != stopped {
            tokio::task::yield_now().await;
        }
        for connection in [&clone, &connection] {
            assert_eq!(connection.flush().await, stopped);
            assert_eq!(connection.flush().await, Ok(()), "once");
        }
    });
}

#[test]
fn a_stopped_stream_of_confirmations_loses_no_message() {
    run(async {
        let (_, listener) = listen(QuinnConfig::default()).await;
        let (alpn, credential) = ([ALPN, RECEIPTS].concat(), trusting());
        let dial = dial_quic(listener.local_addr(), &alpn, Some(&credential));
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (peer, connection) = tokio::join!(dial, accept);
        let peer = peer.unwrap();
        let (mut probes, probe) = (peer.open_uni().await.unwrap(), Control::Probe(0).encode());
        let mut probe_until_a_stream = async || loop {
            tokio::select! {
                biased;
                stream = peer.accept_uni() => break stream.unwrap(),
                written = probes.write_all(&probe) => written.unwrap(),
            }
            tokio::task::yield_now().await;
        };
        let mut confirmations = probe_until_a_stream().await;
        confirmations.stop(VarInt::from_u32(7)).unwrap();
        probe_until_a_stream().await; // the connection has replaced the first one
        assert_eq!(connection.flush().await, Ok(()));
    });
}

#[test]
fn streams_of_the_peer_are_limited() {
    run(async {
        let config = QuinnConfig::new().max_inbound_streams(2).max_inbound_requests(0);
        let (peer, connection) = raw(config).await;
        let (mut first, mut second) =
            (peer.open_uni().await.unwrap(), peer.open_uni().await.unwrap());
        assert!(timeout(Duration::from_millis(100), peer.open_uni()).await.is_err());
        assert!(timeout(Duration::from_millis(100), peer.open_bi()).await.is_err());
        first.write_all(&frame(b"first")).await.unwrap();
        first.finish().unwrap();
        assert_eq!(connection.recv().await.unwrap().0, "first");
        peer.open_uni().await.unwrap(); // the first stream has ended, so there is credit
        second.write_all(&frame(b"second")).await.unwrap();
        assert_eq!(connection.recv().await.unwrap().0, "second");
    });
}

#[test]
fn a_question_over_the_limit_is_refused_and_a_reset_one_is_cancelled() {
    run(async {
        let (peer, connection) = raw(QuinnConfig::new().max_request_size(1000)).await;
        let (mut write, mut read) = peer.open_bi().await.unwrap();
        write.write_all(&[7; 1001]).await.unwrap();
        let mut question = connection.accept_request().await.unwrap();
        let too_large = RequestError::TooLarge { size: 1001, limit: 1000 };
        assert_eq!(question.question().await, Err(too_large));
        let error = read.read_to_end(10).await.unwrap_err();
        let code = VarInt::from_u64(request_code::TOO_LARGE).unwrap();
        let reset = quinn::ReadToEndError::Read(quinn::ReadError::Reset(code));
        assert_eq!(error, reset);

        let (mut write, _read) = peer.open_bi().await.unwrap();
        write.write_all(b"wh").await.unwrap();
        let mut question = connection.accept_request().await.unwrap();
        write.reset(VarInt::from_u32(2)).unwrap();
        assert_eq!(question.question().await, Err(RequestError::Canceled));
    });
}

#[test]
fn a_slow_reader_still_gets_the_close_after_all_messages() {
    run(async {
        // The receive queue holds one message; the others are in quinn's buffers when the sender
        // closes.
        let (_, listener) = listen(QuinnConfig::new().receive_queue(1000)).await;
        let dial = async {
            let transport = QuinnTransport::new();
            let connection =
                transport.connect(listener.local_addr(), &[ALPN], trusting()).await.unwrap();
            for number in 0..20_u8 {
                connection.send(&vec![number; 10_000]).await.unwrap();
            }
            connection.close(5, "all said").await;
        };
        let read = async {
            let connection = listener.accept().await.unwrap().accept().await.unwrap();
            // Read after all data has arrived and the sender has closed.
            let reason = connection.watch_close().await;
            for number in 0..20_u8 {
                assert_eq!(connection.recv().await.unwrap().0, vec![number; 10_000]);
            }
            reason
        };
        let ((), reason) = tokio::join!(dial, read);
        assert_eq!(reason, CloseReason::Peer { code: 5, reason: "all said".to_owned() });
    });
}

#[test]
fn a_peer_that_finishes_no_message_holds_little_and_is_ended() {
    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    const STREAMS: usize = 16;
    run(async {
        let config = QuinnConfig::new()
            .max_message_size(8 * MIB)
            .max_unfinished(MIB)
            .message_timeout(Duration::from_secs(1));
        let (transport, listener) = listen(config).await;
        let credential = trusting();
        let dial = dial_quic(listener.local_addr(), ALPN, Some(&credential));
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (peer, connection) = tokio::join!(dial, accept);
        let peer = peer.unwrap();
        let attack = async {
            let size = 8 * MIB - 1;
            let header = u32::try_from(size).unwrap().to_be_bytes();
            let message = [&header[..], &vec![7; size - 1]].concat();
            let mut streams = Vec::new();
            for _ in 0..STREAMS {
                streams.push(peer.open_uni().await.unwrap());
            }
            join_all(streams.iter_mut().map(|stream| stream.write_all(&message))).await;
            peer.closed().await
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
        // One message may exceed the limit, and the beginning of each may arrive. Each window of 384 KiB
        // counts with the fragments that it may consist of.
        let limit = MIB + 8 * MIB + STREAMS * 64 * KIB + STREAMS * 384 * KIB * 5 / 2;
        assert!((MIB..=limit).contains(&most), "{most} bytes held");
        let statistics = transport.statistics();
        assert_eq!((statistics.refused_message_timeout, statistics.held_bytes), (1, 0));
    });
}

#[test]
fn a_part_of_an_answer_is_never_taken_for_the_whole() {
    const ROUNDS: usize = 1000;
    run(async {
        let (peer, connection) = raw(QuinnConfig::new()).await;
        let answer = async move {
            for round in 0..ROUNDS {
                let (mut write, _read) = peer.accept_bi().await.unwrap();
                write.write_all(&vec![7; 1000 * (round % 20)]).await.unwrap();
                for _ in 0..round % 7 {
                    tokio::task::yield_now().await;
                }
                write.reset(VarInt::from_u32(5)).unwrap();
            }
            peer
        };
        let ask = async {
            for round in 0..ROUNDS {
                let answer = connection.request("".into(), Duration::from_secs(30)).await;
                let length = answer.map(|answer| answer.len());
                assert_eq!(length, Err(RequestError::NoAnswer { code: 5 }), "{round}");
            }
        };
        tokio::join!(tokio::spawn(answer), ask).0.unwrap();
    });
}
