//! `Source`: a file that is sent.

use super::message::{Announcement, CHUNK, MessageError, Plan, Report};
use super::name::FilePath;
use super::resume::hash_file;
use crate::exit::Exit;
use crate::output::Output;
use anyhow::{Context, Result, anyhow};
use net_traits::{Bytes, DynConnection, NetConnection};
use serde_json::json;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

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
    ///
    /// # Errors
    ///
    /// Also if the listener neither reads nor answers for 300 s, and 1 s for each 16 MiB of the file.
    pub(crate) async fn send(&self, connection: &DynConnection, output: &Output) -> Result<u64> {
        let file = File::open(&self.path).await;
        let mut file = file.with_context(|| format!("cannot read {:?}", self.path))?;
        let name = self.name.as_str();
        let announcement = Announcement { size: self.size, hash: self.hash, name: name.as_bytes() };
        // Without a message, the listener may be reading its whole file for the hash.
        let limit = SILENCE + Duration::from_secs(self.size / SLOWEST_DISK);
        progress(limit, connection.send_bytes(announcement.encode().into())).await?;
        let (plan, _) = progress(limit, connection.recv()).await?;
        let plan = Plan::decode(&plan, self.size).context("the listener's plan is invalid")?;

        let present = self.size - plan.bytes();
        if present > 0 {
            let text = format!("resuming {name}: {present} of {} bytes are stored", self.size);
            let fields = json!({ "name": name, "stored": present, "size": self.size });
            output.note("resuming", text, fields);
        }
        let shown = output.progress("sent", name, self.size);
        let mut flow = Flow { sent: 0, safe: 0, stored: None };
        for mut range in plan.missing {
            while range.start < range.end {
                let length = (range.end - range.start).min(CHUNK as u64);
                while !flow.may_send(length, plan.window) {
                    flow.on_report(&progress(limit, connection.recv()).await?.0)?;
                }
                while let Some((report, _)) = connection.try_recv()? {
                    flow.on_report(&report)?;
                }
                let chunk = self.chunk(&mut file, range.start, length).await?;
                progress(limit, connection.send_bytes(chunk)).await?;
                range.start += length;
                flow.sent += length;
                shown.set(present + flow.sent);
            }
        }
        while flow.stored.is_none() {
            flow.on_report(&progress(limit, connection.recv()).await?.0)?;
        }
        if flow.stored != Some(self.hash) {
            return Err(MessageError::Hash.into());
        }
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
    /// Whether `length` bytes more are within the window.
    fn may_send(&self, length: u64, window: u64) -> bool {
        // The listener chooses the window, so nothing is added to it.
        self.sent - self.safe + length <= window
    }

    fn on_report(&mut self, message: &[u8]) -> Result<(), MessageError> {
        match Report::decode(message)? {
            Report::Stored(hash) => self.stored = Some(hash),
            Report::Safe(safe) if (self.safe..=self.sent).contains(&safe) => self.safe = safe,
            Report::Safe(safe) => return Err(MessageError::Confirmed { safe, sent: self.sent }),
        }
        Ok(())
    }
}

/// Waits until the peer has read or answered, for at most `limit`.
async fn progress<T, E: Into<anyhow::Error>>(
    limit: Duration,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T> {
    match timeout(limit, step).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => {
            let silent = anyhow!("the peer neither reads nor answers for {} s", limit.as_secs());
            Err(silent.context(Exit::Disconnected))
        }
    }
}

/// How long a listener may be silent, besides the time in which it reads the file.
const SILENCE: Duration = Duration::from_secs(300);

/// How many bytes a listener reads in a second at least.
const SLOWEST_DISK: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use net_traits::{
        DynTransport, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
    };
    use net_traits_test::memory::MemoryNetwork;

    #[test]
    fn any_window_is_possible() {
        let flow = Flow { sent: 10, safe: 4, stored: None };
        assert!(flow.may_send(1, 7) && !flow.may_send(2, 7));
        assert!(flow.may_send(1, u64::MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_listener_does_not_hold_the_sender_for_ever() {
        let network = MemoryNetwork::new(0);
        let (transport, server) = (DynTransport::new(network.transport()), network.transport());
        let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let bind_addr = "0.0.0.0:0".parse().unwrap();
        let listener = server.create_listener(bind_addr, &["a"], credential.clone()).await.unwrap();
        let address = listener.local_addr();
        let accepted = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (connection, silent) =
            tokio::join!(transport.connect(address, &["a"], credential), accepted);
        let connection = connection.unwrap();

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        std::fs::write(&path, b"content").unwrap();
        let source = Source::read(path, FilePath::parse(b"x").unwrap()).await.unwrap();
        let error = source.send(&connection, &Output::new(false, true)).await.unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Disconnected);
        assert!(format!("{error:#}").contains("neither reads nor answers for 300 s"), "{error:#}");
        drop(silent);
    }
}
