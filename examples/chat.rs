//! A chat: the host sends each line to all members, under a name that the member's certificate gives it.
//! `netmsg chat` is the same with rooms.
//!
//! ```sh
//! cargo run --example chat
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use anyhow::{Result, ensure};
use bytes::Bytes;
use net_traits::{CertHash, NetConnection, NetCredential, NetListener, NetTransport, TrustPolicy};
use quinn_transport::QuinnTransport;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::timeout;

const ALPN: &str = "chat/1";

/// How many lines a member may be behind; then it misses some.
const BEHIND: usize = 64;

/// The longest line, in bytes.
const LINE: usize = 4096;

/// How many digits of an identity name a member. With few of them, a peer could find a key with the same name.
const NAME: usize = 16;

/// Serves a member until its connection ends.
async fn serve(member: impl NetConnection, lines: broadcast::Sender<Bytes>) {
    let name = member.remote_identity()[..NAME].to_owned();
    let mut others = lines.subscribe();
    let (reader, tell) = (member.clone(), lines.clone());
    let listen = async {
        while let Ok((line, _elapsed)) = reader.recv().await {
            if line.len() <= LINE {
                // A line break would let a member forge a line of another one.
                let line = String::from_utf8_lossy(&line).replace(char::is_control, " ");
                let _ = tell.send(format!("{name}: {line}").into());
            }
        }
    };
    let speak = async {
        loop {
            match others.recv().await {
                Ok(line) => match member.send_bytes(line).await {
                    Ok(()) => {}
                    Err(_) => break,
                },
                Err(RecvError::Lagged(missed)) => println!("{name} misses {missed} lines"),
                Err(RecvError::Closed) => break,
            }
        }
    };
    tokio::select! { () = listen => {}, () = speak => {} }
}

/// Joins the chat, and returns the connection with the name of the member.
async fn join(address: SocketAddr, host: CertHash) -> Result<(impl NetConnection, String)> {
    let credential = NetCredential::self_signed(TrustPolicy::hashes([host]))?;
    let name = credential.identity().to_string()[..NAME].to_owned();
    let connection = QuinnTransport::new().connect(address, &[ALPN], credential).await?;
    Ok((connection, name))
}

async fn hear(member: &impl NetConnection) -> Result<String> {
    let (line, _elapsed) = timeout(Duration::from_secs(10), member.recv()).await??;
    Ok(String::from_utf8(line.to_vec())?)
}

#[tokio::main]
async fn main() -> Result<()> {
    // Every peer may join. A host that knows its members has `TrustPolicy::hashes`.
    let host = NetCredential::self_signed(TrustPolicy::Any)?;
    let identity = host.identity();
    let transport = QuinnTransport::new();
    let listener = transport.create_listener("127.0.0.1:0".parse()?, &[ALPN], host).await?;
    let address = listener.local_addr();
    let (lines, _) = broadcast::channel(BEHIND);
    let members = lines.clone();
    let handler = move |connection| serve(connection, members.clone());
    tokio::spawn(async move { net_peers::serve(&listener, handler).await });

    let ((one, name), (other, _)) =
        (join(address, identity).await?, join(address, identity).await?);
    while lines.receiver_count() < 2 {
        tokio::task::yield_now().await; // both are served
    }
    one.send(b"does it borrow?\nX: it does").await?;
    for member in [&one, &other] {
        let line = hear(member).await?;
        println!("heard  {line}");
        ensure!(line == format!("{name}: does it borrow? X: it does"), "another line");
    }
    one.close(0, "bye").await;
    transport.shutdown(Duration::from_secs(5), "the program ends").await;
    Ok(())
}
