//! Credit for streams, and openers that wait for it.

use crate::connection::{StreamCredit, Ticket};
use crate::support::Model;
use crate::{block_on, deep_model, waker};
use loom::sync::Arc;
use loom::sync::atomic;
use loom::thread;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::Context;

pub(crate) const MODELS: &[Model] = &[
    (
        "the_first_opener_gets_credit_first_and_no_wake_is_lost",
        the_first_opener_gets_credit_first_and_no_wake_is_lost,
    ),
    (
        "a_ticket_that_is_dropped_at_any_moment_leaves_its_credit",
        a_ticket_that_is_dropped_at_any_moment_leaves_its_credit,
    ),
    (
        "a_blocked_opener_keeps_its_place_while_others_come_and_go",
        a_blocked_opener_keeps_its_place_while_others_come_and_go,
    ),
    ("the_end_of_the_connection_wakes_every_opener", the_end_of_the_connection_wakes_every_opener),
];

fn wait_for_credit(ticket: &Ticket) {
    block_on(poll_fn(|cx| ticket.poll(cx)));
}

fn credit() -> std::sync::Arc<StreamCredit> {
    std::sync::Arc::default()
}

fn the_first_opener_gets_credit_first_and_no_wake_is_lost() {
    deep_model(|| {
        let credit = credit();
        let (first, second) = (credit.join(), credit.join());
        let is_second_there = Arc::new(atomic::AtomicBool::new(false));
        let one = thread::spawn(move || {
            wait_for_credit(&first);
            first
        });
        let two = thread::spawn({
            let is_second_there = is_second_there.clone();
            move || {
                wait_for_credit(&second);
                assert!(is_second_there.load(Ordering::SeqCst), "the first credit is the first's");
                second
            }
        });
        credit.set_available(1);
        is_second_there.store(true, Ordering::SeqCst);
        credit.set_available(2);
        for opener in [one, two] {
            opener.join().unwrap().spend();
        }
        assert!(credit.take().is_none(), "both are spent");
    });
}

fn a_ticket_that_is_dropped_at_any_moment_leaves_its_credit() {
    for is_polled in [false, true] {
        deep_model(move || {
            let credit = credit();
            let (first, second) = (credit.join(), credit.join());
            let dropper = thread::spawn(move || {
                if is_polled {
                    let _ = first.poll(&Context::from_waker(&waker()));
                }
                drop(first);
            });
            let opener = thread::spawn(move || {
                wait_for_credit(&second);
                second.spend();
            });
            credit.set_available(1);
            dropper.join().unwrap();
            opener.join().unwrap();
            assert!(credit.take().is_none(), "it is spent");
            credit.set_available(1);
            assert!(credit.take().is_some(), "and the next one is there");
        });
    }
}

fn a_blocked_opener_keeps_its_place_while_others_come_and_go() {
    deep_model(|| {
        let credit = credit();
        credit.set_available(1);
        let (first, second) = (credit.join(), credit.join());
        let dropper = thread::spawn(move || drop(second));
        let joiner = thread::spawn({
            let credit = credit.clone();
            move || credit.join()
        });
        // The thread of msquic: the start is blocked, and then there is credit.
        first.wait_again();
        credit.set_available(1);
        wait_for_credit(&first);
        dropper.join().unwrap();
        let third = joiner.join().unwrap();
        assert!(third.poll(&Context::from_waker(&waker())).is_pending(), "overtaken");
        first.spend();
        credit.set_available(1);
        wait_for_credit(&third);
    });
}

fn the_end_of_the_connection_wakes_every_opener() {
    deep_model(|| {
        let credit = credit();
        let openers = [credit.join(), credit.join()]
            .map(|ticket| thread::spawn(move || wait_for_credit(&ticket)));
        credit.close();
        openers.into_iter().for_each(|opener| opener.join().unwrap());
        wait_for_credit(&credit.join());
    });
}
