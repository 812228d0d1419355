//! `NativeRegistration`: the parent of all handles, with its live children.

use super::Handle;
use super::execution;
use super::functions::call;
use super::guard::guard;
use super::library::{self, Root};
use super::slot::{Closer, Slot, Slotted};
use super::status::Status;
use super::threads::{self, Kind};
use msquic::ffi;
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use std::time::Instant;
use tokio::sync::Notify;

/// How libmsquic uses its threads (`QUIC_EXECUTION_PROFILE`).
///
/// ```
/// use msquic_async::{ExecutionProfile, Registration};
///
/// let registration = Registration::with_profile("backup", ExecutionProfile::Scavenger)?;
/// # Ok::<(), msquic_async::Status>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ExecutionProfile {
    /// One thread per processor serves sockets and protocol: the shortest delays.
    #[default]
    LowLatency,
    /// Separate threads serve sockets and protocol: more throughput on one connection.
    MaxThroughput,
    /// Yields to everything else.
    Scavenger,
    /// For real-time work.
    RealTime,
}

/// An open registration. Its children hold an `Arc` of it; it is closed when the last one is
/// dropped.
pub(crate) struct NativeRegistration {
    slot: Slot<RegistrationCloser>,
    children: Mutex<Children>,
    had_children: Arc<AtomicBool>,
    /// Notified each time the last connection or listener has gone.
    idle: Notify,
    /// Notified each time a child has gone, for the end of the process.
    removed: Condvar,
}

/// A child of a registration.
pub(crate) trait Member: Send + Sync {
    /// Closes a connection with `code`, unless it has ended; stops a listener; closes a configuration. Never blocks.
    fn end(self: Arc<Self>, code: u64);
}

/// Children of one kind; `None` for one whose handle is not open yet.
type Members = HashMap<u64, Option<Weak<dyn Member>>>;

/// The members that are open.
fn open(members: &Members) -> Vec<Arc<dyn Member>> {
    members.values().flatten().filter_map(Weak::upgrade).collect()
}

/// The open children. They register before their native handle exists and leave after it is closed.
#[derive(Default)]
struct Children {
    next: u64,
    connections: Members,
    listeners: Members,
    configurations: Members,
    /// The code of the shutdown, once it was requested.
    shut_down: Option<u64>,
}

impl NativeRegistration {
    pub(crate) fn open(name: &CStr, profile: ExecutionProfile) -> Result<Arc<Self>, Status> {
        let _opening = library::opening(); // no driver is installed from here on
        // C29: such a registration has threads of its own.
        if execution::is_driven() && profile == ExecutionProfile::MaxThroughput {
            return Err(Status::INVALID_PARAMETER);
        }
        execution::check_usable()?;
        library::registration_opening()?;
        let config = ffi::QUIC_REGISTRATION_CONFIG {
            AppName: name.as_ptr(),
            ExecutionProfile: match profile {
                ExecutionProfile::LowLatency => {
                    ffi::QUIC_EXECUTION_PROFILE_QUIC_EXECUTION_PROFILE_LOW_LATENCY
                }
                ExecutionProfile::MaxThroughput => {
                    ffi::QUIC_EXECUTION_PROFILE_QUIC_EXECUTION_PROFILE_TYPE_MAX_THROUGHPUT
                }
                ExecutionProfile::Scavenger => {
                    ffi::QUIC_EXECUTION_PROFILE_QUIC_EXECUTION_PROFILE_TYPE_SCAVENGER
                }
                ExecutionProfile::RealTime => {
                    ffi::QUIC_EXECUTION_PROFILE_QUIC_EXECUTION_PROFILE_TYPE_REAL_TIME
                }
            },
        };
        let mut handle = ptr::null_mut();
        // SAFETY: C7: the configuration is copied before the call returns.
        unsafe { Status::ok(call!(RegistrationOpen(&raw const config, &raw mut handle))) }
            .inspect_err(|_| library::registration_closed())?;
        Ok(Self::with_handle(handle))
    }

