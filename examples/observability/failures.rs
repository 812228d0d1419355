//! Each failed attempt is logged and counted once, by cause, on each side that learns of it.

#[path = "../../crates/msquic-transport/tests/common/certificates.rs"]
#[allow(dead_code, reason = "shared with the tests of msquic-transport")]
mod certificates;
#[path = "../../crates/msquic-transport/tests/quinn_peer/mod.rs"]
mod quinn_peer;

use crate::observer;
use certificates::{expired, forged, not_yet_valid};
use net_traits::{
    CertificateDer, ConnectError, Endorser, Endorsers, NetConnection, NetCredential,
    NetIncomingRequest, NetListener, NetTransport, PeerIdentity, PeerVerifier, TrustPolicy,
};
use net_traits_test::Limits;
use net_traits_test::memory::MemoryNetwork;
use quinn_peer::{QuinnPeer, Verdict, tls};
use rustls::CertificateError;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const ALPN: &str = "failures/1";

/// The timeout of handshakes.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// An attempt that fails.
struct Case {
    what: &'static str,
    dialler: NetCredential,
    listener: NetCredential,
    offered: &'static str,
    /// Causes that the dialler may report; `*` ends a prefix.
    out: &'static [&'static str],
    /// Causes that the listener may report.
    into: &'static [&'static str],
}

/// Cases in which the key of the dialler cannot be used, which it may notice itself.
const OF_OWN_KEY: [&str; 2] = ["a client with an unsupported key", "a client without the key"];

const BY_PEER: &[&str] = &["rejected_by_peer*"];

/// Rejects all peers.
struct RejectsAll;

impl PeerVerifier for RejectsAll {
    fn verify(&self, _: &PeerIdentity, _: &CertificateDer<'_>) -> Result<(), String> {
        Err("rejected by the test".to_owned())
    }
}

fn node(trust: TrustPolicy) -> NetCredential {
    NetCredential::self_signed(trust).unwrap()
}

fn any() -> NetCredential {
    node(TrustPolicy::Any)
}

/// Its key is on a curve that no transport supports.
fn p521() -> NetCredential {
    let pem = include_bytes!("../../crates/net-traits-test/src/suite/credentials/p521.pem");
    NetCredential::from_pem(pem, TrustPolicy::Any).unwrap()
}

/// The certificate of a node with the key of another.
fn stolen(certificate: &NetCredential) -> NetCredential {
    let (chain, key) = (certificate.certificate_chain().to_vec(), any().private_key().clone_key());
    NetCredential::new(chain, key, TrustPolicy::Any).unwrap()
}

fn endorsed_by_another() -> TrustPolicy {
    TrustPolicy::endorsed_by(Endorsers::new([Endorser::generate().unwrap().key()]))
}

/// A client that is rejected, and a server that is rejected, for each reason; and no common protocol.
fn cases() -> Vec<Case> {
    let client = |what, dialler, listener, into| Case {
        what,
        dialler,
        listener,
        offered: ALPN,
        out: BY_PEER,
        into,
    };
    let server = |what, dialler, listener, out| Case {
        what,
        dialler,
        listener,
        offered: ALPN,
        out,
        into: BY_PEER,
    };
    let stranger = || TrustPolicy::hashes([any().identity()]);
    vec![
        client(
            "an unknown client",
            any(),
            node(stranger()),
            &["rejected_by_us untrusted_identity"],
        ),
        client(
            "a client without endorsement",
            any(),
            node(endorsed_by_another()),
            &["rejected_by_us not_endorsed"],
        ),
        client(
            "a client that the application rejects",
            any(),
            node(TrustPolicy::custom(RejectsAll)),
            &["rejected_by_us refused"],
        ),
        client("an expired client", expired(), any(), &["rejected_by_us expired"]),
        client(
            "a client that is not yet valid",
            not_yet_valid(),
            any(),
            &["rejected_by_us not_yet_valid"],
        ),
        client("a forged client", forged(), any(), &["rejected_by_us bad_signature"]),
        client("a client with an unsupported key", p521(), any(), &["rejected_by_us unsupported"]),
        client("a client without the key", stolen(&any()), any(), &["rejected_by_us unproven"]),
        server(
            "an unknown server",
            node(stranger()),
            any(),
            &["rejected_by_us untrusted_identity"],
        ),
        server(
            "a server without endorsement",
            node(endorsed_by_another()),
            any(),
            &["rejected_by_us not_endorsed"],
        ),
        server(
            "a server that the application rejects",
            node(TrustPolicy::custom(RejectsAll)),
            any(),
            &["rejected_by_us refused"],
        ),
        server("an expired server", any(), expired(), &["rejected_by_us expired"]),
        server(
            "a server that is not yet valid",
            any(),
            not_yet_valid(),
            &["rejected_by_us not_yet_valid"],
        ),
        server("a forged server", any(), forged(), &["rejected_by_us bad_signature"]),
        Case {
            what: "another protocol",
            dialler: any(),
            listener: any(),
            offered: "other/1",
            out: &["no_common_alpn"],
            into: &["no_common_alpn"],
        },
    ]
}

