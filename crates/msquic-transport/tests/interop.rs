//! Interoperability with another implementation of QUIC (quinn), in both roles.

mod common;
mod quinn_peer;

use bytes::Bytes;
use common::{ALPN, lacks_patch, pattern, run};
use msquic_transport::{
    MsQuicListener, MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig,
};
use net_traits::{
    CloseReason, ConnectError, NetConnection, NetCredential, NetIncomingRequest, NetListener,
    NetQuestion, NetRequests, NetTransport, RecvError, RequestError, SendAckedError, TrustPolicy,
    close_code, serve_requests,
};
use quinn::VarInt;
use quinn_peer::{QuinnPeer, Verdict, frame, read_frame};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

async fn listen() -> MsQuicListener {
    listen_with(MsQuicTransportConfig::new()).await
}

async fn listen_with(config: MsQuicTransportConfig) -> MsQuicListener {
    let transport = MsQuicTransport::with_config(config).unwrap();
    transport.create_listener(loopback(), &[ALPN], trusting()).await.unwrap()
}

/// The two ends of a connection between this transport and quinn.
struct Ends {
    ours: MsQuicNetConnection,
    theirs: quinn::Connection,
    _listener: Option<MsQuicListener>,
    _peer: QuinnPeer,
}

/// Connects with a quinn client and with a quinn server, which use the wire format without marks.
async fn both_roles(config: MsQuicTransportConfig) -> [Ends; 2] {
    both_roles_with(config, ALPN).await
}

async fn both_roles_with(config: MsQuicTransportConfig, alpn: &str) -> [Ends; 2] {
    let peer = QuinnPeer::new(Some(&trusting()), Verdict::Accepts, alpn);
    let listener = listen_with(config.clone()).await;
    let connect = peer.connect(listener.local_addr());
    let accept = async { listener.accept().await.unwrap().accept().await };
    let (theirs, ours) = tokio::join!(connect, accept);
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    let client = Ends { ours, theirs, _listener: Some(listener), _peer: peer };

    let peer = QuinnPeer::new(Some(&trusting()), Verdict::Accepts, alpn);
    let transport = MsQuicTransport::with_config(config).unwrap();
    let connect = transport.connect(peer.local_addr(), &[ALPN], trusting());
    let (ours, theirs) = tokio::join!(connect, peer.accept());
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    let server = Ends { ours, theirs, _listener: None, _peer: peer };
    [client, server]
}

#[test]
fn messages_go_both_ways_with_a_quinn_client_and_a_quinn_server() {
    run(async {
        // Codes and reasons of a close reach the other side.
        for Ends { ours, theirs, .. } in &both_roles(MsQuicTransportConfig::new()).await {
            converse(ours, theirs).await;
            theirs.close(VarInt::from_u32(42), b"enough");
            let reason = CloseReason::Peer { code: 42, reason: "enough".into() };
            assert_eq!(ours.watch_close().await, reason);
        }
        for Ends { ours, theirs, .. } in &both_roles(MsQuicTransportConfig::new()).await {
            ours.close(43, "good bye").await;
            let quinn::ConnectionError::ApplicationClosed(close) = theirs.closed().await else {
                panic!("closed for another reason");
            };
            let expected = (VarInt::from_u32(43), &b"good bye"[..]);
            assert_eq!((close.error_code, &*close.reason), expected);
        }
    });
}

async fn converse(ours: &MsQuicNetConnection, theirs: &quinn::Connection) {
    let sizes = [0, 1, 1000, 100_000, 3_000_000];
    let receive = async {
        let mut stream = theirs.accept_uni().await.unwrap();
        for size in sizes {
            assert!(read_frame(&mut stream).await.unwrap() == pattern(size));
        }
    };
    let send = async {
        for size in sizes {
            ours.send_bytes(pattern(size)).await.unwrap();
        }
    };
    tokio::join!(send, receive);
    let send = async {
        let mut stream = theirs.open_uni().await.unwrap();
        for size in sizes {
            stream.write_all(&frame(&pattern(size))).await.unwrap();
        }
        stream.finish().unwrap();
    };
    let receive = async {
        for size in sizes {
            assert!(ours.recv().await.unwrap().0 == pattern(size));
        }
    };
    tokio::join!(send, receive);
}

