//! Handles: what happens when the last one is dropped, where, and in which order.

use crate::stage::{MOMENT, PAUSE, Pair, Stage, greet, number, numbered};
use crate::suite::operation::fill;
use crate::{Harness, Limits};
use net_traits::{CloseReason, NetConnection, NetTransport, RecvError, TrustPolicy};
use std::panic::resume_unwind;
use std::time::Duration;
use tokio::time::{sleep, timeout};

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
/// A task that answers and ends does not know whether its answer is still queued.
pub async fn messages_sent_before_a_drop_are_delivered<H: Harness>(stage: Stage<H>) {
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

/// The last handle may be dropped outside of a runtime and while a thread unwinds. Messages that
/// were sent before are delivered.
///
/// A panic in a destructor ends the process.
pub async fn handles_may_be_dropped_anywhere<H: Harness>(stage: Stage<H>) {
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
pub async fn a_dropped_connection_lingers_for_a_limited_time<H: Harness>(stage: Stage<H>) {
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

/// A connection that lingers is not among the open connections, and is closed with those of its peer
/// and by a revocation.
///
/// A peer must not keep a connection that the application cannot see.
pub async fn a_lingering_connection_can_be_closed<H: Harness>(stage: Stage<H>) {
    let hour = Duration::from_secs(3600);
    let limits = Limits {
        no_progress_timeout: hour,
        operation_timeout: hour,
        linger: hour,
        ..Limits::default()
    };
    for is_revoked in [false, true] {
        let Pair { one, other: _other, listener: _listener, transports } =
            stage.meet_with(limits.clone()).await;
        let transport = &transports[usize::from(stage.is_swapped)];
        fill(&one).await;
        let peer = one.peer_identity().hash;
        drop(one);
        assert!(transport.connections().is_empty(), "there is no handle");
        let lingering = transport.statistics().connections; // none if the transport queues nothing
        let closed = match is_revoked {
            true => transport.revoke(&TrustPolicy::reject_all()).await,
            false => transport.close_peer(&peer, 7, "late"),
        };
        assert_eq!(closed, lingering);
        while transport.statistics().connections > 0 {
            sleep(PAUSE).await;
        }
    }
}

/// A transport counts the messages that are lost because the last handle was dropped, or because
/// the runtime of the connection has ended.
///
/// No caller gets an error for these messages.
pub async fn messages_lost_by_a_drop_are_counted<H: Harness>(stage: Stage<H>) {
    for is_lasting in [true, false] {
        let (Pair { one, other, listener, transports }, sent) = if is_lasting {
            send_unreceived(&stage).await
        } else {
            let (harness, is_swapped) = (stage.harness.clone(), stage.is_swapped);
            let ended = tokio::task::spawn_blocking(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let sending = async { send_unreceived(&Stage { harness, is_swapped }).await };
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
        assert!(lost <= sent, "{lost} lost of {sent}: a message is counted twice");
        if stage.harness.keeps_what_is_acknowledged() {
            assert!(received + lost >= sent, "{received} received, {lost} lost, {sent} sent");
        }
    }
}

/// Connects and sends messages that the peer does not receive. Returns the number of messages.
async fn send_unreceived<H: Harness>(stage: &Stage<H>) -> (Pair<H>, u64) {
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
pub async fn connections_outlive_listener_and_transport<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, listener, transports } = stage.meet().await;
    drop(listener);
    drop(transports);
    greet(&one, &other).await;
}

/// Handles may be dropped in any order: no drop hangs, and the remaining peer is notified.
///
/// A program that ends drops them in no particular order.
pub async fn handles_may_be_dropped_in_any_order<H: Harness>(stage: Stage<H>) {
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

/// After the end, what was received is freed with the last handle.
///
/// Peers that send and leave must not fill the memory of a node.
pub async fn nothing_is_held_without_handles<H: Harness>(stage: Stage<H>) {
    let limits = Limits { receive_queue: 16 * 1024, ..Limits::default() };
    let Pair { one, other, transports, .. } = stage.meet_with(limits).await;
    let transport = &transports[usize::from(!stage.is_swapped)]; // that of `other`
    fill(&one).await;
    let arrives = async {
        while transport.statistics().held_bytes == 0 {
            sleep(PAUSE).await;
        }
    };
    let _ = timeout(MOMENT, arrives).await; // a transport need not count what it holds
    one.abort(1, "");
    // A transport may see the end only behind what it has no room for.
    let _ = timeout(MOMENT, other.watch_close()).await;
    drop(other);
    while transport.statistics().held_bytes > 0 {
        sleep(PAUSE).await; // the behaviour has a time limit
    }
}
