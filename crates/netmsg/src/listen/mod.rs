//! `netmsg listen`: receives files, answers pings and, if allowed, measurements.
//!
//! Each peer has its own task, from its handshake to its close, so that a slow peer delays no
//! other. The transport limits connections and handshakes, and this program limits transfers to
//! [`TRANSFERS`] and measurements to [`MEASUREMENTS`].

mod attempts;
mod trust_file;

use crate::advice::explained;
use crate::file::{Inbox, MIN_WINDOW, Turns};
use crate::home::create_directory;
use crate::output::{Output, one_line};
use crate::peer::local_address;
use crate::session::Session;
use crate::{close_code, id, perf, ping, protocol};
use anyhow::{Context, Result, bail};
use attempts::FailedAttempts;
use net_traits::{
    CertHash, ConnectError, DynConnection, DynIncomingRequest, DynListener, NetConnection,
    NetIncomingRequest, NetListener, NetTransport,
};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use trust_file::TrustFile;

/// How many peers send files at once; further ones are rejected as busy.
const TRANSFERS: usize = 64;

/// How many peers measure at once; further ones are rejected as busy.
const MEASUREMENTS: usize = 4;

/// Receive files from trusted peers, and answer their pings
///
/// Files are stored under their names. A file that exists is never replaced; a peer that sends it
/// again with the same content is told that it is stored. A transfer that ends early is resumed when
/// the peer sends the same file again: until then the directory has a hidden file
/// `.partial-IDENTITY-...` and its map, at most 16 of each peer.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Address to listen on; port 0 selects a free port, [::] is all IPv6 and IPv4 addresses
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:4433", value_parser = local_address)]
    bind: SocketAddr,
    /// Directory for the files, created if it does not exist
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// An identity to trust besides those of the trust file; may be repeated
    #[arg(long, value_name = "IDENTITY")]
    trust: Vec<CertHash>,
    /// The largest accepted file, in bytes [default: 16 GiB]
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 30, hide_default_value = true)]
    #[arg(value_parser = bytes)]
    max_size: u64,
    /// Bytes that a peer may send beyond those that are safe on the disk, which is what an
    /// interrupted transfer sends twice at most [default: 32 MiB]
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20, hide_default_value = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(MIN_WINDOW..))]
    window: u64,
    /// Let trusted peers measure with `netmsg perf`, which uses the whole network for a while
    #[arg(long)]
    perf: bool,
    /// Exit after one trusted peer, with the result of serving it
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Result<()> {
    let trust = TrustFile::open(&session.home, &options.trust)?;
    let credential = id::load(&session.home, trust.policy())?;
    let identity = credential.identity();
    create_directory(&options.out, false)?;
    let mut alpn = vec![protocol::FILE, protocol::PING];
    alpn.extend(options.perf.then_some(protocol::PERF));
    let listener = session.transport.create_listener(options.bind, &alpn, credential).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", options.bind))?;
    let (address, output) = (listener.local_addr(), &session.output);
    let text = format!("listening on {address}\nidentity {identity}");
    let fields = json!({ "address": address.to_string(), "identity": identity.to_string() });
    output.event("listening", text, fields);
    // A listener for `ping` and `perf` needs no place for files, so that it goes on.
    if let Err(error) = tempfile::tempfile_in(&options.out) {
        let out = options.out.display();
        let text = format!("no file can be stored in {out}: {error}; choose another --out");
        output.error(&text, json!({}));
    }

    let server = Arc::new(Server::new(output, &options.out, options.max_size, options.window));
    let serve = async {
        match options.once {
            true => server.serve_first(&listener).await,
            false => server.serve(&listener).await,
        }
    };
    tokio::select! {
        served = serve => served,
        never = trust.follow(&listener, &session.transport, output) => match never {},
    }
}

fn bytes(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "it is not a number of bytes in digits, such as 1000000")
}

/// State shared by the tasks of all peers.
struct Server {
    output: Output,
    inbox: Inbox,
    transfers: Semaphore,
    measurements: Semaphore,
}

impl Server {
    fn new(output: &Output, directory: &std::path::Path, max_size: u64, window: u64) -> Self {
        Self {
            output: output.clone(),
            inbox: Inbox {
                directory: directory.to_owned(),
                max_size,
                window,
                output: output.clone(),
                turns: Turns::default(),
            },
            transfers: Semaphore::new(TRANSFERS),
            measurements: Semaphore::new(MEASUREMENTS),
        }
    }

