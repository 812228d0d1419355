//! The handling of msquic's events for a connection.

use super::change::ConnectionChange;
use super::inner::ConnectionInner;
use super::peer_streams::Start;
use super::state::{ConnectionInput, ConnectionState};
use crate::ffi::calls::Calls;
use crate::ffi::connection::{ConnectionEvent, ConnectionHandler};
use crate::ffi::registration::Member;
use crate::ffi::status::Status;
use crate::ffi::stream::PeerStream;
use crate::resumption::MAX_CERTIFICATE;
use crate::stream::{StreamInner, StreamType};
use net_traits::TrustError;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

/// The code with which connections are closed whose peer was not verified.
const UNTRUSTED: u64 = 0;

/// `decrypt_error`: a signature of the handshake does not verify (RFC 8446, section 6.2).
const ALERT_DECRYPT_ERROR: u8 = 51;

impl Member for ConnectionInner {
    fn end(self: Arc<Self>, code: u64) {
        self.shutdown(code, "");
    }
}

impl ConnectionHandler for ConnectionInner {
    fn on_event(self: &Arc<Self>, event: ConnectionEvent<'_>, calls: Calls<'_>) {
        match event {
            ConnectionEvent::Connected { alpn, is_resumed, local_addr, remote_addr, key_log } => {
                self.log_keys(key_log);
                self.set_addrs(local_addr, remote_addr);
                self.handle_event_connected(alpn, is_resumed, calls);
            }
            ConnectionEvent::ShutdownByTransport { status, code } => {
                self.begins_to_close();
                self.transition(match self.lacks_proof(status) {
                    Some(error) => ConnectionInput::UntrustedPeer(error),
                    None => ConnectionInput::ClosedByTransport { status, code },
                });
            }
            ConnectionEvent::ShutdownByPeer { code } => {
                self.begins_to_close();
                self.transition(ConnectionInput::ClosedByPeer { code });
            }
            ConnectionEvent::ShutdownComplete { reason, key_log } => {
                self.log_keys(key_log); // the secrets of a handshake that failed
                self.transition(ConnectionInput::Complete { reason });
                self.release_streams();
            }
            ConnectionEvent::TicketReceived(ticket) => self.on_ticket_received(ticket),
            ConnectionEvent::StreamsAvailable { bidirectional, unidirectional } => {
                self.set_available_streams(bidirectional, unidirectional);
                self.change(ConnectionChange::StreamsAvailable { bidirectional, unidirectional });
            }
            ConnectionEvent::DatagramStateChanged { max_size } => {
                self.exclusive.lock().datagrams.set_max_size(max_size);
                self.change(ConnectionChange::DatagramSize(max_size));
            }
            ConnectionEvent::DatagramReceived(datagram) => self.on_datagram_received(datagram),
            ConnectionEvent::DatagramSendStateChanged { id, state } => {
                self.on_datagram_state(id, state);
            }
            ConnectionEvent::LocalAddressChanged(addr) => self.addrs_changed(Some(addr), None),
            ConnectionEvent::PeerAddressChanged(addr) => self.addrs_changed(None, Some(addr)),
        }
    }

    fn on_certificate(
        self: &Arc<Self>,
        certificate: Option<CertificateDer<'static>>,
    ) -> Result<(), u8> {
        let credential = self.exclusive.lock().credential.clone();
        let verdict = credential.trust().verify(certificate.as_ref());
        {
            let mut exclusive = self.exclusive.lock();
            exclusive.certificate = certificate;
            exclusive.peer = verdict.as_ref().ok().cloned();
        }
        match verdict {
            Ok(_) => {
                self.inbound.certificate.wake_all();
                Ok(())
            }
            Err(error) => {
                let alert = error.tls_alert();
                self.transition(ConnectionInput::UntrustedPeer(error));
                Err(alert)
            }
        }
    }

    fn on_ticket(self: &Arc<Self>, state: &[u8]) -> bool {
        // Tickets that an adopted configuration has issued are not accepted.
        self.exclusive.lock().session.as_mut().is_some_and(|session| session.accepts(state))
    }

