//! Names of causes for the fields and labels `cause` and `detail`: a small fixed set. Pure.

use net_traits::{
    CloseReason, ConnectError, Limit, RecvError, Rejection, RejectionBy, TrustError, close_code,
};

/// The cause of an attempt whose future or request was dropped.
pub(super) const CANCELED: &str = "canceled";

/// The cause of a connection whose task was dropped before its end, for instance with its runtime.
pub(super) const ABANDONED: &str = "abandoned";

/// Returns the cause of a failed attempt, and a detail, which may be empty.
pub(super) fn of_failure(error: &ConnectError) -> (&'static str, &'static str) {
    match error {
        ConnectError::InvalidInput(_) => ("invalid_input", ""),
        ConnectError::Credential(_) => ("credential", ""),
        ConnectError::TimedOut { .. } => ("timed_out", ""),
        ConnectError::Refused(_) => ("refused", ""),
        ConnectError::NoCommonAlpn { .. } => ("no_common_alpn", ""),
        ConnectError::Rejected(rejection) => (of_side(rejection), of_rejection(rejection)),
        ConnectError::Closed(reason) => ("closed", of_close(reason)),
        ConnectError::BothFailed { specific, .. } => of_failure(specific),
        _ => ("other", ""),
    }
}

/// Returns whether the attempt of a peer failed because it reached a limit.
pub(super) fn is_limit(error: &ConnectError) -> bool {
    match error {
        ConnectError::TimedOut { .. } => true,
        ConnectError::Closed(reason @ CloseReason::Local { .. }) => of_close(reason) == "limit",
        _ => false,
    }
}

/// Returns why a connection ended.
pub(super) fn of_close(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::Local { code, .. } => match *code {
            close_code::REVOKED => "revoked",
            close_code::TRUST_ENDED => "trust_ended",
            close_code::SHUTDOWN => "shutdown",
            close_code::DUPLICATE => "duplicate",
            close_code::TOO_MANY_VIOLATIONS => "violations",
            code if Limit::of_code(code).is_some() => "limit",
            _ => "local",
        },
        CloseReason::Peer { .. } => "peer",
        CloseReason::Rejected(rejection) => of_side(rejection),
        CloseReason::TimedOut => "timed_out",
        CloseReason::ProtocolViolation(_) => "protocol_violation",
        CloseReason::Transport(_) => "transport",
        _ => "other",
    }
}

/// Returns why a message was not received.
pub(super) fn of_receive(error: &RecvError) -> &'static str {
    match error {
        RecvError::TooLarge { .. } => "too_large",
        RecvError::Truncated { .. } => "truncated",
        RecvError::Reset { .. } => "reset",
        RecvError::Closed(reason) => of_close(reason),
        _ => "other",
    }
}

fn of_side(rejection: &Rejection) -> &'static str {
    match rejection.by {
        RejectionBy::Us => "rejected_by_us",
        _ => "rejected_by_peer",
    }
}

/// Returns what was wrong with a certificate: the error of the local policy, or the peer's alert.
fn of_rejection(rejection: &Rejection) -> &'static str {
    match rejection.cause.as_deref() {
        Some(TrustError::NoCertificate) => "no_certificate",
        Some(TrustError::Malformed { .. }) => "malformed",
        Some(TrustError::NotYetValid { .. }) => "not_yet_valid",
        Some(TrustError::Expired { .. }) => "expired",
        Some(TrustError::BadSignature { .. }) => "bad_signature",
        Some(TrustError::Unsupported { .. }) => "unsupported",
        Some(TrustError::Unproven { .. }) => "unproven",
        Some(TrustError::UntrustedIdentity(_)) => "untrusted_identity",
        Some(TrustError::NotEndorsed { .. }) => "not_endorsed",
        Some(TrustError::Refused { .. }) => "refused",
        Some(_) => "other",
        None => match rejection.alert {
            // The names of RFC 8446, section 6.
            Some(42) => "bad_certificate",
            Some(43) => "unsupported_certificate",
            Some(44) => "certificate_revoked",
            Some(45) => "certificate_expired",
            Some(46) => "certificate_unknown",
            Some(48) => "unknown_ca",
            Some(49) => "access_denied",
            Some(51) => "decrypt_error",
            Some(116) => "certificate_required",
            Some(_) => "other",
            None => "",
        },
    }
}
