//! The end of connections: it is graceful, has a reason, and is reported to all waiters.

use crate::stage::{
    Connection, MOMENT, PAUSE, Pair, Stage, credentials, dial, greet, number, numbered,
};
use crate::suite::operation::fill;
use crate::{Harness, Limits};
use futures_util::FutureExt;
use futures_util::future::{Either, join_all, select};
use net_traits::{
    CloseOutcome, CloseReason, NetConnection, NetIncomingRequest, NetListener, NetTransport,
    RecvError, SendError, TrustPolicy, close_code,
};
use std::future::{poll_fn, ready};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::time::{sleep, timeout};

fn local(code: u64, reason: &str) -> CloseReason {
    CloseReason::Local { code, reason: reason.to_owned() }
}

fn peer(code: u64, reason: &str) -> CloseReason {
    CloseReason::Peer { code, reason: reason.to_owned() }
}

/// Messages sent before `close` are delivered, even if the peer has not read them yet.
///
/// The last message before the end is often the important one.
pub async fn messages_sent_before_a_close_are_delivered<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let count = 12;
    for number in 0..count {
        one.send_bytes(numbered(number, 10_000)).await.unwrap();
    }
    one.close(1, "all said").await;
    for expected in 0..count {
        assert_eq!(number(&other.recv().await.unwrap().0), expected);
    }
    assert!(matches!(other.recv().await, Err(RecvError::Closed(_))), "then it has ended");
}

/// A peer may send and close before the other side's `connect` or `accept` has returned: both return
/// the connection, and what was sent before the close is received.
///
/// A busy program polls late. The sender has been told that its messages arrived.
pub async fn a_connection_may_end_before_it_is_returned<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, for_listener).await;
    let accept = async { listener.accept().await.unwrap().accept().await }.boxed();
    let dial = dial::<H>(&dialler, listener.local_addr(), for_dialler).boxed();
    let (quick, late) = if stage.is_swapped { (accept, dial) } else { (dial, accept) };
    let (sender, late) = match select(quick, late).await {
        Either::Left((sender, late)) => (sender.unwrap(), late),
        Either::Right((late, quick)) => (quick.await.unwrap(), ready(late).boxed()),
    };
    sender.send(b"before the end").await.unwrap();
    let mut close = sender.close(7, "");
    // If `late` drives the handshake, the close waits for it.
    let closed = timeout(MOMENT, &mut close).await;
    let receive = async {
        let receiver = late.await.expect("the handshake was complete");
        assert_eq!(receiver.recv().await.unwrap().0, "before the end");
        assert_eq!(receiver.recv().await, Err(RecvError::Closed(peer(7, ""))));
    };
    match closed {
        Ok(_) => receive.await,
        Err(_) => drop(tokio::join!(close, receive)),
    }
}

/// A receiver that is slower than its peer and has a short queue receives everything that was sent
/// before a graceful close.
///
/// At the end the messages are in the queues of both sides and of the network. A transport that
/// drops one of these queues loses messages silently: the sender regards them as confirmed.
pub async fn a_slow_receiver_loses_nothing<H: Harness>(stage: Stage<H>) {
    const COUNT: u32 = 300;
    let limits = Limits { receive_queue: 64 * 1024, ..Limits::default() };
    let Pair { one, other, .. } = &stage.meet_with(limits).await;
    let send = async {
        for number in 0..COUNT {
            one.send_bytes(numbered(number, 16 * 1024)).await.unwrap();
        }
        let outcome = one.close(9, "").await;
        assert!(outcome.is_confirmed(), "{outcome:?}");
    };
    let receive = async {
        let mut received = 0;
        let end = loop {
            match other.recv().await {
                Ok(_) => received += 1,
                Err(end) => break end,
            }
            sleep(PAUSE).await; // this makes the receiver slow
        };
        if stage.harness.keeps_what_is_acknowledged() {
            assert_eq!((received, end), (COUNT, RecvError::Closed(peer(9, ""))));
        }
    };
    tokio::join!(send, receive);
}

/// The code and the reason of `close` reach the peer.
///
/// All operations that fail because of the close, on both sides, report them. Programs act on the
/// code, and operators on the reason.
pub async fn code_and_reason_reach_the_peer<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    one.close(4242, "moving out").await;
    let (by_us, by_peer) = (local(4242, "moving out"), peer(4242, "moving out"));
    assert_eq!(other.watch_close().await, by_peer);
    assert_eq!(other.recv().await, Err(RecvError::Closed(by_peer.clone())));
    assert_eq!(other.send(b"late").await, Err(SendError::Closed(by_peer)));
    assert_eq!(one.watch_close().await, by_us);
    assert_eq!(one.recv().await, Err(RecvError::Closed(by_us.clone())));
    assert_eq!(one.send(b"late").await, Err(SendError::Closed(by_us)));
}