#[test]
fn an_older_peer_gets_no_marked_message() {
    run(async {
        for Ends { ours, theirs, .. } in &both_roles(MsQuicTransportConfig::new()).await {
            assert_eq!(ours.alpn_negotiated(), ALPN);
            let acked = ours.send_acked("marked".into()).await;
            assert_eq!(acked, Err(SendAckedError::Unsupported));
            ours.send(b"plain").await.unwrap();
            let mut stream = theirs.accept_uni().await.unwrap();
            assert_eq!(read_frame(&mut stream).await.unwrap(), b"plain");
            // What begins a mark is a length over the limit.
            let mut stream = theirs.open_uni().await.unwrap();
            stream.write_all(&MARK_3).await.unwrap();
            let error = ours.recv().await.unwrap_err();
            assert!(matches!(error, RecvError::TooLarge { .. }), "{error}");
        }
    });
}

/// Records as docs/wire-protocol.md specifies them.
const MARK_3: [u8; 9] = [255, 255, 255, 255, 6, 0, 0, 0, 3];
const RECEIPT_3: [u8; 10] = [255, 255, 255, 255, 7, 0, 0, 0, 3, 1];

#[test]
fn marks_and_receipts_are_those_of_the_specification() {
    run(async {
        let newer = format!("{ALPN}+receipts/2");
        let config = MsQuicTransportConfig::new().receive_queue(2000); // one message
        for Ends { ours, theirs, .. } in &both_roles_with(config, &newer).await {
            assert_eq!(ours.alpn_negotiated(), ALPN);
            let mut messages = theirs.open_uni().await.unwrap();
            let marked = [&MARK_3[..], &frame(b"marked")].concat();
            messages.write_all(&marked).await.unwrap();
            messages.write_all(&frame(&pattern(5000))).await.unwrap(); // the queue is full
            let mut receipts = theirs.open_uni().await.unwrap();
            let acked = tokio::spawn({
                let ours = ours.clone();
                async move { ours.send_acked("question".into()).await }
            });
            let mut stream = theirs.accept_uni().await.unwrap();
            let mut mark = [0; 9];
            stream.read_exact(&mut mark).await.unwrap();
            assert_eq!(mark[..5], MARK_3[..5]);
            assert_eq!(read_frame(&mut stream).await.unwrap(), b"question");
            // Receipts for nothing are ignored, also if there are many.
            receipts.write_all(&RECEIPT_3.repeat(10_000)).await.unwrap();
            let receipt = [&mark[..4], &[7], &mark[5..], &[1]].concat();
            receipts.write_all(&receipt).await.unwrap();
            assert_eq!(acked.await.unwrap(), Ok(()));

            assert_eq!(ours.recv().await.unwrap().0, "marked");
            let (mut receipts, mut receipt) = (theirs.accept_uni().await.unwrap(), [0; 10]);
            receipts.read_exact(&mut receipt).await.unwrap();
            assert_eq!(receipt, RECEIPT_3);
            assert_eq!(ours.recv().await.unwrap().0.len(), 5000);
        }
    });
}

#[test]
fn probes_are_answered_as_specified_before_the_application_receives() {
    run(async {
        let newer = format!("{ALPN}+receipts/2");
        for Ends { ours, theirs, .. } in
            &both_roles_with(MsQuicTransportConfig::new(), &newer).await
        {
            let mut messages = theirs.open_uni().await.unwrap();
            let mut answers = None;
            for number in 0..100 {
                let probe = [255, 255, 255, 255, 8, 1, 2, 3, number];
                messages.write_all(&[&frame(b"hello")[..], &probe].concat()).await.unwrap();
                let answers = match &mut answers {
                    Some(answers) => answers,
                    None => answers.insert(theirs.accept_uni().await.unwrap()),
                };
                let mut answer = [0; 9];
                answers.read_exact(&mut answer).await.unwrap();
                assert_eq!(answer, [255, 255, 255, 255, 9, 1, 2, 3, number]);
            }
            for _ in 0..100 {
                assert_eq!(ours.recv().await.unwrap().0, "hello");
            }
            // Of a peer that does not read the answers, a bounded number of probes is kept.
            let probe = [255, 255, 255, 255, 8, 1, 2, 3, 4];
            messages.write_all(&probe.repeat(100_000)).await.unwrap();
            messages.write_all(&frame(b"still usable")).await.unwrap();
            assert_eq!(ours.recv().await.unwrap().0, "still usable");
        }
    });
}

