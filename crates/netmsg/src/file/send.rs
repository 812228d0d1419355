//! `Source`: a file that is sent.

use super::message::{Announcement, CHUNK, Plan, Report};
use super::name::FilePath;
use super::resume::hash_file;
use crate::output::Output;
use anyhow::{Context, Result, bail, ensure};
use net_traits::{Bytes, DynConnection, NetConnection};
use serde_json::json;
use std::io::SeekFrom;
use std::path::PathBuf;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::task::spawn_blocking;

/// A file with its hash.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    path: PathBuf,
    pub(crate) name: FilePath,
    pub(crate) size: u64,
    hash: [u8; 32],
}

impl Source {
    /// Reads a file once for its hash. This may take longer than a listener waits for a message, so
    /// read all files before you connect.
    pub(crate) async fn read(path: PathBuf, name: FilePath) -> Result<Self> {
        let opened = path.clone();
        let hashed = spawn_blocking(move || -> std::io::Result<_> {
            let mut file = std::fs::File::open(opened)?;
            let size = file.metadata()?.len();
            Ok((hash_file(&mut file, size)?, size))
        });
        let (hash, size) = hashed.await?.with_context(|| format!("cannot read {path:?}"))?;
        let hash = hash.with_context(|| format!("{path:?} changed while it was read"))?;
        Ok(Self { path, name, size, hash })
    }

    /// Sends what the listener lacks, and returns how many bytes that was once the listener has
    /// confirmed the hash of the whole file.
    pub(crate) async fn send(&self, connection: &DynConnection, output: &Output) -> Result<u64> {
        let file = File::open(&self.path).await;
        let mut file = file.with_context(|| format!("cannot read {:?}", self.path))?;
        let name = self.name.as_str();
        let announcement = Announcement { size: self.size, hash: self.hash, name: name.as_bytes() };
        connection.send_bytes(announcement.encode().into()).await?;
        let (plan, _) = connection.recv().await?;
        let plan = Plan::decode(&plan, self.size).context("the listener's plan is invalid")?;

        let present = self.size - plan.bytes();
        if present > 0 {
            let text = format!("resuming {name}: {present} of {} bytes are stored", self.size);
            let fields = json!({ "name": name, "stored": present, "size": self.size });
            output.note("resuming", text, fields);
        }
        let progress = output.progress("sent", name, self.size);
        let mut flow = Flow { sent: 0, safe: 0, stored: None };
        for mut range in plan.missing {
            while range.start < range.end {
                let length = (range.end - range.start).min(CHUNK as u64);
                while flow.sent + length > flow.safe + plan.window {
                    flow.on_report(&connection.recv().await?.0)?;
                }
                while let Some((report, _)) = connection.try_recv()? {
                    flow.on_report(&report)?;
                }
                connection.send_bytes(self.chunk(&mut file, range.start, length).await?).await?;
                range.start += length;
                flow.sent += length;
                progress.set(present + flow.sent);
            }
        }
        while flow.stored.is_none() {
            flow.on_report(&connection.recv().await?.0)?;
        }
        let agrees = flow.stored == Some(self.hash);
        ensure!(agrees, "the peer stored different content: the hashes differ");
        Ok(flow.sent)
    }

    /// Returns the message with `length` bytes from `offset`.
    async fn chunk(&self, file: &mut File, offset: u64, length: u64) -> Result<Bytes> {
        let mut message = vec![0; 8 + length as usize];
        message[..8].copy_from_slice(&offset.to_be_bytes());
        file.seek(SeekFrom::Start(offset)).await?;
        let read = file.read_exact(&mut message[8..]).await;
        read.with_context(|| {
            format!("cannot read {:?} any more, it is shorter than before", self.path)
        })?;
        Ok(message.into())
    }
}

/// What was sent, and what the listener has reported.
struct Flow {
    sent: u64,
    safe: u64,
    stored: Option<[u8; 32]>,
}

impl Flow {
    fn on_report(&mut self, message: &[u8]) -> Result<()> {
        match Report::decode(message)? {
            Report::Stored(hash) => self.stored = Some(hash),
            Report::Safe(safe) if (self.safe..=self.sent).contains(&safe) => self.safe = safe,
            Report::Safe(safe) => bail!("the listener confirms {safe} bytes of {}", self.sent),
        }
        Ok(())
    }
}
