//! TLS for the other transports: a self-signed certificate that the client trusts.

use anyhow::Result;
use net_traits::{NetCredential, TrustPolicy};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;

/// Creates configurations for both sides, with `alpn`. The client has no certificate.
pub(crate) fn configs(alpn: &[u8]) -> Result<(ClientConfig, ServerConfig)> {
    create(&NetCredential::self_signed(TrustPolicy::Any)?, alpn, false)
}

/// Creates configurations with which both sides present the certificate of `credential`.
pub(crate) fn mutual(
    credential: &NetCredential,
    alpn: &[u8],
) -> Result<(ClientConfig, ServerConfig)> {
    create(credential, alpn, true)
}

fn create(
    credential: &NetCredential,
    alpn: &[u8],
    is_mutual: bool,
) -> Result<(ClientConfig, ServerConfig)> {
    let chain: Vec<CertificateDer<'static>> = credential.certificate_chain().to_vec();
    let key = || credential.private_key().clone_key();
    let provider = Arc::new(ring::default_provider());
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
        // Each handshake is a full one, as with the other contenders.
        let mut client = client.with_client_auth_cert(chain.clone(), key())?;
        client.resumption = Resumption::disabled();
        (client, server.with_client_cert_verifier(verifier))
    } else {
        (client.with_no_client_auth(), server.with_no_client_auth())
    };
    let mut server = server.with_single_cert(chain, key())?;
    client.alpn_protocols = vec![alpn.to_vec()];
    server.alpn_protocols = vec![alpn.to_vec()];
    Ok((client, server))
}
