//! The same seed gives the same run.

use simulate::{Plan, run_virtual};

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| run_virtual(&Plan::virtual_time(50, 5.0, seed)).unwrap();
    let first = run(7);
    assert_eq!(run(7), first);
    assert_ne!(run(8).digest, first.digest);
    let steps = ["rumors", "restarts", "rotated keys", "revocations"];
    assert!(steps.iter().all(|it| first.steps.contains_key(it)), "{:?}", first.steps);
    let counts = &first.counts;
    assert!(counts.received > 1000 && counts.reported > 0 && counts.both > 0, "{counts:?}");
    assert!(counts.forged > 0, "the thieves were not rejected until their keys were revoked");
}
