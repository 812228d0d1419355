//! Raw handles, of which the public types take ownership through the trait [`FromRaw`].

use super::configuration::NativeConfiguration;
use super::connection::{ConnectionHandler, NativeConnection};
use super::registration::NativeRegistration;
use super::status::Status;
use super::stream::{NativeStream, StreamHandler};
use msquic::ffi::HQUIC;
use std::marker::PhantomData;
use std::sync::Arc;

/// A type that takes ownership of raw handles, opened with the functions of [`api_table`](crate::api_table).
///
/// The [`Context`](Self::Context) is the parent in which the handle was opened, and what else the
/// type needs:
///
/// | type | context |
/// |---|---|
/// | [`Registration`](crate::Registration) | `()` |
/// | [`Configuration`](crate::Configuration) | its registration |
/// | [`Connection`](crate::Connection) of a client | its registration, and the credential whose trust policy verifies the peer |
/// | [`Stream`](crate::Stream) of this side | its connection and type |
/// | unidirectional [`SendStream`](crate::SendStream) of this side | its connection |
///
/// Connections and streams are started as usual. Peers of an adopted configuration are verified only if its
/// credential was loaded with INDICATE_CERTIFICATE_RECEIVED and USE_PORTABLE_CERTIFICATES; connections whose
/// peer was not verified are closed as untrusted.
///
/// ```
/// use msquic_async::{FromRaw, Registration, api_table};
///
/// let mut handle = std::ptr::null_mut();
/// // SAFETY: no configuration means the default; the handle is owned at once.
/// let registration = unsafe {
///     let open = api_table()?.RegistrationOpen.expect("every libmsquic has it");
///     assert_eq!(open(std::ptr::null(), &mut handle), 0);
///     Registration::from_raw(handle, ())?
/// };
/// # drop(registration);
/// # Ok::<(), msquic_async::Status>(())
/// ```
///
/// A stream is opened, and owned, inside [`Connection::with_raw`](crate::Connection::with_raw):
///
/// ```no_run
/// # use std::ffi::c_void;
/// # fn example(
/// #     connection: msquic_async::Connection,
/// #     open: unsafe fn(*mut c_void) -> *mut c_void,
/// # ) {
/// use msquic_async::{FromRaw, SendStream};
///
/// let stream = connection.with_raw(|raw| {
///     // SAFETY: the stream is opened with the raw handle and owned at once.
///     unsafe { SendStream::from_raw(open(raw.cast()).cast(), &connection) }
/// });
/// # }
/// ```
pub trait FromRaw: Sized {
    /// The parent in which the handle was opened, and what else the type needs.
    type Context<'a>;

    /// Why ownership cannot be taken.
    type Error;

    /// The kind of handle, one of [`kind`].
    #[doc(hidden)]
    type Kind;

