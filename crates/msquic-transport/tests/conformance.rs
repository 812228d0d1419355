//! Runs the conformance suite of the traits on this transport.

mod common;
mod quinn_peer;

use async_trait::async_trait;
use msquic_async::{
    Configuration, Connection, ReadError, ReadToEndError, Registration, Settings, StreamType,
    WriteStream,
};
use msquic_transport::{MsQuicTransport, MsQuicTransportConfig};
use net_traits::NetCredential;
use net_traits_test::{Harness, Limits, Path, RawPeer, Relay};
use quinn_peer::{QuinnPeer, Verdict};
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;

struct Quic;

/// A bare QUIC peer, which can send invalid frames.
struct Raw {
    stream: WriteStream,
    connection: Connection,
}

#[async_trait]
impl RawPeer for Raw {
    async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await; // the other side may have ended what violates
    }

    async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    async fn begin_question(&mut self, bytes: &[u8]) -> Option<u64> {
        let stream = self.connection.open_outbound_stream(StreamType::Bidirectional, false).await;
        let (read, write) = stream.unwrap().split();
        let mut write = write.unwrap();
        write.write_all(bytes).await.unwrap();
        match read.unwrap().read_to_end(0).await.unwrap_err() {
            ReadToEndError::Read(ReadError::Reset(code)) => Some(code),
            _ => None,
        }
    }
}

#[async_trait]
impl Harness for Quic {
    type Transport = MsQuicTransport;

    fn keeps_what_is_acknowledged(&self) -> bool {
        msquic_async::library_patches().iter().any(|patch| patch.fault == "N60")
    }

    fn transport(&self, limits: &Limits) -> MsQuicTransport {
        common::drive_if_wanted();
        MsQuicTransport::with_config(
            MsQuicTransportConfig::new()
                .max_message_size(limits.max_message_size)
                .max_request_size(limits.max_request_size)
                .handshake_timeout(limits.handshake_timeout)
                .stream_op_timeout(limits.no_progress_timeout)
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
        let registration = Registration::new("raw").unwrap();
        let configuration =
            Configuration::client(&registration, &[alpn], &Settings::new(), &credential).unwrap();
        let connection = Connection::new(&registration, credential).unwrap();
        connection.start(&configuration, "127.0.0.1", remote_addr.port()).await.unwrap();
        let stream = connection.open_outbound_stream(StreamType::Unidirectional, false).await;
        let stream = stream.unwrap().split().1.unwrap();
        Box::new(Raw { stream, connection })
    }

    async fn anonymous_peer(&self, remote_addr: SocketAddr, alpn: &str) {
        let peer = QuinnPeer::new(None, Verdict::Accepts, alpn);
        if let Ok(connection) = peer.connect(remote_addr).await {
            connection.closed().await;
        }
    }

    async fn path(&self, listener: SocketAddr) -> Box<dyn Path> {
        Box::new(Relay::udp(listener).await.unwrap())
    }
}

net_traits_test::conformance!(Quic);

#[test]
fn random_schedules_keep_the_contract() {
    net_traits_test::random::run(Quic, 0..100);
}

/// A listener on `[::]` accepts IPv4 too where the system separates the families, and where it has
/// no IPv6.
#[test]
fn both_families_are_taken_whatever_the_system_prefers() {
    for setting in ["net.ipv6.bindv6only=1", "net.ipv6.conf.all.disable_ipv6=1"] {
        let test = "a_listener_on_all_addresses_is_dual_stack";
        net_traits_test::in_own_network(&[setting], test);
    }
}
