//! TLS for the other transports: a self-signed certificate that the client trusts.

use anyhow::Result;
use net_traits::{NetCredential, TrustPolicy};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;

/// Creates configurations for both sides, with `alpn`.
pub(crate) fn configs(alpn: &[u8]) -> Result<(ClientConfig, ServerConfig)> {
    let credential = NetCredential::self_signed(TrustPolicy::Any)?;
    let chain: Vec<CertificateDer<'static>> = credential.certificate_chain().to_vec();
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone())?;
    let versions = &[&rustls::version::TLS13];
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_single_cert(chain, credential.private_key().clone_key())?;
    client.alpn_protocols = vec![alpn.to_vec()];
    server.alpn_protocols = vec![alpn.to_vec()];
    Ok((client, server))
}
