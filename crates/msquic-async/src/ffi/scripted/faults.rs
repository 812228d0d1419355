//! Calls that libmsquic does not allow.

use parking_lot::Mutex;

/// The first call that is not allowed. A function of the table cannot unwind.
static FAULT: Mutex<Option<String>> = Mutex::new(None);

/// Notes a fault unless `holds`.
pub(super) fn demand(holds: bool, fault: impl FnOnce() -> String) {
    if !holds {
        FAULT.lock().get_or_insert_with(fault);
    }
}

/// Fails if a call was not allowed.
///
/// # Panics
///
/// With the first such call.
pub(crate) fn check_calls() {
    let fault = FAULT.lock().take();
    assert!(fault.is_none(), "{}", fault.unwrap_or_default());
}
