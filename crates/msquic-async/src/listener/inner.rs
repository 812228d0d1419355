//! `ListenerInner`: what the handle of a listener shares with its callbacks.

use super::error::ListenError;
use super::incoming::Incoming;
use super::state::{ListenerInput, ListenerState};
use crate::Configuration;
use crate::connection::Connection;
use crate::ffi::library::{LibraryVersion, library_patches, library_version};
use crate::ffi::listener::NativeListener;
use crate::ffi::status::Status;
use crate::waiters::Waiters;
use net_traits::NetCredential;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// How many connections may wait to be accepted, by default.
const BACKLOG: usize = 256;

pub(super) struct ListenerInner {
    pub(super) native: Arc<NativeListener>,
    pub(super) exclusive: Mutex<Exclusive>,
    /// Woken when a connection arrives, and at the end.
    pub(super) arrived: Waiters,
    /// Woken when the listener has stopped.
    pub(super) stopped: Waiters,
}

pub(super) struct Exclusive {
    pub(super) credential: NetCredential,
    pub(super) configuration: Configuration,
    pub(super) state: ListenerState,
    pub(super) local_addr: Option<SocketAddr>,
    pub(super) backlog: VecDeque<Incoming>,
    pub(super) backlog_limit: usize,
    /// Connections that were refused because the backlog was full.
    pub(super) refused: u64,
    /// Called for each of them.
    pub(super) refused_hook: Option<RefusedHook>,
}

pub(super) type RefusedHook = Arc<dyn Fn(Option<SocketAddr>) + Send + Sync>;

impl ListenerInner {
    pub(super) fn new(
        native: Arc<NativeListener>,
        configuration: Configuration,
        credential: NetCredential,
    ) -> Arc<Self> {
        Arc::new(Self {
            native,
            exclusive: Mutex::new(Exclusive {
                credential,
                configuration,
                state: ListenerState::Open,
                local_addr: None,
                backlog: VecDeque::new(),
                backlog_limit: BACKLOG,
                refused: 0,
                refused_hook: None,
            }),
            arrived: Waiters::default(),
            stopped: Waiters::default(),
        })
    }

    pub(super) fn start<A: AsRef<[u8]>>(
        self: &Arc<Self>,
        alpn: &[A],
        local_addr: Option<SocketAddr>,
    ) -> Result<(), ListenError> {
        match self.exclusive.lock().state {
            ListenerState::Open => {}
            ListenerState::StartComplete => return Err(ListenError::AlreadyStarted),
            ListenerState::Shutdown | ListenerState::ShutdownComplete => {
                return Err(ListenError::Finished);
            }
        }
        let alpn = alpn.iter().map(AsRef::as_ref).collect::<Vec<_>>();
        if alpn.len() > 1 && !keeps_protocol_names() {
            tracing::warn!(
                "this libmsquic reads freed memory when a peer makes a listener with several protocol names wait \
                 (microsoft/msquic#6171): use one name, or the vendored library"
            );
        }
        let bound = self.native.start(&alpn, local_addr, self).map_err(|status| match status {
            Status::ADDRESS_IN_USE | Status::ALPN_IN_USE => ListenError::AddressInUse,
            Status::INVALID_STATE => ListenError::Finished,
            status => ListenError::Other(status),
        })?;
        self.exclusive.lock().local_addr = Some(bound);
        self.transition(ListenerInput::Start);
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.transition(ListenerInput::Stop);
        self.native.stop();
    }

    pub(super) fn transition(&self, input: ListenerInput) {
        if self.exclusive.lock().state.apply(input) {
            self.arrived.wake_all();
            self.stopped.wake_all();
        }
    }

    /// Returns the next attempt, or why there will be none; `None` means to wait.
    pub(super) fn next_incoming(&self) -> Option<Result<Incoming, ListenError>> {
        let mut exclusive = self.exclusive.lock();
        match (exclusive.backlog.pop_front(), exclusive.state) {
            (Some(incoming), _) => Some(Ok(incoming)),
            (None, ListenerState::Open) => Some(Err(ListenError::NotStarted)),
            (None, ListenerState::StartComplete) => None,
            (None, _) => Some(Err(ListenError::Finished)),
        }
    }

    pub(super) fn next_connection(&self) -> Option<Result<Connection, ListenError>> {
        loop {
            match self.next_incoming()? {
                Err(error) => return Some(Err(error)),
                Ok(incoming) => {
                    let (configuration, credential) = {
                        let exclusive = self.exclusive.lock();
                        (exclusive.configuration.clone(), exclusive.credential.clone())
                    };
                    match incoming.accept_with(&configuration, credential) {
                        Ok(connection) => return Some(Ok(connection)),
                        // The connection has just ended, or msquic lacks memory for it.
                        Err(error) => tracing::debug!(%error, "a connection could not be accepted"),
                    }
                }
            }
        }
    }

    pub(super) fn stop_result(&self) -> Option<Result<(), ListenError>> {
        match self.exclusive.lock().state {
            ListenerState::Open => Some(Err(ListenError::NotStarted)),
            ListenerState::StartComplete | ListenerState::Shutdown => None,
            ListenerState::ShutdownComplete => Some(Ok(())),
        }
    }

    pub(super) fn refuse_backlog(&self) {
        let backlog = std::mem::take(&mut self.exclusive.lock().backlog);
        drop(backlog);
    }
}

/// Returns whether libmsquic keeps the protocol names that a client offers until the handshake
/// continues. It does with the patch U1; releases up to 2.5.12 and 2.6.3 do not.
fn keeps_protocol_names() -> bool {
    let is_patched = library_patches().iter().any(|patch| patch.fault == "U1");
    let is_fixed = |LibraryVersion { major, minor, patch, .. }| {
        (major, minor, patch) > (2, 6, 3) || ((major, minor) == (2, 5) && patch > 12)
    };
    is_patched || library_version().is_ok_and(is_fixed)
}
