//! An own transport: it dials again while an error may be temporary, over any other transport. Listening and
//! connections are those of the transport below; `docs/implementing-a-transport.md` shows a whole one.
//!
//! ```sh
//! cargo run --example retry
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use anyhow::{Result, ensure};
use async_trait::async_trait;
use net_traits::{
    CertHash, ConnectError, ListenError, NetConnection, NetCredential, NetIncomingRequest,
    NetListener, NetTransport, TransportStatistics, TrustPolicy,
};
use std::net::SocketAddr;
use std::time::Duration;
use tcp_tls_transport::TcpTlsTransport;
use tokio::time::sleep;

const ALPN: &str = "retry/1";

/// Dials up to `attempts` times, with a pause that doubles.
struct Retry<T> {
    below: T,
    attempts: u32,
    pause: Duration,
}

#[async_trait]
impl<T: NetTransport> NetTransport for Retry<T> {
    type Connection = T::Connection;
    type Listener = T::Listener;

    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<T::Listener, ListenError> {
        self.below.create_listener(bind_addr, alpn, credential).await
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<T::Connection, ConnectError> {
        let mut pause = self.pause;
        for _ in 1..self.attempts {
            match self.below.connect(remote_addr, alpn, credential.clone()).await {
                // Such as a peer that is not there yet; not one that does not trust this side.
                Err(error) if error.is_retryable() => println!("{error}, dialling again"),
                result => return result,
            }
            sleep(pause).await;
            pause *= 2;
        }
        self.below.connect(remote_addr, alpn, credential).await
    }

    fn connections(&self) -> Vec<T::Connection> {
        self.below.connections()
    }

    fn close_peer(&self, identity: &CertHash, code: u64, reason: &str) -> usize {
        self.below.close_peer(identity, code, reason)
    }

    async fn revoke(&self, policy: &TrustPolicy) -> usize {
        self.below.revoke(policy).await
    }

    async fn shutdown(&self, deadline: Duration, reason: &str) {
        self.below.shutdown(deadline, reason).await;
    }

    fn statistics(&self) -> TransportStatistics {
        self.below.statistics()
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = NetCredential::self_signed(TrustPolicy::Any)?;
    let client = NetCredential::self_signed(TrustPolicy::hashes([server.identity()]))?;
    let late = TcpTlsTransport::new();
    let free = late.create_listener("127.0.0.1:0".parse()?, &[ALPN], server.clone()).await?;
    let address = free.local_addr();
    drop(free); // so that the first attempts are refused

    let pause = Duration::from_millis(10);
    let transport = Retry { below: TcpTlsTransport::new(), attempts: 10, pause };
    let listen = async {
        sleep(5 * pause).await;
        let listener = late.create_listener(address, &[ALPN], server).await?;
        anyhow::Ok(listener.accept().await?.accept().await?)
    };
    let (dialled, accepted) = tokio::join!(transport.connect(address, &[ALPN], client), listen);
    ensure!(dialled?.remote_addr() == address && accepted.is_ok(), "it did not connect");
    transport.shutdown(Duration::from_secs(5), "the program ends").await;
    Ok(())
}
