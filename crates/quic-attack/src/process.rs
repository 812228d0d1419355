//! Memory use of this process, and the number of test rounds.

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

/// Returns the number of rounds of a test: `short`, scaled by `QUIC_ATTACK_ROUNDS` if it is set.
///
/// The variable sets the number of datagrams per flood (default 100,000); all tests grow in
/// proportion.
///
/// # Panics
///
/// If the variable is not a number.
pub fn rounds(short: usize) -> usize {
    match std::env::var("QUIC_ATTACK_ROUNDS") {
        Ok(rounds) => {
            let rounds: usize = rounds.parse().expect("QUIC_ATTACK_ROUNDS must be a number");
            (short * rounds / SHORT_FLOOD).max(1)
        }
        Err(_) => short,
    }
}

/// The number of datagrams per flood by default.
const SHORT_FLOOD: usize = 100_000;

/// Pages have 4 KiB on the tested systems.
const KIB_PER_PAGE: u64 = 4;
