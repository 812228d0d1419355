//! `KeyLog`: the TLS secrets of connections, with which captured packets can be decrypted.

use data_encoding::HEXLOWER;
use parking_lot::Mutex;
#[cfg(unix)]
use rustix::{fs::OFlags, io::Errno};
use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A file into which connections write their TLS secrets, in the format of NSS
/// (`SSLKEYLOGFILE`), which Wireshark and others read.
///
/// A reader of the file can decrypt everything, so this is for development only, and the file must belong to the
/// user of this process alone, see [`file`](Self::file). Secrets are wiped from the memory of this process
/// after they were written.
///
/// Connections never wait for the file. It is written in the background. Secrets are dropped if writing fails,
/// or if 4096 lines already wait for a slow file; [`check`](Self::check) reports it.
///
/// The option `key_log` of each transport that encrypts takes one.
///
/// ```no_run
/// use net_traits::KeyLog;
///
/// /// The key log that the user asks for, if so.
/// fn key_log() -> std::io::Result<Option<KeyLog>> {
///     KeyLog::from_env()
/// }
/// ```
#[derive(Clone)]
pub struct KeyLog {
    shared: Arc<Shared>,
}

struct Shared {
    /// Locked by the job that writes.
    file: Mutex<File>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Zeroizing<String>>,
    /// A job is writing the waiting lines.
    is_writing: bool,
    /// The first failure.
    failure: Option<(io::ErrorKind, String)>,
}

impl KeyLog {
    /// The length of the longest line of TLS 1.3: a label, the random number of a client, and a secret, in
    /// hexadecimal digits.
    pub const MAX_LINE: usize = 40 + 2 * 32 + 2 * 64;

    /// Appends to the file that the environment variable `SSLKEYLOGFILE` names; `None` if it is not
    /// set.
    ///
    /// # Errors
    ///
    /// As for [`file`](Self::file).
    pub fn from_env() -> io::Result<Option<Self>> {
        std::env::var_os("SSLKEYLOGFILE").map(|path| Self::file(Path::new(&path))).transpose()
    }

    /// Appends to the file at `path`, which is created if it does not exist.
    ///
    /// ```no_run
    /// let key_log = net_traits::KeyLog::file("keys.log".as_ref())?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The file cannot be opened. [`PermissionDenied`](io::ErrorKind::PermissionDenied): it belongs to
    /// another user, or other users may read or write it; its mode is not changed (use `chmod 600`).
    /// [`InvalidInput`](io::ErrorKind::InvalidInput): it is a symbolic link, a device or a pipe.
    pub fn file(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            // The target of a link may change. Without NONBLOCK, opening a pipe waits for its reader.
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
            options.mode(0o600).custom_flags(flags.bits().cast_signed());
        }
        let refused = |error: io::Error| match error.raw_os_error() {
            #[cfg(unix)]
            Some(code) if [Errno::LOOP, Errno::NXIO].map(Errno::raw_os_error).contains(&code) => {
                not_a_file(path)
            }
            _ => error,
        };
        let file = options.open(path).map_err(refused)?;
        check_private(path, &file)?;
        let queue = Mutex::default();
        Ok(Self { shared: Arc::new(Shared { file: Mutex::new(file), queue }) })
    }

    /// Checks that no secret was dropped so far.
    ///
    /// ```no_run
    /// # fn example(key_log: net_traits::KeyLog) {
    /// if let Err(error) = key_log.check() {
    ///     eprintln!("packets cannot be decrypted: {error}");
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The first failure: writing failed, or too many secrets waited and further ones were dropped.
    pub fn check(&self) -> io::Result<()> {
        match &self.shared.queue.lock().failure {
            None => Ok(()),
            Some((kind, what)) => Err(io::Error::new(*kind, what.clone())),
        }
    }

    /// Appends the line of one secret to `lines`: its label in the format of NSS, the random number of the
    /// client, and the secret. For implementors of transports, which give [`MAX_LINE`](Self::MAX_LINE) bytes of room for each
    /// line: a string that grows leaves copies behind that are not wiped.
    ///
    /// ```
    /// let mut lines = String::new();
    /// net_traits::KeyLog::push_line(&mut lines, "SERVER_TRAFFIC_SECRET_0", &[1, 2], &[0xff]);
    /// assert_eq!(lines, "SERVER_TRAFFIC_SECRET_0 0102 ff\n");
    /// ```
    pub fn push_line(lines: &mut String, label: &str, client_random: &[u8], secret: &[u8]) {
        lines.push_str(label);
        lines.push(' ');
        HEXLOWER.encode_append(client_random, lines);
        lines.push(' ');
        HEXLOWER.encode_append(secret, lines);
        lines.push('\n');
    }

    /// Writes lines in the background, for implementors of transports. Failures are
    /// [reported](Self::check).
    pub fn write(&self, lines: Zeroizing<String>) {
        if self.shared.push(lines) {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name("key-log".to_owned());
            if let Err(error) = thread.spawn(move || shared.write_waiting()) {
                self.shared.drop_waiting();
                self.shared.fail(error.kind(), &error.to_string());
            }
        }
    }
}

impl Shared {
    /// Queues lines; returns whether a job has to be started to write them.
    fn push(&self, lines: Zeroizing<String>) -> bool {
        {
            let queue = &mut *self.queue.lock();
            if queue.waiting.len() < MAX_WAITING {
                queue.waiting.push_back(lines);
                return !std::mem::replace(&mut queue.is_writing, true);
            }
        }
        self.fail(io::ErrorKind::TimedOut, "the file is too slow, secrets were dropped");
        false
    }

