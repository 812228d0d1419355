//! Raw handles of connections, and of streams on them.

use super::stream_connection::StreamConnection;
use super::{Connection, ConnectionError, ConnectionInner};
use crate::Registration;
use crate::StreamStartError;
use crate::ffi::raw::{FromRaw, Raw, kind};
use crate::ffi::slot::Slotted;
use crate::send_stream::SendStream;
use crate::stream::{Stream, StreamInner, StreamType};
use msquic::ffi::HQUIC;
use net_traits::NetCredential;

impl Connection {
    /// Calls `call` with the native handle, for functions of msquic that this crate does not offer; the handle stays
    /// open during the call. `None` once the connection has ended. Do not block inside, except in callbacks of the
    /// connection. Do not send datagrams with the handle, since this crate owns the contexts of their events.
    ///
    /// ```no_run
    /// # fn example(connection: msquic_async::Connection) {
    /// if let Some(handle) = connection.with_raw(|handle| handle) {
    ///     println!("{handle:p} may be closed by now");
    /// }
    /// # }
    /// ```
    pub fn with_raw<T>(&self, call: impl FnOnce(HQUIC) -> T) -> Option<T> {
        self.inner().native().with(|handle| Ok(call(handle))).ok()
    }
}

impl FromRaw for Connection {
    type Context<'a> = (&'a Registration, NetCredential);
    type Error = ConnectionError;
    type Kind = kind::Connection;

    fn adopt(
        raw: Raw<kind::Connection>,
        (registration, credential): Self::Context<'_>,
    ) -> Result<Self, ConnectionError> {
        let make = |native| ConnectionInner::new(native, credential);
        let inner = raw
            .adopt(registration.native(), make)
            .map_err(|status| ConnectionError::ClosedByTransport { status, code: 0 })?;
        Ok(Self::from_inner(inner))
    }
}

impl FromRaw for Stream {
    type Context<'a> = (&'a Connection, StreamType);
    type Error = StreamStartError;
    type Kind = kind::Stream;

    fn adopt(
        raw: Raw<kind::Stream>,
        (connection, stream_type): Self::Context<'_>,
    ) -> Result<Self, StreamStartError> {
        let inner = connection.inner();
        inner.check_usable().map_err(StreamStartError::ConnectionLost)?;
        let lost = || StreamStartError::ConnectionLost(inner.error_or_closing());
        let make = |native| StreamInner::with_native(native, inner.clone(), stream_type, true);
        let stream = raw.adopt(inner.native(), make).map_err(|_| lost())?;
        Ok(Self::new(stream, connection.handle()))
    }
}

impl FromRaw for SendStream {
    type Context<'a> = &'a Connection;
    type Error = StreamStartError;
    type Kind = kind::Stream;

    fn adopt(raw: Raw<kind::Stream>, connection: &Connection) -> Result<Self, StreamStartError> {
        Stream::adopt(raw, (connection, StreamType::Unidirectional)).map(Self::from_stream)
    }
}
