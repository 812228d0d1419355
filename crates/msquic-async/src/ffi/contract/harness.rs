//! The setup of most tests: a certificate, configurations, two connected peers, an occupied worker.

use super::events::{Answer, Call, Event, TIMEOUT};
use super::handles::{Object, Open, ignore, is_connected};
use super::roots::{Configuration, Registration};
use crate::Settings;
use crate::ffi::Handle;
use crate::ffi::functions::call;
use crate::ffi::holding::Holding;
use crate::ffi::status::Status;
use msquic::ffi;
use net_traits::{NetCredential, TrustPolicy};
use parking_lot::Mutex;
use std::mem;
use std::net::SocketAddr;
use std::ptr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, LazyLock};

pub(super) const ALPN: &[u8] = b"contract/1";
pub(super) const LOOPBACK: &str = "127.0.0.1:0";

/// Ends both directions of a stream at once.
pub(super) const ABORT_NOW: ffi::QUIC_STREAM_SHUTDOWN_FLAGS =
    ffi::QUIC_STREAM_SHUTDOWN_FLAGS_QUIC_STREAM_SHUTDOWN_FLAG_ABORT
        | ffi::QUIC_STREAM_SHUTDOWN_FLAGS_QUIC_STREAM_SHUTDOWN_FLAG_IMMEDIATE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    /// A client without a certificate.
    Anonymous,
    Server,
}

/// A certificate in DER, and the bundle with its key.
pub(super) struct Identity {
    pub(super) certificate: Vec<u8>,
    bundle: Vec<u8>,
}

/// The identity of both peers.
pub(super) static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    Identity {
        certificate: credential.certificate_chain()[0].to_vec(),
        bundle: crate::pkcs12::bundle(&credential).unwrap().to_vec(),
    }
});

/// Settings with sufficient limits, and short timeouts for a peer that does not answer.
pub(super) fn plenty() -> Settings {
    Settings::new()
        .peer_uni_streams(8)
        .peer_bidi_streams(8)
        .datagrams(true)
        .initial_rtt(std::time::Duration::from_millis(20))
}

impl Registration {
    pub(super) fn configure(&self, role: Role, settings: &Settings) -> Configuration {
        let mut native = settings.to_native();
        if settings.holding() == Holding::Several {
            native.receive_several();
        }
        self.configure_native(role, *native.get()).unwrap()
    }

    /// Opens and loads a configuration. What it is made of does not outlive the calls.
    pub(super) fn configure_native(
        &self,
        role: Role,
        mut settings: ffi::QUIC_SETTINGS,
    ) -> Result<Configuration, Status> {
        let mut handle = ptr::null_mut();
        let mut alpn = ALPN.to_vec();
        let mut names = [ffi::QUIC_BUFFER { Length: alpn.len() as u32, Buffer: alpn.as_mut_ptr() }];
        // SAFETY: C7, C10, C11: names and settings are copied before the call returns.
        Status::ok(unsafe {
            let length = size_of_val(&settings) as u32;
            let (names, settings) = (names.as_ptr(), &raw const settings);
            let context = ptr::null_mut();
            call!(ConfigurationOpen(
                self.handle.0,
                names,
                1,
                settings,
                length,
                context,
                &raw mut handle
            ))
        })?;
        let configuration = Configuration { handle: Handle(handle) };
        alpn.fill(b'x');
        names[0].Length = 0;
        // SAFETY: C10: integers, for which zero is valid.
        settings = unsafe { mem::zeroed() };
        let _ = (alpn, names, settings);
        load(&configuration, role)?;
        Ok(configuration)
    }
}

/// Loads the certificate from memory that is overwritten at once (C12).
fn load(configuration: &Configuration, role: Role) -> Result<(), Status> {
    let mut blob = IDENTITY.bundle.clone();
    let mut bundle = ffi::QUIC_CERTIFICATE_PKCS12 {
        Asn1Blob: blob.as_ptr(),
        Asn1BlobLength: blob.len() as u32,
        PrivateKeyPassword: ptr::null(),
    };
    // SAFETY: C10: integers and pointers, for which zero is valid.
    let mut config: ffi::QUIC_CREDENTIAL_CONFIG = unsafe { mem::zeroed() };
    config.Flags = ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_NO_CERTIFICATE_VALIDATION
        | ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_INDICATE_CERTIFICATE_RECEIVED
        | ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_USE_PORTABLE_CERTIFICATES
        | match role {
            Role::Client | Role::Anonymous => {
                ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_CLIENT
            }
            Role::Server => {
                ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_REQUIRE_CLIENT_AUTHENTICATION
            }
        };
    config.Type = ffi::QUIC_CREDENTIAL_TYPE_QUIC_CREDENTIAL_TYPE_NONE;
    if role != Role::Anonymous {
        config.Type = ffi::QUIC_CREDENTIAL_TYPE_QUIC_CREDENTIAL_TYPE_CERTIFICATE_PKCS12;
        config.__bindgen_anon_1.CertificatePkcs12 = &raw mut bundle;
    }
    // SAFETY: C12: the bundle is read before the call returns.
    let loaded =
        unsafe { call!(ConfigurationLoadCredential(configuration.handle.0, &raw const config)) };
    blob.fill(0);
    Status::ok(loaded)
}

