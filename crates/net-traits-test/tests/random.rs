//! Random schedules over the in-memory transport, on a paused clock.

mod common;

use common::Memory;
use net_traits_test::random;
use std::sync::Arc;

fn play(schedule: impl AsyncFn(&Arc<Memory>)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(schedule(&Arc::new(Memory::default())));
}

#[test]
fn random_schedules_keep_the_contract() {
    for seed in 0..300 {
        play(async |memory| random::play(memory, seed).await);
    }
}

#[test]
fn any_bytes_are_a_schedule() {
    for length in [0, 1, 10, 1000] {
        for byte in [0, 7, 37, 255] {
            play(async |memory| random::play_bytes(memory, &vec![byte; length]).await);
        }
    }
}
