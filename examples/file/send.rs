//! `Source`: a file that is sent.

use super::message::{Announcement, CHUNK, Plan, Report};
use super::resume::hash_file;
use super::{FileName, Progress};
use anyhow::{Context, Result, bail, ensure};
use indicatif::MultiProgress;
use msquic_transport::MsQuicNetConnection;
use net_traits::{Bytes, NetConnection};
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// An open file with its hash.
pub(crate) struct Source {
    path: PathBuf,
    file: tokio::fs::File,
    name: FileName,
    pub(crate) size: u64,
    hash: [u8; 32],
}

impl Source {
    /// Opens a file and reads it once for its hash. This may take longer than a listener waits for
    /// a message, so open the file before you connect.
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        let display = path.display();
        let name = path.file_name().unwrap_or_default();
        let name = FileName::parse(name.as_encoded_bytes()).with_context(|| {
            format!("the listener would reject the name of {display}, rename it")
        })?;
        let opened = path.to_owned();
        let hashed = tokio::task::spawn_blocking(move || -> std::io::Result<_> {
            let mut file = std::fs::File::open(opened)?;
            let size = file.metadata()?.len();
            Ok((hash_file(&mut file, size)?, size, file))
        });
        let hashed = hashed.await?;
        let (hash, size, file) = hashed.with_context(|| format!("cannot read {display}"))?;
        let hash = hash.with_context(|| format!("{display} changed while it was read"))?;
        let file = tokio::fs::File::from_std(file);
        Ok(Self { path: path.to_owned(), file, name, size, hash })
    }

    /// Sends what the listener lacks, and returns how many bytes that was once the listener has
    /// confirmed the hash of the whole file.
    pub(crate) async fn send(&mut self, connection: &MsQuicNetConnection) -> Result<u64> {
        let name = self.name.as_str().as_bytes();
        let announcement = Announcement { size: self.size, hash: self.hash, name };
        connection.send_bytes(announcement.encode().into()).await?;
        let (plan, _) = connection.recv().await?;
        let plan = Plan::decode(&plan, self.size).context("the listener's plan is invalid")?;

        let present = self.size - plan.bytes();
        if present > 0 {
            println!("resuming: {present} of {} bytes are stored already", self.size);
        }
        let progress = Progress::new("sent:", self.size, &MultiProgress::new());
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
                connection.send_bytes(self.read(range.start, length).await?).await?;
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
    async fn read(&mut self, offset: u64, length: u64) -> Result<Bytes> {
        let mut message = vec![0; 8 + length as usize];
        message[..8].copy_from_slice(&offset.to_be_bytes());
        let file = &mut self.file;
        file.seek(SeekFrom::Start(offset)).await?;
        let read = file.read_exact(&mut message[8..]).await;
        read.with_context(|| format!("cannot read {} any more", self.path.display()))?;
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
