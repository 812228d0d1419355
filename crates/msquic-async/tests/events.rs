//! Plays events and calls in random orders, and in those that the fuzz target `events` has kept.

use msquic_async::testing::play;
use net_traits::{NetCredential, TrustPolicy};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

fn play_all(inputs: impl Iterator<Item = Vec<u8>>) {
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    for bytes in inputs {
        let played = catch_unwind(AssertUnwindSafe(|| play(&credential, &bytes)));
        assert!(played.is_ok(), "{bytes:?}");
    }
}

#[test]
fn orders_keep_what_is_promised() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/events");
    play_all(fs::read_dir(corpus).unwrap().map(|input| fs::read(input.unwrap().path()).unwrap()));
    let mut random = fastrand::Rng::with_seed(1);
    play_all((0..10_000).map(|_| {
        let length = random.usize(..300);
        (0..length).map(|_| random.u8(..)).collect()
    }));
}
