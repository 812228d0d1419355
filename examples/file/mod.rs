//! Code shared by `listen` and `dial`: identities on disk, and the transfer of a file in messages.
//!
//! 1. dialler → listener: 8 bytes size (big-endian), then the file name in UTF-8
//! 2. dialler → listener: the bytes of the file, in any number of messages
//! 3. dialler → listener: the SHA-256 of the file
//! 4. listener → dialler: the SHA-256 of the stored file
//!
//! A listener that does not store the file closes the connection with a code of [`close_code`] and
//! a reason.
#![allow(dead_code, reason = "each example uses a part")]

mod name;

pub(crate) use name::{FileName, NameError};

use anyhow::{Context, Result, anyhow, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use msquic_transport::{MsQuicNetConnection, library_version};
use net_traits::{Bytes, CertHash, NetConnection, NetCredential, SelfSigned, TrustPolicy};
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// The application protocol of the examples.
pub(crate) const ALPN: &str = "file/1";

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
}

/// Bytes of the file in one message.
const CHUNK: usize = 1024 * 1024;

/// How long the listener waits for the next message of a file.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// How many characters of a rejected name are printed.
const SHOWN: usize = 80;

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

/// Sends the file and returns its size once the peer has confirmed its hash.
pub(crate) async fn send_file(connection: &MsQuicNetConnection, path: &Path) -> Result<u64> {
    let display = path.display();
    let mut file =
        tokio::fs::File::open(path).await.with_context(|| format!("cannot open {display}"))?;
    let metadata = file.metadata().await?;
    ensure!(metadata.is_file(), "{display} is not a file");
    let size = metadata.len();
    let name = path.file_name().unwrap_or_default();
    let name = FileName::parse(name.as_encoded_bytes())
        .with_context(|| format!("the listener would reject the name of {display}, rename it"))?;
    connection.send(&[&size.to_be_bytes()[..], name.as_str().as_bytes()].concat()).await?;

    let progress = Progress::new("sent", size, &MultiProgress::new());
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
    ensure!(answer == hash[..], "the peer stored different content: the hashes differ");
    Ok(size)
}

/// The destination of received files, and their progress display.
pub(crate) struct Inbox {
    pub(crate) directory: PathBuf,
    /// The largest accepted file, in bytes.
    pub(crate) max_size: u64,
    pub(crate) quiet: bool,
    /// The progress bars of all current transfers.
    pub(crate) bars: MultiProgress,
}

/// Why a file was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("the file name {name:?} is rejected: {cause}")]
    Name { name: String, cause: NameError },
    #[error("a file named {0} exists already")]
    Exists(FileName),
    #[error("{name} has {size} bytes, more than the limit of {max_size} (--max-size)")]
    TooLarge { name: FileName, size: u64, max_size: u64 },
    #[error("no data arrived for {} s", TIMEOUT.as_secs())]
    Stalled,
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl ReceiveError {
    /// Returns the close code for the dialler.
    pub(crate) fn close_code(&self) -> u64 {
        match self {
            Self::Name { .. } => close_code::NAME_REJECTED,
            Self::Exists(_) => close_code::NAME_EXISTS,
            Self::TooLarge { .. } => close_code::TOO_LARGE,
            Self::Stalled | Self::Failed(_) => close_code::FAILED,
        }
    }
}

impl Inbox {
    /// Receives a file and returns its path and size.
    ///
    /// The file is written under a hidden temporary name in the same directory. It gets its final
    /// name when it is complete and its hash matches, and never replaces another file. A failure,
    /// or dropping the future, removes it.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]; the caller closes the connection with its
    /// [`close_code`](ReceiveError::close_code).
    pub(crate) async fn receive_file(
        &self,
        connection: &MsQuicNetConnection,
    ) -> Result<(PathBuf, u64), ReceiveError> {
        let header = next(connection).await?;
        let Some((size, name)) = header.split_first_chunk() else {
            return Err(anyhow!("the peer did not announce a file").into());
        };
        let size = u64::from_be_bytes(*size);
        let name = FileName::parse(name).map_err(|cause| ReceiveError::Name {
            name: String::from_utf8_lossy(name).chars().take(SHOWN).collect(),
            cause,
        })?;
        let max_size = self.max_size;
        if size > max_size {
            return Err(ReceiveError::TooLarge { name, size, max_size });
        }
        let path = name.within(&self.directory);
        // An early check that saves a useless transfer. The check that decides happens when the
        // file is named.
        if path.symlink_metadata().is_ok() {
            return Err(ReceiveError::Exists(name));
        }

        let writing = || format!("cannot write into {}", self.directory.display());
        let partial = tempfile::Builder::new()
            .prefix(".incoming-")
            .tempfile_in(&self.directory)
            .with_context(writing)?;
        let hash = self.receive_bytes(connection, &name, size, partial.reopen()).await?;
        if let Err(error) = partial.persist_noclobber(&path) {
            return Err(match error.error.kind() {
                ErrorKind::AlreadyExists => ReceiveError::Exists(name),
                _ => anyhow::Error::from(error.error).context(writing()).into(),
            });
        }
        connection
            .send(&hash)
            .await
            .context("the file is stored, but the peer has disconnected")?;
        Ok((path, size))
    }

    /// Writes the bytes of a file and returns their hash, which matches that of the peer.
    async fn receive_bytes(
        &self,
        connection: &MsQuicNetConnection,
        name: &FileName,
        size: u64,
        file: std::io::Result<std::fs::File>,
    ) -> Result<[u8; 32], ReceiveError> {
        let writing = || format!("cannot write into {}", self.directory.display());
        let mut file = tokio::fs::File::from_std(file.with_context(writing)?);
        let what = format!("received {name}:");
        let progress = match self.quiet {
            true => Progress::none(),
            false => Progress::new(&what, size, &self.bars),
        };
        let mut hash = Sha256::new();
        let mut received = 0;
        while received < size {
            let chunk = next(connection).await?;
            if chunk.is_empty() || chunk.len() as u64 > size - received {
                let length = chunk.len();
                let what = format!("{length} bytes after {received} of {size}");
                return Err(anyhow!("the peer did not send the announced size: {what}").into());
            }
            received += chunk.len() as u64;
            hash.update(&chunk);
            file.write_all(&chunk).await.with_context(writing)?;
            progress.set(received);
        }
        file.flush().await.with_context(writing)?;
        file.sync_all().await.with_context(writing)?;
        let hash: [u8; 32] = hash.finalize().into();
        if next(connection).await? != hash[..] {
            return Err(anyhow!("the file was corrupted in transit: the hashes differ").into());
        }
        Ok(hash)
    }

    /// Prints a line above the progress bars.
    pub(crate) fn say(&self, line: &str) {
        self.bars.suspend(|| println!("{line}"));
    }
}

/// Waits for the next message, and fails if the peer stalls.
async fn next(connection: &MsQuicNetConnection) -> Result<Bytes, ReceiveError> {
    let received = timeout(TIMEOUT, connection.recv()).await.map_err(|_| ReceiveError::Stalled)?;
    Ok(received.map_err(anyhow::Error::from)?.0)
}

/// Prints the two identities and the transfer rate.
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
            println!("{} {}0 % after {seconds:.1} s", self.what, tenths);
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
