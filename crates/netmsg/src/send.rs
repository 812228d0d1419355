//! `netmsg send`: sends files and directories.

use crate::advice::explained;
use crate::exit::Exit;
use crate::file::Source;
use crate::output::one_line;
use crate::peer::Peer;
use crate::session::Session;
use crate::{close_code, collect, protocol};
use anyhow::{Result, anyhow};
use net_traits::{CertHash, CloseReason, DynConnection, NetConnection, RecvError, SendError};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Send files and directories to one or more peers
///
/// Each file is stored under its name, and those of a directory below the name of the directory. A
/// file that exists there is never replaced. When a transfer ends early, the same command sends what
/// is missing.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// A peer as [IDENTITY@]HOST:PORT; may be repeated
    ///
    /// With an identity, only this one is accepted. Without, the trust file decides.
    #[arg(long, required = true, value_name = "PEER")]
    to: Vec<Peer>,
    /// An identity to trust besides those of the trust file; may be repeated
    #[arg(long, value_name = "IDENTITY")]
    trust: Vec<CertHash>,
    /// Leave out what cannot be sent: hidden files, links, names that are not valid everywhere
    #[arg(long)]
    skip: bool,
    /// The files and directories
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Result<()> {
    let sources = collect::sources(&options.paths, options.skip, &session.output).await?;
    let total = sources.len() * options.to.len();
    let sender = Arc::new(Sender {
        session: session.clone(),
        trust: options.trust.clone(),
        sources,
        reports_failures: total > 1,
        peers: Semaphore::new(PEERS),
    });
    let started = Instant::now();
    let mut running = JoinSet::new();
    for (index, peer) in options.to.iter().cloned().enumerate() {
        let sender = sender.clone();
        running.spawn(async move { (index, sender.send_to(&peer).await) });
    }
    let mut tallies = Vec::new();
    while let Some(tally) = running.join_next().await {
        tallies.push(tally?);
    }
    // If all fail, the exit code is that of the first peer, whichever fails first.
    tallies.sort_by_key(|(index, _)| *index);
    let mut all = Tally::default();
    for (_, Tally { files, bytes, failure }) in tallies {
        all.files += files;
        all.bytes += bytes;
        all.failure = all.failure.or(failure);
    }
    let (files, bytes) = (all.files, all.bytes);
    match all.failure {
        Some(failure) if files == 0 => Err(failure),
        Some(_) => {
            let failed = total - files;
            Err(anyhow!("{failed} of {total} transfers failed").context(Exit::Partial))
        }
        None => {
            let seconds = started.elapsed().as_secs_f64();
            let rate = bytes as f64 / 1e6 / seconds.max(1e-9);
            let text =
                format!("done: {files} transfers, {bytes} bytes, {seconds:.2} s, {rate:.0} MB/s");
            let fields = json!({ "files": files, "bytes": bytes, "seconds": seconds });
            session.output.event("done", text, fields);
            Ok(())
        }
    }
}

/// What was sent.
#[derive(Default)]
struct Tally {
    files: usize,
    bytes: u64,
    /// The first failure.
    failure: Option<anyhow::Error>,
}

struct Sender {
    session: Session,
    trust: Vec<CertHash>,
    sources: Vec<Source>,
    /// Whether each failure is printed, because there may be several.
    reports_failures: bool,
    peers: Semaphore,
}

impl Sender {
    /// Sends all files to a peer, over one connection unless the peer rejects a file.
    async fn send_to(&self, peer: &Peer) -> Tally {
        let _place = self.peers.acquire().await;
        let (mut tally, mut connection) = (Tally::default(), None);
        for source in &self.sources {
            let result = self.send(peer, source, &mut connection).await;
            let Err(error) = result.map(|bytes| {
                tally.files += 1;
                tally.bytes += bytes;
            }) else {
                continue;
            };
            let concerns_file = Exit::of(&error) == Exit::Failed || is_about_file(&error);
            let (text, name) = (explained(&error), source.name.as_str());
            if self.reports_failures {
                let exit = Exit::of(&error) as i32;
                let fields = json!({ "peer": peer.to_string(), "name": name, "exit": exit });
                self.session.output.error(&format!("{peer}: {name}: {text}"), fields);
            }
            tally.failure.get_or_insert(error);
            if !concerns_file {
                break;
            }
        }
        if let Some(connection) = connection {
            connection.close(close_code::DONE, "all files are sent").await;
        }
        tally
    }

    /// Sends a file on `connection`, which is opened if there is none and closed after an error.
    async fn send(
        &self,
        peer: &Peer,
        source: &Source,
        connection: &mut Option<DynConnection>,
    ) -> Result<u64> {
        let Session { home, output, transport } = &self.session;
        let open = match connection.take() {
            Some(open) => open,
            None => peer.dial(home, transport, protocol::FILE, &self.trust).await?,
        };
        let started = Instant::now();
        match source.send(&open, output).await {
            Ok(sent) => {
                let (name, size) = (source.name.as_str(), source.size);
                let seconds = started.elapsed().as_secs_f64();
                let text = format!("stored {name} at {peer}: {sent} of {size} bytes sent");
                let fields = json!({
                    "peer": open.remote_identity(), "address": open.remote_addr().to_string(),
                    "name": name, "size": size, "sent": sent, "seconds": seconds,
                });
                output.event("stored", text, fields);
                *connection = Some(open);
                Ok(sent)
            }
            Err(error) => {
                open.close(close_code::FAILED, &one_line(&error)).await;
                Err(error)
            }
        }
    }
}

/// Whether the listener rejects this file only.
fn is_about_file(error: &anyhow::Error) -> bool {
    let reason = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(RecvError::Closed(reason)) => Some(reason),
        _ => match cause.downcast_ref() {
            Some(SendError::Closed(reason)) => Some(reason),
            _ => None,
        },
    });
    matches!(reason, Some(CloseReason::Peer { code, .. }) if close_code::is_about_file(*code))
}

/// To how many peers files are sent at once.
const PEERS: usize = 16;
