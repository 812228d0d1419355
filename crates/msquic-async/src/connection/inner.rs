//! `ConnectionInner`: what the handles of a connection share with its callbacks.

use super::change::{Changes, ConnectionChange};
use super::close_reason;
use super::credit::StreamCredit;
use super::datagram_sink::DatagramSink;
use super::dial::Source;
use super::error::{ConnectionError, StartError};
use super::peer_streams::PeerStreams;
use super::state::{ConnectionInput, ConnectionState};
use super::statistics::StreamCounts;
use super::stream_connection::StreamConnection;
use crate::buffer::Datagrams;
use crate::ffi::calls::Calls;
use crate::ffi::connection::{NativeConnection, close_reason_text};
use crate::ffi::status::Status;
use crate::resumption::{Server, Session};
use crate::stream::{MakeSink, StreamInner, StreamType};
use crate::waiters::Waiters;
use crate::{Configuration, KeyLog, StreamLimits};
use net_traits::{NetCredential, PeerIdentity};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use std::ffi::{CStr, CString};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use zeroize::Zeroizing;

pub(crate) struct ConnectionInner {
    native: Arc<NativeConnection>,
    pub(super) exclusive: Mutex<Exclusive>,
    /// Woken when the state or an address changes.
    pub(super) changed: Waiters,
    pub(super) inbound: InboundWaiters,
    /// For the streams that this side opens.
    pub(super) bidirectional_credit: Arc<StreamCredit>,
    pub(super) unidirectional_credit: Arc<StreamCredit>,
    /// Woken when further datagrams may be queued, and at the end.
    pub(super) datagram_room: Waiters,
    /// Set when the close of the peer or of the transport is indicated, read when streams receive. Both
    /// happen on the thread that processes the connection.
    is_closing: AtomicBool,
    /// What the queues of all streams store for readers.
    queued_bytes: Arc<AtomicUsize>,
}

/// Woken when the certificate of the peer, a stream of it, a datagram or a change arrives, and at the end.
#[derive(Default)]
pub(super) struct InboundWaiters {
    pub(super) certificate: Waiters,
    pub(super) bidirectional: Waiters,
    pub(super) unidirectional: Waiters,
    pub(super) datagrams: Waiters,
    pub(super) datagram_sink: DatagramSink,
    pub(super) changes: Waiters,
}

pub(super) struct Exclusive {
    pub(super) state: ConnectionState,
    pub(super) limits: StreamLimits,
    /// A listener accepted it: this side is the server.
    pub(super) is_accepted: bool,
    /// The handshake is complete, whatever has happened since.
    pub(super) was_connected: bool,
    /// A move to another local address is in progress, see `Connection::rebind`.
    pub(super) is_moving: bool,
    /// The local address, interface and sockets that were chosen before the start.
    source: Source,
    /// See `Configuration::with_streams_in_turn`.
    pub(super) serves_in_turn: bool,
    /// Tickets, if sessions are resumed.
    pub(super) session: Option<Session>,
    /// The handshake resumed the session of an earlier connection.
    pub(super) is_resumed: bool,
    pub(super) alpn: Vec<u8>,
    pub(super) local_addr: Option<SocketAddr>,
    pub(super) remote_addr: Option<SocketAddr>,
    pub(super) certificate: Option<CertificateDer<'static>>,
    /// The identity of the peer, once the trust policy has accepted it.
    pub(super) peer: Option<PeerIdentity>,
    /// The credential whose trust policy verifies the peer.
    pub(super) credential: NetCredential,
    pub(super) peer_streams: PeerStreams<Arc<StreamInner>, Arc<MakeSink>>,
    pub(super) datagrams: Datagrams,
    pub(super) changes: Changes,
    pub(super) opened_streams: StreamCounts,
    pub(super) inbound_streams: StreamCounts,
    /// The file for the TLS secrets, until they are written.
    key_log: Option<KeyLog>,
    /// The reason of this side's close, until it is set.
    close_reason: Option<CString>,
    /// Called at the end.
    end_hook: Option<EndHook>,
}

/// See `Connection::on_shutdown`.
type EndHook = Box<dyn FnOnce(ConnectionError) + Send>;

