//! Datagrams: whole or not at all, until the connection ends.

use crate::Harness;
use crate::stage::{MOMENT, PAUSE, Pair, Stage, greet, pattern};
use futures_util::FutureExt;
use net_traits::{
    CloseReason, DatagramError, NetConnection, NetDatagrams, NetTransport, TrustPolicy,
};
use tokio::time::{sleep, timeout};

/// Returns the datagrams of both peers, once each knows that the other one accepts some.
pub(super) async fn both<'a>(
    one: &'a impl NetConnection,
    other: &'a impl NetConnection,
) -> [&'a dyn NetDatagrams; 2] {
    let both = [one.datagrams().unwrap(), other.datagrams().unwrap()];
    while both.iter().any(|datagrams| datagrams.max_datagram_size().is_none()) {
        sleep(PAUSE).await;
    }
    both
}

/// A datagram arrives whole, whatever its size up to the limit, or not at all. A larger one is a
/// typed error, and the connection remains usable.
pub async fn datagrams_arrive_whole<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let [sender, receiver] = both(one, other).await;
    let largest = sender.max_datagram_size().unwrap();
    let sizes = [0, 1, 100, largest];
    for size in sizes {
        loop {
            sender.send_datagram(pattern(size)).unwrap();
            let Ok(received) = timeout(MOMENT, receiver.recv_datagram()).await else { continue };
            let received = received.unwrap();
            assert!(sizes.contains(&received.len()), "{} bytes", received.len());
            assert_eq!(received, pattern(received.len()));
            if received.len() == size {
                break; // otherwise an earlier one was late, and has been sent again
            }
        }
    }
    let size = 1_000_000;
    match sender.send_datagram(pattern(size)) {
        Err(DatagramError::TooLarge { size: reported, limit }) => {
            assert_eq!(reported, size);
            assert!((largest..size).contains(&limit), "{limit}");
        }
        result => panic!("{result:?}"),
    }
    greet(one, other).await;
}

/// `recv_datagram` is cancel-safe: a dropped future loses no datagram, and all are counted.
pub async fn a_cancelled_recv_loses_no_datagram<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let [sender, receiver] = both(one, other).await;
    let mut sent = sender.datagram_statistics().sent;
    let (start, mut received) = (receiver.datagram_statistics(), 0);
    let arrived = || receiver.datagram_statistics().arrived - start.arrived;
    for round in 1..=20 {
        let before = arrived();
        while arrived() == before {
            if receiver.recv_datagram().now_or_never().is_some() {
                received += 1; // it came after the last look
                break;
            }
            sender.send_datagram(pattern(round)).unwrap();
            sent += 1;
            sleep(PAUSE).await;
        }
        // The future may be dropped before it returns a datagram that has arrived.
        received += u64::from(receiver.recv_datagram().now_or_never().is_some());
        while received < arrived() {
            let next = timeout(MOMENT, receiver.recv_datagram()).await;
            let datagram = next.expect("what has arrived is not lost").unwrap();
            assert_eq!(datagram, pattern(datagram.len()));
            received += 1;
        }
    }
    assert_eq!(receiver.datagram_statistics().received - start.received, received);
    assert_eq!(sender.datagram_statistics().sent, sent);
    greet(one, other).await;
}

/// After the end of the connection, datagram operations fail with its reason.
pub async fn datagrams_end_with_the_connection<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, .. } = &stage.meet().await;
    let [sender, receiver] = both(one, other).await;
    let (received, _) = tokio::join!(receiver.recv_datagram(), one.close(7, "bye"));
    let reason = other.watch_close().await;
    assert_eq!(received, Err(DatagramError::Closed(reason.clone())));
    assert_eq!(receiver.recv_datagram().await, Err(DatagramError::Closed(reason)));
    for closed in [sender.send_datagram(pattern(1)), receiver.send_datagram(pattern(1))] {
        assert!(matches!(closed, Err(DatagramError::Closed(_))), "{closed:?}");
    }
    assert!(matches!(one.watch_close().await, CloseReason::Local { .. }));
}

/// Once a revocation has returned, no datagram of the peer is received, even if it arrived before
/// or the peer has closed meanwhile.
///
/// Queued datagrams of a stolen key must not be acted on.
pub async fn datagrams_of_a_revoked_peer_are_not_handed_out<H: Harness>(stage: Stage<H>) {
    for has_closed in [false, true] {
        let Pair { one, other, transports: [dialler, transport], .. } = &stage.meet().await;
        let [sender, receiver] = both(one, other).await;
        let receiving = if stage.is_swapped { dialler } else { transport };
        let before = receiver.datagram_statistics().arrived;
        while receiver.datagram_statistics().arrived < before + 3 {
            sender.send_datagram(pattern(10)).unwrap();
            sleep(PAUSE).await;
        }
        if has_closed {
            one.close(0, "").await;
        }
        assert_eq!(receiver.recv_datagram().await, Ok(pattern(10)));
        let revoked = receiving.revoke(&TrustPolicy::reject_all()).await;
        assert!(has_closed || revoked == 1);
        for _ in 0..20 {
            let _ = sender.send_datagram(pattern(10)); // fails once it knows of the end
            let received = receiver.recv_datagram().await;
            assert!(
                matches!(received, Err(DatagramError::Closed(_))),
                "{received:?} of a revoked peer"
            );
        }
        other.watch_close().await;
    }
}
