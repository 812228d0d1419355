//! Pairs of a transport over msquic and one over quinn, in both roles.

#![allow(dead_code, reason = "each test file uses a part")]

use crate::common::ALPN;
use bytes::Bytes;
use msquic_transport::{MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig};
use net_traits::{
    ConnectError, NetConnection, NetCredential, NetIncomingRequest, NetListener, NetRequests,
    NetTransport, SendError, TrustPolicy,
};
use quinn_transport::{QuinnConfig, QuinnConnection, QuinnTransport};
use std::time::Duration;

/// The limits that the tests choose, for both transports.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) max_message_size: usize,
    pub(crate) send_streams: usize,
    pub(crate) max_connections_per_ip: usize,
    pub(crate) max_connections_per_identity: usize,
    pub(crate) receive_queue: usize,
}

pub(crate) const DEFAULT: Options = Options {
    max_message_size: 4_000_000,
    send_streams: 1,
    max_connections_per_ip: 100,
    max_connections_per_identity: 100,
    receive_queue: 4_000_000,
};

/// What the transports have beside the traits.
pub(crate) trait Quic: NetTransport<Connection: Urgent> {
    fn with(options: Options) -> Self;
}

pub(crate) trait Urgent: NetConnection + NetRequests + std::fmt::Debug {
    async fn urgent(&self, message: Bytes) -> Result<(), SendError>;
}

macro_rules! quic {
    ($transport:ident, $connection:ident, $config:ident) => {
        impl Quic for $transport {
            fn with(options: Options) -> Self {
                let config = $config::new()
                    .max_message_size(options.max_message_size)
                    .send_streams(options.send_streams)
                    .receive_queue(options.receive_queue)
                    .max_connections_per_ip(options.max_connections_per_ip)
                    .max_connections_per_identity(options.max_connections_per_identity);
                $transport::with_config(config).unwrap()
            }
        }

        impl Urgent for $connection {
            async fn urgent(&self, message: Bytes) -> Result<(), SendError> {
                self.send_urgent(message).await
            }
        }
    };
}

quic!(MsQuicTransport, MsQuicNetConnection, MsQuicTransportConfig);
quic!(QuinnTransport, QuinnConnection, QuinnConfig);

/// Runs a behaviour with each transport as the dialler.
macro_rules! both {
    ($behaviour:ident) => {
        crate::common::run(async {
            use msquic_transport::MsQuicTransport;
            use quinn_transport::QuinnTransport;
            $behaviour::<MsQuicTransport, QuinnTransport>().await;
            $behaviour::<QuinnTransport, MsQuicTransport>().await;
        })
    };
}
pub(crate) use both;

pub(crate) fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

/// A dialler and a listener.
pub(crate) struct Endpoints<D, L: NetTransport> {
    pub(crate) dialler: D,
    pub(crate) transport: L,
    pub(crate) listener: L::Listener,
}

pub(crate) type Connected<D, L> = (
    Result<<D as NetTransport>::Connection, ConnectError>,
    Result<<L as NetTransport>::Connection, ConnectError>,
);

impl<D: Quic, L: Quic> Endpoints<D, L> {
    pub(crate) async fn new(
        of_dialler: Options,
        of_listener: Options,
        credential: NetCredential,
    ) -> Self {
        let (dialler, transport) = (D::with(of_dialler), L::with(of_listener));
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = transport.create_listener(address, &[ALPN], credential).await.unwrap();
        Self { dialler, transport, listener }
    }

    pub(crate) async fn connect(&self, credential: NetCredential) -> Connected<D, L> {
        let dial = self.dialler.connect(self.listener.local_addr(), &[ALPN], credential);
        let accept = async { self.listener.accept().await.unwrap().accept().await };
        tokio::join!(dial, accept)
    }

    pub(crate) async fn pair(options: Options) -> (Self, D::Connection, L::Connection) {
        Self::pair_of(options, options).await
    }

    pub(crate) async fn pair_of(
        of_dialler: Options,
        of_listener: Options,
    ) -> (Self, D::Connection, L::Connection) {
        let endpoints = Self::new(of_dialler, of_listener, trusting()).await;
        let (dialled, accepted) = endpoints.connect(trusting()).await;
        (endpoints, dialled.unwrap(), accepted.unwrap())
    }
}

/// Longer than any request here takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);
