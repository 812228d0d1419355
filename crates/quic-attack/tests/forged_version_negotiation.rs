//! A Version Negotiation packet whose source connection ID is not the one that the client chose, or
//! whose list is broken, does not end an attempt.
//!
//! Guards fault U10: msquic 2.5.1 does not check the source connection ID, so an off-path attacker
//! can end attempts.

mod common;

use common::{Dial, TIMEOUT, host};
use msquic_async::ConnectionStartError;
use quic_attack::packet::version_negotiation;
use quic_attack::{First, Policy};

/// Reserved to be never supported (RFC 9000, section 15).
const OTHER_VERSION: u32 = 0x1a2a_3a4a;

#[test]
fn another_source_id_is_ignored() {
    let wrong = [0x55; 8];
    let forge = |first: &First| vec![version_negotiation(&first.src, &wrong, &[OTHER_VERSION])];
    attempt(forge, false).unwrap();
}

#[test]
fn an_empty_source_id_is_ignored() {
    let forge = |first: &First| vec![version_negotiation(&first.src, &[], &[OTHER_VERSION])];
    attempt(forge, false).unwrap();
}

#[test]
fn a_longer_or_shorter_source_id_is_ignored() {
    let forge = |first: &First| {
        let longer = [&first.dst[..], &[0]].concat();
        let shorter = &first.dst[..first.dst.len() - 1];
        let forge = |src| version_negotiation(&first.src, src, &[OTHER_VERSION]);
        vec![forge(&longer), forge(shorter)]
    };
    attempt(forge, false).unwrap();
}

#[test]
fn a_list_with_the_version_of_the_client_is_ignored() {
    let forge =
        |first: &First| vec![version_negotiation(&first.src, &first.dst, &[OTHER_VERSION, 1])];
    attempt(forge, false).unwrap();
}

#[test]
fn a_cut_packet_is_ignored() {
    let forge = |first: &First| {
        let whole = version_negotiation(&first.src, &[0x55; 8], &[OTHER_VERSION]);
        (1..whole.len()).map(|length| whole[..length].to_vec()).collect()
    };
    attempt(forge, false).unwrap();
}

/// Shows that the tests above can fail, and that a forged packet does not block the genuine one.
#[test]
fn the_right_packet_ends_the_attempt_also_after_a_forged_one() {
    let forge = |first: &First| {
        let wrong = version_negotiation(&first.src, &[0x55; 8], &[OTHER_VERSION, 1]);
        vec![wrong, version_negotiation(&first.src, &first.dst, &[OTHER_VERSION])]
    };
    let result = attempt(forge, true);
    assert!(matches!(result, Err(ConnectionStartError::ConnectionLost(_))), "{result:?}");
}

/// Answers the first packet of an msquic client with the packet of `forge`; if the attempt
/// continues, serves it.
fn attempt(
    forge: impl FnOnce(&First) -> Vec<Vec<u8>>,
    ends: bool,
) -> Result<(), ConnectionStartError> {
    let host = host();
    let dial = Dial::start(host.local_addr().unwrap());
    let first = host.first(TIMEOUT).unwrap();
    for packet in forge(&first) {
        host.send(first.remote, &packet).unwrap();
    }
    if !ends {
        let mut peer = host.begin(&first, Policy::default()).unwrap();
        // The client's error is more precise.
        let _ = peer.handshake(TIMEOUT);
    }
    dial.finish().1
}