/// A code or a reason that QUIC cannot send is changed in the same way by every transport.
///
/// Otherwise the peers of a program would get different codes over different transports.
pub async fn codes_and_reasons_are_limited<H: Harness>(stage: Stage<H>) {
    let long = "é".repeat(400);
    for (code, reason, sent_code, sent_reason) in [
        (1 << 62, "", (1 << 62) - 1, ""),
        (u64::MAX, &long, (1 << 62) - 1, &long[..510]),
        ((1 << 62) - 1, "zero\0byte", (1 << 62) - 1, "zero byte"),
    ] {
        for is_abrupt in [false, true] {
            let Pair { one, other, .. } = &stage.meet().await;
            if is_abrupt {
                one.abort(code, reason);
            } else {
                one.close(code, reason).await;
            }
            assert_eq!(other.watch_close().await, peer(sent_code, sent_reason));
            assert_eq!(one.watch_close().await, local(code, reason));
        }
    }
}

/// `watch_close` resolves for all waiters, and for later callers.
///
/// Several tasks may clean up after a connection. A task that is not woken leaks.
pub async fn all_waiters_are_woken<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let (waits, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let watch = |connection: &Connection<H>| {
        let (connection, waits) = (connection.clone(), waits.clone());
        tokio::spawn(async move {
            let mut watch = pin!(connection.watch_close());
            let first = poll_fn(|cx| Poll::Ready(watch.as_mut().poll(cx))).await;
            waits.send(()).expect("the behaviour counts");
            match first {
                Poll::Ready(reason) => reason,
                Poll::Pending => watch.await,
            }
        })
    };
    let early: Vec<_> = (0..50).map(|_| watch(other)).collect();
    for _ in 0..50 {
        waiting.recv().await; // after the last one, all tasks wait
    }
    one.close(5, "bye").await;
    for watcher in early {
        assert_eq!(watcher.await.unwrap(), peer(5, "bye"));
    }
    for late in join_all((0..50).map(|_| watch(other))).await {
        assert_eq!(late.unwrap(), peer(5, "bye"));
    }
}

/// Polling repeatedly for the end of a connection uses constant memory: wakers do not accumulate.
///
/// Loops with `select!` poll like that, in processes that run for months.
pub async fn polling_for_the_end_uses_constant_memory<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let counted = Arc::new(Counted);
    let waker = Waker::from(counted.clone());
    for _ in 0..1_000 {
        let mut watch = std::pin::pin!(one.watch_close());
        for _ in 0..10 {
            assert!(watch.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
    }
    let held = Arc::strong_count(&counted);
    assert!(held < 100, "{held} wakers are kept after 10 000 polls");
    greet(one, other).await;
}

struct Counted;

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

/// Pending `recv` and `send` calls fail with the reason of a local close.
///
/// A dropped `close` does not wait for queued messages. A task that hangs in `recv` after its
/// connection was closed leaks.
pub async fn a_close_ends_pending_operations<H: Harness>(stage: Stage<H>) {
    let Pair { one, .. } = &stage.meet().await;
    let receive = tokio::spawn({
        let one = one.clone();
        async move { one.recv().await.map(drop) }
    });
    let send = tokio::spawn({
        let one = one.clone();
        async move {
            loop {
                if let Err(error) = one.send_bytes(numbered(0, 256 * 1024)).await {
                    return error;
                }
            }
        }
    });
    sleep(2 * MOMENT).await; // the peer does not read: `send` waits now
    let _ = timeout(MOMENT, one.close(3, "enough")).await;
    assert_eq!(receive.await.unwrap(), Err(RecvError::Closed(local(3, "enough"))));
    assert_eq!(send.await.unwrap(), SendError::Closed(local(3, "enough")));
}

/// A second `close` does nothing and returns, even if the peer closed first.
///
/// All operations report the first code and reason. Cleanup code can therefore close
/// unconditionally.
pub async fn a_second_close_does_nothing<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let again = one.clone();
    tokio::join!(one.close(1, "first"), other.watch_close());
    for (connection, reason) in [(&again, local(1, "first")), (other, peer(1, "first"))] {
        connection.close(2, "second").await;
        assert_eq!(connection.watch_close().await, reason);
        assert_eq!(connection.send(b"late").await, Err(SendError::Closed(reason)));
    }
}

/// Aborting closes with the given code and reason, which the peer and pending operations get.
pub async fn abort_reaches_the_peer<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let receive = tokio::spawn({
        let one = one.clone();
        async move { one.recv().await.map(drop) }
    });
    sleep(MOMENT).await; // `recv` waits by now
    one.abort(77, "enough");
    one.abort(78, "again");
    assert_eq!(other.watch_close().await, peer(77, "enough"));
    assert!(matches!(receive.await.unwrap(), Err(RecvError::Closed(_))));
    assert_eq!(one.watch_close().await, local(77, "enough"));
    assert_eq!(one.send(b"late").await, Err(SendError::Closed(local(77, "enough"))));
}

