//! Operations that are dropped at each of their steps: after each poll, and after each wake.
//!
//! The behaviours try an operation again and again, each time dropped one step later, until it completes.

use super::datagram::both;
use super::operation::fill;
use super::polling::{LONG, drain, strictly};
use crate::stage::{
    ALPN, Connection, PAUSE, Pair, Stage, credentials, dial, greet, introduce, number, numbered,
};
use crate::{Checked, Harness, Limits};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, select};
use net_traits::{
    ListenError, NetConnection, NetIncomingRequest, NetListener, NetQuestion, NetRequests,
    NetTransport, RecvError, RequestError, TrustPolicy,
};
use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const KIB: usize = 1024;

type Receive<H> = fn(Connection<H>) -> BoxFuture<'static, Vec<u32>>;
type Send<H> = fn(Connection<H>, Bytes) -> BoxFuture<'static, ()>;

/// Returns the numbers of the steps. A behaviour ends once its operation completes.
fn steps() -> impl Iterator<Item = usize> {
    /// More than any operation has.
    const MANY: usize = 100;
    (0..).inspect(|step| assert!(*step < MANY, "the operation completes"))
}

/// Queues that are full soon.
fn limits() -> Limits {
    Limits { receive_queue: 64 * KIB, ..Limits::default() }
}

/// A dropped `recv` or `recv_many` has taken no message, whether it was woken or not.
///
/// Readers wait in a `select!` with timers and commands.
pub async fn a_recv_takes_nothing_at_any_step<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let single: Receive<H> = |it| async move { vec![number(&it.recv().await.unwrap().0)] }.boxed();
    let many: Receive<H> = |it| {
        async move {
            let mut messages = Vec::new();
            let received = it.recv_many(&mut messages, 2).await.unwrap();
            assert_eq!(received, messages.len());
            messages.iter().map(|(message, _)| number(message)).collect()
        }
        .boxed()
    };
    let mut next = 0;
    for receive in [single, many] {
        for step in steps() {
            let send = async {
                sleep(PAUSE).await; // `receive` waits
                one.send_bytes(numbered(next, 100)).await.unwrap();
            };
            let (taken, ()) =
                tokio::join!(Checked::new(receive(other.clone()), 0).dropped_at(step), send);
            let is_complete = taken.is_some();
            let received = match taken {
                Some(received) => received,
                None => {
                    timeout(LONG, receive(other.clone())).await.expect("the message is not lost")
                }
            };
            assert_eq!(received, [next], "each message once, step {step}");
            next += 1;
            if is_complete {
                break;
            }
        }
    }
    greet(one, other).await;
}

/// A dropped `send` has queued its whole message or nothing, whether it was woken or not, and does not
/// use up room in the queue.
pub async fn a_send_queues_all_or_nothing_at_any_step<H: Harness>(stage: Stage<H>) {
    let send: Send<H> = |it, message| async move { it.send(&message).await.unwrap() }.boxed();
    let send_bytes: Send<H> =
        |it, message| async move { it.send_bytes(message).await.unwrap() }.boxed();
    let send_parts: Send<H> =
        |it, message| async move { it.send_parts(&[message]).await.unwrap() }.boxed();
    let send_many: Send<H> = |it, message| {
        let mut messages = VecDeque::from([message]);
        async move { it.send_many(&mut messages).await.unwrap() }.boxed()
    };
    let send_acked: Send<H> =
        |it, message| async move { drop(it.send_acked(message).await) }.boxed();
    let functions = [
        (send, true),
        (send_bytes, true),
        (send_parts, true),
        (send_many, true),
        (send_acked, false),
    ];
    for (function, is_always_sent) in functions {
        let Pair { one, other, .. } = &stage.meet_with(limits()).await;
        let (mut received, mut sent) = (Vec::new(), Vec::new());
        for step in steps() {
            fill(one).await;
            let message = 1 + u32::try_from(step).expect("there are few");
            let dropped = function(one.clone(), numbered(message, 256 * KIB));
            let dropped = Checked::new(dropped, 0).dropped_at(step);
            let outcome = while_receiving(other, &mut received, dropped).await;
            sleep(PAUSE).await; // what the dropped future may have left continues
            if outcome.is_some() {
                if is_always_sent {
                    sent.push(message);
                }
                break;
            }
        }
        let end = u32::MAX / 64;
        let last = one.send_bytes(numbered(end, 100));
        while_receiving(other, &mut received, last).await.unwrap();
        while received.last() != Some(&end) {
            take(&other.recv().await.unwrap().0, &mut received);
        }
        received.retain(|number| *number > 0); // those that filled the queue
        assert!(received.is_sorted_by(|a, b| a < b), "in order, each at most once: {received:?}");
        assert!(sent.iter().all(|it| received.contains(it)), "{sent:?} of {received:?}");
        greet(one, other).await;
    }
}

