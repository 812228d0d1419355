//! The state machines of the two directions of a stream. Pure; the state includes the error.

use super::error::{ReadError, StartError, WriteError};
use crate::Status;
use crate::connection::ConnectionError;

/// The state of opening a stream.
///
/// ```text
/// Idle ─credit─▶ Starting ─┬─▶ Started
///   │                      ├─▶ Failed
///   └──aborted─────────────┘
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StartState {
    Idle,
    Starting,
    Started,
    Failed(StartError),
    /// The connection has ended; the reason is there.
    Lost,
}

/// The sending direction (RFC 9000, section 3.1).
///
/// ```text
/// Open ─finish─▶ Finishing ─acknowledged─▶ Finished
///   └──────┬────────┘
///          ├─▶ Aborted    this side reset the stream
///          ├─▶ Stopped    the peer sent STOP_SENDING
///          ├─▶ Failed     msquic did not accept the bytes
///          └─▶ Lost       the connection has ended
/// ```
/// `None` is the state of a stream that only receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SendState {
    None,
    Open,
    Finishing,
    Finished,
    Aborted,
    Stopped(u64),
    Failed(Status),
    Lost(ConnectionError),
}

/// An event of the sending direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SendInput {
    Finish,
    Abort,
    Acknowledged,
    StoppedByPeer(u64),
    Failed(Status),
    ConnectionLost(ConnectionError),
}

impl SendState {
    /// Applies `input` and returns whether the state changed. Final states do not change.
    pub(crate) fn apply(&mut self, input: SendInput) -> bool {
        let next = match (&*self, input) {
            (Self::Open, SendInput::Finish) => Self::Finishing,
            (Self::Finishing, SendInput::Acknowledged) => Self::Finished,
            (Self::Open | Self::Finishing, SendInput::Abort) => Self::Aborted,
            (Self::Open | Self::Finishing, SendInput::StoppedByPeer(code)) => Self::Stopped(code),
            (Self::Open | Self::Finishing, SendInput::Failed(status)) => Self::Failed(status),
            (Self::Open | Self::Finishing, SendInput::ConnectionLost(error)) => Self::Lost(error),
            _ => return false,
        };
        *self = next;
        true
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Returns an error with the reason if no bytes may be written.
    pub(crate) fn check_open(&self) -> Result<(), WriteError> {
        match self {
            Self::Open => Ok(()),
            Self::None | Self::Finishing | Self::Finished | Self::Aborted => {
                Err(WriteError::Closed)
            }
            Self::Stopped(code) => Err(WriteError::Stopped(*code)),
            Self::Failed(status) => Err(WriteError::Other(*status)),
            Self::Lost(error) => Err(WriteError::ConnectionLost(error.clone())),
        }
    }

    /// Returns the result of finishing; `None` before everything is acknowledged, or if it was not
    /// finished.
    pub(crate) fn finished(&self) -> Option<Result<(), WriteError>> {
        match self {
            Self::Open | Self::Finishing => None,
            Self::Finished => Some(Ok(())),
            _ => Some(self.check_open()),
        }
    }
}

/// The receiving direction (RFC 9000, section 3.2). Bytes that arrived before the end are read
/// first.
///
/// ```text
/// Open ─┬─▶ Finished   the peer finished
///       ├─▶ Reset      the peer reset the stream
///       ├─▶ Stopped    this side asked the peer to stop
///       └─▶ Lost       the connection has ended
/// ```
/// `None` is the state of a stream that only sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReceiveState {
    None,
    Open,
    Finished,
    Reset(u64),
    Stopped,
    Lost(ConnectionError),
}

/// An event of the receiving direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReceiveInput {
    Finished,
    Reset(u64),
    Stop,
    ConnectionLost(ConnectionError),
}

impl ReceiveState {
    /// Applies `input` and returns whether the state changed. A stop is also applied after the end:
    /// what was not read is discarded.
    pub(crate) fn apply(&mut self, input: ReceiveInput) -> bool {
        let next = match (&*self, input) {
            (Self::None | Self::Stopped, _) => return false,
            (_, ReceiveInput::Stop) => Self::Stopped,
            (Self::Open, ReceiveInput::Finished) => Self::Finished,
            (Self::Open, ReceiveInput::Reset(code)) => Self::Reset(code),
            (Self::Open, ReceiveInput::ConnectionLost(error)) => Self::Lost(error),
            _ => return false,
        };
        *self = next;
        true
    }

    /// Returns the result for a reader of an empty queue; `None` if it has to wait.
    pub(crate) fn end(&self) -> Option<Result<(), ReadError>> {
        match self {
            Self::Open => None,
            Self::Finished => Some(Ok(())),
            Self::Reset(code) => Some(Err(ReadError::Reset(*code))),
            Self::None | Self::Stopped => Some(Err(ReadError::Closed)),
            Self::Lost(error) => Some(Err(ReadError::ConnectionLost(error.clone()))),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: ConnectionError = ConnectionError::NotStarted;

    #[test]
    fn every_transition_of_the_sending_direction() {
        use SendInput as I;
        use SendState as S;
        let states = [
            S::None,
            S::Open,
            S::Finishing,
            S::Finished,
            S::Aborted,
            S::Stopped(1),
            S::Failed(Status::ABORTED),
            S::Lost(LOST),
        ];
        let inputs = [
            I::Finish,
            I::Abort,
            I::Acknowledged,
            I::StoppedByPeer(2),
            I::Failed(Status::OUT_OF_MEMORY),
            I::ConnectionLost(LOST),
        ];
        for state in states {
            for input in inputs.clone() {
                let expected = match (&state, &input) {
                    (S::Open, I::Finish) => Some(S::Finishing),
                    (S::Open | S::Finishing, I::Abort) => Some(S::Aborted),
                    (S::Finishing, I::Acknowledged) => Some(S::Finished),
                    (S::Open | S::Finishing, I::StoppedByPeer(2)) => Some(S::Stopped(2)),
                    (S::Open | S::Finishing, I::Failed(status)) => Some(S::Failed(*status)),
                    (S::Open | S::Finishing, I::ConnectionLost(_)) => Some(S::Lost(LOST)),
                    _ => None,
                };
                let mut next = state.clone();
                assert_eq!(next.apply(input.clone()), expected.is_some(), "{state:?} {input:?}");
                assert_eq!(next, expected.unwrap_or(state.clone()), "{state:?} {input:?}");
            }
            assert_eq!(state.finished().is_none(), matches!(state, S::Open | S::Finishing));
        }
    }

    #[test]
    fn every_transition_of_the_receiving_direction() {
        use ReceiveInput as I;
        use ReceiveState as S;
        let states = [S::None, S::Open, S::Finished, S::Reset(1), S::Stopped, S::Lost(LOST)];
        let inputs = [I::Finished, I::Reset(2), I::Stop, I::ConnectionLost(LOST)];
        for state in states {
            for input in inputs.clone() {
                let expected = match (&state, &input) {
                    (S::Open, I::Finished) => Some(S::Finished),
                    (S::Open, I::Reset(2)) => Some(S::Reset(2)),
                    (S::Open, I::ConnectionLost(_)) => Some(S::Lost(LOST)),
                    (S::Open | S::Finished | S::Reset(_) | S::Lost(_), I::Stop) => Some(S::Stopped),
                    _ => None,
                };
                let mut next = state.clone();
                assert_eq!(next.apply(input.clone()), expected.is_some(), "{state:?} {input:?}");
                assert_eq!(next, expected.unwrap_or(state.clone()), "{state:?} {input:?}");
            }
            assert_eq!(state.end().is_none(), state.is_open());
        }
    }
}
