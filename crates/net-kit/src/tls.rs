//! TLS 1.3 by rustls in which both sides present a certificate, and each verifies the other's by
//! its [`TrustPolicy`].
//!
//! Each handshake gets a configuration of its own, whose [`Verifier`] keeps the result of the
//! policy. After a failure the typed cause is known, and after a success the identity, without a
//! second verification. Everything runs on the thread that drives the handshake. Sessions are not
//! resumed, and no tickets are sent.

use crate::alpn::without_version;
use crate::facts::ConnectionFacts;
use crate::handshake::{Alert, Handshake, Verdict};
use net_traits::{
    Cause, CertificateDer, CloseReason, ConnectError, CredentialError, KeyLog, NetCredential,
    PeerIdentity, TrustError, TrustPolicy,
};
use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, PeerIncompatible, ServerConfig, SignatureScheme, SupportedCipherSuite, version,
};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A credential in the form that rustls needs. Cloning is cheap.
///
/// ```
/// use net_kit::tls::TlsIdentity;
/// use net_traits::{NetCredential, TrustPolicy};
///
/// let identity = TlsIdentity::new(NetCredential::self_signed(TrustPolicy::Any)?)?;
/// let (config, _verifier) = identity.server(&["chat/1".to_owned()])?;
/// assert_eq!(config.alpn_protocols, [b"chat/1"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TlsIdentity {
    credential: NetCredential,
    key: Arc<SingleCertAndKey>,
    provider: Arc<CryptoProvider>,
    key_log: Option<KeyLog>,
}

/// Returns the cryptography, which prefers AES-128-GCM: it and SHA-256 take less time than AES-256-GCM and
/// SHA-384, and all implementations have it (RFC 8446, section 9.1).
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    let is_other =
        |suite: &SupportedCipherSuite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(is_other);
    provider
}

impl TlsIdentity {
    /// Reads the key of a credential.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Unusable`] for a key of a kind that rustls does not support.
    pub fn new(credential: NetCredential) -> Result<Self, CredentialError> {
        let provider = Arc::new(provider());
        let (chain, key) = (credential.certificate_chain().to_vec(), credential.private_key());
        let key = CertifiedKey::from_der(chain, key.clone_key(), &provider).map_err(unusable)?;
        Ok(Self { credential, key: Arc::new(key.into()), provider, key_log: None })
    }

    /// Returns the same identity with another trust policy.
    #[must_use]
    pub fn with_trust(&self, trust: TrustPolicy) -> Self {
        Self { credential: self.credential.with_trust(trust), ..self.clone() }
    }

    /// Has handshakes write their secrets to a key log.
    #[must_use]
    pub fn with_key_log(self, key_log: Option<KeyLog>) -> Self {
        Self { key_log, ..self }
    }

    /// Returns the credential.
    pub fn credential(&self) -> &NetCredential {
        &self.credential
    }

    /// Creates the configuration of one handshake as the client, and its verifier.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Unusable`].
    pub fn client(
        &self,
        alpn: &[String],
    ) -> Result<(ClientConfig, Arc<Verifier>), CredentialError> {
        let verifier = self.verifier();
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(self.key.clone());
        config.alpn_protocols = protocols(alpn);
        config.resumption = Resumption::disabled();
        config.key_log = self.secrets().unwrap_or(config.key_log);
        Ok((config, verifier))
    }

    /// Creates the configuration of one handshake as the server, and its verifier.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Unusable`].
    pub fn server(
        &self,
        alpn: &[String],
    ) -> Result<(ServerConfig, Arc<Verifier>), CredentialError> {
        let verifier = self.verifier();
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(self.key.clone());
        config.alpn_protocols = protocols(alpn);
        config.ignore_client_order = true; // of cipher suites
        config.send_tls13_tickets = 0;
        config.key_log = self.secrets().unwrap_or(config.key_log);
        config.session_storage = Arc::new(NoServerSessionStorage {}); // saves memory
        Ok((config, verifier))
    }

    fn secrets(&self) -> Option<Arc<dyn rustls::KeyLog>> {
        let key_log = self.key_log.clone()?;
        Some(Arc::new(Secrets(key_log)))
    }

    fn verifier(&self) -> Arc<Verifier> {
        let trust = self.credential.trust().clone();
        Arc::new(Verifier { trust, provider: self.provider.clone(), verdict: Mutex::default() })
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.credential.fmt(f)
    }
}

/// Writes the secrets of handshakes.
#[derive(Debug)]
struct Secrets(KeyLog);

impl rustls::KeyLog for Secrets {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = Zeroizing::new(String::with_capacity(KeyLog::MAX_LINE));
        KeyLog::push_line(&mut line, label, client_random, secret);
        self.0.write(line);
    }
}

