//! What has to hold when all that is due has happened, and after the end.

use super::handles::number;
use super::{MAX_TASKS, Player};
use crate::DatagramCounts;
use crate::ffi::scripted::{self, ConnectionStep, StreamStep};
use std::sync::atomic::Ordering;

impl Player<'_> {
    /// Ends the connection, and then all tasks.
    pub(super) fn end(mut self) {
        scripted::fail_next(false);
        self.stop_listener();
        self.settle();
        self.receive_more(9);
        let others = self.handles.accepted.borrow().clone();
        for connection in self.connection.iter().chain(&others) {
            connection.shutdown(3, "");
        }
        drop(others);
        self.end_connection();
        self.sessions.check();
        if self.connection.is_none() && !scripted::connections().is_empty() {
            // It was not started, and only tasks have it, which may wait for ever.
            self.tasks.clear();
            self.end_connection();
        }
        self.handles.resume_sinks();
        self.handles.check_sinks();
        for reader in &*self.handles.readers.borrow() {
            if reader.sink.is_set.load(Ordering::SeqCst) {
                assert_eq!(reader.sink.ends.load(Ordering::SeqCst), 1, "a sink without an end");
            }
        }
        self.handles.writers.borrow().iter().for_each(|writer| writer.check());
        let waiting: Vec<_> = self.tasks.iter().map(|task| task.name).collect();
        assert!(waiting.is_empty(), "tasks wait after the end: {waiting:?}");
        // The handles of this crate keep no native one open, except chunks.
        self.handles.release_all();
        scripted::wait_until_closed();
        let handles = std::mem::take(&mut self.handles);
        drop((self, handles));
        scripted::reset();
    }

    /// On connections that go on, everything that is written is sent, and everything that arrives is read. Others end.
    fn settle(&mut self) {
        self.handles.resume_sinks();
        self.run();
        if self.reads_all {
            let readers = self.handles.readers.borrow().clone();
            for reader in readers {
                self.read_one(reader.clone(), false);
                self.run(); // it is the first that waits
                self.read_all(reader, true);
            }
            self.run();
        }
        self.receive_more(200);
        self.settle_streams();
        scripted::finish(&self.credential.certificate_chain()[0]);
        self.run();
        // Each gets its credit.
        for _ in 0..MAX_TASKS {
            for id in scripted::connections() {
                scripted::connection(id, ConnectionStep::StreamsAvailable(1, 1));
            }
            self.run();
            self.settle_streams();
        }
        for task in &self.tasks {
            assert!(
                !matches!(task.name, "enqueue" | "flush" | "open" | "send_datagram_wait"),
                "{} waits for nothing",
                task.name
            );
        }
        self.check_readers();
        self.handles.check_sinks();
        for writer in &*self.handles.writers.borrow() {
            writer.check();
            let Some(id) = writer.stream.id() else { continue };
            let account = scripted::account(id);
            let accepted: usize =
                writer.accepted.borrow().iter().map(|(_, content)| content.len()).sum();
            assert!(!account.is_sending || account.sent.len() == accepted, "not sent");
            let has_end = !writer.is_finished.get() || account.is_fin_sent;
            assert!(!account.is_sending || has_end, "the end is not sent");
        }
        self.handles.check_streams();
        let accepted = self.handles.accepted.borrow();
        for connection in self.connection.iter().chain(&*accepted) {
            // It is open until its last event.
            let Some(number) = number(connection) else { continue };
            let dropped = connection.datagram_counts().dropped;
            let counts = DatagramCounts { dropped, ..scripted::datagrams(number) };
            assert_eq!(connection.datagram_counts(), counts);
            self.handles.check_waiting(number);
            assert!(connection.inner().has_settled_credit(), "a ticket holds credit");
            let is_resumed = scripted::is_resumed(number).unwrap_or(false);
            assert_eq!(connection.is_resumed(), is_resumed);
        }
    }

    fn check_readers(&self) {
        for reader in &*self.handles.readers.borrow() {
            let Some(id) = reader.stream.id() else { continue };
            let account = scripted::account(id);
            if reader.is_stopped.get() {
                continue; // what has arrived was discarded
            }
            let is_reading = reader.reads.get() > 0;
            let has_sink = reader.sink.is_set.load(Ordering::SeqCst);
            if has_sink || is_reading {
                assert_eq!(account.left, 0, "nothing resumes the stream");
                // After a reset nothing is returned.
                assert!(account.held == 0 || !account.is_receiving, "bytes are not returned");
            }
            if has_sink {
                let received = reader.sink.bytes.load(Ordering::SeqCst);
                assert_eq!(received, account.received, "not received");
            } else if is_reading {
                assert_eq!(reader.read.get(), account.received, "not read");
            }
        }
    }

    /// Some bytes more, which tasks may keep until after the end.
    fn receive_more(&mut self, count: u64) {
        for id in scripted::streams() {
            scripted::stream(id, StreamStep::Receive { count, is_last: false });
        }
        self.run();
    }

    fn settle_streams(&mut self) {
        loop {
            let has_settled = scripted::settle();
            self.run();
            if !self.handles.release_all() && !has_settled {
                return;
            }
        }
    }

    /// What follows from the end may start further streams, which end as well.
    fn end_connection(&mut self) {
        loop {
            self.run();
            if !scripted::end() {
                return;
            }
        }
    }
}
