//! The threads of libmsquic: the processors on which they run, and how long they poll.

use super::execution;
use super::functions::call;
use super::library;
use super::status::Status;
use msquic::ffi;
use std::mem::offset_of;
use std::ptr;
use std::time::Duration;

/// The largest number of partitions that libmsquic can have.
const MOST: usize = 512;

/// The longest time for which threads poll.
const LONGEST_POLLING: Duration = Duration::from_secs(1);

/// `QUIC_GLOBAL_EXECUTION_CONFIG` with room for its list.
#[repr(C)]
#[derive(Clone, PartialEq)]
struct ExecutionConfig {
    flags: ffi::QUIC_GLOBAL_EXECUTION_CONFIG_FLAGS,
    polling_idle_timeout: u32,
    count: u32,
    processors: [u16; MOST],
}

impl ExecutionConfig {
    const fn new() -> Self {
        Self { flags: 0, polling_idle_timeout: 0, count: 0, processors: [0; MOST] }
    }

    /// The length of the header and `count` processors.
    fn length(count: usize) -> u32 {
        (offset_of!(Self, processors) + count * size_of::<u16>()) as u32
    }
}

/// Makes msquic run one thread on each of these processors and on no other, for all registrations
/// of the process. By default it has one thread per processor, which the system may move.
///
/// The numbers count the processors that the process may use, from 0: under `taskset -c 4-7`,
/// number 0 is the machine's processor 4, and number 4 is an error. An installed library without
/// the patch N18 (see [`library_patches`](crate::library_patches)) takes the machine's numbers
/// instead.
///
/// A list of all processors is used for the threads, but msquic ignores its order when it assigns
/// connections to them.
///
/// Call it before the first [`Registration`](crate::Registration). It fails afterwards, except with
/// the same processors. [`ExecutionProfile::MaxThroughput`](crate::ExecutionProfile) adds the same
/// number of threads, which are not bound to processors.
///
/// ```
/// msquic_async::set_processors(&[0])?;
/// let registration = msquic_async::Registration::new("on-the-first-processor")?;
/// # Ok::<(), msquic_async::Status>(())
/// ```
///
/// # Errors
///
/// [`Status::INVALID_PARAMETER`] if the list is empty, has more than 512 processors, has one twice,
/// or has one that does not exist. [`Status::INVALID_STATE`] if msquic's threads run already, or
/// the application runs msquic on its own threads. Otherwise see
/// [`library_version`](crate::library_version).
pub fn set_processors(processors: &[u16]) -> Result<(), Status> {
    let affinitize =
        ffi::QUIC_GLOBAL_EXECUTION_CONFIG_FLAGS_QUIC_GLOBAL_EXECUTION_CONFIG_FLAG_AFFINITIZE;
    let is_repeated = |at: usize| processors[..at].contains(&processors[at]);
    let is_valid = !processors.is_empty()
        && processors.len() <= MOST
        && !(0..processors.len()).any(is_repeated);
    change(is_valid, |config| {
        (config.flags, config.count) = (affinitize, processors.len() as u32);
        config.processors = [0; MOST];
        config.processors[..processors.len()].copy_from_slice(processors);
    })
}

/// Sets for how long msquic's threads poll their sockets and queues after they last had work, before they wait for
/// more, for all registrations of the process; at most 1 s, in whole microseconds. Default: zero, they wait at once.
///
/// A packet or a call of the application that arrives meanwhile need not wake the thread. Each thread keeps a processor
/// busy for that time after its last work, timers included, and a polling thread yields its processor to
/// others of the system again and again. That helps only where processors are left for the application's own threads:
/// `docs/performance.md` has figures. Where the application drives msquic, nothing polls.
///
/// Call it before the first [`Registration`](crate::Registration). It fails afterwards, except with the same time.
/// With [`ExecutionProfile::MaxThroughput`](crate::ExecutionProfile) the threads that receive do not poll.
///
/// ```
/// use std::time::Duration;
///
/// msquic_async::set_busy_polling(Duration::from_micros(200))?;
/// let registration = msquic_async::Registration::new("low-latency")?;
/// # Ok::<(), msquic_async::Status>(())
/// ```
///
/// # Errors
///
/// [`Status::INVALID_PARAMETER`] if the time is longer than 1 s or has a fraction of a microsecond. Otherwise see
/// [`set_processors`].
pub fn set_busy_polling(time: Duration) -> Result<(), Status> {
    let is_valid = time <= LONGEST_POLLING && time.subsec_nanos().is_multiple_of(1000);
    change(is_valid, |config| config.polling_idle_timeout = time.as_micros() as u32)
}

/// Changes the execution configuration, which libmsquic replaces as a whole.
fn change(is_valid: bool, change: impl FnOnce(&mut ExecutionConfig)) -> Result<(), Status> {
    let _opening = library::opening(); // no registration is opened meanwhile
    if execution::is_driven() {
        return Err(Status::INVALID_STATE);
    }
    if !is_valid {
        return Err(Status::INVALID_PARAMETER);
    }
    library::registration_opening()?; // the library stays open meanwhile
    let result = in_effect().and_then(|mut config| {
        change(&mut config);
        set(&config)?;
        // It is ignored once the threads run (C46).
        if in_effect()? == config { Ok(()) } else { Err(Status::INVALID_STATE) }
    });
    library::registration_closed();
    result
}

fn set(config: &ExecutionConfig) -> Result<(), Status> {
    let length = ExecutionConfig::length(config.count as usize);
    // SAFETY: C2, C46: a global parameter is copied inline, from `length` bytes of `config`.
    Status::ok(unsafe {
        call!(SetParam(ptr::null_mut(), PARAM, length, ptr::from_ref(config).cast()))
    })
}

/// Returns the configuration in effect: the default if none was set (C46).
fn in_effect() -> Result<ExecutionConfig, Status> {
    let mut config = ExecutionConfig::new();
    let mut length = size_of_val(&config) as u32;
    // SAFETY: C2, C5: at most `length` bytes are written; they are integers.
    Status::ok(unsafe {
        call!(GetParam(ptr::null_mut(), PARAM, &raw mut length, (&raw mut config).cast()))
    })?;
    Ok(config)
}

const PARAM: u32 = ffi::QUIC_PARAM_GLOBAL_EXECUTION_CONFIG;
