//! Address validation (RFC 9000, section 8.1) while many handshakes are in progress.

use msquic_async::require_address_validation;
use net_kit::admission::Admission;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many transports are under pressure. Address validation is a setting of the whole process, so
/// the lock is held while it changes; no callback of msquic takes this lock.
static UNDER_PRESSURE: Mutex<usize> = Mutex::new(0);

/// Makes msquic validate the addresses of peers while a transport is under pressure.
pub(crate) fn under_pressure(admission: Admission) -> Admission {
    let is_counted = AtomicBool::new(false);
    admission.on_pressure(move |admission| {
        let mut count = UNDER_PRESSURE.lock();
        let now = admission.is_under_pressure();
        if is_counted.swap(now, Ordering::Relaxed) == now {
            return;
        }
        let others = if now { *count } else { *count - 1 };
        *count = others + usize::from(now);
        if others == 0 {
            // It cannot fail: the library is loaded, or there would be no transport.
            let _ = require_address_validation(now);
        }
    })
}
