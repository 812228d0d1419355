//! Listeners: the bounded backlog of connections that arrive.

mod error;
mod event;
mod future;
mod incoming;
mod inner;
mod state;

pub use error::ListenError;
pub use future::{Accept, AcceptIncoming, Stop};
pub use incoming::Incoming;

use crate::connection::Connection;
use crate::ffi::listener::NativeListener;
use crate::{Configuration, Registration, Status};
use inner::ListenerInner;
use net_traits::NetCredential;
use state::ListenerInput;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Accepts connections.
///
/// A connection that arrives waits in a bounded backlog **before** its handshake. [`accept`](Self::accept) or
/// [`Incoming::accept`] takes it out of the backlog and continues the handshake, whose end
/// [`Connection::accept`] waits for. So a slow peer delays no other peer. A connection that does not fit into
/// the backlog is refused at once.
///
/// Dropping the listener stops it and refuses the connections in the backlog. Connections that were accepted
/// remain open.
///
/// ```no_run
/// # async fn example(credential: msquic_async::NetCredential) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::{Configuration, Listener, Registration, Settings};
///
/// let registration = Registration::new("example")?;
/// let settings = Settings::new().peer_bidi_streams(16);
/// let configuration = Configuration::server(&registration, &["chat/1"], &settings, &credential)?;
/// let listener = Listener::new(&registration, configuration, credential)?;
/// listener.start(&["chat/1"], Some("127.0.0.1:0".parse()?))?;
/// println!("listening on {}", listener.local_addr()?);
/// let connection = listener.accept().await?;
/// connection.accept().await?;
/// # Ok(())
/// # }
/// ```
pub struct Listener {
    inner: Arc<ListenerInner>,
}

impl Listener {
    /// Creates a listener, which is not started. Its connections use `configuration`; the trust
    /// policy of `credential` verifies the certificates of peers.
    ///
    /// ```no_run
    /// # fn example(
    /// #     registration: msquic_async::Registration,
    /// #     configuration: msquic_async::Configuration,
    /// #     credential: msquic_async::NetCredential,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// use msquic_async::Listener;
    ///
    /// let listener = Listener::new(&registration, configuration, credential)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ListenError::Other`] with [`Status::INVALID_PARAMETER`] when the configuration belongs to another registration.
    pub fn new(
        registration: &Registration,
        configuration: Configuration,
        credential: NetCredential,
    ) -> Result<Self, ListenError> {
        let native = NativeListener::new(registration.native());
        check_registration(&configuration, &native)?;
        Ok(Self { inner: ListenerInner::new(native, configuration, credential) })
    }

    /// Sets how many connections may wait to be accepted; further ones are refused. Default: 256.
    /// It applies to connections that arrive from now on.
    ///
    /// ```no_run
    /// # fn example(listener: msquic_async::Listener) {
    /// listener.set_backlog(16);
    /// # }
    /// ```
    pub fn set_backlog(&self, connections: usize) {
        self.inner.exclusive.lock().backlog_limit = connections;
    }

    /// How many connection attempts were refused because the backlog was full.
    ///
    /// ```no_run
    /// # fn example(listener: msquic_async::Listener) {
    /// println!("{} did not fit into the backlog", listener.refused());
    /// # }
    /// ```
    pub fn refused(&self) -> u64 {
        self.inner.exclusive.lock().refused
    }

    /// Sets the function that is called for each attempt that is [refused](Self::refused), with the address of the peer, which
    /// is not validated. It is called on a thread of msquic, without a lock, and must not block.
    ///
    /// ```no_run
    /// # fn example(listener: msquic_async::Listener) {
    /// listener.set_refused_hook(|remote_addr| eprintln!("no room for {remote_addr:?}"));
    /// # }
    /// ```
    pub fn set_refused_hook(&self, hook: impl Fn(Option<SocketAddr>) + Send + Sync + 'static) {
        let before = self.inner.exclusive.lock().refused_hook.replace(Arc::new(hook));
        drop(before); // the hook may have a `Drop` of the application
    }

    /// Sets the configuration and credential for connections that are [accepted](Self::accept) from
    /// now on. Attempts that wait already are verified with the credential that was set when they
    /// arrived, unless [`Incoming::accept_with`] gives them another one.
    ///
    /// ```no_run
    /// # fn example(
    /// #     listener: msquic_async::Listener,
    /// #     configuration: msquic_async::Configuration,
    /// #     credential: msquic_async::NetCredential,
    /// # ) -> Result<(), msquic_async::ListenError> {
    /// listener.set_credential(configuration, credential)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ListenError::Other`] with [`Status::INVALID_PARAMETER`] if the configuration belongs to
    /// another registration; the listener is then unchanged.
    pub fn set_credential(
        &self,
        configuration: Configuration,
        credential: NetCredential,
    ) -> Result<(), ListenError> {
        check_registration(&configuration, &self.inner.native)?;
        let before = {
            let exclusive = &mut *self.inner.exclusive.lock();
            (
                std::mem::replace(&mut exclusive.configuration, configuration),
                std::mem::replace(&mut exclusive.credential, credential),
            )
        };
        drop(before); // closing a configuration calls msquic
        Ok(())
    }

