//! Charges are released in any order of drops, and limits hold.

use super::*;
use proptest::prelude::*;
use tokio::time::advance;

const KIB: usize = 1024;
const SECOND: Duration = Duration::from_secs(1);

fn budget(total: usize, unfinished: usize) -> Arc<MemoryBudget> {
    Arc::new(MemoryBudget::new(MemoryLimits { total, unfinished, timeout: 4 * SECOND }))
}

fn share(budget: &Arc<MemoryBudget>) -> Arc<Share> {
    Arc::new(Share::new(budget))
}

#[test]
fn only_the_oldest_message_may_exceed_the_limit_of_a_connection() {
    let share = share(&budget(usize::MAX, 100 * KIB));
    let [mut first, mut second] = [Unfinished::new(&share), Unfinished::new(&share)];
    assert_eq!(first.allowance(), usize::MAX);
    first.set(40 * KIB, 80 * KIB);
    assert_eq!(first.allowance(), usize::MAX);
    assert_eq!(second.allowance(), ALWAYS, "more than the rest of the limit");
    second.set(10 * KIB, 10 * KIB);
    assert_eq!(second.allowance(), 6 * KIB);
    second.set(ALWAYS, 20 * KIB);
    assert_eq!(second.allowance(), 0);
    assert!(!share.take_resume(), "nothing was released");
    first.set(0, 0);
    assert!(share.take_resume() && !share.take_resume());
    assert_eq!(second.allowance(), usize::MAX, "it is the oldest now");
    assert_eq!(first.allowance(), 40 * KIB, "if the buffer of twice the bytes fits");
    second.set(100 * KIB, 100 * KIB);
    first.set(ALWAYS, ALWAYS);
    assert_eq!(first.allowance(), 0);
    share.lift_limits();
    assert_eq!(first.allowance(), usize::MAX, "what has arrived is decoded");
}

#[tokio::test(start_paused = true)]
async fn a_message_is_late_if_too_little_arrives_while_it_could() {
    let share = share(&budget(usize::MAX, 0));
    let [mut first, mut second] = [Unfinished::new(&share), Unfinished::new(&share)];
    first.set(1, 1);
    second.set(ALWAYS, ALWAYS);
    assert_eq!(second.allowance(), 0, "it is not late although it stands still");
    let mut arrived = 1;
    for _ in 0..8 {
        advance(SECOND).await;
        arrived += ADVANCE / 4;
        first.set(arrived, arrived);
        assert!(!share.is_late(Instant::now()));
    }
    for _ in 0..3 {
        advance(SECOND).await;
        arrived += 1;
        first.set(arrived, arrived);
        assert!(!share.is_late(Instant::now()));
    }
    share.set_full(true);
    assert!(!share.is_late(Instant::now()), "the application does not read");
    advance(4 * SECOND).await;
    assert!(!share.is_late(Instant::now()));
    share.set_full(false);
    advance(3 * SECOND).await;
    assert!(!share.is_late(Instant::now()));
    advance(SECOND).await;
    assert!(share.is_late(Instant::now()));
    share.end();
    assert!(!share.is_late(Instant::now()), "the connection has ended");
}

