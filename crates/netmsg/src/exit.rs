//! `Exit`: the exit codes of the program, and which error has which.

use crate::{close_code, file};
use net_traits::{
    CloseReason, ConnectError, DatagramError, Limit, RecvError, SendError, close_code as common,
};
use std::error::Error;

/// The exit codes besides 0, for success. They are part of the interface: a code never changes its
/// meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exit {
    /// A local failure: a file, a key, the system.
    #[error("this side failed")]
    Failed = 1,
    /// The arguments are invalid.
    #[error("the arguments are invalid")]
    Usage = 2,
    /// The name is not resolved, or the peer does not answer.
    #[error("the peer cannot be reached")]
    Unreachable = 3,
    /// One side does not trust the other's identity.
    #[error("one side does not trust the other")]
    Untrusted = 4,
    /// The peer rejects what it was asked for.
    #[error("the peer rejected it")]
    Rejected = 5,
    /// The connection ended early, or the peer sent an invalid message. The same command may succeed,
    /// and resumes files.
    #[error("the connection ended early")]
    Disconnected = 6,
    /// Some files or peers failed, others did not.
    #[error("some succeeded and some failed")]
    Partial = 7,
    /// Interrupted by a signal.
    #[error("interrupted")]
    Interrupted = 130,
}

/// The text of the help, which lists the codes.
pub(crate) const HELP: &str = "\
Exit codes:
    0  success
    1  this side failed: a file, a key, the system
    2  the arguments are invalid
    3  the peer cannot be reached: its name is not resolved, or it does not answer
    4  one side does not trust the other's identity
    5  the peer rejected it: the name exists, the file is too large, the peer is busy
    6  the connection ended early, or the peer sent an invalid message; the same command resumes files
    7  some files or peers failed, others did not
  130  interrupted by a signal";

impl Exit {
    /// Returns the code for an error, by the first cause that decides it.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        // An error may be marked with a code, which is then its context.
        let marked = error.downcast_ref::<Self>().copied();
        marked.or_else(|| error.chain().find_map(of_cause)).unwrap_or(Self::Failed)
    }
}

fn of_cause(cause: &(dyn Error + 'static)) -> Option<Exit> {
    if let Some(exit) = cause.downcast_ref::<Exit>() {
        return Some(*exit);
    }
    if let Some(error) = cause.downcast_ref::<ConnectError>() {
        return Some(of_connect(error));
    }
    // The peer has broken the protocol, so nothing else is sent to it.
    if cause.is::<file::MessageError>() {
        return Some(Exit::Disconnected);
    }
    if let Some(SendError::Closed(reason)) = cause.downcast_ref() {
        return Some(of_close(reason));
    }
    if let Some(RecvError::Closed(reason)) = cause.downcast_ref() {
        return Some(of_close(reason));
    }
    if let Some(DatagramError::Closed(reason)) = cause.downcast_ref() {
        return Some(of_close(reason));
    }
    cause.downcast_ref::<CloseReason>().map(of_close)
}

fn of_connect(error: &ConnectError) -> Exit {
    match error {
        ConnectError::InvalidInput(_) => Exit::Usage,
        ConnectError::Refused(_) | ConnectError::TimedOut { .. } => Exit::Unreachable,
        ConnectError::Rejected(_) => Exit::Untrusted,
        ConnectError::NoCommonAlpn { .. } => Exit::Rejected,
        ConnectError::Closed(CloseReason::TimedOut | CloseReason::Transport(_)) => {
            Exit::Unreachable
        }
        ConnectError::Closed(reason) => of_close(reason),
        ConnectError::BothFailed { specific, .. } => of_connect(specific),
        _ => Exit::Failed,
    }
}

/// Returns the code for the end of a connection.
pub(crate) fn of_close(reason: &CloseReason) -> Exit {
    match reason {
        CloseReason::Rejected(_)
        | CloseReason::Peer { code: common::REVOKED | common::TRUST_ENDED, .. } => Exit::Untrusted,
        CloseReason::Peer { code, .. }
            if *code == close_code::BUSY
                || close_code::is_about_file(*code)
                || Limit::of_code(*code).is_some() =>
        {
            Exit::Rejected
        }
        CloseReason::Local { .. } => Exit::Failed,
        _ => Exit::Disconnected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};
    use net_traits::{Rejection, RejectionBy};

    fn closed(code: u64) -> anyhow::Error {
        let reason = String::new();
        RecvError::Closed(CloseReason::Peer { code, reason }).into()
    }

    #[test]
    fn codes_follow_the_cause() {
        let address = "127.0.0.1:1".parse().unwrap();
        let rejected = Rejection::new(RejectionBy::Peer, address, "not trusted");
        for (error, expected) in [
            (anyhow!("a file"), Exit::Failed),
            (file::MessageError::Truncated.into(), Exit::Disconnected),
            (ConnectError::InvalidInput("x".to_owned()).into(), Exit::Usage),
            (ConnectError::Refused(address).into(), Exit::Unreachable),
            (ConnectError::Rejected(rejected.clone()).into(), Exit::Untrusted),
            (RecvError::Closed(CloseReason::Rejected(rejected)).into(), Exit::Untrusted),
            (closed(common::REVOKED), Exit::Untrusted),
            (closed(close_code::NAME_EXISTS), Exit::Rejected),
            (closed(common::TOO_MANY_PER_IP), Exit::Rejected),
            (closed(close_code::FAILED), Exit::Disconnected),
            (RecvError::Closed(CloseReason::TimedOut).into(), Exit::Disconnected),
            (anyhow!("two of three").context(Exit::Partial), Exit::Partial),
        ] {
            assert_eq!(Exit::of(&error), expected, "{error:#}");
            let wrapped = Err::<(), _>(error).context("with a context").unwrap_err();
            assert_eq!(Exit::of(&wrapped), expected, "{wrapped:#}");
        }
    }

    #[test]
    fn the_help_lists_all_codes() {
        use Exit::{
            Disconnected, Failed, Interrupted, Partial, Rejected, Unreachable, Untrusted, Usage,
        };
        for exit in
            [Failed, Usage, Unreachable, Untrusted, Rejected, Disconnected, Partial, Interrupted]
        {
            let code = exit as i32;
            assert!(HELP.lines().any(|line| line.trim_start().starts_with(&format!("{code}  "))));
        }
    }
}