/// Messages are counted that are lost with a connection that the peer ends.
///
/// Their senders were told that they are queued; they may not use the connection again.
pub async fn messages_lost_by_an_end_are_counted<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, transports, .. } = stage.meet().await;
    let mut number = 0;
    while let Ok(queued) = timeout(MOMENT, one.send_bytes(numbered(number, 200_000))).await {
        queued.unwrap();
        number += 1;
    }
    other.abort(7, "gone");
    one.watch_close().await;
    let Ok(Err(_)) = timeout(MOMENT, one.flush()).await else {
        return; // they had left the send queue
    };
    let transport = &transports[usize::from(stage.is_swapped)];
    while transport.statistics().undelivered_messages == 0 {
        sleep(PAUSE).await;
    }
    assert!(transport.statistics().undelivered_bytes >= 200_000);
}

/// A `flush` that waits when the connection ends returns `Closed`. It succeeds if the end is a close
/// that delivers the messages.
///
/// A program forgets messages once they are flushed, and sends the others again.
pub async fn a_flush_ends_with_the_connection<H: Harness>(stage: Stage<H>) {
    let (Pair { one, other, .. }, path) = &stage.meet_over_path().await;
    let dialler = if stage.is_swapped { other } else { one };
    path.interrupt(dialler.local_addr());
    one.send(b"held up").await.unwrap();
    let mut flushed = pin!(one.flush());
    if timeout(MOMENT, flushed.as_mut()).await.is_err() {
        one.abort(7, "gone");
        assert_eq!(flushed.await, Err(SendError::Closed(local(7, "gone"))));
    }
    let Pair { one, other, .. } = &stage.meet().await;
    for number in 0..12 {
        one.send_bytes(numbered(number, 10_000)).await.unwrap();
    }
    let receive = async { while other.recv().await.is_ok() {} };
    let (flushed, outcome, ()) = tokio::join!(one.flush(), one.close(7, "done"), receive);
    assert!(outcome.is_confirmed(), "{outcome:?}");
    assert_eq!(flushed, Ok(()));
}

/// Aborting does not wait for queued messages, and ends a `close` that does. Its code and reason
/// replace those of the close.
pub async fn an_abort_ends_a_pending_close<H: Harness>(stage: Stage<H>) {
    let limits = Limits { no_progress_timeout: Duration::from_secs(3600), ..Limits::default() };
    let Pair { one, other: _other, .. } = &stage.meet_with(limits).await;
    fill(one).await;
    let close = tokio::spawn({
        let one = one.clone();
        async move { one.close(1, "in order").await }
    });
    sleep(MOMENT).await; // `close` waits by now if the transport queues on this side
    let was_closed = close.is_finished();
    one.abort(2, "now");
    close.await.unwrap();
    let expected = if was_closed { local(1, "in order") } else { local(2, "now") };
    assert_eq!(one.watch_close().await, expected);
}

/// A revocation immediately ends a connection that another task is closing.
///
/// A peer that is not trusted any more must not prolong its connection by reading slowly.
pub async fn a_revocation_ends_a_pending_close<H: Harness>(stage: Stage<H>) {
    let limits = Limits { no_progress_timeout: Duration::from_secs(3600), ..Limits::default() };
    let Pair { one, other: _other, transports, .. } = &stage.meet_with(limits).await;
    fill(one).await;
    let close = tokio::spawn({
        let one = one.clone();
        async move { one.close(1, "slowly").await }
    });
    sleep(MOMENT).await; // `close` waits by now if the transport queues on this side
    let was_closed = close.is_finished();
    let transport = &transports[usize::from(stage.is_swapped)];
    assert_eq!(transport.revoke(&TrustPolicy::reject_all()).await, usize::from(!was_closed));
    close.await.unwrap();
    let CloseReason::Local { code, .. } = one.watch_close().await else { panic!("a local end") };
    assert_eq!(code, if was_closed { 1 } else { close_code::REVOKED });
}

