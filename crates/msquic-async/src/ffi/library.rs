//! The library itself: loading it, its version, and its orderly close at process exit.

use super::functions::{self, call};
use super::status::Status;
use super::threads;
use msquic::ffi;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

/// How long a process that ends waits for its connections to close.
///
/// Closing takes one round trip with a peer that answers. Otherwise it takes three probe timeouts,
/// about a second at msquic's initial round-trip estimate of 333 ms.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the library may take to close, at least.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// The oldest libmsquic whose table has all functions of the binding.
const OLDEST: LibraryVersion = LibraryVersion { major: 2, minor: 5, patch: 0, build: 0 };

/// `QUIC_API_VERSION_2`, the only API version of libmsquic 2.
const API_VERSION: u32 = 2;

// Linked by the crate libmsquic-sys.
unsafe extern "C" {
    // Not the binding's `Api::get_ffi`: that one closes the library at process exit whether or not
    // handles are left, and then hangs or aborts (C30).
    fn MsQuicOpenVersion(version: u32, api: *mut *const ffi::QUIC_API_TABLE) -> ffi::QUIC_STATUS;
    fn MsQuicClose(api: *const ffi::QUIC_API_TABLE);
}

struct Library {
    table: &'static ffi::QUIC_API_TABLE,
    version: LibraryVersion,
    /// The process that loaded the library.
    process: u32,
    registrations: Mutex<Vec<Weak<dyn Root>>>,
    users: Mutex<Users>,
    /// Notified when a registration is closed.
    closed: Condvar,
}

/// The users of the library. It is closed at the end of the process, when there are none.
#[derive(Default)]
struct Users {
    /// How many registrations are open, and how many threads call the library without one.
    open: usize,
    /// The application has the table: there may be handles that this crate does not count.
    is_shared: bool,
    /// The process ends: no further users are admitted.
    is_exiting: bool,
    is_closed: bool,
}

/// A registration, as the end of the process sees it.
pub(super) trait Root: Send + Sync {
    /// Closes all connections with `code` and stops all listeners.
    fn shutdown(&self, code: u64);
    /// Whether no connection and no listener is alive.
    fn is_idle(&self) -> bool;
    /// Closes the configurations; false if some are in use until the deadline.
    fn close_configurations(&self, deadline: Instant) -> bool;
    /// Waits until the registration is idle, and then closes its handle although values may still
    /// refer to it. Does nothing if the deadline comes before.
    fn close_at_exit(&self, deadline: Instant);
}

/// Drives the library until it is done or the deadline has come, where the application drives it. Returns whether
/// nothing runs any more.
type DriveAtExit = fn(deadline: Instant, is_done: Box<dyn Fn() -> bool + Send>) -> bool;

static DRIVE_AT_EXIT: OnceLock<DriveAtExit> = OnceLock::new();

/// Records that the application drives the library from now on, so that it cannot be closed at the
/// end of the process.
#[cfg(all(feature = "driver", target_os = "linux"))]
pub(super) fn set_driven(drive_at_exit: DriveAtExit) {
    DRIVE_AT_EXIT.get_or_init(|| drive_at_exit);
}

static LIBRARY: OnceLock<Result<Library, Status>> = OnceLock::new();

/// Loads the library, once in a process.
#[cfg(all(feature = "driver", target_os = "linux"))]
pub(super) fn load() -> Result<(), Status> {
    library().map(|_| ())
}

/// Returns the functions of the libmsquic that this process uses, for handles that the application
/// opens itself.
///
/// From then on the library is not closed at the end of the process, since it is unknown whether
/// handles are open. With [`ExecutionDriver`](crate::ExecutionDriver) no registration may be opened
/// while the driver is installed, none may be closed unless the library has the patch N31 and
/// another thread keeps driving, and the functions that close, get or set parameters of connections
/// and streams must not overlap with a turn of the driver (contract C29).
///
/// ```
/// let table = msquic_async::api_table()?;
/// assert!(table.StreamOpen.is_some());
/// # Ok::<(), msquic_async::Status>(())
/// ```
///
/// # Errors
///
/// The library cannot be started, for instance because memory is short. [`Status::INVALID_STATE`]: the process
/// ends, and the library is closed.
pub fn api_table() -> Result<&'static ffi::QUIC_API_TABLE, Status> {
    let library = library()?;
    let mut users = library.users.lock();
    if users.is_closed {
        return Err(Status::INVALID_STATE); // and the table is freed
    }
    users.is_shared = true;
    Ok(library.table)
}