impl ConnectionInner {
    pub(crate) fn new(native: Arc<NativeConnection>, credential: NetCredential) -> Self {
        Self {
            native,
            exclusive: Mutex::new(Exclusive {
                state: ConnectionState::Open,
                limits: StreamLimits::default(),
                is_accepted: false,
                was_connected: false,
                is_moving: false,
                source: Source::default(),
                serves_in_turn: false,
                session: None,
                is_resumed: false,
                alpn: Vec::new(),
                local_addr: None,
                remote_addr: None,
                certificate: None,
                peer: None,
                credential,
                peer_streams: PeerStreams::default(),
                datagrams: Datagrams::default(),
                changes: Changes::default(),
                opened_streams: StreamCounts::default(),
                inbound_streams: StreamCounts::default(),
                key_log: None,
                close_reason: None,
                end_hook: None,
            }),
            changed: Waiters::default(),
            inbound: InboundWaiters::default(),
            bidirectional_credit: Arc::default(),
            unidirectional_credit: Arc::default(),
            datagram_room: Waiters::default(),
            is_closing: AtomicBool::new(false),
            queued_bytes: Arc::default(),
        }
    }

    pub(crate) fn native(&self) -> &Arc<NativeConnection> {
        &self.native
    }

    /// A listener accepted it.
    pub(crate) fn set_accepted(&self) {
        self.exclusive.lock().is_accepted = true;
    }

    /// Whether no opener of a stream waits or holds credit.
    #[cfg(feature = "testing")]
    pub(crate) fn has_settled_credit(&self) -> bool {
        self.bidirectional_credit.is_settled() && self.unidirectional_credit.is_settled()
    }

    /// Why the connection has ended, if it has.
    pub(crate) fn error(&self) -> Option<ConnectionError> {
        self.exclusive.lock().state.error().cloned()
    }

    /// `Err` if the connection was not started or is over.
    pub(crate) fn check_usable(&self) -> Result<(), ConnectionError> {
        match &self.exclusive.lock().state {
            ConnectionState::Open => Err(ConnectionError::NotStarted),
            state => state.error().map_or(Ok(()), |error| Err(error.clone())),
        }
    }

    /// Records that the connection closes: what streams receive from now on is the rest (C44).
    pub(super) fn begins_to_close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    /// Applies `input` to the state and wakes the tasks that it concerns.
    pub(super) fn transition(&self, input: ConnectionInput) -> bool {
        let (changed, is_over) = {
            let mut exclusive = self.exclusive.lock();
            let changed = exclusive.state.apply(input);
            exclusive.was_connected |= exclusive.state == ConnectionState::Connected;
            (changed, exclusive.state.error().is_some())
        };
        if changed {
            self.call_end_hook();
            self.changed.wake_all();
            if is_over {
                self.inbound.certificate.wake_all();
                self.inbound.bidirectional.wake_all();
                self.inbound.unidirectional.wake_all();
                self.inbound.datagrams.wake_all();
                self.inbound.changes.wake_all();
                self.bidirectional_credit.close();
                self.unidirectional_credit.close();
                self.datagram_room.wake_all();
            }
        }
        changed
    }

    /// Sets what is called at the end, before the tasks that wait for it are woken.
    pub(super) fn set_end_hook(&self, hook: EndHook) {
        let before = self.exclusive.lock().end_hook.replace(hook);
        drop(before);
        self.call_end_hook();
    }

    fn call_end_hook(&self) {
        let call = {
            let exclusive = &mut *self.exclusive.lock();
            match &exclusive.state {
                ConnectionState::ShutdownComplete(error) => {
                    exclusive.end_hook.take().map(|hook| (hook, error.clone()))
                }
                _ => None,
            }
        };
        if let Some((hook, error)) = call {
            hook(error);
        }
    }

    pub(crate) fn set_addrs(&self, local: Option<SocketAddr>, remote: Option<SocketAddr>) {
        let mut exclusive = self.exclusive.lock();
        exclusive.local_addr = local.or(exclusive.local_addr);
        exclusive.remote_addr = remote.or(exclusive.remote_addr);
    }

    pub(super) fn log_keys(&self, lines: Option<Zeroizing<String>>) {
        let key_log = self.exclusive.lock().key_log.take();
        if let (Some(key_log), Some(lines)) = (key_log, lines) {
            key_log.write(lines);
        }
    }

    pub(super) fn addrs_changed(&self, local: Option<SocketAddr>, remote: Option<SocketAddr>) {
        self.set_addrs(local, remote);
        self.changed.wake_all();
        if let Some(addr) = local {
            self.change(ConnectionChange::LocalAddr(addr));
        }
        if let Some(addr) = remote {
            self.change(ConnectionChange::RemoteAddr(addr));
        }
    }

    /// Keeps a change for callers of `next_change`.
    pub(super) fn change(&self, change: ConnectionChange) {
        self.exclusive.lock().changes.push(change);
        self.inbound.changes.wake_one();
    }

