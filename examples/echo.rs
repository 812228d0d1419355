//! The smallest pair of programs: a listener that returns each message, and a dialler. Both are in one
//! process here; `serve` and `greet` would be the two programs.
//!
//! ```sh
//! cargo run --example echo
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use anyhow::{Result, ensure};
use net_traits::{CertHash, NetConnection, NetCredential, NetListener, NetTransport, TrustPolicy};
use quinn_transport::QuinnTransport;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinHandle;

/// The name and the version of the protocol.
const ALPN: &str = "echo/1";

#[tokio::main]
async fn main() -> Result<()> {
    // Identities are exchanged beforehand, as the hosts of SSH are.
    let server = NetCredential::self_signed(TrustPolicy::reject_all())?;
    let client = NetCredential::self_signed(TrustPolicy::reject_all())?;

    let transport = QuinnTransport::new();
    let (address, serving) = serve(&transport, &server, client.identity()).await?;
    greet(address, &client, server.identity()).await?;
    // Ends the listener and all connections; then `serving` waits for the handlers.
    transport.shutdown(Duration::from_secs(5), "the program ends").await;
    serving.await?;
    Ok(())
}

/// Serves one trusted client in the background, and returns the address and the task.
async fn serve(
    transport: &QuinnTransport,
    credential: &NetCredential,
    client: CertHash,
) -> Result<(SocketAddr, JoinHandle<()>)> {
    let credential = credential.with_trust(TrustPolicy::hashes([client]));
    let listener = transport.create_listener("127.0.0.1:0".parse()?, &[ALPN], credential).await?;
    let address = listener.local_addr();
    let serving = tokio::spawn(async move {
        net_peers::serve(&listener, echo).await;
    });
    Ok((address, serving))
}

/// Returns each message until the connection ends.
async fn echo(connection: impl NetConnection) {
    while let Ok((message, _elapsed)) = connection.recv().await {
        if connection.send_bytes(message).await.is_err() {
            break;
        }
    }
    println!("listener: {}", connection.watch_close().await);
}

async fn greet(address: SocketAddr, credential: &NetCredential, server: CertHash) -> Result<()> {
    let credential = credential.expecting(server);
    let connection = QuinnTransport::new().connect(address, &[ALPN], credential).await?;
    for message in ["hello", "how are you?"] {
        connection.send(message.as_bytes()).await?;
        let (answer, _elapsed) = connection.recv().await?;
        ensure!(answer == message, "the listener changed {message:?}");
        println!("dialler: {}", String::from_utf8_lossy(&answer));
    }
    connection.close(0, "goodbye").await;
    Ok(())
}
