//! Valid and invalid certificates and endorsements against every policy.
#![cfg(feature = "self-signed")]

use net_traits::{
    CertificateDer, Endorsement, EndorsementValidity, Endorser, Endorsers, EndorsingKey,
    IdentityKey, NetCredential, PeerIdentity, PeerVerifier, SelfSigned, TrustError, TrustPolicy,
    decode_endorsements, encode_endorsements,
};
use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn certificate(made: &SelfSigned) -> CertificateDer<'static> {
    made.credential(TrustPolicy::Any).unwrap().certificate_chain()[0].clone()
}

/// Creates a certificate with the endorsements that `endorse` returns for its key.
fn endorsed(endorse: impl FnOnce(&[u8]) -> Vec<Endorsement>) -> CertificateDer<'static> {
    let key = IdentityKey::generate().unwrap();
    let endorsements = endorse(&key.public_key_info());
    certificate(&key.self_sign(&["node"], &endorsements).unwrap())
}

fn trusting(keys: impl IntoIterator<Item = EndorsingKey>) -> TrustPolicy {
    TrustPolicy::endorsed_by(Endorsers::new(keys))
}

#[test]
fn each_policy_accepts_and_rejects() {
    let endorser = Endorser::generate().unwrap();
    let good = endorsed(|key| vec![endorser.endorse(key, EndorsementValidity::unlimited())]);
    let plain = certificate(&SelfSigned::generate(&["node"]).unwrap());
    let hash = |certificate| TrustPolicy::Any.verify(Some(certificate)).unwrap().hash;
    let keys = || Endorsers::new([endorser.key()]);

    for (policy, accepts_good, accepts_plain) in [
        (TrustPolicy::Any, true, true),
        (TrustPolicy::reject_all(), false, false),
        (TrustPolicy::default(), false, false),
        (TrustPolicy::hashes([hash(&plain)]), false, true),
        (TrustPolicy::endorsed_by(keys()), true, false),
        (TrustPolicy::endorsed_by(Endorsers::default()), false, false),
        (TrustPolicy::hashes_or_endorsed_by([hash(&plain)], keys()), true, true),
        (TrustPolicy::hashes_or_endorsed_by([], keys()), true, false),
        (TrustPolicy::hashes_or_endorsed_by([], Endorsers::default()), false, false),
    ] {
        assert_eq!(policy.verify(Some(&good)).is_ok(), accepts_good, "{policy:?}");
        assert_eq!(policy.verify(Some(&plain)).is_ok(), accepts_plain, "{policy:?}");
        assert_eq!(policy.verify(None), Err(TrustError::NoCertificate), "{policy:?}");
    }
}

#[test]
fn errors_name_the_peer_and_the_reason() {
    let endorser = Endorser::generate().unwrap();
    let good = endorsed(|key| vec![endorser.endorse(key, EndorsementValidity::unlimited())]);
    let error = trusting([]).verify(Some(&good)).unwrap_err().to_string();
    assert!(error.contains(&endorser.key().to_string()), "{error}");
    let plain = certificate(&SelfSigned::generate(&["node"]).unwrap());
    let error = trusting([endorser.key()]).verify(Some(&plain)).unwrap_err();
    assert!(error.to_string().ends_with("it has no endorsement"), "{error}");
    assert_eq!(error.identity(), Some(net_traits::CertHash::of(&plain)));
}

#[test]
fn an_endorsement_is_valid_within_its_period_only() {
    let endorser = Endorser::generate().unwrap();
    let now = SystemTime::now();
    let validity = EndorsementValidity { from: now - DAY, until: Some(now + DAY) };
    let certificate = endorsed(|key| vec![endorser.endorse(key, validity)]);
    let policy = trusting([endorser.key()]);
    for (time, counts) in [(now - 2 * DAY, false), (now, true), (now + 2 * DAY, false)] {
        let result = policy.verify_at(Some(&certificate), time);
        assert_eq!(result.is_ok(), counts, "{result:?}");
    }
    let forever = EndorsementValidity { from: now, until: None };
    let certificate = endorsed(|key| vec![endorser.endorse(key, forever)]);
    assert!(policy.verify_at(Some(&certificate), now + 10_000 * DAY).is_ok());
}