/// Locked while a registration is opened and while an execution is created, between which the C
/// code has no lock (C29).
pub(super) fn opening() -> MutexGuard<'static, ()> {
    static OPENING: Mutex<()> = Mutex::new(());
    OPENING.lock()
}

/// Counts a registration that is about to be opened, or a call of the library without one. The end
/// of the process waits for it.
pub(super) fn registration_opening() -> Result<(), Status> {
    let library = library()?;
    threads::start()?; // to close what is opened
    let mut users = library.users.lock();
    if users.is_exiting {
        return Err(Status::INVALID_STATE);
    }
    users.open += 1;
    Ok(())
}

/// Records a registration, so that the end of the process can close it.
pub(super) fn registration_opened(registration: Weak<dyn Root>) {
    let Ok(library) = library() else { return };
    {
        let mut all = library.registrations.lock();
        all.retain(|registration| registration.strong_count() > 0);
        all.push(registration.clone());
    }
    // The end of the process may have begun since `registration_opening`, and not have seen it.
    if library.users.lock().is_exiting
        && let Some(registration) = registration.upgrade()
    {
        registration.shutdown(0);
    }
}

/// Counts a registration that was closed or could not be opened.
pub(super) fn registration_closed() {
    if let Ok(library) = library() {
        library.users.lock().open -= 1;
        library.closed.notify_all();
    }
}

fn library() -> Result<&'static Library, Status> {
    static LOADING: Mutex<()> = Mutex::new(());
    if let Some(library) = LIBRARY.get() {
        return library.as_ref().map_err(|status| *status);
    }
    let _one_at_a_time = LOADING.lock();
    if LIBRARY.get().is_none() {
        match open() {
            // Other failures, such as a lack of memory, may not happen the next time.
            Err(status) if status != Status::NOT_SUPPORTED => return Err(status),
            final_result => {
                LIBRARY.get_or_init(|| final_result);
            }
        }
    }
    library()
}

fn open() -> Result<Library, Status> {
    #[cfg(feature = "testing")]
    if super::scripted::is_installed() {
        // SAFETY: it has all functions, and lives as long as the process.
        let (table, version) = unsafe { take_functions(super::scripted::table()) }?;
        // Shared: it is not closed at the end of the process.
        let users = Users { is_shared: true, ..Users::default() };
        return Ok(Library {
            table,
            version,
            process: std::process::id(),
            registrations: Mutex::default(),
            users: Mutex::new(users),
            closed: Condvar::new(),
        });
    }
    let mut table: *const ffi::QUIC_API_TABLE = ptr::null();
    // SAFETY: C2: the function writes one pointer to a table that stays valid until MsQuicClose,
    // which is called only when no handle is left and none can be opened any more.
    Status::ok(unsafe { MsQuicOpenVersion(API_VERSION, &raw mut table) })?;
    // SAFETY: C2: it comes from MsQuicOpenVersion.
    let (table, version) = unsafe { take_functions(table) }.inspect_err(|_| {
        // SAFETY: C2: nothing was opened with the table, and nothing uses it any more.
        unsafe { MsQuicClose(table) };
    })?;
    // SAFETY: `exit_handler` is a plain function that does not unwind. Registered after the library
    // has started its TLS library, it runs before the cleanup of the latter (C3). If it cannot be
    // registered, the process ends without closing the library.
    unsafe { libc::atexit(exit_handler) };
    Ok(Library {
        table,
        version,
        process: std::process::id(),
        registrations: Mutex::default(),
        users: Mutex::default(),
        closed: Condvar::new(),
    })
}

/// Reads the version and the functions of a table. If this fails, the table is not used.
///
/// # Safety
///
/// `table` comes from MsQuicOpenVersion.
unsafe fn take_functions(
    table: *const ffi::QUIC_API_TABLE,
) -> Result<(&'static ffi::QUIC_API_TABLE, LibraryVersion), Status> {
    // SAFETY: C2: older libraries have shorter tables with the same beginning, so nothing but GetParam
    // is touched before the version is known.
    let version = unsafe { read_version(table) }?;
    if version < OLDEST {
        return Err(Status::NOT_SUPPORTED);
    }
    // SAFETY: C2: from that version on the table has all functions.
    let table = unsafe { table.as_ref() }.ok_or(Status::INTERNAL_ERROR)?;
    functions::set(table).ok_or(Status::NOT_SUPPORTED)?;
    Ok((table, version))
}

