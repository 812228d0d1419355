//! Which keys and which validity periods certificates may have, and how verifiers may fail.
//!
//! The certificates of `certificates/` are valid until 2126. They were made with
//! `openssl req -x509`.
#![cfg(feature = "self-signed")]

use net_traits::{
    CertificateDer, EndorsingKey, NetCredential, PeerIdentity, PeerVerifier, TrustError,
    TrustPolicy,
};
use rustls_pki_types::pem::PemObject;
use std::time::{Duration, SystemTime};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn verify(pem: &str) -> Result<PeerIdentity, TrustError> {
    TrustPolicy::Any.verify(Some(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()))
}

#[test]
fn unsupported_keys_are_reported() {
    for (pem, names) in [
        (include_str!("certificates/p521.pem"), ["P-521", "1.3.132.0.35"]),
        (include_str!("certificates/secp256k1.pem"), ["secp256k1", "1.3.132.0.10"]),
        (include_str!("certificates/explicit.pem"), ["unnamed curve", "1.2.840.10045.2.1"]),
        (include_str!("certificates/rsa1024.pem"), ["RSA of 1024 bits", "1.2.840.113549.1.1.1"]),
        (include_str!("certificates/ed448.pem"), ["", "1.3.101.113"]),
    ] {
        match verify(pem) {
            Err(error @ TrustError::Unsupported { .. }) => {
                let text = error.to_string();
                assert!(names.iter().all(|name| text.contains(name)), "{text}");
                assert_eq!(error.tls_alert(), 43);
            }
            other => panic!("{names:?}: {other:?}"),
        }
    }
    verify(include_str!("certificates/p384.pem")).unwrap();
}

/// Creates a certificate that is valid in these years.
fn valid(from: i32, until: i32) -> CertificateDer<'static> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["node".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(until, 12, 31);
    parameters.self_signed(&key).unwrap().der().clone()
}

#[test]
fn certificates_of_any_year_are_verified() {
    let now = SystemTime::now();
    for (from, until) in
        [(1, 9999), (1950, 2049), (1969, 2050), (1970, 2051), (1949, 2999), (2000, 9999)]
    {
        TrustPolicy::Any.verify_at(Some(&valid(from, until)), now).unwrap();
    }
    for (from, until, shown) in
        [(1, 2, "0002-12-31T"), (1949, 1951, "1951-12-31T"), (1960, 1969, "1969-12-31T")]
    {
        let error = TrustPolicy::Any.verify_at(Some(&valid(from, until)), now).unwrap_err();
        assert!(matches!(error, TrustError::Expired { .. }), "{error}");
        assert!(error.to_string().contains(&format!("expired at {shown}00:00:00Z")), "{error}");
    }
    let certificate = valid(1960, 1969);
    let then = |years: u32| SystemTime::UNIX_EPOCH - years * YEAR;
    TrustPolicy::Any.verify_at(Some(&certificate), then(5)).unwrap();
    let early = TrustPolicy::Any.verify_at(Some(&certificate), then(20)).unwrap_err();
    assert!(early.to_string().ends_with("is not valid before 1960-01-01T00:00:00Z"), "{early}");
    let late = TrustPolicy::Any.verify_at(Some(&valid(9998, 9999)), now).unwrap_err();
    assert!(late.to_string().ends_with("is not valid before 9998-01-01T00:00:00Z"), "{late}");
}

#[test]
fn certificates_with_impossible_times_are_malformed() {
    let good = valid(2000, 2050).to_vec();
    let find = |text: &[u8]| good.windows(text.len()).position(|it| it == text).unwrap();
    let from = find(b"000101000000Z");
    for (place, text) in [
        (from, &b"000132"[..]),
        (from, b"001301"),
        (from, b"010229"),
        (from, b"0001012460"),
        (from, b"0x0101"),
        (from, b"-10101"),
        (from, b"000101000000+"),
        (find(b"20501231000000Z"), b"20501232"),
    ] {
        let mut bad = good.clone();
        bad[place..place + text.len()].copy_from_slice(text);
        let error = TrustPolicy::Any.verify(Some(&bad.into())).unwrap_err();
        assert!(matches!(error, TrustError::Malformed { .. }), "{text:?}: {error}");
    }
}

/// Panics in one of its methods.
struct Panics(&'static str);

impl Panics {
    fn at(&self, method: &'static str) {
        assert!(self.0 != method, "no answer from the {method} of {} nodes", 7);
    }
}

impl PeerVerifier for Panics {
    fn verify(&self, _: &PeerIdentity, _: &CertificateDer<'_>) -> Result<(), String> {
        self.at("verify");
        Ok(())
    }

    fn reads_legacy_endorsements(&self) -> bool {
        self.at("reads_legacy_endorsements");
        false
    }

    fn counts(&self, _: &EndorsingKey) -> bool {
        true
    }
}

#[test]
fn a_verifier_that_panics_rejects() {
    let peer = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let verify =
        |panics| TrustPolicy::custom(Panics(panics)).verify(peer.certificate_chain().first());
    verify("").unwrap();
    for method in ["verify", "reads_legacy_endorsements"] {
        let error = verify(method).unwrap_err();
        assert_eq!(error.identity(), Some(peer.identity()));
        assert_eq!(error.tls_alert(), 49);
        let what = format!("no answer from the {method} of 7 nodes");
        assert_eq!(error, TrustError::VerifierPanicked { identity: peer.identity(), what });
    }
}
