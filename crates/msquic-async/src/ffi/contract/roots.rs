//! Registrations and configurations, and the connections and listeners of a registration.

use super::callbacks;
use super::events::{Answer, Call, Recorder, is_inside};
use super::handles::{Kind, Object};
use super::is_driven;
use crate::ffi::Handle;
use crate::ffi::execution;
use crate::ffi::functions::call;
use crate::ffi::library;
use crate::ffi::status::Status;
use msquic::ffi;
use std::ptr;
use std::thread;
use std::time::Duration;

/// An open configuration.
pub(super) struct Configuration {
    pub(super) handle: Handle,
}

impl Drop for Configuration {
    fn drop(&mut self) {
        // SAFETY: C4, C11: it is closed once, and the call does not wait.
        unsafe { call!(ConfigurationClose(self.handle.0)) };
    }
}

/// A registration of the test's own. It is dropped after its children.
pub(super) struct Registration {
    pub(super) handle: Handle,
}

impl Registration {
    pub(super) fn new() -> Self {
        super::prepare();
        let _opening = library::opening();
        crate::api_table().unwrap(); // the end of the process does not close the library under these handles
        let mut handle = ptr::null_mut();
        let mut name = *b"contract\0";
        // SAFETY: C7: the configuration is copied before the call returns.
        let status = unsafe {
            let config = ffi::QUIC_REGISTRATION_CONFIG {
                AppName: name.as_ptr().cast(),
                ExecutionProfile: ffi::QUIC_EXECUTION_PROFILE_QUIC_EXECUTION_PROFILE_LOW_LATENCY,
            };
            call!(RegistrationOpen(&raw const config, &raw mut handle))
        };
        name.fill(b'x');
        Status::ok(status).unwrap();
        Self { handle: Handle(handle) }
    }

    pub(super) fn open_connection(
        &self,
        react: impl Fn(&Call<'_>) -> Answer + Send + Sync + 'static,
    ) -> Object {
        let (context, events) = Recorder::create(react);
        let mut handle = ptr::null_mut();
        // SAFETY: C1, C13: the context is never freed.
        Status::ok(unsafe {
            let callback =
                Some(callbacks::on_connection_event as unsafe extern "C" fn(_, _, _) -> _);
            call!(ConnectionOpen(self.handle.0, callback, context, &raw mut handle))
        })
        .unwrap();
        Object::new(Handle(handle), Kind::Connection, events)
    }

    pub(super) fn open_listener(
        &self,
        react: impl Fn(&Call<'_>) -> Answer + Send + Sync + 'static,
    ) -> Object {
        let (context, events) = Recorder::create(react);
        let mut handle = ptr::null_mut();
        // SAFETY: C1, C13: the context is never freed.
        Status::ok(unsafe {
            let callback = Some(callbacks::on_listener_event as unsafe extern "C" fn(_, _, _) -> _);
            call!(ListenerOpen(self.handle.0, callback, context, &raw mut handle))
        })
        .unwrap();
        Object::new(Handle(handle), Kind::Listener, events)
    }

    /// Closes the registration, which waits for its children.
    pub(super) fn close(self) {
        drop(self);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // C29: a driven registration is closed elsewhere, or stays open. A failed test leaves children.
        let cannot_close = !execution::closes_registrations() || is_driven() && is_inside();
        if cannot_close || thread::panicking() {
            return;
        }
        if !super::is_patched("N6") {
            thread::sleep(SETTLE);
        }
        // SAFETY: C8, C9: the children are closed or are being closed, and this is no callback.
        unsafe { call!(RegistrationClose(self.handle.0)) };
    }
}

/// C8: how long packets may be on their way to a closed connection. No event reports that they have arrived.
const SETTLE: Duration = Duration::from_millis(100);
