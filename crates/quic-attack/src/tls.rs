//! TLS for attackers: a self-signed certificate, no verification of the peer's, and ClientHellos.

use crate::params::{INITIAL_SRC, Parameters};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::quic::{ClientConnection, Connection, ServerConnection, Version};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig};
use rustls::{Error, SignatureScheme};
use std::sync::Arc;

/// A certificate with its key, and the protocols to offer.
#[derive(Debug, Clone)]
pub struct Identity {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// Creates an identity with a new self-signed certificate, which offers `alpn` in this order.
    ///
    /// # Panics
    ///
    /// If the system's random source fails.
    pub fn new(alpn: &[&str]) -> Self {
        let (chain, key) = self_signed();
        Self::with_certificate(alpn, chain, key)
    }

    /// Creates an identity with a certificate chain, which offers `alpn` in this order.
    ///
    /// # Panics
    ///
    /// If the key does not belong to the first certificate.
    pub fn with_certificate(
        alpn: &[&str],
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Self {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(AnyCertificate(provider.clone()));
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .expect("the key fits the certificate");
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring has TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .expect("the key fits the certificate");
        client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        server.alpn_protocols.clone_from(&client.alpn_protocols);
        client.resumption = rustls::client::Resumption::disabled();
        server.send_tls13_tickets = 0;
        Self { client: Arc::new(client), server: Arc::new(server) }
    }

    /// Returns the configuration of clients, for other stacks.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// Starts TLS as a client.
    ///
    /// # Panics
    ///
    /// If the system's random source fails.
    pub fn client(&self, parameters: &Parameters) -> Connection {
        let name = ServerName::try_from("localhost").expect("it is a valid name");
        let tls =
            ClientConnection::new(self.client.clone(), Version::V1, name, parameters.encode());
        Connection::Client(tls.expect("the configuration is for QUIC"))
    }

    /// Starts TLS as a server.
    ///
    /// # Panics
    ///
    /// If the system's random source fails.
    pub fn server(&self, parameters: &Parameters) -> Connection {
        let tls = ServerConnection::new(self.server.clone(), Version::V1, parameters.encode());
        Connection::Server(tls.expect("the configuration is for QUIC"))
    }
}

/// Returns a ClientHello that offers `alpn`, and the source connection ID for its packets.
///
/// # Panics
///
/// If the system's random source fails.
pub fn client_hello(alpn: &[&str], parameters: &Parameters, src: &[u8]) -> Vec<u8> {
    let mut parameters = parameters.clone();
    parameters.set(INITIAL_SRC, src);
    let mut hello = Vec::new();
    Identity::new(alpn).client(&parameters).write_hs(&mut hello);
    hello
}

fn self_signed() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().expect("the system's random source works");
    let mut params = CertificateParams::new(["attacker".to_owned()]).expect("it is a valid name");
    params.distinguished_name.push(DnType::CommonName, "attacker");
    let certificate = params.self_signed(&key).expect("the key can sign");
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    (vec![certificate.der().clone()], key.into())
}

/// Accepts every certificate whose holder proves possession of the key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

/// Implements the methods that both verifier traits share.
macro_rules! signature_methods {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("QUIC does not use TLS 1.2".to_owned()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for AnyCertificate {
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

    signature_methods!();
}

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    signature_methods!();
}
