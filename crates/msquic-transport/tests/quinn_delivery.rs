//! Delivery between msquic-transport and quinn-transport, in both roles: closing, receipts, and what a slow
//! receiver loses.

mod common;
mod quinn_pairs;

use bytes::Bytes;
use common::{ALPN, lacks_patch, pattern, run};
use futures_util::FutureExt;
use msquic_transport::MsQuicTransport;
use net_kit::receipts::MAX_UNANSWERED;
use net_traits::{
    CloseOutcome, CloseReason, NetConnection, NetIncomingRequest, NetListener, NetQuestion,
    NetRequests, RecvError, SendAckedError, SendError, close_code,
};
use net_traits_test::{Path, Relay};
use quinn_pairs::{DEFAULT, Endpoints, LONG, Options, Quic, Urgent, both, trusting};
use quinn_transport::QuinnTransport;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

#[test]
fn closing_delivers_what_is_queued_and_carries_code_and_reason() {
    async fn end<D: Quic, L: Quic>() {
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(DEFAULT).await;
        close(&dialled, &accepted).await;
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(DEFAULT).await;
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
fn a_flush_waits_for_the_transport_of_the_peer_but_not_for_its_application() {
    async fn flush<D: Quic, L: Quic>() {
        let endpoints = Endpoints::<D, L>::new(DEFAULT, DEFAULT, trusting()).await;
        let relay = Relay::udp(endpoints.listener.local_addr()).await.unwrap();
        let dial = endpoints.dialler.connect(relay.address(), &[ALPN], trusting());
        let accept = async { endpoints.listener.accept().await.unwrap().accept().await };
        let (dialled, accepted) = tokio::join!(dial, accept);
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        flush_through(&relay, &dialled, &accepted).await;
        flush_through(&relay, &accepted, &dialled).await;
    }
    async fn flush_through(relay: &Relay, from: &impl Urgent, to: &impl NetConnection) {
        for number in 0..20_u8 {
            from.send(&[number]).await.unwrap();
            from.urgent(vec![number].into()).await.unwrap();
            from.flush().await.unwrap();
        }
        for _ in 0..40 {
            to.recv().await.unwrap();
        }
        relay.interrupt(relay.address());
        from.send(b"held up").await.unwrap();
        let mut flushed = pin!(from.flush());
        assert!(timeout(Duration::from_millis(200), flushed.as_mut()).await.is_err());
        relay.restore();
        assert_eq!(flushed.await, Ok(()));
        assert_eq!(to.recv().await.unwrap().0, "held up");
    }
    both!(flush);
}

#[test]
fn aborts_and_dropped_handles_reach_the_peer() {
    async fn end<D: Quic, L: Quic>() {
        let by_peer = |code, reason: &str| CloseReason::Peer { code, reason: reason.to_owned() };
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(DEFAULT).await;
        dialled.abort(close_code::DUPLICATE, "twice");
        assert_eq!(accepted.watch_close().await, by_peer(close_code::DUPLICATE, "twice"));
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(DEFAULT).await;
        accepted.abort(close_code::DUPLICATE, "twice");
        assert_eq!(dialled.watch_close().await, by_peer(close_code::DUPLICATE, "twice"));
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(DEFAULT).await;
        drop(dialled);
        assert_eq!(accepted.watch_close().await, by_peer(0, ""));
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(DEFAULT).await;
        drop(accepted);
        assert_eq!(dialled.watch_close().await, by_peer(0, ""));
    }
    both!(end);
}

#[test]
fn a_full_inbox_throttles_the_sender_and_loses_nothing() {
    async fn throttle<D: Quic, L: Quic>() {
        let options = Options { receive_queue: 10_000, ..DEFAULT };
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(options).await;
        fill(&dialled, &accepted).await;
        fill(&accepted, &dialled).await;
    }
    async fn fill(from: &impl NetConnection, to: &impl NetConnection) {
        let mut sent = 0_u32;
        let wait = Duration::from_millis(500);
        let message = |number: u32| Bytes::from(number.to_be_bytes().repeat(25_000));
        while let Ok(queued) = timeout(wait, from.send_bytes(message(sent))).await {
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
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(options).await;
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
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair_of(DEFAULT, small).await;
        stop(&dialled, &accepted).await;
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair_of(small, DEFAULT).await;
        stop(&accepted, &dialled).await;
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
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair_of(DEFAULT, small).await;
        stop(&dialled, &accepted).await;
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair_of(small, DEFAULT).await;
        stop(&accepted, &dialled).await;
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
            let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(options).await;
            for _ in 0..12 {
                dialled.send_bytes(pattern(10_000)).await.unwrap();
                accepted.send_bytes(pattern(10_000)).await.unwrap();
            }
            dialled.urgent("urgent".into()).await.unwrap();
            let (one, other) = tokio::join!(dialled.close(1, ""), accepted.close(2, ""));
            // Acknowledgements do not tell whether the application can receive the messages.
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

#[test]
fn a_side_that_closes_keeps_what_it_acknowledged() {
    async fn close<C: Quic>() {
        let short = Options { receive_queue: 64 * 1024, ..DEFAULT };
        let (endpoints, sender, closer) =
            Endpoints::<MsQuicTransport, C>::pair_of(DEFAULT, short).await;
        for number in 0..12 {
            sender.send_bytes(vec![number; 10_000].into()).await.unwrap();
        }
        sender.flush().await.unwrap(); // twice what the receive queue has room for is acknowledged
        let other_handle = closer.clone();
        assert_eq!(closer.close(2, "").await, CloseOutcome::Acknowledged);
        for number in 0..12 {
            assert_eq!(closer.recv().await.unwrap().0, [number; 10_000][..]);
        }
        let local = CloseReason::Local { code: 2, reason: String::new() };
        assert_eq!(other_handle.recv().await, Err(RecvError::Closed(local)));

        let (sender, closer) = endpoints.connect(trusting()).await;
        let (sender, closer) = (sender.unwrap(), closer.unwrap());
        for _ in 0..12 {
            sender.send_bytes(pattern(10_000)).await.unwrap();
        }
        sender.flush().await.unwrap();
        closer.close(2, "").await;
        let held = || endpoints.transport.statistics().held_bytes;
        while held() < 100_000 {
            sleep(Duration::from_millis(1)).await; // what the queue has no room for counts too, soon
        }
        drop((closer, other_handle));
        while held() > 0 {
            sleep(Duration::from_millis(1)).await; // `run` limits the time
        }
    }
    run(async {
        close::<QuinnTransport>().await;
        if !lacks_patch("N60") {
            close::<MsQuicTransport>().await;
        }
    });
}

#[test]
fn a_slow_receiver_loses_nothing_with_several_lanes_and_lost_packets() {
    async fn close<C: Quic, R: Quic>() {
        let options = Options { send_streams: 4, receive_queue: 64 * 1024, ..DEFAULT };
        let endpoints = Endpoints::<C, R>::new(options, options, trusting()).await;
        let (_relay, closer, receiver) = connect_lossy(&endpoints).await;
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

#[test]
fn closing_waits_for_answers_in_progress() {
    async fn answer<D: Quic, L: Quic>() {
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(DEFAULT).await;
        close(&dialled, &accepted).await;
        let (_endpoints, dialled, accepted) = Endpoints::<D, L>::pair(DEFAULT).await;
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

/// Connects over a relay that loses datagrams.
async fn connect_lossy<D: Quic, L: Quic>(
    endpoints: &Endpoints<D, L>,
) -> (LossyRelay, D::Connection, L::Connection) {
    let relay = LossyRelay::new(endpoints.listener.local_addr()).await;
    let dial = endpoints.dialler.connect(relay.address, &[ALPN], trusting());
    let accept = async { endpoints.listener.accept().await.unwrap().accept().await };
    let (dialled, accepted) = tokio::join!(dial, accept);
    (relay, dialled.unwrap(), accepted.unwrap())
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
