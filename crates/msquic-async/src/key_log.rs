//! `KeyLog`: the secrets of connections, for looking into captured packets.

use parking_lot::Mutex;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A file into which connections write their TLS secrets, in the format of NSS
/// (`SSLKEYLOGFILE`), which Wireshark and others read.
///
/// Whoever reads the file can decrypt everything, so this is for development only.
///
/// ```no_run
/// # fn example(configuration: msquic_async::Configuration) -> std::io::Result<()> {
/// use msquic_async::KeyLog;
///
/// let configuration = match KeyLog::from_env()? {
///     Some(key_log) => configuration.with_key_log(key_log),
///     None => configuration,
/// };
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct KeyLog {
    file: Arc<Mutex<File>>,
}

impl KeyLog {
    /// Appends to the file that the environment variable `SSLKEYLOGFILE` names; `None` if it is not
    /// set.
    ///
    /// ```no_run
    /// # fn example(mut configuration: msquic_async::Configuration) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(key_log) = msquic_async::KeyLog::from_env()? {
    ///     configuration = configuration.with_key_log(key_log);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn from_env() -> io::Result<Option<Self>> {
        std::env::var_os("SSLKEYLOGFILE").map(|path| Self::file(Path::new(&path))).transpose()
    }

    /// Appends to the file at `path`, which is made if it does not exist.
    ///
    /// ```no_run
    /// # fn example(configuration: msquic_async::Configuration) -> Result<(), Box<dyn std::error::Error>> {
    /// let key_log = msquic_async::KeyLog::file("keys.log".as_ref())?;
    /// let configuration = configuration.with_key_log(key_log);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn file(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self { file: Arc::new(Mutex::new(options.open(path)?)) })
    }

    /// Writes lines, on a thread that may wait.
    pub(crate) fn write(&self, lines: Zeroizing<String>) {
        let file = self.file.clone();
        let write = move || {
            if let Err(error) = file.lock().write_all(lines.as_bytes()) {
                tracing::warn!(%error, "the key log cannot be written");
            }
        };
        blocking::unblock(write).detach();
    }
}

impl fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLog").finish_non_exhaustive()
    }
}