/// A close returns that the peer's transport has confirmed all messages, or how many it has not
/// confirmed, at most.
///
/// Here the peer reads nothing before the close is aborted. Afterwards it receives all messages
/// that were not counted. Without the numbers, the sender would regard lost messages as delivered.
pub async fn a_close_returns_what_was_not_delivered<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    for number in 0..12 {
        one.send_bytes(numbered(number, 10_000)).await.unwrap();
    }
    for _ in 0..12 {
        other.recv().await.unwrap();
    }
    let outcome = one.close(1, "").await;
    assert!(outcome.is_confirmed(), "{outcome:?}");

    let limits = Limits { no_progress_timeout: Duration::from_secs(3600), ..Limits::default() };
    let Pair { one, other, .. } = &stage.meet_with(limits).await;
    let sent = fill(one).await;
    let close = tokio::spawn({
        let one = one.clone();
        async move { one.close(1, "").await }
    });
    sleep(MOMENT).await; // `close` waits by now if the transport queues on this side
    one.abort(2, "now");
    let lost = match close.await.unwrap() {
        CloseOutcome::Undelivered { messages, bytes, .. } => {
            assert_eq!(bytes, messages * 256 * 1024);
            messages
        }
        outcome => {
            assert!(outcome.is_confirmed(), "{outcome:?}");
            0
        }
    };
    let mut received = 0;
    while other.recv().await.is_ok() {
        received += 1;
    }
    let is_complete = received + lost >= sent || !stage.harness.keeps_what_is_acknowledged();
    assert!(is_complete, "{received} of {sent} arrived, {lost} were reported");
}

/// A close of a connection that has ended, or that is being closed, returns the reason of the end.
pub async fn a_close_of_a_closed_connection_returns_the_reason<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let again = one.clone();
    let (first, second) = tokio::join!(one.close(1, "first"), again.close(2, "another"));
    assert!(first.is_confirmed(), "{first:?}");
    let CloseOutcome::AlreadyClosed(CloseReason::Local { code: 1, .. }) = second else {
        panic!("{second:?}");
    };
    other.watch_close().await;
    let late = other.close(3, "late").await;
    assert!(matches!(late, CloseOutcome::AlreadyClosed(_)), "{late:?}");
}

/// What arrives before or during a close of this side can be received, and then the end. A close does not
/// wait for that.
///
/// Transports acknowledge what they receive: the peer would not learn that a message was dropped.
pub async fn what_arrives_during_a_close_can_be_received<H: Harness>(stage: Stage<H>) {
    let send = async |from: &Connection<H>, numbers: Range<u32>| {
        for number in numbers {
            from.send_bytes(numbered(number, 10_000)).await.unwrap();
        }
    };
    let receive = async |to: &Connection<H>, numbers: Range<u32>| {
        for expected in numbers {
            assert_eq!(number(&to.recv().await.unwrap().0), expected);
        }
    };
    let Pair { one, other, .. } = &stage.meet().await;
    send(other, 0..6).await;
    other.flush().await.unwrap();
    assert!(one.close(1, "").await.is_confirmed());
    receive(one, 0..6).await;
    assert_eq!(one.recv().await, Err(RecvError::Closed(local(1, ""))));

    let limits = Limits { no_progress_timeout: Duration::from_secs(3600), ..Limits::default() };
    let Pair { one, other, .. } = &stage.meet_with(limits).await;
    send(other, 0..6).await;
    fill(one).await;
    let close = tokio::spawn({
        let one = one.clone();
        async move { one.close(1, "").await }
    });
    sleep(MOMENT).await; // `close` waits by now if the transport queues on this side
    let count = if close.is_finished() { 6 } else { 12 };
    send(other, 6..count).await;
    receive(one, 0..count).await;
    let (closed, ()) = tokio::join!(close, async { while other.recv().await.is_ok() {} });
    assert!(closed.as_ref().unwrap().is_confirmed(), "{closed:?}");
    assert_eq!(one.recv().await, Err(RecvError::Closed(local(1, ""))));
}

/// When both sides close at once, each receives the messages that the other side is not told to be
/// undelivered, also those for which its receive queue had no room.
///
/// A sender regards the other messages as delivered.
pub async fn simultaneous_closes_return_correct_outcomes<H: Harness>(stage: Stage<H>) {
    const COUNT: u32 = 12;
    for receive_queue in [64 * 1024, 4 * 1024 * 1024].repeat(5) {
        let limits = Limits { receive_queue, ..Limits::default() };
        let Pair { one, other, .. } = &stage.meet_with(limits).await;
        for number in 0..COUNT {
            one.send_bytes(numbered(number, 10_000)).await.unwrap();
            other.send_bytes(numbered(number, 10_000)).await.unwrap();
        }
        let (of_one, of_other) = tokio::join!(one.close(1, ""), other.close(2, ""));
        for (outcome, receiver) in [(of_one, other), (of_other, one)] {
            let mut received = 0;
            while receiver.recv().await.is_ok() {
                received += 1;
            }
            let undelivered = match outcome {
                CloseOutcome::Undelivered { messages, .. } => messages,
                CloseOutcome::Acknowledged if !stage.harness.keeps_what_is_acknowledged() => {
                    u64::from(COUNT)
                }
                _ => 0,
            };
            let is_correct = received + undelivered >= u64::from(COUNT);
            assert!(is_correct, "{outcome:?}, and {received} of {COUNT} messages can be received");
        }
    }
}