/// The code of a test in the callbacks of one handle.
pub(super) type React = Arc<dyn Fn(&Call<'_>) -> Answer + Send + Sync>;

pub(super) fn react(function: impl Fn(&Call<'_>) -> Answer + Send + Sync + 'static) -> React {
    Arc::new(function)
}

/// A server on a loopback address that accepts every peer.
pub(super) struct Server {
    accepted: Receiver<Object>,
    pub(super) listener: Object,
    _configuration: Configuration,
}

impl Server {
    pub(super) fn new(registration: &Registration, settings: &Settings, react: &React) -> Self {
        let configuration = registration.configure(Role::Server, settings);
        Self::with(registration, configuration, LOOPBACK, react)
    }

    pub(super) fn with(
        registration: &Registration,
        configuration: Configuration,
        addr: &str,
        react: &React,
    ) -> Self {
        let (accepted, connections) = mpsc::channel();
        let (react, handle) = (react.clone(), configuration.handle);
        let listener = registration.open_listener(move |call| {
            if let Event::NewConnection { .. } = call.event {
                let react = react.clone();
                let connection = call.adopt(move |call| react(call));
                connection.accept(handle);
                let _ = accepted.send(connection);
            }
            Answer::default()
        });
        assert_eq!(listener.listen(ALPN, addr.parse().unwrap()), Status::SUCCESS);
        Self { accepted: connections, listener, _configuration: configuration }
    }

    /// The next connection; its handshake is not over yet.
    #[track_caller]
    pub(super) fn next(&self) -> Object {
        self.accepted.recv_timeout(TIMEOUT).unwrap()
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }
}

/// Two connected peers.
pub(super) struct Pair {
    pub(super) client: Object,
    pub(super) peer: Object,
    pub(super) server: Server,
    pub(super) configuration: Configuration,
    pub(super) registration: Registration,
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with(&plenty(), react(ignore), react(ignore))
    }

    pub(super) fn with(settings: &Settings, on_client: React, on_peer: React) -> Self {
        let registration = Registration::new();
        let server = Server::new(&registration, settings, &on_peer);
        let configuration = registration.configure(Role::Client, settings);
        let client = registration.open_connection(move |call| on_client(call));
        assert!(client.connect(&configuration, server.addr()).is_ok());
        let peer = server.next();
        client.until(is_connected);
        peer.until(is_connected);
        Self { client, peer, server, configuration, registration }
    }

    /// A pair whose server accepts streams with `on_stream`; they are received from the channel.
    pub(super) fn with_streams(settings: &Settings, on_stream: React) -> (Self, Receiver<Object>) {
        Self::with_streams_and(settings, false, on_stream)
    }

    pub(super) fn with_streams_and(
        settings: &Settings,
        delays_credit: bool,
        on_stream: React,
    ) -> (Self, Receiver<Object>) {
        let (adopted, streams) = mpsc::channel();
        let on_peer = react(move |call| adopt_streams(call, &adopted, delays_credit, &on_stream));
        (Self::with(settings, react(ignore), on_peer), streams)
    }

    /// Closes both connections and waits until they are closed.
    pub(super) fn finish(self) {
        self.client.shutdown(0);
        self.client.until(Event::is_last);
        self.peer.until(Event::is_last);
    }
}

/// Takes ownership of each stream that the peer opens.
pub(super) fn adopt_streams(
    call: &Call<'_>,
    adopted: &Sender<Object>,
    delays_credit: bool,
    on_stream: &React,
) -> Answer {
    let Event::PeerStream { .. } = call.event else { return Answer::default() };
    let on_stream = on_stream.clone();
    let _ = adopted.send(call.adopt(move |call| on_stream(call)));
    Answer { delays_credit, ..Answer::default() }
}

/// Keeps the worker of a connection inside a callback until it is dropped.
pub(super) struct Occupied {
    // First, so that the worker leaves the callback before the stream is closed.
    _release: Sender<()>,
    _stream: Object,
}

impl Occupied {
    pub(super) fn new(connection: &Object) -> Self {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let (entered, is_inside) = mpsc::channel();
        let stream = connection.open_stream(true, move |call| {
            if call.event.is_last() {
                let _ = entered.send(());
                let _ = released.lock().recv_timeout(TIMEOUT); // until the sender is dropped
            }
            Answer::default()
        });
        let stream = stream.unwrap();
        assert!(stream.abort(ABORT_NOW, 0).is_ok()); // C24: has a last event
        is_inside.recv_timeout(TIMEOUT).unwrap();
        Self { _release: release, _stream: stream }
    }
}