#[test]
fn endorsements_of_other_keys_are_ignored() {
    let endorser = Endorser::generate().unwrap();
    let other = IdentityKey::generate().unwrap().public_key_info();
    let stolen = endorsed(|_| vec![endorser.endorse(&other, EndorsementValidity::unlimited())]);
    let policy = trusting([endorser.key()]);
    assert!(matches!(policy.verify(Some(&stolen)), Err(TrustError::NotEndorsed { .. })));
    // One valid endorsement is enough, at any position, and each key is listed once.
    let mixed = endorsed(|key| {
        let good = endorser.endorse(key, EndorsementValidity::unlimited());
        let bad = endorser.endorse(&other, EndorsementValidity::unlimited());
        vec![bad, good.clone(), good]
    });
    let peer = policy.verify(Some(&mixed)).unwrap();
    assert_eq!(peer.endorsers, [endorser.key()]);
}

#[test]
fn only_signatures_by_keys_that_count_are_verified() {
    let endorsers: Vec<_> = (0..16).map(|_| Endorser::generate().unwrap()).collect();
    let unlimited = EndorsementValidity::unlimited;
    let all = endorsed(|key| endorsers.iter().map(|it| it.endorse(key, unlimited())).collect());
    let counted = endorsers[7].key();
    let verified = |policy: TrustPolicy| policy.verify(Some(&all)).unwrap().endorsers;
    let hash = net_traits::CertHash::of(&all);
    assert_eq!(verified(trusting([counted])), [counted]);
    assert_eq!(verified(TrustPolicy::custom(Counts(counted))), [counted]);
    for names_no_key in [TrustPolicy::Any, TrustPolicy::hashes([hash])] {
        assert_eq!(verified(names_no_key), []);
    }
    let keys = Endorsers::new([counted]);
    assert_eq!(verified(TrustPolicy::hashes_or_endorsed_by([], keys)), [counted]);
    let Err(TrustError::NotEndorsed { claimed, .. }) = trusting([]).verify(Some(&all)) else {
        panic!("it is endorsed");
    };
    assert_eq!(claimed.len(), 16);
}

/// Accepts every peer; only endorsements by one key count.
struct Counts(EndorsingKey);

impl PeerVerifier for Counts {
    fn verify(&self, _: &PeerIdentity, _: &CertificateDer<'_>) -> Result<(), String> {
        Ok(())
    }

    fn counts(&self, key: &EndorsingKey) -> bool {
        *key == self.0
    }
}

#[test]
fn a_certificate_with_forged_endorsements_costs_few_verifications() {
    let endorser = Endorser::generate().unwrap();
    let other = IdentityKey::generate().unwrap().public_key_info();
    for (forged, accepted) in [(1, true), (2, false), (15, false)] {
        let certificate = endorsed(|key| {
            let endorse = |key| endorser.endorse(key, EndorsementValidity::unlimited());
            (0..forged).map(|_| endorse(&other)).chain([endorse(key)]).collect()
        });
        let result = trusting([endorser.key()]).verify(Some(&certificate));
        assert_eq!(result.is_ok(), accepted, "{forged}: {result:?}");
    }
}

#[test]
fn an_unknown_certificate_is_not_verified() {
    // Its signature does not verify, but that is more expensive to check than whether it is
    // trusted.
    let mut bytes = certificate(&SelfSigned::generate(&["node"]).unwrap()).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let broken = CertificateDer::from(bytes);
    let hash = net_traits::CertHash::of(&broken);
    let verify = |policy: TrustPolicy| policy.verify(Some(&broken)).unwrap_err();
    assert_eq!(verify(TrustPolicy::reject_all()), TrustError::UntrustedIdentity(hash));
    assert!(matches!(verify(trusting([])), TrustError::NotEndorsed { .. }));
    assert_eq!(verify(TrustPolicy::hashes([hash])), TrustError::BadSignature { identity: hash });
}

