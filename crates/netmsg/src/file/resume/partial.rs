//! `Partial`: a file on disk that is not complete yet, with the map of its stored ranges.
//!
//! The process or the machine may stop at any moment. What the map on disk records is on disk:
//!
//! 1. [`checkpoint`](Partial::checkpoint) syncs the data, writes and syncs a new map, renames it
//!    over the old one, and syncs the directory. Until the rename, the old map is valid.
//! 2. Before the bytes of another transfer are written into a partial file, an empty map is stored
//!    in this way.
//! 3. [`finish`](Partial::finish) reads the whole file, compares its hash, and only then renames it
//!    to its final name.
//!
//! The peer may not be told that its file is stored. When it sends the file again, the file of that
//! name has the announced content, and is reported as stored.
//!
//! All functions block. The lock of a partial file ends with its process.

use super::map::{self, Transfer};
use super::ranges::{RangeError, Ranges};
use net_traits::CertHash;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// How many partial files a peer may leave; beginning another one removes the oldest.
pub(crate) const MAX_PER_PEER: usize = 16;

/// What is on disk for a transfer.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it is matched at once")]
pub(crate) enum Begun {
    /// Bytes are missing, or the hash is not verified.
    Partial(Partial),
    /// A file of that name and content exists.
    Stored,
}

/// Opens the partial file of a transfer, or creates it. A partial file of the same peer and name
/// whose size or hash differ, and one whose map is damaged, begin anew.
///
/// # Errors
///
/// [`PartialError::Exists`] if another file has the name, [`PartialError::NotADirectory`],
/// [`PartialError::InUse`] if another process has the file, or [`PartialError::Io`].
pub(crate) fn begin(directory: &Path, transfer: Transfer) -> Result<Begun, PartialError> {
    let target = transfer.name.within(directory);
    let key = key(&transfer);
    let (data, map) = (directory.join(&key), directory.join(&key).with_extension("map"));
    for parent in transfer.name.parents_within(directory) {
        check_directory(&parent)?;
    }
    if target.symlink_metadata().is_ok() {
        if !has_hash(&target, &transfer)? {
            return Err(PartialError::Exists);
        }
        remove(&map)?;
        return Ok(Begun::Stored);
    }
    let stored = read_map(&map).filter(|(stored, _)| *stored == transfer);
    make_room(directory, &transfer.peer, &key)?;
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
    let file = options.open(&data)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(PartialError::InUse),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    // The process that had the lock may have finished the file. The lock is that of the renamed
    // file then, or of one that was just created.
    if target.symlink_metadata().is_ok() {
        remove(&data)?;
        return Err(PartialError::Exists);
    }
    let length = file.metadata()?.len();
    let resumed = stored.map(|(_, ranges)| ranges).filter(|ranges| ranges.end() <= length);
    let begins = resumed.is_none();
    let ranges = resumed.unwrap_or_else(|| Ranges::new(transfer.size));
    let partial =
        Partial { directory: directory.to_owned(), data, map, file, transfer, ranges, unsynced: 0 };
    if begins {
        partial.store_map()?;
        partial.file.set_len(0)?;
    }
    Ok(Begun::Partial(partial))
}

/// An open partial file.
#[derive(Debug)]
pub(crate) struct Partial {
    directory: PathBuf,
    data: PathBuf,
    map: PathBuf,
    file: File,
    transfer: Transfer,
    ranges: Ranges,
    /// Bytes written since the last checkpoint.
    unsynced: u64,
}

impl Partial {
    pub(crate) fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Returns how many bytes were written since the last checkpoint.
    pub(crate) fn unsynced(&self) -> u64 {
        self.unsynced
    }