/// Runs when the process ends: closes everything and waits for it. Otherwise threads of libmsquic
/// would still use the TLS library while its own exit handler shuts it down (C3).
///
/// A registration that does not finish in time is left as it is; the library then stays open too.
extern "C" fn exit_handler() {
    super::guard::guard((), || {
        let Some(Ok(library)) = LIBRARY.get() else { return };
        if library.process != std::process::id() {
            return; // A child that was forked has none of the library's threads, and its parent's sockets.
        }
        let deadline = Instant::now() + EXIT_TIMEOUT;
        library.users.lock().is_exiting = true;
        let registrations: Vec<_> =
            library.registrations.lock().iter().filter_map(Weak::upgrade).collect();
        registrations.iter().for_each(|registration| registration.shutdown(0));
        if let Some(drive) = DRIVE_AT_EXIT.get() {
            // C29: registrations cannot be closed then, but nothing runs any more either.
            // Configurations have to be closed, since they belong to the TLS library, which is
            // about to shut down (C3).
            let driven = registrations.clone();
            let is_idle = move || driven.iter().all(|registration| registration.is_idle());
            if drive(deadline, Box::new(is_idle)) {
                for registration in &registrations {
                    registration.close_configurations(deadline);
                }
            }
            return std::mem::forget(registrations);
        }
        registrations.iter().for_each(|registration| registration.close_at_exit(deadline));

        let mut users = library.users.lock();
        let is_used = |users: &mut Users| users.open > 0;
        let remaining = deadline.saturating_duration_since(Instant::now());
        let is_over = !library.closed.wait_while_for(&mut users, is_used, remaining).timed_out();
        std::mem::forget(registrations);
        if is_over && !users.is_shared {
            users.is_closed = true;
            drop(users);
            close_until(library, deadline);
        }
    });
}

/// Whether the process ends and the library is closed.
#[cfg(test)]
pub(super) fn is_closed() -> bool {
    library().is_ok_and(|library| library.users.lock().is_closed)
}

/// Closes the library, on a thread of its own: it waits for threads of libmsquic, and some libraries make it
/// wait for ever (C34).
fn close_until(library: &'static Library, deadline: Instant) {
    let (done, is_done) = mpsc::channel();
    let close = move || {
        // SAFETY: C2, C4: every registration is closed, so no handle is left, and none is opened any more,
        // nor is the library called without one: the process is exiting.
        unsafe { MsQuicClose(library.table) };
        let _ = done.send(());
    };
    if std::thread::Builder::new().spawn(close).is_ok() {
        let remaining = deadline.saturating_duration_since(Instant::now());
        // Some time in any case: the TLS library must not shut down while the library closes (C3).
        let _ = is_done.recv_timeout(remaining.max(CLOSE_TIMEOUT));
    }
}

/// Returns the version of the libmsquic that this process uses.
///
/// ```
/// let version = msquic_async::library_version()?;
/// assert!(version >= msquic_async::LibraryVersion { major: 2, minor: 5, patch: 0, build: 0 });
/// println!("libmsquic {version}");
/// # Ok::<(), msquic_async::Status>(())
/// ```
///
/// # Errors
///
/// The library cannot be started, for instance because memory is short.
/// [`Status::NOT_SUPPORTED`]: it is older than 2.5.
pub fn library_version() -> Result<LibraryVersion, Status> {
    library().map(|library| library.version)
}

/// Returns the patches of the libmsquic in this program: those of `docs/libmsquic.md` when it was
/// built from source (feature `vendored`), none when an installed library is linked.
///
/// ```
/// for patch in msquic_async::library_patches() {
///     println!("{}: {}", patch.fault, patch.title);
/// }
/// ```
pub fn library_patches() -> &'static [libmsquic_sys::Patch] {
    libmsquic_sys::PATCHES
}

/// Returns whether the library has the patch for a fault.
pub(crate) fn has_patch(fault: &str) -> bool {
    #[cfg(feature = "testing")]
    if super::scripted::is_installed() {
        return true;
    }
    library_patches().iter().any(|patch| patch.fault == fault)
}

/// How many registrations are open.
#[cfg(test)]
pub(super) fn open_registrations() -> usize {
    library().map_or(0, |library| library.users.lock().open)
}

