//! Damages packets, driven by a seed.

use fastrand::Rng;

/// Returns `packet` with one kind of damage: bits flipped, cut, extended, bytes replaced, or
/// another length field.
pub fn mangle(rng: &mut Rng, packet: &[u8]) -> Vec<u8> {
    let mut out = packet.to_vec();
    if out.is_empty() {
        return random(rng, 64);
    }
    match rng.u8(..6) {
        0 => (0..rng.usize(1..8)).for_each(|_| {
            let at = rng.usize(..out.len());
            out[at] ^= 1 << rng.u8(..8);
        }),
        1 => out.truncate(rng.usize(1..=packet.len())),
        2 => out.extend(random(rng, 200)),
        3 => {
            let at = rng.usize(..out.len());
            let end = out.len().min(at + 16);
            out[at..end].fill_with(|| rng.u8(..));
        }
        // The header: version, lengths of the connection IDs, token length, length.
        4 => {
            let at = rng.usize(..out.len().min(40));
            out[at] = [0, 1, 20, 21, 0x3f, 0x40, 0x7f, 0xff][rng.usize(..8)];
        }
        _ => {
            let at = rng.usize(..out.len());
            out.rotate_left(at);
        }
    }
    out
}

/// Returns 1 to `limit` random bytes.
pub fn random(rng: &mut Rng, limit: usize) -> Vec<u8> {
    let length = rng.usize(1..=limit);
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

/// Returns random bytes after a plausible long header of version 1.
pub fn random_long(rng: &mut Rng) -> Vec<u8> {
    let mut out = vec![0xc0 | rng.u8(..0x40), 0, 0, 0, 1];
    for _ in 0..2 {
        let length = if rng.u8(..8) == 0 { rng.u8(..) } else { 8 };
        out.push(length);
        out.extend(std::iter::repeat_with(|| rng.u8(..)).take(usize::from(length)));
    }
    out.extend(random(rng, 1200));
    if rng.bool() {
        out.resize(out.len().max(1200), 0);
    }
    out
}
