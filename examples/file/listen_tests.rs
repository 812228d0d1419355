//! Tests of `listen`: peers are served concurrently, and no file is ever replaced.

use super::file::{ALPN, Inbox, TIMEOUT, close_code, send_file};
use super::{Server, TRANSFERS};
use indicatif::MultiProgress;
use msquic_transport::{MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig};
use net_traits::{
    CloseReason, ConnectError, NetConnection, NetCredential, NetListener, NetTransport, TrustPolicy,
};
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// A test that takes longer hangs.
const HANG: Duration = Duration::from_secs(60);

/// Runs `test` on its own multi-threaded runtime, as the program does, and fails if it hangs.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(HANG, test).await.expect("the test hangs") });
}

/// A running listener with its directory, and a credential that it trusts.
struct Setup {
    transport: MsQuicTransport,
    address: SocketAddr,
    credential: NetCredential,
    out: TempDir,
}

impl Setup {
    async fn new() -> Self {
        Self::with(TRANSFERS, u64::MAX).await
    }

    async fn with(transfers: usize, max_size: u64) -> Self {
        let listening = NetCredential::self_signed(TrustPolicy::reject_all()).unwrap();
        let dialling = listening.identity();
        let dialling = NetCredential::self_signed(TrustPolicy::hashes([dialling])).unwrap();
        let listening = listening.with_trust(TrustPolicy::hashes([dialling.identity()]));
        let config = MsQuicTransportConfig::new().max_connections_per_identity(1_000_000);
        let transport = MsQuicTransport::with_config(config).unwrap();
        let bind_addr = "127.0.0.1:0".parse().unwrap();
        let listener = transport.create_listener(bind_addr, &[ALPN], listening).await.unwrap();
        let address = listener.local_addr();
        let out = tempfile::tempdir().unwrap();
        let inbox = Inbox {
            directory: out.path().to_owned(),
            max_size,
            quiet: true,
            bars: MultiProgress::new(),
        };
        let server = Arc::new(Server { inbox, transfers: Semaphore::new(transfers) });
        tokio::spawn(async move { server.serve(&listener).await });
        Self { transport, address, credential: dialling, out }
    }

    async fn try_dial(&self) -> Result<MsQuicNetConnection, ConnectError> {
        let transport = MsQuicTransport::new();
        transport.connect(self.address, &[ALPN], self.credential.clone()).await
    }

    async fn dial(&self) -> MsQuicNetConnection {
        self.try_dial().await.unwrap()
    }

    /// Sends a file as `dial` does.
    async fn send(&self, path: &Path) -> anyhow::Result<u64> {
        let connection = self.try_dial().await?;
        let sent = send_file(&connection, path).await;
        connection.close(close_code::DONE, "").await;
        sent
    }

    /// Begins a transfer with any name and bytes.
    async fn announce(&self, name: &str, size: u64) -> MsQuicNetConnection {
        let connection = self.dial().await;
        let header = [&size.to_be_bytes()[..], name.as_bytes()].concat();
        connection.send(&header).await.unwrap();
        connection
    }