/// Failed attempts, and connections that ended because the peer rejected them later, as `direction
/// cause detail`.
#[derive(Debug, Clone, PartialEq)]
struct Reports {
    counted: BTreeMap<String, u64>,
    events: BTreeMap<String, u64>,
}

impl Reports {
    fn now(transport: &str) -> Self {
        let mut counted = BTreeMap::new();
        let failed = observer::values("net_handshakes_failed_total", transport).into_iter();
        // With TLS 1.3 the dialler is connected before the listener has verified it.
        let late = observer::values("net_connections_closed_total", transport).into_iter();
        let late = late.filter(|(cause, _)| cause.starts_with("rejected_by_peer"));
        for (name, count) in
            failed.chain(late.map(|(cause, count)| (format!("out {cause}"), count)))
        {
            *counted.entry(name).or_default() += count as u64;
        }
        let mut events = BTreeMap::new();
        for line in observer::events("handshake failed", transport) {
            let field = |name: &str| line.get(name).cloned().unwrap_or_default();
            let name = [field("direction"), field("cause"), field("detail")].join(" ");
            *events.entry(name.trim_end().to_owned()).or_default() += 1;
        }
        Self { counted, events }
    }

    fn since(&self, before: &Self) -> Self {
        let less = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            let grown = now.iter().map(|(name, count)| {
                (name.clone(), count - before.get(name).copied().unwrap_or(0))
            });
            grown.filter(|(_, count)| *count > 0).collect()
        };
        Self {
            counted: less(&self.counted, &before.counted),
            events: less(&self.events, &before.events),
        }
    }

    /// The causes in one direction.
    fn of(&self, direction: &str) -> Vec<&str> {
        let of_it = self.counted.iter().flat_map(|(name, count)| {
            let cause = name.strip_prefix(direction).map(str::trim_start);
            std::iter::repeat_n(cause, *count as usize).flatten()
        });
        of_it.collect()
    }
}

fn matches(reports: &[&str], expected: &[&str]) -> bool {
    let is_one = |cause: &str| {
        expected.iter().any(|expected| match expected.strip_suffix('*') {
            Some(prefix) => cause.starts_with(prefix),
            None => cause == *expected,
        })
    };
    match reports {
        [] => expected.is_empty(),
        [cause] => is_one(cause),
        _ => false,
    }
}

/// Waits until each side has counted exactly one of the expected causes, and logged the same.
async fn expect(name: &str, what: &str, before: &Reports, out: &[&str], into: &[&str]) {
    let is_complete = |reports: &Reports| {
        let counted_as_failed = |name: &String| reports.events.contains_key(name);
        matches(&reports.of("out"), out)
            && matches(&reports.of("in"), into)
            && reports.events.iter().all(|(name, count)| reports.counted.get(name) == Some(count))
            && reports
                .counted
                .keys()
                .all(|name| counted_as_failed(name) || name.contains("_by_peer"))
    };
    let mut reports = Reports::now(name).since(before);
    let wait = async {
        while !is_complete(&reports) {
            sleep(Duration::from_millis(10)).await;
            reports = Reports::now(name).since(before);
        }
    };
    if timeout(HANDSHAKE * 5, wait).await.is_err() {
        panic!("{name}, {what}: {reports:?}; expected out {out:?}, in {into:?}");
    }
}

/// Tries all cases with one transport. `unseen` are those that its listener does not learn of.
async fn run<T: NetTransport>(
    name: &'static str,
    make: impl Fn() -> T,
    here: SocketAddr,
    unseen: &[&str],
) {
    for case in cases() {
        let Case { what, dialler, listener, offered, out, into } = case;
        if name == "memory" && what == "a client without the key" {
            continue; // nothing is signed there
        }
        let (dialling, listening) = (make(), make());
        let before = Reports::now(name);
        let listener = listening.create_listener(here, &[ALPN], listener).await.unwrap();
        let is_unusable = Notify::new();
        let serve = async {
            tokio::select! {
                request = listener.accept() => drop(request.unwrap().accept().await),
                () = is_unusable.notified() => {}
            }
        };
        let dial = async {
            match dialling.connect(listener.local_addr(), &[offered], dialler).await {
                Ok(connection) => drop(connection.watch_close().await), // the rejection comes later
                Err(ConnectError::Credential(_)) => {
                    is_unusable.notify_one();
                    return true;
                }
                Err(_) => {}
            }
            false
        };
        let (out, into) = if unseen.contains(&what) {
            dial_only(&dialling, listener.local_addr(), offered).await;
            (out, &[][..])
        } else if tokio::join!(dial, serve).0 {
            assert!(OF_OWN_KEY.contains(&what), "{name}, {what}");
            (&["credential"][..], &[][..])
        } else {
            (out, into)
        };
        expect(name, what, &before, out, into).await;
    }
    not_accepted(name, &make, here).await;
}

