//! Endorsements: Ed25519 signatures that vouch for the key of a certificate, carried inside it.
//!
//! A peer that trusts an endorsing key accepts every certificate with a valid endorsement by that
//! key. It does not need to know the certificate's hash. `docs/wire-protocol.md` specifies the
//! format.

use crate::certificate_check::{DatedCertificate, unix_seconds};
use crate::endorsing_key::{EndorsingKey, KEY};
use crate::{Cause, CredentialError, TrustError, signatures};
use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode, Sequence};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use std::cmp::Reverse;
use std::fmt;
use std::time::{Duration, SystemTime};
use zeroize::{Zeroize, Zeroizing};

/// The X.509 extension that carries endorsements.
///
/// The arc is the enterprise number for documentation (RFC 5612). A deployment with a registered
/// arc changes this constant.
pub const ENDORSEMENT_OID: &str = "1.3.6.1.4.1.32473.1.1";

/// The extension of the older format: 32 bytes of key and 64 bytes of signature over the bare
/// SubjectPublicKeyInfo, repeated.
pub const LEGACY_ENDORSEMENT_OID: &str = "1.2.3.4.5.6";

/// How many endorsements a certificate may carry. Each costs the verifier one signature check.
pub const MAX_ENDORSEMENTS: usize = 16;

/// After so many signatures that do not verify, the other endorsements of a certificate are
/// ignored. A correctly issued certificate has none.
const MAX_BAD_SIGNATURES: usize = 2;

/// Prefix of the signed bytes, so that the signature is not valid in another protocol.
const DOMAIN: &[u8] = b"net-traits endorsement v1\0";

const SIGNATURE: usize = 64;

/// The period in which an endorsement is valid, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndorsementValidity {
    /// The first moment of validity.
    pub from: SystemTime,
    /// The last moment of validity; `None` for no limit.
    pub until: Option<SystemTime>,
}

impl EndorsementValidity {
    /// Valid from [`CLOCK_SKEW`](Self::CLOCK_SKEW) ago until `duration` from now.
    pub fn for_duration(duration: Duration) -> Self {
        let now = SystemTime::now();
        // An end that `SystemTime` cannot represent means: expired now, not unlimited.
        let until = now.checked_add(duration).unwrap_or(now);
        Self { until: Some(until), ..Self::unlimited() }
    }

    /// Valid from [`CLOCK_SKEW`](Self::CLOCK_SKEW) ago, without an end.
    pub fn unlimited() -> Self {
        Self { from: SystemTime::now() - Self::CLOCK_SKEW, until: None }
    }

    /// How far a peer's clock may be behind the endorser's: 5 minutes.
    pub const CLOCK_SKEW: Duration = Duration::from_secs(300);
}

/// A signature by an endorsing key over the key of a certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Endorsement {
    key: EndorsingKey,
    /// Seconds since the Unix epoch.
    from: u64,
    until: Option<u64>,
    signature: [u8; SIGNATURE],
}

impl Endorsement {
    /// Returns the endorsing key.
    pub fn key(&self) -> EndorsingKey {
        self.key
    }

    /// Returns whether the endorsement is valid at `now` for the key `public_key_info`
    /// (SubjectPublicKeyInfo, DER).
    pub fn is_valid(&self, public_key_info: &[u8], now: SystemTime) -> bool {
        self.is_in_time(now) && self.is_signed(public_key_info)
    }

    fn is_in_time(&self, now: SystemTime) -> bool {
        (self.from..=self.until.unwrap_or(u64::MAX)).contains(&unix_seconds(now))
    }

    fn is_signed(&self, public_key_info: &[u8]) -> bool {
        let signed = signed_bytes(self.from, self.until, public_key_info);
        signatures::is_valid(&ED25519, self.key.as_bytes(), &signed, &self.signature)
    }
}

impl fmt::Debug for Endorsement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endorsement")
            .field("key", &self.key)
            .field("from", &self.from)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

fn signed_bytes(from: u64, until: Option<u64>, public_key_info: &[u8]) -> Vec<u8> {
    let until = until.unwrap_or(u64::MAX);
    [DOMAIN, &from.to_be_bytes(), &until.to_be_bytes(), public_key_info].concat()
}

