//! `ExecutionDriver`: libmsquic on the application's own threads.

use super::functions::call;
use super::guard::guard;
use super::jobs::{Jobs, Place};
use super::library::{self, LibraryVersion};
use super::status::Status;
use msquic::ffi;
use parking_lot::{Mutex, MutexGuard};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How many steps libmsquic takes in a turn while other threads run the application.
const STEPS: usize = 16;

/// How long a turn may take that has begun before the deadline of the end of the process.
const LAST_TURN: Duration = Duration::from_millis(250);

/// How many events are fetched, and how many jobs are run, before the others have their turn.
const BATCH: usize = 16;

/// Events are passed to libmsquic as they are fetched.
const _: () = assert!(size_of::<epoll::Event>() == size_of::<ffi::QUIC_CQE>());

/// The execution of this process, once there is one.
static EXECUTION: OnceLock<Execution> = OnceLock::new();

/// Creating the execution failed, after which libmsquic is unusable (C29).
static IS_BROKEN: AtomicBool = AtomicBool::new(false);

/// The process ends: only its exit handler drives from now on.
static IS_EXITING: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// This thread is inside libmsquic. Without a destructor, so that it is there at the end of the process.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `call`, which calls libmsquic and its callbacks.
fn inside<T>(call: impl FnOnce() -> T) -> T {
    IS_INSIDE.set(true);
    let result = call();
    IS_INSIDE.set(false);
    result
}

struct Execution {
    /// Held while libmsquic runs, so that it runs on one thread at a time (C29).
    native: Mutex<Native>,
    epoll: OwnedFd,
    /// Readable when `epoll` is. Only this one is shown to the application: the entries of `epoll`
    /// point to memory of libmsquic.
    outer: OwnedFd,
    doorbell: Doorbell,
    jobs: Mutex<Jobs>,
}

struct Native(*mut ffi::QUIC_EXECUTION);

// SAFETY: C29: any thread may poll, one at a time.
unsafe impl Send for Native {}

/// Ends a wait for events.
struct Doorbell {
    eventfd: OwnedFd,
}

/// The entry that the epoll descriptor reports for a doorbell, in the form of libmsquic's own
/// entries (C29). Its completion does nothing, so it needs no descriptor.
static RING: ffi::QUIC_SQE = ffi::QUIC_SQE { fd: -1, Completion: Some(nothing_to_do) };

impl Doorbell {
    fn new(epoll: &OwnedFd) -> Result<Self, Errno> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered: each ring is one event, and the counter need not be read.
        let entry = EventData::new_u64((&raw const RING).expose_provenance() as u64);
        epoll::add(epoll, &eventfd, entry, EventFlags::IN | EventFlags::ET)?;
        Ok(Self { eventfd })
    }

    fn ring(&self) {
        // It can fail only if the counter is about to overflow, and then it has been rung.
        let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
    }
}

unsafe extern "C" fn nothing_to_do(_: *mut ffi::QUIC_CQE) {}

/// Queues `job` for the driver, if there is one.
pub(super) fn run_on_driver<F: FnOnce() + Send + 'static>(job: F) -> Result<Place, F> {
    let Some(execution) = EXECUTION.get() else { return Err(job) };
    let place = execution.jobs.lock().push(Box::new(job));
    execution.doorbell.ring();
    Ok(place)
}

/// Takes a job back that was queued for the driver, unless it has begun.
pub(super) fn cancel_on_driver(place: Place) {
    let Some(execution) = EXECUTION.get() else { return };
    let job = execution.jobs.lock().remove(place);
    drop(job);
}

/// Fails when no registration may be opened any more.
pub(super) fn check_usable() -> Result<(), Status> {
    if IS_BROKEN.load(Ordering::SeqCst) { Err(Status::INTERNAL_ERROR) } else { Ok(()) }
}

/// Whether the application drives libmsquic.
pub(super) fn is_driven() -> bool {
    EXECUTION.get().is_some()
}

/// Returns whether registrations can be closed. Older versions that the application drives would
/// free a worker that they still run (C29).
pub(super) fn closes_registrations() -> bool {
    !is_driven() || library::has_patch("N31") || library::library_version().is_ok_and(takes_down)
}

/// Returns whether the close of the last registration shuts down the library while the execution
/// exists (C29).
fn takes_down(version: LibraryVersion) -> bool {
    (version.major, version.minor) >= (2, 6)
}

