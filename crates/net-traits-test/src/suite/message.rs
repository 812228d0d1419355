//! Messages: complete, in order, bounded, and not lost by dropped futures.

use crate::stage::{
    MOMENT, PAUSE, Pair, Stage, credential, greet, number, numbered, pattern, poll_once_until_ready,
};
use crate::{Harness, Limits, RawPeer};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use net_traits::{NetConnection, RecvError, SendAckedError, SendError, TrustPolicy};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const KIB: usize = 1024;
const MIB: usize = 1024 * 1024;

/// More bytes than a transport should queue for a peer that does not read.
const FAR_TOO_MUCH: usize = 96 * MIB;

/// A message of any bytes arrives unchanged and can be sent back.
///
/// A transport must not interpret messages.
pub async fn echo<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let message: Bytes = (0..=255_u8).cycle().take(3000).collect();
    one.send(&message).await.unwrap();
    let (received, _) = other.recv().await.unwrap();
    assert!(received == message, "all 256 values of a byte arrive");
    other.send_bytes(received).await.unwrap();
    assert!(one.recv().await.unwrap().0 == message, "and come back");
}

/// An empty message is delivered as a message.
///
/// Applications use them as keep-alives and ends of lists.
pub async fn empty_messages_arrive<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    for message in [&b""[..], b"", b"x", b""] {
        one.send(message).await.unwrap();
    }
    for expected in [&b""[..], b"", b"x", b""] {
        assert_eq!(other.recv().await.unwrap().0, expected);
    }
}

/// A message of exactly the limit is delivered.
///
/// Peers split their data into messages of that size.
pub async fn a_message_of_the_limit_arrives<H: Harness>(stage: Stage<H>) {
    let limit = 300 * KIB + 1;
    let Pair { one, other, .. } =
        &stage.meet_with(Limits { max_message_size: limit, ..Limits::default() }).await;
    let (sent, received) = tokio::join!(one.send_bytes(pattern(limit)), other.recv());
    sent.unwrap();
    assert!(received.unwrap().0 == pattern(limit), "it arrives unchanged");
}

/// A message one byte over the limit is rejected by the sender, with its size and the limit.
///
/// If it were sent, the peer would stop the stream and lose later messages.
pub async fn a_message_over_the_limit_is_rejected<H: Harness>(stage: Stage<H>) {
    let limit = 300 * KIB;
    let Pair { one, other, .. } =
        &stage.meet_with(Limits { max_message_size: limit, ..Limits::default() }).await;
    let too_large = SendError::TooLarge { size: limit + 1, limit };
    let message = pattern(limit + 1);
    assert_eq!(one.send(&message).await, Err(too_large.clone()));
    assert_eq!(one.send_bytes(message.clone()).await, Err(too_large.clone()));
    let parts = [message.slice(..10), message.slice(10..)];
    assert_eq!(one.send_parts(&parts).await, Err(too_large.clone()));
    assert_eq!(one.try_send(message), Err(too_large.clone()));
    assert!(!too_large.is_retryable());
    greet(one, other).await;
}

/// Messages of one task arrive in the order in which they were sent, whatever their size.
///
/// Protocols rely on that.
pub async fn messages_keep_their_order<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let count = 200;
    let send = async {
        for number in 0..count {
            let length = 10 + number as usize * 997 % 20_000;
            one.send_bytes(numbered(number, length)).await.unwrap();
        }
    };
    let receive = async {
        for expected in 0..count {
            assert_eq!(number(&other.recv().await.unwrap().0), expected);
        }
    };
    tokio::join!(send, receive);
}

/// Messages that many tasks send at once arrive complete and are not interleaved.
///
/// The tasks of a node share a connection.
pub async fn concurrent_messages_are_not_interleaved<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let (tasks, each, length) = (8_u32, 6_u32, 200 * KIB);
    let send = join_all((0..tasks).map(|task| async move {
        for round in 0..each {
            one.send_bytes(numbered(task * each + round, length)).await.unwrap();
        }
    }));
    let receive = async {
        let mut numbers = BTreeSet::new();
        for _ in 0..tasks * each {
            let (message, _) = other.recv().await.unwrap();
            assert_eq!(message.len(), length, "a message arrives whole");
            numbers.insert(number(&message));
        }
        assert!(numbers.into_iter().eq(0..tasks * each), "each message arrives once");
    };
    tokio::join!(send, receive);
}

/// Large messages in both directions at once do not block each other.
///
/// Otherwise two peers that both send before they read would deadlock.
pub async fn both_directions_are_independent<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    tokio::join!(exchange(one), exchange(other));
}

