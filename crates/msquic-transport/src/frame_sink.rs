//! `FrameSink`: decodes the frames of one stream into the inbox of its connection.
//!
//! It runs on msquic's thread, or on that of a reader that made room. It decodes frames directly
//! into the memory of the messages and wakes one reader per batch. When the inbox is full, or the
//! messages in progress on other streams take all memory of the connection, it accepts no data and
//! its stream pauses. A stream that can no longer be decoded is stopped.

use crate::inbound::Inbound;
use msquic_async::{ReadError, ReceiveEnd, ReceiveSink, SinkStream};
use net_kit::frame::FrameDecoder;
use net_kit::inbox::{Received, cost};
use net_kit::memory_budget::Unfinished;
use net_traits::RecvError;
use std::sync::Arc;

/// The code that stops a stream on which the peer announced a message over the limit.
pub const STREAM_CODE_MESSAGE_TOO_LARGE: u64 = 1;

/// How many messages are decoded before a reader is woken. A wake-up costs as much as decoding dozens
/// of short messages, and a reader takes those in less time than it needs to wake up.
const BATCH: usize = 256;

/// Decodes the frames of one stream into the inbox.
pub(crate) struct FrameSink {
    stream: SinkStream,
    decoder: FrameDecoder,
    unfinished: Unfinished,
    inbound: Arc<Inbound>,
    /// The stream was stopped.
    is_broken: bool,
}

impl FrameSink {
    pub(crate) fn new(stream: SinkStream, inbound: &Arc<Inbound>, max_message_size: usize) -> Self {
        inbound.add(stream.clone());
        let has_receipts = inbound.receipts().is_some();
        let decoder = FrameDecoder::with_receipts(max_message_size, has_receipts);
        let unfinished = Unfinished::new(inbound.inbox().share());
        Self { stream, decoder, unfinished, inbound: inbound.clone(), is_broken: false }
    }
}

impl Drop for FrameSink {
    fn drop(&mut self) {
        self.inbound.remove(&self.stream);
    }
}

impl ReceiveSink for FrameSink {
    fn receive(&mut self, data: &[u8]) -> usize {
        if self.is_broken {
            return 0;
        }
        if self.unfinished.share().has_ended() {
            self.decoder = FrameDecoder::new(0);
            self.unfinished.set(0, 0);
            return data.len();
        }
        let (mut rest, mut entries) = (data, Vec::new());
        self.receive_controls(&mut rest, &mut entries);
        let mut allowance = usize::MAX;
        while !rest.is_empty() && !self.is_broken && allowance > 0 {
            let mut room = self.inbound.inbox().room();
            if room == 0 {
                break;
            }
            while !rest.is_empty() && room > 0 && entries.len() < BATCH {
                allowance = self.unfinished.allowance();
                let Some(entry) = self.decode(&mut rest, allowance) else { break };
                room = room.saturating_sub(cost(&entry));
                self.is_broken = entry.is_err();
                match self.decoder.take_mark().filter(|_| !self.is_broken) {
                    None => entries.push(entry),
                    Some(number) => {
                        self.inbound.inbox().push(&mut entries);
                        self.inbound.inbox().push_marked(entry, number);
                        self.inbound.deliver();
                    }
                }
                if self.is_broken {
                    break;
                }
                self.receive_controls(&mut rest, &mut entries);
            }
            self.inbound.inbox().push(&mut entries);
            self.inbound.deliver();
        }
        if self.is_broken {
            self.inbound.deliver();
            self.stream.stop(STREAM_CODE_MESSAGE_TOO_LARGE);
        }
        data.len() - rest.len()
    }

    fn end(&mut self, end: ReceiveEnd) {
        if self.is_broken {
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
        self.unfinished.set(0, 0); // the reader of the error resumes the streams that wait for memory
        if let Some(error) = error {
            self.inbound.inbox().push_one(Err(error));
            self.inbound.deliver();
        }
    }
}

impl FrameSink {
    /// Decodes control records from the front of `data`, behind `entries`. This needs no room.
    fn receive_controls(&mut self, data: &mut &[u8], entries: &mut Vec<Received>) {
        loop {
            match self.decoder.control(data) {
                Ok(None) => return,
                Ok(Some(record)) => self.inbound.on_control(record),
                Err(error) => {
                    self.is_broken = true;
                    self.inbound.inbox().push(entries);
                    return self.inbound.inbox().push_one(Err(error));
                }
            }
        }
    }