#[test]
fn the_older_format_is_read_only_on_request() {
    let endorser = Endorser::generate().unwrap();
    let key = IdentityKey::generate().unwrap();
    let legacy = endorser.endorse_legacy(&key.public_key_info());
    let certificate = certificate(&key.self_sign_legacy(&["node"], &[], &[legacy]).unwrap());
    let endorsers = Endorsers::new([endorser.key()]);
    assert!(TrustPolicy::endorsed_by(endorsers.clone()).verify(Some(&certificate)).is_err());
    let with_legacy = TrustPolicy::endorsed_by(endorsers.with_legacy_format());
    assert_eq!(with_legacy.verify(Some(&certificate)).unwrap().endorsers, [endorser.key()]);
}

#[test]
fn a_certificate_may_have_both_formats() {
    let (old, new) = (Endorser::generate().unwrap(), Endorser::generate().unwrap());
    let key = IdentityKey::generate().unwrap();
    let info = key.public_key_info();
    let endorsement = new.endorse(&info, EndorsementValidity::unlimited());
    let made = key.self_sign_legacy(&["node"], &[endorsement], &[old.endorse_legacy(&info)]);
    let certificate = certificate(&made.unwrap());
    let both = Endorsers::new([old.key(), new.key()]);
    let endorsers = |policy: TrustPolicy| policy.verify(Some(&certificate)).unwrap().endorsers;
    assert_eq!(endorsers(TrustPolicy::endorsed_by(both.clone())), [new.key()]);
    assert_eq!(endorsers(TrustPolicy::endorsed_by(both.with_legacy_format())).len(), 2);
    let none = IdentityKey::generate().unwrap().self_sign_legacy(&["node"], &[], &[]);
    assert!(none.is_err());
}

#[test]
fn invalid_certificates_are_rejected_by_every_policy() {
    let good = certificate(&SelfSigned::generate(&["node"]).unwrap());
    let hash = net_traits::CertHash::of(&good);
    let policies = [TrustPolicy::Any, TrustPolicy::hashes([hash])];
    let now = SystemTime::now();
    for policy in &policies {
        // rcgen's certificates are valid from 1975 to 4096.
        let early = policy.verify_at(Some(&good), SystemTime::UNIX_EPOCH);
        assert!(matches!(early, Err(TrustError::NotYetValid { .. })), "{early:?}");
        let text = early.unwrap_err().to_string();
        assert!(text.ends_with("is not valid before 1975-01-01T00:00:00Z"), "{text}");
        let late = policy.verify_at(Some(&good), now + 365 * 3000 * DAY);
        assert!(matches!(late, Err(TrustError::Expired { .. })), "{late:?}");
    }
    // The last byte belongs to the signature.
    let mut damaged = good.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let damaged = TrustPolicy::Any.verify(Some(&damaged.into()));
    assert!(matches!(damaged, Err(TrustError::BadSignature { .. })), "{damaged:?}");
    for bytes in [&b""[..], b"certificate", &good[..good.len() - 1], &[&good[..], b"x"].concat()] {
        let cut = TrustPolicy::Any.verify(Some(&bytes.into()));
        assert!(matches!(cut, Err(TrustError::Malformed { .. })), "{cut:?}");
    }
}

