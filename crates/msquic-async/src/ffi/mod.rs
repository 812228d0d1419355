//! The only module with `unsafe`: a safe, typed interface to libmsquic.
//!
//! Each SAFETY comment cites the numbered clauses of `docs/msquic-contract.md` (C1, C2, ...) that
//! make it true.
//!
//! Ownership, for every kind of handle:
//!
//! - A native handle is opened with a [`Bound`](bound::Bound) as context, which keeps the value that owns the handle
//!   and the handler of its events. It is taken back after the handle's last event, so both outlive all callbacks.
//! - The handle is closed inside that last event. The gate of its [`Slot`](slot::Slot) counts the threads that
//!   are inside an API call with the handle at that moment: if there are any, the last one to leave
//!   passes the close to a thread that may block.
//! - A stream keeps its connection's native handle, a connection and a listener keep the
//!   registration. The registration is closed on a thread that may block when its last child is
//!   closed.
//! - The memory of a send is its native context, which libmsquic returns with its completion.
//! - No lock is held while libmsquic is called, because it may call back before it returns.
//!
//! The other modules of this crate import this one. It imports only queues, waiters and plain data
//! of them.

pub(crate) mod address;
mod bound;
pub(crate) mod calls;
mod claim;
pub(crate) mod configuration;
pub(crate) mod connection;
#[cfg(test)]
mod contract;
#[cfg(all(feature = "driver", target_os = "linux"))]
pub(crate) mod execution;
#[cfg(not(all(feature = "driver", target_os = "linux")))]
#[path = "no_execution.rs"]
mod execution;
#[cfg(test)]
mod foreign;
mod functions;
mod gate;
mod guard;
#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod heap;
pub(crate) mod holding;
mod jobs;
pub(crate) mod library;
pub(crate) mod listener;
pub(crate) mod may_block;
pub(crate) mod processors;
pub(crate) mod raw;
pub(crate) mod receive;
pub(crate) mod registration;
#[cfg(feature = "testing")]
pub(crate) mod scripted;
pub(crate) mod secrets;
mod sends;
pub(crate) mod settings;
pub(crate) mod slot;
pub(crate) mod status;
pub(crate) mod stream;
#[cfg(test)]
mod testing;
mod threads;
mod trim;

use msquic::ffi::HQUIC;
use std::slice;
use std::sync::atomic;

/// The largest code of an application (RFC 9000, section 16): libmsquic ignores calls with larger
/// ones (C15, C24).
const MAX_CODE: u64 = (1 << 62) - 1;

/// A native handle that may be sent between threads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Handle(HQUIC);

// SAFETY: C1: every function of the API table may be called from any thread; the pointer is never
// dereferenced on this side.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// Bytes that an event points to.
///
/// # Safety
///
/// `data` is null or points to `length` bytes that are valid for `'a`.
unsafe fn bytes<'a>(data: *const u8, length: usize) -> &'a [u8] {
    if data.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(data, length) }
}