/// An Ed25519 key that endorses certificates.
///
/// `Debug` shows the public half only. The PKCS#8 form is erased from memory on drop; ring's
/// internal copy of the key is not.
pub struct Endorser {
    pair: Ed25519KeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl Endorser {
    /// Generates a key.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Unusable`] if the system's random source fails.
    pub fn generate() -> Result<Self, CredentialError> {
        let failed = |_| CredentialError::Unusable(Cause::new("the system's random source failed"));
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(failed)?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// Parses a key in PKCS#8 form, DER.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Unusable`] if it is not an Ed25519 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, CredentialError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|error| {
            CredentialError::Unusable(Cause::new(format!("not an Ed25519 key: {error}")))
        })?;
        Ok(Self { pair, pkcs8: Zeroizing::new(der.to_vec()) })
    }

    /// Parses a key in PKCS#8 form, PEM (`openssl genpkey -algorithm ed25519`).
    ///
    /// # Errors
    ///
    /// [`CredentialError`] if it is not PEM or not an Ed25519 key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CredentialError> {
        let mut der = PrivatePkcs8KeyDer::from_pem_slice(pem)
            .map_err(|error| CredentialError::Pem(Cause::new(error)))?;
        let endorser = Self::from_pkcs8(der.secret_pkcs8_der());
        der.zeroize();
        endorser
    }

    /// Returns the private key in PKCS#8 form, DER. Store it where only its owner can read it.
    pub fn secret_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Returns the public half, for the trust policies of peers.
    pub fn key(&self) -> EndorsingKey {
        let mut key = [0; KEY];
        key.copy_from_slice(self.pair.public_key().as_ref());
        EndorsingKey::from_bytes(key)
    }

    /// Endorses the key `public_key_info` (SubjectPublicKeyInfo, DER).
    pub fn endorse(&self, public_key_info: &[u8], validity: EndorsementValidity) -> Endorsement {
        let from = unix_seconds(validity.from);
        let until = validity.until.map(unix_seconds);
        let signed = self.pair.sign(&signed_bytes(from, until, public_key_info));
        let mut signature = [0; SIGNATURE];
        signature.copy_from_slice(signed.as_ref());
        Endorsement { key: self.key(), from, until, signature }
    }

    /// Endorses in the [older format](LEGACY_ENDORSEMENT_OID): 96 bytes, without a validity period.
    pub fn endorse_legacy(&self, public_key_info: &[u8]) -> Vec<u8> {
        let signature = self.pair.sign(public_key_info);
        [&self.key().as_bytes()[..], signature.as_ref()].concat()
    }
}

impl fmt::Debug for Endorser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endorser").field("key", &self.key()).finish_non_exhaustive()
    }
}

/// The ASN.1 form of an endorsement.
#[derive(Sequence)]
struct Encoded<'a> {
    key: &'a OctetStringRef,
    from: u64,
    #[asn1(context_specific = "0", optional = "true", tag_mode = "EXPLICIT")]
    until: Option<u64>,
    signature: &'a OctetStringRef,
}

/// Encodes `endorsements` as the content of the extension [`ENDORSEMENT_OID`], in DER.
///
/// # Errors
///
/// [`CredentialError::Unusable`] if there are none or more than [`MAX_ENDORSEMENTS`].
pub fn encode_endorsements(endorsements: &[Endorsement]) -> Result<Vec<u8>, CredentialError> {
    if endorsements.is_empty() || endorsements.len() > MAX_ENDORSEMENTS {
        let count = endorsements.len();
        let what = format!("{count} endorsements: give 1 to {MAX_ENDORSEMENTS}");
        return Err(CredentialError::Unusable(Cause::new(what)));
    }
    let encode = |endorsement: &Endorsement| {
        Encoded {
            key: OctetStringRef::new(endorsement.key.as_bytes())?,
            from: endorsement.from,
            until: endorsement.until,
            signature: OctetStringRef::new(&endorsement.signature)?,
        }
        .to_der()
    };
    let failed = |error: der::Error| CredentialError::Unusable(Cause::new(error));
    let all: Vec<_> = endorsements.iter().map(encode).collect::<Result<_, _>>().map_err(failed)?;
    let content = all.concat();
    let header =
        der::Header::new(der::Tag::Sequence, der::Length::try_from(content.len()).map_err(failed)?);
    let mut der = header.to_der().map_err(failed)?;
    der.extend(content);
    Ok(der)
}