/// Receives the numbers of messages until `end` is ready, or the connection ends.
async fn while_receiving<T>(
    connection: &impl NetConnection,
    received: &mut Vec<u32>,
    end: impl Future<Output = T>,
) -> T {
    let mut end = pin!(end);
    loop {
        match select(end.as_mut(), connection.recv()).await {
            Either::Left((output, _)) => return output,
            Either::Right((Ok((message, _)), _)) => take(&message, received),
            Either::Right((Err(_), _)) => return end.await,
        }
    }
}

/// Adds the number of a message, which must be complete.
fn take(message: &Bytes, received: &mut Vec<u32>) {
    assert!([100, 256 * KIB].contains(&message.len()), "{} bytes arrived", message.len());
    received.push(number(message));
}

/// A dropped `recv_datagram` has taken no datagram, whether it was woken or not.
pub async fn a_recv_datagram_takes_nothing_at_any_step<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let [sender, receiver] = both(one, other).await;
    let start = receiver.datagram_statistics();
    let arrived = || receiver.datagram_statistics().arrived - start.arrived;
    let mut received = 0;
    for step in steps() {
        let before = arrived();
        let send = async {
            while arrived() == before {
                sleep(PAUSE).await; // `recv_datagram` waits
                sender.send_datagram(numbered(1, 100)).unwrap();
            }
        };
        let receive = Checked::new(receiver.recv_datagram(), 0).dropped_at(step);
        let (taken, ()) = tokio::join!(receive, send);
        received += u64::from(taken.is_some());
        while received < arrived() {
            let datagram = timeout(LONG, receiver.recv_datagram()).await;
            assert_eq!(datagram.expect("the datagram is not lost").unwrap(), numbered(1, 100));
            received += 1;
        }
        if taken.is_some() {
            break;
        }
    }
    greet(one, other).await;
}

/// A dropped `flush` or `watch_close` has no effect: all messages arrive, and a later `flush` returns.
pub async fn a_flush_changes_nothing_at_any_step<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet_with(limits()).await;
    let mut received = Vec::new();
    let mut filled = 0;
    for step in steps() {
        filled += fill(one).await;
        let watched = Checked::new(one.watch_close(), 0).dropped_at(0).await;
        assert!(watched.is_none(), "it has not ended");
        let flush = Checked::new(one.flush(), 0).dropped_at(step);
        if let Some(flushed) = while_receiving(other, &mut received, flush).await {
            flushed.unwrap();
            break;
        }
    }
    let flush = strictly("flush", 0, one.flush());
    while_receiving(other, &mut received, flush).await.unwrap();
    while (received.len() as u64) < filled {
        take(&other.recv().await.unwrap().0, &mut received);
    }
    greet(one, other).await;
}

/// A dropped `create_listener` leaves no socket: its address is free again.
pub async fn a_listen_leaves_nothing_at_any_step<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listen = async |address, step| loop {
        let listen = transport.create_listener(address, &[ALPN], for_listener.clone());
        match Checked::new(listen, 0).dropped_at(step).await {
            Some(Err(ListenError::AddressInUse(_))) => sleep(PAUSE).await, // it may take a moment
            listened => return listened.map(Result::unwrap),
        }
    };
    // Another program may take an address meanwhile, but hardly each of them.
    'address: for _ in 0..3 {
        let address = stage.listen(&transport, for_listener.clone()).await.local_addr();
        for step in steps() {
            let Ok(listened) = timeout(LONG / 4, listen(address, step)).await else {
                continue 'address;
            };
            if let Some(listener) = listened {
                let (dialled, accepted) = introduce::<H>(&dialler, &listener, for_dialler).await;
                return greet(&dialled.unwrap(), &accepted.unwrap()).await;
            }
        }
    }
    panic!("the addresses are not free again");
}

