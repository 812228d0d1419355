//! Own rules of trust: members come and go while the node runs.
//!
//! ```sh
//! cargo run --example verifier
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use anyhow::{Result, bail, ensure};
use net_traits::{
    CertHash, CertificateDer, CloseReason, NetConnection, NetCredential, NetIncomingRequest,
    NetListener, NetTransport, PeerIdentity, PeerVerifier, TrustPolicy, close_code,
};
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tcp_tls_transport::{TcpTlsConnection, TcpTlsListener, TcpTlsTransport};

const ALPN: &str = "club/1";

/// The members by identity, with their names. Clones share them.
#[derive(Clone, Default)]
struct Members(Arc<RwLock<HashMap<CertHash, String>>>);

impl Members {
    fn add(&self, identity: CertHash, name: &str) {
        let mut members = self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        members.insert(identity, name.to_owned());
    }

    fn remove(&self, identity: &CertHash) {
        self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(identity);
    }

    fn name(&self, identity: &CertHash) -> Option<String> {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(identity).cloned()
    }
}

impl PeerVerifier for Members {
    /// Runs inside the handshake, so it looks into memory only. TLS has verified the certificate.
    fn verify(&self, peer: &PeerIdentity, _: &CertificateDer<'_>) -> Result<(), String> {
        match self.name(&peer.hash) {
            Some(_) => Ok(()),
            None => Err("it is no member".to_owned()), // for the log; the peer gets an alert only
        }
    }
}

/// Dials, and returns the connection as the dialler and the listener see it.
async fn connect(
    listener: &TcpTlsListener,
    credential: &NetCredential,
) -> Result<(TcpTlsConnection, TcpTlsConnection)> {
    let transport = TcpTlsTransport::new();
    let dial = transport.connect(listener.local_addr(), &[ALPN], credential.clone());
    let accept = async { anyhow::Ok(listener.accept().await?.accept().await?) };
    let (dialled, accepted) = tokio::join!(dial, accept);
    // The error of the listener says why; the dialler may not know yet that it is rejected.
    let accepted = accepted?;
    Ok((dialled?, accepted))
}

#[tokio::main]
async fn main() -> Result<()> {
    let members = Members::default();
    let club = NetCredential::self_signed(TrustPolicy::custom(members.clone()))?;
    let visitor = NetCredential::self_signed(TrustPolicy::hashes([club.identity()]))?;
    let transport = TcpTlsTransport::new();
    let listener = transport.create_listener("127.0.0.1:0".parse()?, &[ALPN], club).await?;

    match connect(&listener, &visitor).await {
        Err(error) => println!("a stranger: {error:#}"),
        Ok(_) => bail!("a stranger was accepted"),
    }

    members.add(visitor.identity(), "Ada");
    let (at_visitor, at_club) = connect(&listener, &visitor).await?;
    println!("a member: {:?} is accepted", members.name(&at_club.peer_identity().hash));
    at_visitor.send(b"hello").await?;
    ensure!(at_club.recv().await?.0 == "hello", "another message arrived");

    // The verifier decides about new connections; `revoke` applies it to those that are open.
    members.remove(&visitor.identity());
    let closed = transport.revoke(&TrustPolicy::custom(members)).await;
    let reason = at_visitor.watch_close().await;
    println!("no member any more: {closed} connection was {reason}");
    ensure!(
        matches!(reason, CloseReason::Peer { code: close_code::REVOKED, .. }),
        "the connection was not revoked"
    );
    transport.shutdown(Duration::from_secs(5), "the program ends").await;
    Ok(())
}