/// Drives libmsquic until `is_done` or the deadline, at the end of the process. Other threads cannot
/// drive it from now on. Returns false if a callback does not return.
pub(super) fn drive_at_exit(deadline: Instant, is_done: Box<dyn Fn() -> bool + Send>) -> bool {
    let Some(execution) = EXECUTION.get() else { return true };
    if IS_INSIDE.get() {
        return true; // a callback on this thread ended the process, so this thread is inside a turn
    }
    IS_EXITING.store(true, Ordering::SeqCst);
    execution.doorbell.ring(); // a thread that waits releases the lock
    let (ended, has_ended) = mpsc::channel::<()>();
    // Callbacks run code of the application, which may use thread-local variables. Those of this
    // thread are destroyed already.
    let drive = move || {
        let _ended = ended;
        guard((), || drive_until(execution, deadline, &*is_done));
    };
    if thread::Builder::new().spawn(drive).is_err() {
        return true;
    }
    let remaining = deadline.saturating_duration_since(Instant::now());
    has_ended.recv_timeout(remaining + LAST_TURN) != Err(mpsc::RecvTimeoutError::Timeout)
}

fn drive_until(execution: &Execution, deadline: Instant, is_done: &dyn Fn() -> bool) {
    let remaining = deadline.saturating_duration_since(Instant::now());
    let Some(mut native) = execution.native.try_lock_for(remaining) else { return };
    while !is_done() && Instant::now() < deadline {
        let next = execution.step(&mut native).unwrap_or(Duration::MAX);
        let remaining = deadline.saturating_duration_since(Instant::now());
        let _ = execution.wait(&mut native, Some(next.min(remaining)));
    }
    mem::forget(native);
}

impl Execution {
    fn create() -> Result<Self, Status> {
        library::load()?;
        library::registration_opening()?; // the library stays open meanwhile
        let created = Self::create_in_library();
        library::registration_closed();
        created
    }

    fn create_in_library() -> Result<Self, Status> {
        let failed = |_| Status::INTERNAL_ERROR;
        let new_epoll = || epoll::create(CreateFlags::CLOEXEC).map_err(failed);
        let (epoll, outer) = (new_epoll()?, new_epoll()?);
        epoll::add(&outer, &epoll, EventData::new_u64(0), EventFlags::IN).map_err(failed)?;
        let doorbell = Doorbell::new(&epoll).map_err(failed)?;
        let mut queue: ffi::QUIC_EVENTQ = epoll.as_raw_fd();
        let mut config = ffi::QUIC_EXECUTION_CONFIG { IdealProcessor: 0, EventQ: &raw mut queue };
        let mut native = ptr::null_mut();
        // SAFETY: C29: no registration was opened yet, or the call fails; the configuration is
        // copied, and the descriptor stays open for the rest of the process.
        Status::ok(unsafe {
            let flags =
                ffi::QUIC_GLOBAL_EXECUTION_CONFIG_FLAGS_QUIC_GLOBAL_EXECUTION_CONFIG_FLAG_NONE;
            call!(ExecutionCreate(flags, 0, 1, &raw mut config, &raw mut native))
        })
        .inspect_err(|status| {
            // Refused because a registration was opened: nothing has changed.
            IS_BROKEN.fetch_or(*status != Status::INVALID_STATE, Ordering::SeqCst);
        })?;
        let native = Mutex::new(Native(native));
        let this = Self { native, epoll, outer, doorbell, jobs: Mutex::new(Jobs::new()) };
        if let Err(status) = keep_library() {
            IS_BROKEN.store(true, Ordering::SeqCst);
            mem::forget(this); // libmsquic keeps the descriptors
            return Err(status);
        }
        Ok(this)
    }

