//! `Harness`: what an implementor tells the suite.

use crate::Limits;
use async_trait::async_trait;
use net_traits::{NetCredential, NetTransport, TrustPolicy};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

/// Makes the transport under test, and reaches for what the traits do not have.
///
/// The methods with a default belong to a [capability](crate::Capability); a transport that does not have it lists
/// it at [`conformance!`](crate::conformance) and leaves the method alone.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The transport. It and what it gives must be [`Debug`](fmt::Debug), which is looked at for secrets.
    type Transport: NetTransport<Connection: fmt::Debug, Listener: fmt::Debug> + fmt::Debug;

    /// A transport with these limits, on its own: what another one does must not count for it.
    fn transport(&self, limits: &Limits) -> Self::Transport;

    /// Where listeners are bound: a port 0. Default: `127.0.0.1:0`.
    fn bind_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    /// Connects as a peer that need not keep the rules. Capability `raw_peer`.
    async fn raw_peer(
        &self,
        remote_addr: SocketAddr,
        alpn: &str,
        credential: NetCredential,
    ) -> Box<dyn RawPeer> {
        let _ = (remote_addr, alpn, credential);
        lacks("raw_peer")
    }

    /// Tries to connect without showing a certificate, while trusting anybody, and waits until that has failed.
    /// Capability `anonymous_peer`.
    async fn anonymous_peer(&self, remote_addr: SocketAddr, alpn: &str) {
        let _ = (remote_addr, alpn);
        lacks("anonymous_peer")
    }

    /// Replaces the credential of a listener that runs. Capability `hot_reload`.
    fn set_credential(
        &self,
        listener: &<Self::Transport as NetTransport>::Listener,
        credential: NetCredential,
    ) {
        let _ = (listener, credential);
        lacks("hot_reload")
    }

    /// Closes the connections of a transport whose peers `policy` does not trust. Capability `revocation`.
    fn revoke(&self, transport: &Self::Transport, policy: &TrustPolicy) {
        let _ = (transport, policy);
        lacks("revocation")
    }
}

/// A peer that writes bytes where others write messages. Frames are those of [`net_traits::frame`].
#[async_trait]
pub trait RawPeer: Send {
    /// Sends bytes as they are.
    async fn write(&mut self, bytes: &[u8]);

    /// Ends the stream of bytes in order, wherever it is, and leaves the connection open where the transport can.
    async fn finish(&mut self);
}

fn lacks(capability: &str) -> ! {
    panic!("the harness lacks the method for `{capability}`: write it, or name it after `without:`")
}