/// Sends and receives at the same time on one connection, more than fits into queues.
async fn exchange(connection: &impl NetConnection) {
    let send = async {
        for number in 0..40 {
            connection.send_bytes(numbered(number, 512 * KIB)).await.unwrap();
        }
    };
    let receive = async {
        for expected in 0..40 {
            assert_eq!(number(&connection.recv().await.unwrap().0), expected);
        }
    };
    tokio::join!(send, receive);
}

/// Parts are sent as one message, in order, including empty parts.
///
/// A header and a payload in different buffers need no copy.
pub async fn parts_are_sent_as_one_message<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let parts = [pattern(3), Bytes::new(), pattern(100 * KIB), pattern(1)];
    one.send_parts(&parts).await.unwrap();
    assert!(other.recv().await.unwrap().0 == parts.concat(), "the parts make one message");
}

/// Many tasks may wait for messages of one connection; each message is delivered to one of them.
///
/// This distributes work, and a message delivered twice would be processed twice.
pub async fn receivers_share_the_messages<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let (receivers, each) = (5, 8_u32);
    let receive = join_all((0..receivers).map(|_| async move {
        let mut numbers = Vec::new();
        for _ in 0..each {
            numbers.push(number(&other.recv().await.unwrap().0));
            tokio::task::yield_now().await;
        }
        numbers
    }));
    let send = async {
        for number in 0..receivers * each {
            one.send_bytes(numbered(number, 100)).await.unwrap();
        }
    };
    let (received, ()) = tokio::join!(receive, send);
    let numbers: BTreeSet<_> = received.into_iter().flatten().collect();
    assert!(numbers.into_iter().eq(0..receivers * each), "each message goes to one receiver");
}

/// `recv` is cancel-safe: dropping its futures while messages arrive loses none.
///
/// Readers wait in a `select!` with timers and commands.
pub async fn a_cancelled_recv_loses_nothing<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let count = 40;
    let send = async {
        for number in 0..count {
            one.send_bytes(numbered(number, 50 * KIB)).await.unwrap();
        }
    };
    let receive = async {
        for expected in 0..count {
            let (message, _) = poll_once_until_ready(|| other.recv()).await.unwrap();
            assert_eq!(number(&message), expected);
        }
    };
    tokio::join!(send, receive);
}

/// `send` is cancel-safe: a dropped future has queued its whole message or none of it.
///
/// A partial message would make all later messages undecodable.
pub async fn a_cancelled_send_is_all_or_nothing<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let (mut sent, mut next, mut dropped) = (Vec::new(), 0, 0);
    while dropped < 8 && sent.len() * 64 * KIB < FAR_TOO_MUCH {
        let message = numbered(next, 64 * KIB);
        let limit = if dropped == 0 { MOMENT } else { Duration::from_millis(2) };
        match timeout(limit, one.send_bytes(message)).await {
            Ok(result) => {
                result.unwrap();
                sent.push(next);
            }
            Err(_) => dropped += 1,
        }
        next += 1;
    }
    let end = next;
    let send = async { one.send_bytes(numbered(end, 64 * KIB)).await.unwrap() };
    let receive = async {
        let mut received = Vec::new();
        while received.last() != Some(&end) {
            let (message, _) = other.recv().await.unwrap();
            assert_eq!(message.len(), 64 * KIB, "a message arrives whole");
            received.push(number(&message));
        }
        received
    };
    let ((), received) = tokio::join!(send, receive);
    assert!(received.is_sorted_by(|a, b| a < b), "in order, each at most once");
    assert!(sent.iter().all(|number| received.binary_search(number).is_ok()), "all that were sent");
}

/// `try_send` queues a message, or returns `WouldBlock` if the queue is full, without waiting.
///
/// A queued message is not lost. Callers that cannot wait drop the message or the peer.
pub async fn try_send_queues_or_would_block<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    // The stream may not be open yet.
    while one.try_send(numbered(0, 64 * KIB)).is_err() {
        sleep(PAUSE).await;
    }
    let mut next = 1;
    let full = loop {
        match one.try_send(numbered(next, 64 * KIB)) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
        assert!(next as usize * 64 * KIB < FAR_TOO_MUCH, "`try_send` fails in the end");
    };
    assert_eq!(full, SendError::WouldBlock);
    assert!(full.is_retryable());
    for expected in 0..next {
        assert_eq!(number(&other.recv().await.unwrap().0), expected);
    }
    while one.try_send(pattern(1)).is_err() {
        sleep(PAUSE).await;
    }
    assert_eq!(other.recv().await.unwrap().0, pattern(1), "there is room again");
}

