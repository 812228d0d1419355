//! Gives memory back to the system after many connections have ended.
//!
//! glibc's allocator keeps freed pages below its last allocated one. Of thousands of connections that ended it keeps
//! nearly all of their memory (docs/performance.md).

use std::sync::atomic::{AtomicUsize, Ordering};

/// After how many closed connections memory is worth a search.
const MANY: usize = 1000;

/// How many connections were closed since the last search.
static CLOSED: AtomicUsize = AtomicUsize::new(0);

/// How many they were when [`run`] was called for the last time, or became due.
static SEEN: AtomicUsize = AtomicUsize::new(MANY);

/// Counts a connection. Returns whether [`run`] is due some time from now.
pub(super) fn connection_closed() -> bool {
    CLOSED.fetch_add(1, Ordering::Relaxed) + 1 == MANY
}

/// Gives memory back, unless connections have been closed since the last call: then `false`, and it is due again
/// some time later. Takes up to 30 ms for each 100 MB, during which threads that allocate may wait.
pub(super) fn run() -> bool {
    let closed = CLOSED.load(Ordering::Relaxed);
    if SEEN.swap(closed, Ordering::Relaxed) != closed {
        return false;
    }
    CLOSED.store(0, Ordering::Relaxed);
    SEEN.store(MANY, Ordering::Relaxed);
    give_back();
    true
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    // SAFETY: C48: it may be called by any thread at any time.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}