    /// Sets another credential to verify the peer, which has not sent its certificate yet.
    pub(crate) fn set_credential(&self, credential: NetCredential) {
        let before = std::mem::replace(&mut self.exclusive.lock().credential, credential);
        drop(before);
    }

    pub(super) fn source(&self) -> Source {
        self.exclusive.lock().source
    }

    /// Changes the local address, interface or sockets; before the start.
    pub(super) fn set_source(&self, change: impl FnOnce(&mut Source)) -> Result<(), StartError> {
        let exclusive = &mut *self.exclusive.lock();
        match &exclusive.state {
            ConnectionState::Open => {
                change(&mut exclusive.source);
                Ok(())
            }
            state => Err(state.error().map_or(StartError::AlreadyStarted, |error| {
                StartError::ConnectionLost(error.clone())
            })),
        }
    }

    /// Changes the state from open to connecting; false if it was not open.
    pub(crate) fn begin(&self, configuration: &Configuration) -> bool {
        {
            let mut exclusive = self.exclusive.lock();
            if !exclusive.state.apply(ConnectionInput::Start) {
                return false;
            }
            exclusive.limits = configuration.stream_limits();
            exclusive.serves_in_turn = configuration.serves_in_turn();
            exclusive.session = configuration.tickets().map(Session::new);
            exclusive.datagrams.limits = configuration.datagram_limits();
            exclusive.key_log = configuration.key_log().cloned();
        }
        self.changed.wake_all();
        true
    }

    /// The protocol that the listener chose.
    pub(crate) fn set_offered_alpn(&self, alpn: &[u8]) {
        if let Some(session) = &mut self.exclusive.lock().session {
            session.set_alpn(alpn);
        }
    }

    /// Returns the ticket with which a client dials a server, if there is one.
    pub(super) fn dial(&self, name: &CStr, addr: SocketAddr) -> Option<Zeroizing<Vec<u8>>> {
        let server = Server { name: name.to_owned(), addr };
        self.exclusive.lock().session.as_mut()?.dial(server)
    }

    /// Closes with a code and a reason. Never blocks; further calls do nothing.
    pub(crate) fn shutdown(self: &Arc<Self>, code: u64, reason: &str) {
        let text = close_reason_text(reason);
        let was_connected = self.exclusive.lock().state == ConnectionState::Connected;
        if !self.transition(ConnectionInput::ClosedLocally { code, reason: reason.to_owned() }) {
            return;
        }
        self.begins_to_close(); // no event reports it
        if was_connected && text.is_some() {
            self.exclusive.lock().close_reason = text;
            close_reason::shutdown(self.clone(), code);
        } else {
            self.native.shutdown(code, false);
        }
    }

    /// Releases the streams, since the connection has ended.
    pub(super) fn release_streams(&self) {
        let (streams, _make_sink) = self.exclusive.lock().peer_streams.over();
        streams.iter().for_each(|stream| stream.release());
    }

    /// Aborts the streams of the peer that no handle can read any more.
    pub(super) fn abandon_streams(&self) {
        let (streams, _make_sink) = self.exclusive.lock().peer_streams.abandon();
        streams.iter().for_each(|stream| stream.abandon());
    }

    pub(crate) fn start_failed(&self, status: Status) {
        self.transition(ConnectionInput::ClosedByTransport { status, code: 0 });
        self.native.shutdown(0, true);
    }
}

impl StreamConnection for ConnectionInner {
    fn native(&self) -> &Arc<NativeConnection> {
        self.native()
    }

    fn error(&self) -> Option<ConnectionError> {
        self.error()
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    fn stream_limits(&self) -> StreamLimits {
        self.exclusive.lock().limits
    }

    fn queued_bytes(&self) -> &Arc<AtomicUsize> {
        &self.queued_bytes
    }

    fn stream_credit(&self, stream_type: StreamType) -> &Arc<StreamCredit> {
        match stream_type {
            StreamType::Bidirectional => &self.bidirectional_credit,
            StreamType::Unidirectional => &self.unidirectional_credit,
        }
    }

    fn poll_over(&self, cx: &Context<'_>) -> Poll<ConnectionError> {
        self.changed.poll_registered(cx, || self.error())
    }

    fn count_opened(&self, stream_type: StreamType) {
        self.exclusive.lock().opened_streams.add(stream_type);
    }

    fn sink_ended(&self, id: u64) {
        let stream = self.exclusive.lock().peer_streams.sink_ended(id);
        drop(stream);
    }

    fn close_reason_in_stream_event(&self, calls: Calls<'_>) {
        let reason = self.exclusive.lock().close_reason.take();
        if let Some(reason) = reason {
            calls.set_close_reason(&reason);
        }
    }
}
