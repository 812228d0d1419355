//! `netmsg`: files, chat and measurements between peers that know each other by key.
#![cfg_attr(test, allow(clippy::single_range_in_vec_init, reason = "lists of missing ranges"))]

mod advice;
mod chat;
mod close_code;
mod collect;
mod exit;
mod file;
mod home;
mod id;
mod listen;
mod manual;
mod output;
mod peer;
mod perf;
mod ping;
mod protocol;
mod send;
mod session;
mod transport;
mod trust;

use anyhow::{Result, anyhow};
use clap::{CommandFactory, Parser, Subcommand};
use exit::Exit;
use home::Home;
use net_traits::NetTransport;
use output::Output;
use serde_json::json;
use session::Session;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use transport::Kind;

/// Files, chat and measurements between peers that know each other by key
///
/// Each peer has an identity (`netmsg id`) and trusts others (`netmsg trust add`). One side listens
/// (`netmsg listen`), others dial (`netmsg send`, `ping`, `perf`). Both use the same `--transport`,
/// except that `fallback` accepts peers of `quic`, `quinn` and `tcp`, and `quic` those of `quinn`.
#[derive(Debug, Parser)]
#[command(version, after_help = exit::HELP)]
struct Options {
    /// Directory of the identity and the trusted peers [default: $NETMSG_HOME, or netmsg in
    /// $XDG_CONFIG_HOME or ~/.config]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    /// The transport
    #[arg(long, global = true, value_enum, default_value = "quic")]
    transport: Kind,
    /// Print one JSON object a line
    #[arg(long, global = true)]
    json: bool,
    /// Print results only, no progress
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Print the events of the transport to the standard error
    #[arg(long, short, global = true)]
    verbose: bool,
    /// Exit when the standard input is closed
    #[arg(long, global = true, hide = true)]
    exit_with_parent: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Id(id::Options),
    Trust(trust::Options),
    Listen(listen::Options),
    Send(send::Options),
    Ping(ping::Options),
    Perf(perf::Options),
    Chat(chat::Options),
    Man(manual::Manual),
    Completions(manual::Completions),
}

fn main() -> ExitCode {
    let options = Options::parse();
    let output = Output::new(options.json, options.quiet);
    match run(&options, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let exit = Exit::of(&error) as u8;
            output.error(&advice::explained(&error), json!({ "exit": exit }));
            exit.into()
        }
    }
}

fn run(options: &Options, output: &Output) -> Result<()> {
    match &options.command {
        Command::Man(manual) => return manual::man(Options::command(), manual),
        Command::Completions(shell) => return manual::completions(Options::command(), shell),
        _ => {}
    }
    let home = Home::new(options.home.as_deref())?;
    match &options.command {
        Command::Id(id) => id::run(&home, id, output),
        Command::Trust(trust) => trust::run(&home, trust, output),
        _ => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let result = runtime.block_on(network(options, home, output));
            // What was received is written; a thread that reads the terminal does not end.
            runtime.shutdown_timeout(LAST_WRITES);
            result
        }
    }
}

/// Runs a command that uses the network.
async fn network(options: &Options, home: Home, output: &Output) -> Result<()> {
    if options.verbose {
        let log = tracing_subscriber::fmt().with_writer(std::io::stderr);
        log.with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG).init();
    }
    let transport = options.transport.create();
    let session = Session { home, output: output.clone(), transport };
    let command = async {
        match &options.command {
            Command::Listen(listen) => listen::run(&session, listen).await,
            Command::Send(send) => send::run(&session, send).await,
            Command::Ping(ping) => ping::run(&session, ping).await,
            Command::Perf(perf) => perf::run(&session, perf).await,
            Command::Chat(chat) => chat::run(&session, options.transport, chat).await,
            Command::Id(_) | Command::Trust(_) | Command::Man(_) | Command::Completions(_) => {
                unreachable!("these commands do not use the network")
            }
        }
    };
    let result = tokio::select! {
        result = command => result,
        () = signal() => Err(anyhow!("by a signal").context(Exit::Interrupted)),
        () = parent_left(options.exit_with_parent) => {
            Err(anyhow!("the parent process ended").context(Exit::Interrupted))
        }
    };
    let reason = if result.is_ok() { "done" } else { "the program ends" };
    session.transport.shutdown(SHUTDOWN, reason).await;
    result
}

/// Resolves when the process is asked to end.
async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// Resolves when the standard input is closed, if requested.
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

/// How long the end of the connections may take.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// How long the end of the program waits for files to be written.
const LAST_WRITES: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_consistent() {
        Options::command().debug_assert();
    }
}