    /// Adopts the handle in its context.
    #[doc(hidden)]
    fn adopt(raw: Raw<Self::Kind>, context: Self::Context<'_>) -> Result<Self, Self::Error>;

    /// Takes ownership of a handle, which is then closed as a handle of this crate is.
    ///
    /// # Errors
    ///
    /// The caller then still owns the handle.
    ///
    /// - `Registration`: the library cannot be started.
    /// - `Configuration`, `Connection`: [`Registration::shutdown`](crate::Registration::shutdown) was called.
    /// - `Stream`, `SendStream`: the connection has ended or was not started.
    ///
    /// # Safety
    ///
    /// `handle` is of the type's kind and was opened in the context, and only this crate closes it or sets its
    /// callback. In addition:
    ///
    /// - `Registration`: raw children without an owner are closed before the last safe child or clone is
    ///   dropped, and before the process ends. With [`ExecutionDriver`](crate::ExecutionDriver) its profile
    ///   is not MAX_THROUGHPUT.
    /// - `Configuration`: it was not loaded with DEFER_CERTIFICATE_VALIDATION, certificates that it indicates are
    ///   portable, and its settings do not enable StreamMultiReceive.
    /// - `Connection`: it was neither started nor shut down, and its settings enable neither StreamMultiReceive nor
    ///   ReliableReset. No datagram was sent with it, nor will be: their contexts belong to this crate. Other
    ///   code calls functions with it inside [`with_raw`](crate::Connection::with_raw) only.
    /// - `Stream`, `SendStream`: it was opened inside `with_raw` of the connection and is adopted there, as a stream of
    ///   that type without APP_OWNED_BUFFERS. It was not started, nothing was sent with it, and no other code
    ///   calls functions with it any more.
    unsafe fn from_raw(handle: HQUIC, context: Self::Context<'_>) -> Result<Self, Self::Error> {
        Self::adopt(Raw { handle, kind: PhantomData }, context)
    }
}

/// The kinds of handles.
pub(crate) mod kind {
    /// A `NativeRegistration`.
    #[derive(Debug)]
    pub enum Registration {}
    /// A `NativeConfiguration`.
    #[derive(Debug)]
    pub enum Configuration {}
    /// A `NativeConnection`.
    #[derive(Debug)]
    pub enum Connection {}
    /// A `NativeStream`.
    #[derive(Debug)]
    pub enum Stream {}
}

/// A handle of kind `K`, for which the caller of [`FromRaw::from_raw`] guarantees its safety
/// conditions.
#[derive(Debug)]
pub struct Raw<K> {
    handle: HQUIC,
    kind: PhantomData<K>,
}

impl Raw<kind::Registration> {
    pub(crate) fn adopt(self) -> Result<Arc<NativeRegistration>, Status> {
        // SAFETY: guaranteed by the caller of `from_raw`.
        unsafe { NativeRegistration::from_raw(self.handle) }
    }
}

impl Raw<kind::Configuration> {
    /// `registration` is that of the context.
    pub(crate) fn adopt(
        self,
        registration: &Arc<NativeRegistration>,
    ) -> Result<Arc<NativeConfiguration>, Status> {
        // SAFETY: guaranteed by the caller of `from_raw`.
        unsafe { NativeConfiguration::from_raw(registration, self.handle) }
    }
}

impl Raw<kind::Connection> {
    /// `registration` is that of the context.
    pub(crate) fn adopt<H: ConnectionHandler>(
        self,
        registration: &Arc<NativeRegistration>,
        make: impl FnOnce(Arc<NativeConnection>) -> H,
    ) -> Result<Arc<H>, Status> {
        let make = |native: Arc<NativeConnection>| {
            native.set_foreign();
            make(native)
        };
        // SAFETY: guaranteed by the caller of `from_raw`.
        unsafe { NativeConnection::adopt(registration, self.handle, make) }
    }
}

impl Raw<kind::Stream> {
    /// `connection` is that of the context. [`Status::INVALID_STATE`] once it has ended.
    pub(crate) fn adopt<H: StreamHandler>(
        self,
        connection: &Arc<NativeConnection>,
        make: impl FnOnce(Arc<NativeStream>) -> Arc<H>,
    ) -> Result<Arc<H>, Status> {
        let hold = connection.hold().ok_or(Status::INVALID_STATE)?;
        let stream = Arc::new(NativeStream::new(connection));
        stream.set_foreign();
        let handler = make(stream.clone());
        // SAFETY: guaranteed by the caller of `from_raw`.
        unsafe { stream.adopt(self.handle, hold, &handler) }?;
        Ok(handler)
    }
}

/// The promise that no peer sends bytes of a stream again with other content.
///
/// See [`Settings::zero_copy_receive_from_trusted_peers`](crate::Settings::zero_copy_receive_from_trusted_peers).
///
/// ```
/// use msquic_async::{Settings, TrustedPeers};
///
/// // SAFETY: both peers run this program.
/// let trusted = unsafe { TrustedPeers::promise() };
/// let settings = Settings::new().zero_copy_receive_from_trusted_peers(trusted);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TrustedPeers(());

impl TrustedPeers {
    /// Makes the promise.
    ///
    /// ```
    /// // SAFETY: both peers run this program.
    /// let trusted = unsafe { msquic_async::TrustedPeers::promise() };
    /// ```
    ///
    /// # Safety
    ///
    /// The promise must hold for all connections with these settings. libmsquic before 2.6.0 would
    /// write other bytes over those that the application is reading (contract C32), which is a data
    /// race. A peer that follows RFC 9000 never sends them; a hostile one can.
    pub unsafe fn promise() -> Self {
        Self(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StreamStartError;
    use crate::ffi::slot::Slotted;
    use crate::ffi::testing::{ALPN, Pair, credential, establish, listener, pair};
    use crate::{
        Configuration, Connection, Registration, SendStream, Settings, Stream, StreamType,
        api_table,
    };
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
        // SAFETY: C7: no configuration is the default; the handle is owned.
        unsafe {
            assert_eq!(
                api_table().unwrap().RegistrationOpen.unwrap()(ptr::null(), &raw mut handle),
                0
            );
            Registration::from_raw(handle, ()).unwrap()
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
        let client =
            unsafe { Connection::from_raw(handle, (&registration, credential())) }.unwrap();
        let configuration =
            Configuration::client(&registration, &[ALPN], &settings, &credential()).unwrap();
        block_on(async {
            let server = establish(&client, &configuration, &listener, port).await;

            let uni = ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_UNIDIRECTIONAL;
            let adopt = |connection| {
                let raw = open_stream(connection, uni);
                // SAFETY: the stream was just opened and is used nowhere else.
                unsafe { SendStream::from_raw(raw, &client) }.unwrap()
            };
            let mut send = client.with_raw(adopt).unwrap();
            poll_fn(|cx| send.poll_start(cx, false)).await.unwrap();
            send.send("adopted").await.unwrap();
            let received = server.accept_inbound_uni_stream().await.unwrap();
            assert_eq!(&*received.read_chunk().await.unwrap().unwrap(), b"adopted");

            // A handle that is never started is closed all the same.
            let adopt = |connection| {
                let none = ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_NONE;
                let raw = open_stream(connection, none);
                // SAFETY: as above.
                unsafe { Stream::from_raw(raw, (&client, StreamType::Bidirectional)) }.unwrap()
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
        let settings =
            settings.zero_copy_receive_from_trusted_peers(unsafe { TrustedPeers::promise() });
        let (listener, port) = listener(&registration, &settings);
        let client = Connection::new(&registration, credential()).unwrap();
        let configuration =
            Configuration::client(&registration, &[ALPN], &settings, &credential()).unwrap();
        let data: bytes::Bytes = (0..1_000_000_u32).map(|index| (index / 251) as u8).collect();
        block_on(async {
            // Opened before the settings are there, adopted afterwards.
            let none = ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_NONE;
            let raw = client.with_raw(|connection| open_stream(connection, none)).unwrap();
            let server = establish(&client, &configuration, &listener, port).await;
            // SAFETY: the stream was opened here and is used nowhere else.
            let adopt = |_| unsafe { Stream::from_raw(raw, (&client, StreamType::Bidirectional)) };
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

    #[test]
    fn an_adopted_connection_that_is_never_started_is_closed() {
        let registration = registration();
        let handle = open_connection(&registration);
        // SAFETY: the connection was just opened and is used nowhere else.
        drop(unsafe { Connection::from_raw(handle, (&registration, credential())) }.unwrap());
        block_on(registration.wait_idle());
    }

    unsafe extern "C" fn ignored_stream_events(
        _: HQUIC,
        _: *mut c_void,
        _: *mut ffi::QUIC_STREAM_EVENT,
    ) -> ffi::QUIC_STATUS {
        0
    }

    /// Starts a unidirectional stream with the raw API, without this crate's knowledge.
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
    fn openers_wait_when_raw_handles_have_used_up_the_credit() {
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
            assert_eq!(open(true).await.map(drop), Err(StreamStartError::LimitReached));

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
}
