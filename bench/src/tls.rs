//! TLS for the other transports: a self-signed certificate that the client trusts.

use anyhow::Result;
use net_traits::{NetCredential, TrustPolicy};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;

/// The application protocol.
pub(crate) const ALPN: &str = "bench";

/// Creates configurations for both sides. With `is_mutual` the client has a certificate too. Each
/// handshake is a full one, as with this project's transports.
pub(crate) fn configs(is_mutual: bool) -> Result<(ClientConfig, ServerConfig)> {
    with_provider(is_mutual, rustls::crypto::ring::default_provider())
}

/// Creates the configurations with an implementation of the cryptography.
pub(crate) fn with_provider(
    is_mutual: bool,
    provider: CryptoProvider,
) -> Result<(ClientConfig, ServerConfig)> {
    let credential = NetCredential::self_signed(TrustPolicy::Any)?;
    let chain: Vec<CertificateDer<'static>> = credential.certificate_chain().to_vec();
    let key = || credential.private_key().clone_key();
    let provider = Arc::new(provider);
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone())?;
    let roots = Arc::new(roots);
    let versions = &[&rustls::version::TLS13];
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .with_root_certificates(roots.clone());
    let server =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions)?;
    let (mut client, server) = if is_mutual {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
        let client = client.with_client_auth_cert(chain.clone(), key())?;
        (client, server.with_client_cert_verifier(verifier))
    } else {
        (client.with_no_client_auth(), server.with_no_client_auth())
    };
    let mut server = server.with_single_cert(chain, key())?;
    client.resumption = Resumption::disabled();
    client.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
    server.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
    Ok((client, server))
}
