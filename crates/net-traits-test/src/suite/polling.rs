//! How futures are polled: with another waker each time, spuriously, and beside others that wait.

use super::message::longest_run;
use super::operation::fill;
use crate::stage::{
    ALPN, PAUSE, Pair, Stage, credential, credentials, dial, greet, number, numbered,
};
use crate::{Checked, Harness, Limits};
use bytes::Bytes;
use futures_util::future::{Either, select};
use net_traits::{
    CloseReason, NetConnection, NetIncomingRequest, NetListener, NetQuestion, NetRequests,
    NetTransport, RecvError, SendAckedError, TrustPolicy,
};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long an operation may take that can complete.
pub(super) const LONG: Duration = Duration::from_secs(40);

/// How often each operation is tried, each time with another sequence of spurious polls.
const ROUNDS: u64 = 3;

const KIB: usize = 1024;

/// Waits for an operation, which is polled as [`Checked`] does.
pub(super) async fn strictly<F: Future>(name: &str, seed: u64, operation: F) -> F::Output {
    let mut checked = Checked::new(operation, seed);
    let ended = timeout(LONG, &mut checked).await;
    ended.unwrap_or_else(|_| panic!("{name} was not woken: {checked:?}"))
}

/// Every operation completes if only the waker of its last poll is woken, and is not disturbed by
/// polls without a wake.
///
/// Each poll may come from another task, or from a combinator with its own wakers.
pub async fn the_last_waker_is_enough<H: Harness>(stage: Stage<H>) {
    for seed in 0..ROUNDS {
        let (for_listener, for_dialler) = credentials();
        let limits = Limits { receive_queue: 64 * KIB, ..Limits::default() };
        let transports = [stage.transport_with(limits.clone()), stage.transport_with(limits)];
        let listen =
            transports[1].create_listener(stage.harness.bind_addr(), &[ALPN], for_listener);
        let listener = strictly("create_listener", seed, listen).await.unwrap();
        let dial = dial::<H>(&transports[0], listener.local_addr(), for_dialler);
        let accept = async {
            let request = strictly("accept of a listener", seed, listener.accept()).await.unwrap();
            strictly("accept of a request", seed, request.accept()).await.unwrap()
        };
        let (dialled, accepted) = tokio::join!(strictly("connect", seed, dial), accept);
        let (one, other) = match stage.is_swapped {
            true => (accepted, dialled.unwrap()),
            false => (dialled.unwrap(), accepted),
        };
        send_and_receive(seed, &one, &other).await;
        datagrams(seed, &one, &other).await;
        let first = fill(&one).await > 0;
        let (_, reason, ()) = tokio::join!(
            strictly("close", seed, one.close(1, "")),
            strictly("watch_close", seed, other.watch_close()),
            drain(&other)
        );
        assert!(first && matches!(reason, CloseReason::Peer { .. }), "{reason:?}");
        for transport in transports {
            strictly("revoke", seed, transport.revoke(&TrustPolicy::reject_all())).await;
            strictly("shutdown", seed, transport.shutdown(LONG, "")).await;
        }
    }
}

/// Sends with all functions while the queues are full, and receives with all functions.
async fn send_and_receive<C: NetConnection>(seed: u64, one: &C, other: &C) {
    let late = async {
        sleep(PAUSE).await;
        one.send_bytes(numbered(0, 100)).await.unwrap();
    };
    let (received, ()) = tokio::join!(strictly("recv", seed, other.recv()), late);
    assert_eq!(number(&received.unwrap().0), 0);
    let filled = fill(one).await;
    let mut many: VecDeque<_> = (4..7).map(|it| numbered(it, 256 * KIB)).collect();
    let send = async {
        let message = numbered(1, 256 * KIB);
        strictly("send", seed, one.send(&message)).await.unwrap();
        strictly("send_bytes", seed, one.send_bytes(numbered(2, 256 * KIB))).await.unwrap();
        let parts = [numbered(3, 100 * KIB), Bytes::new()];
        strictly("send_parts", seed, one.send_parts(&parts)).await.unwrap();
        strictly("send_many", seed, one.send_many(&mut many)).await.unwrap();
        strictly("flush", seed, one.flush()).await.unwrap();
        match strictly("send_acked", seed, one.send_acked(numbered(7, 100))).await {
            Err(SendAckedError::Unsupported) => one.send_bytes(numbered(7, 100)).await.unwrap(),
            acked => acked.unwrap(),
        }
    };
    let receive = async {
        for _ in 0..filled {
            let (message, _) = strictly("recv", seed, other.recv()).await.unwrap();
            assert_eq!(number(&message), 0);
        }
        let mut messages = Vec::new();
        while messages.len() < 7 {
            let received = other.recv_many(&mut messages, 2);
            strictly("recv_many", seed, received).await.unwrap();
        }
        assert!(messages.iter().map(|(message, _)| number(message)).eq(1..8));
    };
    tokio::join!(send, receive);
}

/// Receives a datagram, if the transport has some.
async fn datagrams<C: NetConnection>(seed: u64, one: &C, other: &C) {
    let (Ok(sender), Ok(receiver)) = (one.datagrams(), other.datagrams()) else { return };
    let send = async {
        loop {
            sleep(PAUSE).await; // until the peer's limit is known, and again if one is lost
            let _ = sender.send_datagram("datagram".into());
        }
    };
    tokio::select! {
        received = strictly("recv_datagram", seed, receiver.recv_datagram()) => {
            assert_eq!(received.unwrap(), "datagram");
        }
        () = send => {}
    }
}

/// Receives until the end of the connection.
pub(super) async fn drain(connection: &impl NetConnection) {
    while !matches!(connection.recv().await, Err(RecvError::Closed(_))) {}
}

