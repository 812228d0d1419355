//! Raw handles: their functions, and how this crate takes them over.

use super::configuration::NativeConfiguration;
use super::connection::NativeConnection;
use super::library;
use super::registration::NativeRegistration;
use super::slot::Slotted;
use super::status::Status;
use crate::connection::{Connection, ConnectionInner, Link};
use crate::send_stream::SendStream;
use crate::settings::{Settings, ZeroCopy};
use crate::stream::{StartError, Stream, StreamInner, StreamType};
use crate::{Configuration, ConnectionError, Registration};
use msquic::ffi::{HQUIC, QUIC_API_TABLE};
use net_traits::NetCredential;
use std::sync::Arc;

/// The functions of the libmsquic that this process runs with, for handles of one's own.
///
/// From then on the library is not closed at the end of the process, since it is unknown whether handles
/// are open. With [`ExecutionDriver`](crate::ExecutionDriver) no registration may be opened while the
/// driver is installed, none may be closed unless the library has the patch N31 and another thread goes on driving,
/// and the functions that close, get or set parameters of
/// connections and streams must not overlap with a turn of the driver (contract C29).
///
/// ```
/// let table = msquic_async::api_table()?;
/// assert!(table.StreamOpen.is_some());
/// # Ok::<(), msquic_async::Status>(())
/// ```
///
/// # Errors
///
/// The library cannot be started, for instance because memory is short. [`Status::INVALID_STATE`]: the process
/// ends, and the library is closed.
pub fn api_table() -> Result<&'static QUIC_API_TABLE, Status> {
    library::share_table()
}

impl Registration {
    /// Takes over a registration that was opened with [`api_table`]. It is closed when nothing refers
    /// to it any more.
    ///
    /// # Errors
    ///
    /// The library cannot be started.
    ///
    /// # Safety
    ///
    /// `handle` is an open registration that only the returned value closes. Raw children of it that are not taken
    /// over are closed before the last of its safe children and clones is dropped, and before the process
    /// ends. With [`ExecutionDriver`](crate::ExecutionDriver) its profile is not MAX_THROUGHPUT.
    ///
    /// ```
    /// use msquic_async::{Registration, api_table};
    ///
    /// let mut handle = std::ptr::null_mut();
    /// // SAFETY: no configuration means the default; the handle is taken over at once.
    /// let registration = unsafe {
    ///     let open = api_table()?.RegistrationOpen.expect("every libmsquic has it");
    ///     assert_eq!(open(std::ptr::null(), &mut handle), 0);
    ///     Registration::from_raw(handle)?
    /// };
    /// # drop(registration);
    /// # Ok::<(), msquic_async::Status>(())
    /// ```
    pub unsafe fn from_raw(handle: HQUIC) -> Result<Self, Status> {
        // SAFETY: the caller's promise.
        Ok(Self::from_native(unsafe { NativeRegistration::from_raw(handle) }?))
    }
}

impl Settings {
    /// As [`zero_copy_receive`](Self::zero_copy_receive), with any libmsquic.
    ///
    /// ```
    /// // SAFETY: both peers are ours.
    /// let settings =
    ///     unsafe { msquic_async::Settings::new().zero_copy_receive_from_trusted_peers() };
    /// ```
    ///
    /// # Safety
    ///
    /// No peer sends bytes of a stream again with other content. libmsquic before 2.6.0 would write them
    /// over those that the application is reading (contract C32), which is a data race. An honest peer
    /// never does; a hostile one can.
    #[must_use]
    pub unsafe fn zero_copy_receive_from_trusted_peers(mut self) -> Self {
        self.zero_copy_receive = ZeroCopy::Trusted;
        self
    }
}

