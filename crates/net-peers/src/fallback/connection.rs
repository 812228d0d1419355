//! Connections, attempts and questions over one of two transports.

use async_trait::async_trait;
use bytes::Bytes;
use net_traits::{
    CertificateDer, CloseOutcome, CloseReason, ConnectError, DatagramError, NetConnection,
    NetDatagrams, NetIncomingRequest, NetQuestion, NetRequests, PeerIdentity, RecvError,
    RequestError, SendAckedError, SendError,
};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Applies the same expression to both variants.
macro_rules! each {
    ($self:expr, $it:ident => $output:expr) => {
        match $self {
            Self::Primary($it) => $output,
            Self::Secondary($it) => $output,
        }
    };
}

/// A connection attempt over one of two transports.
#[derive(Debug)]
pub enum FallbackIncomingRequest<P, S> {
    /// Over the primary transport.
    Primary(P),
    /// Over the secondary transport.
    Secondary(S),
}

#[async_trait]
impl<P: NetIncomingRequest, S: NetIncomingRequest> NetIncomingRequest
    for FallbackIncomingRequest<P, S>
{
    type Connection = FallbackConnection<P::Connection, S::Connection>;

    fn remote_addr(&self) -> SocketAddr {
        each!(self, it => it.remote_addr())
    }

    fn refuse(self, code: u64) {
        each!(self, it => it.refuse(code));
    }

    async fn accept(self) -> Result<Self::Connection, ConnectError> {
        match self {
            Self::Primary(it) => it.accept().await.map(FallbackConnection::Primary),
            Self::Secondary(it) => it.accept().await.map(FallbackConnection::Secondary),
        }
    }
}

/// A connection over one of two transports.
#[derive(Debug, Clone)]
pub enum FallbackConnection<P, S> {
    /// Over the primary transport.
    Primary(P),
    /// Over the secondary transport.
    Secondary(S),
}

#[async_trait]
impl<P: NetConnection, S: NetConnection> NetConnection for FallbackConnection<P, S> {
    fn local_addr(&self) -> SocketAddr {
        each!(self, it => it.local_addr())
    }

    fn remote_addr(&self) -> SocketAddr {
        each!(self, it => it.remote_addr())
    }

    fn local_identity(&self) -> &str {
        each!(self, it => it.local_identity())
    }

    fn remote_identity(&self) -> &str {
        each!(self, it => it.remote_identity())
    }

    fn peer_identity(&self) -> &PeerIdentity {
        each!(self, it => it.peer_identity())
    }

    fn is_trusted(&self) -> bool {
        each!(self, it => it.is_trusted())
    }

    fn remote_certificate(&self) -> Option<CertificateDer<'static>> {
        each!(self, it => it.remote_certificate())
    }

    fn alpn_negotiated(&self) -> &str {
        each!(self, it => it.alpn_negotiated())
    }

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        each!(self, it => it.send(message).await)
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        each!(self, it => it.send_bytes(message).await)
    }

    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError> {
        each!(self, it => it.send_parts(parts).await)
    }

    fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        each!(self, it => it.try_send(message))
    }

    async fn send_many(&self, messages: &mut VecDeque<Bytes>) -> Result<(), SendError> {
        each!(self, it => it.send_many(messages).await)
    }

    async fn send_acked(&self, message: Bytes) -> Result<(), SendAckedError> {
        each!(self, it => it.send_acked(message).await)
    }

    async fn flush(&self) -> Result<(), SendError> {
        each!(self, it => it.flush().await)
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        each!(self, it => it.recv().await)
    }

    fn try_recv(&self) -> Result<Option<(Bytes, Duration)>, RecvError> {
        each!(self, it => it.try_recv())
    }

    async fn recv_many(
        &self,
        messages: &mut Vec<(Bytes, Duration)>,
        limit: usize,
    ) -> Result<usize, RecvError> {
        each!(self, it => it.recv_many(messages, limit).await)
    }

    async fn close(&self, code: u64, reason: &str) -> CloseOutcome {
        each!(self, it => it.close(code, reason).await)
    }

    fn abort(&self, code: u64, reason: &str) {
        each!(self, it => it.abort(code, reason));
    }

    async fn watch_close(&self) -> CloseReason {
        each!(self, it => it.watch_close().await)
    }

    fn datagrams(&self) -> Result<&dyn NetDatagrams, DatagramError> {
        each!(self, it => it.datagrams())
    }
}

#[async_trait]
impl<P: NetRequests, S: NetRequests> NetRequests for FallbackConnection<P, S> {
    type Question = FallbackQuestion<P::Question, S::Question>;

    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        each!(self, it => it.request(question, deadline).await)
    }

    async fn accept_request(&self) -> Result<Self::Question, RequestError> {
        match self {
            Self::Primary(it) => it.accept_request().await.map(FallbackQuestion::Primary),
            Self::Secondary(it) => it.accept_request().await.map(FallbackQuestion::Secondary),
        }
    }
}

/// A question over one of two transports.
#[derive(Debug)]
pub enum FallbackQuestion<P, S> {
    /// Over the primary transport.
    Primary(P),
    /// Over the secondary transport.
    Secondary(S),
}

#[async_trait]
impl<P: NetQuestion, S: NetQuestion> NetQuestion for FallbackQuestion<P, S> {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        each!(self, it => it.question().await)
    }

    async fn answer(self, answer: Bytes) -> Result<(), RequestError> {
        each!(self, it => it.answer(answer).await)
    }

    fn refuse(self, code: u64) {
        each!(self, it => it.refuse(code));
    }

    async fn canceled(&self) {
        each!(self, it => it.canceled().await);
    }
}
