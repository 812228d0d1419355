//! A service with limits: how many connections one client has, and how large its messages and questions
//! are. A client that exceeds one is told so, and the others are served.
//!
//! ```sh
//! cargo run --example limits
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use net_traits::{
    CloseReason, NetConnection, NetCredential, NetListener, NetRequests, NetTransport, RecvError,
    TrustPolicy, close_code, serve_requests,
};
use quinn_transport::{QuinnConfig, QuinnTransport};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

const ALPN: &str = "limits/1";

/// The largest message and question, in bytes.
const LARGEST: usize = 1024;

/// How long a client waits for an answer.
const DEADLINE: Duration = Duration::from_secs(10);

fn limits() -> QuinnConfig {
    QuinnConfig::new()
        .max_connections(1000)
        .max_connections_per_identity(1)
        .max_message_size(LARGEST)
        .max_request_size(LARGEST)
        .max_inbound_requests(4) // of one client, at once
        .max_memory(64 * 1024 * 1024) // of all clients
        .idle_timeout(Duration::from_secs(60))
}

/// Reports the sizes of messages that are too large, and answers questions with their size.
async fn serve(client: impl NetRequests, too_large: mpsc::Sender<u64>) {
    let answer = async |question: Bytes| Bytes::from(question.len().to_string());
    let messages = async {
        loop {
            match client.recv().await {
                // The connection remains usable.
                Err(RecvError::TooLarge { size, .. }) => drop(too_large.send(size).await),
                Err(error) if error.is_closed() => break,
                _ => {}
            }
        }
    };
    tokio::join!(messages, serve_requests(&client, 4, answer));
}

#[tokio::main]
async fn main() -> Result<()> {
    let client = NetCredential::self_signed(TrustPolicy::reject_all())?;
    let server = NetCredential::self_signed(TrustPolicy::hashes([client.identity()]))?;
    let client = client.with_trust(TrustPolicy::hashes([server.identity()]));
    let transport = QuinnTransport::with_config(limits())?;
    let listener = transport.create_listener("127.0.0.1:0".parse()?, &[ALPN], server).await?;
    let address = listener.local_addr();
    let (too_large, mut reported) = mpsc::channel(16);
    let handler = move |connection| serve(connection, too_large.clone());
    tokio::spawn(async move { net_peers::serve(&listener, handler).await });

    // The client has other limits.
    let dialling = QuinnTransport::new();
    let first = dialling.connect(address, &[ALPN], client.clone()).await?;
    first.request(Bytes::new(), DEADLINE).await?; // now the service has it, too
    let connection = dialling.connect(address, &[ALPN], client).await?;
    // The newest connection of an identity replaces the oldest.
    let end = timeout(DEADLINE, first.watch_close()).await?;
    println!("the first connection: {end}");
    let expected = close_code::TOO_MANY_PER_IDENTITY;
    ensure!(matches!(end, CloseReason::Peer { code, .. } if code == expected), "{end}");

    connection.send(&[0; LARGEST + 1]).await?;
    let size = timeout(DEADLINE, reported.recv()).await?.context("the service ended")?;
    println!("a message of {size} bytes is skipped");
    ensure!(size == LARGEST as u64 + 1, "another message was reported");

    let long = connection.request(vec![0; LARGEST + 1].into(), DEADLINE).await;
    let Err(error) = long else { bail!("a question that is too large was answered") };
    println!("a question that is too large: {error}");
    let answer = connection.request(vec![0; LARGEST].into(), DEADLINE).await?;
    ensure!(answer == "1024", "the answer is {answer:?}");

    connection.close(0, "done").await;
    transport.shutdown(Duration::from_secs(5), "the program ends").await;
    let refused = transport.statistics().refused_per_identity;
    println!("connections that were refused or replaced: {refused}");
    ensure!(refused == 1, "{refused} connections were refused");
    Ok(())
}
