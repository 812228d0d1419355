//! Traits, credentials and trust for **identity-authenticated message transports**.
//!
//! A transport moves whole messages between two peers that know each other by the hash of their
//! certificates. This crate defines the interface only; it contains no runtime, no sockets and no
//! QUIC.
//!
//! In reading order:
//!
//! 1. [`NetCredential`]: the local identity (certificate chain and private key) and the peers that
//!    it trusts ([`TrustPolicy`]). An identity is a [`CertHash`].
//! 2. [`NetTransport`] creates a [`NetListener`] or dials.
//! 3. [`NetListener::accept`] returns a [`NetIncomingRequest`], whose own `accept` finishes the
//!    handshake. A slow peer therefore does not delay other peers.
//! 4. [`NetConnection`] sends and receives messages, and reports why it ended ([`CloseReason`]).
//!    [`NetRequests`] adds requests, and [`NetDatagrams`] datagrams.
//!
//! ```
//! use net_traits::{NetConnection, NetCredential, NetTransport};
//! use std::net::SocketAddr;
//!
//! async fn greet<T: NetTransport>(
//!     transport: &T,
//!     peer: SocketAddr,
//!     credential: NetCredential,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let connection = transport.connect(peer, &["greeting/1"], credential).await?;
//!     connection.send(b"hello").await?;
//!     let (answer, _elapsed) = connection.recv().await?;
//!     println!("{} said {} bytes", connection.remote_identity(), answer.len());
//!     connection.close(0, "done").await;
//!     Ok(())
//! }
//! ```
//!
//! # Features
//!
//! - `key-log`: `KeyLog`, a file for the TLS secrets of connections.
//! - `self-signed`: `NetCredential::self_signed`, `IdentityKey` and `SelfSigned`, which generate a
//!   key and a certificate.
#![forbid(unsafe_code)]

pub mod address;
mod cause;
mod cert_hash;
mod certificate_check;
mod certificate_fields;
pub mod close_code;
mod close_outcome;
mod config_error;
mod connection;
mod credential;
mod credential_error;
mod datagrams;
mod dyn_transport;
mod endorsement;
mod endorsing_key;
mod error;
mod incoming;
#[cfg(feature = "key-log")]
mod key_log;
mod listener;
mod peer_identity;
mod requests;
#[cfg(feature = "self-signed")]
mod self_signed;
mod signatures;
mod statistics;
mod transport;
mod trust;
mod trust_error;

pub use bytes::Bytes;
pub use cause::{Cause, WithCauses};
pub use cert_hash::{CertHash, ParseCertHashError};
pub use close_outcome::CloseOutcome;
pub use config_error::ConfigError;
pub use connection::NetConnection;
pub use credential::NetCredential;
pub use credential_error::CredentialError;
pub use datagrams::{DatagramError, DatagramStatistics, NetDatagrams};
pub use dyn_transport::{
    DynConnection, DynIncomingRequest, DynListener, DynQuestion, DynTransport,
};
pub use endorsement::{
    ENDORSEMENT_OID, Endorsement, EndorsementValidity, Endorser, LEGACY_ENDORSEMENT_OID,
    MAX_ENDORSEMENTS, decode_endorsements, encode_endorsements,
};
pub use endorsing_key::EndorsingKey;
pub use error::{
    AcceptError, CloseReason, ConnectError, ListenError, RecvError, Rejection, RejectionBy,
    SendAckedError, SendError,
};
pub use incoming::NetIncomingRequest;
#[cfg(feature = "key-log")]
pub use key_log::KeyLog;
pub use listener::NetListener;
pub use peer_identity::PeerIdentity;
pub use requests::{
    NetQuestion, NetRequests, NoQuestion, RequestError, request_code, serve_requests,
};
pub use rustls_pki_types::{CertificateDer, PrivateKeyDer};
#[cfg(feature = "self-signed")]
pub use self_signed::{IdentityKey, SelfSigned};
pub use statistics::{Limit, MessageStatistics, TransportStatistics};
pub use transport::NetTransport;
pub use trust::{Endorsers, PeerVerifier, TrustPolicy};
pub use trust_error::TrustError;
