//! The transports that can be chosen.

use clap::ValueEnum;
#[cfg(feature = "msquic")]
use msquic_transport::MsQuicTransport as QuicTransport;
use net_peers::FallbackTransport;
use net_traits::DynTransport;
use quinn_transport::QuinnTransport;
#[cfg(not(feature = "msquic"))]
use quinn_transport::QuinnTransport as QuicTransport;
use tcp_tls_transport::TcpTlsTransport;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// QUIC by msquic; by quinn if the program was built without msquic
    Quic,
    /// QUIC by quinn, with the same wire
    Quinn,
    /// TCP and TLS 1.3
    Tcp,
    /// QUIC, or TCP where QUIC is blocked
    Fallback,
}

impl Kind {
    pub(crate) fn create(self) -> DynTransport {
        match self {
            Self::Quic => DynTransport::new(QuicTransport::new()),
            Self::Quinn => DynTransport::new(QuinnTransport::new()),
            Self::Tcp => DynTransport::new(TcpTlsTransport::new()),
            Self::Fallback => {
                let (quic, tcp) = (QuicTransport::new(), TcpTlsTransport::new());
                DynTransport::new(FallbackTransport::new(quic, tcp))
            }
        }
    }
}
