//! Certificates of peers, made from a valid one by changing bytes: each policy accepts or rejects them, and an
//! endorsement counts only with the key that it covers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net_traits::{CertificateDer, Endorsers, EndorsingKey, TrustPolicy};
use std::time::{Duration, SystemTime};

/// A self-signed certificate with an endorsement without an end.
const ENDORSED: &[u8] = include_bytes!("../endorsed.der");

/// The key that endorsed it.
const KEY: &str = "85a117292ca1307edfc4bb884728e36d2484d025363f5e32740f7b6fe3731996";

/// Its SubjectPublicKeyInfo, which the endorsement covers.
const KEY_INFO: &[u8] = ENDORSED.split_at(129).1.split_at(91).0;

/// A time at which it is valid, in seconds since 1970.
const NOW: u64 = 1795736881;

fuzz_target!(|changes: Vec<(u16, u8)>| {
    let mut bytes = ENDORSED.to_vec();
    for (at, xor) in &changes {
        match bytes.get_mut(usize::from(*at)) {
            Some(byte) => *byte ^= xor,
            None => bytes.push(*xor),
        }
    }
    let is_valid = bytes == ENDORSED;
    let certificate = CertificateDer::from(bytes);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let verify = |policy: TrustPolicy| policy.verify_at(Some(&certificate), now);
    let key: EndorsingKey = KEY.parse().expect("it is a key");
    let any = verify(TrustPolicy::Any);
    let endorsed = verify(TrustPolicy::endorsed_by(Endorsers::new([key])));
    // With another issuer, the certificate is not self-signed, and may have other content.
    assert!(!is_valid || (any.is_ok() && endorsed.is_ok()), "{any:?}, {endorsed:?}");
    assert!(endorsed.is_err() || certificate.windows(KEY_INFO.len()).any(|it| it == KEY_INFO));
    assert!(verify(TrustPolicy::reject_all()).is_err());
    if let Ok(peer) = any {
        let known = verify(TrustPolicy::hashes([peer.hash]));
        assert_eq!(known.map(|it| it.hash), Ok(peer.hash));
    }
});