impl Configuration {
    /// Takes over a configuration. It is closed when nothing refers to it any more.
    ///
    /// ```no_run
    /// # fn example(
    /// #     registration: msquic_async::Registration,
    /// #     handle: *mut std::ffi::c_void,
    /// # ) -> Result<(), msquic_async::Status> {
    /// use msquic_async::Configuration;
    ///
    /// // SAFETY: `handle` was opened in this registration, loaded as described, and is used nowhere else.
    /// let configuration = unsafe { Configuration::from_raw(&registration, handle.cast()) }?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Peers are judged only if its credential was loaded with INDICATE_CERTIFICATE_RECEIVED and
    /// USE_PORTABLE_CERTIFICATES; connections whose peer was not judged are closed as untrusted.
    ///
    /// # Errors
    ///
    /// [`Status::INVALID_STATE`] after [`Registration::shutdown`]. The handle then stays the caller's.
    ///
    /// # Safety
    ///
    /// `handle` is an open configuration of `registration` that only the returned value closes. It was not loaded
    /// with DEFER_CERTIFICATE_VALIDATION, certificates that it indicates are portable, and its settings
    /// do not enable StreamMultiReceive.
    pub unsafe fn from_raw(registration: &Registration, handle: HQUIC) -> Result<Self, Status> {
        // SAFETY: the caller's promise.
        let native = unsafe { NativeConfiguration::from_raw(registration.native(), handle) }?;
        Ok(Self::from_native(native))
    }
}

impl Connection {
    /// Takes over a client's connection. Its trust policy is that of `credential`.
    ///
    /// ```no_run
    /// # fn example(
    /// #     registration: msquic_async::Registration,
    /// #     handle: *mut std::ffi::c_void,
    /// #     credential: msquic_async::NetCredential,
    /// # ) -> Result<(), msquic_async::ConnectionError> {
    /// use msquic_async::Connection;
    ///
    /// // SAFETY: `handle` was opened in this registration just now and is used nowhere else.
    /// let connection = unsafe { Connection::from_raw(&registration, handle.cast(), credential) }?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError::ClosedByTransport`] after [`Registration::shutdown`]. The handle then stays
    /// the caller's.
    ///
    /// # Safety
    ///
    /// `handle` was opened in `registration`, and neither started nor shut down; its settings enable
    /// neither StreamMultiReceive nor ReliableReset. No datagram was sent with it, nor will be: their contexts
    /// belong to this crate. Only this crate closes it or sets its callback, and other code
    /// calls functions with it inside [`with_raw`](Self::with_raw) only.
    pub unsafe fn from_raw(
        registration: &Registration,
        handle: HQUIC,
        credential: NetCredential,
    ) -> Result<Self, ConnectionError> {
        let make = |native| ConnectionInner::new(native, credential);
        // SAFETY: the caller's promise.
        let inner = unsafe { NativeConnection::adopt(registration.native(), handle, make) }
            .map_err(|status| ConnectionError::ClosedByTransport { status, code: 0 })?;
        inner.set_adopted();
        Ok(Self::from_inner(inner))
    }