/// Lets so many seconds pass, and returns whether the connection was ever late.
async fn is_late_within(seconds: u32, share: &Share) -> bool {
    let mut is_late = false;
    for _ in 0..seconds {
        advance(SECOND).await;
        is_late |= share.is_late(Instant::now());
    }
    is_late
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_late_unless_it_is_filled_in_time() {
    let share = share(&budget(usize::MAX, 0));
    let mut gap = Gap::new(&share);
    gap.set(KIB);
    assert!(!is_late_within(3, &share).await);
    gap.set(0);
    assert!(!is_late_within(8, &share).await);
    gap.set(KIB);
    assert!(!is_late_within(3, &share).await);
    share.set_full(true);
    assert!(!is_late_within(8, &share).await, "the application does not read");
    share.set_full(false);
    assert!(!is_late_within(3, &share).await);
    gap.set(2 * KIB);
    assert!(is_late_within(1, &share).await, "more behind the gap does not help");
    drop(gap);
    assert!(!share.is_late(Instant::now()));
    assert_eq!(share.budget.unfinished.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_gap_may_stay_while_the_connection_advances_and_memory_is_not_scarce() {
    let share = share(&budget(1024 * KIB, 0));
    let mut gap = Gap::new(&share);
    gap.set(256 * KIB);
    let advancing = async |seconds| {
        let mut is_late = false;
        for _ in 0..seconds {
            share.received(ADVANCE);
            is_late |= is_late_within(1, &share).await;
        }
        is_late
    };
    assert!(!advancing(20).await);
    let mut charge = Charge::new(&share);
    charge.set(600 * KIB);
    assert!(advancing(8).await);
}

#[tokio::test(start_paused = true)]
async fn messages_may_wait_for_one_another_while_the_connection_advances() {
    let share = share(&budget(usize::MAX, usize::MAX));
    let mut messages: Vec<_> = (0..16).map(|_| Unfinished::new(&share)).collect();
    messages.iter_mut().for_each(|it| it.set(1, KIB));
    for second in 1..100 {
        advance(SECOND).await;
        messages[15].set(second * ADVANCE / 4, 100 * ADVANCE);
        assert!(!share.is_late(Instant::now()), "one of them advances");
    }
    for _ in 0..100 {
        advance(SECOND).await;
        share.received(ADVANCE / 4);
        assert!(!share.is_late(Instant::now()), "complete ones arrive");
    }
    for _ in 0..4 {
        advance(SECOND).await;
    }
    share.received(1000);
    assert!(share.is_late(Instant::now()), "a little is too little");
}

#[tokio::test(start_paused = true)]
async fn a_message_has_to_hurry_while_memory_is_scarce() {
    let budget = budget(1000 * KIB, usize::MAX);
    let (slow, other) = (share(&budget), share(&budget));
    let [mut large, mut small] = [Unfinished::new(&slow), Unfinished::new(&slow)];
    small.set(1, 64 * KIB);
    large.set(256 * KIB, 256 * KIB);
    let mut arrived = 256 * KIB;
    let mut is_late_in = async |seconds, of_large| {
        for _ in 0..seconds {
            advance(SECOND).await;
            slow.received(ADVANCE);
            arrived += of_large;
            large.set(arrived, 256 * KIB);
            if slow.is_late(Instant::now()) {
                return true;
            }
        }
        false
    };
    assert!(!is_late_in(100, 0).await);
    other.store(0, 100 * KIB);
    assert!(!budget.is_scarce() && !is_late_in(100, 0).await);
    other.store(100 * KIB, 400 * KIB);
    assert!(budget.is_scarce() && !is_late_in(3, 0).await, "its time begins now");
    assert!(!is_late_in(1, 4 * KIB).await);
    assert!(budget.is_scarce() && !is_late_in(100, KIB).await, "4 KiB are a 64th");
    assert!(!is_late_in(3, 0).await && is_late_in(1, 0).await);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_this_side_pauses_need_not_hurry() {
    let budget = budget(1000 * KIB, 200 * KIB);
    let share = share(&budget);
    let [mut oldest, mut paused] = [Unfinished::new(&share), Unfinished::new(&share)];
    oldest.set(1, KIB);
    paused.set(256 * KIB, 600 * KIB);
    assert!(budget.is_scarce());
    for second in 1..100 {
        assert_eq!(paused.allowance(), 0);
        paused.set(256 * KIB, 600 * KIB); // its stream was offered, and nothing was taken
        advance(SECOND).await;
        oldest.set(second * ADVANCE, KIB);
        assert!(!share.is_late(Instant::now()), "after {second} s");
    }
}

#[test]
fn what_exceeds_the_total_calls_the_hook_and_an_ended_share_is_not_counted() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let limits = MemoryLimits { total: 100 * KIB, unfinished: 0, timeout: SECOND };
    let budget = MemoryBudget::new(limits).on_excess(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let budget = Arc::new(budget);
    let [one, other] = [share(&budget), share(&budget)];
    let mut message = Unfinished::new(&one);
    message.set(60 * KIB, 60 * KIB);
    assert!(!other.store(0, 40 * KIB + UNIT - 1), "a part of a unit is not counted");
    assert!(other.store(40 * KIB + UNIT - 1, 44 * KIB));
    other.enforce_total();
    message.set(0, 0);
    message.set(70 * KIB, 70 * KIB);
    assert_eq!((calls.load(Ordering::SeqCst), one.held()), (2, 70 * KIB));
    assert!(one.end() && one.has_ended() && !one.end());
    assert_eq!(budget.used(), 44 * KIB);
    message.set(80 * KIB, 80 * KIB);
    assert_eq!((budget.used(), one.held()), (44 * KIB, 0));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn inboxes_share_what_is_free() {
    let budget = budget(160 * UNIT, 0);
    let shares: Vec<_> = (0..100).map(|_| share(&budget)).collect();
    assert_eq!((shares[0].room(UNIT), shares[0].room(usize::MAX)), (UNIT, 10 * UNIT));
    for share in &shares {
        share.store(0, share.room(usize::MAX));
    }
    assert!(!budget.is_exceeded());
    assert!(shares[0].room(usize::MAX) > 0, "there is always some room left");
}

#[derive(Debug, Clone)]
enum Step {
    Set { message: usize, bytes: usize },
    Store { connection: usize, bytes: usize },
    Drop { message: usize },
    Close { connection: usize },
    End { connection: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || 0..100_usize * KIB;
    prop_oneof![
        (0..12_usize, bytes()).prop_map(|(message, bytes)| Step::Set { message, bytes }),
        (0..3_usize, bytes()).prop_map(|(connection, bytes)| Step::Store { connection, bytes }),
        (0..12_usize).prop_map(|message| Step::Drop { message }),
        (0..3_usize).prop_map(|connection| Step::Close { connection }),
        (0..3_usize).prop_map(|connection| Step::End { connection }),
    ]
}

proptest! {
    /// Each message belongs to the connection of its number modulo 3.
    #[test]
    fn no_order_of_drops_leaks_a_charge(steps in proptest::collection::vec(step(), 0..60)) {
        let budget = budget(usize::MAX, 50 * KIB);
        let mut shares: Vec<_> = (0..3).map(|_| Some(share(&budget))).collect();
        let mut messages: Vec<_> = (0..12)
            .map(|number| shares[number % 3].as_ref().map(Unfinished::new))
            .collect();
        // What is expected: stored, of each message, and whether it has ended.
        let mut stored = [0; 3];
        let mut arrived = [0; 12];
        let mut ended = [false; 3];
        for step in steps {
            match step {
                Step::Set { message, bytes } => {
                    if let Some(it) = &mut messages[message] {
                        let oldest = it.allowance() == usize::MAX;
                        prop_assert!(oldest || it.allowance() <= 50 * KIB);
                        it.set(bytes, bytes);
                        arrived[message] = bytes;
                    }
                }
                Step::Store { connection, bytes } => {
                    if let Some(share) = &shares[connection] {
                        share.store(stored[connection], bytes);
                        stored[connection] = bytes / UNIT * UNIT;
                    }
                }
                Step::Drop { message } => {
                    messages[message] = None;
                    arrived[message] = 0;
                }
                Step::Close { connection } => {
                    shares[connection] = None; // its messages may still hold it
                    let mut of_it = (connection..12).step_by(3);
                    if of_it.all(|message| messages[message].is_none()) {
                        stored[connection] = 0;
                    }
                }
                Step::End { connection } => {
                    if let Some(share) = &shares[connection] {
                        share.end();
                        ended[connection] = true;
                    }
                }
            }
            for connection in 0..3 {
                let mut of_it = (connection..12).step_by(3);
                if shares[connection].is_none() && of_it.all(|it| messages[it].is_none()) {
                    stored[connection] = 0;
                }
            }
            let expected: usize = (0..3)
                .filter(|connection| !ended[*connection])
                .map(|it| stored[it] + arrived.iter().skip(it).step_by(3).sum::<usize>())
                .sum();
            prop_assert_eq!(budget.used(), expected);
        }
        drop((shares, messages));
        prop_assert_eq!(budget.used(), 0);
        prop_assert_eq!(budget.unfinished.load(Ordering::SeqCst), 0);
    }
}

/// What a peer brings on its 16 streams within a second.
type Second = fn(&mut [Unfinished], u64);

/// A connection with messages of 64 KiB at most that 16 streams began.
fn with_small_messages(budget: &Arc<MemoryBudget>) -> (Arc<Share>, Vec<Unfinished>) {
    let share = share(budget);
    let mut messages: Vec<_> = (0..16).map(|_| Unfinished::new(&share)).collect();
    messages.iter_mut().for_each(|it| it.set(1, 64 * KIB));
    (share, messages)
}

#[tokio::test(start_paused = true)]
async fn many_small_messages_keep_no_memory_while_it_is_scarce() {
    const CONNECTIONS: usize = 8;
    let trickled: Second = |messages, second| {
        messages.iter_mut().for_each(|it| it.set(second as usize + 1, 64 * KIB));
    };
    let replaced: Second = |messages, _| {
        messages.iter_mut().for_each(|it| it.set(0, 0));
        messages.iter_mut().for_each(|it| it.set(1, 64 * KIB));
    };
    // The oldest one grows by what a connection has to bring, the other ones pause.
    let paused: Second = |messages, second| {
        messages[0].set(second as usize * ADVANCE / 4, 200 * KIB);
        assert!(messages[1..].iter().all(|it| it.allowance() <= ALWAYS));
        messages[1..].iter_mut().for_each(|it| it.set(ALWAYS, 64 * KIB));
        assert!(messages[1..].iter().all(|it| it.allowance() == 0));
    };
    for attack in [trickled, replaced, paused] {
        let budget = budget(CONNECTIONS * 1024 * KIB, 512 * KIB);
        let mut attackers: Vec<_> =
            (0..CONNECTIONS).map(|_| with_small_messages(&budget)).collect();
        let honest = share(&budget);
        let [mut one, mut other] = [Unfinished::new(&honest), Unfinished::new(&honest)];
        other.set(1, 64 * KIB);
        assert!(budget.is_exceeded());
        for second in 1..=10 {
            advance(SECOND).await;
            let late = |it: &Share| it.is_late(Instant::now());
            for (share, messages) in &mut attackers {
                attack(messages, second);
                if std::ptr::fn_addr_eq(attack, trickled) {
                    share.received(ADVANCE / 2);
                }
                if late(share) {
                    share.end();
                }
            }
            one.set(second as usize * 2 * KIB, 64 * KIB);
            other.set(second as usize * 2 * KIB, 64 * KIB);
            assert!(!late(&honest), "after {second} s");
        }
        assert!(!budget.is_scarce(), "{} KiB are held", budget.used() / KIB);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_begins_messages_after_a_pause_has_its_time() {
    let budget = budget(1000 * KIB, usize::MAX);
    let (share, mut messages) = with_small_messages(&budget);
    assert!(budget.is_scarce() && !share.is_late(Instant::now()));
    messages.iter_mut().for_each(|it| it.set(0, 0));
    for after in [100 * SECOND, SECOND] {
        advance(after).await;
        messages.iter_mut().for_each(|it| it.set(1, 64 * KIB));
        assert!(!share.is_late(Instant::now()), "after {after:?}");
    }
}
