//! `Slot`: a native handle, the calls with it, and its close.
//!
//! ```text
//! empty ─claim─▶ claimed ─set─▶ open ─close─▶ closed
//!   ▲               │
//!   └────dropped────┘
//! ```
//! The gate lets calls use the handle until it is closed. If the close finds calls in progress, the last of
//! them closes the handle, on a thread that may block if the close waits outside of callbacks (C9).

use super::Handle;
use super::atomic::{AtomicBool, Ordering};
use super::gate::{Gate, Gated, Inside};
use super::may_block;
use super::status::Status;
use crate::lock::Mutex;
use msquic::ffi::HQUIC;
use std::mem::ManuallyDrop;
use std::sync::OnceLock;

/// Closes handles of one kind, and keeps what must outlive them.
pub(crate) trait Closer: Send + 'static {
    /// Outside of callbacks the close waits for a worker of libmsquic (C9).
    const WAITS: bool;

    /// The only place that closes such a handle.
    ///
    /// # Safety
    ///
    /// Nothing uses the handle any more. Its last event was delivered, or is being delivered on this thread, which
    /// otherwise may block, if the close waits.
    unsafe fn close(self, handle: HQUIC);
}

/// A handle of the kind that `C` closes, or an empty slot for one.
pub(crate) struct Slot<C> {
    gate: Gate,
    /// There is a [`Claim`], or there was one that has set the handle.
    is_claimed: AtomicBool,
    handle: OnceLock<Handle>,
    /// Until the handle is closed.
    closer: Mutex<Option<C>>,
}

impl<C: Closer> Slot<C> {
    /// A slot without a handle, in which calls fail with [`Status::INVALID_STATE`].
    pub(super) fn empty() -> Self {
        Self {
            gate: Gate::new(),
            is_claimed: AtomicBool::new(false),
            handle: OnceLock::new(),
            closer: Mutex::new(None),
        }
    }

    pub(super) fn open(handle: HQUIC, closer: C) -> Self {
        Self {
            gate: Gate::new(),
            is_claimed: AtomicBool::new(true),
            handle: Handle(handle).into(),
            closer: Mutex::new(Some(closer)),
        }
    }

    /// Takes the right to set the handle, which exists once.
    pub(super) fn claim(&self) -> Result<Claim<'_, C>, Status> {
        let is_taken = self.is_claimed.swap(true, Ordering::SeqCst);
        if is_taken { Err(Status::INVALID_STATE) } else { Ok(Claim(self)) }
    }

    /// Returns the handle; `Err` if there is none yet. It is open as long as the gate is not closed
    /// or the caller is inside it.
    pub(super) fn handle(&self) -> Result<HQUIC, Status> {
        self.handle.get().map(|handle| handle.0).ok_or(Status::INVALID_STATE)
    }

    /// Closes the handle, unless it is in use: then the last call closes it.
    pub(super) fn close(&self) {
        if self.gate.close() {
            self.release();
        }
    }

    /// Closes the handle inside its last event, where that does not wait.
    ///
    /// # Safety
    ///
    /// Inside the callback of the last event of the handle.
    pub(super) unsafe fn close_in_callback(&self) {
        if self.gate.close()
            && let Some((Handle(handle), closer)) = self.take()
        {
            // SAFETY: C9: in the callback of the last event, and the gate lets no call use the handle any more.
            unsafe { closer.close(handle) };
        }
    }

    fn release(&self) {
        let Some((handle, closer)) = self.take() else { return };
        let close = move || {
            // SAFETY: C9: this thread may block if the close waits, and the gate lets no call use the handle
            // any more.
            unsafe { closer.close({ handle }.0) };
        };
        if C::WAITS {
            may_block::detach_close(move |_| close());
        } else {
            close();
        }
    }

    fn take(&self) -> Option<(Handle, C)> {
        let handle = *self.handle.get()?;
        Some((handle, self.closer.lock().take()?))
    }
}

