//! What msquic's events do to a connection.

use super::change::ConnectionChange;
use super::inner::ConnectionInner;
use super::state::{ConnectionInput, ConnectionState};
use crate::ffi::calls::Calls;
use crate::ffi::connection::{ConnectionEvent, ConnectionHandler, NativeConnection};
use crate::ffi::status::Status;
use crate::ffi::stream::PeerStream;
use crate::stream::{StreamInner, StreamType};
use net_traits::TrustError;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

/// The code with which connections are closed whose peer was not judged.
const UNTRUSTED: u64 = 0;

/// A signature of the handshake does not verify (RFC 8446, section 6.2).
const ALERT_DECRYPT_ERROR: u8 = 51;

impl ConnectionHandler for ConnectionInner {
    fn native(&self) -> &Arc<NativeConnection> {
        self.native()
    }

    fn on_event(self: &Arc<Self>, event: ConnectionEvent<'_>, calls: Calls<'_>) {
        match event {
            ConnectionEvent::Connected { alpn, local_addr, remote_addr, key_log } => {
                self.log_keys(key_log);
                self.set_addrs(local_addr, remote_addr);
                self.handle_event_connected(alpn, calls);
            }
            ConnectionEvent::ShutdownByTransport { status, code } => {
                self.transition(match self.lacks_proof(status) {
                    Some(error) => ConnectionInput::UntrustedPeer(error),
                    None => ConnectionInput::ClosedByTransport { status, code },
                });
            }
            ConnectionEvent::ShutdownByPeer { code } => {
                self.transition(ConnectionInput::ClosedByPeer { code });
            }
            ConnectionEvent::ShutdownComplete { reason, key_log } => {
                self.log_keys(key_log); // of a handshake that failed
                self.transition(ConnectionInput::Complete { reason });
                self.release_streams();
            }
            ConnectionEvent::StreamsAvailable { bidirectional, unidirectional } => {
                self.streams_available.wake_all();
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
                self.changed.wake_all();
                Ok(())
            }
            Err(error) => {
                let alert = error.tls_alert();
                self.transition(ConnectionInput::UntrustedPeer(error));
                Err(alert)
            }
        }
    }

    fn on_peer_stream(self: &Arc<Self>, stream: PeerStream<'_>) {
        let (stream_type, waiters) = if stream.unidirectional {
            (StreamType::Unidirectional, &self.inbound.unidirectional)
        } else {
            (StreamType::Bidirectional, &self.inbound.bidirectional)
        };
        if self.exclusive.lock().peer.is_none() {
            return; // not judged: the connection is being closed
        }
        let inner = StreamInner::new(self, stream_type, false);
        inner.set_id(stream.id);
        inner.hold_until_accepted();
        stream.adopt(&inner);
        let is_abandoned = {
            let mut exclusive = self.exclusive.lock();
            let exclusive = &mut *exclusive;
            exclusive.inbound_streams.add(stream_type);
            // A queued stream refers to its connection: one that nobody takes out would be a cycle.
            if !exclusive.is_abandoned {
                let queue = match stream_type {
                    StreamType::Unidirectional => &mut exclusive.unidirectional,
                    StreamType::Bidirectional => &mut exclusive.bidirectional,
                };
                queue.push_back(inner.clone());
            }
            exclusive.is_abandoned
        };
        if is_abandoned {
            inner.abandon();
        } else {
            waiters.wake_one();
        }
    }
}

impl ConnectionInner {
    /// Whether the handshake failed because the peer does not hold the key of its certificate.
    ///
    /// msquic reports alerts of both sides alike. A peer judges ours before it shows its own as a client, and after the
    /// handshake is done here as a server; so one between the verdict on its certificate and the end of the handshake
    /// is ours, about its signature (RFC 8446, section 4.4.3).
    fn lacks_proof(&self, status: Status) -> Option<TrustError> {
        let exclusive = self.exclusive.lock();
        let is_between = exclusive.state == ConnectionState::Connecting;
        let peer = exclusive.peer.as_ref().filter(|_| is_between)?;
        (status.tls_alert() == Some(ALERT_DECRYPT_ERROR))
            .then_some(TrustError::Unproven { identity: peer.hash })
    }

    /// A peer that nobody has judged is not trusted: an adopted configuration may not have asked for
    /// its certificate.
    fn handle_event_connected(&self, alpn: &[u8], calls: Calls<'_>) {
        let (is_trusted, in_turn) = {
            let mut exclusive = self.exclusive.lock();
            exclusive.alpn = alpn.to_vec();
            (exclusive.peer.is_some(), exclusive.serves_in_turn)
        };
        if in_turn && let Err(status) = calls.serve_streams_in_turn() {
            tracing::warn!(%status, "streams are not served in turn");
        }
        if is_trusted {
            self.transition(ConnectionInput::Connected);
        } else {
            self.transition(ConnectionInput::UntrustedPeer(TrustError::NoCertificate));
            self.native().shutdown(UNTRUSTED, false);
        }
    }
}
