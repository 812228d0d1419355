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

use super::super::name::FilePath;
use super::map::{self, Transfer};
use super::ranges::{RangeError, Ranges};
use net_traits::CertHash;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
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
        if !is_stored(directory, &transfer)? {
            return Err(PartialError::Exists);
        }
        remove_unused(&data)?;
        return Ok(Begun::Stored);
    }
    make_room(directory, &transfer.peer, &key)?;
    let file = open_locked(&data)?;
    // The process that had the lock may have finished the file.
    if target.symlink_metadata().is_ok() {
        discard(&data)?;
        return match is_stored(directory, &transfer)? {
            true => Ok(Begun::Stored),
            false => Err(PartialError::Exists),
        };
    }
    let stored = read_map(&map).filter(|(stored, _)| *stored == transfer);
    let length = file.metadata()?.len();
    let resumed = stored.map(|(_, ranges)| ranges).filter(|ranges| ranges.end() <= length);
    let begins = resumed.is_none();
    let ranges = resumed.unwrap_or_else(|| Ranges::new(transfer.size));
    let partial =
        Partial { directory: directory.to_owned(), data, map, file, transfer, ranges, unsynced: 0 };
    if begins && let Err(error) = partial.store_map().and_then(|()| partial.file.set_len(0)) {
        // On a full disk, each name would leave a file.
        discard(&partial.data)?;
        return Err(error.into());
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
    /// [`PartialError::HashDiffers`], or [`PartialError::Exists`] if another file has the name by now;
    /// the partial file is removed then. After another error it remains.
    pub(crate) fn finish(mut self) -> Result<PathBuf, PartialError> {
        self.checkpoint()?;
        self.file.seek(SeekFrom::Start(0))?;
        if hash_file(&mut self.file, self.transfer.size)? != Some(self.transfer.hash) {
            discard(&self.data)?;
            return Err(PartialError::HashDiffers);
        }
        let target = self.transfer.name.within(&self.directory);
        for parent in self.transfer.name.parents_within(&self.directory) {
            create_directory(&parent)?;
        }
        let data = TempPath::try_from_path(&self.data)?;
        if let Err(error) = data.persist_noclobber(&target) {
            // The path would remove the file when it is dropped: another process may have it by then.
            let _ = error.path.keep();
            if error.error.kind() == ErrorKind::AlreadyExists {
                discard(&self.data)?;
                // Another peer may have sent the same file.
                return match is_stored(&self.directory, &self.transfer)? {
                    true => Ok(target),
                    false => Err(PartialError::Exists),
                };
            }
            return Err(error.error.into());
        }
        sync_parents(&self.directory, &self.transfer.name)?;
        remove(&self.map)?;
        Ok(target)
    }

    fn store_map(&self) -> io::Result<()> {
        let new = self.data.with_extension("new");
        let map = map::encode(&self.transfer, &self.ranges);
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&map)?;
            file.sync_all()
        });
        if let Err(error) = written.and_then(|()| fs::rename(&new, &self.map)) {
            remove(&new)?;
            return Err(error);
        }
        sync(&self.directory)
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

/// Returns whether the file of a transfer exists with its content. If so, it survives the loss of
/// power: the process that stored it may have ended before it was synced.
fn is_stored(directory: &Path, transfer: &Transfer) -> io::Result<bool> {
    let target = transfer.name.within(directory);
    let metadata = target.symlink_metadata()?;
    let is_stored = metadata.is_file()
        && metadata.len() == transfer.size
        && hash_file(&mut File::open(&target)?, transfer.size)? == Some(transfer.hash);
    if is_stored {
        sync(&target)?;
        sync_parents(directory, &transfer.name)?;
    }
    Ok(is_stored)
}

/// Returns `None` if the map does not exist, cannot be read or is damaged.
fn read_map(path: &Path) -> Option<(Transfer, Ranges)> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(map::MAX_BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
    map::decode(&bytes).ok()
}

/// Removes the oldest other partial files of a peer that are not in use, so that the
/// file `key` is one of at most [`MAX_PER_PEER`], unless more are in use.
fn make_room(directory: &Path, peer: &CertHash, key: &str) -> io::Result<()> {
    let prefix = prefix(peer);
    // A process that is killed may leave any one of data, map and new map without the others.
    let mut others = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(&prefix) else { continue };
        let other = format!("{prefix}{}", rest.split('.').next().unwrap_or_default());
        // A file may be removed meanwhile.
        if other != key
            && let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified())
        {
            let newest = others.entry(other).or_insert(modified);
            *newest = modified.max(*newest);
        }
    }
    let mut others: Vec<_> = others.into_iter().map(|(other, newest)| (newest, other)).collect();
    others.sort();
    let mut excess = (others.len() + 1).saturating_sub(MAX_PER_PEER);
    for (_, other) in others {
        if excess > 0 && remove_unused(&directory.join(other))? {
            excess -= 1;
        }
    }
    Ok(())
}

/// Removes a partial file and its maps unless it is in use, and returns whether it did.
fn remove_unused(data: &Path) -> io::Result<bool> {
    // The lock is held until the files are removed.
    let _locked = match File::open(data) {
        Ok(file) if file.try_lock().is_ok() && is_at(&file, data) => file,
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            remove(&data.with_extension("new"))?;
            remove(&data.with_extension("map"))?;
            return Ok(true);
        }
        Err(error) => return Err(error),
    };
    discard(data)?;
    Ok(true)
}

/// Removes a partial file, whose lock the caller holds, and its maps.
fn discard(data: &Path) -> io::Result<()> {
    // A map without data begins anew; data without a map does, too.
    let maps = ["new", "map"].map(|extension| remove(&data.with_extension(extension)));
    remove(data).and(maps.into_iter().collect())
}

/// Opens and locks the file at `path`, and creates it if it does not exist.
fn open_locked(path: &Path) -> Result<File, PartialError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    for _ in 0..ATTEMPTS {
        let file = options.open(path)?;
        match file.try_lock() {
            // Before it was locked, another process may have removed or renamed it.
            Ok(()) if is_at(&file, path) => return Ok(file),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PartialError::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Err(PartialError::InUse)
}

/// Whether `file` is the one at `path`. Windows keeps the name of an open file in use.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let of = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let (open, named) = (file.metadata().map(of), path.symlink_metadata().map(of));
        open.is_ok_and(|open| named.is_ok_and(|named| open == named))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.symlink_metadata().is_ok()
    }
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
        Ok(()) => Ok(()),
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

/// Makes the name of a file survive the loss of power, with those of its directories, which another
/// process may have created.
fn sync_parents(directory: &Path, name: &FilePath) -> io::Result<()> {
    name.parents_within(directory).try_for_each(|parent| sync(&parent))?;
    sync(directory)
}

/// Makes a file or directory survive the loss of power. Windows has no such call for directories,
/// nor for files that are open for reading.
fn sync(path: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(path)?.sync_all(),
        false => Ok(()),
    }
}

/// How often a partial file is opened that others remove at the same time.
const ATTEMPTS: usize = 8;

/// Bytes that are read at once to compute a hash.
const BLOCK: usize = 256 * 1024;

#[cfg(test)]
#[path = "partial_tests.rs"]
mod tests;
