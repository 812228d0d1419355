//! Receives files from peers that it trusts: `listen --identity me.pem --trust HASH`.
//!
//! A transfer that ends early is resumed when the peer sends the same file again: until then the
//! directory has a hidden file `.partial-IDENTITY-...` and its map, at most 16 of each peer.
//!
//! Each peer has its own task, from its handshake to its close, so that a slow peer delays no
//! other. The transport limits handshakes to [`HANDSHAKES`], since every host can begin one, and
//! this program limits transfers to [`TRANSFERS`].
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

mod file;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use file::{Inbox, Turns, close_code};
use indicatif::MultiProgress;
use msquic_transport::{
    MsQuicListener, MsQuicNetConnection, MsQuicNetIncomingRequest, MsQuicTransport,
    MsQuicTransportConfig,
};
use net_traits::{CloseReason, NetConnection, NetIncomingRequest, NetListener, NetTransport};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How many peers may be in their handshake at once; further ones are refused.
const HANDSHAKES: usize = 256;

/// How many files are received at once; further peers are rejected as busy.
const TRANSFERS: usize = 64;

/// Receives files over QUIC and stores them under their names.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    identity: file::Identity,
    /// Address to listen on; port 0 selects a free port
    #[arg(long, default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// Directory for the files, created if it does not exist
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// The largest accepted file, in bytes [default: 16 GiB]
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 30, hide_default_value = true)]
    max_size: u64,
    /// Bytes that a peer may send beyond those that are safe on the disk, which is what an
    /// interrupted transfer sends twice at most [default: 32 MiB]
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20, hide_default_value = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(file::MIN_WINDOW..))]
    window: u64,
    /// Exit after one peer
    #[arg(long)]
    once: bool,
    /// Print stored files only
    #[arg(long)]
    quiet: bool,
    /// Exit when standard input is closed
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let result = tokio::select! {
        result = run(&options) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        () = parent_left(options.exit_with_parent) => Err(anyhow!("the parent process ended")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("listen: {}", file::one_line(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let credential = options.identity.load()?;
    if options.identity.print_identity {
        println!("{}", credential.identity());
        return Ok(());
    }
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("{} cannot be a directory for files", options.out.display()))?;
    println!("identity {}", credential.identity());
    let config = MsQuicTransportConfig::new().max_handshakes(HANDSHAKES);
    let transport = MsQuicTransport::with_config(config)?;
    let listener = transport.create_listener(options.bind, &[file::ALPN], credential).await?;
    println!("listening on {}", listener.local_addr());
    let server = Arc::new(Server {
        inbox: Inbox {
            directory: options.out.clone(),
            max_size: options.max_size,
            window: options.window,
            quiet: options.quiet,
            bars: MultiProgress::new(),
            turns: Turns::default(),
        },
        transfers: Semaphore::new(TRANSFERS),
    });
    if options.once {
        return server.serve_one(listener.accept().await?).await;
    }
    server.serve(&listener).await
}

/// State shared by the tasks of all peers.
struct Server {
    inbox: Inbox,
    transfers: Semaphore,
}

impl Server {
    /// Serves peers concurrently until the listener is closed. Dropping the future ends all
    /// transfers.
    async fn serve(self: &Arc<Self>, listener: &MsQuicListener) -> Result<()> {
        let mut peers = JoinSet::new();
        loop {
            tokio::select! {
                request = listener.accept() => {
                    let (server, request) = (self.clone(), request?);
                    let peer = request.remote_addr();
                    peers.spawn(async move { (peer, server.serve_one(request).await) });
                }
                Some(served) = peers.join_next() => {
                    let error = match served {
                        Ok((_, Ok(()))) => continue,
                        Ok((peer, Err(error))) => format!("{peer}: {}", file::one_line(&error)),
                        Err(panic) => panic.to_string(), // of one peer; the others are served
                    };
                    self.inbox.bars.suspend(|| eprintln!("listen: {error}"));
                }
            }
        }
    }

    /// Serves one peer, from its handshake to its close.
    async fn serve_one(&self, request: MsQuicNetIncomingRequest) -> Result<()> {
        let connection = request.accept().await?;
        let Ok(_transfer) = self.transfers.try_acquire() else {
            connection.close(close_code::BUSY, "too many files at once, try again").await;
            bail!("rejected {} as busy: {TRANSFERS} files at once", connection.remote_identity());
        };
        if !self.inbox.quiet {
            let (peer, address) = (connection.remote_identity(), connection.remote_addr());
            self.inbox.say(&format!("connected with {peer} at {address}"));
        }
        self.receive(&connection).await
    }

    async fn receive(&self, connection: &MsQuicNetConnection) -> Result<()> {
        let started = Instant::now();
        match self.inbox.receive_file(connection).await {
            Ok(stored) => {
                let seconds = started.elapsed().as_secs_f64();
                // The dialler closes when it has compared the hashes.
                let closed = timeout(file::TIMEOUT, connection.watch_close()).await;
                if let Ok(CloseReason::Peer { code: close_code::DONE, .. }) = closed {
                    stored.receipt.confirmed().context("cannot remove the map of a stored file")?;
                }
                let (path, size) = (stored.path.display(), stored.size);
                self.inbox.say(&format!("stored {path} ({size} bytes, {seconds:.2} s)"));
                Ok(())
            }
            Err(error) => {
                let code = error.close_code();
                let error = anyhow::Error::from(error);
                connection.close(code, &file::one_line(&error)).await;
                Err(error)
            }
        }
    }
}

/// Resolves when standard input is closed, if requested.
async fn parent_left(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let (left, leaving) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = left.send(());
    });
    let _ = leaving.await;
}

#[cfg(test)]
#[path = "file/listen_tests.rs"]
mod tests;
