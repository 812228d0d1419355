//! Tests of `listen`: peers are served concurrently, and no file is ever replaced.

use super::{Server, TRANSFERS};
use crate::close_code;
use crate::file::message::{Announcement, CHUNK, MIN_WINDOW, Plan};
use crate::file::{FilePath, Source};
use crate::output::Output;
use crate::protocol::FILE;
use crate::transport::Kind;
use net_traits::{
    Bytes, CloseReason, ConnectError, DynConnection, DynTransport, NetConnection, NetCredential,
    NetListener, NetTransport, TrustPolicy,
};
use sha2::{Digest, Sha256};
use std::future::Future;
use std::net::SocketAddr;
use std::ops::Range;
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
    transport: DynTransport,
    address: SocketAddr,
    credential: NetCredential,
    /// Of another peer that the listener trusts.
    other: NetCredential,
    out: TempDir,
}

impl Setup {
    async fn new() -> Self {
        Self::with(TRANSFERS, u64::MAX).await
    }

    async fn with(transfers: usize, max_size: u64) -> Self {
        let listening = NetCredential::self_signed(TrustPolicy::reject_all()).unwrap();
        let dialling = listening.identity();
        let trust = TrustPolicy::hashes([dialling]);
        let dialling = NetCredential::self_signed(trust.clone()).unwrap();
        let other = NetCredential::self_signed(trust).unwrap();
        let identities = [dialling.identity(), other.identity()];
        let listening = listening.with_trust(TrustPolicy::hashes(identities));
        let transport = Kind::Quic.create();
        let bind_addr = "127.0.0.1:0".parse().unwrap();
        let listener = transport.create_listener(bind_addr, &[FILE], listening).await.unwrap();
        let address = listener.local_addr();
        let out = tempfile::tempdir().unwrap();
        let mut server = Server::new(&quiet(), out.path(), max_size, MIN_WINDOW);
        server.transfers = Semaphore::new(transfers);
        let server = Arc::new(server);
        tokio::spawn(async move { server.serve(&listener).await });
        Self { transport, address, credential: dialling, other, out }
    }

    async fn try_dial(&self) -> Result<DynConnection, ConnectError> {
        self.dial_as(&self.credential).await
    }

    async fn dial_as(&self, credential: &NetCredential) -> Result<DynConnection, ConnectError> {
        let transport = Kind::Quic.create();
        transport.connect(self.address, &[FILE], credential.clone()).await
    }

    async fn dial(&self) -> DynConnection {
        self.try_dial().await.unwrap()
    }

    /// Sends a file as `dial` does, and returns how many bytes were sent.
    async fn send(&self, path: &Path) -> anyhow::Result<u64> {
        self.send_as(&self.credential, path).await
    }

    async fn send_as(&self, credential: &NetCredential, path: &Path) -> anyhow::Result<u64> {
        let name = FilePath::parse(path.file_name().unwrap().as_encoded_bytes())?;
        let source = Source::read(path.to_owned(), name).await?;
        let connection = self.dial_as(credential).await?;
        let sent = source.send(&connection, &quiet()).await;
        connection.close(close_code::DONE, "").await;
        sent
    }

    /// Begins a transfer with any name and size, and the hash of `content`.
    async fn announce(&self, name: &str, size: u64, content: &[u8]) -> DynConnection {
        let connection = self.dial().await;
        let (name, hash) = (name.as_bytes(), Sha256::digest(content).into());
        let announcement = Announcement { size, hash, name };
        connection.send(&announcement.encode()).await.unwrap();
        connection
    }