    /// Writes bytes that are missing.
    ///
    /// # Errors
    ///
    /// [`PartialError::Range`] before anything is written, or [`PartialError::Io`]; the bytes count
    /// as missing then.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), PartialError> {
        let range = offset..offset.saturating_add(bytes.len() as u64);
        self.ranges.insert(range.clone())?;
        let file = &mut self.file;
        let written = file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(bytes));
        if let Err(error) = written {
            self.ranges.remove(range);
            return Err(error.into());
        }
        self.unsynced += bytes.len() as u64;
        Ok(())
    }

    /// Makes what was written survive the loss of power.
    pub(crate) fn checkpoint(&mut self) -> io::Result<()> {
        if self.unsynced > 0 {
            self.file.sync_data()?;
            self.store_map()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Gives the complete file its final name, and returns its path.
    ///
    /// # Errors
    ///
    /// [`PartialError::HashDiffers`] or [`PartialError::Exists`]; the partial file is removed then.
    /// After another error it remains.
    pub(crate) fn finish(mut self) -> Result<PathBuf, PartialError> {
        self.checkpoint()?;
        self.file.seek(SeekFrom::Start(0))?;
        if hash_file(&mut self.file, self.transfer.size)? != Some(self.transfer.hash) {
            self.discard()?;
            return Err(PartialError::HashDiffers);
        }
        let target = self.transfer.name.within(&self.directory);
        for parent in self.transfer.name.parents_within(&self.directory) {
            create_directory(&parent)?;
        }
        let data = TempPath::try_from_path(&self.data)?;
        if let Err(error) = data.persist_noclobber(&target) {
            if error.error.kind() == ErrorKind::AlreadyExists {
                self.discard()?;
                return Err(PartialError::Exists);
            }
            // The path would remove the file when it is dropped.
            let _ = error.path.keep();
            return Err(error.error.into());
        }
        sync_directory(target.parent().unwrap_or(&self.directory))?;
        remove(&self.map)?;
        Ok(target)
    }

    /// Removes the partial file and its map.
    fn discard(&self) -> io::Result<()> {
        // A map without data begins anew; data without a map does, too.
        remove(&self.map)?;
        remove(&self.data)
    }

    fn store_map(&self) -> io::Result<()> {
        let new = self.data.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&map::encode(&self.transfer, &self.ranges))?;
        file.sync_all()?;
        drop(file);
        fs::rename(new, &self.map)?;
        sync_directory(&self.directory)
    }
}

/// Why a partial file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartialError {
    #[error(transparent)]
    Range(#[from] RangeError),
    #[error("another file of that name exists")]
    Exists,
    #[error("{} exists and is no directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("another process receives this file, wait until it ends")]
    InUse,
    #[error("the content does not have the announced SHA-256, what was received is removed")]
    HashDiffers,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Returns the name of the partial file of a transfer, which depends on the peer and the name only.
pub(crate) fn key(transfer: &Transfer) -> String {
    let name = Sha256::digest(transfer.name.as_str());
    name[..16].iter().fold(prefix(&transfer.peer), |mut key, byte| {
        let _ = write!(key, "{byte:02x}");
        key
    })
}

fn prefix(peer: &CertHash) -> String {
    format!(".partial-{peer}-")
}

/// Returns the hash of a file of `size` bytes from the current position, or `None` if its size
/// differs.
pub(crate) fn hash_file(file: &mut File, size: u64) -> io::Result<Option<[u8; 32]>> {
    let (mut hash, mut read) = (Sha256::new(), 0);
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok((read == size).then(|| hash.finalize().into())),
            // Of a file that grows, no more than the expected size is read.
            _ if read >= size => return Ok(None),
            length => {
                hash.update(&block[..length]);
                read += length as u64;
            }
        }
    }
}

fn has_hash(path: &Path, transfer: &Transfer) -> io::Result<bool> {
    let is_file = path.symlink_metadata()?.is_file();
    Ok(is_file && hash_file(&mut File::open(path)?, transfer.size)? == Some(transfer.hash))
}

/// Returns `None` if the map does not exist, cannot be read or is damaged.
fn read_map(path: &Path) -> Option<(Transfer, Ranges)> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(map::MAX_BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
    map::decode(&bytes).ok()
}

/// Removes the oldest other partial files of a peer that are not in use, so that the
/// file `key` is one of at most [`MAX_PER_PEER`].
fn make_room(directory: &Path, peer: &CertHash, key: &str) -> io::Result<()> {
    let prefix = prefix(peer);
    let mut maps = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let is_map = path.extension().is_some_and(|extension| extension == "map");
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_map && name.starts_with(&prefix) && !name.starts_with(key) {
            // A file may be removed meanwhile.
            if let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) {
                maps.push((modified, path));
            }
        }
    }
    maps.sort();
    let excess = (maps.len() + 1).saturating_sub(MAX_PER_PEER);
    for (_, map) in maps.into_iter().take(excess) {
        let data = map.with_extension("");
        let is_free = File::open(&data).map_or(true, |data| data.try_lock().is_ok());
        if is_free {
            remove(&map)?;
            remove(&map.with_extension("new"))?;
            remove(&data)?;
        }
    }
    Ok(())
}

/// Fails if a file or a link, which could lead out of the directory, is at `path`.
fn check_directory(path: &Path) -> Result<(), PartialError> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(PartialError::NotADirectory(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // A parent is a file.
        Err(error) => Err(error.into()),
    }
}

fn create_directory(path: &Path) -> Result<(), PartialError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(sync_directory(path.parent().unwrap_or(path))?),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => check_directory(path),
        Err(error) => Err(error.into()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes renamed files survive the loss of power. Windows has no such call for directories.
fn sync_directory(directory: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(directory)?.sync_all(),
        false => Ok(()),
    }
}

/// Bytes that are read at once to compute a hash.
const BLOCK: usize = 256 * 1024;

#[cfg(test)]
#[path = "partial_tests.rs"]
mod tests;