#[test]
fn too_many_endorsements_are_rejected_on_both_sides() {
    let endorser = Endorser::generate().unwrap();
    let one = endorser.endorse(b"key", EndorsementValidity::unlimited());
    assert!(encode_endorsements(&[]).is_err());
    assert!(encode_endorsements(&vec![one.clone(); 17]).is_err());
    let most = encode_endorsements(&vec![one.clone(); 16]).unwrap();
    assert_eq!(decode_endorsements(&most).unwrap(), vec![one.clone(); 16]);
    // 17 endorsements, as another implementation may encode them.
    let single = encode_endorsements(&[one]).unwrap();
    let [0x30, length @ 0..0x80, entry @ ..] = &single[..] else { panic!("{single:02x?}") };
    assert_eq!(usize::from(*length), entry.len());
    let length = u16::try_from(17 * entry.len()).unwrap().to_be_bytes();
    let most = [&[0x30, 0x82][..], &length, &entry.repeat(17)].concat();
    assert!(decode_endorsements(&most).unwrap_err().contains("17 endorsements"));
}

#[test]
fn a_duration_beyond_the_clock_is_not_unlimited() {
    let validity = EndorsementValidity::for_duration(Duration::MAX);
    assert!(validity.until.unwrap() <= SystemTime::now());
}

#[test]
fn credentials_are_read_from_files() {
    let made = SelfSigned::generate(&["node"]).unwrap();
    let credential = made.credential(TrustPolicy::Any).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let pem = file("node.pem", made.to_pem().as_bytes());
    let from_pem = NetCredential::from_pem_file(&pem, TrustPolicy::Any).unwrap();
    let chain = [file("node.der", &credential.certificate_chain()[0])];
    let key = file("key.der", credential.private_key().secret_der());
    let from_der = NetCredential::from_der_files(&chain, &key, TrustPolicy::Any).unwrap();
    for read in [from_pem, from_der] {
        assert_eq!(read.identity(), credential.identity());
        assert_eq!(read.private_key(), credential.private_key());
    }
    let missing = folder.path().join("missing");
    let error = NetCredential::from_der_files(&chain, &missing, TrustPolicy::Any).unwrap_err();
    assert!(error.to_string().ends_with("missing"), "{error}");
    let cause: Option<&io::Error> = error.source().and_then(|cause| cause.downcast_ref());
    assert_eq!(cause.map(io::Error::kind), Some(io::ErrorKind::NotFound));
}

/// Rejects every peer.
struct Refuses;

impl PeerVerifier for Refuses {
    fn verify(&self, _: &PeerIdentity, _: &CertificateDer<'_>) -> Result<(), String> {
        Err("not on the list".to_owned())
    }
}

#[test]
fn the_application_can_verify_peers() {
    let good = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let error = TrustPolicy::custom(Refuses).verify(good.certificate_chain().first()).unwrap_err();
    assert!(error.to_string().contains("not on the list"), "{error}");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_endorsements_or_an_error(bytes: Vec<u8>) {
        if let Ok(endorsements) = decode_endorsements(&bytes) {
            proptest::prop_assert_eq!(encode_endorsements(&endorsements).unwrap(), bytes);
        }
    }

    #[test]
    fn damaged_endorsements_do_not_verify(position: usize, value: u8) {
        let endorser = Endorser::from_pkcs8(PKCS8).unwrap();
        let validity = EndorsementValidity { from: SystemTime::UNIX_EPOCH, until: None };
        let good = vec![endorser.endorse(b"key", validity); 2];
        let mut bytes = encode_endorsements(&good).unwrap();
        let position = position % bytes.len();
        proptest::prop_assume!(bytes[position] != value);
        bytes[position] = value;
        let all_valid = |all: Vec<Endorsement>| {
            all.iter().all(|it| it.is_valid(b"key", SystemTime::now()))
        };
        proptest::prop_assert!(!decode_endorsements(&bytes).is_ok_and(all_valid));
    }

    #[test]
    fn any_bytes_are_a_certificate_or_an_error(bytes: Vec<u8>) {
        proptest::prop_assert!(TrustPolicy::Any.verify(Some(&bytes.into())).is_err());
    }
}

