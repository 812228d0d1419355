//! Interoperability with quinn-transport through the traits, in both roles.
//!
//! Each behaviour runs with each transport as the dialler, and for both ends.

mod common;

use bytes::Bytes;
use common::{ALPN, has_patch, lacks_patch, pattern, run};
use futures_util::FutureExt;
use msquic_transport::{MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig};
use net_kit::receipts::MAX_UNANSWERED;
use net_traits::{
    CloseOutcome, CloseReason, ConnectError, DatagramError, Limit, NetConnection, NetCredential,
    NetIncomingRequest, NetListener, NetQuestion, NetRequests, NetTransport, RecvError, Rejection,
    RejectionBy, RequestError, SendAckedError, SendError, TrustError, TrustPolicy, close_code,
};
use net_traits::{request_code, serve_requests};
use quinn_transport::{QuinnConfig, QuinnConnection, QuinnTransport};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The limits that the tests choose, for both transports.
#[derive(Clone, Copy)]
struct Options {
    max_message_size: usize,
    send_streams: usize,
    max_connections_per_ip: usize,
    max_connections_per_identity: usize,
    receive_queue: usize,
}

const DEFAULT: Options = Options {
    max_message_size: 4_000_000,
    send_streams: 1,
    max_connections_per_ip: 100,
    max_connections_per_identity: 100,
    receive_queue: 4_000_000,
};

/// What the transports have beside the traits.
trait Quic: NetTransport<Connection: Urgent> {
    fn with(options: Options) -> Self;
}

trait Urgent: NetConnection + NetRequests + std::fmt::Debug {
    async fn urgent(&self, message: Bytes) -> Result<(), SendError>;
}

macro_rules! quic {
    ($transport:ident, $connection:ident, $config:ident) => {
        impl Quic for $transport {
            fn with(options: Options) -> Self {
                let config = $config::new()
                    .max_message_size(options.max_message_size)
                    .send_streams(options.send_streams)
                    .receive_queue(options.receive_queue)
                    .max_connections_per_ip(options.max_connections_per_ip)
                    .max_connections_per_identity(options.max_connections_per_identity);
                $transport::with_config(config).unwrap()
            }
        }

        impl Urgent for $connection {
            async fn urgent(&self, message: Bytes) -> Result<(), SendError> {
                self.send_urgent(message).await
            }
        }
    };
}

quic!(MsQuicTransport, MsQuicNetConnection, MsQuicTransportConfig);
quic!(QuinnTransport, QuinnConnection, QuinnConfig);

/// Runs a behaviour with each transport as the dialler.
macro_rules! both {
    ($behaviour:ident) => {
        run(async {
            $behaviour::<MsQuicTransport, QuinnTransport>().await;
            $behaviour::<QuinnTransport, MsQuicTransport>().await;
        })
    };
}

fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

/// A dialler and a listener.
struct Stage<D, L: NetTransport> {
    dialler: D,
    transport: L,
    listener: L::Listener,
}

type Met<D, L> = (
    Result<<D as NetTransport>::Connection, ConnectError>,
    Result<<L as NetTransport>::Connection, ConnectError>,
);

impl<D: Quic, L: Quic> Stage<D, L> {
    async fn new(of_dialler: Options, of_listener: Options, credential: NetCredential) -> Self {
        let (dialler, transport) = (D::with(of_dialler), L::with(of_listener));
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = transport.create_listener(address, &[ALPN], credential).await.unwrap();
        Self { dialler, transport, listener }
    }

    async fn meet(&self, credential: NetCredential) -> Met<D, L> {
        let dial = self.dialler.connect(self.listener.local_addr(), &[ALPN], credential);
        let accept = async { self.listener.accept().await.unwrap().accept().await };
        tokio::join!(dial, accept)
    }

    /// Connects over a relay that loses datagrams.
    async fn meet_lossy(
        &self,
    ) -> (LossyRelay, <D as NetTransport>::Connection, <L as NetTransport>::Connection) {
        let relay = LossyRelay::new(self.listener.local_addr()).await;
        let dial = self.dialler.connect(relay.address, &[ALPN], trusting());
        let accept = async { self.listener.accept().await.unwrap().accept().await };
        let (dialled, accepted) = tokio::join!(dial, accept);
        (relay, dialled.unwrap(), accepted.unwrap())
    }

    async fn pair(options: Options) -> (Self, D::Connection, L::Connection) {
        let stage = Self::new(options, options, trusting()).await;
        let (dialled, accepted) = stage.meet(trusting()).await;
        (stage, dialled.unwrap(), accepted.unwrap())
    }
}