async fn dial_only<T: NetTransport>(dialling: &T, remote_addr: SocketAddr, offered: &str) {
    dialling.connect(remote_addr, &[offered], any()).await.map(drop).unwrap_err();
}

/// Attempts that no listener accepts.
async fn not_accepted<T: NetTransport>(
    name: &'static str,
    make: &impl Fn() -> T,
    here: SocketAddr,
) {
    let (dialling, listening) = (make(), make());
    let before = Reports::now(name);
    dial_only(&dialling, unused_address(here), ALPN).await;
    expect(name, "an address without a listener", &before, &["refused", "timed_out"], &[]).await;

    if here.ip().is_loopback() {
        let silent = (TcpListener::bind(here).unwrap(), UdpSocket::bind(here).unwrap());
        let address = if name == "tcp" { silent.0.local_addr() } else { silent.1.local_addr() };
        let before = Reports::now(name);
        dial_only(&dialling, address.unwrap(), ALPN).await;
        expect(name, "an address that does not answer", &before, &["timed_out"], &[]).await;
    }

    let before = Reports::now(name);
    dial_only(&dialling, SocketAddr::new(here.ip(), 0), ALPN).await;
    expect(name, "port 0", &before, &["invalid_input"], &[]).await;

    let listener = listening.create_listener(here, &[ALPN], any()).await.unwrap();
    let dial = || async {
        let dialled = dialling.connect(listener.local_addr(), &[ALPN], any()).await;
        if let Ok(connection) = dialled {
            connection.watch_close().await;
        }
    };
    let before = Reports::now(name);
    tokio::join!(dial(), async { listener.accept().await.unwrap().refuse(7) });
    let refused = &["refused", "closed*", "timed_out"];
    expect(name, "a request that is refused", &before, refused, &["refused_by_us"]).await;

    let before = Reports::now(name);
    tokio::join!(dial(), async { drop(listener.accept().await.unwrap()) });
    expect(name, "a request that is dropped", &before, refused, &["canceled"]).await;

    let before = Reports::now(name);
    tokio::select! {
        () = dial() => panic!("it is not accepted"),
        request = listener.accept() => drop(request),
    }
    expect(name, "a dial that is dropped", &before, &["canceled"], &["canceled"]).await;
}

