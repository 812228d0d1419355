//! Sends a file to a listener that it trusts: `dial ADDRESS --identity me.pem --trust HASH FILE`.
//! When it ends early, the same command sends what is missing.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

mod file;

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use file::{Source, close_code};
use msquic_transport::{MsQuicNetConnection, MsQuicTransport};
use net_traits::{NetConnection, NetTransport};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Sends a file over QUIC and compares its hash with that of the stored file.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    identity: file::Identity,
    /// Address of the listener
    #[arg(required_unless_present = "print_identity")]
    address: Option<SocketAddr>,
    /// The file to send
    #[arg(required_unless_present = "print_identity")]
    file: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dial: {}", file::one_line(&error));
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
    let (Some(address), Some(path)) = (options.address, &options.file) else {
        bail!("give an address and a file");
    };
    if !path.is_file() {
        bail!("{} does not exist or is not a file", path.display());
    }
    let mut source = Source::open(path).await?;
    let transport = MsQuicTransport::new();
    let connection = transport.connect(address, &[file::ALPN], credential).await?;
    let sent = tokio::select! {
        sent = send(&connection, &mut source) => sent,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    };
    let (code, reason) = match &sent {
        Ok(()) => (close_code::DONE, "the hashes agree".to_owned()),
        Err(error) => (close_code::FAILED, file::one_line(error)),
    };
    connection.close(code, &reason).await;
    sent
}

async fn send(connection: &MsQuicNetConnection, source: &mut Source) -> Result<()> {
    let started = Instant::now();
    let sent = source.send(connection).await?;
    file::report(connection, source.size, sent, started.elapsed()).await;
    Ok(())
}