#[test]
fn datagrams_of_all_sizes_go_both_ways() {
    async fn exchange<D: Quic, L: Quic>() {
        let (stage, dialled, accepted) = Stage::<D, L>::pair(DEFAULT).await;
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
        assert_eq!(stage.transport.revoke(&TrustPolicy::reject_all()).await, 1);
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
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(DEFAULT).await;
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
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(options).await;
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
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(DEFAULT).await;
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
fn closing_delivers_what_is_queued_and_carries_code_and_reason() {
    async fn end<D: Quic, L: Quic>() {
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(DEFAULT).await;
        close(&dialled, &accepted).await;
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(DEFAULT).await;
        close(&accepted, &dialled).await;
    }
    async fn close(from: &impl NetConnection, to: &impl NetConnection) {
        for _ in 0..20 {
            from.send_bytes(pattern(10_000)).await.unwrap();
        }
        let receive = async {
            for _ in 0..20 {
                assert!(to.recv().await.unwrap().0 == pattern(10_000));
            }
            to.watch_close().await
        };
        let (reason, outcome) = tokio::join!(receive, from.close(42, "enough"));
        assert!(outcome.is_confirmed(), "{outcome:?}");
        assert_eq!(reason, CloseReason::Peer { code: 42, reason: "enough".to_owned() });
        let local = CloseReason::Local { code: 42, reason: "enough".to_owned() };
        assert_eq!(from.watch_close().await, local);
    }
    both!(end);
}

#[test]
fn aborts_and_dropped_handles_reach_the_peer() {
    async fn end<D: Quic, L: Quic>() {
        let by_peer = |code, reason: &str| CloseReason::Peer { code, reason: reason.to_owned() };
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(DEFAULT).await;
        dialled.abort(close_code::DUPLICATE, "twice");
        assert_eq!(accepted.watch_close().await, by_peer(close_code::DUPLICATE, "twice"));
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(DEFAULT).await;
        accepted.abort(close_code::DUPLICATE, "twice");
        assert_eq!(dialled.watch_close().await, by_peer(close_code::DUPLICATE, "twice"));
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(DEFAULT).await;
        drop(dialled);
        assert_eq!(accepted.watch_close().await, by_peer(0, ""));
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(DEFAULT).await;
        drop(accepted);
        assert_eq!(dialled.watch_close().await, by_peer(0, ""));
    }
    both!(end);
}

#[test]
fn rejections_name_alert_and_cause_on_both_sides() {
    async fn reject<D: Quic, L: Quic>() {
        // The listener does not trust the dialler.
        let distrusting = NetCredential::self_signed(TrustPolicy::reject_all()).unwrap();
        let stage = Stage::<D, L>::new(DEFAULT, DEFAULT, distrusting).await;
        let credential = trusting();
        let rejected = credential.identity();
        let (dialled, accepted) = stage.meet(credential).await;
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
        let stage = Stage::<D, L>::new(DEFAULT, DEFAULT, credential).await;
        let distrusting = NetCredential::self_signed(TrustPolicy::reject_all()).unwrap();
        let (dialled, accepted) = stage.meet(distrusting).await;
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
        let stage = Stage::<D, L>::new(DEFAULT, limited, trusting()).await;
        let peer = trusting();
        let (first, _kept) = stage.meet(peer.clone()).await;
        let _second = stage.meet(peer).await;
        let code = Limit::PerIdentity.code();
        match first.unwrap().watch_close().await {
            CloseReason::Peer { code: it, .. } => assert_eq!(it, code),
            other => panic!("{other:?}"),
        }
        assert_eq!(stage.transport.statistics().refused_per_identity, 1);

        // Before the handshake no code can be sent.
        let limited = Options { max_connections_per_ip: 1, ..DEFAULT };
        let stage = Stage::<D, L>::new(DEFAULT, limited, trusting()).await;
        let _first = stage.meet(trusting()).await;
        let address = stage.listener.local_addr();
        let refused = tokio::select! {
            dialled = stage.dialler.connect(address, &[ALPN], trusting()) => dialled.map(drop),
            accepted = stage.listener.accept() => panic!("admitted: {}", accepted.is_ok()),
        };
        // Without the patch libmsquic says that the peer's token is invalid.
        if has_patch("N26") {
            assert_eq!(refused, Err(ConnectError::Refused(address)));
        }
        assert!(refused.is_err());
        assert_eq!(stage.transport.statistics().refused_per_ip, 1);
    }
    both!(refuse);
}

#[test]
fn a_message_over_the_limit_stops_its_stream_only() {
    async fn exceed<D: Quic, L: Quic>() {
        let small = Options { max_message_size: 1000, ..DEFAULT };
        let stage = Stage::<D, L>::new(DEFAULT, small, trusting()).await;
        let (dialled, accepted) = stage.meet(trusting()).await;
        stop(&dialled.unwrap(), &accepted.unwrap()).await;
        let stage = Stage::<D, L>::new(small, DEFAULT, trusting()).await;
        let (dialled, accepted) = stage.meet(trusting()).await;
        stop(&accepted.unwrap(), &dialled.unwrap()).await;
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
        for handle in [from, &other] {
            assert_eq!(handle.flush().await, Err(SendError::Stopped { code: 1 }));
        }
        for handle in [from, &other, &from.clone()] {
            assert_eq!(handle.flush().await, Ok(()));
        }
        from.send(b"next").await.unwrap();
        while to.recv().await.unwrap().0 != "next" {} // some of those before used the next stream
        from.urgent("and urgent".into()).await.unwrap();
        assert_eq!(to.recv().await.unwrap().0, "and urgent");
    }
    both!(exceed);
}

#[test]
fn a_full_inbox_throttles_the_sender_and_loses_nothing() {
    async fn throttle<D: Quic, L: Quic>() {
        let options = Options { receive_queue: 10_000, ..DEFAULT };
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(options).await;
        fill(&dialled, &accepted).await;
        fill(&accepted, &dialled).await;
    }
    async fn fill(from: &impl NetConnection, to: &impl NetConnection) {
        let mut sent = 0_u32;
        let wait = Duration::from_millis(500);
        let message = |number: u32| Bytes::from(number.to_be_bytes().repeat(25_000));
        while let Ok(queued) = tokio::time::timeout(wait, from.send_bytes(message(sent))).await {
            queued.unwrap();
            sent += 1;
            assert!(sent < 1000, "100 MB are queued for a peer that does not read");
        }
        for expected in 0..sent {
            assert!(to.recv().await.unwrap().0 == message(expected));
        }
    }
    both!(throttle);
}

#[test]
fn receipts_arrive_although_the_sender_receives_nothing() {
    async fn exchange<D: Quic, L: Quic>() {
        let options = Options { receive_queue: 10_000, send_streams: 3, ..DEFAULT };
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(options).await;
        acknowledge(&dialled, &accepted).await;
        acknowledge(&accepted, &dialled).await;
    }
    async fn acknowledge(from: &impl NetConnection, to: &impl NetConnection) {
        for _ in 0..20 {
            to.send_bytes(pattern(10_000)).await.unwrap(); // more than the receive queue
        }
        for _ in 0..100 {
            let (acked, received) = tokio::join!(from.send_acked("now".into()), to.recv());
            assert_eq!((acked, received.unwrap().0), (Ok(()), "now".into()));
        }
        for _ in 0..20 {
            from.recv().await.unwrap();
        }
    }
    both!(exchange);
}

#[test]
fn what_was_on_a_stopped_stream_has_no_receipt() {
    async fn exceed<D: Quic, L: Quic>() {
        let small = Options { max_message_size: 1000, ..DEFAULT };
        let stage = Stage::<D, L>::new(DEFAULT, small, trusting()).await;
        let (dialled, accepted) = stage.meet(trusting()).await;
        stop(&dialled.unwrap(), &accepted.unwrap()).await;
        let stage = Stage::<D, L>::new(small, DEFAULT, trusting()).await;
        let (dialled, accepted) = stage.meet(trusting()).await;
        stop(&accepted.unwrap(), &dialled.unwrap()).await;
    }
    async fn stop(from: &impl NetConnection, to: &impl NetConnection) {
        let (acked, received) = tokio::join!(from.send_acked(pattern(1001)), to.recv());
        assert!(matches!(received, Err(RecvError::TooLarge { .. })), "{received:?}");
        assert_eq!(acked, Err(SendAckedError::Unknown(SendError::Stopped { code: 1 })));
    }
    both!(exceed);
}

#[test]
fn dropped_futures_of_messages_on_a_stopped_stream_free_their_places() {
    async fn exceed<D: Quic, L: Quic>() {
        let small = Options { max_message_size: 1000, receive_queue: 500, ..DEFAULT };
        let stage = Stage::<D, L>::new(DEFAULT, small, trusting()).await;
        let (dialled, accepted) = stage.meet(trusting()).await;
        stop(&dialled.unwrap(), &accepted.unwrap()).await;
        let stage = Stage::<D, L>::new(small, DEFAULT, trusting()).await;
        let (dialled, accepted) = stage.meet(trusting()).await;
        stop(&accepted.unwrap(), &dialled.unwrap()).await;
    }
    async fn stop(from: &impl NetConnection, to: &impl NetConnection) {
        from.send_bytes(pattern(1000)).await.unwrap(); // the queue is full
        for number in 0..MAX_UNANSWERED {
            // Those behind the first one are lost with it.
            let size = if number == 0 { 1001 } else { 10 };
            let mut dropped = pin!(from.send_acked(pattern(size)));
            for _ in 0..2 {
                assert!((&mut dropped).now_or_never().is_none());
                tokio::task::yield_now().await; // with a new cooperative budget
            }
        }
        let send = async { while from.send_acked("next".into()).await.is_err() {} };
        let receive = async { while to.recv().await.ok().is_none_or(|it| it.0 != "next") {} };
        tokio::join!(send, receive);
    }
    both!(exceed);
}

#[test]
fn closes_that_meet_end_and_tell_the_truth() {
    async fn close<D: Quic, L: Quic>() {
        let options = Options { send_streams: 4, receive_queue: 64 * 1024, ..DEFAULT };
        for _ in 0..5 {
            let (_stage, dialled, accepted) = Stage::<D, L>::pair(options).await;
            for _ in 0..12 {
                dialled.send_bytes(pattern(10_000)).await.unwrap();
                accepted.send_bytes(pattern(10_000)).await.unwrap();
            }
            dialled.urgent("urgent".into()).await.unwrap();
            let (one, other) = tokio::join!(dialled.close(1, ""), accepted.close(2, ""));
            // Both discard what they have not received, so neither is told that it was delivered.
            for outcome in [one, other] {
                assert_ne!(outcome, CloseOutcome::Delivered);
            }
        }
    }
    run(async {
        close::<MsQuicTransport, QuinnTransport>().await;
        close::<QuinnTransport, MsQuicTransport>().await;
        close::<MsQuicTransport, MsQuicTransport>().await;
    });
}

/// Longer than any request here takes.
const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_slow_receiver_loses_nothing_with_several_lanes_and_lost_packets() {
    async fn close<C: Quic, R: Quic>() {
        let options = Options { send_streams: 4, receive_queue: 64 * 1024, ..DEFAULT };
        let stage = Stage::<C, R>::new(options, options, trusting()).await;
        let (_relay, closer, receiver) = stage.meet_lossy().await;
        let send = async {
            for _ in 0..149 {
                closer.send_bytes(pattern(16 * 1024)).await.unwrap();
            }
            closer.urgent(pattern(16 * 1024)).await.unwrap();
            assert_eq!(closer.close(9, "").await, CloseOutcome::Acknowledged);
        };
        let receive = async {
            let mut received = 0;
            loop {
                match receiver.recv().await {
                    Ok(_) => received += 1,
                    Err(end) => return (received, end),
                }
                sleep(Duration::from_millis(1)).await; // this makes the receiver slow
            }
        };
        let ((), (received, end)) = tokio::join!(send, receive);
        let reason = CloseReason::Peer { code: 9, reason: String::new() };
        assert_eq!((received, end), (150, RecvError::Closed(reason)));
    }
    run(async {
        close::<MsQuicTransport, QuinnTransport>().await;
        close::<QuinnTransport, QuinnTransport>().await;
        if !lacks_patch("N60") {
            close::<MsQuicTransport, MsQuicTransport>().await;
            close::<QuinnTransport, MsQuicTransport>().await;
        }
    });
}

/// A relay between one client and a server, which loses every 25th datagram.
struct LossyRelay {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl LossyRelay {
    async fn new(server: SocketAddr) -> Self {
        let at_client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at_server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        at_server.connect(server).await.unwrap();
        let address = at_client.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut up, mut down, mut client) = ([0; 2048], [0; 2048], None);
            for count in 1_u64.. {
                let is_lost = count.is_multiple_of(25);
                tokio::select! {
                    Ok((size, from)) = at_client.recv_from(&mut up) => {
                        client = Some(from);
                        if !is_lost {
                            let _ = at_server.send(&up[..size]).await;
                        }
                    }
                    Ok(size) = at_server.recv(&mut down) => {
                        if let (false, Some(client)) = (is_lost, client) {
                            let _ = at_client.send_to(&down[..size], client).await;
                        }
                    }
                }
            }
        });
        Self { address, task }
    }
}

impl Drop for LossyRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[test]
fn requests_go_both_ways() {
    async fn exchange<D: Quic, L: Quic>() {
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(DEFAULT).await;
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

#[test]
fn closing_waits_for_answers_in_progress() {
    async fn answer<D: Quic, L: Quic>() {
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(DEFAULT).await;
        close(&dialled, &accepted).await;
        let (_stage, dialled, accepted) = Stage::<D, L>::pair(DEFAULT).await;
        close(&accepted, &dialled).await;
    }
    async fn close(from: &impl NetRequests, to: &impl NetRequests) {
        let answer = async {
            let mut question = to.accept_request().await.unwrap();
            question.question().await.unwrap();
            // The answer is polled first, so it has begun when the close does.
            tokio::join!(question.answer(pattern(1024 * 1024)), to.close(0, "done")).0
        };
        let (answered, sent) = tokio::join!(from.request("all?".into(), LONG), answer);
        assert!(answered.unwrap() == pattern(1024 * 1024));
        assert_eq!(sent, Ok(()));
    }
    both!(answer);
}