/// The example key of RFC 8410, section 10.3.
const PKCS8: &[u8] = &[
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    0xd4, 0xee, 0x72, 0xdb, 0xf9, 0x13, 0x58, 0x4a, 0xd5, 0xb6, 0xd8, 0xf1, 0xf7, 0x69, 0xf8, 0xad,
    0x3a, 0xfe, 0x7c, 0x28, 0xcb, 0xf1, 0xd4, 0xfb, 0xe0, 0x97, 0xa8, 0x8f, 0x44, 0x75, 0x58, 0x42,
];

#[test]
fn the_encoding_is_as_documented() {
    let endorser = Endorser::from_pkcs8(PKCS8).unwrap();
    let validity = EndorsementValidity { from: SystemTime::UNIX_EPOCH, until: None };
    let encoded = encode_endorsements(&[endorser.endorse(b"key", validity)]).unwrap();
    let digits = data_encoding::HEXLOWER.encode(&encoded);
    assert_eq!(digits, include_str!("../testdata/endorsement.txt").replace('\n', ""));
}

#[test]
fn trust_ends_with_the_certificate_or_with_the_endorsement_it_depends_on() {
    let endorser = Endorser::generate().unwrap();
    let now = SystemTime::now();
    let validity = |end| EndorsementValidity { from: now - DAY, until: Some(now + end) };
    // The endorsement that ends last counts, at any position.
    let good = endorsed(|key| {
        [DAY, 3 * DAY, 2 * DAY].map(|end| endorser.endorse(key, validity(end))).to_vec()
    });
    let hash = TrustPolicy::Any.verify(Some(&good)).unwrap().hash;
    let keys = || Endorsers::new([endorser.key()]);
    let days = |policy: &TrustPolicy| {
        let peer = policy.verify(Some(&good)).unwrap();
        let end = peer.trusted_until.unwrap().duration_since(now).unwrap();
        (end.as_secs_f64() / DAY.as_secs_f64()).round() as u64
    };
    let of_certificate = days(&TrustPolicy::Any);
    assert!(of_certificate > 365);
    for (policy, expected) in [
        (TrustPolicy::hashes([hash]), of_certificate),
        (TrustPolicy::hashes_or_endorsed_by([hash], keys()), of_certificate),
        (TrustPolicy::hashes_or_endorsed_by([], keys()), 3),
        (trusting([endorser.key()]), 3),
        (trusting([endorser.key()]).at_handshake(), 3),
        (TrustPolicy::custom(Accepting { counts: true }), 3),
        (TrustPolicy::custom(Accepting { counts: false }), of_certificate),
    ] {
        assert_eq!(days(&policy), expected, "{policy:?}");
        let peer = policy.verify(Some(&good)).unwrap();
        assert_eq!(peer.stays_connected, matches!(policy, TrustPolicy::AtHandshake(_)));
        assert_eq!(policy.still_trusts(&peer, Some(&good)), Ok(()));
        let rejected = TrustPolicy::reject_all().still_trusts(&peer, Some(&good));
        assert_eq!(rejected, Err(TrustError::UntrustedIdentity(hash)));
        let rejected = trusting([]).still_trusts(&peer, Some(&good));
        assert!(matches!(rejected, Err(TrustError::NotEndorsed { .. })), "{rejected:?}");
    }
}

#[test]
fn an_earlier_verification_applies_to_its_own_certificate_only() {
    let (one, other) = (
        certificate(&SelfSigned::generate(&["node"]).unwrap()),
        certificate(&SelfSigned::generate(&["node"]).unwrap()),
    );
    let peer = TrustPolicy::Any.verify(Some(&one)).unwrap();
    let mut forged = other.to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1; // the signature
    let forged = CertificateDer::from(forged);
    let rejected = TrustPolicy::Any.still_trusts(&peer, Some(&forged));
    assert!(rejected.is_err(), "the forged self-signature was accepted");
}

struct Accepting {
    counts: bool,
}

impl PeerVerifier for Accepting {
    fn verify(&self, _: &PeerIdentity, _: &CertificateDer<'_>) -> Result<(), String> {
        Ok(())
    }

    fn counts(&self, _: &EndorsingKey) -> bool {
        self.counts
    }
}
