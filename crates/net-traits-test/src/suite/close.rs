//! The end of connections: orderly, with a reason, and reported to all waiters.

use crate::stage::{MOMENT, PAUSE, Pair, Stage, greet, number, numbered};
use crate::suite::operation::fill;
use crate::{Harness, Limits};
use futures_util::future::join_all;
use net_traits::{
    CloseOutcome, CloseReason, NetConnection, NetTransport, RecvError, SendError, TrustPolicy,
    close_code,
};
use std::future::poll_fn;
use std::panic::resume_unwind;
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
pub async fn what_was_sent_before_is_delivered<H: Harness>(stage: Stage<H>) {
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

/// A receiver that is slower than its peer and has little room receives everything that was sent before
/// an orderly close.
///
/// At the end the messages are spread over the queues of both sides and of the network. A transport
/// that drops one of them loses messages silently: the sender knows them as confirmed.
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

/// A code or a reason that QUIC cannot send is limited in one way.
///
/// Otherwise a program works over one transport, and its peer acts on another code over the next.
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
/// Several tasks may clean up after a connection, and a task that is not woken leaks.
pub async fn everybody_who_watches_is_woken<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let (waits, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let watch = |connection: &crate::stage::Connection<H>| {
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
        waiting.recv().await; // all of them wait now
    }
    one.close(5, "bye").await;
    for watcher in early {
        assert_eq!(watcher.await.unwrap(), peer(5, "bye"));
    }
    for late in join_all((0..50).map(|_| watch(other))).await {
        assert_eq!(late.unwrap(), peer(5, "bye"));
    }
}

/// Polling repeatedly for the end of a connection takes no memory: wakers do not accumulate.
///
/// Loops with `select!` do that, in processes that run for months.
pub async fn polling_for_the_end_does_not_grow<H: Harness>(stage: Stage<H>) {
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
pub async fn closing_ends_what_waits<H: Harness>(stage: Stage<H>) {
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

/// A second `close` does nothing and returns, also if the peer closed first.
///
/// All operations report the first code and reason. Cleanup code can therefore close
/// unconditionally.
pub async fn closing_twice_is_closing_once<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let again = one.clone();
    tokio::join!(one.close(1, "first"), other.watch_close());
    for (connection, reason) in [(&again, local(1, "first")), (other, peer(1, "first"))] {
        connection.close(2, "second").await;
        assert_eq!(connection.watch_close().await, reason);
        assert_eq!(connection.send(b"late").await, Err(SendError::Closed(reason)));
    }
}

/// Dropping the last clone closes with code 0; dropping an earlier one does not.
///
/// A task that panics or is aborted must not leave a connection open.
pub async fn dropping_the_last_handle_closes<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, listener: _listener, transports: _transports } = stage.meet().await;
    let clone = one.clone();
    drop(one);
    greet(&clone, &other).await;
    drop(clone);
    assert!(matches!(other.watch_close().await, CloseReason::Peer { code: 0, .. }));
}

/// Messages sent before the last handle is dropped are delivered, then the peer gets the end.
///
/// A task that answers and ends does not know that its answer is still queued.
pub async fn what_was_sent_before_a_drop_is_delivered<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, listener: _listener, transports: _transports } = stage.meet().await;
    let count = 10;
    for number in 0..count {
        one.send_bytes(numbered(number, 10_000)).await.unwrap();
    }
    drop(one);
    for expected in 0..count {
        assert_eq!(number(&other.recv().await.unwrap().0), expected);
    }
    assert!(matches!(other.recv().await, Err(RecvError::Closed(_))), "then it has ended");
}