    /// Locks libmsquic for a turn. Waits for ever once the process ends.
    fn lock(&self) -> MutexGuard<'_, Native> {
        let native = self.native.lock();
        if !IS_EXITING.load(Ordering::SeqCst) {
            return native;
        }
        drop(native);
        loop {
            thread::park();
        }
    }

    /// Takes a step: runs what is due for one connection, without fetching events. Returns after how long
    /// more is due.
    fn step(&self, native: &mut Native) -> Option<Duration> {
        // SAFETY: C29: one thread at a time, as `native` is borrowed exclusively.
        let wait = inside(|| unsafe { call!(ExecutionPoll(native.0)) });
        let waiting = self.jobs.lock().len().min(BATCH);
        for _ in 0..waiting {
            let job = self.jobs.lock().pop();
            inside(|| guard((), || job.into_iter().for_each(|job| job())));
        }
        match wait {
            _ if waiting > 0 => Some(Duration::ZERO), // jobs may have queued work for libmsquic
            u32::MAX => None,
            millis => Some(Duration::from_millis(millis.into())),
        }
    }

    /// Takes up to `steps`, and one before it fetches events, so that an acknowledgement is sent in one packet
    /// with the answer of the application.
    ///
    /// Events are fetched between steps: what hundreds of connections send to this process does not fit into
    /// the buffer of a socket.
    fn turn(&self, native: &mut Native, steps: usize) -> Option<Duration> {
        self.step(native);
        for _ in 0..steps {
            // Events that are not fetched are not signalled again.
            let has_more = self.wait(native, Some(Duration::ZERO)).unwrap_or(false);
            let next = self.step(native);
            if !has_more && next != Some(Duration::ZERO) {
                return next;
            }
        }
        Some(Duration::ZERO)
    }

    /// Waits for events and handles them; returns whether more events may be there.
    fn wait(&self, _: &mut Native, timeout: Option<Duration>) -> io::Result<bool> {
        // Rounded up to milliseconds: waking too early would only spin.
        let timeout = timeout.map(|timeout| {
            let millis = timeout.as_micros().div_ceil(1000).min(i32::MAX as u128);
            Timespec { tv_sec: (millis / 1000) as i64, tv_nsec: (millis % 1000 * 1_000_000) as _ }
        });
        let none = epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        let mut events = [none; BATCH];
        let count = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Err(Errno::INTR) => 0,
            count => count?,
        };
        for event in &mut events[..count] {
            let entry = ptr::with_exposed_provenance::<ffi::QUIC_SQE>(event.data.u64() as usize);
            // SAFETY: C29: each event names an entry of libmsquic's or the doorbell's, and is given
            // to its completion, one thread at a time.
            unsafe {
                if let Some(completion) = (*entry).Completion {
                    inside(|| completion(ptr::from_mut(event).cast()));
                }
            }
        }
        Ok(count == BATCH)
    }
}

/// Opens a registration that stays open for the rest of the process, so that no other registration
/// is the last.
fn keep_library() -> Result<(), Status> {
    if !library::library_version().is_ok_and(takes_down) {
        return Ok(());
    }
    let mut handle = ptr::null_mut();
    // SAFETY: C7, C29: no configuration is the default, and nothing is closed.
    Status::ok(unsafe { call!(RegistrationOpen(ptr::null(), &raw mut handle)) })
}

/// Runs msquic on the application's threads instead of threads of its own. *Experimental*; Linux
/// only, with the feature `driver`.
///
/// The advantage is that messages do not pass between threads. The disadvantage is that nothing happens on any
/// connection while the driver does not run, not even an acknowledgement. With an installed libmsquic (feature
/// `system`) before 2.6 no registration can be closed in this mode, so the memory of each
/// [`Registration`](crate::Registration) stays until the end of the process; open few.
///
/// There is one driver for the whole process, installed before the first registration. When it is dropped, a thread of
/// its own drives msquic. At the end of the process msquic is driven once more, so that connections are closed, except
/// if the process ends inside a callback such as a [sink](crate::ReceiveSink); then peers detect it by their idle
/// timeout.
///
/// ```no_run
/// # async fn serve() {}
/// let mut driver = msquic_async::ExecutionDriver::install()?;
/// // msquic and `serve` share this thread.
/// driver.block_on(serve());
/// # Ok::<(), msquic_async::Status>(())
/// ```
///
/// In a tokio runtime, spawn [`run`](Self::run). In another event loop, wait until
/// [`as_fd`](AsFd::as_fd) is readable or the time that [`turn`](Self::turn) returned has passed,
/// and then take the next turn:
///
/// ```no_run
/// # async fn run(mut driver: msquic_async::ExecutionDriver) -> std::io::Result<()> {
/// use smol::{Async, Timer};
/// use std::os::fd::AsFd;
///
/// let events = Async::new_nonblocking(driver.as_fd().try_clone_to_owned()?)?;
/// loop {
///     let time = driver.turn().map_or_else(Timer::never, Timer::after);
///     smol::future::or(events.readable(), async { time.await; Ok(()) }).await?;
/// }
/// # }
/// ```
pub struct ExecutionDriver {
    execution: &'static Execution,
}

