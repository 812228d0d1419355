//! `ConnectionFacts`: what does not change during a connection.
//!
//! Plain data, created after the handshake and owned by the connection.

use net_traits::address::canonical;
use net_traits::{CertHash, CertificateDer, PeerIdentity};
use std::fmt;
use std::net::SocketAddr;

/// Addresses, identities, certificate and protocol of a connection, known after its handshake.
///
/// The `&str` getters of [`NetConnection`](net_traits::NetConnection) need identities as text, so
/// these are formatted once.
#[derive(Clone)]
pub struct ConnectionFacts {
    local_addr: SocketAddr,
    remote_addr: SocketAddr,
    local_hash: CertHash,
    local_identity: String,
    remote_identity: String,
    peer: PeerIdentity,
    certificate: Option<CertificateDer<'static>>,
    alpn: String,
    has_receipts: bool,
}

impl ConnectionFacts {
    /// Creates the facts. `certificate` is that of the peer, by which it was verified as `peer`.
    /// Addresses are made [`canonical`].
    pub fn new(
        local_addr: SocketAddr,
        remote_addr: SocketAddr,
        local_hash: CertHash,
        peer: PeerIdentity,
        certificate: Option<CertificateDer<'static>>,
        alpn: String,
    ) -> Self {
        let (local_identity, remote_identity) = (local_hash.to_string(), peer.hash.to_string());
        Self {
            local_addr: canonical(local_addr),
            remote_addr: canonical(remote_addr),
            local_hash,
            local_identity,
            remote_identity,
            peer,
            certificate,
            alpn,
            has_receipts: false,
        }
    }

    /// Sets whether both sides support [receipts](crate::receipts). Default: false.
    #[must_use]
    pub fn with_receipts(self, has_receipts: bool) -> Self {
        Self { has_receipts, ..self }
    }

    /// Returns whether both sides support [receipts](crate::receipts).
    pub fn has_receipts(&self) -> bool {
        self.has_receipts
    }

    /// Returns the local address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns the peer's address.
    pub fn remote_addr(&self) -> SocketAddr {
        self.remote_addr
    }

    /// Returns the local identity.
    pub fn local_hash(&self) -> CertHash {
        self.local_hash
    }

    /// Returns the local identity as 64 hexadecimal digits.
    pub fn local_identity(&self) -> &str {
        &self.local_identity
    }

    /// Returns the peer's identity as 64 hexadecimal digits.
    pub fn remote_identity(&self) -> &str {
        &self.remote_identity
    }

    /// Returns the peer's identity and its endorsing keys.
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// Returns the peer's certificate, if the transport uses certificates.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificate.as_ref()
    }

    /// Returns the negotiated application protocol.
    pub fn alpn(&self) -> &str {
        &self.alpn
    }

    /// Formats a handle of the connection for `Debug`: address and identity of the peer.
    pub fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("remote_addr", &self.remote_addr)
            .field("remote_identity", &self.remote_identity)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ConnectionFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.debug("ConnectionFacts", f)
    }
}

/// Implements the getters of [`NetConnection`](net_traits::NetConnection) inside its `impl`.
///
/// The argument is the path of fields and calls from `self` to the [`ConnectionFacts`]. With
/// `except addresses` in front, the getters of the two addresses are left to the transport, for
/// connections whose addresses can change.
///
/// ```ignore
/// #[async_trait]
/// impl NetConnection for MyConnection {
///     net_kit::facts_getters!(shared.entry.facts());
///     // send, recv, ...
/// }
/// ```
#[macro_export]
macro_rules! facts_getters {
    (except addresses $($path:tt)+) => {
        fn local_identity(&self) -> &str {
            self.$($path)+.local_identity()
        }

        fn remote_identity(&self) -> &str {
            self.$($path)+.remote_identity()
        }

        fn peer_identity(&self) -> &::net_traits::PeerIdentity {
            self.$($path)+.peer()
        }

        fn remote_certificate(&self) -> Option<::net_traits::CertificateDer<'static>> {
            self.$($path)+.certificate().cloned()
        }

        fn alpn_negotiated(&self) -> &str {
            self.$($path)+.alpn()
        }
    };
    ($($path:tt)+) => {
        fn local_addr(&self) -> ::std::net::SocketAddr {
            self.$($path)+.local_addr()
        }

        fn remote_addr(&self) -> ::std::net::SocketAddr {
            self.$($path)+.remote_addr()
        }

        $crate::facts_getters!(except addresses $($path)+);
    };
}
