//! Connections and questions of a `DynTransport`.

use crate::{
    CloseOutcome, CloseReason, DatagramError, NetConnection, NetDatagrams, NetQuestion,
    NetRequests, PeerIdentity, RecvError, RequestError, SendAckedError, SendError,
};
use async_trait::async_trait;
use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// The connection of a [`DynTransport`](crate::DynTransport).
#[derive(Clone)]
pub struct DynConnection(Arc<dyn ErasedConnection>);

/// The question of a [`DynConnection`].
pub struct DynQuestion(Box<dyn ErasedQuestion>);

impl DynConnection {
    /// Erases the type of `connection`.
    pub fn new(connection: impl NetRequests) -> Self {
        Self(Arc::new(connection))
    }

    /// Returns the connection if it is a `C`, for methods that only its transport has.
    pub fn downcast_ref<C: NetConnection>(&self) -> Option<&C> {
        (&*self.0 as &dyn Any).downcast_ref()
    }
}

#[async_trait]
trait ErasedConnection: Any + Send + Sync {
    fn local_addr(&self) -> SocketAddr;
    fn remote_addr(&self) -> SocketAddr;
    fn local_identity(&self) -> &str;
    fn remote_identity(&self) -> &str;
    fn peer_identity(&self) -> &PeerIdentity;
    fn is_trusted(&self) -> bool;
    fn remote_certificate(&self) -> Option<CertificateDer<'static>>;
    fn alpn_negotiated(&self) -> &str;
    async fn send(&self, message: &[u8]) -> Result<(), SendError>;
    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError>;
    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError>;
    fn try_send(&self, message: Bytes) -> Result<(), SendError>;
    async fn send_many(&self, messages: &mut VecDeque<Bytes>) -> Result<(), SendError>;
    async fn send_acked(&self, message: Bytes) -> Result<(), SendAckedError>;
    async fn flush(&self) -> Result<(), SendError>;
    async fn recv(&self) -> Result<(Bytes, Duration), RecvError>;
    fn try_recv(&self) -> Result<Option<(Bytes, Duration)>, RecvError>;
    async fn recv_many(
        &self,
        messages: &mut Vec<(Bytes, Duration)>,
        limit: usize,
    ) -> Result<usize, RecvError>;
    async fn close(&self, code: u64, reason: &str) -> CloseOutcome;
    fn abort(&self, code: u64, reason: &str);
    async fn watch_close(&self) -> CloseReason;
    fn datagrams(&self) -> Result<&dyn NetDatagrams, DatagramError>;
    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError>;
    async fn accept_request(&self) -> Result<DynQuestion, RequestError>;
}

