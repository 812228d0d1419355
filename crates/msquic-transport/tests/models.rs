//! The delivery to a handler, under the orders of the steps of its threads (loom).

#![allow(dead_code, unused_imports, reason = "the models do not use everything")]

#[path = "../src/delivery.rs"]
mod delivery;
#[path = "../../msquic-async/tests/models/support.rs"]
mod support;

use atomic::{AtomicBool, Ordering};
use delivery::Delivery;
use loom::thread;
use std::sync::Arc;
use support as lock;
use support::{Model, atomic, block_on, deep_model};

const MODELS: &[Model] = &[
    ("each_message_is_delivered_once_and_alone", each_message_is_delivered_once_and_alone),
    (
        "a_handler_is_dropped_once_after_the_last_message",
        a_handler_is_dropped_once_after_the_last_message,
    ),
    ("a_stopped_delivery_becomes_idle", a_stopped_delivery_becomes_idle),
];

/// The messages of a connection.
#[derive(Default)]
struct Inbox {
    delivery: Delivery,
    waiting: lock::Mutex<Vec<u8>>,
    delivered: lock::Mutex<Vec<u8>>,
    is_running: AtomicBool,
    has_overlapped: AtomicBool,
}

/// A handler, which is dropped after all messages.
struct Handler(Arc<Inbox>);

impl Handler {
    fn pass_on(&self, delivery: &Delivery) {
        let inbox = &*self.0;
        if inbox.is_running.swap(true, Ordering::SeqCst) {
            inbox.has_overlapped.store(true, Ordering::SeqCst);
        }
        while !delivery.is_stopped() {
            let Some(message) = inbox.waiting.lock().pop() else { break };
            inbox.delivered.lock().push(message);
        }
        inbox.is_running.store(false, Ordering::SeqCst);
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.0.delivered.lock().push(DROPPED);
    }
}

const DROPPED: u8 = 0;

impl Inbox {
    fn new() -> Arc<Self> {
        let inbox = Arc::new(Self::default());
        let handler = Handler(inbox.clone());
        inbox.delivery.set(Arc::new(move |delivery, _| {
            handler.pass_on(delivery);
            false
        }));
        inbox
    }

    fn push(&self, message: u8) {
        self.waiting.lock().push(message);
        self.delivery.run(|| true);
    }

    fn delivered(&self) -> Vec<u8> {
        assert!(!self.has_overlapped.load(Ordering::SeqCst), "the handler ran twice at once");
        self.delivered.lock().clone()
    }
}

fn each_message_is_delivered_once_and_alone() {
    deep_model(|| {
        let inbox = Inbox::new();
        let sender = thread::spawn({
            let inbox = inbox.clone();
            move || inbox.push(2)
        });
        inbox.push(1);
        sender.join().unwrap();
        let mut delivered = inbox.delivered();
        delivered.sort_unstable();
        assert_eq!(delivered, [1, 2]);
        inbox.delivery.end();
        inbox.delivery.run(|| false);
    });
}

fn a_handler_is_dropped_once_after_the_last_message() {
    deep_model(|| {
        let inbox = Inbox::new();
        let has_streams = Arc::new(AtomicBool::default());
        has_streams.store(true, Ordering::SeqCst);
        let sender = thread::spawn({
            let (inbox, has_streams) = (inbox.clone(), has_streams.clone());
            move || {
                inbox.waiting.lock().push(1);
                has_streams.store(false, Ordering::SeqCst);
                inbox.delivery.run(|| has_streams.load(Ordering::SeqCst));
            }
        });
        inbox.delivery.end();
        inbox.delivery.run(|| has_streams.load(Ordering::SeqCst));
        sender.join().unwrap();
        assert_eq!(inbox.delivered(), [1, DROPPED]);
    });
}

fn a_stopped_delivery_becomes_idle() {
    deep_model(|| {
        let inbox = Inbox::new();
        let sender = thread::spawn({
            let inbox = inbox.clone();
            move || inbox.push(1)
        });
        inbox.delivery.stop();
        block_on(inbox.delivery.idle());
        let before = inbox.delivered();
        sender.join().unwrap();
        assert!(before == [1] || inbox.delivered().is_empty(), "it is called after it was idle");
        inbox.delivery.end();
        inbox.delivery.run(|| false);
    });
}

fn main() {
    support::run(&[MODELS]);
}
