//! The harness of the in-memory transport.

use async_trait::async_trait;
use bytes::Bytes;
use net_traits::{NetConnection, NetCredential, NetTransport, RequestError};
use net_traits_test::memory::{MemoryConnection, MemoryNetwork, MemoryTransport};
use net_traits_test::{Harness, Limits, Path, RawPeer};
use std::net::{Ipv4Addr, SocketAddr};

pub(crate) struct Memory(pub(crate) MemoryNetwork);

impl Default for Memory {
    fn default() -> Self {
        Self(MemoryNetwork::new(0))
    }
}

pub(crate) struct Raw(MemoryConnection);

#[async_trait]
impl RawPeer for Raw {
    async fn write(&mut self, bytes: &[u8]) {
        // The other side may have closed the connection because of a violation.
        let _ = self.0.send_raw(Bytes::copy_from_slice(bytes)).await;
    }

    async fn finish(&mut self) {
        self.0.end_raw();
    }

    async fn begin_question(&mut self, bytes: &[u8]) -> Option<u64> {
        match self.0.begin_question_raw(Bytes::copy_from_slice(bytes)).await {
            Err(RequestError::NoAnswer { code }) => Some(code),
            Err(_) => None,
        }
    }
}

struct Link {
    network: MemoryNetwork,
    listener: SocketAddr,
}

impl Path for Link {
    fn address(&self) -> SocketAddr {
        self.listener
    }

    fn interrupt(&self, dialler: SocketAddr) {
        self.network.partition(&[dialler.ip()], &[self.listener.ip()]);
    }

    fn restore(&self) {
        self.network.heal();
    }
}

#[async_trait]
impl Harness for Memory {
    type Transport = MemoryTransport;

    fn transport(&self, limits: &Limits) -> MemoryTransport {
        self.0.transport_with(limits.clone())
    }

    fn bind_addr(&self) -> SocketAddr {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    }

    async fn raw_peer(
        &self,
        remote_addr: SocketAddr,
        alpn: &str,
        credential: NetCredential,
    ) -> Box<dyn RawPeer> {
        let transport = self.0.transport();
        Box::new(Raw(transport.connect(remote_addr, &[alpn], credential).await.unwrap()))
    }

    async fn anonymous_peer(&self, remote_addr: SocketAddr, alpn: &str) {
        let transport = self.0.transport();
        if let Ok(connection) = transport.connect_without_certificate(remote_addr, &[alpn]).await {
            connection.watch_close().await;
        }
    }

    async fn path(&self, listener: SocketAddr) -> Box<dyn Path> {
        Box::new(Link { network: self.0.clone(), listener })
    }
}