/// What `async_trait` makes of an `async fn`.
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Implements a connection trait by delegating to another one.
macro_rules! forward {
    ([$($header:tt)*] $self:ident => [$($inner:tt)*] $target:expr; $($more:tt)*) => {
        #[async_trait]
        impl $($header)* {
            fn local_addr(&$self) -> SocketAddr {
                <$($inner)*>::local_addr($target)
            }

            fn remote_addr(&$self) -> SocketAddr {
                <$($inner)*>::remote_addr($target)
            }

            fn local_identity(&$self) -> &str {
                <$($inner)*>::local_identity($target)
            }

            fn remote_identity(&$self) -> &str {
                <$($inner)*>::remote_identity($target)
            }

            fn peer_identity(&$self) -> &PeerIdentity {
                <$($inner)*>::peer_identity($target)
            }

            fn is_trusted(&$self) -> bool {
                <$($inner)*>::is_trusted($target)
            }

            fn remote_certificate(&$self) -> Option<CertificateDer<'static>> {
                <$($inner)*>::remote_certificate($target)
            }

            fn alpn_negotiated(&$self) -> &str {
                <$($inner)*>::alpn_negotiated($target)
            }

            async fn send(&$self, message: &[u8]) -> Result<(), SendError> {
                <$($inner)*>::send($target, message).await
            }

            fn send_bytes<'a, 'b>(&'a $self, message: Bytes) -> BoxFuture<'b, Result<(), SendError>>
            where
                'a: 'b,
                Self: 'b,
            {
                <$($inner)*>::send_bytes($target, message) // not boxed again
            }

            async fn send_parts(&$self, parts: &[Bytes]) -> Result<(), SendError> {
                <$($inner)*>::send_parts($target, parts).await
            }

            fn try_send(&$self, message: Bytes) -> Result<(), SendError> {
                <$($inner)*>::try_send($target, message)
            }

            async fn send_many(&$self, messages: &mut VecDeque<Bytes>) -> Result<(), SendError> {
                <$($inner)*>::send_many($target, messages).await
            }

            async fn send_acked(&$self, message: Bytes) -> Result<(), SendAckedError> {
                <$($inner)*>::send_acked($target, message).await
            }

            async fn flush(&$self) -> Result<(), SendError> {
                <$($inner)*>::flush($target).await
            }

            fn recv<'a, 'b>(&'a $self) -> BoxFuture<'b, Result<(Bytes, Duration), RecvError>>
            where
                'a: 'b,
                Self: 'b,
            {
                <$($inner)*>::recv($target) // not boxed again
            }

            fn try_recv(&$self) -> Result<Option<(Bytes, Duration)>, RecvError> {
                <$($inner)*>::try_recv($target)
            }

            async fn recv_many(
                &$self,
                messages: &mut Vec<(Bytes, Duration)>,
                limit: usize,
            ) -> Result<usize, RecvError> {
                <$($inner)*>::recv_many($target, messages, limit).await
            }

            async fn close(&$self, code: u64, reason: &str) -> CloseOutcome {
                <$($inner)*>::close($target, code, reason).await
            }

            fn abort(&$self, code: u64, reason: &str) {
                <$($inner)*>::abort($target, code, reason);
            }

            async fn watch_close(&$self) -> CloseReason {
                <$($inner)*>::watch_close($target).await
            }

            fn datagrams(&$self) -> Result<&dyn NetDatagrams, DatagramError> {
                <$($inner)*>::datagrams($target)
            }

            $($more)*
        }
    };
}

forward!([<C: NetRequests> ErasedConnection for C] self => [C as NetConnection] self;
    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        NetRequests::request(self, question, deadline).await
    }

    async fn accept_request(&self) -> Result<DynQuestion, RequestError> {
        Ok(DynQuestion(Box::new(NetRequests::accept_request(self).await?)))
    }
);
forward!([NetConnection for DynConnection] self => [dyn ErasedConnection] &*self.0;);

#[async_trait]
impl NetRequests for DynConnection {
    type Question = DynQuestion;

    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        self.0.request(question, deadline).await
    }

    async fn accept_request(&self) -> Result<DynQuestion, RequestError> {
        self.0.accept_request().await
    }
}

#[async_trait]
trait ErasedQuestion: Send + Sync {
    async fn question(&mut self) -> Result<Bytes, RequestError>;
    async fn answer(self: Box<Self>, answer: Bytes) -> Result<(), RequestError>;
    fn refuse(self: Box<Self>, code: u64);
    async fn canceled(&self);
}

#[async_trait]
impl<Q: NetQuestion> ErasedQuestion for Q {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        NetQuestion::question(self).await
    }

    async fn answer(self: Box<Self>, answer: Bytes) -> Result<(), RequestError> {
        NetQuestion::answer(*self, answer).await
    }

    fn refuse(self: Box<Self>, code: u64) {
        NetQuestion::refuse(*self, code);
    }

    async fn canceled(&self) {
        NetQuestion::canceled(self).await;
    }
}

#[async_trait]
impl NetQuestion for DynQuestion {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        self.0.question().await
    }

    async fn answer(self, answer: Bytes) -> Result<(), RequestError> {
        self.0.answer(answer).await
    }

    fn refuse(self, code: u64) {
        self.0.refuse(code);
    }

    async fn canceled(&self) {
        self.0.canceled().await;
    }
}

impl fmt::Debug for DynQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynQuestion").finish_non_exhaustive()
    }
}

impl fmt::Debug for DynConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynConnection")
            .field("remote_addr", &self.0.remote_addr())
            .field("remote_identity", &self.0.remote_identity())
            .finish()
    }
}