/// Decodes the output of [`encode_endorsements`]. Signatures are not verified.
///
/// # Errors
///
/// A description of the fault.
pub fn decode_endorsements(der: &[u8]) -> Result<Vec<Endorsement>, String> {
    let all = Vec::<Encoded<'_>>::from_der(der).map_err(|error| error.to_string())?;
    if all.is_empty() || all.len() > MAX_ENDORSEMENTS {
        return Err(format!("{} endorsements: 1 to {MAX_ENDORSEMENTS} are allowed", all.len()));
    }
    let decode = |encoded: &Encoded<'_>| {
        let key = encoded.key.as_bytes().try_into();
        let signature = encoded.signature.as_bytes().try_into();
        Ok(Endorsement {
            key: EndorsingKey::from_bytes(key.map_err(|_| "a key does not have 32 bytes")?),
            from: encoded.from,
            until: encoded.until,
            signature: signature.map_err(|_| "a signature does not have 64 bytes")?,
        })
    };
    all.iter().map(decode).collect()
}

/// Returns the keys whose endorsement of `certificate` is valid at `now`, each once, and when the
/// last of these endorsements expires.
///
/// Only signatures by keys that `counts` accepts are verified, and none after
/// [`MAX_BAD_SIGNATURES`] that do not verify: the peer chooses how many there are, and each
/// verification costs time.
pub(crate) fn endorsers(
    certificate: &DatedCertificate<'_>,
    now: SystemTime,
    with_legacy: bool,
    counts: impl Fn(&EndorsingKey) -> bool,
) -> Result<(Vec<EndorsingKey>, Option<SystemTime>), TrustError> {
    let key_info = &certificate.public_key_info;
    let (mut keys, mut bad, mut last) = (Vec::new(), 0, 0);
    let mut check = |key: EndorsingKey, until: Option<u64>, is_signed: &dyn Fn() -> bool| {
        if bad < MAX_BAD_SIGNATURES && !keys.contains(&key) && counts(&key) {
            if is_signed() {
                keys.push(key);
                last = last.max(until.unwrap_or(u64::MAX));
            } else {
                bad += 1;
            }
        }
    };
    let mut endorsements = certificate.endorsements()?;
    // The endorsement of each key that expires last is checked first.
    endorsements.sort_by_key(|endorsement| Reverse(endorsement.until.unwrap_or(u64::MAX)));
    for endorsement in endorsements {
        if endorsement.is_in_time(now) {
            check(endorsement.key, endorsement.until, &|| endorsement.is_signed(key_info));
        }
    }
    for (key, signature) in if with_legacy { certificate.legacy_endorsements()? } else { vec![] } {
        let is_signed = || signatures::is_valid(&ED25519, key.as_bytes(), key_info, &signature);
        check(key, None, &is_signed);
    }
    keys.sort_unstable();
    // The endorsement is valid during its last second.
    let last = Duration::from_secs(last).checked_add(Duration::from_secs(1));
    Ok((keys, last.and_then(|last| SystemTime::UNIX_EPOCH.checked_add(last))))
}

/// Returns the keys that `certificate` names as its endorsers. Nothing is verified.
pub(crate) fn claimed(
    certificate: &DatedCertificate<'_>,
    with_legacy: bool,
) -> Result<Vec<EndorsingKey>, TrustError> {
    let mut keys: Vec<_> = certificate.endorsements()?.iter().map(Endorsement::key).collect();
    if with_legacy {
        keys.extend(certificate.legacy_endorsements()?.into_iter().map(|(key, _)| key));
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

impl DatedCertificate<'_> {
    fn endorsements(&self) -> Result<Vec<Endorsement>, TrustError> {
        match self.extension(ObjectIdentifier::new_unwrap(ENDORSEMENT_OID))? {
            Some(der) => decode_endorsements(der).map_err(|what| self.malformed(&what)),
            None => Ok(Vec::new()),
        }
    }

    fn legacy_endorsements(&self) -> Result<Vec<(EndorsingKey, [u8; SIGNATURE])>, TrustError> {
        let oid = ObjectIdentifier::new_unwrap(LEGACY_ENDORSEMENT_OID);
        let content = self.extension(oid)?.unwrap_or_default();
        let (pairs, rest) = content.as_chunks::<{ KEY + SIGNATURE }>();
        if !rest.is_empty() || pairs.len() > MAX_ENDORSEMENTS {
            return Err(self.malformed(&format!("{} bytes in the older format", content.len())));
        }
        let split = |pair: &[u8; KEY + SIGNATURE]| {
            let (key, signature) = pair.split_first_chunk()?;
            Some((EndorsingKey::from_bytes(*key), signature.try_into().ok()?))
        };
        Ok(pairs.iter().filter_map(split).collect())
    }

    fn malformed(&self, what: &str) -> TrustError {
        let cause = Cause::new(format!("its endorsements are invalid: {what}"));
        TrustError::Malformed { identity: self.identity, cause }
    }
}
