//! `Home`: the directory with the identity, the trusted peers and the endorsing key.

use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// The directory of the program's own files, which are private to their owner.
#[derive(Debug, Clone)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// Selects `directory`, or `$NETMSG_HOME`, or `netmsg` in the user's configuration.
    pub(crate) fn new(directory: Option<&Path>) -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let directory = directory
            .map(Path::to_owned)
            .or_else(|| variable("NETMSG_HOME"))
            .or_else(|| variable("XDG_CONFIG_HOME").map(|it| it.join("netmsg")))
            .or_else(|| variable("HOME").map(|it| it.join(".config").join("netmsg")));
        Ok(Self(directory.context("there is no home directory, give one with --home DIR")?))
    }

    /// Returns the file with the certificate and the private key.
    pub(crate) fn identity(&self) -> PathBuf {
        self.0.join("identity.pem")
    }

    /// Returns the file with the trusted peers.
    pub(crate) fn trust(&self) -> PathBuf {
        self.0.join("trust")
    }

    /// Returns the file with the endorsing key.
    pub(crate) fn endorser(&self) -> PathBuf {
        self.0.join("endorser.key")
    }

    /// Locks the directory against other processes that change its files, until the file is
    /// dropped. Creates the directory if it does not exist.
    pub(crate) fn lock(&self) -> Result<File> {
        create_directory(&self.0, true)?;
        let path = self.0.join("lock");
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }
}

/// Creates a directory and those above it, unless it exists. `private` keeps other users out of a new one.
pub(crate) fn create_directory(path: &Path, private: bool) -> Result<()> {
    let display = path.display();
    ensure!(path.is_dir() || !path.exists(), "{display} is not a directory, choose another path");
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    if private {
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    }
    #[cfg(not(unix))]
    let _ = private;
    builder.create(path).with_context(|| format!("cannot create the directory {display}"))
}

/// Writes a file that only its owner can read, completely or not at all.
///
/// # Errors
///
/// If the file exists, unless `force` replaces it.
pub(crate) fn store_private(path: &Path, content: &[u8], force: bool) -> Result<()> {
    let display = path.display();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let stored = (|| {
        // Temporary files are private to their owner.
        let mut file = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new(".")))?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        match force {
            true => file.persist(path)?,
            false => file.persist_noclobber(path)?,
        };
        Ok(())
    })();
    stored.map_err(|error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => {
            anyhow::anyhow!("{display} exists already, replace it with --force or choose another")
        }
        _ => anyhow::Error::from(error).context(format!("cannot write {display}")),
    })
}

/// Reads a file that others must not be able to change or replace, nor to read if it is `secret`; `None` if it
/// does not exist.
pub(crate) fn read_private(path: &Path, secret: bool) -> Result<Option<Vec<u8>>> {
    let display = path.display();
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.with_context(|| format!("cannot read {display}"))?,
    };
    let metadata = file.metadata().with_context(|| format!("cannot read {display}"))?;
    ensure!(metadata.is_file(), "{display} is not a file");
    check_mode(&metadata, path, secret)?;
    check_directory(path)?;
    let mut content = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut content);
    read.with_context(|| format!("cannot read {display}"))?;
    if content.len() as u64 > MAX_BYTES {
        bail!("{display} has more than {MAX_BYTES} bytes, it is another file");
    }
    Ok(Some(content))
}

#[cfg(unix)]
fn check_mode(metadata: &fs::Metadata, path: &Path, secret: bool) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let mode = metadata.mode() & 0o777;
    let (forbidden, what) = if secret { (0o077, "used") } else { (0o022, "changed") };
    let display = path.display();
    ensure!(
        mode & forbidden == 0,
        "{display} can be {what} by other users (mode {mode:04o}), run chmod 600 {display}"
    );
    check_owner(metadata, path)
}

/// Fails if another user can replace the file at `path`.
#[cfg(unix)]
fn check_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let display = parent.display();
    let metadata = parent.metadata().with_context(|| format!("cannot read {display}"))?;
    let mode = metadata.mode() & 0o7777;
    // In a sticky directory, such as /tmp, others cannot rename this user's files.
    ensure!(
        mode & 0o022 == 0 || mode & 0o1000 != 0,
        "{display} can be changed by other users (mode {mode:04o}), run chmod go-w {display}"
    );
    check_owner(&metadata, parent)
}

#[cfg(unix)]
fn check_owner(metadata: &fs::Metadata, path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let (display, owner) = (path.display(), metadata.uid());
    ensure!(
        owner == 0 || owner == rustix::process::geteuid().as_raw(),
        "{display} belongs to another user ({owner}), who can change it; copy it"
    );
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &fs::Metadata, _: &Path, _: bool) -> Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn check_directory(_: &Path) -> Result<()> {
    Ok(())
}

/// The largest file of this directory that is read, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
