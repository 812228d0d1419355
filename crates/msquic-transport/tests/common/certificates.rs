//! Certificates that every verification rejects.

use net_traits::{NetCredential, TrustPolicy};

/// Creates a credential whose certificate is valid from the first of January of the year `from`
/// until that of `until`, in DER modified by `damage`.
pub(crate) fn dated(from: i32, until: i32, damage: impl FnOnce(&mut [u8])) -> NetCredential {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
    let mut certificate = parameters.self_signed(&key).unwrap().der().to_vec();
    damage(&mut certificate);
    NetCredential::from_der(vec![certificate], key.serialize_der(), TrustPolicy::Any).unwrap()
}

pub(crate) fn expired() -> NetCredential {
    dated(2000, 2001, |_| {})
}

pub(crate) fn not_yet_valid() -> NetCredential {
    dated(3000, 3001, |_| {})
}

/// Its signature is wrong.
pub(crate) fn forged() -> NetCredential {
    dated(2000, 3000, |der| *der.last_mut().unwrap() ^= 1)
}
