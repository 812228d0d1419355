//! The memory into which libmsquic writes the TLS secrets of a connection, on request.

use msquic::ffi;
use net_traits::KeyLog;
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::mem;
use zeroize::{Zeroize, Zeroizing};

/// Written by libmsquic on the connection's own thread, and read there.
pub(super) struct Secrets(UnsafeCell<ffi::QUIC_TLS_SECRETS>);

// SAFETY: C27: all access is on one thread at a time, the one that runs the connection.
unsafe impl Sync for Secrets {}

impl Secrets {
    pub(super) fn new() -> Self {
        // SAFETY: the structure consists of bytes, for which zero is valid (C10).
        Self(UnsafeCell::new(unsafe { mem::zeroed() }))
    }

    /// Where libmsquic writes.
    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.0.get().cast()
    }

    /// Returns the secrets written so far, as lines of a key log; `None` if there are none.
    ///
    /// # Safety
    ///
    /// Inside a callback of the connection.
    pub(super) unsafe fn lines(&self) -> Option<Zeroizing<String>> {
        // SAFETY: C27: libmsquic writes on this thread only, and not during the callback.
        let secrets = unsafe { &*self.0.get() };
        let (set, length) = (&secrets.IsSet, usize::from(secrets.SecretLength));
        if set.ClientRandom() == 0 {
            return None;
        }
        // The string never grows, since growing would leave copies that are not wiped.
        let mut lines = Zeroizing::new(String::with_capacity(MAX_LINES));
        for (is_set, label, secret) in [
            (
                set.ClientEarlyTrafficSecret(),
                "CLIENT_EARLY_TRAFFIC_SECRET",
                &secrets.ClientEarlyTrafficSecret,
            ),
            (
                set.ClientHandshakeTrafficSecret(),
                "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
                &secrets.ClientHandshakeTrafficSecret,
            ),
            (
                set.ServerHandshakeTrafficSecret(),
                "SERVER_HANDSHAKE_TRAFFIC_SECRET",
                &secrets.ServerHandshakeTrafficSecret,
            ),
            (set.ClientTrafficSecret0(), "CLIENT_TRAFFIC_SECRET_0", &secrets.ClientTrafficSecret0),
            (set.ServerTrafficSecret0(), "SERVER_TRAFFIC_SECRET_0", &secrets.ServerTrafficSecret0),
        ] {
            if is_set != 0 {
                let secret = &secret[..length.min(secret.len())];
                KeyLog::push_line(&mut lines, label, &secrets.ClientRandom, secret);
            }
        }
        (!lines.is_empty()).then_some(lines)
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        let secrets = self.0.get_mut();
        secrets.ClientEarlyTrafficSecret.zeroize();
        secrets.ClientHandshakeTrafficSecret.zeroize();
        secrets.ServerHandshakeTrafficSecret.zeroize();
        secrets.ClientTrafficSecret0.zeroize();
        secrets.ServerTrafficSecret0.zeroize();
    }
}

/// Five lines, one for each secret of a connection.
const MAX_LINES: usize = 5 * KeyLog::MAX_LINE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lines_fit_so_that_no_copy_stays_behind() {
        let secrets = Secrets::new();
        // SAFETY: C27: nothing else knows the memory; all bits set is valid for bytes.
        let lines = unsafe {
            secrets.0.get().write_bytes(0xff, 1);
            secrets.lines().unwrap()
        };
        assert_eq!(lines.lines().count(), 5);
        assert!(lines.lines().all(|line| line.ends_with(&"f".repeat(128))), "{}", *lines);
        assert_eq!(lines.capacity(), MAX_LINES);
    }
}
