//! The handling of msquic's events for a listener.

use super::incoming::Incoming;
use super::inner::ListenerInner;
use super::state::{ListenerInput, ListenerState};
use crate::connection::ConnectionInner;
use crate::ffi::calls::Calls;
use crate::ffi::connection::{NativeConnection, PeerConnection};
use crate::ffi::listener::ListenerHandler;
use crate::ffi::settings::NativeSettings;
use std::sync::Arc;

impl ListenerHandler for ListenerInner {
    /// Puts the connection into the backlog, or leaves it to be refused.
    fn on_new_connection(self: &Arc<Self>, mut connection: PeerConnection<'_>) {
        let admitted = {
            let exclusive = &mut *self.exclusive.lock();
            if matches!(exclusive.state, ListenerState::Shutdown | ListenerState::ShutdownComplete)
            {
                return;
            }
            if exclusive.backlog.len() >= exclusive.backlog_limit {
                exclusive.refused += 1;
                Err(exclusive.refused_hook.clone())
            } else {
                Ok((exclusive.credential.clone(), exclusive.configuration.clone()))
            }
        };
        let (credential, configuration) = match admitted {
            Ok(admitted) => admitted,
            Err(hook) => {
                hook.iter().for_each(|hook| hook(connection.remote_addr));
                return;
            }
        };
        let make = |native: Arc<NativeConnection>, calls: Calls<'_>| {
            if configuration.key_log().is_some()
                && let Err(status) = calls.log_keys()
            {
                tracing::warn!(%status, "the keys of a connection cannot be logged");
            }
            if let Some(timeout) = configuration.handshake_idle_timeout() {
                let mut settings = NativeSettings::new();
                settings.handshake_idle_timeout(timeout);
                if let Err(status) = calls.set_settings(&settings) {
                    tracing::warn!(%status, "an attempt has the handshake timeout of msquic until it is accepted");
                }
            }
            ConnectionInner::new(native, credential)
        };
        let Ok(inner) = connection.adopt(make) else { return };
        inner.set_accepted();
        inner.set_addrs(connection.local_addr, connection.remote_addr);
        let incoming = Incoming::new(&inner, &connection);
        self.exclusive.lock().backlog.push_back(incoming);
        self.arrived.wake_one();
    }

    fn on_stop_complete(self: &Arc<Self>) {
        self.transition(ListenerInput::Stopped);
    }
}