/// `flush` waits for queued messages and then returns, even if none are queued.
pub async fn flush_returns<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    one.flush().await.unwrap();
    let send = async {
        for number in 0..5 {
            one.send_bytes(numbered(number, 200 * KIB)).await.unwrap();
        }
        one.flush().await.unwrap();
    };
    let receive = async {
        for expected in 0..5 {
            assert_eq!(number(&other.recv().await.unwrap().0), expected);
        }
    };
    tokio::join!(send, receive);
}

/// `flush` returns `Ok` only once the transport of the peer has the messages.
///
/// What was written can still be lost with the host of the peer, or with the network. A program that
/// keeps messages until they are flushed must not forget them before.
pub async fn a_flush_waits_for_the_peer<H: Harness>(stage: Stage<H>) {
    let (Pair { one, other, .. }, path) = &stage.meet_over_path().await;
    one.send(b"before").await.unwrap();
    one.flush().await.unwrap();
    let dialler = if stage.is_swapped { other } else { one };
    path.interrupt(dialler.local_addr());
    one.send(b"held up").await.unwrap();
    let mut flushed = pin!(one.flush());
    let early = timeout(MOMENT, flushed.as_mut()).await;
    assert!(early.is_err(), "{early:?}: the message cannot have arrived");
    path.restore();
    assert_eq!(flushed.await, Ok(()));
    for message in ["before", "held up"] {
        assert_eq!(other.recv().await.unwrap().0, message);
    }
}

/// `send_acked` resolves once a `recv` of the peer has returned the message, and not before.
///
/// A program deletes its copy of a message then. Messages keep their order, and a dropped future
/// has sent the message too.
pub async fn an_acked_message_was_taken<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    one.send(b"before").await.unwrap();
    {
        let mut dropped = pin!(one.send_acked("dropped".into()));
        assert!(timeout(MOMENT, dropped.as_mut()).await.is_err(), "it was not received");
    }
    let mut acked = pin!(one.send_acked("acked".into()));
    for expected in ["before", "dropped"] {
        assert!(timeout(MOMENT, acked.as_mut()).await.is_err(), "it was not received");
        assert_eq!(other.recv().await.unwrap().0, expected);
    }
    let (acked, received) = tokio::join!(acked, other.recv());
    assert_eq!((acked, received.unwrap().0), (Ok(()), "acked".into()));
    // More at once than may wait for a receipt.
    let send = join_all((0..200).map(|number| one.send_acked(numbered(number, 100))));
    let receive = async {
        for _ in 0..200 {
            other.recv().await.unwrap();
        }
    };
    let (sent, ()) = tokio::join!(send, receive);
    assert_eq!(sent, vec![Ok(()); 200]);
    let limit = Limits::default().max_message_size;
    let long = one.send_acked(vec![0; limit + 1].into()).await;
    let too_large = SendError::TooLarge { size: limit + 1, limit };
    assert_eq!(long, Err(SendAckedError::NotSent(too_large)));
}

/// If the connection ends before the peer has received the message, `send_acked` fails with
/// `Unknown`.
///
/// The program has to find out: regarding the message as received may lose it, and regarding it as
/// lost may send it twice.
pub async fn without_a_receipt_the_message_is_unknown<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let (acked, ()) = tokio::join!(one.send_acked("unread".into()), async {
        sleep(MOMENT).await; // the message is on its way by now
        other.close(7, "").await;
    });
    let Err(SendAckedError::Unknown(SendError::Closed(_))) = acked else { panic!("{acked:?}") };
    let late = one.send_acked("late".into()).await;
    assert!(matches!(late, Err(SendAckedError::NotSent(SendError::Closed(_)))), "{late:?}");

    let Pair { one, other, .. } = &stage.meet().await;
    let (acked, ()) = tokio::join!(one.send_acked("read".into()), async {
        assert_eq!(other.recv().await.unwrap().0, "read");
        other.close(7, "").await;
    });
    assert_eq!(acked, Ok(()), "a graceful close waits for receipts");
}

/// A peer that reads slowly makes `send` wait, which bounds the sender's memory.
///
/// Otherwise one peer that does not read could exhaust it.
pub async fn send_waits_for_a_slow_reader<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let mut sent = 0;
    while let Ok(result) = timeout(2 * MOMENT, one.send_bytes(numbered(sent, 512 * KIB))).await {
        result.unwrap();
        sent += 1;
        assert!((sent as usize) * 512 * KIB < FAR_TOO_MUCH, "`send` waits in the end");
    }
    for expected in 0..sent {
        assert_eq!(number(&other.recv().await.unwrap().0), expected);
    }
}