    fn on_peer_stream(self: &Arc<Self>, stream: PeerStream<'_>) {
        let (stream_type, waiters) = if stream.unidirectional {
            (StreamType::Unidirectional, &self.inbound.unidirectional)
        } else {
            (StreamType::Bidirectional, &self.inbound.bidirectional)
        };
        if self.exclusive.lock().peer.is_none() {
            return; // not verified: the connection is being closed
        }
        let id = stream.id;
        let adopted = stream.adopt(|native| {
            let inner = StreamInner::with_native(native, self.clone(), stream_type, false);
            inner.set_id(id);
            inner.hold_until_accepted();
            inner
        });
        let inner = match adopted {
            Ok(inner) => inner,
            Err(status) => return tracing::warn!(%status, "a stream of the peer is not accepted"),
        };
        let start = {
            let exclusive = &mut *self.exclusive.lock();
            exclusive.inbound_streams.add(stream_type);
            exclusive.peer_streams.start(stream_type, id, inner.clone())
        };
        match start {
            Start::Waits => waiters.wake_one(),
            Start::HasSink(make) => inner.accept_with_sink(&*make),
            Start::Abandoned => inner.abandon(),
        }
    }
}

impl ConnectionInner {
    fn set_available_streams(&self, bidirectional: u16, unidirectional: u16) {
        self.bidirectional_credit.set_available(bidirectional);
        self.unidirectional_credit.set_available(unidirectional);
    }

    /// Whether the handshake failed because the peer does not hold the key of its certificate.
    ///
    /// msquic reports the alerts of both sides in the same way. A client as the peer verifies our certificate
    /// before it sends its own, and a server after the handshake is complete on this side. So an alert between the
    /// verification of the peer's certificate and the end of the handshake is ours, about the peer's signature
    /// (RFC 8446, section 4.4.3).
    fn lacks_proof(&self, status: Status) -> Option<TrustError> {
        let exclusive = self.exclusive.lock();
        let is_between = exclusive.state == ConnectionState::Connecting;
        let peer = exclusive.peer.as_ref().filter(|_| is_between)?;
        (status.tls_alert() == Some(ALERT_DECRYPT_ERROR))
            .then_some(TrustError::Unproven { identity: peer.hash })
    }

    /// A peer whose certificate was not verified is not trusted: an adopted configuration may not have asked for
    /// its certificate.
    fn handle_event_connected(&self, alpn: &[u8], is_resumed: bool, calls: Calls<'_>) {
        let (is_trusted, in_turn, ticket) = {
            let mut exclusive = self.exclusive.lock();
            exclusive.alpn = alpn.to_vec();
            exclusive.is_resumed = is_resumed;
            let size = exclusive.certificate.as_ref().map_or(0, |certificate| certificate.len());
            let session = exclusive.session.as_ref().filter(|_| size <= MAX_CERTIFICATE);
            let ticket = session.and_then(|session| session.issue(is_resumed, alpn));
            (exclusive.peer.is_some(), exclusive.serves_in_turn, ticket)
        };
        if in_turn && let Err(status) = calls.serve_streams_in_turn() {
            tracing::warn!(%status, "streams are not served in turn");
        }
        if !is_trusted {
            if self.transition(ConnectionInput::UntrustedPeer(TrustError::NoCertificate)) {
                self.native().shutdown(UNTRUSTED, false);
            }
            return;
        }
        // C35: a server has got no event about them.
        match calls.available_streams() {
            Ok((bidirectional, unidirectional)) => {
                self.set_available_streams(bidirectional, unidirectional);
            }
            Err(status) => tracing::warn!(%status, "how many streams can be opened is unknown"),
        }
        self.transition(ConnectionInput::Connected);
        if let Some(state) = ticket
            && let Err(status) = self.native().issue_ticket(&state)
        {
            tracing::debug!(%status, "a peer gets no ticket");
        }
    }

    fn on_ticket_received(&self, ticket: &[u8]) {
        let exclusive = self.exclusive.lock();
        if let (Some(session), Some(_)) = (&exclusive.session, &exclusive.peer) {
            session.keep(ticket);
        }
    }
}
