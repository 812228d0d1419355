//! The harness of this transport for the conformance suite, and helpers of the other tests.
#![allow(dead_code, reason = "each test file uses a part")]

use async_trait::async_trait;
use net_traits::{NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy};
use net_traits_test::{Harness, Limits, Path, RawPeer, Relay};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tcp_tls_transport::{TcpTlsConfig, TcpTlsConnection, TcpTlsListener, TcpTlsTransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, version};

pub(crate) const ALPN: &str = "test/1";

/// A test that takes longer hangs.
pub(crate) const HANG: Duration = Duration::from_secs(60);

pub(crate) struct Tcp;

pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(HANG, test).await.expect("the test hangs") });
}

pub(crate) fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

pub(crate) async fn listen(config: TcpTlsConfig) -> (TcpTlsTransport, TcpTlsListener) {
    let transport = TcpTlsTransport::with_config(config).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = transport.create_listener(address, &[ALPN], trusting()).await.unwrap();
    (transport, listener)
}

/// Connects a bare TLS peer that offers `alpn`, and returns it and the connection that the listener accepts.
pub(crate) async fn raw(
    listener: &TcpTlsListener,
    alpn: &str,
) -> (TlsStream<TcpStream>, TcpTlsConnection) {
    let credential = trusting();
    let dial = dial_tls(listener.local_addr(), alpn, Some(&credential));
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial, accept);
    (dialled.unwrap(), accepted)
}

/// Connects a TLS client that trusts every peer and presents a certificate only if it has one. It
/// does not check whether the key belongs to the certificate.
pub(crate) async fn dial_tls(
    remote_addr: SocketAddr,
    alpn: &str,
    credential: Option<&NetCredential>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAll));
    let mut config = match credential {
        None => config.with_no_client_auth(),
        Some(credential) => {
            let chain = credential.certificate_chain().to_vec();
            let key = credential.private_key().clone_key();
            let key = provider.key_provider.load_private_key(key).unwrap();
            let certificate = SingleCertAndKey::from(CertifiedKey::new(chain, key));
            config.with_client_cert_resolver(Arc::new(certificate))
        }
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(remote_addr).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config)).connect(remote_addr.ip().into(), stream).await
}

#[derive(Debug)]
struct AcceptAll;

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

struct Raw(TlsStream<TcpStream>);

#[async_trait]
impl RawPeer for Raw {
    async fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await; // the peer may have closed because of a violation
        let _ = self.0.flush().await;
    }

    async fn finish(&mut self) {
        self.0.shutdown().await.unwrap();
    }

    async fn begin_question(&mut self, bytes: &[u8]) -> Option<u64> {
        let (question, id, length) = ([2], 1_u32.to_be_bytes(), 1000_u32.to_be_bytes());
        self.write(&[&[0xff; 4][..], &question, &id, &length, bytes].concat()).await;
        while self.0.read_u8().await.is_ok() {} // until the connection ends
        None
    }
}

#[async_trait]
impl Harness for Tcp {
    type Transport = TcpTlsTransport;

    fn transport(&self, limits: &Limits) -> TcpTlsTransport {
        TcpTlsTransport::with_config(
            TcpTlsConfig::new()
                .max_message_size(limits.max_message_size)
                .max_request_size(limits.max_request_size)
                .handshake_timeout(limits.handshake_timeout)
                .no_progress_timeout(limits.no_progress_timeout)
                .operation_timeout(limits.operation_timeout)
                .linger(limits.linger)
                .max_connections(limits.max_connections)
                .max_connections_per_identity(limits.max_connections_per_identity)
                .receive_queue(limits.receive_queue)
                .max_memory(limits.max_memory)
                .message_timeout(limits.message_timeout),
        )
        .unwrap()
    }

    async fn raw_peer(
        &self,
        remote_addr: SocketAddr,
        alpn: &str,
        credential: NetCredential,
    ) -> Box<dyn RawPeer> {
        let alpn = format!("{alpn}+requests/1");
        Box::new(Raw(dial_tls(remote_addr, &alpn, Some(&credential)).await.unwrap()))
    }

    async fn anonymous_peer(&self, remote_addr: SocketAddr, alpn: &str) {
        if let Ok(mut stream) = dial_tls(remote_addr, alpn, None).await {
            assert!(stream.read_u8().await.is_err(), "it gets no data");
        }
    }

    async fn path(&self, listener: SocketAddr) -> Box<dyn Path> {
        Box::new(Relay::tcp(listener).await.unwrap())
    }
}
