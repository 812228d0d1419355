//! What `PeerPool::remove` does with connections that a peer takes no data from.

mod common;

use bytes::Bytes;
use common::{accept, listen, pool, trusting};
use net_peers::{DropError, PeerEvent, PeerPoolConfig};
use net_traits::{CloseReason, NetConnection, NetListener};
use net_traits_test::memory::MemoryNetwork;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn the_stuck_connections_of_a_removed_peer_end_at_once() {
    for is_replaced in [false, true] {
        let network = MemoryNetwork::new(1);
        let server = trusting();
        let listener = listen(&network, &server).await;
        let (pool, mut events) = pool(&network, trusting(), PeerPoolConfig::new());
        for number in 0..60 {
            let message = Bytes::from(vec![number; 16 * 1024]);
            pool.send(server.identity(), listener.local_addr(), message).unwrap();
        }
        let mut accepted = vec![accept(&listener).await]; // nothing is received from it
        if is_replaced {
            accepted.push(accept(&listener).await);
        }
        sleep(SECOND).await;
        let removed = Instant::now();
        pool.remove(server.identity());
        for connection in &accepted {
            let ended = timeout(60 * SECOND, connection.watch_close()).await;
            let reason = ended.expect("the connection is closed");
            assert!(matches!(reason, CloseReason::Peer { .. }), "{reason}");
        }
        assert_eq!(removed.elapsed(), Duration::ZERO, "replaced: {is_replaced}");
        let mut are_reported = false;
        while let Some(event) = events.try_recv() {
            let PeerEvent::Undelivered(report) = event else { continue };
            are_reported |= matches!(report.error, DropError::Removed);
        }
        assert!(are_reported);
        assert!(timeout(60 * SECOND, accept(&listener)).await.is_err(), "it is not dialled again");
    }
}
