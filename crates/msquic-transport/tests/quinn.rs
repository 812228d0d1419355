//! Interoperability with quinn-transport through the traits, in both roles.
//!
//! Each behaviour runs with each transport as the dialler, and for both ends.

mod common;
mod quinn_pairs;

use common::{ALPN, has_patch, pattern};
use net_traits::{
    CloseReason, ConnectError, DatagramError, Limit, NetConnection, NetCredential, NetListener,
    NetQuestion, NetRequests, RecvError, Rejection, RejectionBy, RequestError, SendError,
    TrustError, TrustPolicy, close_code,
};
use net_traits::{request_code, serve_requests};
use quinn_pairs::{DEFAULT, Endpoints, LONG, Options, Quic, Urgent, both, trusting};
use std::time::Duration;
use tokio::time::sleep;

#[test]
fn datagrams_of_all_sizes_go_both_ways() {
    async fn exchange<D: Quic, L: Quic>() {
        let (endpoints, dialled, accepted) = Endpoints::<D, L>::pair(DEFAULT).await;
        let (one, other) = (dialled.datagrams().unwrap(), accepted.datagrams().unwrap());
        for [from, to] in [[one, other], [other, one]] {
            while from.max_datagram_size().is_none() {
                sleep(Duration::from_millis(1)).await;
            }
            let largest = from.max_datagram_size().unwrap();
            for size in [0, 1, 1000, largest] {
                let send = async {
                    loop {
                        from.send_datagram(pattern(size)).unwrap();
                        sleep(Duration::from_millis(10)).await; // it may be lost
                    }
                };
                let receive = async {
                    // Earlier ones may have been sent again.
                    while to.recv_datagram().await.unwrap() != pattern(size) {}
                };
                tokio::select! {
                    () = receive => {}
                    () = send => unreachable!(),
                }
            }
            let error = from.send_datagram(pattern(100_000)).unwrap_err();
            let DatagramError::TooLarge { size: 100_000, limit } = error else { panic!("{error}") };
            assert!((largest..2000).contains(&limit), "{limit}");
            let (sent, received) = (from.datagram_statistics(), to.datagram_statistics());
            assert!(received.received >= 4 && received.arrived >= received.received);
            assert!(sent.sent >= received.arrived, "{sent:?} {received:?}");
        }
        one.send_datagram(pattern(9)).unwrap();
        assert_eq!(endpoints.transport.revoke(&TrustPolicy::reject_all()).await, 1);
        let received = other.recv_datagram().await;
        assert!(matches!(received, Err(DatagramError::Closed(_))), "{received:?}");
        let revoked = close_code::REVOKED;
        let received = one.recv_datagram().await;
        let Err(DatagramError::Closed(CloseReason::Peer { code, .. })) = received else {
            panic!("{received:?}")
        };
        assert_eq!(code, revoked);
    }
    both!(exchange);
}

#[test]
fn messages_of_all_sizes_go_both_ways() {
    async fn exchange<D: Quic, L: Quic>() {
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(DEFAULT).await;
        tokio::join!(send_all(&dialled, &accepted), send_all(&accepted, &dialled));
    }
    async fn send_all(from: &impl NetConnection, to: &impl NetConnection) {
        let sizes = [0, 1, 1000, 100_000, 3_000_000, 4_000_000];
        let send = async {
            for size in sizes {
                from.send_bytes(pattern(size)).await.unwrap();
            }
            from.flush().await.unwrap();
        };
        let receive = async {
            for size in sizes {
                assert!(to.recv().await.unwrap().0 == pattern(size));
            }
        };
        tokio::join!(send, receive);
    }
    both!(exchange);
}

#[test]
fn several_lanes_carry_every_message_once() {
    async fn exchange<D: Quic, L: Quic>() {
        let options = Options { send_streams: 4, ..DEFAULT };
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(options).await;
        tokio::join!(send_all(&dialled, &accepted), send_all(&accepted, &dialled));
    }
    async fn send_all(from: &impl NetConnection, to: &impl NetConnection) {
        const COUNT: u16 = 500;
        let send = async {
            for number in 0..COUNT {
                let message = number.to_be_bytes().repeat(1 + usize::from(number) * 10);
                from.send_bytes(message.into()).await.unwrap();
            }
        };
        let receive = async {
            let mut seen = vec![false; COUNT.into()];
            for _ in 0..COUNT {
                let (message, _) = to.recv().await.unwrap();
                let number = u16::from_be_bytes([message[0], message[1]]);
                assert_eq!(message.len(), 2 + usize::from(number) * 20);
                assert!(!std::mem::replace(&mut seen[usize::from(number)], true));
            }
        };
        tokio::join!(send, receive);
    }
    both!(exchange);
}