/// The right to set the handle of a slot. Dropping it returns the right.
pub(super) struct Claim<'a, C>(&'a Slot<C>);

impl<C> Claim<'_, C> {
    pub(super) fn set(self, handle: HQUIC, closer: C) {
        let Self(slot) = *ManuallyDrop::new(self);
        let mut place = slot.closer.lock(); // so that a close finds both or none
        *place = Some(closer);
        let _ = slot.handle.set(Handle(handle)); // this is the only claim
    }
}

impl<C> Drop for Claim<'_, C> {
    fn drop(&mut self) {
        self.0.is_claimed.store(false, Ordering::SeqCst);
    }
}

/// A value with a slot.
pub(crate) trait Slotted: Sized {
    type Closer: Closer;

    fn slot(&self) -> &Slot<Self::Closer>;

    /// Calls `call` with the handle, which stays open meanwhile; `Err` if there is none.
    fn with<T>(&self, call: impl FnOnce(HQUIC) -> Result<T, Status>) -> Result<T, Status> {
        let this = Inside::enter(self).ok_or(Status::INVALID_STATE)?;
        call(this.slot().handle()?)
    }
}

impl<S: Slotted> Gated for S {
    fn gate(&self) -> &Gate {
        &self.slot().gate
    }

    fn release(&self) {
        self.slot().release();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::ptr;
    use std::sync::Arc;
    use std::sync::mpsc;

    /// Reports when it closes a handle.
    pub(in crate::ffi) struct ReportingCloser(pub(in crate::ffi) mpsc::Sender<()>);

    impl Closer for ReportingCloser {
        const WAITS: bool = false;

        unsafe fn close(self, _: HQUIC) {
            self.0.send(()).unwrap();
        }
    }

    struct Native(Slot<ReportingCloser>);

    impl Slotted for Native {
        type Closer = ReportingCloser;

        fn slot(&self) -> &Slot<ReportingCloser> {
            &self.0
        }
    }

    #[test]
    fn a_claim_exists_once_unless_it_is_returned() {
        let native = Native(Slot::empty());
        assert_eq!(native.with(|_| Ok(())), Err(Status::INVALID_STATE));
        let claim = native.0.claim().ok().unwrap();
        assert!(native.0.claim().is_err());
        drop(claim);
        let (closed, is_closed) = mpsc::channel();
        native.0.claim().ok().unwrap().set(ptr::null_mut(), ReportingCloser(closed));
        assert!(native.0.claim().is_err());
        assert_eq!(native.with(|_| Ok(())), Ok(()));
        native.0.close();
        assert_eq!(is_closed.try_recv(), Ok(()));
    }

    #[test]
    fn a_handle_is_closed_once_by_the_last_that_uses_it() {
        let (closed, is_closed) = mpsc::channel();
        let native = Arc::new(Native(Slot::open(ptr::null_mut(), ReportingCloser(closed))));
        let hold = Inside::enter(native.clone()).unwrap();
        native.0.close();
        assert!(is_closed.try_recv().is_err());
        assert!(Inside::enter(native.clone()).is_none());
        assert_eq!(native.with(|_| Ok(())), Err(Status::INVALID_STATE));
        drop(hold);
        assert_eq!(is_closed.try_recv(), Ok(()));
        native.0.close();
        // SAFETY: nothing is closed any more.
        unsafe { native.0.close_in_callback() };
        assert_eq!(is_closed.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[test]
    fn a_close_without_a_handle_leaves_its_closer() {
        let slot = Slot::empty();
        *slot.closer.lock() = Some(ReportingCloser(mpsc::channel().0));
        assert!(slot.take().is_none());
        assert!(slot.closer.lock().is_some());
    }

    #[test]
    fn an_empty_slot_closes_nothing() {
        let native = Arc::new(Native(Slot::empty()));
        drop(Inside::enter(native.clone()).unwrap());
        native.0.close();
        assert!(Inside::enter(native.clone()).is_none());
    }
}