#[test]
fn a_stream_may_end_at_every_offset() {
    run(async {
        for Ends { ours, theirs, .. } in &both_roles(MsQuicTransportConfig::new()).await {
            let whole = [frame(b"one"), frame(b""), frame(b"three")].concat();
            let messages = [(7, &b"one"[..]), (11, b""), (20, b"three")];
            for end in 0..=whole.len() {
                let mut stream = theirs.open_uni().await.unwrap();
                stream.write_all(&whole[..end]).await.unwrap();
                stream.finish().unwrap();
                for (_, message) in messages.iter().filter(|(length, _)| *length <= end) {
                    assert_eq!(ours.recv().await.unwrap().0, message, "ended after {end} bytes");
                }
                let is_boundary = end == 0 || messages.iter().any(|(length, _)| *length == end);
                if !is_boundary {
                    let error = ours.recv().await.unwrap_err();
                    assert!(
                        matches!(error, RecvError::Truncated { .. }),
                        "{error:?} after {end} bytes"
                    );
                }
            }
            let mut stream = theirs.open_uni().await.unwrap();
            stream.write_all(&frame(b"still usable")).await.unwrap();
            assert_eq!(ours.recv().await.unwrap().0, "still usable");
        }
    });
}

#[test]
fn a_reset_inside_a_frame_and_an_excessive_length_end_one_stream_only() {
    run(async {
        let config = MsQuicTransportConfig::new().max_message_size(1000);
        for Ends { ours, theirs, .. } in &both_roles(config).await {
            let mut reset = theirs.open_uni().await.unwrap();
            reset.write_all(&frame(b"message")[..8]).await.unwrap();
            // Only received data can be truncated.
            while ours.statistics().await.unwrap().received_stream_bytes < 8 {
                tokio::task::yield_now().await;
            }
            let receive = async { ours.recv().await.unwrap_err() };
            let reset = async { reset.reset(VarInt::from_u32(9)).unwrap() };
            let (error, ()) = tokio::join!(receive, reset);
            assert_eq!(error, RecvError::Reset { code: 9 });

            let mut too_long = theirs.open_uni().await.unwrap();
            too_long.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
            let error = ours.recv().await.unwrap_err();
            assert_eq!(error, RecvError::TooLarge { size: u32::MAX.into(), limit: 1000 });
            let stopped = too_long.stopped().await.unwrap();
            assert_eq!(stopped, Some(VarInt::from_u32(1)));

            let mut good = theirs.open_uni().await.unwrap();
            good.write_all(&frame(b"fine")).await.unwrap();
            assert_eq!(ours.recv().await.unwrap().0, "fine");
        }
    });
}

#[test]
fn a_peer_that_keeps_announcing_too_much_is_closed() {
    run(async {
        for Ends { ours, theirs, .. } in
            both_roles(MsQuicTransportConfig::new().max_message_size(1000)).await
        {
            let violate = async {
                while let Ok(mut stream) = theirs.open_uni().await {
                    let _ = stream.write_all(&u32::MAX.to_be_bytes()).await; // it is stopped at once
                    let _ = stream.stopped().await;
                }
            };
            let receive = async {
                let mut refused = 0;
                loop {
                    match ours.recv().await {
                        Err(RecvError::TooLarge { .. }) => refused += 1,
                        Err(RecvError::Closed(reason)) => return (refused, reason),
                        other => panic!("{other:?}"),
                    }
                }
            };
            let ((), (refused, reason)) = tokio::join!(violate, receive);
            assert!(refused >= 15, "{refused}");
            let code = close_code::TOO_MANY_VIOLATIONS;
            assert!(
                matches!(reason, CloseReason::Local { code: it, .. } if it == code),
                "{reason}"
            );
        }
    });
}

#[test]
fn thousands_of_streams_are_served_a_few_at_a_time() {
    run(async {
        const STREAMS: u32 = 3000;
        for Ends { ours, theirs, .. } in &both_roles(MsQuicTransportConfig::new()).await {
            let send = async {
                for number in 0..STREAMS {
                    let mut stream = theirs.open_uni().await.unwrap();
                    stream.write_all(&frame(&number.to_be_bytes())).await.unwrap();
                    stream.finish().unwrap();
                }
            };
            let receive = async {
                let mut seen = vec![false; STREAMS as usize];
                for _ in 0..STREAMS {
                    let (message, _) = ours.recv().await.unwrap();
                    let number = u32::from_be_bytes(message.as_ref().try_into().unwrap());
                    assert!(!std::mem::replace(&mut seen[number as usize], true));
                }
            };
            tokio::join!(send, receive);
        }
    });
}