/// The last handle may be dropped outside of a runtime and while a thread unwinds, and what was sent
/// before is delivered.
///
/// A panic in a destructor ends the process.
pub async fn handles_are_dropped_anywhere<H: Harness>(stage: Stage<H>) {
    for is_unwinding in [false, true] {
        let Pair { one, other, listener: _listener, transports: _transports } = stage.meet().await;
        one.send(b"bye").await.unwrap();
        let dropping = std::thread::spawn(move || {
            let _dropped = one;
            if is_unwinding {
                resume_unwind(Box::new("on purpose"));
            }
        });
        assert_eq!(dropping.join().is_err(), is_unwinding, "the drop does not panic");
        assert_eq!(other.recv().await.unwrap().0, "bye");
        other.watch_close().await;
    }
}

/// A connection whose peer accepts no data ends within the linger time after its last handle was
/// dropped.
pub async fn a_drop_does_not_linger_for_ever<H: Harness>(stage: Stage<H>) {
    let hour = Duration::from_secs(3600);
    let limits = Limits {
        no_progress_timeout: hour,
        operation_timeout: hour,
        linger: MOMENT,
        ..Limits::default()
    };
    let Pair { one, other: _other, listener: _listener, transports } =
        stage.meet_with(limits).await;
    fill(&one).await;
    drop(one);
    let transport = &transports[usize::from(stage.is_swapped)];
    while transport.statistics().connections > 0 {
        sleep(PAUSE).await;
    }
    assert!(transport.connections().is_empty());
}

/// Messages are counted that are lost because the last handle was dropped, or because the runtime of the
/// connection has ended.
///
/// No caller is returned that they are lost.
pub async fn what_a_drop_loses_is_counted<H: Harness>(stage: Stage<H>) {
    for is_lasting in [true, false] {
        let (Pair { one, other, listener, transports }, sent) = if is_lasting {
            send_in_vain(&stage).await
        } else {
            let (harness, is_swapped) = (stage.harness.clone(), stage.is_swapped);
            let ended = tokio::task::spawn_blocking(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let sending = async { send_in_vain(&Stage { harness, is_swapped }).await };
                runtime.expect("a runtime can be started").block_on(sending)
            });
            ended.await.expect("the runtime ends")
        };
        drop(listener);
        let dropping = std::thread::spawn(move || drop(one));
        dropping.join().expect("the drop does not panic");
        let transport = &transports[usize::from(stage.is_swapped)];
        while transport.statistics().connections > 0 {
            sleep(PAUSE).await;
        }
        let mut received = 0;
        while other.recv().await.is_ok() {
            received += 1;
        }
        let lost = transport.statistics().undelivered_messages;
        if stage.harness.keeps_what_is_acknowledged() {
            assert!(received + lost >= sent, "{received} received, {lost} lost, {sent} sent");
        }
    }
}

/// Connects, and sends messages that are not received until then. Returns how many.
async fn send_in_vain<H: Harness>(stage: &Stage<H>) -> (Pair<H>, u64) {
    let limits = Limits { linger: MOMENT, receive_queue: 64 * 1024, ..Limits::default() };
    let pair = stage.meet_with(limits).await;
    let mut sent = 0;
    while sent < 10
        && let Ok(queued) = timeout(MOMENT, pair.one.send_bytes(numbered(sent, 200_000))).await
    {
        queued.unwrap();
        sent += 1;
    }
    (pair, sent.into())
}

/// Connections remain open when their listener and their transports are dropped.
///
/// Other parts of a program use them without the listener.
pub async fn connections_outlive_what_made_them<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, listener, transports } = stage.meet().await;
    drop(listener);
    drop(transports);
    greet(&one, &other).await;
}

/// Handles may be dropped in any order: no drop hangs, and the remaining peer is notified.
///
/// A program that ends does not choose an order.
pub async fn any_order_of_drops_ends<H: Harness>(stage: Stage<H>) {
    for order in 0..24 {
        let Pair { one, other, listener, transports } = stage.meet().await;
        let (mut one, mut other) = (Some(one), Some(other));
        let (mut listener, mut transports) = (Some(listener), Some(transports));
        for step in permutation(order) {
            match step {
                0 => drop(listener.take()),
                1 => drop(transports.take()),
                2 => drop(one.take()),
                _ => drop(other.take()),
            }
            if let (Some(left), None) | (None, Some(left)) = (&one, &other) {
                left.watch_close().await;
            }
        }
    }
}

