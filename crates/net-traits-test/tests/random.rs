//! Random schedules over the in-memory transport, on a paused clock.

mod common;

use common::Memory;
use net_traits_test::random;
use std::sync::Arc;

#[test]
fn random_schedules_keep_the_contract() {
    for seed in 0..300 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(random::play(&Arc::new(Memory::default()), seed));
    }
}
