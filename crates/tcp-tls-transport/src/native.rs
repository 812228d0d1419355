//! `TcpTls` and `Native`: the state of a transport and of a connection.

use crate::requests::Requests;
use net_kit::backend::Session;
use net_kit::outbox::Outbox;
use net_traits::RequestError;

/// The [`Backend`](net_kit::backend::Backend) of [`TcpTlsTransport`](crate::TcpTlsTransport).
pub struct TcpTls;

/// What the handles and the task of a connection share.
pub struct Native {
    /// `None` if the peer's version has no requests.
    requests: Option<Requests>,
}

impl Native {
    pub(crate) fn new(has_requests: bool) -> Self {
        Self { requests: has_requests.then(Requests::new) }
    }

    pub(crate) fn requests(&self) -> Result<&Requests, RequestError> {
        self.requests.as_ref().ok_or(RequestError::Unsupported)
    }
}

/// Returns the only lane of a connection.
pub(crate) fn outbox(session: &Session<TcpTls>) -> &Outbox {
    &session.lanes()[0]
}
