//! `Bound`: the context of a native handle, with the value that owns the handle and the handler of its events.
//!
//! Callbacks get the owner from here and not from the handler.

use std::ffi::c_void;
use std::sync::Arc;

pub(super) struct Bound<N, H> {
    pub(super) native: Arc<N>,
    pub(super) handler: Arc<H>,
}

impl<N, H> Bound<N, H> {
    /// The context to register with a handle. It lives until it is [taken](Self::take) back.
    pub(super) fn context(native: &Arc<N>, handler: &Arc<H>) -> *mut c_void {
        Box::into_raw(Box::new(Self { native: native.clone(), handler: handler.clone() })).cast()
    }

    /// # Safety
    ///
    /// `context` is of this type, and is not taken back during `'a`.
    pub(super) unsafe fn of<'a>(context: *mut c_void) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*context.cast() }
    }

    /// # Safety
    ///
    /// `context` is of this type, and is not used any more.
    pub(super) unsafe fn take(context: *mut c_void) -> Box<Self> {
        // SAFETY: the caller's promise.
        unsafe { Box::from_raw(context.cast()) }
    }
}
