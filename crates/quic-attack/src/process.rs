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

/// Returns how many rounds a test makes: `QUIC_ATTACK_ROUNDS` if it is set, else `short`.
///
/// # Panics
///
/// If the variable is no number.
pub fn rounds(short: usize) -> usize {
    match std::env::var("QUIC_ATTACK_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("QUIC_ATTACK_ROUNDS must be a number"),
        Err(_) => short,
    }
}

/// Pages have 4 KiB on the systems that the tests run on.
const KIB_PER_PAGE: u64 = 4;
