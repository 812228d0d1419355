//! What this process uses, and how long tests run.

/// Returns the resident memory of this process in KiB.
///
/// # Panics
///
/// On systems without `/proc/self/statm`.
pub fn resident_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has this file");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("the second field is a number") * KIB_PER_PAGE
}

/// Returns how many rounds a test makes: `short`, scaled by `QUIC_ATTACK_ROUNDS` if it is set.
///
/// The variable says how many datagrams the floods send, which is 100,000 in their short form; all
/// tests grow with it.
///
/// # Panics
///
/// If the variable is no number.
pub fn rounds(short: usize) -> usize {
    match std::env::var("QUIC_ATTACK_ROUNDS") {
        Ok(rounds) => {
            let rounds: usize = rounds.parse().expect("QUIC_ATTACK_ROUNDS must be a number");
            (short * rounds / SHORT_FLOOD).max(1)
        }
        Err(_) => short,
    }
}

/// How many datagrams the floods send in their short form.
const SHORT_FLOOD: usize = 100_000;

/// Pages have 4 KiB on the systems that the tests run on.
const KIB_PER_PAGE: u64 = 4;