/// Returns one of the 24 permutations of 0, 1, 2, 3.
fn permutation(mut index: usize) -> [usize; 4] {
    let mut rest = vec![0, 1, 2, 3];
    [4, 3, 2, 1].map(|left| {
        let pick = index % left;
        index /= left;
        rest.remove(pick)
    })
}

/// Aborting closes with the given code and reason, which reach the peer and the operations that
/// wait.
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

/// Aborting does not wait for queued messages, and ends a `close` that does. Its code and reason
/// replace those of the close.
pub async fn abort_ends_a_close_that_waits<H: Harness>(stage: Stage<H>) {
    let limits = Limits { no_progress_timeout: Duration::from_secs(3600), ..Limits::default() };
    let Pair { one, other: _other, .. } = &stage.meet_with(limits).await;
    fill(one).await;
    let close = tokio::spawn({
        let one = one.clone();
        async move { one.close(1, "in order").await }
    });
    sleep(MOMENT).await; // where messages are queued on this side, `close` waits by now
    let was_over = close.is_finished();
    one.abort(2, "now");
    close.await.unwrap();
    let expected = if was_over { local(1, "in order") } else { local(2, "now") };
    assert_eq!(one.watch_close().await, expected);
}

/// A revocation acts at once on a connection that another task is closing.
///
/// A peer that is not trusted any more must not prolong its connection by reading slowly.
pub async fn revocation_ends_a_close_that_waits<H: Harness>(stage: Stage<H>) {
    let limits = Limits { no_progress_timeout: Duration::from_secs(3600), ..Limits::default() };
    let Pair { one, other: _other, transports, .. } = &stage.meet_with(limits).await;
    fill(one).await;
    let close = tokio::spawn({
        let one = one.clone();
        async move { one.close(1, "slowly").await }
    });
    sleep(MOMENT).await; // where messages are queued on this side, `close` waits by now
    let was_over = close.is_finished();
    let transport = &transports[usize::from(stage.is_swapped)];
    assert_eq!(transport.revoke(&TrustPolicy::reject_all()).await, usize::from(!was_over));
    close.await.unwrap();
    let CloseReason::Local { code, .. } = one.watch_close().await else { panic!("a local end") };
    assert_eq!(code, if was_over { 1 } else { close_code::REVOKED });
}

/// A close returns that the peer's transport has confirmed all messages, or else how many it has not, at
/// most.
///
/// The peer here reads nothing before the close is aborted; then it receives all messages that were
/// not counted. Without the numbers, the sender would take lost messages for delivered.
pub async fn a_close_tells_what_was_not_delivered<H: Harness>(stage: Stage<H>) {
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
    sleep(MOMENT).await; // where messages are queued on this side, `close` waits by now
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
    let is_told = received + lost >= sent || !stage.harness.keeps_what_is_acknowledged();
    assert!(is_told, "{received} of {sent} arrived, {lost} were reported");
}

/// A close of a connection that has ended, or that is being closed, returns the reason of the end.
pub async fn a_close_tells_that_it_is_over<H: Harness>(stage: Stage<H>) {
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

/// When both sides close at once, neither is told that messages were delivered which the other one has
/// discarded.
///
/// A side that closes discards what it has not received. Its peer would take the messages for received.
pub async fn a_close_that_meets_another_tells_the_truth<H: Harness>(stage: Stage<H>) {
    const COUNT: u32 = 12;
    for _ in 0..10 {
        let Pair { one, other, .. } = &stage.meet().await;
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
            let is_true = outcome != CloseOutcome::Delivered || received == COUNT;
            assert!(is_true, "{outcome:?}, and {received} of {COUNT} messages can be received");
        }
    }
}
