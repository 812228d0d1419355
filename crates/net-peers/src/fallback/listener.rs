//! `FallbackListener`: a listener over two transports.

use super::connection::{FallbackConnection, FallbackIncomingRequest};
use async_trait::async_trait;
use net_traits::{AcceptError, ListenError, NetCredential, NetListener, TrustPolicy};
use parking_lot::Mutex;
use std::net::SocketAddr;

/// A listener over two transports.
#[derive(Debug)]
pub struct FallbackListener<P, S> {
    pub(super) primary: P,
    pub(super) secondary: S,
    pub(super) credential: Mutex<NetCredential>,
}

impl<P: NetListener, S: NetListener> FallbackListener<P, S> {
    /// Returns the listener of the primary transport.
    pub fn primary(&self) -> &P {
        &self.primary
    }

    /// Returns the listener of the secondary transport.
    pub fn secondary(&self) -> &S {
        &self.secondary
    }
}

#[async_trait]
impl<P: NetListener, S: NetListener> NetListener for FallbackListener<P, S> {
    type Connection = FallbackConnection<P::Connection, S::Connection>;
    type IncomingRequest = FallbackIncomingRequest<P::IncomingRequest, S::IncomingRequest>;

    async fn accept(&self) -> Result<Self::IncomingRequest, AcceptError> {
        tokio::select! {
            request = self.primary.accept() => match request {
                Ok(request) => Ok(FallbackIncomingRequest::Primary(request)),
                Err(_) => self.secondary.accept().await.map(FallbackIncomingRequest::Secondary),
            },
            request = self.secondary.accept() => match request {
                Ok(request) => Ok(FallbackIncomingRequest::Secondary(request)),
                Err(_) => self.primary.accept().await.map(FallbackIncomingRequest::Primary),
            },
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.primary.local_addr()
    }

    /// Replaces the credential of both listeners. If the secondary listener cannot use it, both
    /// keep the previous one.
    fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError> {
        let mut current = self.credential.lock(); // until both have it
        self.primary.set_credential(credential.clone())?;
        if let Err(error) = self.secondary.set_credential(credential.clone()) {
            self.primary.set_credential(current.clone())?;
            return Err(error);
        }
        *current = credential;
        Ok(())
    }

    fn set_trust(&self, trust: TrustPolicy) {
        let mut credential = self.credential.lock(); // until both have it
        *credential = credential.with_trust(trust.clone());
        self.primary.set_trust(trust.clone());
        self.secondary.set_trust(trust);
    }
}