    /// Serves peers concurrently until the listener is closed. Dropping the future ends all
    /// transfers.
    async fn serve(self: &Arc<Self>, listener: &DynListener) -> Result<()> {
        let (mut peers, mut attempts) = (JoinSet::new(), FailedAttempts::default());
        loop {
            tokio::select! {
                request = listener.accept() => {
                    let (server, request) = (self.clone(), request?);
                    let peer = request.remote_addr();
                    peers.spawn(async move { (peer, server.serve_one(request).await) });
                }
                Some(served) = peers.join_next() => {
                    let (peer, error) = match served {
                        Ok((_, Ok(()))) => continue,
                        Ok((peer, Err(error))) => (peer.to_string(), error),
                        Err(panic) => (String::new(), panic.into()), // the other peers are served
                    };
                    self.report(&peer, &error, &mut attempts);
                }
            }
        }
    }

    /// Serves the first peer whose handshake succeeds: a scan of the port is not a peer.
    async fn serve_first(&self, listener: &DynListener) -> Result<()> {
        let mut attempts = FailedAttempts::default();
        loop {
            let request = listener.accept().await?;
            let peer = request.remote_addr().to_string();
            match self.serve_one(request).await {
                Err(error) if error.is::<ConnectError>() => {
                    self.report(&peer, &error, &mut attempts);
                }
                served => return served,
            }
        }
    }

    /// Prints why a peer was not served, but not each failed handshake.
    fn report(&self, peer: &str, error: &anyhow::Error, attempts: &mut FailedAttempts) {
        let is_attempt = error.is::<ConnectError>();
        let hidden = if is_attempt { attempts.on_failure(Instant::now()) } else { Some(0) };
        if let Some(hidden) = hidden {
            let more = match hidden {
                0 => String::new(),
                _ => format!(" ({hidden} attempts before it failed, too)"),
            };
            let text = format!("{peer}: {}{more}", explained(error));
            self.output.error(&text, json!({ "address": peer, "hidden": hidden }));
        }
    }

    /// Serves one peer, from its handshake to its close.
    async fn serve_one(&self, request: DynIncomingRequest) -> Result<()> {
        let connection = request.accept().await?;
        let (peer, address) = (connection.remote_identity(), connection.remote_addr());
        let fields = json!({
            "peer": peer, "address": address.to_string(), "protocol": connection.alpn_negotiated(),
        });
        self.output.note("connected", format!("connected with {peer} at {address}"), fields);
        match connection.alpn_negotiated() {
            protocol::PING => ping::answer(&connection).await,
            protocol::PERF => {
                let _place = place(&self.measurements, &connection).await?;
                perf::answer(&connection).await
            }
            _ => {
                let _place = place(&self.transfers, &connection).await?;
                self.receive(&connection).await
            }
        }
    }

    /// Receives files until the peer closes the connection.
    async fn receive(&self, connection: &DynConnection) -> Result<()> {
        loop {
            match self.inbox.receive_file(connection).await {
                Ok(None) => return Ok(()),
                Ok(Some(stored)) => {
                    let (path, size) = (stored.path.display(), stored.size);
                    let text = format!("stored {path} ({size} bytes)");
                    let fields = json!({
                        "peer": connection.remote_identity(), "path": stored.path.to_string_lossy(),
                        "size": size, "received": stored.received,
                    });
                    self.output.event("stored", text, fields);
                }
                Err(error) => {
                    let code = error.close_code();
                    let error = anyhow::Error::from(error);
                    connection.close(code, &one_line(&error)).await;
                    return Err(error);
                }
            }
        }
    }
}

/// Takes one of the places, or rejects the peer as busy.
async fn place<'a>(
    places: &'a Semaphore,
    connection: &DynConnection,
) -> Result<tokio::sync::SemaphorePermit<'a>> {
    if let Ok(place) = places.try_acquire() {
        return Ok(place);
    }
    connection.close(close_code::BUSY, "too many peers at once, try again").await;
    bail!("rejected {} as busy: too many peers at once", connection.remote_identity())
}

#[cfg(test)]
mod tests;
