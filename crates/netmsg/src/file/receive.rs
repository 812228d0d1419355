//! `Inbox`: the directory for received files.
//!
//! A task receives the messages of a peer. A thread that may block writes them, and owns the
//! partial file and the right to write it. When the task ends for any reason, the thread makes what
//! it has safe, and ends too.

use super::message::{self, Announcement, CHUNK, MIN_WINDOW, MessageError, Plan};
use super::name::{FilePath, NameError};
use super::resume::{Begun, Partial, PartialError, Transfer, Turn, Turns, begin, key};
use crate::close_code;
use crate::output::Output;
use anyhow::{Context, anyhow};
use net_traits::{Bytes, CloseReason, DynConnection, NetConnection, RecvError};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// How long the listener waits for the next message of a file, or for the next file.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// The destination of received files.
pub(crate) struct Inbox {
    pub(crate) directory: PathBuf,
    /// The largest accepted file, in bytes.
    pub(crate) max_size: u64,
    /// How many bytes a peer may send beyond those that are safe on the disk; at least 1 MiB. A
    /// quarter is written between two checkpoints.
    pub(crate) window: u64,
    pub(crate) output: Output,
    pub(crate) turns: Turns,
}

/// Why a file was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("the file name {name:?} is rejected: {cause}")]
    Name { name: String, cause: NameError },
    #[error("a file named {0} exists already, with other content")]
    Exists(FilePath),
    #[error("the directories of {0} cannot be created, since a file or link has the name of one")]
    NoDirectory(FilePath),
    #[error("{name} has {size} bytes, more than the limit of {max_size} (--max-size)")]
    TooLarge { name: FilePath, size: u64, max_size: u64 },
    #[error("no data arrived for {} s", TIMEOUT.as_secs())]
    Stalled,
    #[error("{0} is sent on a newer connection of the same peer")]
    Replaced(FilePath),
    #[error("the message of the peer is invalid")]
    Message(#[from] MessageError),
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl ReceiveError {
    /// Returns the close code for the dialler.
    pub(crate) fn close_code(&self) -> u64 {
        match self {
            Self::Name { .. } => close_code::NAME_REJECTED,
            Self::Exists(_) | Self::NoDirectory(_) => close_code::NAME_EXISTS,
            Self::TooLarge { .. } => close_code::TOO_LARGE,
            Self::Replaced(_) => close_code::REPLACED,
            Self::Stalled | Self::Message(_) | Self::Failed(_) => close_code::FAILED,
        }
    }
}

/// A stored file.
pub(crate) struct Stored {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    /// How many bytes of it this transfer brought.
    pub(crate) received: u64,
}

impl Inbox {
    /// Receives the next file, or what is missing of it; `None` if the peer has closed the
    /// connection because there is no further file.
    ///
    /// The file has a hidden name in the same directory until it is complete and its hash matches,
    /// and never replaces another file. After a failure, or when the future is dropped, what was
    /// received remains to be resumed, unless the hash of the complete file differs.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]; the caller closes the connection with its
    /// [`close_code`](ReceiveError::close_code).
    pub(crate) async fn receive_file(
        &self,
        connection: &DynConnection,
    ) -> Result<Option<Stored>, ReceiveError> {
        let Some(message) = announcement(connection).await? else { return Ok(None) };
        let announcement = Announcement::decode(&message)?;
        let Announcement { size, hash, name } = announcement;
        let name = announcement.name().map_err(|cause| ReceiveError::Name {
            name: String::from_utf8_lossy(name).chars().take(SHOWN).collect(),
            cause,
        })?;
        let max_size = self.max_size;
        if size > max_size {
            return Err(ReceiveError::TooLarge { name, size, max_size });
        }
        let peer = connection.remote_identity().parse().map_err(anyhow::Error::from)?;
        let transfer = Transfer { peer, name, size, hash };
        let turn = self.turns.take(&key(&transfer)).await;
        let turn = Arc::new(turn.ok_or_else(|| ReceiveError::Replaced(transfer.name.clone()))?);
        tokio::select! {
            stored = self.receive(connection, &transfer, turn.clone()) => stored.map(Some),
            () = turn.replaced() => Err(ReceiveError::Replaced(transfer.name.clone())),
        }
    }

    async fn receive(
        &self,
        connection: &DynConnection,
        transfer: &Transfer,
        turn: Arc<Turn>,
    ) -> Result<Stored, ReceiveError> {
        let failed = |error| Self::failed(&transfer.name, error);
        let (directory, beginning) = (self.directory.clone(), transfer.clone());
        let begun = spawn_blocking(move || {
            let begun = begin(&directory, beginning);
            (begun, turn)
        });
        let (begun, turn) = begun.await.context("cannot begin to write")?;
        let (path, received) = match begun.map_err(failed)? {
            Begun::Stored => {
                let plan = Plan { window: self.window.max(MIN_WINDOW), missing: Vec::new() };
                send(connection, plan.encode()).await?;
                (transfer.name.within(&self.directory), 0)
            }
            Begun::Partial(partial) => {
                let missing = transfer.size - partial.ranges().bytes();
                let writer = self.transfer(connection, &transfer.name, partial, turn).await?;
                let written = writer.await.context("cannot write")?;
                let path = written.map_err(failed)?;
                (path.context("the peer did not send the whole file")?, missing)
            }
        };
        send(connection, transfer.hash.to_vec()).await?;
        Ok(Stored { path, size: transfer.size, received })
    }

    /// Receives the bytes that are missing, and returns the task that writes them.
    async fn transfer(
        &self,
        connection: &DynConnection,
        name: &FilePath,
        partial: Partial,
        turn: Arc<Turn>,
    ) -> Result<JoinHandle<Written>, ReceiveError> {
        let window = self.window.max(MIN_WINDOW);
        let plan = Plan { window, missing: partial.ranges().missing() };
        let (missing, present) = (plan.bytes(), partial.ranges().bytes());
        if present > 0 {
            let text = format!("resuming {name}: {present} bytes are stored already");
            let fields = json!({ "name": name.as_str(), "stored": present });
            self.output.note("resuming", text, fields);
        }
        send(connection, plan.encode()).await?;

        let (chunks, queue) = mpsc::channel(QUEUE);
        let (report, mut safe) = watch::channel(0);
        let writer = spawn_blocking(move || {
            // Until the partial file is closed.
            let _turn = turn;
            write(partial, queue, &report, window / 4)
        });
        let progress = self.output.progress("received", name.as_str(), present + missing);
        let mut received = 0;
        while received < missing {
            tokio::select! {
                changed = safe.changed() => {
                    if changed.is_err() {
                        break; // The writer has failed.
                    }
                    let safe = *safe.borrow_and_update();
                    send(connection, safe.to_be_bytes().to_vec()).await?;
                }
                message = next(connection) => {
                    let message = message?;
                    let (offset, bytes) = message::chunk(&message)?;
                    received += bytes.len() as u64;
                    if chunks.send((offset, message.slice_ref(bytes))).await.is_err() {
                        break; // The writer has failed.
                    }
                    progress.set(present + received);
                }
            }
        }
        Ok(writer)
    }

    fn failed(name: &FilePath, error: PartialError) -> ReceiveError {
        match error {
            PartialError::Exists => ReceiveError::Exists(name.clone()),
            PartialError::NotADirectory(_) => ReceiveError::NoDirectory(name.clone()),
            PartialError::Io(error) => {
                // The peer reads it, and need not know the directory.
                anyhow::Error::from(error).context(format!("cannot write {name}")).into()
            }
            error => anyhow!(error).context(format!("{name} is not stored")).into(),
        }
    }
}

/// The path of the stored file, or `None` if bytes are missing.
type Written = Result<Option<PathBuf>, PartialError>;

/// Writes chunks until there are no more, with a checkpoint after each `interval` of bytes, and
/// stores the file if it is complete.
fn write(
    mut partial: Partial,
    mut chunks: mpsc::Receiver<(u64, Bytes)>,
    safe: &watch::Sender<u64>,
    interval: u64,
) -> Written {
    let before = partial.ranges().bytes();
    let mut written = Ok(());
    while written.is_ok()
        && let Some((offset, bytes)) = chunks.blocking_recv()
    {
        written = partial.write(offset, &bytes);
        if written.is_ok() && partial.unsynced() >= interval {
            partial.checkpoint()?;
            safe.send_replace(partial.ranges().bytes() - before);
        }
    }
    // Also after an error: what the peer sent before is valid.
    partial.checkpoint()?;
    written?;
    if partial.ranges().is_complete() { partial.finish().map(Some) } else { Ok(None) }
}

/// Waits for the next announcement; `None` if there is none.
async fn announcement(connection: &DynConnection) -> Result<Option<Bytes>, ReceiveError> {
    match timeout(TIMEOUT, connection.recv()).await.map_err(|_| ReceiveError::Stalled)? {
        Ok((message, _)) => Ok(Some(message)),
        Err(RecvError::Closed(CloseReason::Peer { code: close_code::DONE, .. })) => Ok(None),
        Err(error) => Err(anyhow::Error::from(error).into()),
    }
}

/// Waits for the next message, and fails if the peer stalls.
async fn next(connection: &DynConnection) -> Result<Bytes, ReceiveError> {
    let received = timeout(TIMEOUT, connection.recv()).await.map_err(|_| ReceiveError::Stalled)?;
    Ok(received.map_err(anyhow::Error::from)?.0)
}

async fn send(connection: &DynConnection, message: Vec<u8>) -> Result<(), ReceiveError> {
    let sent = connection.send_bytes(message.into()).await;
    Ok(sent.context("the peer has disconnected")?)
}

/// How many messages wait for the thread that writes; each has at most [`CHUNK`] bytes.
const QUEUE: usize = 1024 * 1024 / CHUNK;

/// How many characters of a rejected name are printed.
const SHOWN: usize = 80;
