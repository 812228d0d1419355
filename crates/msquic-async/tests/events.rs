//! Plays events and calls in random orders, and in those that the fuzz target `events` has kept.

use msquic_async::testing::play;
use net_traits::{NetCredential, TrustPolicy};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

fn play_all(inputs: impl Iterator<Item = Vec<u8>>) {
    // Signatures of issuers are not verified, which miri could not do.
    let pem = include_bytes!("issued.pem");
    let credential = NetCredential::from_pem(pem, TrustPolicy::Any).unwrap();
    for bytes in inputs {
        let played = catch_unwind(AssertUnwindSafe(|| play(&credential, &bytes)));
        assert!(played.is_ok(), "{bytes:?}");
    }
}

#[test]
fn orders_keep_what_is_promised() {
    // miri takes ten seconds for each order.
    let (each, orders, longest) = if cfg!(miri) { (700, 3, 60) } else { (1, 10_000, 300) };
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/events");
    let names = fs::read_dir(&corpus).unwrap().map(|input| input.unwrap().file_name());
    let mut kept: Vec<_> = names.collect();
    kept.sort();
    play_all(kept.iter().step_by(each).map(|name| fs::read(corpus.join(name)).unwrap()));
    let mut random = fastrand::Rng::with_seed(1);
    play_all((0..orders).map(|_| {
        let length = random.usize(..longest);
        (0..length).map(|_| random.u8(..)).collect()
    }));
}
