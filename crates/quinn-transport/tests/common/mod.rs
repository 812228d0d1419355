//! The harness of this transport for the conformance suite, and helpers of the other tests.
#![allow(dead_code, reason = "each test file uses a part")]

use async_trait::async_trait;
use net_kit::tls::TlsIdentity;
use net_traits::{NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy};
use net_traits_test::{Harness, Limits, Path, RawPeer};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, ReadError, ReadToEndError, SendStream,
    TransportConfig,
};
use quinn_transport::{QuinnConfig, QuinnConnection, QuinnListener, QuinnTransport};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::default_provider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) const ALPN: &str = "test/1";

/// A test that takes longer hangs.
pub(crate) const HANG: Duration = Duration::from_secs(60);

pub(crate) struct Quinn;

pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(HANG, test).await.expect("the test hangs") });
}

/// Returns the resident memory of this process, in KiB.
pub(crate) fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

pub(crate) fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

pub(crate) async fn listen(config: QuinnConfig) -> (QuinnTransport, QuinnListener) {
    let transport = QuinnTransport::with_config(config).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = transport.create_listener(address, &[ALPN], trusting()).await.unwrap();
    (transport, listener)
}

/// Connects a bare QUIC peer, and returns it and the local connection.
pub(crate) async fn raw(config: QuinnConfig) -> (Connection, QuinnConnection) {
    raw_with(config, TransportConfig::default()).await
}

/// Connects a bare QUIC peer with these options, and returns it and the local connection.
pub(crate) async fn raw_with(
    config: QuinnConfig,
    options: TransportConfig,
) -> (Connection, QuinnConnection) {
    let (_, listener) = listen(config).await;
    let credential = trusting();
    let dial = dial_quic_with(listener.local_addr(), ALPN, Some(&credential), options);
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial, accept);
    (dialled.unwrap(), accepted)
}

/// A relay of datagrams between one client and a server, until it is dropped. It passes on only the
/// first `limit` datagrams of the client.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn new(server: SocketAddr, limit: usize) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let at_client = UdpSocket::bind(loopback).await.unwrap();
        let at_server = UdpSocket::bind(loopback).await.unwrap();
        let address = at_client.local_addr().unwrap();
        at_server.connect(server).await.unwrap();
        let task = tokio::spawn(async move {
            let (mut up, mut down) = ([0; 2048], [0; 2048]);
            let (mut client, mut count) = (None, 0);
            loop {
                tokio::select! {
                    Ok((size, from)) = at_client.recv_from(&mut up) => {
                        client = Some(from);
                        count += 1;
                        if count <= limit {
                            let _ = at_server.send(&up[..size]).await;
                        }
                    }
                    Ok(size) = at_server.recv(&mut down) => {
                        if let Some(client) = client {
                            let _ = at_client.send_to(&down[..size], client).await;
                        }
                    }
                }
            }
        });
        Self { address, task }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connects a bare QUIC client that trusts every peer and presents a certificate only if it has
/// one. It does not check whether the key belongs to the certificate.
pub(crate) async fn dial_quic(
    remote_addr: SocketAddr,
    alpn: &str,
    credential: Option<&NetCredential>,
) -> Result<Connection, ConnectionError> {
    dial_quic_with(remote_addr, alpn, credential, TransportConfig::default()).await
}

async fn dial_quic_with(
    remote_addr: SocketAddr,
    alpn: &str,
    credential: Option<&NetCredential>,
    options: TransportConfig,
) -> Result<Connection, ConnectionError> {
    let (mut config, _) = TlsIdentity::new(trusting()).unwrap().client(&[alpn.to_owned()]).unwrap();
    config.client_auth_cert_resolver = match credential {
        None => Arc::new(NoCertificate),
        Some(credential) => {
            let chain = credential.certificate_chain().to_vec();
            let key = credential.private_key().clone_key();
            let key = default_provider().key_provider.load_private_key(key).unwrap();
            Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
        }
    };
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    config.transport_config(Arc::new(options));
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.connect_with(config, remote_addr, "peer").unwrap().await
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

struct Raw {
    stream: SendStream,
    connection: Connection,
}

#[async_trait]
impl RawPeer for Raw {
    async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await; // the peer may have closed because of a violation
    }

    async fn finish(&mut self) {
        self.stream.finish().unwrap();
    }

    async fn begin_question(&mut self, bytes: &[u8]) -> Option<u64> {
        let (mut write, mut read) = self.connection.open_bi().await.unwrap();
        write.write_all(bytes).await.unwrap();
        match read.read_to_end(0).await.unwrap_err() {
            ReadToEndError::Read(ReadError::Reset(code)) => Some(code.into_inner()),
            _ => None,
        }
    }
}

#[async_trait]
impl Harness for Quinn {
    type Transport = QuinnTransport;

    fn transport(&self, limits: &Limits) -> QuinnTransport {
        QuinnTransport::with_config(
            QuinnConfig::new()
                .max_message_size(limits.max_message_size)
                .max_request_size(limits.max_request_size)
                .handshake_timeout(limits.handshake_timeout)
                .no_progress_timeout(limits.no_progress_timeout)
                .operation_timeout(limits.operation_timeout)
                .linger(limits.linger)
                .max_connections(limits.max_connections)
                .max_connections_per_identity(limits.max_connections_per_identity)
                .receive_queue(limits.receive_queue)
                .max_memory(limits.max_memory)
                .message_timeout(limits.message_timeout),
        )
        .unwrap()
    }

    async fn raw_peer(
        &self,
        remote_addr: SocketAddr,
        alpn: &str,
        credential: NetCredential,
    ) -> Box<dyn RawPeer> {
        let connection = dial_quic(remote_addr, alpn, Some(&credential)).await.unwrap();
        let stream = connection.open_uni().await.unwrap();
        Box::new(Raw { stream, connection })
    }

    async fn anonymous_peer(&self, remote_addr: SocketAddr, alpn: &str) {
        if let Ok(connection) = dial_quic(remote_addr, alpn, None).await {
            connection.closed().await;
        }
    }

    async fn path(&self, listener: SocketAddr) -> Box<dyn Path> {
        Box::new(net_traits_test::Relay::udp(listener).await.unwrap())
    }
}