#[test]
fn urgent_messages_overtake_what_waits() {
    async fn exchange<D: Quic, L: Quic>() {
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(DEFAULT).await;
        overtake(&dialled, &accepted).await;
        overtake(&accepted, &dialled).await;
    }
    async fn overtake(from: &impl Urgent, to: &impl NetConnection) {
        const COUNT: usize = 30;
        let send = async {
            for _ in 0..COUNT {
                from.send_bytes(pattern(1_000_000)).await.unwrap();
            }
        };
        let receive = async {
            // The first message shows that the others are on their way, more than all queues hold.
            to.recv().await.unwrap();
            from.urgent("now".into()).await.unwrap();
            let mut before = 1;
            while to.recv().await.unwrap().0 != "now" {
                before += 1;
            }
            for _ in before..COUNT {
                assert_eq!(to.recv().await.unwrap().0.len(), 1_000_000);
            }
            before
        };
        let ((), before) = tokio::join!(send, receive);
        assert!(before < COUNT, "the urgent message arrived behind all others");
    }
    both!(exchange);
}

#[test]
fn rejections_name_alert_and_cause_on_both_sides() {
    async fn reject<D: Quic, L: Quic>() {
        // The listener does not trust the dialler.
        let distrusting = NetCredential::self_signed(TrustPolicy::reject_all()).unwrap();
        let endpoints = Endpoints::<D, L>::new(DEFAULT, DEFAULT, distrusting).await;
        let credential = trusting();
        let rejected = credential.identity();
        let (dialled, accepted) = endpoints.connect(credential).await;
        let ours = rejection(accepted.map(drop));
        let theirs = match dialled {
            Err(ConnectError::Rejected(rejection)) => rejection,
            Err(error) => panic!("{error:?}"),
            // With TLS 1.3 the dialler is connected before it is rejected.
            Ok(connection) => match connection.watch_close().await {
                CloseReason::Rejected(rejection) => rejection,
                reason => panic!("{reason:?}"),
            },
        };
        check(&ours, &theirs, rejected);

        // The dialler does not trust the listener.
        let credential = trusting();
        let rejected = credential.identity();
        let endpoints = Endpoints::<D, L>::new(DEFAULT, DEFAULT, credential).await;
        let distrusting = NetCredential::self_signed(TrustPolicy::reject_all()).unwrap();
        let (dialled, accepted) = endpoints.connect(distrusting).await;
        check(&rejection(dialled.map(drop)), &rejection(accepted.map(drop)), rejected);
    }
    fn rejection(result: Result<(), ConnectError>) -> Rejection {
        match result {
            Err(ConnectError::Rejected(rejection)) => rejection,
            other => panic!("{other:?}"),
        }
    }
    fn check(ours: &Rejection, theirs: &Rejection, rejected: net_traits::CertHash) {
        let cause = TrustError::UntrustedIdentity(rejected);
        assert_eq!(ours.cause.as_deref(), Some(&cause));
        assert_eq!((ours.by, theirs.by), (RejectionBy::Us, RejectionBy::Peer));
        assert_eq!((ours.identity, theirs.identity), (Some(rejected), Some(rejected)));
        assert!(ours.alert.is_some());
        assert_eq!(ours.alert, theirs.alert);
    }
    both!(reject);
}