/// Sends a request of HTTP to a listener of TCP.
async fn not_tls<T: NetTransport>(name: &'static str, make: impl Fn() -> T) {
    let before = Reports::now(name);
    let listening = make();
    let listener = listening.create_listener(local(), &[ALPN], any()).await.unwrap();
    let mut stream = TcpStream::connect(listener.local_addr()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    listener.accept().await.unwrap().accept().await.map(drop).unwrap_err();
    expect(name, "a request of HTTP", &before, &[], &["closed transport"]).await;
}

/// Which of these a foreign peer speaks.
#[derive(Clone, Copy)]
enum Foreign {
    Quic,
    Tls,
}

impl Foreign {
    /// Connects until the end of the connection.
    async fn dial(self, peer: Option<&NetCredential>, verdict: Verdict, listener: SocketAddr) {
        match self {
            Self::Quic => {
                let peer = QuinnPeer::new(peer, verdict, ALPN);
                if let Ok(connection) = peer.connect(listener).await {
                    connection.closed().await;
                }
            }
            Self::Tls => {
                let client = TlsConnector::from(Arc::new(tls(peer, verdict, ALPN).0));
                let stream = net::TcpStream::connect(listener).await.unwrap();
                if let Ok(mut stream) = client.connect(listener.ip().into(), stream).await {
                    let _ = stream.read_u8().await; // the alert
                }
            }
        }
    }

    /// Has `dial` connect to a listener of a foreign peer, which ignores the failure.
    async fn listen(self, peer: &NetCredential, dial: impl AsyncFnOnce(SocketAddr)) {
        match self {
            Self::Quic => {
                let peer = QuinnPeer::new(Some(peer), Verdict::Accepts, ALPN);
                let _ = tokio::join!(dial(peer.local_addr()), peer.accept());
            }
            Self::Tls => {
                let (_, server) = tls(Some(peer), Verdict::Accepts, ALPN);
                let server = TlsAcceptor::from(Arc::new(server.unwrap()));
                let listener = net::TcpListener::bind(local()).await.unwrap();
                let accept = async { server.accept(listener.accept().await.unwrap().0).await };
                let _ = tokio::join!(dial(listener.local_addr().unwrap()), accept);
            }
        }
    }
}

/// Connects with another implementation of TLS, which does not check its own credential.
async fn foreign<T: NetTransport>(name: &'static str, foreign: Foreign, make: impl Fn() -> T) {
    // The certificate is judged before the signature.
    let (own, stolen, unsupported) = (any(), stolen(&any()), stolen(&p521()));
    let rejects = Verdict::Rejects;
    for (what, credential, verdict, cause) in [
        ("no certificate", None, Verdict::Accepts, "rejected_by_us no_certificate"),
        ("no key", Some(&stolen), Verdict::Accepts, "rejected_by_us unproven"),
        ("an unsupported key", Some(&unsupported), Verdict::Accepts, "rejected_by_us unsupported"),
        (
            "a bad certificate",
            Some(&own),
            rejects(CertificateError::BadEncoding),
            "rejected_by_peer bad_certificate",
        ),
        (
            "an expired certificate",
            Some(&own),
            rejects(CertificateError::Expired),
            "rejected_by_peer certificate_expired",
        ),
        (
            "an unknown certificate",
            Some(&own),
            rejects(CertificateError::UnknownIssuer),
            "rejected_by_peer unknown_ca",
        ),
    ] {
        let before = Reports::now(name);
        let listening = make();
        let listener = listening.create_listener(local(), &[ALPN], any()).await.unwrap();
        let dial = foreign.dial(credential, verdict, listener.local_addr());
        let accept = async { listener.accept().await.unwrap().accept().await.err().unwrap() };
        tokio::join!(dial, accept);
        expect(name, &format!("a foreign client: {what}"), &before, &[], &[cause]).await;
    }

    for (what, peer, cause) in [
        ("no key", &stolen, "rejected_by_us unproven"),
        ("an unsupported key", &unsupported, "rejected_by_us unsupported"),
    ] {
        let (before, dialling) = (Reports::now(name), make());
        foreign.listen(peer, async |address| dial_only(&dialling, address, ALPN).await).await;
        expect(name, &format!("a foreign server: {what}"), &before, &[cause], &[]).await;
    }
}

/// Returns an address at which nothing listens.
fn unused_address(here: SocketAddr) -> SocketAddr {
    if !here.ip().is_loopback() {
        return SocketAddr::new(here.ip(), 9);
    }
    let udp = UdpSocket::bind(here).unwrap();
    let address = udp.local_addr().unwrap();
    drop(TcpListener::bind(address).unwrap());
    address
}

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn tcp_reports_each_failure() {
    let config = tcp_tls_transport::TcpTlsConfig::new().handshake_timeout(HANDSHAKE);
    let make = || tcp_tls_transport::TcpTlsTransport::with_config(config.clone()).unwrap();
    observer::test("tcp", false, async {
        run("tcp", &make, local(), &[]).await;
        not_tls("tcp", &make).await;
        foreign("tcp", Foreign::Tls, &make).await;
    });
}

#[test]
fn quinn_reports_each_failure() {
    let config = quinn_transport::QuinnConfig::new().handshake_timeout(HANDSHAKE);
    let make = || quinn_transport::QuinnTransport::with_config(config.clone()).unwrap();
    observer::test("quinn", false, async {
        run("quinn", &make, local(), &[]).await;
        foreign("quinn", Foreign::Quic, &make).await;
    });
}

/// msquic chooses the listener by the protocol, and reports an attempt without a common protocol to none.
#[cfg(feature = "msquic")]
#[test]
fn msquic_reports_each_failure() {
    let config = msquic_transport::MsQuicTransportConfig::new().handshake_timeout(HANDSHAKE);
    let make = || msquic_transport::MsQuicTransport::with_config(config.clone()).unwrap();
    observer::test("quic", false, async {
        run("quic", &make, local(), &["another protocol"]).await;
        foreign("quic", Foreign::Quic, &make).await;
    });
}

#[test]
fn the_memory_network_reports_each_failure() {
    let network = MemoryNetwork::new(1);
    let limits = Limits { handshake_timeout: HANDSHAKE, ..Limits::default() };
    // Log lines are limited per host.
    let make = || network.transport_with(limits.clone());
    observer::test("memory", false, run("memory", make, "0.0.0.0:0".parse().unwrap(), &[]));
}
