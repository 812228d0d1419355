//! Frames and control records: however the bytes are split, the same messages come out, and no buffer is larger than
//! what has arrived allows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net_kit::frame::FrameDecoder;
use net_kit::receipts::Control;

/// The longest message.
const LIMIT: usize = 1000;

/// The largest buffer for few received bytes, see `docs/security.md`.
const BUFFER: usize = 64 * 1024;

#[derive(Debug, PartialEq)]
enum Decoded {
    Message(Vec<u8>, Option<u32>),
    Control(Control),
    Invalid,
}

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (has_receipts, size, bytes) = input;
    let whole = decode(has_receipts, bytes.len().max(1), bytes);
    let split = decode(has_receipts, usize::from(size).max(1), bytes);
    assert_eq!(whole, split);
});

fn decode(has_receipts: bool, size: usize, bytes: &[u8]) -> Vec<Decoded> {
    let mut decoder = FrameDecoder::with_receipts(LIMIT, has_receipts);
    let mut decoded = Vec::new();
    for mut piece in bytes.chunks(size) {
        while !piece.is_empty() {
            match decoder.control(&mut piece) {
                Ok(Some(record)) => {
                    decoded.push(Decoded::Control(record));
                    continue;
                }
                Ok(None) => {}
                Err(_) => {
                    decoded.push(Decoded::Invalid);
                    return decoded; // the stream is stopped
                }
            }
            match decoder.decode(&mut piece) {
                Ok(Some((message, _))) => {
                    decoded.push(Decoded::Message(message.to_vec(), decoder.take_mark()));
                }
                Ok(None) => {}
                Err(_) => {
                    decoded.push(Decoded::Invalid);
                    return decoded;
                }
            }
            let (arrived, buffer) = decoder.unfinished();
            assert!(arrived <= buffer && buffer <= BUFFER.max(2 * arrived), "{arrived}, {buffer}");
        }
    }
    decoded
}
