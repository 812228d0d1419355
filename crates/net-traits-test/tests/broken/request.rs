//! `BrokenRequest`: a connection attempt at a broken listener.

use super::{BrokenConnection, Context, Fault};
use async_trait::async_trait;
use net_traits::{ConnectError, Limit, NetConnection, NetIncomingRequest, close_code};
use net_traits_test::memory::MemoryIncomingRequest;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

pub(crate) struct BrokenRequest {
    pub(super) inner: Option<MemoryIncomingRequest>,
    pub(super) context: Arc<Context>,
    pub(super) _turn: Option<OwnedMutexGuard<()>>,
}

impl Drop for BrokenRequest {
    fn drop(&mut self) {
        if self.context.fault == Fault::DroppedRequestsLeak {
            std::mem::forget(self.inner.take());
        }
    }
}

#[async_trait]
impl NetIncomingRequest for BrokenRequest {
    type Connection = BrokenConnection;

    fn remote_addr(&self) -> SocketAddr {
        self.inner.as_ref().expect("it is taken once").remote_addr()
    }

    fn refuse(mut self, code: u64) {
        let inner = self.inner.take().expect("it is taken once");
        match self.context.fault {
            Fault::RefusalsWithHugeCodesLeak if code > close_code::MAX => std::mem::forget(inner),
            Fault::RefusedRequestsLeak => std::mem::forget(inner),
            _ => inner.refuse(code),
        }
    }

    async fn accept(mut self) -> Result<BrokenConnection, ConnectError> {
        let inner = self.inner.take().expect("it is taken once");
        let remote_addr = inner.remote_addr();
        let inner = inner.accept().await.map_err(|error| match (self.context.fault, error) {
            (Fault::ListenerForgetsWhomItRejected, ConnectError::Rejected(rejection)) => {
                rejection.with_identity(None).into()
            }
            (Fault::AnonymousIsARefusal, ConnectError::Rejected(it)) if it.identity.is_none() => {
                ConnectError::Refused(remote_addr)
            }
            (_, error) => self.context.falsify(error),
        })?;
        let Context { fault, limits, .. } = &*self.context;
        if *fault == Fault::TheNewestIsTheLastToEnd && limits.max_connections_per_identity == 1 {
            let peer = inner.peer_identity();
            let older = self.context.live().into_iter();
            for older in older.filter(|older| older.inner.peer_identity() == peer) {
                older.inner.abort(Limit::PerIdentity.code(), "");
            }
        }
        Ok(self.context.connection(inner))
    }
}
