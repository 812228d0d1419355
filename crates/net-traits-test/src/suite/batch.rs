//! Several messages in one call, and messages taken without waiting.

use super::message::longest_run;
use crate::stage::{MOMENT, PAUSE, Pair, Stage, greet, number, numbered};
use crate::{Harness, Limits};
use futures_util::FutureExt;
use net_traits::{NetConnection, RecvError, SendError};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const KIB: usize = 1024;

/// `send_many` sends all messages in order and removes them. At a message that cannot be sent it
/// returns the error and keeps that message and those after it.
///
/// A caller learns so which messages it has to send again.
pub async fn send_many_removes_what_it_queues<H: Harness>(stage: Stage<H>) {
    let limit = 100 * KIB;
    let Pair { one, other, .. } =
        &stage.meet_with(Limits { max_message_size: limit, ..Limits::default() }).await;
    let count = 500;
    let mut messages: VecDeque<_> =
        (0..count).map(|it| numbered(it, 10 + it as usize * 997 % 9000)).collect();
    let receive = async || {
        for expected in 0..count {
            assert_eq!(number(&other.recv().await.unwrap().0), expected);
        }
    };
    let (sent, ()) = tokio::join!(one.send_many(&mut messages), receive());
    assert_eq!((sent, messages.len()), (Ok(()), 0));
    assert_eq!(one.send_many(&mut messages).await, Ok(()), "nothing is to be sent");
    messages = (0..count).map(|it| numbered(it, 100)).collect();
    messages.push_back(numbered(count, limit + 1));
    messages.push_back(numbered(count + 1, 100));
    let (sent, ()) = tokio::join!(one.send_many(&mut messages), receive());
    assert_eq!(sent, Err(SendError::TooLarge { size: limit + 1, limit }));
    let kept: Vec<_> = messages.iter().map(number).collect();
    assert_eq!(kept, [count, count + 1], "the rest is kept");
    greet(one, other).await;
}

/// A dropped `send_many` has queued the messages that it removed and no others.
///
/// Each message is then sent once, although the caller had to stop.
pub async fn a_cancelled_send_many_keeps_the_rest<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let count = 1500;
    let mut messages: VecDeque<_> = (0..count).map(|it| numbered(it, 64 * KIB)).collect();
    for limit in [MOMENT, Duration::from_millis(2), Duration::from_millis(2)] {
        assert!(timeout(limit, one.send_many(&mut messages)).await.is_err(), "the peer is slow");
    }
    assert!((1..count as usize).contains(&messages.len()), "some are queued");
    let send = async {
        while timeout(Duration::from_millis(2), one.send_many(&mut messages)).await.is_err() {}
    };
    let receive = async {
        for expected in 0..count {
            assert_eq!(number(&other.recv().await.unwrap().0), expected);
        }
    };
    tokio::join!(send, receive);
    greet(one, other).await;
}

/// `try_recv` returns what has arrived, and otherwise `None` without waiting.
///
/// After the last message it returns the end of the connection.
pub async fn try_recv_does_not_wait<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    assert_eq!(other.try_recv(), Ok(None));
    for number in 0..20 {
        one.send_bytes(numbered(number, 100)).await.unwrap();
    }
    let mut next = 0;
    let receive = async {
        loop {
            match other.try_recv() {
                Ok(None) => sleep(PAUSE).await,
                Ok(Some((message, _))) => {
                    assert_eq!(number(&message), next);
                    next += 1;
                }
                Err(error) => return error,
            }
        }
    };
    let (_, end) = tokio::join!(one.close(7, ""), receive);
    assert_eq!(next, 20, "messages come before the end");
    assert_eq!(end, RecvError::Closed(other.watch_close().await));
}

/// `recv_many` waits for a message, and appends at most as many as it may. A dropped future takes
/// nothing.
///
/// A receiver of many small messages saves the cost of a call for each one.
pub async fn recv_many_appends_what_has_arrived<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let (count, limit) = (60, 7);
    let mut messages = Vec::new();
    assert_eq!(other.recv_many(&mut messages, 0).await, Ok(0), "it does not wait for nothing");
    let waiting = timeout(MOMENT, other.recv_many(&mut messages, limit)).await;
    assert!(waiting.is_err(), "it waits for the first message");
    let send = async {
        for number in 0..count {
            one.send_bytes(numbered(number, 5 * KIB)).await.unwrap();
        }
    };
    let receive = async {
        while messages.len() < count as usize {
            let before = messages.len();
            let received = loop {
                match other.recv_many(&mut messages, limit).now_or_never() {
                    Some(received) => break received.unwrap(),
                    None => assert_eq!(messages.len(), before, "a dropped future takes nothing"),
                }
                sleep(PAUSE).await;
            };
            assert!((1..=limit).contains(&received), "{received} messages");
            assert_eq!(messages.len() - before, received);
        }
    };
    tokio::join!(send, receive);
    assert!(messages.iter().map(|(message, _)| number(message)).eq(0..count), "each one, in order");
    one.close(7, "").await;
    let end = other.recv_many(&mut messages, limit).await;
    assert_eq!(end, Err(RecvError::Closed(other.watch_close().await)));
    assert_eq!(messages.len(), count as usize);
}

/// A loop of `send_many`, `recv_many` or `try_recv` spends the task's cooperative budget, as `send`
/// and `recv` do: `try_recv` returns `None` once it is used up.
///
/// Otherwise a peer that sends quickly would stop all other tasks of the thread.
pub async fn batches_that_are_always_ready_yield<H: Harness>(stage: Stage<H>) {
    const COUNT: usize = 480;
    /// Tokio's budget is 128.
    const LONGEST: usize = 200;
    let Pair { one, other, .. } = &stage.meet().await;
    let done = &AtomicUsize::new(0);
    let send = async {
        for _ in 0..COUNT {
            let mut message = VecDeque::from(["short".into()]);
            match timeout(MOMENT, one.send_many(&mut message)).await {
                Ok(sent) => sent.unwrap(),
                Err(_) => return, // its queue is shorter
            }
            done.fetch_add(1, Ordering::SeqCst);
        }
    };
    let sent = longest_run(done, send).await;
    assert!(sent <= LONGEST, "{sent} batches were sent without a pause");
    sleep(MOMENT).await; // they arrive
    let count = done.load(Ordering::SeqCst);
    let mut messages = Vec::new();
    let receive = async {
        while messages.len() < count / 2 {
            other.recv_many(&mut messages, 1).await.unwrap();
            done.fetch_add(1, Ordering::SeqCst);
        }
    };
    let received = longest_run(done, receive).await;
    assert!(received <= LONGEST, "{received} batches were received without a pause");
    let receive = async {
        while messages.len() < count {
            match other.try_recv().unwrap() {
                Some(message) => messages.push(message),
                None => sleep(PAUSE).await,
            }
            done.fetch_add(1, Ordering::SeqCst);
        }
    };
    let received = longest_run(done, receive).await;
    assert!(received <= LONGEST, "{received} messages were received without a pause");
}
