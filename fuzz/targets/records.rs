//! Records of the transport over TCP: however the bytes are split, the same records come out, and no buffer is
//! larger than what has arrived allows.
#![no_main]

#[allow(dead_code, reason = "the encoders are not fuzzed")]
#[path = "../../crates/tcp-tls-transport/src/record.rs"]
mod record;

use libfuzzer_sys::fuzz_target;
use record::{Record, RecordDecoder};

/// The longest message, and the longest question or answer.
const LIMITS: (usize, usize) = (1000, 100);

/// The largest buffer for few received bytes, see `docs/security.md`.
const BUFFER: usize = 64 * 1024;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    assert_eq!(decode(bytes.len().max(1), bytes), decode(usize::from(size).max(1), bytes));
});

/// Returns each record as text with the number of its message, and whether the bytes are valid.
fn decode(size: usize, bytes: &[u8]) -> (Vec<String>, bool) {
    let mut decoder = RecordDecoder::new(LIMITS.0, LIMITS.1);
    let mut decoded = Vec::new();
    for mut piece in bytes.chunks(size) {
        while !piece.is_empty() {
            match decoder.decode(&mut piece) {
                Ok(Some(Record::Message((message, _)))) => {
                    decoded.push(format!("{message:?} {:?}", decoder.take_mark()));
                }
                Ok(Some(record)) => decoded.push(format!("{record:?}")),
                Ok(None) => {}
                Err(_) => return (decoded, false),
            }
            let (arrived, buffer) = decoder.unfinished();
            assert!(arrived <= buffer && buffer <= BUFFER.max(2 * arrived), "{arrived}, {buffer}");
        }
    }
    (decoded, true)
}