impl ExecutionDriver {
    /// Makes msquic run on the threads of the application, for the whole process.
    ///
    /// # Errors
    ///
    /// [`Status::INVALID_STATE`] when there is a driver already, or a registration was opened before;
    /// [`Status::NOT_SUPPORTED`] when the library does not support it.
    pub fn install() -> Result<Self, Status> {
        let _opening = library::opening();
        if is_driven() {
            return Err(Status::INVALID_STATE);
        }
        let execution = Execution::create()?;
        library::set_driven(drive_at_exit);
        Ok(Self { execution: EXECUTION.get_or_init(|| execution) })
    }

    /// Takes a turn: runs what is due and handles events. Returns after how long the next turn is
    /// due if no event comes before; `None` if only an event makes one due.
    ///
    /// Callbacks run inside, and with them the [sinks](crate::ReceiveSink) of streams. It never waits.
    pub fn turn(&mut self) -> Option<Duration> {
        self.execution.turn(&mut self.execution.lock(), 1)
    }

    /// Returns a handle with which other threads take turns.
    pub(crate) fn turns(&self) -> Turns {
        Turns { execution: self.execution, steps: STEPS }
    }

    /// Blocks this thread until there is an event, or for `timeout`, and handles the event.
    ///
    /// # Errors
    ///
    /// The operating system cannot wait.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.execution.wait(&mut self.execution.lock(), timeout).map(|_| ())
    }

    /// Runs `future` and msquic on this thread until `future` is ready.
    ///
    /// # Panics
    ///
    /// If `future` panics, or the operating system cannot wait for events.
    pub fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        let woken = Arc::new(Woken { execution: self.execution, is_woken: AtomicBool::new(true) });
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut future = pin!(future);
        loop {
            if woken.is_woken.swap(false, Ordering::SeqCst)
                && let Poll::Ready(output) = future.as_mut().poll(&mut cx)
            {
                return output;
            }
            let next = self.execution.step(&mut self.execution.lock());
            let is_woken = woken.is_woken.load(Ordering::SeqCst);
            let timeout = if is_woken { Some(Duration::ZERO) } else { next };
            self.wait(timeout).expect("epoll_wait of a descriptor that stays open");
        }
    }
}

/// Turns that several threads take, one at a time.
#[derive(Clone, Copy)]
pub(crate) struct Turns {
    execution: &'static Execution,
    /// How many steps a turn has.
    steps: usize,
}

impl Turns {
    /// Makes turns as short as possible, because the thread that takes them also runs the application.
    pub(crate) fn short(self) -> Self {
        Self { steps: 1, ..self }
    }

    /// Takes a turn, as [`ExecutionDriver::turn`], and calls `taken` with what it returns before another thread
    /// can take one. `None` if another thread is in a turn, or the process ends.
    pub(crate) fn try_take<T>(self, taken: impl FnOnce(Option<Duration>) -> T) -> Option<T> {
        let native = &mut *self.execution.native.try_lock()?;
        (!IS_EXITING.load(Ordering::SeqCst)).then(|| taken(self.execution.turn(native, self.steps)))
    }

    /// Registers the events with the current tokio runtime.
    pub(crate) fn events(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: C29: the descriptor stays open for the rest of the process, and is always the same.
        let registered = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        Ok(registered?)
    }
}

/// For waiting only: the events point to memory of libmsquic, and no entries may be added.
impl AsFd for Turns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.execution.epoll.as_fd()
    }
}

impl AsRawFd for Turns {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.execution.epoll.as_raw_fd()
    }
}

/// Lets `block_on` poll its future.
struct Woken {
    execution: &'static Execution,
    is_woken: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::SeqCst) {
            self.execution.doorbell.ring();
        }
    }
}

impl AsFd for ExecutionDriver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.execution.outer.as_fd()
    }
}

impl AsRawFd for ExecutionDriver {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.execution.outer.as_raw_fd()
    }
}

impl Drop for ExecutionDriver {
    fn drop(&mut self) {
        let mut successor = ManuallyDrop::new(Self { execution: self.execution });
        let drive = move || {
            loop {
                let next = successor.turn();
                if let Err(error) = successor.wait(next) {
                    tracing::error!(%error, "msquic is not driven any more");
                    return;
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("msquic".to_owned()).spawn(drive) {
            tracing::error!(%error, "msquic is not driven any more");
        }
    }
}

impl fmt::Debug for ExecutionDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutionDriver").finish_non_exhaustive()
    }
}