    /// Decodes up to `allowance` bytes from the front of `data`.
    fn decode(&mut self, data: &mut &[u8], allowance: usize) -> Option<Received> {
        let mut part = &data[..allowance.min(data.len())];
        let offered = part.len();
        let entry = self.decoder.decode(&mut part).transpose();
        *data = &data[offered - part.len()..];
        let (arrived, buffer) = self.decoder.unfinished();
        self.unfinished.set(arrived, buffer);
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net_kit::frame::header;
    use net_kit::inbox::ENTRY_COST;
    use net_kit::memory_budget::{MemoryBudget, MemoryLimits, Share};
    use net_kit::receipts::Control;

    fn frame(message: &[u8]) -> Vec<u8> {
        [&header(message.len()).unwrap()[..], message].concat()
    }

    fn sink(limit: usize) -> (FrameSink, Arc<Inbound>) {
        let inbound = Inbound::new((limit, 0), &Share::unlimited().into(), true);
        (FrameSink::new(SinkStream::ended(2), &inbound, 100), inbound)
    }

    fn message(inbound: &Inbound) -> (Vec<u8>, bool) {
        let (entry, resume) = inbound.inbox().pop().unwrap();
        (entry.unwrap().0.to_vec(), resume)
    }

    #[test]
    fn a_full_inbox_accepts_nothing_until_it_has_room() {
        let (mut sink, inbound) = sink(2 * (ENTRY_COST + 10));
        let data = frame(&[1; 10]).repeat(3);
        assert_eq!(sink.receive(&data), 28);
        assert_eq!(sink.receive(&data[28..]), 0);
        assert_eq!(message(&inbound), (vec![1; 10], true));
        assert_eq!(sink.receive(&data[28..]), 14);
        assert_eq!(message(&inbound), (vec![1; 10], false));
    }

    #[test]
    fn the_error_of_the_oldest_message_resumes_those_that_wait_for_it() {
        let limits = MemoryLimits { unfinished: 0, ..MemoryLimits::NONE };
        let share = Arc::new(Share::new(&Arc::new(MemoryBudget::new(limits))));
        let inbound = Inbound::new((1 << 20, 0), &share, true);
        let [mut oldest, mut waiting] =
            [2, 6].map(|id| FrameSink::new(SinkStream::ended(id), &inbound, 1 << 20));
        let begun = frame(&[1; 100_000])[..50_000].to_vec();
        assert_eq!(oldest.receive(&begun), 50_000);
        assert!(waiting.receive(&begun) < 50_000, "it pauses");
        oldest.end(ReceiveEnd::Failed(ReadError::Reset(9)));
        let (error, resume) = inbound.inbox().pop().unwrap();
        assert_eq!((error, resume), (Err(RecvError::Reset { code: 9 }), true));
    }

    #[test]
    fn empty_messages_are_bounded_too() {
        let (mut sink, inbound) = sink(10 * ENTRY_COST);
        assert_eq!(sink.receive(&frame(b"").repeat(100)), 40);
        assert_eq!(message(&inbound).0, b"");
    }

    #[test]
    fn a_full_inbox_takes_receipts_and_then_the_receipt_of_a_message_is_due() {
        let (mut sink, inbound) = sink(1);
        let receipt = Control::Receipt { number: 1, is_taken: true }.encode();
        let marked = [Control::Mark(3).encode(), frame(b"marked")].concat();
        assert_eq!(sink.receive(&marked), marked.len());
        assert_eq!(inbound.inbox().room(), 0);
        assert_eq!(sink.receive(&receipt), receipt.len());
        assert_eq!(sink.receive(&marked), 9, "the message waits");
        assert!(!inbound.inbox().has_due());
        assert_eq!(
            (message(&inbound).0, inbound.inbox().take_due()),
            (b"marked".to_vec(), vec![3])
        );
    }

    #[test]
    fn after_an_announcement_beyond_the_limit_nothing_is_accepted() {
        let (mut sink, inbound) = sink(10 * ENTRY_COST);
        let data = [frame(b"good"), frame(&[0; 101]), frame(b"never seen")].concat();
        assert_eq!(sink.receive(&data), 8 + 4);
        assert_eq!(sink.receive(&data[12..]), 0);
        assert_eq!(message(&inbound).0, b"good");
        let (error, _) = inbound.inbox().pop().unwrap();
        assert_eq!(error, Err(RecvError::TooLarge { size: 101, limit: 100 }));
        sink.end(ReceiveEnd::Finished);
        assert!(inbound.inbox().pop().is_none());
    }

    #[test]
    fn after_an_invalid_record_nothing_is_accepted() {
        for record in [&b"\xff\xff\xff\xff\x05"[..], b"\xff\xff\xff\xff\x07\0\0\0\x01\x02"] {
            let (mut sink, inbound) = sink(1000);
            let data = [&frame(b"good"), record, b"\0"].concat();
            assert_eq!(sink.receive(&data), 8 + record.len());
            for rest in [&data[8 + record.len()..], record] {
                assert_eq!(sink.receive(rest), 0);
            }
            assert_eq!(message(&inbound).0, b"good");
            let (error, _) = inbound.inbox().pop().unwrap();
            assert_eq!(error, Err(RecvError::TooLarge { size: u32::MAX.into(), limit: 100 }));
            assert!(inbound.inbox().pop().is_none());
        }
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
            let (mut sink, inbound) = sink(1000);
            sink.receive(data);
            sink.end(end);
            assert_eq!(inbound.inbox().pop().map(|(entry, _)| entry.unwrap_err()), expected);
        }
    }
}
