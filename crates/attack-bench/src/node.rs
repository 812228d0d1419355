//! What all processes share: transports, and credentials of one network.

use anyhow::Result;
use clap::ValueEnum;
use msquic_transport::{MsQuicTransport, MsQuicTransportConfig};
use net_traits::{
    DynTransport, EndorsementValidity, Endorser, Endorsers, IdentityKey, NetCredential, TrustPolicy,
};
use quic_attack::Identity;
use quinn_transport::{QuinnConfig, QuinnTransport};
use std::time::Duration;
use tcp_tls_transport::{TcpTlsConfig, TcpTlsTransport};

pub(crate) const ALPN: &str = "attacked/1";

/// The idle timeout of the victim. It is short, so that memory is freed during an experiment.
pub(crate) const IDLE: Duration = Duration::from_secs(5);

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Msquic,
    Quinn,
    Tcp,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Msquic, Self::Quinn, Self::Tcp];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Msquic => "msquic",
            Self::Quinn => "quinn",
            Self::Tcp => "tcp",
        }
    }

    pub(crate) fn is_quic(self) -> bool {
        self != Self::Tcp
    }

    /// Returns a transport with defaults, except for [`IDLE`].
    pub(crate) fn transport(self) -> Result<DynTransport> {
        Ok(match self {
            Self::Msquic => DynTransport::new(MsQuicTransport::with_config(
                MsQuicTransportConfig::new().idle_timeout(IDLE),
            )?),
            Self::Quinn => DynTransport::new(QuinnTransport::with_config(
                QuinnConfig::new().idle_timeout(IDLE),
            )?),
            Self::Tcp => DynTransport::new(TcpTlsTransport::with_config(
                TcpTlsConfig::new().idle_timeout(IDLE),
            )?),
        })
    }
}

/// Returns a new credential that the network's endorser endorsed, and that trusts such credentials.
pub(crate) fn member() -> Result<NetCredential> {
    let key = IdentityKey::generate()?;
    let endorser = network_endorser()?;
    let endorsement = endorser.endorse(&key.public_key_info(), EndorsementValidity::unlimited());
    let trust = TrustPolicy::endorsed_by(Endorsers::new([endorser.key()]));
    Ok(key.self_sign(&["member"], &[endorsement])?.credential(trust)?)
}

/// Returns a new credential with as many endorsements as a certificate may carry, by unknown keys.
pub(crate) fn stranger() -> Result<NetCredential> {
    let key = IdentityKey::generate()?;
    let info = key.public_key_info();
    let endorse = |_| Ok(Endorser::generate()?.endorse(&info, EndorsementValidity::unlimited()));
    let endorsements: Vec<_> =
        (0..net_traits::MAX_ENDORSEMENTS).map(endorse).collect::<Result<_>>()?;
    Ok(key.self_sign(&["stranger"], &endorsements)?.credential(TrustPolicy::Any)?)
}

/// Returns a credential for an attacker that does not keep to the protocol.
pub(crate) fn identity(credential: &NetCredential) -> Identity {
    let chain = credential.certificate_chain().to_vec();
    Identity::with_certificate(&[ALPN], chain, credential.private_key().clone_key())
}

/// The same key in all processes. It is public, so it protects no more than these experiments.
fn network_endorser() -> Result<Endorser> {
    const PKCS8: [u8; 16] = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32]; // RFC 8410
    Ok(Endorser::from_pkcs8(&[&PKCS8[..], &[7; 32]].concat())?)
}
