//! Mutual TLS 1.3 with peers verified by a [`TrustPolicy`], and the mapping of its errors.

use crate::places::Place;
use net_traits::{
    Cause, CertHash, CertificateDer, CloseReason, ConnectError, CredentialError, NetCredential,
    PeerIdentity, Rejection, TrustError, TrustPolicy,
};
use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct,
    DistinguishedName, OtherError, PeerIncompatible, ServerConfig, SignatureScheme, version,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// `certificate_required` (RFC 8446, section 6.2).
const ALERT_CERTIFICATE_REQUIRED: u8 = 116;

/// How long a failed handshake keeps its socket, so that a reset does not destroy its alert.
const LINGER: Duration = Duration::from_secs(1);

/// A credential in the form that rustls needs.
#[derive(Clone)]
pub(crate) struct TlsIdentity {
    pub(crate) credential: NetCredential,
    key: Arc<SingleCertAndKey>,
    provider: Arc<CryptoProvider>,
}

impl TlsIdentity {
    pub(crate) fn new(credential: NetCredential) -> Result<Self, CredentialError> {
        let provider = Arc::new(ring::default_provider());
        let (chain, key) = (credential.certificate_chain().to_vec(), credential.private_key());
        let key = CertifiedKey::from_der(chain, key.clone_key(), &provider)
            .map_err(|error| CredentialError::Unusable(Cause::new(error)))?;
        Ok(Self { credential, key: Arc::new(key.into()), provider })
    }

    fn verifier(&self) -> Arc<Verifier> {
        let trust = self.credential.trust().clone();
        Arc::new(Verifier { trust, provider: self.provider.clone(), verdict: Mutex::default() })
    }

    fn client(
        &self,
        alpn: &[String],
        verifier: &Arc<Verifier>,
    ) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(self.key.clone());
        config.alpn_protocols = protocols(alpn);
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn server(
        &self,
        alpn: &[String],
        verifier: &Arc<Verifier>,
    ) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(self.key.clone());
        config.alpn_protocols = protocols(alpn);
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {}); // saves memory
        Ok(config)
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.credential.fmt(f)
    }
}

fn protocols(alpn: &[String]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// The two sides of a connection, for error messages.
#[derive(Debug, Clone)]
pub(crate) struct Parties {
    pub(crate) local_identity: CertHash,
    pub(crate) remote_addr: SocketAddr,
    /// The protocols that the dialler offered or the listener supports.
    pub(crate) alpn: Vec<String>,
}

/// A connection after its handshake.
pub(crate) struct Secured {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) peer: PeerIdentity,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) alpn: String,
    /// `Some` for accepted connections.
    pub(crate) place: Option<Place>,
}

/// Performs the dialler's side of a handshake.
pub(crate) async fn dial(
    stream: TcpStream,
    identity: &TlsIdentity,
    parties: &Parties,
) -> Result<Secured, ConnectError> {
    let verifier = identity.verifier();
    let config = identity.client(&parties.alpn, &verifier).map_err(unusable)?;
    let name = ServerName::from(parties.remote_addr.ip());
    let connect = TlsConnector::from(Arc::new(config)).connect(name, stream).into_fallible();
    match connect.await {
        Ok(stream) => parties.secured(TlsStream::Client(stream), &verifier, None),
        Err((error, stream)) => Err(parties.failed(error, stream, &verifier, None)),
    }
}

/// Performs the listener's side of a handshake.
pub(crate) async fn accept(
    stream: TcpStream,
    identity: &TlsIdentity,
    parties: &Parties,
    mut place: Place,
) -> Result<Secured, ConnectError> {
    let verifier = identity.verifier();
    let config = identity.server(&parties.alpn, &verifier).map_err(unusable)?;
    match TlsAcceptor::from(Arc::new(config)).accept(stream).into_fallible().await {
        Ok(stream) => {
            place.connected();
            parties.secured(TlsStream::Server(stream), &verifier, Some(place))
        }
        Err((error, stream)) => Err(parties.failed(error, stream, &verifier, Some(place))),
    }
}

fn unusable(error: rustls::Error) -> ConnectError {
    CredentialError::Unusable(Cause::new(error)).into()
}