#[test]
fn questions_and_answers_go_both_ways() {
    run(async {
        for Ends { ours, theirs, .. } in &both_roles(MsQuicTransportConfig::new()).await {
            let ask = async {
                let (mut question, mut answer) = theirs.open_bi().await.unwrap();
                question.write_all(&pattern(100_000)).await.unwrap();
                question.finish().unwrap();
                assert_eq!(answer.read_to_end(100).await.unwrap(), b"100000 bytes");
            };
            let reply = async |question: Bytes| format!("{} bytes", question.len()).into();
            tokio::select! {
                () = ask => {}
                reason = serve_requests(ours, 1, reply) => panic!("{reason}"),
            }
            let reply = async {
                let (mut answer, mut question) = theirs.accept_bi().await.unwrap();
                assert_eq!(question.read_to_end(100).await.unwrap(), b"how much?");
                answer.write_all(&pattern(100_000)).await.unwrap();
                answer.finish().unwrap();
            };
            let ask = ours.request("how much?".into(), Duration::from_secs(30));
            let (answer, ()) = tokio::join!(ask, reply);
            assert!(answer.unwrap() == pattern(100_000));
        }
    });
}

#[test]
fn cancelled_requests_carry_a_code() {
    run(async {
        let config = MsQuicTransportConfig::new().max_request_size(1000);
        for Ends { ours, theirs, .. } in &both_roles(config).await {
            // The asker cancels inside the question.
            let (mut question, _answer) = theirs.open_bi().await.unwrap();
            question.write_all(b"what").await.unwrap();
            let mut request = ours.accept_request().await.unwrap();
            question.reset(VarInt::from_u32(2)).unwrap();
            assert_eq!(request.question().await, Err(RequestError::Canceled));
            drop(request);
            // The server rejects: without an answer, and because of an endless question.
            for (length, code) in [(4, 3), (1001, 4)] {
                let (mut question, mut answer) = theirs.open_bi().await.unwrap();
                question.write_all(&pattern(length)).await.unwrap();
                let mut request = ours.accept_request().await.unwrap();
                if length > 1000 {
                    let error = request.question().await.unwrap_err();
                    assert_eq!(error, RequestError::TooLarge { size: 1001, limit: 1000 });
                }
                drop(request);
                let code = VarInt::from_u32(code);
                assert_eq!(question.stopped().await.unwrap(), Some(code));
                let error = answer.read_to_end(100).await.unwrap_err();
                let reset = quinn::ReadError::Reset(code);
                assert_eq!(error, quinn::ReadToEndError::Read(reset));
            }
            // Our asker cancels, and the peer rejects.
            let after = Duration::from_millis(500);
            let ask = ours.request("what?".into(), after);
            let never = async {
                let (answer, _question) = theirs.accept_bi().await.unwrap();
                assert_eq!(answer.stopped().await.unwrap(), Some(VarInt::from_u32(2)));
            };
            let (answer, ()) = tokio::join!(ask, never);
            assert_eq!(answer, Err(RequestError::TimedOut { after }));
            let ask = ours.request("what?".into(), Duration::from_secs(30));
            let refuse = async {
                let (mut answer, _question) = theirs.accept_bi().await.unwrap();
                answer.write_all(b"it").await.unwrap();
                answer.reset(VarInt::from_u32(77)).unwrap();
            };
            let (answer, ()) = tokio::join!(ask, refuse);
            assert_eq!(answer, Err(RequestError::NoAnswer { code: 77 }));
        }
    });
}

#[test]
fn thousands_of_questions_are_served_a_few_at_a_time() {
    run(async {
        const QUESTIONS: u32 = 2000;
        for Ends { ours, theirs, .. } in &both_roles(MsQuicTransportConfig::new()).await {
            let ask = async {
                let mut answers = Vec::new();
                for number in 0..QUESTIONS {
                    let (mut question, answer) = theirs.open_bi().await.unwrap();
                    question.write_all(&number.to_be_bytes()).await.unwrap();
                    question.finish().unwrap();
                    answers.push((number, answer));
                }
                for (number, mut answer) in answers {
                    assert_eq!(answer.read_to_end(4).await.unwrap(), number.to_be_bytes());
                }
            };
            tokio::select! {
                () = ask => {}
                reason = serve_requests(ours, 4, async |question| question) => panic!("{reason}"),
            }
        }
    });
}