    /// As [`announce`](Self::announce), and returns the ranges that the listener lacks.
    async fn begin(&self, name: &str, content: &[u8]) -> (DynConnection, Vec<Range<u64>>) {
        let size = content.len() as u64;
        let connection = self.announce(name, size, content).await;
        let (plan, _) = connection.recv().await.unwrap();
        (connection, Plan::decode(&plan, size).unwrap().missing)
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

fn quiet() -> Output {
    Output::new(false, true)
}

fn file(directory: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn chunk(offset: u64, bytes: &[u8]) -> Bytes {
    [&offset.to_be_bytes(), bytes].concat().into()
}

async fn code(connection: &DynConnection) -> u64 {
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
        assert_eq!(setup.names().len(), 2, "no partial file is left");
        assert_eq!(std::fs::read(setup.out.path().join("a.bin")).unwrap(), content);
        assert_eq!(std::fs::read(setup.out.path().join("empty")).unwrap(), b"");
    });
}

#[test]
fn stalled_handshakes_and_slow_peers_delay_no_other_peer() {
    run(async {
        let (setup, source) = (Setup::new().await, tempfile::tempdir().unwrap());
        let stalled = 8;
        let transport = Kind::Quic.create();
        for _ in 0..stalled {
            // msquic distinguishes clients by their addresses, so each has a relay.
            let relay = one_way(setup.address).await;
            let (transport, credential) = (transport.clone(), setup.credential.clone());
            tokio::spawn(async move { transport.connect(relay, &[FILE], credential).await });
        }
        while setup.transport.statistics().handshakes < stalled {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let silent = setup.dial().await;
        let (slow, _) = setup.begin("slow", b"1234567890").await;
        slow.send_bytes(chunk(0, b"12345")).await.unwrap();

        let honest = file(&source, "honest", b"content");
        tokio::select! {
            sent = setup.send(&honest) => assert_eq!(sent.unwrap(), 7),
            () = until_no_handshake(&setup) => panic!("it waits for the others"),
        }
        assert_eq!(std::fs::read(setup.out.path().join("honest")).unwrap(), b"content");
        drop((silent, slow));
    });
}

async fn until_no_handshake(setup: &Setup) {
    while setup.transport.statistics().handshakes > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn peers_over_the_limit_are_rejected_as_busy() {
    run(async {
        let (setup, source) = (Setup::with(1, u64::MAX).await, tempfile::tempdir().unwrap());
        let (first, _) = setup.begin("first", b"1234567890").await;
        match setup.try_dial().await {
            Ok(second) => assert_eq!(code(&second).await, close_code::BUSY),
            // The close may arrive before the dialler knows that its handshake is done.
            Err(ConnectError::Closed(CloseReason::Peer { code: close_code::BUSY, .. })) => {}
            Err(error) => panic!("{error}"),
        }
        first.close(close_code::FAILED, "").await;
        // The place becomes free shortly after the close.
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
        let refused = setup.announce("me.pem", 1, b"x").await;
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
        let (setup, sources) =
            (Setup::new().await, [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]);
        let both = [vec![1; 2_000_000], vec![2; 2_000_000]];
        let (one, two) = (file(&sources[0], "same", &both[0]), file(&sources[1], "same", &both[1]));
        let (one, two) = tokio::join!(setup.send(&one), setup.send_as(&setup.other, &two));
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        let winner = if one.is_ok() { &both[0] } else { &both[1] };
        assert_eq!(&std::fs::read(setup.out.path().join("same")).unwrap(), winner);
        setup.until(|names| names == ["same"]).await;
    });
}

#[test]
fn a_newer_transfer_of_the_same_peer_and_name_replaces_the_older() {
    run(async {
        let (setup, source) = (Setup::new().await, tempfile::tempdir().unwrap());
        let content = [7; 100];
        let (older, _) = setup.begin("a", &content).await;
        older.send_bytes(chunk(0, &content[..40])).await.unwrap();
        // The listener has the bytes before the next dial.
        while std::fs::metadata(partial_of(&setup)).unwrap().len() < 40 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(setup.send(&file(&source, "a", &content)).await.unwrap(), 60);
        assert_eq!(code(&older).await, close_code::REPLACED);
        assert_eq!(std::fs::read(setup.out.path().join("a")).unwrap(), content);
        setup.until(|names| names == ["a"]).await;
    });
}

fn partial_of(setup: &Setup) -> PathBuf {
    let names = setup.names();
    let name = names.iter().find(|name| name.starts_with(".partial-") && !name.contains(".map"));
    setup.out.path().join(name.expect("there is a partial file"))
}

#[test]
fn an_interrupted_transfer_is_resumed_and_a_changed_source_is_not() {
    run(async {
        let (setup, source) = (Setup::new().await, tempfile::tempdir().unwrap());
        let content: Vec<u8> = (0..1000_u32).map(|index| index as u8).collect();
        let (connection, missing) = setup.begin("half", &content).await;
        assert_eq!(missing, [0..1000]);
        // In any order.
        connection.send_bytes(chunk(900, &content[900..])).await.unwrap();
        connection.send_bytes(chunk(0, &content[..50])).await.unwrap();
        connection.close(close_code::FAILED, "interrupted").await;
        setup.until(|names| names.iter().all(|name| name.starts_with('.'))).await;

        let (connection, missing) = setup.begin("half", &content).await;
        assert_eq!(missing, [50..900]);
        drop(connection);
        assert_eq!(setup.send(&file(&source, "half", &content)).await.unwrap(), 850);
        assert_eq!(std::fs::read(setup.out.path().join("half")).unwrap(), content);
        setup.until(|names| names == ["half"]).await;

        let (connection, _) = setup.begin("changes", &content).await;
        connection.send_bytes(chunk(0, &content[..50])).await.unwrap();
        connection.close(close_code::FAILED, "").await;
        assert_eq!(setup.send(&file(&source, "changes", &content[1..])).await.unwrap(), 999);
    });
}

#[test]
fn a_dialler_that_was_not_told_of_a_stored_file_is_told_again() {
    run(async {
        let (setup, source) = (Setup::new().await, tempfile::tempdir().unwrap());
        let (connection, _) = setup.begin("a", b"content").await;
        connection.send_bytes(chunk(0, b"content")).await.unwrap();
        setup.until(|names| names == ["a"]).await;
        connection.abort(close_code::FAILED, "");
        let path = file(&source, "a", b"content");
        assert_eq!(setup.send(&path).await.unwrap(), 0);
        assert_eq!(setup.send_as(&setup.other, &path).await.unwrap(), 0);
        assert_eq!(setup.names(), ["a"]);
    });
}

#[test]
fn several_files_are_sent_on_one_connection() {
    run(async {
        let (setup, source) = (Setup::new().await, tempfile::tempdir().unwrap());
        let path = file(&source, "x", b"content");
        let connection = setup.dial().await;
        for name in ["one", "deep/er/two", "deep/three"] {
            let name = FilePath::parse(name.as_bytes()).unwrap();
            let source = Source::read(path.clone(), name.clone()).await.unwrap();
            assert_eq!(source.send(&connection, &quiet()).await.unwrap(), 7);
            let stored = std::fs::read(name.within(setup.out.path())).unwrap();
            assert_eq!(stored, b"content");
        }
        connection.close(close_code::DONE, "").await;
    });
}

#[test]
fn content_with_another_hash_is_removed() {
    run(async {
        let setup = Setup::new().await;
        let (wrong, _) = setup.begin("wrong", b"abc").await;
        wrong.send_bytes(chunk(0, b"abx")).await.unwrap();
        match wrong.watch_close().await {
            CloseReason::Peer { code: close_code::FAILED, reason, .. } => {
                let reason = reason.to_string();
                assert!(reason.contains("does not have the announced SHA-256"), "{reason}");
            }
            reason => panic!("{reason}"),
        }
        assert!(setup.names().is_empty());
    });
}

#[test]
fn invalid_chunks_are_rejected_and_never_stored() {
    run(async {
        let setup = Setup::new().await;
        for (index, message) in [
            chunk(95, &[0; 6]),
            chunk(100, &[0; 1]),
            chunk(u64::MAX, &[0; 1]),
            chunk(5, &[0; 1]), // received already
            chunk(50, &[]),
            chunk(0, &vec![0; CHUNK + 1]),
            Bytes::from_static(b"short"),
            Bytes::new(),
        ]
        .into_iter()
        .enumerate()
        {
            let (connection, _) = setup.begin(&format!("a{index}"), &[0; 100]).await;
            connection.send_bytes(chunk(0, &[0; 10])).await.unwrap();
            connection.send_bytes(message).await.unwrap();
            assert_eq!(code(&connection).await, close_code::FAILED, "{index}");
            // What was valid is kept.
            let (_connection, missing) = setup.begin(&format!("a{index}"), &[0; 100]).await;
            assert_eq!(missing, [10..100], "{index}");
        }
        assert!(setup.names().iter().all(|name| name.starts_with(".partial-")));
    });
}

#[test]
fn invalid_names_and_sizes_are_rejected_before_any_write() {
    run(async {
        let setup = Setup::with(TRANSFERS, 1000).await;
        for name in ["../up", "/tmp/absolute", ".hidden", "..", "a\0b", ""] {
            let connection = setup.announce(name, 1, b"x").await;
            assert_eq!(code(&connection).await, close_code::NAME_REJECTED, "{name:?}");
        }
        let large = setup.announce("large", 1001, b"x").await;
        assert_eq!(code(&large).await, close_code::TOO_LARGE);
        let short = setup.dial().await;
        short.send(&[0; 39]).await.unwrap();
        assert_eq!(code(&short).await, close_code::FAILED);
        assert!(setup.names().is_empty());
    });
}
