//! The inbox, under the orders of the steps of its threads (loom).

#![allow(dead_code, unreachable_pub, unused_imports, reason = "the models do not use everything")]

#[path = "../src/inbox.rs"]
mod inbox;
#[path = "../src/memory_budget.rs"]
mod memory_budget;
#[path = "../../msquic-async/tests/models/support.rs"]
mod support;

mod frame {
    pub(crate) use net_kit::frame::Message;
}

mod receipts {
    pub(crate) use net_kit::receipts::MAX_UNWRITTEN;
}

use inbox::{ENTRY_COST, Inbox, Received};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use net_traits::{CloseReason, RecvError};
use std::sync::Arc;
use std::time::Duration;
use support as lock;
use support::atomic::{AtomicBool, Ordering};
use support::{Model, block_on, bounded_model, deep_model};

const MODELS: &[Model] = &[
    ("a_reader_that_leaves_messages_wakes_the_next", a_reader_that_leaves_messages_wakes_the_next),
    ("a_reader_that_is_dropped_loses_no_message", a_reader_that_is_dropped_loses_no_message),
    ("what_arrived_before_the_end_is_received", what_arrived_before_the_end_is_received),
    ("a_full_inbox_resumes_its_sender", a_full_inbox_resumes_its_sender),
    ("each_receipt_is_due_once", each_receipt_is_due_once),
];

fn message(number: u8) -> Received {
    Ok((vec![number].into(), Duration::ZERO))
}

fn number(received: Received) -> u8 {
    received.unwrap().0[0]
}

fn recv(inbox: &Inbox) -> (u8, bool) {
    let (received, resume) = block_on(inbox.recv(|| None));
    (number(received), resume)
}

fn a_reader_that_leaves_messages_wakes_the_next() {
    bounded_model(|| {
        let inbox = Arc::new(Inbox::new(usize::MAX));
        let readers = [(); 2].map(|()| {
            let inbox = inbox.clone();
            thread::spawn(move || recv(&inbox).0)
        });
        inbox.push(&mut vec![message(1), message(2)]);
        let mut received = readers.map(|reader| reader.join().unwrap());
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
    });
}

fn a_reader_that_is_dropped_loses_no_message() {
    bounded_model(|| {
        let inbox = Arc::new(Inbox::new(usize::MAX));
        let dropper = thread::spawn({
            let inbox = inbox.clone();
            move || {
                let waker = support::waker();
                let mut cx = std::task::Context::from_waker(&waker);
                // It finds nothing, whatever is there.
                let pop = |_: &Inbox| None::<(Result<(), RecvError>, bool)>;
                let mut recv = std::pin::pin!(inbox.recv_with(|| None, pop));
                assert!(recv.as_mut().poll(&mut cx).is_pending());
            }
        });
        let reader = thread::spawn({
            let inbox = inbox.clone();
            move || recv(&inbox).0
        });
        inbox.push_one(message(1));
        dropper.join().unwrap();
        assert_eq!(reader.join().unwrap(), 1);
    });
}

fn what_arrived_before_the_end_is_received() {
    deep_model(|| {
        let ended = Arc::new((Inbox::new(usize::MAX), AtomicBool::default()));
        let readers = [(); 2].map(|()| {
            let ended = ended.clone();
            thread::spawn(move || {
                let (inbox, has_ended) = &*ended;
                let end = || has_ended.load(Ordering::SeqCst).then_some(CloseReason::TimedOut);
                let mut messages = 0;
                while block_on(inbox.recv(end)).0.is_ok() {
                    messages += 1;
                }
                messages
            })
        });
        ended.0.push_one(message(1));
        ended.1.store(true, Ordering::SeqCst);
        ended.0.wake_all();
        let received: usize = readers.map(|reader| reader.join().unwrap()).iter().sum();
        assert_eq!(received, 1);
    });
}

/// Whether a sender may go on.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn resume(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_one();
    }

    fn wait(&self) {
        let mut is_open = self.0.lock().unwrap();
        while !std::mem::take(&mut *is_open) {
            is_open = self.1.wait(is_open).unwrap();
        }
    }
}

fn a_full_inbox_resumes_its_sender() {
    deep_model(|| {
        let inbox = Arc::new(Inbox::new(ENTRY_COST));
        let gate = Arc::new(Gate::default());
        let sender = thread::spawn({
            let (inbox, gate) = (inbox.clone(), gate.clone());
            move || {
                for number in 1..=3 {
                    while inbox.room() == 0 {
                        gate.wait();
                    }
                    inbox.push_one(message(number));
                }
            }
        });
        for expected in 1..=3 {
            let (received, resume) = recv(&inbox);
            assert_eq!(received, expected);
            if resume {
                gate.resume();
            }
        }
        sender.join().unwrap();
    });
}

fn each_receipt_is_due_once() {
    bounded_model(|| {
        let inbox = Arc::new(Inbox::new(usize::MAX));
        let readers = [(); 2].map(|()| {
            let inbox = inbox.clone();
            thread::spawn(move || {
                recv(&inbox);
                inbox.take_due()
            })
        });
        inbox.push_marked(message(1), 1);
        inbox.push_marked(message(2), 2);
        let mut due = readers.map(|reader| reader.join().unwrap()).concat();
        due.sort_unstable();
        assert_eq!(due, [1, 2]);
    });
}

fn main() {
    support::run(&[MODELS]);
}
