//! A peer made of quinn and rustls, both client and server.
#![allow(dead_code, reason = "each test file uses a part")]

use net_traits::NetCredential;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, ServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::net::SocketAddr;
use std::sync::Arc;

/// The result of the peer's verification of our certificate.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    Accepts,
    Rejects(CertificateError),
}

pub(crate) struct QuinnPeer {
    endpoint: Endpoint,
}

impl QuinnPeer {
    /// Creates a peer with the certificate of `credential`, or a client without one. It does not
    /// check whether the key belongs to the certificate.
    pub(crate) fn new(credential: Option<&NetCredential>, verdict: Verdict, alpn: &str) -> Self {
        let (client, server) = tls(credential, verdict, alpn);
        let mut endpoint = match server {
            None => Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap(),
            Some(server) => {
                let server = Arc::new(QuicServerConfig::try_from(server).unwrap());
                let server = ServerConfig::with_crypto(server);
                Endpoint::server(server, ([127, 0, 0, 1], 0).into()).unwrap()
            }
        };
        let client = Arc::new(QuicClientConfig::try_from(client).unwrap());
        endpoint.set_default_client_config(ClientConfig::new(client));
        Self { endpoint }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Connection, ConnectionError> {
        self.endpoint.connect(address, "localhost").unwrap().await
    }

    /// Begins to connect, and returns whether early data (0-RTT) could be sent.
    pub(crate) async fn connect_early(
        &self,
        address: SocketAddr,
    ) -> (Result<Connection, ConnectionError>, bool) {
        match self.endpoint.connect(address, "localhost").unwrap().into_0rtt() {
            Ok((connection, _)) => (Ok(connection), true),
            Err(connecting) => (connecting.await, false),
        }
    }

    pub(crate) async fn accept(&self) -> Result<Connection, ConnectionError> {
        self.endpoint.accept().await.unwrap().await
    }
}

/// Creates the TLS of such a peer, as a client and, if it has a certificate, as a server.
pub(crate) fn tls(
    credential: Option<&NetCredential>,
    verdict: Verdict,
    alpn: &str,
) -> (rustls::ClientConfig, Option<rustls::ServerConfig>) {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Verifier { verdict, algorithms: algorithms(&provider) });
    let client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone());
    let mut client = match credential {
        Some(credential) => client.with_client_cert_resolver(certified(&provider, credential)),
        None => client.with_no_client_auth(),
    };
    client.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    client.enable_early_data = true; // where a ticket permits it
    let server = credential.map(|credential| {
        let certificate = certified(&provider, credential);
        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(certificate);
        server.alpn_protocols = client.alpn_protocols.clone();
        server
    });
    (client, server)
}

fn certified(provider: &CryptoProvider, credential: &NetCredential) -> Arc<SingleCertAndKey> {
    let key = credential.private_key().clone_key();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let chain = credential.certificate_chain().to_vec();
    Arc::new(CertifiedKey::new(chain, key).into())
}

/// Encodes a message as it is on the wire.
pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

pub(crate) async fn read_frame(stream: &mut RecvStream) -> Result<Vec<u8>, quinn::ReadExactError> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let mut message = vec![0; u32::from_be_bytes(header) as usize];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn algorithms(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    provider.signature_verification_algorithms
}

#[derive(Debug)]
struct Verifier {
    verdict: Verdict,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn check(&self) -> Result<(), Error> {
        match &self.verdict {
            Verdict::Accepts => Ok(()),
            Verdict::Rejects(why) => Err(Error::InvalidCertificate(why.clone())),
        }
    }
}

/// Implements the methods that both verifier traits share.
macro_rules! signature_methods {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls12_signature(
                message,
                certificate,
                signature,
                &self.algorithms,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls13_signature(
                message,
                certificate,
                signature,
                &self.algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check().map(|()| ServerCertVerified::assertion())
    }

    signature_methods!();
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check().map(|()| ClientCertVerified::assertion())
    }

    signature_methods!();
}
