//! The form of X.509 certificates (RFC 5280, section 4.1).
//!
//! The types of `x509-cert` cannot represent times before 1970.

use der::asn1::{AnyRef, BitString};
use der::{DateTime, Sequence, Tag, Tagged};
use std::time::{Duration, SystemTime};
use x509_cert::certificate::Version;
use x509_cert::ext::Extensions;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

#[derive(Sequence)]
pub(crate) struct Certificate<'a> {
    pub(crate) content: Content<'a>,
    pub(crate) signature_algorithm: AlgorithmIdentifierOwned,
    pub(crate) signature: BitString,
}

/// `TBSCertificate`.
#[derive(Sequence)]
pub(crate) struct Content<'a> {
    #[asn1(context_specific = "0", default = "Default::default")]
    version: Version,
    serial_number: SerialNumber,
    pub(crate) signature: AlgorithmIdentifierOwned,
    pub(crate) issuer: Name,
    pub(crate) validity: Validity<'a>,
    pub(crate) subject: Name,
    pub(crate) public_key: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    issuer_unique_id: Option<BitString>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    subject_unique_id: Option<BitString>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    pub(crate) extensions: Option<Extensions>,
}

#[derive(Sequence)]
pub(crate) struct Validity<'a> {
    not_before: AnyRef<'a>,
    not_after: AnyRef<'a>,
}

impl Validity<'_> {
    /// Returns the first and the last moment of validity.
    pub(crate) fn moments(&self) -> der::Result<(SystemTime, SystemTime)> {
        Ok((moment(&self.not_before)?, moment(&self.not_after)?))
    }
}

/// The years after which the Gregorian calendar repeats.
const CYCLE_YEARS: u16 = 400;

/// The duration of these years.
const CYCLE: Duration = Duration::from_secs(146_097 * 24 * 3600);

/// By how many cycles a time before 1970 is moved to calculate it, since [`DateTime`] begins with
/// 1970.
const CYCLES: u16 = 5;

/// Converts `UTCTime` (1950 to 2049) and `GeneralizedTime` in the form of DER (RFC 5280, section
/// 4.1.2.5).
fn moment(time: &AnyRef<'_>) -> der::Result<SystemTime> {
    let invalid = || time.tag().value_error();
    let (year_digits, text) = match time.tag() {
        Tag::UtcTime => (2, time.value()),
        Tag::GeneralizedTime => (4, time.value()),
        _ => return Err(invalid().into()),
    };
    let digits = text.strip_suffix(b"Z").filter(|it| it.len() == year_digits + 10);
    let digits = digits.filter(|it| it.iter().all(u8::is_ascii_digit)).ok_or_else(invalid)?;
    let (year, rest) = digits.split_at(year_digits);
    let number = |digits: &[u8]| digits.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0'));
    let year = match (time.tag(), number(year)) {
        (Tag::UtcTime, year @ ..50) => 2000 + year,
        (Tag::UtcTime, year) => 1900 + year,
        (_, year) => year,
    };
    let mut rest = rest.chunks(2).map(|pair| number(pair) as u8); // below 100
    let mut next = || rest.next().unwrap_or_default();
    let later = if year < 1970 { CYCLES } else { 0 };
    let year = year + later * CYCLE_YEARS;
    let time = DateTime::new(year, next(), next(), next(), next(), next())?;
    let since = SystemTime::UNIX_EPOCH + time.unix_duration();
    Ok(since.checked_sub(CYCLE * later.into()).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Returns the date and time in UTC, and the year. Before 1970 the `DateTime` has a later year, and
/// all other fields are the same.
pub(crate) fn date_time(time: SystemTime) -> Option<(DateTime, u16)> {
    if let Ok(time) = DateTime::from_system_time(time) {
        return Some((time, time.year()));
    }
    let later = DateTime::from_system_time(time.checked_add(CYCLE * CYCLES.into())?).ok()?;
    Some((later, later.year().checked_sub(CYCLES * CYCLE_YEARS)?))
}