    fn write_waiting(&self) {
        let mut file = self.file.lock();
        loop {
            let lines = {
                let mut queue = self.queue.lock();
                match queue.waiting.pop_front() {
                    Some(lines) => lines,
                    None => {
                        queue.is_writing = false;
                        return;
                    }
                }
            };
            if let Err(error) = file.write_all(lines.as_bytes()) {
                self.fail(error.kind(), &error.to_string());
            }
        }
    }

    /// No job could be started.
    fn drop_waiting(&self) {
        let queue = &mut *self.queue.lock();
        queue.waiting.clear();
        queue.is_writing = false;
    }

    /// Keeps and logs the first failure. Subscribers are foreign code: they run without the lock.
    fn fail(&self, kind: io::ErrorKind, what: &str) {
        {
            let queue = &mut *self.queue.lock();
            if queue.failure.is_some() {
                return;
            }
            queue.failure = Some((kind, what.to_owned()));
        }
        tracing::warn!(error = what, "the key log cannot be written");
    }
}

/// Rejects a file that other users may read, now or later.
fn check_private(path: &Path, file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(not_a_file(path));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let denied = |what: String| {
            let message = format!("the key log {}: {what}", path.display());
            io::Error::new(io::ErrorKind::PermissionDenied, message)
        };
        let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
        if owner != rustix::process::geteuid().as_raw() {
            return Err(denied(format!("it belongs to another user ({owner})")));
        }
        if mode & 0o077 != 0 {
            return Err(denied(format!(
                "others may open it (mode {mode:o}); chmod 600 it, or use a new file"
            )));
        }
    }
    Ok(())
}

fn not_a_file(path: &Path) -> io::Error {
    let message = format!("the key log {} is not a regular file", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Connections whose secrets wait to be written, of about a kilobyte each.
const MAX_WAITING: usize = 4096;

/// Two are equal if one is a clone of the other.
impl PartialEq for KeyLog {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for KeyLog {}

impl fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLog").finish_non_exhaustive()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tracing::{Metadata, Subscriber, span};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_a_file_of_this_user_alone_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        drop(KeyLog::file(&path).unwrap());
        assert_eq!(mode(&path), 0o600);
        drop(KeyLog::file(&path).unwrap());
        for wide in [0o640, 0o604, 0o620, 0o602, 0o660, 0o666, 0o644] {
            fs::set_permissions(&path, Permissions::from_mode(wide)).unwrap();
            let error = KeyLog::file(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
            assert!(error.to_string().contains(&format!("{wide:o}")), "{error}");
            assert_eq!(mode(&path), wide, "its mode is not changed");
        }
    }

    #[test]
    fn links_pipes_and_devices_are_no_key_logs() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link, pipe) = (
            directory.path().join("file"),
            directory.path().join("link"),
            directory.path().join("pipe"),
        );
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let made = std::process::Command::new("mkfifo").arg("-m600").arg(&pipe).status();
        assert!(made.unwrap().success());
        for path in [&link, &pipe, Path::new("/dev/null")] {
            let error = KeyLog::file(path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        assert!(!file.exists(), "the link was followed");
        assert!(KeyLog::file(directory.path()).is_err());
    }

    #[test]
    fn failures_can_be_asked_for() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let read_only = File::open(path.path()).unwrap();
        let shared = Shared { file: Mutex::new(read_only), queue: Mutex::default() };
        let key_log = KeyLog { shared: Arc::new(shared) };
        key_log.check().unwrap();
        assert!(key_log.shared.push(Zeroizing::new("lines".to_owned())), "a job has to start");
        assert!(!key_log.shared.push(Zeroizing::new("lines".to_owned())), "it has started");
        key_log.shared.write_waiting();
        key_log.check().unwrap_err();
        assert!(key_log.shared.queue.lock().waiting.is_empty());
    }

    #[test]
    fn a_file_that_is_slow_drops_secrets() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let key_log = KeyLog::file(path.path()).unwrap();
        for _ in 0..MAX_WAITING {
            key_log.shared.push(Zeroizing::default());
        }
        key_log.check().unwrap();
        key_log.shared.push(Zeroizing::default());
        assert_eq!(key_log.check().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(key_log.shared.queue.lock().waiting.len(), MAX_WAITING);
    }

    /// A subscriber that checks the key log for failures, if nothing is locked.
    struct CheckingSubscriber(KeyLog, Arc<AtomicUsize>);

    impl Subscriber for CheckingSubscriber {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, _: &tracing::Event<'_>) {
            let queue = self.0.shared.queue.try_lock();
            let is_told = queue.is_some_and(|queue| queue.failure.is_some());
            self.1.fetch_add(usize::from(is_told), Ordering::SeqCst);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn the_first_failure_is_logged_without_a_lock() {
        let path = tempfile::NamedTempFile::new().unwrap();
        for is_slow in [false, true] {
            let read_only = File::open(path.path()).unwrap();
            let shared = Shared { file: Mutex::new(read_only), queue: Mutex::default() };
            let key_log = KeyLog { shared: Arc::new(shared) };
            let asked = Arc::new(AtomicUsize::new(0));
            tracing::subscriber::with_default(
                CheckingSubscriber(key_log.clone(), asked.clone()),
                || {
                    let count = if is_slow { MAX_WAITING + 2 } else { 2 };
                    for _ in 0..count {
                        key_log.shared.push(Zeroizing::new("lines".to_owned()));
                    }
                    if !is_slow {
                        key_log.shared.write_waiting();
                    }
                },
            );
            assert_eq!(asked.load(Ordering::SeqCst), 1, "slow: {is_slow}");
        }
    }
}
