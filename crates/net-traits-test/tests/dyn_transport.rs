//! Runs the conformance suite on a transport behind [`DynTransport`].

mod common;

use async_trait::async_trait;
use common::Memory;
use net_traits::{DynTransport, NetCredential};
use net_traits_test::{Harness, Limits, Path, RawPeer};
use std::net::SocketAddr;

#[derive(Default)]
struct Dyn(Memory);

#[async_trait]
impl Harness for Dyn {
    type Transport = DynTransport;

    fn transport(&self, limits: &Limits) -> DynTransport {
        DynTransport::new(self.0.transport(limits))
    }

    fn bind_addr(&self) -> SocketAddr {
        self.0.bind_addr()
    }

    async fn raw_peer(
        &self,
        remote_addr: SocketAddr,
        alpn: &str,
        credential: NetCredential,
    ) -> Box<dyn RawPeer> {
        self.0.raw_peer(remote_addr, alpn, credential).await
    }

    async fn anonymous_peer(&self, remote_addr: SocketAddr, alpn: &str) {
        self.0.anonymous_peer(remote_addr, alpn).await;
    }

    async fn path(&self, listener: SocketAddr) -> Box<dyn Path> {
        self.0.path(listener).await
    }
}

net_traits_test::conformance!(Dyn::default());
