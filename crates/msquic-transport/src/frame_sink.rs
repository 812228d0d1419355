//! `FrameSink`: decodes the frames of one stream into the inbox of its connection.
//!
//! It runs on msquic's thread. It decodes frames directly into the memory of the messages and wakes a
//! reader per batch. When the inbox is full, the sinks accept no data and their streams pause.
//! [`Inbox::pop`] tells the reader when to resume them.

use msquic_async::{ReadError, ReceiveEnd, ReceiveSink};
use net_kit::frame::FrameDecoder;
use net_kit::inbox::{Inbox, cost};
use net_traits::RecvError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Size of a batch after which a reader is woken.
const BATCH: usize = 32;

/// The state of a sink, shared with the owner of its stream.
#[derive(Debug, Default)]
pub(crate) struct SinkStatus {
    /// The stream has ended.
    ended: AtomicBool,
    /// The stream can no longer be decoded and must be stopped.
    broken: AtomicBool,
}

impl SinkStatus {
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

/// Decodes the frames of one stream into the inbox.
pub(crate) struct FrameSink {
    decoder: FrameDecoder,
    inbox: Arc<Inbox>,
    status: Arc<SinkStatus>,
}

impl FrameSink {
    pub(crate) fn new(inbox: &Arc<Inbox>, max_message_size: usize) -> (Self, Arc<SinkStatus>) {
        let status = Arc::new(SinkStatus::default());
        let decoder = FrameDecoder::new(max_message_size);
        (Self { decoder, inbox: inbox.clone(), status: status.clone() }, status)
    }
}

impl ReceiveSink for FrameSink {
    fn receive(&mut self, data: &[u8]) -> usize {
        let (mut rest, mut entries) = (data, Vec::new());
        // A broken stream stays paused until it is stopped.
        while !rest.is_empty() && !self.status.is_broken() {
            let mut room = self.inbox.room();
            if room == 0 {
                break;
            }
            while !rest.is_empty() && room > 0 && entries.len() < BATCH {
                let Some(entry) = self.decoder.decode(&mut rest).transpose() else { break };
                room = room.saturating_sub(cost(&entry));
                let is_broken = entry.is_err();
                entries.push(entry);
                if is_broken {
                    self.status.broken.store(true, Ordering::Release);
                    break;
                }
            }
            self.inbox.push(&mut entries);
        }
        data.len() - rest.len()
    }

    fn end(&mut self, end: ReceiveEnd) {
        self.status.ended.store(true, Ordering::Release);
        if self.status.is_broken() {
            return;
        }
        let error = match (end, self.decoder.truncated()) {
            (ReceiveEnd::Finished, cut) => cut,
            (ReceiveEnd::Failed(ReadError::Reset(code)), Some(_)) => {
                Some(RecvError::Reset { code })
            }
            // Between messages no data is lost. The loss of the connection is reported separately.
            (ReceiveEnd::Failed(_), _) => None,
        };
        if let Some(error) = error {
            self.inbox.push_one(Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net_kit::frame::header;
    use net_kit::inbox::ENTRY_COST;

    fn frame(message: &[u8]) -> Vec<u8> {
        [&header(message.len()).unwrap()[..], message].concat()
    }

    fn sink(limit: usize) -> (FrameSink, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::new(limit));
        (FrameSink::new(&inbox, 100).0, inbox)
    }

    fn message(inbox: &Inbox) -> (Vec<u8>, bool) {
        let (entry, resume) = inbox.pop().unwrap();
        (entry.unwrap().0.to_vec(), resume)
    }

    #[test]
    fn a_full_inbox_takes_nothing_and_says_when_to_resume() {
        let (mut sink, inbox) = sink(2 * (ENTRY_COST + 10));
        let data = frame(&[1; 10]).repeat(3);
        assert_eq!(sink.receive(&data), 28);
        assert_eq!(sink.receive(&data[28..]), 0);
        assert_eq!(message(&inbox), (vec![1; 10], true));
        assert_eq!(sink.receive(&data[28..]), 14);
        assert_eq!(message(&inbox), (vec![1; 10], false));
    }

    #[test]
    fn empty_messages_are_bounded_too() {
        let (mut sink, inbox) = sink(10 * ENTRY_COST);
        assert_eq!(sink.receive(&frame(b"").repeat(100)), 40);
        assert_eq!(message(&inbox).0, b"");
    }

    #[test]
    fn after_an_announcement_beyond_the_limit_nothing_is_taken() {
        let (mut sink, inbox) = sink(1000);
        let data = [frame(b"good"), frame(&[0; 101]), frame(b"never seen")].concat();
        assert_eq!(sink.receive(&data), 8 + 4);
        assert_eq!(sink.receive(&data[12..]), 0);
        assert_eq!(message(&inbox).0, b"good");
        let (error, _) = inbox.pop().unwrap();
        assert_eq!(error, Err(RecvError::TooLarge { size: 101, limit: 100 }));
        assert!(sink.status.is_broken());
        sink.end(ReceiveEnd::Finished);
        assert!(inbox.pop().is_none());
    }

    #[test]
    fn only_ends_inside_a_message_are_reported() {
        let lost = || ReceiveEnd::Failed(ReadError::Closed);
        let reset = || ReceiveEnd::Failed(ReadError::Reset(9));
        let cut = RecvError::Truncated { received: 1, announced: 4 };
        for (data, end, expected) in [
            (&b""[..], ReceiveEnd::Finished, None),
            (b"", reset(), None),
            (b"", lost(), None),
            (b"\0", ReceiveEnd::Finished, Some(cut)),
            (b"\0", reset(), Some(RecvError::Reset { code: 9 })),
            (b"\0", lost(), None),
        ] {
            let (mut sink, inbox) = sink(1000);
            sink.receive(data);
            sink.end(end);
            assert_eq!(inbox.pop().map(|(entry, _)| entry.unwrap_err()), expected);
        }
    }
}
