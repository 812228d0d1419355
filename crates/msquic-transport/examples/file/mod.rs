//! What `listen` and `dial` share: identities on disk, and how a file travels in messages.
//!
//! 1. dialler → listener: 8 bytes size (big-endian), then the file name in UTF-8
//! 2. dialler → listener: the bytes of the file, in any number of messages
//! 3. dialler → listener: the SHA-256 of the file
//! 4. listener → dialler: the SHA-256 of what it stored
#![allow(dead_code, reason = "each example uses a part")]

mod name;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use msquic_transport::{MsQuicNetConnection, library_version};
use net_traits::{Bytes, CertHash, NetConnection, NetCredential, SelfSigned, TrustPolicy};
use sha2::{Digest, Sha256};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The application protocol of the examples.
pub(crate) const ALPN: &str = "file/1";

/// Bytes of the file in one message.
const CHUNK: usize = 1024 * 1024;

/// What both programs are told about identity and trust.
#[derive(Debug, clap::Args)]
pub(crate) struct Identity {
    /// PEM file with my certificate and key; made if it does not exist
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// Identity (64 hexadecimal digits) of a peer to trust; may be repeated
    #[arg(long, value_name = "HASH")]
    trust: Vec<CertHash>,
    /// Print my identity and leave
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

/// Writes a file that only its owner can read, whole or not at all.
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

/// Sends the file and returns its size, when the peer has confirmed its hash.
pub(crate) async fn send_file(connection: &MsQuicNetConnection, path: &Path) -> Result<u64> {
    let display = path.display();
    let mut file =
        tokio::fs::File::open(path).await.with_context(|| format!("cannot open {display}"))?;
    let metadata = file.metadata().await?;
    ensure!(metadata.is_file(), "{display} is not a file");
    let size = metadata.len();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    connection.send(&[&size.to_be_bytes()[..], name.as_bytes()].concat()).await?;

    let progress = Progress::new("sent", size);
    let mut hash = Sha256::new();
    let mut rest = size;
    while rest > 0 {
        let length = CHUNK.min(usize::try_from(rest).unwrap_or(CHUNK));
        let mut chunk = vec![0; length];
        file.read_exact(&mut chunk).await.with_context(|| format!("cannot read {display}"))?;
        hash.update(&chunk);
        connection.send_bytes(Bytes::from(chunk)).await?;
        rest -= length as u64;
        progress.set(size - rest);
    }
    let hash: [u8; 32] = hash.finalize().into();
    connection.send(&hash).await?;
    let (answer, _) = connection.recv().await?;
    progress.finish();
    ensure!(answer == hash[..], "the peer stored something else: the hashes differ");
    Ok(size)
}

/// Receives a file into the directory `target`; it appears there when it is complete and its hash
/// is right. Returns its path and size.
pub(crate) async fn receive_file(
    connection: &MsQuicNetConnection,
    target: &Path,
    quiet: bool,
) -> Result<(PathBuf, u64)> {
    let (header, _) = connection.recv().await?;
    ensure!(header.len() >= 8, "the peer did not announce a file");
    let (size, name) = header.split_at(8);
    let size = u64::from_be_bytes(size.try_into()?);
    let name = std::str::from_utf8(name).context("the name of the file is not UTF-8")?;
    // Only a plain name: a peer must not choose where it is stored.
    let Some(name) = Path::new(name).file_name().filter(|file| *file == name) else {
        bail!("{name:?} is not a plain file name");
    };
    let path = target.join(name);

    let writing = || format!("cannot write into {}", target.display());
    let partial = tempfile::NamedTempFile::new_in(target).with_context(writing)?;
    let mut file = tokio::fs::File::from_std(partial.reopen()?);
    let progress = if quiet { Progress::none() } else { Progress::new("received", size) };
    let mut hash = Sha256::new();
    let mut received = 0;
    while received < size {
        let (chunk, _) = connection.recv().await?;
        received += chunk.len() as u64;
        ensure!(received <= size, "the peer sent more than it announced");
        hash.update(&chunk);
        file.write_all(&chunk).await.with_context(writing)?;
        progress.set(received);
    }
    file.flush().await.with_context(writing)?;
    file.sync_all().await.with_context(writing)?;
    let (expected, _) = connection.recv().await?;
    let hash: [u8; 32] = hash.finalize().into();
    ensure!(expected == hash[..], "the file changed on the way: the hashes differ");
    partial.persist(&path).with_context(writing)?;
    connection.send(&hash).await?;
    progress.finish();
    Ok((path, size))
}

/// Prints who talks to whom, and how fast it went.
pub(crate) async fn report(connection: &MsQuicNetConnection, size: u64, elapsed: Duration) {
    let seconds = elapsed.as_secs_f64();
    println!("size      {size} bytes");
    println!("time      {seconds:.2} s");
    println!("rate      {:.0} MB/s", size as f64 / 1e6 / seconds.max(1e-9));
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

/// A bar on a terminal, a line for each tenth otherwise, or nothing.
struct Progress {
    what: &'static str,
    bar: Option<ProgressBar>,
    size: u64,
    tenths: std::cell::Cell<u64>,
    started: Instant,
}

impl Progress {
    fn new(what: &'static str, size: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            let style = ProgressStyle::with_template(template);
            ProgressBar::new(size).with_style(style.unwrap_or(ProgressStyle::default_bar()))
        });
        Self { what, bar, size, tenths: std::cell::Cell::new(0), started: Instant::now() }
    }

    fn none() -> Self {
        let tenths = std::cell::Cell::new(0);
        let bar = Some(ProgressBar::hidden());
        Self { what: "", bar, size: 0, tenths, started: Instant::now() }
    }

    fn set(&self, done: u64) {
        if let Some(bar) = &self.bar {
            return bar.set_position(done);
        }
        let tenths = (u128::from(done) * 10 / u128::from(self.size.max(1))) as u64;
        if tenths > self.tenths.replace(tenths) {
            let seconds = self.started.elapsed().as_secs_f64();
            println!("{} {}0 % after {seconds:.1} s", self.what, tenths);
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// An error in one line.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some causes are part of the text of what they caused.
        if parts.last().is_none_or(|last| !last.contains(&cause)) {
            parts.push(cause);
        }
    }
    parts.join(": ")
}