/// After a dropped `revoke`, a further one revokes what is left: nothing of the peer is received.
pub async fn a_revocation_can_be_repeated_at_any_step<H: Harness>(stage: Stage<H>) {
    let policy = TrustPolicy::reject_all();
    for step in steps() {
        let Pair { one, other, transports, .. } = &stage.meet().await;
        let transport = &transports[usize::from(!stage.is_swapped)];
        for sent in 0..20 {
            one.send_bytes(numbered(sent, 100)).await.unwrap();
        }
        assert_eq!(number(&other.recv().await.unwrap().0), 0);
        let revoked = Checked::new(transport.revoke(&policy), 0).dropped_at(step).await;
        if revoked.is_none() {
            strictly("revoke", 0, transport.revoke(&policy)).await;
        }
        assert!(!other.is_trusted());
        let received = other.recv().await;
        assert!(matches!(received, Err(RecvError::Closed(_))), "{received:?} of a revoked peer");
        strictly("watch_close", 0, other.watch_close()).await;
        strictly("watch_close of the peer", 0, one.watch_close()).await;
        if revoked.is_some() {
            break;
        }
    }
}

/// A dropped `connect`, `accept` or handshake leaves neither a connection nor a socket: its peer is
/// told, and the next attempt succeeds.
pub async fn attempts_leave_nothing_at_any_step<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, for_listener).await;
    let dial = || dial::<H>(&dialler, listener.local_addr(), for_dialler.clone());

    // The peer of a dropped handshake: it fails, or the connection ends.
    let dial_and_wait = async || {
        if let Ok(connection) = dial().await {
            connection.watch_close().await;
        }
    };
    for step in steps() {
        let accept = async {
            let request = listener.accept().await.unwrap();
            Checked::new(request.accept(), 0).dropped_at(step).await.is_some()
        };
        let (is_complete, ()) = tokio::join!(accept, dial_and_wait());
        if is_complete {
            break;
        }
    }
    for step in steps() {
        let accept = async {
            let dropped = Checked::new(listener.accept(), 0).dropped_at(step).await;
            let is_complete = dropped.is_some();
            let request = match dropped {
                Some(request) => request,
                None => timeout(LONG, listener.accept()).await.expect("the attempt is not lost"),
            };
            drop(request.unwrap());
            is_complete
        };
        let (is_complete, ()) = tokio::join!(accept, dial_and_wait());
        if is_complete {
            break;
        }
    }
    for step in steps() {
        let accept = async {
            loop {
                let request = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    if let Ok(connection) = request.accept().await {
                        connection.watch_close().await; // the peer ends it
                    }
                });
            }
        };
        let dropped = Checked::new(dial(), 0).dropped_at(step);
        let is_complete = match select(pin!(dropped), pin!(accept)).await {
            Either::Left((dialled, _)) => dialled.is_some(),
            Either::Right(_) => unreachable!("it accepts for ever"),
        };
        if is_complete {
            break;
        }
    }
    let nothing_is_left = async {
        for transport in [&dialler, &transport] {
            loop {
                let statistics = transport.statistics();
                if (statistics.connections, statistics.handshakes) == (0, 0) {
                    break;
                }
                sleep(PAUSE).await;
            }
        }
    };
    let is_left = timeout(LONG, nothing_is_left).await.is_err();
    assert!(!is_left, "{:?}, {:?}", dialler.statistics(), transport.statistics());
    let (dialled, accepted) = introduce::<H>(&dialler, &listener, for_dialler.clone()).await;
    greet(&dialled.unwrap(), &accepted.unwrap()).await;
}