/// Returns the error for a credential that cannot be used because of `error`.
pub fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> CredentialError {
    CredentialError::Unusable(Cause::new(error))
}

fn protocols(alpn: &[String]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Returns the alert that a failed handshake sent or received, if it is about certificates or
/// application protocols.
pub fn alert_of(error: &Error) -> Option<Alert> {
    match error {
        Error::AlertReceived(alert) => Some(Alert::Received(u8::from(*alert))),
        Error::NoCertificatesPresented => Some(Alert::Sent(116)),
        Error::NoApplicationProtocol => Some(Alert::Sent(120)),
        // Errors of the policy are in the verdict, which takes precedence; otherwise the signature
        // of the handshake does not verify.
        Error::InvalidCertificate(_) => Some(Alert::Sent(51)),
        _ => None,
    }
}

/// Creates the facts of a connection from what TLS negotiated.
///
/// # Errors
///
/// [`ConnectError::NoCommonAlpn`] if no protocol was negotiated, since TLS accepts a peer that
/// offers none. [`ConnectError::Closed`] if no certificate was verified.
pub fn facts(
    handshake: &Handshake,
    local_addr: SocketAddr,
    verifier: &Verifier,
    certificates: Option<&[CertificateDer<'_>]>,
    alpn: Option<&[u8]>,
) -> Result<ConnectionFacts, ConnectError> {
    let (verdict, certificate) = (verifier.verdict(), certificates.and_then(<[_]>::first));
    let (Some(Ok(peer)), Some(certificate)) = (verdict, certificate) else {
        let reason = CloseReason::Transport(Cause::new("TLS verified no certificate"));
        return Err(ConnectError::Closed(reason));
    };
    let (alpn, has_receipts) = without_version(alpn.unwrap_or_default());
    let alpn = String::from_utf8(alpn.to_vec()).ok().filter(|name| !name.is_empty());
    let alpn = alpn.ok_or_else(|| handshake.no_common_alpn())?;
    let Handshake { local_identity, remote_addr, .. } = *handshake;
    let certificate = Some(certificate.clone().into_owned());
    let facts =
        ConnectionFacts::new(local_addr, remote_addr, local_identity, peer, certificate, alpn);
    Ok(facts.with_receipts(has_receipts))
}

/// Verifies the peer of one handshake by a [`TrustPolicy`], and keeps the result.
pub struct Verifier {
    trust: TrustPolicy,
    provider: Arc<CryptoProvider>,
    verdict: Mutex<Verdict>,
}

impl Verifier {
    /// Returns the result of the policy; `None` before the certificate was verified.
    pub fn verdict(&self) -> Verdict {
        self.verdict.lock().clone()
    }

    fn verify(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let verdict = self.trust.verify(Some(certificate));
        let result = match &verdict {
            Ok(PeerIdentity { .. }) => Ok(()),
            // The error selects the alert that TLS sends.
            Err(error) => Err(Error::InvalidCertificate(certificate_error(error))),
        };
        *self.verdict.lock() = Some(verdict);
        result
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn certificate_error(error: &TrustError) -> CertificateError {
    match error.tls_alert() {
        42 => CertificateError::BadEncoding,
        43 => CertificateError::InvalidPurpose,
        45 => CertificateError::Expired,
        48 => CertificateError::UnknownIssuer,
        49 => CertificateError::ApplicationVerificationFailure,
        _ => CertificateError::Other(OtherError(Arc::new(error.clone()))),
    }
}

/// Implements the methods that both verifier traits share.
macro_rules! signature_methods {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)) // TLS 1.3 only
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.verify_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.schemes()
        }
    };
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(certificate).map(|()| ServerCertVerified::assertion())
    }

    signature_methods!();
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(certificate).map(|()| ClientCertVerified::assertion())
    }

    signature_methods!();
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("trust", &self.trust).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConnection, ServerConnection};

    fn credential(trust: TrustPolicy) -> NetCredential {
        NetCredential::self_signed(trust).unwrap()
    }

    /// Both ends of a handshake in memory, until one fails or both are done.
    struct Ends {
        client: (ClientConnection, Arc<Verifier>),
        server: (ServerConnection, Arc<Verifier>),
    }

    impl Ends {
        fn new(client: NetCredential, server: NetCredential, offered: &str) -> Self {
            Self::of(TlsIdentity::new(client).unwrap(), server, offered)
        }

        fn of(client: TlsIdentity, server: NetCredential, offered: &str) -> Self {
            let config = client.client(&[offered.to_owned()]);
            let (config, of_client) = config.unwrap();
            let name = ServerName::try_from("peer").unwrap();
            let client = ClientConnection::new(Arc::new(config), name).unwrap();
            let config = TlsIdentity::new(server).unwrap().server(&["test/1".to_owned()]);
            let (config, of_server) = config.unwrap();
            let server = ServerConnection::new(Arc::new(config)).unwrap();
            Self { client: (client, of_client), server: (server, of_server) }
        }

        /// Runs the handshake, and returns the errors of the client and of the server.
        fn run(&mut self) -> (Option<Error>, Option<Error>) {
            let (client, server) = (&mut self.client.0, &mut self.server.0);
            let (mut of_client, mut of_server) = (None, None);
            for _ in 0..4 {
                let mut wire = Vec::new();
                client.write_tls(&mut wire).unwrap();
                server.read_tls(&mut &wire[..]).unwrap();
                of_server = of_server.or(server.process_new_packets().err());
                wire.clear();
                server.write_tls(&mut wire).unwrap();
                client.read_tls(&mut &wire[..]).unwrap();
                of_client = of_client.or(client.process_new_packets().err());
            }
            (of_client, of_server)
        }
    }

    fn handshake(credential: &NetCredential) -> Handshake {
        Handshake {
            local_identity: credential.identity(),
            remote_addr: ([10, 0, 0, 1], 1).into(),
            alpn: vec!["test/1".to_owned()],
            timeout: std::time::Duration::from_secs(1),
        }
    }

    #[test]
    fn both_sides_learn_the_identity_of_the_peer() {
        let (alice, bob) = (credential(TrustPolicy::Any), credential(TrustPolicy::Any));
        let mut ends = Ends::new(alice.clone(), bob.clone(), "test/1");
        assert_eq!(ends.run(), (None, None));
        let local_addr = ([10, 0, 0, 2], 2).into();
        let (session, verifier) = &ends.server;
        let certificates = session.peer_certificates();
        let facts =
            facts(&handshake(&bob), local_addr, verifier, certificates, session.alpn_protocol());
        let facts = facts.unwrap();
        assert_eq!((facts.peer().hash, facts.local_hash()), (alice.identity(), bob.identity()));
        assert_eq!(
            (facts.alpn(), facts.certificate()),
            ("test/1", alice.certificate_chain().first())
        );
    }

    #[test]
    fn a_server_prefers_aes_128_also_to_what_the_client_prefers() {
        let (alice, bob) = (credential(TrustPolicy::Any), credential(TrustPolicy::Any));
        for is_reversed in [false, true] {
            let mut identity = TlsIdentity::new(alice.clone()).unwrap();
            if is_reversed {
                Arc::make_mut(&mut identity.provider).cipher_suites.reverse();
            }
            let mut ends = Ends::of(identity, bob.clone(), "test/1");
            assert_eq!(ends.run(), (None, None));
            let suite = ends.server.0.negotiated_cipher_suite().unwrap().suite();
            assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
        }
    }

    #[test]
    fn a_rejection_is_reported_on_both_sides() {
        let (alice, bob) = (credential(TrustPolicy::Any), credential(TrustPolicy::reject_all()));
        let mut ends = Ends::new(alice.clone(), bob.clone(), "test/1");
        let (of_client, of_server) = ends.run();
        let ours = handshake(&bob)
            .rejected(ends.server.1.verdict(), of_server.as_ref().and_then(alert_of))
            .unwrap();
        let ConnectError::Rejected(ours) = ours else { panic!("{ours:?}") };
        let cause = TrustError::UntrustedIdentity(alice.identity());
        assert_eq!(ours.cause.as_deref(), Some(&cause));
        let Some(Alert::Received(alert)) = of_client.as_ref().and_then(alert_of) else {
            panic!("{of_client:?}")
        };
        assert_eq!(ours.alert, Some(alert));
        assert!(matches!(handshake(&alice).closed_by(alert), Some(CloseReason::Rejected(_))));
    }

    #[test]
    fn no_common_protocol_has_its_own_error() {
        let (alice, bob) = (credential(TrustPolicy::Any), credential(TrustPolicy::Any));
        let mut ends = Ends::new(alice.clone(), bob.clone(), "other/1");
        let (of_client, of_server) = ends.run();
        for (credential, error, verifier) in
            [(&alice, of_client, &ends.client.1), (&bob, of_server, &ends.server.1)]
        {
            let alert = error.as_ref().and_then(alert_of);
            let error = handshake(credential).rejected(verifier.verdict(), alert);
            assert!(matches!(error, Some(ConnectError::NoCommonAlpn { .. })), "{error:?}");
        }
    }
}