    /// Returns the names in the directory, including hidden ones.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.out.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Waits until the directory has the expected content.
    async fn until(&self, right: impl Fn(&[String]) -> bool) {
        while !right(&self.names()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn file(directory: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

async fn code(connection: &MsQuicNetConnection) -> u64 {
    match connection.watch_close().await {
        CloseReason::Peer { code, .. } => code,
        reason => panic!("closed for another reason: {reason}"),
    }
}

/// Forwards the packets of a client and drops those of the server, so that the handshake stalls.
async fn one_way(server: SocketAddr) -> SocketAddr {
    let from_client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to_server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = from_client.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = [0; 65_536];
        while let Ok(length) = from_client.recv(&mut datagram).await {
            let _ = to_server.send_to(&datagram[..length], server).await;
        }
    });
    address
}

#[test]
fn a_file_arrives_under_its_name() {
    run(async {
        let (setup, source) = (Setup::new().await, tempfile::tempdir().unwrap());
        let content: Vec<u8> = (0..3_000_000_u32).map(|index| (index >> 3) as u8).collect();
        assert_eq!(setup.send(&file(&source, "a.bin", &content)).await.unwrap(), 3_000_000);
        assert_eq!(setup.send(&file(&source, "empty", b"")).await.unwrap(), 0);
        assert_eq!(std::fs::read(setup.out.path().join("a.bin")).unwrap(), content);
        assert_eq!(std::fs::read(setup.out.path().join("empty")).unwrap(), b"");
        assert_eq!(setup.names().len(), 2);
    });
}

#[test]
fn stalled_handshakes_and_slow_peers_delay_no_other_peer() {
    run(async {
        let (setup, source) = (Setup::new().await, tempfile::tempdir().unwrap());
        let stalled = 8;
        let transport = MsQuicTransport::new();
        for _ in 0..stalled {
            // msquic distinguishes clients by their addresses, so each has a relay.
            let relay = one_way(setup.address).await;
            let (transport, credential) = (transport.clone(), setup.credential.clone());
            tokio::spawn(async move { transport.connect(relay, &[ALPN], credential).await });
        }
        while setup.transport.statistics().handshakes < stalled {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let silent = setup.dial().await;
        let slow = setup.announce("slow", 10).await;
        slow.send(b"12345").await.unwrap();
        setup.until(|names| names.len() == 1).await;

        let honest = file(&source, "honest", b"content");
        let honest = setup.send(&honest);
        // A stalled handshake ends after 10 s, a silent peer after TIMEOUT.
        assert!(TIMEOUT > Duration::from_secs(5));
        timeout(Duration::from_secs(5), honest).await.expect("it waits for the others").unwrap();
        assert_eq!(setup.transport.statistics().handshakes, stalled);
        assert_eq!(std::fs::read(setup.out.path().join("honest")).unwrap(), b"content");
        drop((silent, slow));
    });
}

#[test]
fn peers_over_the_limit_are_rejected_as_busy() {
    run(async {
        let (setup, source) = (Setup::with(1, u64::MAX).await, tempfile::tempdir().unwrap());
        let first = setup.announce("first", 10).await;
        setup.until(|names| names.len() == 1).await;
        match setup.try_dial().await {
            Ok(second) => assert_eq!(code(&second).await, close_code::BUSY),
            // The close may arrive before the dialler knows that its handshake is done.
            Err(ConnectError::Closed(CloseReason::Peer { code: close_code::BUSY, .. })) => {}
            Err(error) => panic!("{error}"),
        }
        first.close(close_code::FAILED, "").await;
        setup.until(<[String]>::is_empty).await;
        // The place becomes free shortly after the file is removed.
        while setup.send(&file(&source, "third", b"3")).await.is_err() {}
    });
}

#[test]
fn an_existing_file_is_never_replaced() {
    run(async {
        let (setup, source) = (Setup::new().await, tempfile::tempdir().unwrap());
        // `--out .`: the key of the listener is in the directory.
        let key = file(&setup.out, "me.pem", b"the key");
        let error = setup.send(&file(&source, "me.pem", b"not the key")).await.unwrap_err();
        assert!(format!("{error:#}").contains("a file named me.pem exists already"), "{error:#}");
        let refused = setup.announce("me.pem", 1).await;
        assert_eq!(code(&refused).await, close_code::NAME_EXISTS);
        assert_eq!(std::fs::read(&key).unwrap(), b"the key");
        assert_eq!(setup.names(), ["me.pem"]);
    });
}

#[cfg(unix)]
#[test]
fn a_link_is_neither_followed_nor_replaced() {
    run(async {
        let (setup, source) = (Setup::new().await, tempfile::tempdir().unwrap());
        let outside = source.path().join("outside");
        std::os::unix::fs::symlink(&outside, setup.out.path().join("link")).unwrap();
        setup.send(&file(&source, "link", b"content")).await.unwrap_err();
        assert!(!outside.exists());
        assert!(setup.out.path().join("link").is_symlink());
    });
}

#[test]
fn of_two_concurrent_files_with_one_name_one_is_stored() {
    run(async {
        let setup = Setup::new().await;
        let sources = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let both = [vec![1; 2_000_000], vec![2; 2_000_000]];
        // Both are announced before one is complete, so that the early check finds no file.
        let early = setup.announce("same", 1).await;
        setup.until(|names| names.len() == 1).await;
        let send = |index: usize| {
            let path = file(&sources[index], "same", &both[index]);
            let setup = &setup;
            async move { setup.send(&path).await }
        };
        let (one, two) = tokio::join!(send(0), send(1));
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        let winner = if one.is_ok() { &both[0] } else { &both[1] };
        early.send(b"x").await.unwrap();
        early.send(&<sha2::Sha256 as sha2::Digest>::digest(b"x")).await.unwrap();
        assert_eq!(code(&early).await, close_code::NAME_EXISTS, "the final check decides");
        assert_eq!(&std::fs::read(setup.out.path().join("same")).unwrap(), winner);
        setup.until(|names| names == ["same"]).await;
    });
}

#[test]
fn a_file_is_invisible_until_complete_and_removed_on_failure() {
    run(async {
        let setup = Setup::new().await;
        let connection = setup.announce("half", 100).await;
        connection.send(&[7; 50]).await.unwrap();
        setup.until(|names| names.len() == 1).await;
        assert!(setup.names()[0].starts_with('.'), "{:?}", setup.names());
        connection.close(close_code::FAILED, "changed my mind").await;
        setup.until(<[String]>::is_empty).await;

        let wrong_hash = setup.announce("wrong", 3).await;
        wrong_hash.send(b"abc").await.unwrap();
        wrong_hash.send(&[0; 32]).await.unwrap();
        assert_eq!(code(&wrong_hash).await, close_code::FAILED);
        setup.until(<[String]>::is_empty).await;

        for message in [&[0; 4][..], &[]] {
            let too_much = setup.announce("much", 3).await;
            too_much.send(message).await.unwrap();
            assert_eq!(code(&too_much).await, close_code::FAILED);
        }
        setup.until(<[String]>::is_empty).await;
    });
}

#[test]
fn invalid_names_and_sizes_are_rejected_before_any_write() {
    run(async {
        let setup = Setup::with(TRANSFERS, 1000).await;
        for name in ["../up", "/tmp/absolute", ".hidden", "..", "a\0b", ""] {
            let connection = setup.announce(name, 1).await;
            assert_eq!(code(&connection).await, close_code::NAME_REJECTED, "{name:?}");
        }
        let large = setup.announce("large", 1001).await;
        assert_eq!(code(&large).await, close_code::TOO_LARGE);
        let short = setup.dial().await;
        short.send(b"1234567").await.unwrap();
        assert_eq!(code(&short).await, close_code::FAILED);
        assert!(setup.names().is_empty());
    });
}
