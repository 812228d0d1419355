//! What the user can do about an error, which the libraries cannot know.

use crate::output::one_line;
use crate::protocol;
use net_traits::{CloseReason, ConnectError, ListenError, Rejection, RejectionBy, TrustError};
use std::error::Error;
use std::io;

/// Formats an error for the user: in one line with its causes and, if there is any, advice.
pub(crate) fn explained(error: &anyhow::Error) -> String {
    let text = one_line(error);
    match error.chain().find_map(of_cause) {
        Some(advice) => format!("{text}; {advice}"),
        None => text,
    }
}

fn of_cause(cause: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = cause.downcast_ref::<ConnectError>() {
        return of_connect(error);
    }
    if let Some(CloseReason::Rejected(rejection)) = cause.downcast_ref() {
        return of_rejection(rejection);
    }
    let ListenError::Transport(cause) = cause.downcast_ref()? else { return None };
    match cause.downcast_ref().map(io::Error::kind)? {
        io::ErrorKind::AddrNotAvailable => {
            Some("choose an address of this host, or 0.0.0.0 or [::]")
        }
        io::ErrorKind::PermissionDenied => Some("ports below 1024 need privileges"),
        _ => None,
    }
}

fn of_connect(error: &ConnectError) -> Option<&'static str> {
    match error {
        ConnectError::Refused(_) | ConnectError::TimedOut { .. } => {
            Some("check the address, and that a listener with the same --transport runs there")
        }
        ConnectError::NoCommonAlpn { offered, .. } => {
            Some(match offered.first().map(String::as_str) {
                Some(protocol::PERF) => "start the listener with --perf",
                Some(protocol::CHAT) => "dial the address of `netmsg chat --host`",
                _ => "dial the address of a `netmsg listen` of the same version",
            })
        }
        ConnectError::Rejected(rejection) => of_rejection(rejection),
        ConnectError::Closed(CloseReason::Rejected(rejection)) => of_rejection(rejection),
        ConnectError::BothFailed { specific, .. } => of_connect(specific),
        _ => None,
    }
}

fn of_rejection(rejection: &Rejection) -> Option<&'static str> {
    match (rejection.by, rejection.cause.as_deref()) {
        (RejectionBy::Peer, _) if rejection.alert == Some(CERTIFICATE_EXPIRED) => {
            Some("compare the clocks; `netmsg id --force` makes a new identity")
        }
        (RejectionBy::Peer, _) => Some("that side accepts it after `netmsg trust add`"),
        (_, Some(TrustError::UntrustedIdentity(_) | TrustError::NotEndorsed { .. })) => {
            Some("if it is the right peer, accept it with `netmsg trust add`")
        }
        (_, Some(TrustError::Expired { .. } | TrustError::NotYetValid { .. })) => {
            Some("compare the clocks; `netmsg id --force` makes a new identity there")
        }
        (RejectionBy::Us, _) => None,
    }
}

/// The TLS alert about a certificate outside of its validity period (RFC 8446, section 6.2).
const CERTIFICATE_EXPIRED: u8 = 45;

#[cfg(test)]
mod tests {
    use super::*;
    use net_traits::{Cause, CertHash, RecvError};

    #[test]
    fn advice_follows_the_cause() {
        let address = "127.0.0.1:1".parse().unwrap();
        let identity = CertHash::from_bytes([7; 32]);
        let by_us = Rejection::by_policy(address, TrustError::UntrustedIdentity(identity));
        let by_alert = |alert| Rejection::by_alert(address, identity, alert).unwrap();
        let no_alpn = |offered: &str| ConnectError::NoCommonAlpn {
            remote_addr: address,
            offered: vec![offered.to_owned()],
        };
        let listen = |kind| ListenError::Transport(Cause::new(io::Error::from(kind)));
        for (error, expected) in [
            (listen(io::ErrorKind::AddrNotAvailable).into(), "an address of this host"),
            (listen(io::ErrorKind::PermissionDenied).into(), "ports below 1024"),
            (ConnectError::Refused(address).into(), "the same --transport"),
            (no_alpn(protocol::PERF).into(), "--perf"),
            (no_alpn(protocol::CHAT).into(), "chat --host"),
            (ConnectError::Rejected(by_us).into(), "right peer, accept it with `netmsg trust add`"),
            (RecvError::Closed(CloseReason::Rejected(by_alert(49))).into(), "trust add"),
            (RecvError::Closed(CloseReason::Rejected(by_alert(45))).into(), "netmsg id --force"),
        ] {
            let error: anyhow::Error = error;
            let text = explained(&error.context("with a context"));
            let (_, advice) = text.split_once("; ").unwrap_or_else(|| panic!("{text}"));
            assert!(advice.contains(expected), "{text}");
        }
        assert_eq!(explained(&anyhow::anyhow!("disk full")), "disk full");
        let text = explained(&listen(io::ErrorKind::OutOfMemory).into());
        assert!(text.ends_with(": out of memory"), "{text}");
    }
}
