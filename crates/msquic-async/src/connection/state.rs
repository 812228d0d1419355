//! The state machine of a connection. Pure; the state includes the error.

use super::error::ConnectionError;
use crate::Status;
use net_traits::TrustError;

/// ```text
/// Open ─start─▶ Connecting ─connected─▶ Connected
///   └───────┬──────────┴───────────────────┘
///           ▼ either side closes
///        Shutdown ─all done─▶ ShutdownComplete
/// ```
/// The first close determines the error. Only the peer's reason phrase may be added at the end, because it
/// becomes known after the peer's close itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConnectionState {
    Open,
    Connecting,
    Connected,
    Shutdown(ConnectionError),
    ShutdownComplete(ConnectionError),
}

/// What happens to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConnectionInput {
    Start,
    Connected,
    ClosedLocally { code: u64, reason: String },
    ClosedByPeer { code: u64 },
    ClosedByTransport { status: Status, code: u64 },
    UntrustedPeer(TrustError),
    Complete { reason: Option<String> },
}

impl ConnectionState {
    /// Applies `input` and returns whether the state changed.
    pub(super) fn apply(&mut self, input: ConnectionInput) -> bool {
        use ConnectionInput as Input;
        let next = match (&*self, input) {
            (Self::Open, Input::Start) => Self::Connecting,
            (Self::Connecting, Input::Connected) => Self::Connected,
            (Self::Shutdown(error), Input::Complete { reason }) => {
                Self::ShutdownComplete(error.clone().with_reason(reason))
            }
            (Self::Open | Self::Connecting | Self::Connected, input) => match input {
                Input::ClosedLocally { code, reason } => {
                    Self::Shutdown(ConnectionError::ClosedLocally { code, reason })
                }
                Input::ClosedByPeer { code } => {
                    let reason = String::new();
                    Self::Shutdown(ConnectionError::ClosedByPeer { code, reason })
                }
                Input::ClosedByTransport { status, code } => {
                    Self::Shutdown(ConnectionError::ClosedByTransport { status, code })
                }
                Input::UntrustedPeer(error) => Self::Shutdown(ConnectionError::Untrusted(error)),
                Input::Complete { .. } => Self::ShutdownComplete(ConnectionError::closing()),
                Input::Start | Input::Connected => return false,
            },
            _ => return false,
        };
        *self = next;
        true
    }

    /// Why the connection has ended, if it has.
    pub(super) fn error(&self) -> Option<&ConnectionError> {
        match self {
            Self::Shutdown(error) | Self::ShutdownComplete(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transition() {
        use ConnectionInput as I;
        use ConnectionState as S;
        let local = || ConnectionError::ClosedLocally { code: 1, reason: "bye".into() };
        let peer = |reason: &str| ConnectionError::ClosedByPeer { code: 2, reason: reason.into() };
        let transport =
            || ConnectionError::ClosedByTransport { status: Status::UNREACHABLE, code: 3 };
        let untrusted = || ConnectionError::Untrusted(TrustError::NoCertificate);
        let states = [
            S::Open,
            S::Connecting,
            S::Connected,
            S::Shutdown(peer("")),
            S::Shutdown(local()),
            S::ShutdownComplete(peer("")),
        ];
        let inputs = [
            I::Start,
            I::Connected,
            I::ClosedLocally { code: 1, reason: "bye".into() },
            I::ClosedByPeer { code: 2 },
            I::ClosedByTransport { status: Status::UNREACHABLE, code: 3 },
            I::UntrustedPeer(TrustError::NoCertificate),
            I::Complete { reason: Some("late".into()) },
        ];
        for state in states {
            for input in inputs.clone() {
                let is_up = matches!(state, S::Open | S::Connecting | S::Connected);
                let expected = match (&state, &input) {
                    (S::Open, I::Start) => Some(S::Connecting),
                    (S::Connecting, I::Connected) => Some(S::Connected),
                    (_, I::ClosedLocally { .. }) if is_up => Some(S::Shutdown(local())),
                    (_, I::ClosedByPeer { .. }) if is_up => Some(S::Shutdown(peer(""))),
                    (_, I::ClosedByTransport { .. }) if is_up => Some(S::Shutdown(transport())),
                    (_, I::UntrustedPeer(_)) if is_up => Some(S::Shutdown(untrusted())),
                    (_, I::Complete { .. }) if is_up => {
                        Some(S::ShutdownComplete(ConnectionError::closing()))
                    }
                    (S::Shutdown(ConnectionError::ClosedByPeer { .. }), I::Complete { .. }) => {
                        Some(S::ShutdownComplete(peer("late")))
                    }
                    (S::Shutdown(error), I::Complete { .. }) => {
                        Some(S::ShutdownComplete(error.clone()))
                    }
                    _ => None,
                };
                let mut next = state.clone();
                assert_eq!(next.apply(input.clone()), expected.is_some(), "{state:?} {input:?}");
                assert_eq!(next, expected.unwrap_or(state.clone()), "{state:?} {input:?}");
            }
            assert_eq!(
                state.error().is_some(),
                !matches!(state, S::Open | S::Connecting | S::Connected)
            );
        }
    }
}