/// A task that only sends, and one that only receives messages that have arrived, yield to other
/// tasks.
///
/// Without a cooperative budget (`tokio::task::coop`), a peer that sends empty messages quickly
/// would stop all other tasks of the thread.
pub async fn tasks_that_are_always_ready_yield<H: Harness>(stage: Stage<H>) {
    const COUNT: usize = 240;
    /// Tokio's budget is 128.
    const LONGEST: usize = 200;
    let Pair { one, other, .. } = &stage.meet().await;
    let done = &AtomicUsize::new(0);
    let send = async {
        for _ in 0..COUNT {
            match timeout(MOMENT, one.send(b"short")).await {
                Ok(sent) => sent.unwrap(),
                Err(_) => return, // its queue is shorter
            }
            done.fetch_add(1, Ordering::SeqCst);
        }
    };
    let sent = longest_run(done, send).await;
    assert!(sent <= LONGEST, "{sent} messages were sent without a pause");
    sleep(MOMENT).await; // they arrive
    let receive = async {
        for _ in 0..done.load(Ordering::SeqCst) {
            other.recv().await.unwrap();
            done.fetch_add(1, Ordering::SeqCst);
        }
    };
    let received = longest_run(done, receive).await;
    assert!(received <= LONGEST, "{received} messages were received without a pause");
}

/// Returns the largest number of operations that `work` did in one poll. It counts them in `done`.
pub(super) async fn longest_run(done: &AtomicUsize, work: impl Future<Output = ()>) -> usize {
    let mut work = pin!(work);
    let mut longest = 0;
    poll_fn(|context| {
        let before = done.load(Ordering::SeqCst);
        let polled = work.as_mut().poll(context);
        longest = longest.max(done.load(Ordering::SeqCst) - before);
        polled
    })
    .await;
    longest
}

/// An announced message over the limit is a typed error with its size; earlier messages arrive.
///
/// A hostile peer may announce 4 GiB.
pub async fn an_announcement_beyond_the_limit_is_an_error<H: Harness>(stage: Stage<H>) {
    let limit = Limits::default().max_message_size;
    for size in [limit + 1, u32::MAX as usize - 1] {
        let (mut raw, connection, _kept) = raw(&stage).await;
        raw.write(&[0, 0, 0, 2, b'o', b'k']).await;
        raw.write(&net_kit::frame::header(size).unwrap()).await;
        raw.write(b"and some of it").await;
        assert_eq!(connection.recv().await.unwrap().0, "ok");
        let size = size as u64;
        assert_eq!(connection.recv().await, Err(RecvError::TooLarge { size, limit }));
    }
}

/// The end of a stream inside a message is an error with the received and announced sizes.
///
/// A partial message must not be taken for a complete one.
pub async fn an_end_inside_a_message_is_an_error<H: Harness>(stage: Stage<H>) {
    let cuts = [(&[0, 0][..], 2, 4), (&[0, 0, 0, 5, b'x'], 1, 5)];
    for (bytes, received, announced) in cuts {
        let (mut raw, connection, _kept) = raw(&stage).await;
        raw.write(bytes).await;
        raw.finish().await;
        let truncated = RecvError::Truncated { received, announced };
        assert_eq!(connection.recv().await, Err(truncated));
    }
}

/// The end of a stream between two messages is not an error.
pub async fn an_end_between_messages_is_clean<H: Harness>(stage: Stage<H>) {
    let (mut raw, connection, _kept) = raw(&stage).await;
    raw.write(&[0, 0, 0, 5]).await;
    raw.write(b"whole").await;
    raw.finish().await;
    assert_eq!(connection.recv().await.unwrap().0, "whole");
    match timeout(MOMENT, connection.recv()).await {
        Err(_) | Ok(Err(RecvError::Closed(_))) => {}
        Ok(result) => panic!("no message follows the end, not: {result:?}"),
    }
}

/// A message that arrives byte by byte is delivered, although `recv` is dropped after each byte.
///
/// Slow links and hostile peers split messages at every position.
pub async fn a_cancelled_recv_keeps_every_byte<H: Harness>(stage: Stage<H>) {
    let (mut raw, connection, _kept) = raw(&stage).await;
    for byte in [0, 0, 0, 3, b'a', b'b'] {
        raw.write(&[byte]).await;
        sleep(Duration::from_millis(2)).await;
        assert!(connection.recv().now_or_never().is_none(), "the message is not complete");
    }
    raw.write(b"c").await;
    assert_eq!(connection.recv().await.unwrap().0, "abc");
}

/// Returns a raw peer, this side's end of its connection, and the handles that must be kept.
async fn raw<H: Harness>(
    stage: &Stage<H>,
) -> (Box<dyn RawPeer>, crate::stage::Connection<H>, (H::Transport, crate::stage::Listener<H>)) {
    let transport = stage.transport();
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let (raw, connection) = stage.meet_raw(&listener).await;
    (raw, connection, (transport, listener))
}