/// msquic's default: addresses are validated while handshakes take a thousandth of the memory.
const RETRY_MEMORY_FRACTION: u16 = 65;

/// Sets whether the listeners of this process validate the address of every peer with a Retry packet before they
/// allocate anything for it (RFC 9000, section 8.1.2). That costs peers a round trip, and keeps attempts with forged
/// addresses from using up limits. Otherwise, and by default, addresses are validated only while handshakes take a
/// thousandth of the machine's memory.
///
/// It applies to attempts that arrive afterwards. It does not wait, and may be called anywhere, except inside the event
/// DOS_MODE_CHANGED of a listener that was opened with the raw API.
///
/// ```
/// msquic_async::require_address_validation(true)?;
/// # Ok::<(), msquic_async::Status>(())
/// ```
///
/// # Errors
///
/// See [`library_version`].
pub fn require_address_validation(is_required: bool) -> Result<(), Status> {
    // The memory that handshakes may take before addresses are validated, in 65535ths of the
    // machine's memory.
    let fraction = if is_required { 0 } else { RETRY_MEMORY_FRACTION };
    registration_opening()?; // the library stays open meanwhile
    let _opening = opening(); // the first registration makes the counters
    // SAFETY: C2, C5, C29: a global parameter is copied inline, from the two bytes that it has.
    let set = Status::ok(unsafe {
        call!(SetParam(
            ptr::null_mut(),
            ffi::QUIC_PARAM_GLOBAL_RETRY_MEMORY_PERCENT,
            size_of_val(&fraction) as u32,
            (&raw const fraction).cast(),
        ))
    });
    registration_closed();
    set
}

/// Returns how many attempts to connect found listeners of this process at their port, of which none has a protocol
/// (ALPN) in common with the peer. msquic refuses them without an event of a listener. It counts since the library
/// was loaded, for all registrations.
///
/// ```
/// assert_eq!(msquic_async::attempts_without_protocol()?, 0);
/// # Ok::<(), msquic_async::Status>(())
/// ```
///
/// # Errors
///
/// See [`library_version`].
pub fn attempts_without_protocol() -> Result<u64, Status> {
    const NO_ALPN: usize = ffi::QUIC_PERFORMANCE_COUNTERS_QUIC_PERF_COUNTER_CONN_NO_ALPN as usize;
    let mut counters = [0_u64; NO_ALPN + 1];
    let mut length = size_of_val(&counters) as u32;
    registration_opening()?; // the library stays open meanwhile
    // SAFETY: C2, C5: a global parameter is written inline, at most `length` bytes of it: as many counters as fit.
    let read = Status::ok(unsafe {
        call!(GetParam(
            ptr::null_mut(),
            ffi::QUIC_PARAM_GLOBAL_PERF_COUNTERS,
            &raw mut length,
            counters.as_mut_ptr().cast(),
        ))
    });
    registration_closed();
    read.map(|()| counters[NO_ALPN])
}

/// The version of the library that `table` belongs to.
///
/// # Safety
///
/// `table` comes from MsQuicOpenVersion.
unsafe fn read_version(table: *const ffi::QUIC_API_TABLE) -> Result<LibraryVersion, Status> {
    let mut version = MaybeUninit::<[u32; 4]>::uninit();
    let mut length = size_of_val(&version) as u32;
    // SAFETY: C5: a global parameter is written inline, at most `length` bytes of it.
    let [major, minor, patch, build] = unsafe {
        let get_param = (&raw const (*table).GetParam).read().ok_or(Status::NOT_SUPPORTED)?;
        Status::ok(get_param(
            ptr::null_mut(),
            ffi::QUIC_PARAM_GLOBAL_LIBRARY_VERSION,
            &raw mut length,
            version.as_mut_ptr().cast(),
        ))?;
        if length as usize != size_of_val(&version) {
            return Err(Status::INTERNAL_ERROR);
        }
        version.assume_init()
    };
    Ok(LibraryVersion { major, minor, patch, build })
}

/// A version of libmsquic. Versions compare by age.
///
/// ```
/// use msquic_async::LibraryVersion;
///
/// let version = LibraryVersion { major: 2, minor: 5, patch: 1, build: 0 };
/// assert!(version > LibraryVersion { major: 2, minor: 4, patch: 9, build: 0 });
/// assert_eq!(version.to_string(), "2.5.1");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct LibraryVersion {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
    pub build: u32,
}

impl fmt::Display for LibraryVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
