//! Receives files from peers that it trusts: `listen --identity me.pem --trust HASH`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

mod file;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use msquic_transport::{MsQuicListener, MsQuicTransport};
use net_traits::{NetConnection, NetIncomingRequest, NetListener, NetTransport};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// The code of a close because this side failed.
const FAILED: u64 = 1;

/// Receives files over QUIC and stores them under their names.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    identity: file::Identity,
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// Directory for the files, made if there is none
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Leave after one peer
    #[arg(long)]
    once: bool,
    /// Show only what was stored
    #[arg(long)]
    quiet: bool,
    /// Leave when standard input is closed
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let result = tokio::select! {
        result = run(&options) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        () = parent_left(options.exit_with_parent) => Err(anyhow!("the parent process left")),
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
    let transport = MsQuicTransport::new();
    let listener = transport.create_listener(options.bind, &[file::ALPN], credential).await?;
    println!("listening on {}", listener.local_addr());
    loop {
        let served = serve_one(&listener, options).await;
        if options.once {
            return served;
        }
        if let Err(error) = served {
            eprintln!("listen: {}", file::one_line(&error));
        }
    }
}

async fn serve_one(listener: &MsQuicListener, options: &Options) -> Result<()> {
    let request = listener.accept().await?;
    let connection = request.accept().await?;
    if !options.quiet {
        let (peer, address) = (connection.remote_identity(), connection.remote_addr());
        println!("connected with {peer} at {address}");
    }
    let started = Instant::now();
    match file::receive_file(&connection, &options.out, options.quiet).await {
        Ok((path, size)) => {
            let elapsed = started.elapsed();
            connection.watch_close().await; // the dialler closes when it has compared the hashes
            println!("stored {} ({size} bytes, {:.2} s)", path.display(), elapsed.as_secs_f64());
            Ok(())
        }
        Err(error) => {
            connection.close(FAILED, &file::one_line(&error)).await;
            Err(error)
        }
    }
}

/// Resolves when standard input is closed, if that is asked for.
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
