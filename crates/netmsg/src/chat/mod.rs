//! `netmsg chat`: a chat with rooms.
//!
//! One process hosts, others join it and type lines; `/join ROOM` and `/leave ROOM` change rooms. A
//! member's name is derived from its certificate, which the transport has verified.

mod demo;
mod rooms;

use crate::output::{Output, is_hidden};
use crate::peer::{Peer, local_address};
use crate::session::Session;
use crate::transport::Kind;
use crate::{close_code, id, protocol, trust};
use anyhow::{Context, Result};
use clap::ArgGroup;
use net_traits::{
    CertHash, CloseReason, DynConnection, NetConnection, NetListener, NetTransport, RecvError,
    TrustPolicy,
};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Chat in rooms: host them, or join a host
///
/// A line goes to all rooms of its member. `/join ROOM` and `/leave ROOM` change rooms; the end of
/// the standard input ends the chat.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("mode").required(true)))]
pub(crate) struct Options {
    /// Host the rooms at this address; port 0 selects a free port
    #[arg(long, value_name = "ADDRESS", group = "mode", value_parser = local_address)]
    host: Option<SocketAddr>,
    /// Join the host at [IDENTITY@]HOST:PORT
    #[arg(long, value_name = "PEER", group = "mode")]
    join: Option<Peer>,
    /// Run a host and three members in this process, and check the lines that they receive
    #[arg(long, group = "mode")]
    demo: bool,
    /// An identity to trust besides those of the trust file; may be repeated
    #[arg(long, value_name = "IDENTITY")]
    trust: Vec<CertHash>,
    /// As host, accept every peer
    #[arg(long, conflicts_with_all = ["join", "demo"])]
    anyone: bool,
}

pub(crate) async fn run(session: &Session, kind: Kind, options: &Options) -> Result<()> {
    let Session { home, output, transport } = session;
    if let Some(address) = options.host {
        let trust = match options.anyone {
            true => TrustPolicy::Any,
            false => trust::policy(home, &options.trust)?,
        };
        let credential = id::load(home, trust)?;
        let identity = credential.identity().to_string();
        let listener = transport.create_listener(address, &[protocol::CHAT], credential).await;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr();
        let text = format!("listening on {address}\nidentity {identity}");
        let fields = json!({ "address": address.to_string(), "identity": identity });
        output.event("listening", text, fields);
        return rooms::host(listener).await;
    }
    if let Some(peer) = &options.join {
        let connection = peer.dial(home, transport, protocol::CHAT, &options.trust).await?;
        let name = rooms::name(&connection.local_identity().parse()?);
        output.event("joined", format!("you are {name}"), json!({ "name": name }));
        return member(connection, output).await;
    }
    demo::run(|| kind.create(), (Ipv4Addr::LOCALHOST, 0).into(), output).await
}

/// Sends typed lines and prints received ones, until either ends.
async fn member(connection: DynConnection, output: &Output) -> Result<()> {
    let mut typed = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = typed.next_line() => match line? {
                Some(line) => connection.send(line.as_bytes()).await?,
                None => {
                    connection.close(close_code::DONE, "bye").await;
                    return Ok(());
                }
            },
            heard = connection.recv() => match heard {
                Ok((message, _)) => {
                    let line = String::from_utf8_lossy(&message).replace(is_hidden, " ");
                    output.event("line", &line, json!({ "line": line }));
                }
                Err(RecvError::Closed(CloseReason::Peer { code: close_code::DONE, .. })) => {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net_traits::DynTransport;
    use net_traits_test::memory::MemoryNetwork;

    #[tokio::test(start_paused = true)]
    async fn members_hear_the_lines_of_their_rooms() {
        let (network, output) = (MemoryNetwork::new(0), Output::new(false, true));
        let transport = || DynTransport::new(network.transport());
        demo::run(transport, (Ipv4Addr::UNSPECIFIED, 0).into(), &output).await.unwrap();
    }
}
