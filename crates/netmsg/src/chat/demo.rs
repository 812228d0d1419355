//! The demo of a chat: a host, three members and two rooms in one process.

use super::rooms::{host, name};
use crate::output::Output;
use crate::protocol::CHAT;
use anyhow::{Result, ensure};
use net_traits::{
    CertHash, DynConnection, DynTransport, NetConnection, NetCredential, NetListener, NetTransport,
    TrustPolicy,
};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// A scripted member.
struct Player {
    connection: DynConnection,
    name: String,
    output: Output,
}

impl Player {
    async fn join(
        transport: &DynTransport,
        host: SocketAddr,
        trust: CertHash,
        output: &Output,
    ) -> Result<Self> {
        let credential = NetCredential::self_signed(TrustPolicy::hashes([trust]))?;
        let name = name(&credential.identity());
        let connection = transport.connect(host, &[CHAT], credential).await?;
        Ok(Self { connection, name, output: output.clone() })
    }

    async fn say(&self, line: &str) -> Result<()> {
        Ok(self.connection.send(line.as_bytes()).await?)
    }

    /// Waits for a line and checks it.
    async fn hears(&self, expected: &str) -> Result<()> {
        let (message, _) = timeout(TIMEOUT, self.connection.recv()).await??;
        let heard = String::from_utf8_lossy(&message);
        ensure!(heard == expected, "{} heard {heard:?} instead of {expected:?}", self.name);
        let fields = json!({ "member": self.name, "line": heard });
        self.output.event("line", format!("  {} hears  {heard}", self.name), fields);
        Ok(())
    }
}

/// Checks the lines that each member receives. `transport` creates the transport of the host, at
/// `address`, and that of each member.
pub(super) async fn run(
    transport: impl Fn() -> DynTransport,
    address: SocketAddr,
    output: &Output,
) -> Result<()> {
    let credential = NetCredential::self_signed(TrustPolicy::Any)?;
    let trust = credential.identity();
    let at_host = transport();
    let listener = at_host.create_listener(address, &[CHAT], credential).await?;
    let address = listener.local_addr();
    let hosting = tokio::spawn(host(listener));

    let one = Player::join(&transport(), address, trust, output).await?;
    let two = Player::join(&transport(), address, trust, output).await?;
    let three = Player::join(&transport(), address, trust, output).await?;
    one.say("/join rust").await?;
    one.hears(&format!("rust: {} is here", one.name)).await?;
    two.say("/join rust").await?;
    one.hears(&format!("rust: {} is here", two.name)).await?;
    two.hears(&format!("rust: {} is here", two.name)).await?;
    three.say("/join tea").await?;
    three.hears(&format!("tea: {} is here", three.name)).await?;

    one.say("does it borrow?").await?;
    let line = format!("rust: {}: does it borrow?", one.name);
    one.hears(&line).await?;
    two.hears(&line).await?;
    one.say("it does\nrust: crane: it does not").await?;
    let line = format!("rust: {}: it does rust: crane: it does not", one.name);
    one.hears(&line).await?;
    two.hears(&line).await?;
    three.say("no other member").await?;
    three.hears(&format!("tea: {}: no other member", three.name)).await?; // no other member

    two.say("/join tea").await?;
    let line = format!("tea: {} is here", two.name);
    two.hears(&line).await?;
    three.hears(&line).await?;
    two.connection.close(0, "bye").await;
    one.hears(&format!("rust: {} left", two.name)).await?;
    three.hears(&format!("tea: {} left", two.name)).await?;
    hosting.abort();
    let text = "every member received the lines of its rooms, and no others";
    output.event("done", text, json!({}));
    Ok(())
}

/// A step that takes longer hangs.
const TIMEOUT: Duration = Duration::from_secs(20);
