//! Two transports that trust each other, for all test files.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod certificates;

use bytes::Bytes;
use msquic_async::{Configuration, Connection, Registration, Settings};
use msquic_transport::{
    MsQuicListener, MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig,
};
use net_traits::{NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy};
use std::future::Future;
use std::io::{self, Write};
use std::sync::Once;
use std::thread;
use std::time::Duration;

pub(crate) const ALPN: &str = "test/1";

/// A test that takes longer hangs.
const HANG: Duration = Duration::from_secs(60);

/// Makes msquic run inside a runtime, on a thread of its own, if the variable `MSQUIC_TRANSPORT_DRIVEN` is set.
pub(crate) fn drive_if_wanted() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        if std::env::var_os("MSQUIC_TRANSPORT_DRIVEN").is_none() {
            return;
        }
        #[cfg(all(feature = "driver", target_os = "linux"))]
        {
            let driver = msquic_transport::ExecutionDriver::install().unwrap();
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            thread::spawn(move || runtime.block_on(msquic_transport::drive(driver)));
        }
        #[cfg(not(all(feature = "driver", target_os = "linux")))]
        panic!("the feature `driver` is missing");
    });
}

/// Runs `test` on its own multi-threaded runtime and fails if it hangs.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    drive_if_wanted();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(HANG, test).await.expect("the test hangs") })
}

/// Whether the linked libmsquic has the patch for a fault.
pub(crate) fn has_patch(fault: &str) -> bool {
    msquic_async::library_patches().iter().any(|patch| patch.fault == fault)
}

/// Whether the test has to be skipped because the linked libmsquic lacks the patch for a fault. If
/// so, a line is printed, which is not captured as the output of tests is.
pub(crate) fn lacks_patch(fault: &str) -> bool {
    let lacks = !has_patch(fault);
    if lacks {
        let name = thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(io::stderr(), "{name} skipped: the library lacks the patch {fault}");
    }
    lacks
}

/// Credentials of two peers that trust only each other.
pub(crate) fn credentials() -> (NetCredential, NetCredential) {
    let server = NetCredential::self_signed(TrustPolicy::reject_all()).unwrap();
    let client = NetCredential::self_signed(TrustPolicy::hashes([server.identity()])).unwrap();
    (server.with_trust(TrustPolicy::hashes([client.identity()])), client)
}

pub(crate) struct Pair {
    pub(crate) listener: MsQuicListener,
    pub(crate) client: MsQuicNetConnection,
    pub(crate) server: MsQuicNetConnection,
}

pub(crate) async fn pair() -> Pair {
    pair_with(MsQuicTransportConfig::new(), MsQuicTransportConfig::new()).await
}

/// A connected pair; its transports are dropped already.
pub(crate) async fn pair_with(
    server_config: MsQuicTransportConfig,
    client_config: MsQuicTransportConfig,
) -> Pair {
    let (for_server, for_client) = credentials();
    let listener = MsQuicTransport::with_config(server_config)
        .unwrap()
        .create_listener("127.0.0.1:0".parse().unwrap(), &[ALPN], for_server)
        .await
        .unwrap();
    let transport = MsQuicTransport::with_config(client_config).unwrap();
    let connect = transport.connect(listener.local_addr(), &[ALPN], for_client);
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (client, server) = tokio::join!(connect, accept);
    Pair { listener, client: client.unwrap(), server }
}

/// Creates bytes with a pattern that reveals swapped and lost parts.
pub(crate) fn pattern(length: usize) -> Bytes {
    (0..length).map(|index| (index.wrapping_mul(31) >> 3) as u8).collect()
}

/// Connects a bare QUIC peer, which can send invalid frames.
pub(crate) async fn hostile_to(config: MsQuicTransportConfig) -> (Connection, MsQuicNetConnection) {
    let (for_server, for_client) = credentials();
    let listener = MsQuicTransport::with_config(config)
        .unwrap()
        .create_listener("127.0.0.1:0".parse().unwrap(), &[ALPN], for_server)
        .await
        .unwrap();
    let registration = Registration::new("hostile").unwrap();
    let configuration = Configuration::client(
        &registration,
        &[ALPN],
        &Settings::new().peer_uni_streams(2),
        &for_client,
    )
    .unwrap();
    let client = Connection::new(&registration, for_client).unwrap();
    let start = client.start(&configuration, "127.0.0.1", listener.local_addr().port());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (started, server) = tokio::join!(start, accept);
    started.unwrap();
    (client, server)
}