#[test]
fn another_protocol_is_rejected_on_both_sides() {
    run(async {
        let listener = listen().await;
        let peer = QuinnPeer::new(Some(&trusting()), Verdict::Accepts, "other/1");
        let error = peer.connect(listener.local_addr()).await.unwrap_err();
        assert!(matches!(error, quinn::ConnectionError::ConnectionClosed(_)), "{error:?}");

        let transport = MsQuicTransport::new();
        let connect = transport.connect(peer.local_addr(), &[ALPN], trusting());
        let (ours, theirs) = tokio::join!(connect, peer.accept());
        assert!(theirs.is_err());
        let error = ours.unwrap_err();
        assert!(matches!(error, ConnectError::NoCommonAlpn { .. }), "{error:?}");
    });
}

#[test]
fn keying_material_matches_another_implementation() {
    use msquic_async::{Configuration, Connection, Listener, Registration, Settings};
    if lacks_patch("N32") {
        return;
    }
    run(async {
        let registration = Registration::new("interop").unwrap();
        let (me, settings) = (trusting(), Settings::new());
        let peer = QuinnPeer::new(Some(&trusting()), Verdict::Accepts, ALPN);

        let server = Configuration::server(&registration, &[ALPN], &settings, &me).unwrap();
        let listener = Listener::new(&registration, server, me.clone()).unwrap();
        listener.start(&[ALPN], Some(loopback())).unwrap();
        let accept = async {
            let connection = listener.accept().await.unwrap();
            connection.accept().await.map(|()| connection)
        };
        let (theirs, ours) = tokio::join!(peer.connect(listener.local_addr().unwrap()), accept);
        let accepted = (ours.unwrap(), theirs.unwrap());

        let client = Configuration::client(&registration, &[ALPN], &settings, &me).unwrap();
        let connection = Connection::new(&registration, me).unwrap();
        let start = connection.start(&client, "127.0.0.1", peer.local_addr().port());
        let (started, theirs) = tokio::join!(start, peer.accept());
        started.unwrap();
        for (ours, theirs) in [accepted, (connection, theirs.unwrap())] {
            for context in [&b""[..], b"context"] {
                let mut expected = [0; 100];
                theirs.export_keying_material(&mut expected, b"EXPERIMENTAL", context).unwrap();
                let exported = ours.export_keying_material(b"EXPERIMENTAL", context, 100).await;
                assert_eq!(**exported.unwrap(), expected);
            }
        }
    });
}

#[test]
fn a_handler_gets_what_streams_that_wait_for_memory_hold_at_the_end() {
    run(async {
        if lacks_patch("N60") {
            return; // the library drops what it holds
        }
        let config = MsQuicTransportConfig::new().max_unfinished(64 * 1024);
        for (index, ends) in both_roles(config).await.into_iter().enumerate() {
            let Ends { ours, theirs, _listener, _peer } = ends;
            let is_late = index == 1;
            let (sender, mut received) = mpsc::unbounded_channel();
            let (handle, longest) = (ours.clone(), 40 * 1024);
            let handler = move |_: &MsQuicNetConnection, received: Result<(Bytes, Duration), _>| {
                let _handle = &handle; // it is dropped with the handler
                let _ = sender.send(received.map(|(message, _)| message.len()));
            };
            let mut handler = Some(handler);
            if !is_late {
                ours.on_message(handler.take().unwrap()).await.unwrap();
            }
            // The oldest message takes all memory for unfinished ones.
            let mut oldest = theirs.open_uni().await.unwrap();
            oldest.set_priority(1).unwrap();
            oldest.write_all(&frame(&[0; 1_000_000])[..100 * 1024]).await.unwrap();
            let mut after_it = theirs.open_uni().await.unwrap();
            after_it.write_all(&frame(b"after it")).await.unwrap();
            if is_late {
                assert_eq!(ours.recv().await.unwrap().0.len(), 8);
            } else {
                assert_eq!(received.recv().await, Some(Ok(8)));
            }
            let mut waiting = theirs.open_uni().await.unwrap();
            waiting.write_all(&frame(&pattern(longest))).await.unwrap();
            waiting.write_all(&frame(b"short")).await.unwrap();
            waiting.finish().unwrap();
            assert_eq!(waiting.stopped().await.unwrap(), None, "all bytes are acknowledged");
            assert!(received.try_recv().is_err(), "the stream waits for memory");
            theirs.close(VarInt::from_u32(0), b"");
            if let Some(handler) = handler {
                ours.watch_close().await;
                ours.on_message(handler).await.unwrap();
            }
            for expected in [longest, 5] {
                assert_eq!(received.recv().await, Some(Ok(expected)));
            }
            drop(ours);
            assert_eq!(received.recv().await, None, "the handler is dropped");
        }
    });
}
