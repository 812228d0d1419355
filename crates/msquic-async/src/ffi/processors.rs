//! `set_processors`: the processors on which libmsquic's threads run.

use super::execution;
use super::functions::call;
use super::library;
use super::status::Status;
use msquic::ffi;
use std::mem::offset_of;
use std::ptr;

/// The largest number of partitions that libmsquic can have.
const MOST: usize = 512;

/// `QUIC_GLOBAL_EXECUTION_CONFIG` with room for its list.
#[repr(C)]
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
    let _opening = library::opening(); // no registration is opened meanwhile
    if execution::is_driven() {
        return Err(Status::INVALID_STATE);
    }
    let is_repeated = |at: usize| processors[..at].contains(&processors[at]);
    if processors.is_empty() || processors.len() > MOST || (0..processors.len()).any(is_repeated) {
        return Err(Status::INVALID_PARAMETER);
    }
    library::registration_opening()?; // the library stays open meanwhile
    let result = set(processors);
    library::registration_closed();
    result
}

fn set(processors: &[u16]) -> Result<(), Status> {
    let param = ffi::QUIC_PARAM_GLOBAL_EXECUTION_CONFIG;
    let affinitize =
        ffi::QUIC_GLOBAL_EXECUTION_CONFIG_FLAGS_QUIC_GLOBAL_EXECUTION_CONFIG_FLAG_AFFINITIZE;
    let mut config = ExecutionConfig::new();
    (config.flags, config.count) = (affinitize, processors.len() as u32);
    config.processors[..processors.len()].copy_from_slice(processors);
    let length = ExecutionConfig::length(processors.len());
    // SAFETY: C2, C46: a global parameter is copied inline, from `length` bytes of `config`.
    Status::ok(unsafe {
        call!(SetParam(ptr::null_mut(), param, length, (&raw const config).cast()))
    })?;
    // It is ignored once the threads run (C46).
    let mut in_effect = ExecutionConfig::new();
    let mut length = size_of_val(&in_effect) as u32;
    // SAFETY: C2, C5: at most `length` bytes are written; they are integers.
    Status::ok(unsafe {
        call!(GetParam(ptr::null_mut(), param, &raw mut length, (&raw mut in_effect).cast()))
    })?;
    let is_same = in_effect.count == config.count && in_effect.processors == config.processors;
    if is_same { Ok(()) } else { Err(Status::INVALID_STATE) }
}
