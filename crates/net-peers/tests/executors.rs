//! Operations of a task that another executor than tokio runs.

mod common;

use common::{accept, listen, pool, trusting};
use futures_util::FutureExt;
use net_peers::PeerPoolConfig;
use net_traits::{NetConnection, NetListener};
use net_traits_test::memory::MemoryNetwork;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::time::sleep;

/// More than tasks may do in one poll.
const COUNT: usize = 1000;

/// Returns whether a task that repeats an operation, which is always ready, yields.
fn yields<T>(mut operation: impl AsyncFnMut() -> T) -> bool {
    let repeat = async {
        for _ in 0..COUNT {
            operation().await;
        }
    };
    repeat.now_or_never().is_none()
}

#[test]
fn operations_that_are_always_ready_yield_without_the_budget_of_tokio() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (server, network) = (trusting(), MemoryNetwork::new(1));
    let (pool, mut events, address, _accepted) = runtime.block_on(async {
        let listener = listen(&network, &server).await;
        let (pool, events) = pool(&network, trusting(), PeerPoolConfig::new());
        let address = listener.local_addr();
        let dial = pool.connection(server.identity(), address);
        let (dialled, accepted) = tokio::join!(dial, accept(&listener));
        dialled.unwrap();
        for _ in 0..COUNT {
            accepted.send(b"waiting").await.unwrap();
        }
        sleep(Duration::from_secs(1)).await; // they arrive
        (pool, events, address, accepted)
    });
    assert!(yields(async || pool.connection(server.identity(), address).await.unwrap()));
    assert!(yields(async || pool.recv().await));
    drop(pool);
    runtime.block_on(async { while events.recv().await.is_some() {} });
    assert!(yields(async || events.recv().await));
}