    /// Takes ownership of an open registration.
    ///
    /// # Safety
    ///
    /// Only this value closes it, and children that it does not know are closed before it.
    pub(super) unsafe fn from_raw(handle: ffi::HQUIC) -> Result<Arc<Self>, Status> {
        library::registration_opening()?;
        Ok(Self::with_handle(handle))
    }

    fn with_handle(handle: ffi::HQUIC) -> Arc<Self> {
        let had_children = Arc::new(AtomicBool::new(false));
        let this = Arc::new(Self {
            slot: Slot::open(handle, RegistrationCloser { had_children: had_children.clone() }),
            children: Mutex::default(),
            had_children,
            idle: Notify::new(),
            removed: Condvar::new(),
        });
        let root: Weak<dyn Root> = Arc::<Self>::downgrade(&this);
        library::registration_opened(root);
        this
    }

    /// Closes all connections with `code` and stops all listeners; no new ones can be added.
    pub(crate) fn shutdown(&self, code: u64) {
        let (connections, listeners) = {
            let mut children = self.children.lock();
            children.shut_down.get_or_insert(code);
            (open(&children.connections), open(&children.listeners))
        };
        // Not RegistrationShutdown: it must not overlap with a listener's stop (C8).
        for member in listeners.into_iter().chain(connections) {
            guard((), || member.end(code)); // this wakes tasks, and wakers are foreign code
        }
    }

    /// Waits until no connection and no listener is alive.
    pub(crate) async fn wait_idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.is_idle() {
                return;
            }
            idle.await;
        }
    }

    /// Closes the handle, once.
    fn close(&self) {
        if execution::closes_registrations() {
            self.slot.close();
        }
    }

    /// Waits until `done`; returns false if the deadline comes before.
    fn wait_at_exit(&self, deadline: Instant, done: impl Fn(&Children) -> bool) -> bool {
        let mut children = self.children.lock();
        let remaining = deadline.saturating_duration_since(Instant::now());
        let wait = |children: &mut Children| !done(children);
        !self.removed.wait_while_for(&mut children, wait, remaining).timed_out()
    }

    /// Adds a connection, before its handle is opened; [`Child::set_connection`] sets it.
    pub(super) fn add_connection(self: &Arc<Self>) -> Result<Arc<Child>, Status> {
        self.add(|children, id| drop(children.connections.insert(id, None)))
    }

    /// Adds a listener.
    pub(super) fn add_listener(
        self: &Arc<Self>,
        listener: Weak<dyn Member>,
    ) -> Result<Arc<Child>, Status> {
        self.add(|children, id| drop(children.listeners.insert(id, Some(listener))))
    }

    /// Adds a configuration, before its handle is opened.
    pub(super) fn add_configuration(self: &Arc<Self>) -> Result<Arc<Child>, Status> {
        self.add(|children, id| drop(children.configurations.insert(id, None)))
    }

    fn add(
        self: &Arc<Self>,
        insert: impl FnOnce(&mut Children, u64),
    ) -> Result<Arc<Child>, Status> {
        let mut children = self.children.lock();
        if children.shut_down.is_some() {
            return Err(Status::INVALID_STATE);
        }
        children.next += 1;
        self.had_children.store(true, Ordering::SeqCst);
        let id = children.next;
        insert(&mut children, id);
        Ok(Arc::new(Child { registration: self.clone(), id }))
    }
}

impl Slotted for NativeRegistration {
    type Closer = RegistrationCloser;

    fn slot(&self) -> &Slot<RegistrationCloser> {
        &self.slot
    }
}

/// Closes a registration, on a separate thread: the close waits for the memory of its children to
/// be freed (C8), and the calling thread may be one of libmsquic's own, or the one that drives it.
pub(crate) struct RegistrationCloser {
    had_children: Arc<AtomicBool>,
}

impl Closer for RegistrationCloser {
    const WAITS: bool = false;