/// A dropped `close` closes the connection at once, although the peer does not read what is queued, and
/// the peer learns of it. After a dropped `shutdown`, a further one closes what is left.
///
/// A program bounds both with a timeout.
pub async fn a_close_closes_at_any_step<H: Harness>(stage: Stage<H>) {
    // The connection does not end because the peer makes no progress.
    let limits = Limits { no_progress_timeout: 10 * LONG, ..limits() };
    for is_shutdown in [false, true] {
        for step in steps() {
            let Pair { one, other, transports, .. } = &stage.meet_with(limits.clone()).await;
            let transport = &transports[usize::from(stage.is_swapped)];
            fill(one).await;
            let close = async {
                match is_shutdown {
                    true => transport.shutdown(LONG, "").await,
                    false => drop(one.close(1, "").await),
                }
            };
            let close = Checked::new(close, 0).dropped_at(step);
            let closed = while_receiving(other, &mut Vec::new(), close).await;
            if is_shutdown {
                strictly("shutdown", 0, transport.shutdown(Duration::ZERO, "")).await;
            }
            strictly("watch_close", 0, one.watch_close()).await;
            drain(other).await;
            strictly("watch_close of the peer", 0, other.watch_close()).await;
            if closed.is_some() {
                break;
            }
        }
    }
}

/// A dropped `request`, `accept_request`, `question`, `answer` or `canceled` loses at most its own
/// request, of which both sides are told. The connection remains usable.
pub async fn requests_leave_the_connection_usable_at_any_step<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let ask = || one.request(numbered(1, 100 * KIB), LONG);
    // The asking side is dropped.
    for step in steps() {
        let serve = async {
            loop {
                let mut question = other.accept_request().await.unwrap();
                if let Ok(bytes) = question.question().await {
                    sleep(PAUSE).await; // the request waits for its answer
                    let _ = question.answer(bytes).await; // the request may be dropped
                }
            }
        };
        let dropped = Checked::new(ask(), 0).dropped_at(step);
        let answer = tokio::select! {
            answer = dropped => answer,
            () = serve => unreachable!("it serves for ever"),
        };
        if let Some(answer) = answer {
            assert_eq!(number(&answer.unwrap()), 1);
            break;
        }
    }
    greet(one, other).await;
    // The answering side is dropped.
    let Pair { one, other, .. } = &stage.meet().await;
    for operation in ["accept_request", "question", "answer", "canceled"] {
        for step in steps() {
            let late = async {
                sleep(PAUSE).await; // the other side waits
                one.request(numbered(1, 100 * KIB), LONG).await
            };
            let (answer, is_complete) = tokio::join!(late, answer_at(other, operation, step));
            match answer {
                Ok(answer) => assert_eq!(number(&answer), 1, "a whole answer"),
                Err(RequestError::NoAnswer { .. }) if !is_complete => {}
                Err(error) => panic!("{error}, {operation} was dropped at step {step}"),
            }
            if is_complete {
                break;
            }
        }
    }
    greet(one, other).await;
}

/// Answers one request, and drops one of the operations at a step. Returns whether that one completed.
async fn answer_at(connection: &impl NetRequests, operation: &str, step: usize) -> bool {
    let at = |name| if name == operation { step } else { usize::MAX - 1 };
    let (mut question, mut is_complete) =
        match Checked::new(connection.accept_request(), 0).dropped_at(at("accept_request")).await {
            Some(question) => (question.unwrap(), true),
            None => {
                let again = timeout(LONG, connection.accept_request()).await;
                (again.expect("the question is not lost").unwrap(), false)
            }
        };
    if operation == "canceled" {
        let canceled = Checked::new(question.canceled(), 0).dropped_at(0).await;
        assert!(canceled.is_none(), "the request was not cancelled");
    }
    let Some(bytes) = Checked::new(question.question(), 0).dropped_at(at("question")).await else {
        return false;
    };
    let answer = question.answer(bytes.unwrap());
    match Checked::new(answer, 0).dropped_at(at("answer")).await {
        Some(answered) => answered.unwrap(),
        None => is_complete = false,
    }
    is_complete
}
