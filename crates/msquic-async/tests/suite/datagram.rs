//! Datagrams between two peers over loopback.

use super::peers::{Pair, pair, pair_with, pattern, settings};
use crate::executors::run;
use bytes::Bytes;
use msquic_async::StreamLimits;
use msquic_async::{ConnectionError, DatagramOutcome, DgramReceiveError, DgramSendError};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

async fn datagram_pair() -> Pair {
    pair_with(settings().datagrams(true), StreamLimits::default()).await
}

#[test]
fn datagrams_arrive_and_their_outcome_is_reported() {
    run(async || {
        let Pair { client, server, .. } = datagram_pair().await;
        let max = client.max_datagram_size().unwrap();
        assert!(max > 1000, "{max}");
        for size in [1, 100, 1000, max] {
            let datagram = pattern(size);
            let outcome = client.send_datagram_tracked(&datagram).unwrap();
            assert_eq!(server.receive_datagram().await.unwrap(), datagram);
            assert_eq!(outcome.await, DatagramOutcome::Acknowledged);
        }
        let large = pattern(65_000);
        let Err(DgramSendError::TooBig { size: 65_000, .. }) = client.send_datagram(&large) else {
            panic!("65,000 bytes do not fit");
        };
    });
}

#[test]
fn a_peer_without_datagrams_is_a_typed_error() {
    run(async || {
        let Pair { client, server, .. } = pair().await;
        assert_eq!(client.max_datagram_size(), None);
        assert_eq!(client.send_datagram(&"x".into()), Err(DgramSendError::Denied));
        client.shutdown(4, "");
        let end = server.receive_datagram().await;
        let Err(DgramReceiveError::ConnectionLost(ConnectionError::ClosedByPeer {
            code: 4, ..
        })) = end
        else {
            panic!("{end:?}");
        };
        assert!(matches!(
            client.send_datagram(&"x".into()),
            Err(DgramSendError::ConnectionLost(_))
        ));
    });
}

#[test]
fn a_waiting_sender_is_never_stuck_and_a_slow_reader_loses_the_oldest() {
    run(async || {
        let Pair { client, server, .. } = datagram_pair().await;
        let datagram = pattern(1000);
        for _ in 0..5000 {
            client.send_datagram_wait(&datagram).await.unwrap();
        }
        // An acknowledgement proves that one arrived, not that the others did: nothing comes after the end.
        loop {
            match client.send_datagram_tracked(&Bytes::from_static(b"last")) {
                Err(DgramSendError::Full) => tokio::task::yield_now().await,
                sent => {
                    if sent.unwrap().await == DatagramOutcome::Acknowledged {
                        break;
                    }
                }
            }
        }
        client.shutdown(0, "");
        server.watch_shutdown().await;
        let mut received = 0_u64;
        while let Ok(datagram) = server.receive_datagram().await {
            assert!(datagram.len() == 1000 || datagram == "last");
            received += 1;
        }
        assert!(server.dropped_datagrams() > 0, "256 KiB hold 5 MB?");
        assert!(received <= 260, "{received} datagrams were kept");
    });
}

#[test]
fn datagrams_that_arrived_are_received_after_the_close() {
    run(async || {
        let Pair { client, server, .. } = datagram_pair().await;
        for number in 0..10_u8 {
            let outcome = client.send_datagram_tracked(&Bytes::from(vec![number])).unwrap();
            assert_eq!(outcome.await, DatagramOutcome::Acknowledged);
        }
        client.shutdown(0, "");
        server.watch_shutdown().await;
        for number in 0..10 {
            assert_eq!(server.receive_datagram().await.unwrap()[0], number);
        }
        assert!(server.receive_datagram().await.is_err());
    });
}

#[test]
fn empty_datagrams_are_bounded_in_number() {
    run(async || {
        let Pair { client, server, .. } = datagram_pair().await;
        let fits = |_: &usize| match client.send_datagram(&Bytes::new()) {
            Err(DgramSendError::Full) => false,
            sent => sent.map(|()| true).unwrap(),
        };
        let accepted = (0..ENOUGH).take_while(fits).count();
        assert!(accepted < ENOUGH, "{accepted} were accepted at once");
        for _ in 0..3000 {
            client.send_datagram_wait(&Bytes::new()).await.unwrap();
        }
        assert_eq!(server.receive_datagram().await.unwrap(), "");
    });
}

/// More datagrams than any connection holds, fewer than make msquic's own list too slow for a test.
const ENOUGH: usize = 60_000;

#[test]
fn a_sink_gets_what_waits_and_what_arrives() {
    run(async || {
        let Pair { client, server, .. } = datagram_pair().await;
        let send = async |datagram: &Bytes| {
            while client.send_datagram_tracked(datagram).unwrap().await
                != DatagramOutcome::Acknowledged
            {}
        };
        send(&pattern(1)).await;
        let passed = Arc::new(AtomicUsize::new(0));
        let bytes = passed.clone();
        let sink = move |datagram: &[u8]| {
            bytes.fetch_add(datagram.len(), Ordering::SeqCst);
        };
        assert!(server.set_datagram_sink(sink));
        assert!(!server.set_datagram_sink(|_| {}), "there is a sink");
        send(&pattern(100)).await;
        assert!(passed.load(Ordering::SeqCst) >= 101, "{passed:?}");
        assert!(server.datagram_counts().received >= 2);
        client.shutdown(4, "");
        let end = server.receive_datagram().await;
        assert!(matches!(end, Err(DgramReceiveError::ConnectionLost(_))), "{end:?}");
    });
}