/// Requests too complete if only the waker of the last poll is woken, on both sides.
pub async fn the_last_waker_is_enough_for_requests<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    for seed in 0..ROUNDS {
        let request = one.request(numbered(1, 100 * KIB), LONG);
        let answer = async {
            sleep(PAUSE).await; // the request waits
            let asked = strictly("accept_request", seed, other.accept_request()).await;
            let mut question = asked.unwrap();
            let bytes = strictly("question", seed, question.question()).await.unwrap();
            sleep(PAUSE).await;
            strictly("answer", seed, question.answer(bytes)).await.unwrap();
        };
        let (answer, ()) = tokio::join!(strictly("request", seed, request), answer);
        assert_eq!(number(&answer.unwrap()), 1);

        let (request, accept) = (one.request("wait".into(), LONG), other.accept_request());
        let accept = strictly("accept_request", seed, accept);
        let (question, cancel) = match select(request, pin!(accept)).await {
            Either::Left((answer, _)) => panic!("answered early: {answer:?}"),
            Either::Right((question, request)) => {
                let cancel = async {
                    sleep(PAUSE).await;
                    drop(request);
                };
                (question.unwrap(), cancel)
            }
        };
        tokio::join!(strictly("canceled", seed, question.canceled()), cancel);
    }
    greet(one, other).await;
}

/// If several tasks wait for the same thing, and the one that is woken is dropped before it is
/// polled, another one gets it.
///
/// Otherwise a message would lie in the queue while a task waits for it.
pub async fn a_dropped_waiter_passes_its_wake_on<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, listener, .. } = &stage.meet().await;
    let send = || async {
        sleep(PAUSE).await;
        one.send(b"to one of them").await.unwrap();
    };
    passes_on("recv", || async { drop(other.recv().await.unwrap()) }, send).await;
    greet(one, other).await;
    let dial = || async {
        sleep(PAUSE).await;
        let (dialler, address) = (stage.transport(), listener.local_addr());
        let credential = credential(TrustPolicy::Any);
        tokio::spawn(async move { drop(dial::<H>(&dialler, address, credential).await) });
    };
    passes_on("accept", || async { drop(listener.accept().await.unwrap()) }, dial).await;
}

/// Lets two futures of `wait` wait for what `provide` brings, and drops the first one once it is woken.
async fn passes_on<W: Future<Output = ()>, P: Future<Output = ()>>(
    name: &str,
    wait: impl Fn() -> W,
    provide: impl Fn() -> P,
) {
    for seed in 0..ROUNDS {
        let first = Checked::new(wait(), seed).dropped_at(1);
        let (first, second) = (pin!(first), pin!(strictly(name, seed, wait())));
        let both = select(first, second);
        let (woken, ()) = tokio::join!(both, provide());
        // The first one may get another attempt: a transport that falls back dials twice.
        match woken {
            Either::Left((_, second)) => second.await,
            Either::Right((_, first)) => {
                let (first, ()) = tokio::join!(first, provide());
                if first.is_none() {
                    strictly(name, seed, wait()).await;
                }
            }
        }
    }
}

/// Operations that need not wait, such as those of an ended connection, spend the task's cooperative
/// budget, as `send` and `recv` do.
///
/// A loop that repeats an operation after its error would otherwise stop all other tasks of the thread.
pub async fn operations_that_need_not_wait_yield<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, listener, transports } = &stage.meet().await;
    yields("flush", || one.flush()).await;
    tokio::join!(one.close(1, ""), other.watch_close());
    for ended in [one, other] {
        yields("watch_close", || ended.watch_close()).await;
        yields("close", || ended.close(2, "")).await;
        yields("flush of an ended connection", || ended.flush()).await;
        yields("send of an ended connection", || ended.send(b"late")).await;
        yields("recv of an ended connection", || ended.recv()).await;
        if let Ok(datagrams) = ended.datagrams() {
            yields("recv_datagram of an ended connection", || datagrams.recv_datagram()).await;
        }
    }
    transports[1].shutdown(Duration::ZERO, "").await;
    yields("accept of an ended listener", || async { drop(listener.accept().await) }).await;
}

/// Requests that are rejected at once yield to other tasks too.
pub async fn requests_that_need_not_wait_yield<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let question = Bytes::from(vec![0; Limits::default().max_request_size + 1]);
    yields("request over the limit", || one.request(question.clone(), LONG)).await;
    tokio::join!(one.close(1, ""), other.watch_close());
    for ended in [one, other] {
        yields("request of an ended connection", || ended.request(Bytes::new(), LONG)).await;
        let accept = || async { drop(ended.accept_request().await) };
        yields("accept_request of an ended connection", accept).await;
    }
}

/// `send_acked` that is rejected at once yields to other tasks too.
pub async fn acked_sends_that_need_not_wait_yield<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let message = Bytes::from(vec![0; Limits::default().max_message_size + 1]);
    yields("send_acked over the limit", || one.send_acked(message.clone())).await;
    tokio::join!(one.close(1, ""), other.watch_close());
    yields("send_acked of an ended connection", || one.send_acked("late".into())).await;
}

/// Repeats an operation that is always ready, and checks that the task yields meanwhile.
async fn yields<F: Future>(name: &str, operation: impl Fn() -> F) {
    const COUNT: usize = 480;
    /// Tokio's budget is 128.
    const LONGEST: usize = 200;
    let done = &AtomicUsize::new(0);
    let repeat = async {
        for _ in 0..COUNT {
            operation().await;
            done.fetch_add(1, Ordering::SeqCst);
        }
    };
    let longest = longest_run(done, repeat).await;
    assert!(longest <= LONGEST, "{name}: {longest} times without a pause");
}
