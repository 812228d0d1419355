//! The harness of this transport for the conformance suite.
#![allow(dead_code, reason = "each test file uses a part")]

use async_trait::async_trait;
use net_kit::tls::TlsIdentity;
use net_traits::{NetCredential, TrustPolicy};
use net_traits_test::{Harness, Limits, RawPeer};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, SendStream};
use quinn_transport::{QuinnConfig, QuinnTransport};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use std::net::SocketAddr;
use std::sync::Arc;

pub(crate) struct Quinn;

/// Connects a bare QUIC client that trusts every peer and presents a certificate only if it has one.
pub(crate) async fn dial_quic(
    remote_addr: SocketAddr,
    alpn: &str,
    credential: Option<&NetCredential>,
) -> Result<Connection, ConnectionError> {
    let credential = credential.cloned();
    let is_anonymous = credential.is_none();
    let credential =
        credential.unwrap_or_else(|| NetCredential::self_signed(TrustPolicy::Any).unwrap());
    let identity = TlsIdentity::new(credential.with_trust(TrustPolicy::Any)).unwrap();
    let (mut config, _) = identity.client(&[alpn.to_owned()]).unwrap();
    if is_anonymous {
        config.client_auth_cert_resolver = Arc::new(NoCertificate);
    }
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.connect_with(config, remote_addr, "peer").unwrap().await
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

struct Raw {
    stream: SendStream,
    _connection: Connection,
}

#[async_trait]
impl RawPeer for Raw {
    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn finish(&mut self) {
        self.stream.finish().unwrap();
    }
}

#[async_trait]
impl Harness for Quinn {
    type Transport = QuinnTransport;

    fn transport(&self, limits: &Limits) -> QuinnTransport {
        QuinnTransport::with_config(
            QuinnConfig::new()
                .max_message_size(limits.max_message_size)
                .max_request_size(limits.max_request_size)
                .handshake_timeout(limits.handshake_timeout)
                .no_progress_timeout(limits.no_progress_timeout)
                .max_connections(limits.max_connections),
        )
        .unwrap()
    }

    async fn raw_peer(
        &self,
        remote_addr: SocketAddr,
        alpn: &str,
        credential: NetCredential,
    ) -> Box<dyn RawPeer> {
        let connection = dial_quic(remote_addr, alpn, Some(&credential)).await.unwrap();
        let stream = connection.open_uni().await.unwrap();
        Box::new(Raw { stream, _connection: connection })
    }

    async fn anonymous_peer(&self, remote_addr: SocketAddr, alpn: &str) {
        if let Ok(connection) = dial_quic(remote_addr, alpn, None).await {
            connection.closed().await;
        }
    }
}