    /// Starts to listen on `local_address` (default: all addresses, a free port) for peers that offer one of
    /// `alpn`, which are in order of preference. A listener can be started once.
    ///
    /// It is bound to that address only; `[::]` accepts IPv4 as well as IPv6. (An installed libmsquic without this
    /// project's patches answers packets to every address of the machine, see `docs/libmsquic.md`.)
    ///
    /// ```no_run
    /// # fn example(listener: msquic_async::Listener) -> Result<(), Box<dyn std::error::Error>> {
    /// listener.start(&["chat/2", "chat/1"], Some("[::]:4433".parse()?))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ListenError::AlreadyStarted`]; [`ListenError::Finished`] after a stop or after
    /// [`Registration::shutdown`]; [`ListenError::AddressInUse`], also when the port belongs to a
    /// socket of another process, or to another listener on all addresses.
    pub fn start<A: AsRef<[u8]>>(
        &self,
        alpn: &[A],
        local_address: Option<SocketAddr>,
    ) -> Result<(), ListenError> {
        self.inner.start(alpn, local_address)
    }

    /// Waits for the next connection and continues its handshake; [`Connection::accept`] waits for
    /// its end.
    ///
    /// ```no_run
    /// # async fn serve(connection: msquic_async::Connection) {}
    /// # async fn example(listener: msquic_async::Listener) -> Result<(), Box<dyn std::error::Error>> {
    /// loop {
    ///     let connection = listener.accept().await?;
    ///     tokio::spawn(serve(connection));
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ListenError::Finished`] once the listener is stopped and its backlog empty.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no connection.
    pub fn accept(&self) -> Accept<'_> {
        Accept::new(self)
    }

    /// Waits for the next connection. Its handshake continues with [`Incoming::accept`], which fails with the
    /// reason if the connection has ended while it waited.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     listener: msquic_async::Listener,
    /// #     configuration: msquic_async::Configuration,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let incoming = listener.accept_incoming().await?;
    /// println!("{:?} asks for {:?}", incoming.remote_addr(), incoming.server_name());
    /// let connection = incoming.accept(&configuration)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`accept`](Self::accept).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no connection.
    pub fn accept_incoming(&self) -> AcceptIncoming<'_> {
        AcceptIncoming::new(self)
    }

    /// The polling form of [`accept`](Self::accept). Any number of tasks may wait.
    ///
    /// ```no_run
    /// # async fn example(listener: msquic_async::Listener) -> Result<(), Box<dyn std::error::Error>> {
    /// let connection = std::future::poll_fn(|cx| listener.poll_accept(cx)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`accept`](Self::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<Connection, ListenError>> {
        self.inner.arrived.poll_registered(cx, || self.inner.next_connection())
    }

    /// Stops listening and waits until that is done. Connections in the backlog can still be
    /// accepted. The port is free then, once the last connection of the listener has ended (on Linux;
    /// with the patch N61).
    ///
    /// ```no_run
    /// # async fn example(listener: msquic_async::Listener) -> Result<(), Box<dyn std::error::Error>> {
    /// listener.stop().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ListenError::NotStarted`].
    ///
    /// # Cancel safety
    ///
    /// Once the future was polled, the listener stops even if the future is dropped.
    pub fn stop(&self) -> Stop<'_> {
        Stop::new(self)
    }

    /// The polling form of [`stop`](Self::stop).
    ///
    /// ```no_run
    /// # async fn example(listener: msquic_async::Listener) -> Result<(), Box<dyn std::error::Error>> {
    /// std::future::poll_fn(|cx| listener.poll_stop(cx)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ListenError::NotStarted`].
    pub fn poll_stop(&self, cx: &mut Context<'_>) -> Poll<Result<(), ListenError>> {
        self.inner.stop();
        self.inner.stopped.poll_registered(cx, || self.inner.stop_result())
    }

    /// The address that the listener is bound to, with the actual port where 0 was requested.
    ///
    /// ```no_run
    /// # fn example(listener: msquic_async::Listener) -> Result<(), Box<dyn std::error::Error>> {
    /// listener.start(&["chat/1"], None)?;
    /// println!("listening on port {}", listener.local_addr()?.port());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ListenError::NotStarted`].
    pub fn local_addr(&self) -> Result<SocketAddr, ListenError> {
        self.inner.exclusive.lock().local_addr.ok_or(ListenError::NotStarted)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.inner.stop();
        self.inner.transition(ListenerInput::Abandon);
        self.inner.refuse_backlog();
    }
}

/// Checks that the configuration belongs to the listener's registration, as its connections
/// require.
fn check_registration(
    configuration: &Configuration,
    listener: &NativeListener,
) -> Result<(), ListenError> {
    if configuration.native().is_of(listener.registration()) {
        Ok(())
    } else {
        Err(ListenError::Other(Status::INVALID_PARAMETER))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exclusive = self.inner.exclusive.lock();
        f.debug_struct("Listener")
            .field("state", &exclusive.state)
            .field("local_addr", &exclusive.local_addr)
            .finish_non_exhaustive()
    }
}