#[test]
fn limits_refuse_attempts_and_say_so() {
    async fn refuse<D: Quic, L: Quic>() {
        let limited = Options { max_connections_per_identity: 1, ..DEFAULT };
        let endpoints = Endpoints::<D, L>::new(DEFAULT, limited, trusting()).await;
        let peer = trusting();
        let (first, _kept) = endpoints.connect(peer.clone()).await;
        let _second = endpoints.connect(peer).await;
        let code = Limit::PerIdentity.code();
        match first.unwrap().watch_close().await {
            CloseReason::Peer { code: it, .. } => assert_eq!(it, code),
            other => panic!("{other:?}"),
        }
        assert_eq!(endpoints.transport.statistics().refused_per_identity, 1);

        // Before the handshake no code can be sent.
        let limited = Options { max_connections_per_ip: 1, ..DEFAULT };
        let endpoints = Endpoints::<D, L>::new(DEFAULT, limited, trusting()).await;
        let _first = endpoints.connect(trusting()).await;
        let address = endpoints.listener.local_addr();
        let refused = tokio::select! {
            dialled = endpoints.dialler.connect(address, &[ALPN], trusting()) => dialled.map(drop),
            accepted = endpoints.listener.accept() => panic!("admitted: {}", accepted.is_ok()),
        };
        // Without the patch libmsquic says that the peer's token is invalid.
        if has_patch("N26") {
            assert_eq!(refused, Err(ConnectError::Refused(address)));
        }
        assert!(refused.is_err());
        assert_eq!(endpoints.transport.statistics().refused_per_ip, 1);
    }
    both!(refuse);
}

#[test]
fn a_message_over_the_limit_stops_its_stream_only() {
    async fn exceed<D: Quic, L: Quic>() {
        let small = Options { max_message_size: 1000, ..DEFAULT };
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair_of(DEFAULT, small).await;
        stop(&dialled, &accepted).await;
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair_of(small, DEFAULT).await;
        stop(&accepted, &dialled).await;
    }
    async fn stop(from: &impl Urgent, to: &impl NetConnection) {
        let other = from.clone();
        from.send_bytes(pattern(1001)).await.unwrap();
        let error = to.recv().await.unwrap_err();
        assert_eq!(error, RecvError::TooLarge { size: 1001, limit: 1000 });
        // Messages are lost until the sender learns of the stop, which one send reports, and the next
        // flush of each handle.
        let error = loop {
            match from.send(b"lost").await {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        };
        assert_eq!(error, SendError::Stopped { code: 1 });
        let flush = async {
            for handle in [from, &other] {
                assert_eq!(handle.flush().await, Err(SendError::Stopped { code: 1 }));
            }
            for handle in [from, &other, &from.clone()] {
                assert_eq!(handle.flush().await, Ok(()));
            }
            from.send(b"next").await.unwrap();
        };
        // Some of the messages before used the next stream, and may fill the receive queue.
        let receive = async { while to.recv().await.unwrap().0 != "next" {} };
        tokio::join!(flush, receive);
        from.urgent("and urgent".into()).await.unwrap();
        assert_eq!(to.recv().await.unwrap().0, "and urgent");
    }
    both!(exceed);
}

#[test]
fn requests_go_both_ways() {
    async fn exchange<D: Quic, L: Quic>() {
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(DEFAULT).await;
        ask(&dialled, &accepted).await;
        ask(&accepted, &dialled).await;
    }
    async fn ask(from: &impl NetRequests, to: &impl NetRequests) {
        let questions = async {
            for size in [0, 1, 100_000, 1024 * 1024] {
                assert!(from.request(pattern(size), LONG).await.unwrap() == pattern(size));
            }
        };
        tokio::select! {
            () = questions => {}
            reason = serve_requests(to, 4, async |question| question) => panic!("{reason}"),
        }
        let refuse = async { to.accept_request().await.unwrap().refuse(77) };
        let (refused, ()) = tokio::join!(from.request("may I?".into(), LONG), refuse);
        assert_eq!(refused, Err(RequestError::NoAnswer { code: 77 }));
        let forget = async { drop(to.accept_request().await.unwrap()) };
        let (forgotten, ()) = tokio::join!(from.request("and now?".into(), LONG), forget);
        assert_eq!(forgotten, Err(RequestError::NoAnswer { code: request_code::NO_ANSWER }));
        let question = tokio::select! {
            answer = from.request("never mind".into(), LONG) => panic!("{answer:?}"),
            question = to.accept_request() => question.unwrap(),
        };
        question.canceled().await;
        assert_eq!(question.answer("late".into()).await, Err(RequestError::Canceled));
    }
    both!(exchange);
}