impl Parties {
    fn secured(
        &self,
        stream: TlsStream<TcpStream>,
        verifier: &Verifier,
        place: Option<Place>,
    ) -> Result<Secured, ConnectError> {
        let (_, session) = stream.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first).cloned();
        let alpn = session.alpn_protocol().and_then(|name| String::from_utf8(name.to_vec()).ok());
        let verdict = verifier.verdict.lock().take();
        match (verdict, certificate, alpn) {
            (Some(Ok(peer)), Some(certificate), Some(alpn)) => {
                Ok(Secured { stream, peer, certificate: certificate.into_owned(), alpn, place })
            }
            // TLS accepts a peer that offers no protocol.
            (Some(Ok(_)), Some(_), None) => Err(self.no_common_alpn()),
            _ => Err(ConnectError::Closed(CloseReason::Transport(Cause::new(
                "TLS verified no certificate",
            )))),
        }
    }

    fn no_common_alpn(&self) -> ConnectError {
        ConnectError::NoCommonAlpn { remote_addr: self.remote_addr, offered: self.alpn.clone() }
    }

    /// Maps the error of a failed handshake.
    fn failed(
        &self,
        error: io::Error,
        stream: TcpStream,
        verifier: &Verifier,
        place: Option<Place>,
    ) -> ConnectError {
        linger(stream, place);
        let tls_error = tls_error(&error);
        let cause = match (verifier.verdict.lock().take(), tls_error) {
            (Some(Err(cause)), _) => Some(cause),
            // The certificate was accepted, but the handshake signature does not verify.
            (
                Some(Ok(PeerIdentity { hash: identity, .. })),
                Some(rustls::Error::InvalidCertificate(_)),
            ) => Some(TrustError::Unproven { identity }),
            _ => None,
        };
        if let Some(cause) = cause {
            let alert = cause.tls_alert();
            return Rejection::by_policy(self.remote_addr, cause).with_alert(Some(alert)).into();
        }
        match tls_error {
            Some(rustls::Error::NoCertificatesPresented) => {
                let rejection = Rejection::by_policy(self.remote_addr, TrustError::NoCertificate);
                rejection.with_alert(Some(ALERT_CERTIFICATE_REQUIRED)).into()
            }
            Some(
                rustls::Error::NoApplicationProtocol
                | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol),
            ) => self.no_common_alpn(),
            None if is_gone(&error) => ConnectError::Refused(self.remote_addr),
            _ => match self.lost(error) {
                CloseReason::Rejected(rejection) => rejection.into(),
                reason => ConnectError::Closed(reason),
            },
        }
    }

    /// Maps the error of a lost connection.
    pub(crate) fn lost(&self, error: io::Error) -> CloseReason {
        if let Some(rustls::Error::AlertReceived(alert)) = tls_error(&error) {
            let rejection =
                Rejection::by_alert(self.remote_addr, self.local_identity, u8::from(*alert));
            if let Some(rejection) = rejection {
                return rejection.into();
            }
        }
        if error.kind() == io::ErrorKind::TimedOut {
            return CloseReason::TimedOut;
        }
        CloseReason::Transport(match error.downcast::<rustls::Error>() {
            Ok(error) => Cause::new(error),
            Err(error) => Cause::new(error),
        })
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|error| error.downcast_ref())
}

/// Whether the peer ended the connection without a TLS alert.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

/// Keeps the socket open until the peer has read the alert. Closing a socket with unread bytes
/// would reset the connection and discard the alert.
fn linger(mut stream: TcpStream, place: Option<Place>) {
    tokio::spawn(async move {
        let _place = place;
        let read_over = async {
            let _ = stream.shutdown().await;
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
        };
        let _ = timeout(LINGER, read_over).await; // a peer that keeps sending is cut off
    });
}

/// Verifies a peer by a policy, and keeps the verdict.
struct Verifier {
    trust: TrustPolicy,
    provider: Arc<CryptoProvider>,
    verdict: Mutex<Option<Result<PeerIdentity, TrustError>>>,
}

impl Verifier {
    fn judge(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let verdict = self.trust.verify(Some(certificate));
        let result = match &verdict {
            Ok(_) => Ok(()),
            // The error selects the alert that TLS sends.
            Err(error) => Err(rustls::Error::InvalidCertificate(match error.tls_alert() {
                42 => CertificateError::BadEncoding,
                43 => CertificateError::InvalidPurpose,
                45 => CertificateError::Expired,
                48 => CertificateError::UnknownIssuer,
                49 => CertificateError::ApplicationVerificationFailure,
                _ => CertificateError::Other(OtherError(Arc::new(error.clone()))),
            })),
        };
        *self.verdict.lock() = Some(verdict);
        result
    }

    fn proof(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The error for TLS 1.2, which is not supported.
fn old_version() -> rustls::Error {
    rustls::Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

/// Implements the methods that both verifier traits share.
macro_rules! proof_methods {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(old_version())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.proof(message, certificate, signature)
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
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(certificate).map(|()| ServerCertVerified::assertion())
    }

    proof_methods!();
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
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(certificate).map(|()| ClientCertVerified::assertion())
    }

    proof_methods!();
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("trust", &self.trust).finish_non_exhaustive()
    }
}
