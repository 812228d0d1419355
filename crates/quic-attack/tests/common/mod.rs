//! msquic-async endpoints to attack, and sockets to attack from.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod paths;

use futures::channel::oneshot;
use futures::executor::block_on;
use futures::future::{Either, select};
use msquic_async::ConnectionStartError;
use msquic_async::{
    Configuration, Connection, Listener, NetCredential, Registration, Settings, TrustPolicy,
};
use quic_attack::{Attempt, Frame, Host, Identity, Opened, Parameters, Peer, Received};
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) const ALPN: &str = "test/1";

/// How long an answer over loopback may take on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);

/// A listener with the registration and the configuration for connections of the test.
pub(crate) struct Target {
    pub(crate) registration: Registration,
    pub(crate) listener: Listener,
    pub(crate) address: SocketAddr,
}

impl Target {
    pub(crate) fn new() -> Self {
        Self::with(&[ALPN], settings())
    }

    pub(crate) fn with(alpn: &[&str], settings: Settings) -> Self {
        let registration = Registration::new("attacked").unwrap();
        let credential = credential();
        let configuration =
            Configuration::server(&registration, alpn, &settings, &credential).unwrap();
        let listener = Listener::new(&registration, configuration, credential).unwrap();
        listener.start(alpn, Some("127.0.0.1:0".parse().unwrap())).unwrap();
        let address = listener.local_addr().unwrap();
        Self { registration, listener, address }
    }

    /// Accepts connections on a separate thread and waits for their handshakes, until the listener
    /// stops. Successful connections are kept.
    pub(crate) fn serve(self) -> Arc<Self> {
        let target = Arc::new(self);
        let serving = target.clone();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            while let Ok(connection) = block_on(serving.listener.accept()) {
                held.push(connection);
                if held.len() > 256 {
                    held.retain(|connection: &Connection| connection.close_reason().is_none());
                }
            }
        });
        target
    }

    /// Connects an honest client, with an accepting thread.
    pub(crate) fn connects(&self) -> Result<Connection, ConnectionStartError> {
        let client = Connection::new(&self.registration, credential()).unwrap();
        let configuration = client_configuration(&self.registration);
        block_on(client.start(&configuration, "127.0.0.1", self.address.port()))?;
        Ok(client)
    }

    /// Connects a scripted client, and accepts its connection.
    pub(crate) fn peer(&self) -> (Peer, Connection) {
        self.peer_with(Parameters::generous())
    }

    pub(crate) fn peer_with(&self, parameters: Parameters) -> (Peer, Connection) {
        let address = self.address;
        let (done, finished) = oneshot::channel();
        std::thread::spawn(move || {
            let identity = Identity::new(&[ALPN]);
            let _ = done.send(Peer::connect(address, &identity, parameters, TIMEOUT));
        });
        let accept = pin!(async {
            let server = self.listener.accept().await.unwrap();
            server.accept().await.unwrap();
            server
        });
        // A failed client must end the test, since the listener would wait for another client.
        let both = async {
            match select(accept, finished).await {
                Either::Left((server, finished)) => (finished.await, server),
                Either::Right((Ok(Ok(peer)), accept)) => (Ok(Ok(peer)), accept.await),
                Either::Right((failed, _)) => panic!("the scripted client failed: {failed:?}"),
            }
        };
        let (peer, server) = block_on(both);
        (peer.unwrap().unwrap(), server)
    }
}

pub(crate) fn client_configuration(registration: &Registration) -> Configuration {
    Configuration::client(registration, &[ALPN], &settings(), &credential()).unwrap()
}

/// A host whose protocol is [`ALPN`].
pub(crate) fn host() -> Host {
    Host::bind(&Identity::new(&[ALPN]), &Parameters::generous()).unwrap()
}

/// A running connection attempt of an msquic client.
pub(crate) struct Dial {
    pub(crate) registration: Registration,
    pub(crate) connection: Connection,
    attempt: JoinHandle<Result<(), ConnectionStartError>>,
}

impl Dial {
    /// Starts an attempt to reach `address`.
    pub(crate) fn start(address: SocketAddr) -> Self {
        Self::start_with(address, &[ALPN], &settings(), None)
    }

    /// Starts an attempt that shares its sockets with others, or not.
    pub(crate) fn start_sharing(address: SocketAddr, shares: bool) -> Self {
        Self::start_with(address, &[ALPN], &settings(), Some(shares))
    }

    pub(crate) fn start_with(
        address: SocketAddr,
        alpn: &[&str],
        settings: &Settings,
        shares: Option<bool>,
    ) -> Self {
        let registration = Registration::new("attacked").unwrap();
        let connection = Connection::new(&registration, credential()).unwrap();
        if let Some(shares) = shares {
            connection.set_share_binding(shares).unwrap();
        }
        let configuration =
            Configuration::client(&registration, alpn, settings, &credential()).unwrap();
        let start = connection.start(&configuration, "127.0.0.1", address.port());
        let attempt = std::thread::spawn(move || block_on(start));
        Self { registration, connection, attempt }
    }

    /// Waits for the end of the attempt.
    pub(crate) fn finish(self) -> (Connection, Result<(), ConnectionStartError>) {
        (self.connection, self.attempt.join().unwrap())
    }
}

/// Whether a packet acknowledges `number`.
pub(crate) fn acknowledges(received: &Received, number: u64) -> bool {
    let has = |frame: &Frame| matches!(frame, Frame::Ack(ack) if ack.contains(number));
    received.packet.frames.iter().any(has)
}

/// A credential that trusts all peers.
pub(crate) fn credential() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

pub(crate) fn settings() -> Settings {
    Settings::new().peer_bidi_streams(8).peer_uni_streams(8).idle_timeout(Duration::from_secs(20))
}

/// A socket on loopback that sends to `address`, with a short timeout for receiving.
pub(crate) fn socket(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

/// The next datagram before `deadline`.
pub(crate) fn receive(socket: &UdpSocket, deadline: Instant) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    while Instant::now() < deadline {
        if let Ok(length) = socket.recv(&mut buffer) {
            buffer.truncate(length);
            return Some(buffer);
        }
    }
    None
}

/// The first Initial packet of the answers to `attempt` for which `is_wanted` holds.
pub(crate) fn answer(
    socket: &UdpSocket,
    attempt: &mut Attempt,
    is_wanted: impl Fn(&Opened) -> bool,
) -> Option<Opened> {
    let deadline = Instant::now() + TIMEOUT;
    while let Some(datagram) = receive(socket, deadline) {
        let opened = attempt.open(&datagram).unwrap_or_default();
        if let Some(packet) = opened.into_iter().find(&is_wanted) {
            return Some(packet);
        }
    }
    None
}