    /// Gives `call` the native handle, which stays open meanwhile, for what this crate does not offer.
    /// `None` once the connection is over. Outside callbacks of the connection, do not wait inside. Datagrams must
    /// not be sent with it, since this crate owns the contexts of their events.
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

impl Stream {
    /// Takes over a stream; [`poll_start`](Self::poll_start) starts it.
    ///
    /// ```no_run
    /// # use std::ffi::c_void;
    /// # fn example(
    /// #     connection: msquic_async::Connection,
    /// #     open: unsafe fn(*mut c_void) -> *mut c_void,
    /// # ) {
    /// use msquic_async::{Stream, StreamType};
    ///
    /// let stream = connection.with_raw(|raw| {
    ///     // SAFETY: the stream is opened with the raw handle and taken over at once.
    ///     unsafe {
    ///         let handle = open(raw.cast());
    ///         Stream::from_raw(&connection, handle.cast(), StreamType::Bidirectional)
    ///     }
    /// });
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError::ConnectionLost`] when the connection is over or was not started. The handle then
    /// stays the caller's.
    ///
    /// # Safety
    ///
    /// `handle` was opened on `connection`, inside [`Connection::with_raw`] and adopted there, as a stream
    /// of this type without APP_OWNED_BUFFERS, not started, and nothing was sent with it. Only this crate closes
    /// it or sets its callback, and no function is called with it by others any more.
    pub unsafe fn from_raw(
        connection: &Connection,
        handle: HQUIC,
        stream_type: StreamType,
    ) -> Result<Self, StartError> {
        let inner = connection.inner();
        inner.check_usable().map_err(StartError::ConnectionLost)?;
        let hold = inner.native().hold();
        let hold = hold.ok_or_else(|| StartError::ConnectionLost(inner.error_or_closing()))?;
        let mut stream = StreamInner::new(inner.clone(), stream_type, true);
        // It may have been opened before libmsquic applied the configuration's settings.
        Arc::get_mut(&mut stream).expect("it was just made").complete_together();
        // SAFETY: the caller's promise.
        unsafe { stream.native().adopt(handle, hold, &stream) }.map_err(StartError::Other)?;
        Ok(Self::new(stream, connection.handle()))
    }
}

impl SendStream {
    /// Takes over a unidirectional stream; [`poll_start`](Self::poll_start) starts it.
    ///
    /// ```no_run
    /// # use std::ffi::c_void;
    /// # fn example(
    /// #     connection: msquic_async::Connection,
    /// #     open: unsafe fn(*mut c_void) -> *mut c_void,
    /// # ) {
    /// use msquic_async::SendStream;
    ///
    /// let stream = connection.with_raw(|raw| {
    ///     // SAFETY: the stream is opened with the raw handle and taken over at once.
    ///     unsafe { SendStream::from_raw(&connection, open(raw.cast()).cast()) }
    /// });
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Stream::from_raw`].
    ///
    /// # Safety
    ///
    /// As for [`Stream::from_raw`].
    pub unsafe fn from_raw(connection: &Connection, handle: HQUIC) -> Result<Self, StartError> {
        // SAFETY: the caller's promise.
        let stream = unsafe { Stream::from_raw(connection, handle, StreamType::Unidirectional) }?;
        Ok(Self::from_stream(stream))
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::{Listener, TrustPolicy};

    pub(in crate::ffi) const ALPN: &str = "raw/1";

    /// Two connected peers over loopback.
    pub(in crate::ffi) struct Pair {
        pub(in crate::ffi) registration: Registration,
        pub(in crate::ffi) listener: Listener,
        pub(in crate::ffi) client: Connection,
        pub(in crate::ffi) server: Connection,
    }

    pub(in crate::ffi) async fn pair(settings: &Settings) -> Pair {
        let registration = Registration::new("test").unwrap();
        let (listener, port) = listener(&registration, settings);
        let configuration =
            Configuration::client(&registration, &[ALPN], settings, &credential()).unwrap();
        let client = Connection::new(&registration, credential()).unwrap();
        let start = client.start(&configuration, "127.0.0.1", port);
        let accept = async {
            let server = listener.accept().await.unwrap();
            server.accept().await.unwrap();
            server
        };
        let (started, server) = futures::join!(start, accept);
        started.unwrap();
        Pair { registration, listener, client, server }
    }

    pub(in crate::ffi) fn credential() -> NetCredential {
        NetCredential::self_signed(TrustPolicy::Any).unwrap()
    }

    pub(in crate::ffi) fn listener(
        registration: &Registration,
        settings: &Settings,
    ) -> (Listener, u16) {
        let configuration =
            Configuration::server(registration, &[ALPN], settings, &credential()).unwrap();
        let listener = Listener::new(registration, configuration, credential()).unwrap();
        listener.start(&[ALPN], Some("127.0.0.1:0".parse().unwrap())).unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{ALPN, Pair, credential, listener, pair};
    use super::*;
    use futures::executor::block_on;
    use msquic::ffi;
    use std::ffi::c_void;
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::ptr;
    use std::task::{Context, Poll};

    unsafe extern "C" fn no_connection_events(
        _: HQUIC,
        _: *mut c_void,
        _: *mut ffi::QUIC_CONNECTION_EVENT,
    ) -> ffi::QUIC_STATUS {
        unreachable!("the callback was replaced")
    }

    unsafe extern "C" fn no_stream_events(
        _: HQUIC,
        _: *mut c_void,
        _: *mut ffi::QUIC_STREAM_EVENT,
    ) -> ffi::QUIC_STATUS {
        unreachable!("the callback was replaced")
    }

    fn registration() -> Registration {
        let mut handle = ptr::null_mut();
        // SAFETY: C7: no configuration is the default; the handle is taken over.
        unsafe {
            assert_eq!(
                api_table().unwrap().RegistrationOpen.unwrap()(ptr::null(), &raw mut handle),
                0
            );
            Registration::from_raw(handle).unwrap()
        }
    }

    fn open_connection(registration: &Registration) -> HQUIC {
        let mut handle = ptr::null_mut();
        // SAFETY: C13: no event comes before a call with the handle.
        unsafe {
            let open = api_table().unwrap().ConnectionOpen.unwrap();
            let callback = Some(no_connection_events as unsafe extern "C" fn(_, _, _) -> _);
            let registration = registration.native().slot().handle().unwrap();
            assert_eq!(open(registration, callback, ptr::null_mut(), &raw mut handle), 0);
        }
        handle
    }

    fn open_stream(connection: HQUIC, flags: ffi::QUIC_STREAM_OPEN_FLAGS) -> HQUIC {
        let mut handle = ptr::null_mut();
        // SAFETY: C13: no event comes before a call with the handle.
        unsafe {
            let open = api_table().unwrap().StreamOpen.unwrap();
            let callback = Some(no_stream_events as unsafe extern "C" fn(_, _, _) -> _);
            assert_eq!(open(connection, flags, callback, ptr::null_mut(), &raw mut handle), 0);
        }
        handle
    }

    #[test]
    fn adopted_handles_work_and_are_closed() {
        let registration = registration();
        let settings = Settings::new().peer_uni_streams(2).peer_bidi_streams(1);
        let (listener, port) = listener(&registration, &settings);
        let handle = open_connection(&registration);
        // SAFETY: the connection was just opened and is used nowhere else.
        let client = unsafe { Connection::from_raw(&registration, handle, credential()) }.unwrap();
        let configuration =
            Configuration::client(&registration, &[ALPN], &settings, &credential()).unwrap();
        block_on(async {
            let start = client.start(&configuration, "127.0.0.1", port);
            let accept = async {
                let server = listener.accept().await.unwrap();
                server.accept().await.unwrap();
                server
            };
            let (started, server) = futures::join!(start, accept);
            started.unwrap();

            let uni = ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_UNIDIRECTIONAL;
            let adopt = |connection| {
                let raw = open_stream(connection, uni);
                // SAFETY: the stream was just opened and is used nowhere else.
                unsafe { SendStream::from_raw(&client, raw) }.unwrap()
            };
            let mut send = client.with_raw(adopt).unwrap();
            poll_fn(|cx| send.poll_start(cx, false)).await.unwrap();
            send.send("adopted").await.unwrap();
            let received = server.accept_inbound_uni_stream().await.unwrap();
            assert_eq!(&*received.read_chunk().await.unwrap().unwrap(), b"adopted");

            // One that is never started is closed all the same.
            let adopt = |connection| {
                let none = ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_NONE;
                let raw = open_stream(connection, none);
                // SAFETY: as above.
                unsafe { Stream::from_raw(&client, raw, StreamType::Bidirectional) }.unwrap()
            };
            drop(client.with_raw(adopt).unwrap());

            drop((send, received, client, server, listener));
            registration.wait_idle().await;
        });
    }

    #[test]
    fn an_adopted_stream_may_be_older_than_the_settings_of_its_connection() {
        let registration = registration();
        let settings = Settings::new().peer_bidi_streams(1);
        // SAFETY: both peers are this test.
        let settings = unsafe { settings.zero_copy_receive_from_trusted_peers() };
        let (listener, port) = listener(&registration, &settings);
        let client = Connection::new(&registration, credential()).unwrap();
        let configuration =
            Configuration::client(&registration, &[ALPN], &settings, &credential()).unwrap();
        let data: bytes::Bytes = (0..1_000_000_u32).map(|index| (index / 251) as u8).collect();
        block_on(async {
            // Opened before the settings are there, adopted afterwards.
            let none = ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_NONE;
            let raw = client.with_raw(|connection| open_stream(connection, none)).unwrap();
            let start = client.start(&configuration, "127.0.0.1", port);
            let accept = async {
                let server = listener.accept().await.unwrap();
                server.accept().await.unwrap();
                server
            };
            let (started, server) = futures::join!(start, accept);
            started.unwrap();
            // SAFETY: the stream was opened here and is used nowhere else.
            let adopt = |_| unsafe { Stream::from_raw(&client, raw, StreamType::Bidirectional) };
            let mut stream = client.with_raw(adopt).unwrap().unwrap();
            poll_fn(|cx| stream.poll_start(cx, false)).await.unwrap();
            stream.write_chunk(&"go".into(), false).await.unwrap();
            let send = async {
                let (_read, write) = server.accept_inbound_stream().await.unwrap().split();
                let mut write = write.unwrap();
                write.write_chunk(&data, true).await.unwrap();
                write.finish_write().await.unwrap();
            };
            let receive = async {
                // Parts of what arrived are dropped before the rest.
                let (mut start, mut part) = (0, [0; 700]);
                let (read, _write) = stream.split();
                let read = read.unwrap();
                while start < data.len() {
                    let length = poll_fn(|cx| read.poll_read(cx, &mut part)).await.unwrap();
                    assert!(part[..length] == data[start..start + length]);
                    start += length;
                    // The part is completed before the rest is, unless both are completed together.
                    let _ = client.statistics().await;
                    if start < data.len() {
                        let chunk = read.read_chunk().await.unwrap().unwrap();
                        assert!(*chunk == data[start..start + chunk.len()]);
                        start += chunk.len();
                    }
                }
            };
            futures::join!(send, receive);
            drop((client, server, listener));
            registration.wait_idle().await;
        });
    }

    unsafe extern "C" fn ignored_stream_events(
        _: HQUIC,
        _: *mut c_void,
        _: *mut ffi::QUIC_STREAM_EVENT,
    ) -> ffi::QUIC_STATUS {
        0
    }

    /// Starts a unidirectional stream past this crate.
    fn start_stream(connection: HQUIC) -> HQUIC {
        let uni = ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_UNIDIRECTIONAL;
        let handle = open_stream(connection, uni);
        let callback: unsafe extern "C" fn(_, _, _) -> _ = ignored_stream_events;
        // SAFETY: C1, C13: the handle is open, and no event came yet.
        unsafe {
            let table = api_table().unwrap();
            let set = table.SetCallbackHandler.unwrap();
            set(handle, callback as *mut c_void, ptr::null_mut());
            let start = table.StreamStart.unwrap();
            let flags = ffi::QUIC_STREAM_START_FLAGS_QUIC_STREAM_START_FLAG_NONE;
            assert!(Status::ok(start(handle, flags)).is_ok());
        }
        handle
    }

    #[test]
    fn openers_wait_when_others_have_used_the_credit_up() {
        block_on(async {
            let Pair { registration, listener, client, server } =
                pair(&Settings::new().peer_uni_streams(4)).await;
            let start_three = |handle| [(); 3].map(|()| start_stream(handle));
            let others = client.with_raw(start_three).unwrap();
            let open = |fail| client.open_outbound_stream(StreamType::Unidirectional, fail);
            let mut waiting: Vec<_> = (0..4).map(|_| Some(open(false))).collect();
            let mut opened = Vec::new();
            let mut poll_all = |cx: &mut Context<'_>| {
                for place in &mut waiting {
                    if let Some(Poll::Ready(stream)) =
                        place.as_mut().map(|open| Pin::new(open).poll(cx))
                    {
                        opened.push(stream.unwrap());
                        *place = None;
                    }
                }
                opened.len()
            };
            poll_fn(|cx| if poll_all(cx) == 1 { Poll::Ready(()) } else { Poll::Pending }).await;
            assert_eq!(open(true).await.map(drop), Err(StartError::LimitReached));

            let rest = async {
                poll_fn(|cx| if poll_all(cx) == 4 { Poll::Ready(()) } else { Poll::Pending }).await;
            };
            let credit = async {
                for other in others {
                    // SAFETY: C4, C9: opened here, and closed once; this thread may wait.
                    unsafe { api_table().unwrap().StreamClose.unwrap()(other) };
                }
                for _ in 0..3 {
                    drop(server.accept_inbound_uni_stream().await.unwrap());
                }
            };
            futures::join!(rest, credit);
            drop((opened, waiting));
            drop((client, server, listener));
            registration.wait_idle().await;
        });
    }

    #[test]
    fn an_adopted_connection_that_is_never_started_is_closed() {
        let registration = registration();
        let handle = open_connection(&registration);
        // SAFETY: the connection was just opened and is used nowhere else.
        drop(unsafe { Connection::from_raw(&registration, handle, credential()) }.unwrap());
        block_on(registration.wait_idle());
    }

    #[test]
    fn a_peer_that_was_not_judged_is_not_trusted() {
        let registration = registration();
        let settings = Settings::new();
        let (listener, port) = listener(&registration, &settings);
        let mut handle = ptr::null_mut();
        // SAFETY: C7, C10, C12: all arguments are copied.
        let configuration = unsafe {
            let table = api_table().unwrap();
            let mut name = ALPN.to_owned().into_bytes();
            let alpn = ffi::QUIC_BUFFER { Length: name.len() as u32, Buffer: name.as_mut_ptr() };
            let (registration_handle, none) =
                (registration.native().slot().handle().unwrap(), ptr::null_mut());
            let open = table.ConfigurationOpen.unwrap();
            let opened = open(
                registration_handle,
                &raw const alpn,
                1,
                ptr::null(),
                0,
                none,
                &raw mut handle,
            );
            assert_eq!(opened, 0);
            let mut credential: ffi::QUIC_CREDENTIAL_CONFIG = std::mem::zeroed();
            credential.Type = ffi::QUIC_CREDENTIAL_TYPE_QUIC_CREDENTIAL_TYPE_NONE;
            credential.Flags = ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_CLIENT
                | ffi::QUIC_CREDENTIAL_FLAGS_QUIC_CREDENTIAL_FLAG_NO_CERTIFICATE_VALIDATION;
            let load = table.ConfigurationLoadCredential.unwrap();
            assert_eq!(load(handle, &raw const credential), 0);
            Configuration::from_raw(&registration, handle).unwrap()
        };
        block_on(async {
            let client = Connection::new(&registration, credential()).unwrap();
            let start = client.start(&configuration, "127.0.0.1", port);
            let error = futures::join!(start, listener.accept()).0.unwrap_err();
            let untrusted = ConnectionError::Untrusted(net_traits::TrustError::NoCertificate);
            assert_eq!(error, crate::connection::StartError::ConnectionLost(untrusted));
        });
    }
}
