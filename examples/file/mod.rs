//! Code shared by `listen` and `dial`: identities on disk, and the transfer of a file in messages.
//!
//! 1. dialler → listener: the file's size, SHA-256 and name
//! 2. listener → dialler: its window, and the ranges of bytes that it lacks
//! 3. dialler → listener: the bytes of these ranges, each message with its offset
//! 4. listener → dialler, from time to time: how many of these bytes are safe on its disk
//! 5. listener → dialler: the SHA-256 of the stored file
//!
//! [`message`] has their encoding. A transfer that ends early is resumed when the dialler sends the
//! same file again: the listener keeps what it has ([`resume`]). The dialler sends at most a window
//! beyond what is safe, so that no more than a window is sent twice. A file with another size or
//! hash begins anew.
//!
//! A listener that does not store the file closes the connection with a code of [`close_code`] and
//! a reason.
#![allow(dead_code, unused_imports, reason = "each example uses a part")]

pub(crate) mod message;
mod name;
mod receive;
mod resume;
mod send;

pub(crate) use message::MIN_WINDOW;
pub(crate) use name::{FileName, NameError};
pub(crate) use receive::Inbox;
pub(crate) use resume::Turns;
pub(crate) use send::Source;

use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use msquic_transport::{MsQuicNetConnection, library_version};
use net_traits::{CertHash, NetConnection, NetCredential, SelfSigned, TrustPolicy};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The application protocol of the examples.
pub(crate) const ALPN: &str = "file/2";

/// The codes with which the two programs close a connection.
pub(crate) mod close_code {
    /// The file was stored, and both sides agree on its hash.
    pub(crate) const DONE: u64 = 0;
    /// This side failed; the reason says how.
    pub(crate) const FAILED: u64 = 1;
    /// The listener rejects the name of the file.
    pub(crate) const NAME_REJECTED: u64 = 2;
    /// A file of that name exists.
    pub(crate) const NAME_EXISTS: u64 = 3;
    /// The file is larger than the listener accepts.
    pub(crate) const TOO_LARGE: u64 = 4;
    /// The listener serves its maximum of peers.
    pub(crate) const BUSY: u64 = 5;
    /// The same peer sends a file of the same name on a newer connection.
    pub(crate) const REPLACED: u64 = 6;
}

/// How long the listener waits for the next message of a file.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// The options of both programs for identity and trust.
#[derive(Debug, clap::Args)]
pub(crate) struct Identity {
    /// PEM file with the local certificate and key; created if it does not exist
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// Identity (64 hexadecimal digits) of a peer to trust; may be repeated
    #[arg(long, value_name = "HASH")]
    trust: Vec<CertHash>,
    /// Print the local identity and exit
    #[arg(long)]
    pub(crate) print_identity: bool,
}

impl Identity {
    pub(crate) fn load(&self) -> Result<NetCredential> {
        let path = &self.identity;
        let trust = TrustPolicy::hashes(self.trust.iter().copied());
        if !path.exists() {
            store_private(path, &SelfSigned::generate(&["localhost"])?.to_pem())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        NetCredential::from_pem(&pem, trust)
            .with_context(|| format!("{} holds no credential", path.display()))
    }
}

/// Writes a file that only its owner can read, completely or not at all.
fn store_private(path: &Path, text: &str) -> Result<()> {
    // Temporary files are private to their owner.
    let mut file = tempfile::NamedTempFile::new_in(directory_of(path))?;
    file.write_all(text.as_bytes())?;
    file.persist_noclobber(path)?;
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Prints the two identities and the transfer rate.
pub(crate) async fn report(
    connection: &MsQuicNetConnection,
    size: u64,
    sent: u64,
    elapsed: Duration,
) {
    let seconds = elapsed.as_secs_f64();
    println!("size      {size} bytes");
    println!("sent      {sent} bytes");
    println!("time      {seconds:.2} s");
    println!("rate      {:.0} MB/s", sent as f64 / 1e6 / seconds.max(1e-9));
    if let Ok(statistics) = connection.statistics().await {
        println!("RTT       {} µs", statistics.rtt.as_micros());
    }
    println!("me        {}", connection.local_identity());
    println!("peer      {}", connection.remote_identity());
    println!("protocol  {}", connection.alpn_negotiated());
    if let Ok(version) = library_version() {
        println!("libmsquic {version}");
    }
}

/// A progress bar on a terminal, otherwise a line per tenth, or no output.
struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    size: u64,
    tenths: std::cell::Cell<u64>,
    started: Instant,
}

impl Progress {
    fn new(what: &str, size: u64, bars: &MultiProgress) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            let style = ProgressStyle::with_template(template);
            let bar = bars.add(ProgressBar::new(size));
            bar.with_style(style.unwrap_or(ProgressStyle::default_bar()))
        });
        let what = what.to_owned();
        Self { what, bar, size, tenths: std::cell::Cell::new(0), started: Instant::now() }
    }

    fn none() -> Self {
        let tenths = std::cell::Cell::new(0);
        let bar = Some(ProgressBar::hidden());
        Self { what: String::new(), bar, size: 0, tenths, started: Instant::now() }
    }

    fn set(&self, done: u64) {
        if let Some(bar) = &self.bar {
            return bar.set_position(done);
        }
        let tenths = (u128::from(done) * 10 / u128::from(self.size.max(1))) as u64;
        if tenths > self.tenths.replace(tenths) {
            let seconds = self.started.elapsed().as_secs_f64();
            println!("{} {done} of {} bytes, {seconds:.1} s", self.what, self.size);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Formats an error in one line.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some errors include the text of their cause.
        if parts.last().is_none_or(|last| !last.contains(&cause)) {
            parts.push(cause);
        }
    }
    parts.join(": ")
}