    unsafe fn close(self, handle: ffi::HQUIC) {
        let handle = Handle(handle);
        threads::run(Kind::Close, move || {
            if self.had_children.load(Ordering::SeqCst) {
                settle();
            }
            // SAFETY: C8, C9, C29: the handles of all children are closed and no new ones are opened: they held
            // the `Arc` that died, or the registration is shut down and idle. This thread is not inside a
            // callback, and does not drive the library.
            unsafe { call!(RegistrationClose({ handle }.0)) };
            library::registration_closed();
        });
    }
}

impl Root for NativeRegistration {
    fn shutdown(&self, code: u64) {
        Self::shutdown(self, code);
    }

    fn is_idle(&self) -> bool {
        self.children.lock().is_empty()
    }

    fn close_configurations(&self, deadline: Instant) -> bool {
        let configurations = open(&self.children.lock().configurations);
        configurations.into_iter().for_each(|configuration| configuration.end(0));
        self.wait_at_exit(deadline, |children| children.configurations.is_empty())
    }

    fn close_at_exit(&self, deadline: Instant) {
        // A configuration that is in use, or that is being opened, keeps the registration open.
        if self.wait_at_exit(deadline, Children::is_empty) && self.close_configurations(deadline) {
            self.close();
        }
    }
}

/// The entry of a handle among the children of its registration, until the handle is closed.
pub(super) struct Child {
    registration: Arc<NativeRegistration>,
    id: u64,
}

impl Child {
    pub(super) fn is_of(&self, registration: &Arc<NativeRegistration>) -> bool {
        Arc::ptr_eq(&self.registration, registration)
    }

    /// Returns whether both belong to one registration.
    pub(super) fn has_same_registration(&self, other: &Self) -> bool {
        self.is_of(&other.registration)
    }

    /// Sets the connection, whose handle is open. Returns the code if the registration was shut
    /// down meanwhile.
    pub(super) fn set_connection(&self, connection: Weak<dyn Member>) -> Option<u64> {
        let mut children = self.registration.children.lock();
        children.connections.insert(self.id, Some(connection));
        children.shut_down
    }

    /// As [`set_connection`](Self::set_connection).
    pub(super) fn set_configuration(&self, configuration: Weak<dyn Member>) {
        let mut children = self.registration.children.lock();
        children.configurations.insert(self.id, Some(configuration));
    }

    /// The handle is closed.
    pub(super) fn remove(&self) {
        let is_idle = {
            let mut children = self.registration.children.lock();
            children.connections.remove(&self.id);
            children.listeners.remove(&self.id);
            children.configurations.remove(&self.id);
            children.is_empty()
        };
        if is_idle {
            self.registration.idle.notify_waiters();
        }
        self.registration.removed.notify_all();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.remove(); // for a handle that was not opened
    }
}

impl Children {
    fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.listeners.is_empty()
    }
}

impl Drop for NativeRegistration {
    fn drop(&mut self) {
        self.close();
    }
}

/// How long libmsquic may still process packets for a connection that was closed. Its registration
/// must not be closed before (C8).
const SETTLE: Duration = Duration::from_millis(100);

/// Waits for that, unless the library does so itself (patch N6).
fn settle() {
    if !library::has_patch("N6") {
        std::thread::sleep(SETTLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn the_end_of_the_process_waits_for_a_configuration_although_a_connection_stays() {
        let profile = ExecutionProfile::LowLatency;
        let registration = NativeRegistration::open(c"remove", profile).unwrap();
        let _connection = registration.add_connection().unwrap();
        let configuration = registration.add_configuration().unwrap();
        let (waits, is_waiting) = mpsc::channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let deadline = Instant::now() + Duration::from_secs(10);
                registration.wait_at_exit(deadline, move |children| {
                    let _ = waits.send(());
                    children.configurations.is_empty()
                })
            });
            is_waiting.recv().unwrap();
            configuration.remove();
            assert!(waiter.join().unwrap(), "it waited until the deadline");
        });
    }
}
