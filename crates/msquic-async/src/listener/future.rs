//! The named futures of listeners.

use super::{Incoming, ListenError, Listener};
use crate::connection::Connection;
use crate::waiters::wait_future;

wait_future! {
    /// Future of [`Listener::accept`].
    Accept(listener: &Listener) -> Result<Connection, ListenError>,
    on listener.inner.arrived, take listener.inner.next_connection()
}

wait_future! {
    /// Future of [`Listener::accept_incoming`].
    AcceptIncoming(listener: &Listener) -> Result<Incoming, ListenError>,
    on listener.inner.arrived, take listener.inner.next_incoming()
}

wait_future! {
    /// Future of [`Listener::stop`].
    Stop(listener: &Listener) -> Result<(), ListenError>,
    on listener.inner.stopped, until {
        listener.inner.stop();
        listener.inner.stop_result()
    }
}
