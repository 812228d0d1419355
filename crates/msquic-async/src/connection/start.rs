//! Starting a connection: one attempt, or one for each address of the host.

use super::dial::Source;
use super::race::{self, ATTEMPT_DELAY, MAX_ADDRESSES};
use super::{Connection, ConnectionInner, Dial, StartError};
use crate::ffi::calls::Calls;
use crate::ffi::may_block::{MayBlock, detach};
use crate::{Configuration, Registration, Status};
use net_kit::blocking::Threads;
use net_traits::NetCredential;
use std::ffi::CString;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use zeroize::Zeroizing;

/// The threads that resolve names. A name whose servers do not answer occupies one for long.
static RESOLVERS: Threads = Threads::new("msquic-resolver", 128);

impl Connection {
    /// Connects to `port` of `host`, a name or an address. Names are resolved on a separate thread, and the first
    /// address is used; [`Dial::connect`] tries all of them.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     connection: msquic_async::Connection,
    /// #     configuration: msquic_async::Configuration,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// connection.start(&configuration, "node.example", 4433).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after its first poll, the attempt continues; [`accept`](Self::accept) waits for it.
    /// Nothing happens before the first poll.
    pub fn start(&self, configuration: &Configuration, host: &str, port: u16) -> ConnectionStart {
        self.start_with(configuration, Dial::new(host, port))
    }

    /// Connects as [`start`](Self::start) does, with the server name, local address, interface and sockets of `dial`.
    /// What `dial` does not set is as it was set on the connection.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     connection: msquic_async::Connection,
    /// #     configuration: msquic_async::Configuration,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// use msquic_async::Dial;
    ///
    /// let dial = Dial::new("192.0.2.1", 4433).server_name("node.example");
    /// connection.start_with(&configuration, dial).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError`].
    ///
    /// # Cancel safety
    ///
    /// As for [`start`](Self::start).
    pub fn start_with(&self, configuration: &Configuration, dial: Dial) -> ConnectionStart {
        ConnectionStart::new(self.clone(), configuration.clone(), dial)
    }
}

impl Dial {
    /// Connects, trying every address of the host (RFC 8305): IPv6 and IPv4 in turn, the next attempt begins 250 ms after
    /// the previous one or when that has failed. The first connection whose handshake is done is returned, the other attempts are
    /// closed. At most 16 addresses are tried. The trust policy of `credential` verifies the peer.
    ///
    /// [`Connection::start`] is for callers that need the handle before the handshake; since a handle is one QUIC
    /// connection, it tries the first address only.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     registration: msquic_async::Registration,
    /// #     configuration: msquic_async::Configuration,
    /// #     credential: msquic_async::NetCredential,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// use msquic_async::Dial;
    ///
    /// let dial = Dial::new("node.example", 4433);
    /// let connection = dial.connect(&registration, &configuration, &credential).await?;
    /// println!("connected to {}", connection.get_remote_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError`]; [`StartError::NoAddress`] with the error of each address if there are several.
    ///
    /// # Cancel safety
    ///
    /// A dropped future closes all attempts.
    pub async fn connect(
        &self,
        registration: &Registration,
        configuration: &Configuration,
        credential: &NetCredential,
    ) -> Result<Connection, StartError> {
        self.check()?;
        let addresses = match self.address() {
            Some(address) => vec![address],
            None => {
                let dial = self.clone();
                let resolved = RESOLVERS.run(move || dial.resolve()).await;
                let resolved = resolved.map_err(|_| StartError::Other(Status::OUT_OF_MEMORY))?;
                race::interleave(resolved?, MAX_ADDRESSES)
            }
        };
        let attempt = |address| async move {
            let connection = Connection::new(registration, credential.clone())
                .map_err(StartError::ConnectionLost)?;
            start(&connection, configuration.clone(), self.clone(), Some(address)).await?;
            connection.accept().await?;
            Ok(connection)
        };
        race::first(addresses, ATTEMPT_DELAY, attempt).await.map_err(|mut errors| {
            match errors.len() {
                1 => errors.remove(0).1,
                _ => StartError::NoAddress { host: self.host.clone(), errors },
            }
        })
    }
}

/// Begins the handshake with `address`, or else with the first address of the host.
pub(super) async fn start(
    connection: &Connection,
    configuration: Configuration,
    dial: Dial,
    address: Option<SocketAddr>,
) -> Result<(), StartError> {
    dial.check()?;
    let inner = connection.inner().clone();
    if !inner.native().has_same_registration(configuration.native()) {
        let text = "the configuration belongs to another registration than the connection";
        return Err(StartError::InvalidInput(text.to_owned()));
    }
    if !inner.begin(&configuration) {
        return Err(inner.error().map_or(StartError::AlreadyStarted, StartError::ConnectionLost));
    }
    // Resolving and setting parameters block, so both run on other threads. The attempt continues if this
    // future is dropped, and its end is reported to the connection.
    let (done, result) = tokio::sync::oneshot::channel();
    match address.or_else(|| dial.address()) {
        Some(address) => {
            let attempt = Attempt::new(inner, configuration, &dial, address);
            if attempt.parameters().next().is_none() {
                return attempt.start(None);
            }
            detach(move |may_block| _ = done.send(attempt.start(Some(may_block))));
        }
        None => {
            let failed = inner.clone();
            let begin = move || match dial.resolve() {
                Ok(addresses) => {
                    let attempt = Attempt::new(inner, configuration, &dial, addresses[0]);
                    detach(move |may_block| _ = done.send(attempt.start(Some(may_block))));
                }
                Err(error) => {
                    inner.start_failed(Status::NOT_FOUND);
                    let _ = done.send(Err(error));
                }
            };
            match RESOLVERS.start(begin) {
                Ok(queued) => queued.detach(),
                Err(_) => {
                    failed.start_failed(Status::OUT_OF_MEMORY);
                    return Err(StartError::Other(Status::OUT_OF_MEMORY));
                }
            }
        }
    }
    result.await.unwrap_or(Err(StartError::Other(Status::ABORTED)))
}

/// A handshake with one address that is about to begin.
struct Attempt {
    inner: Arc<ConnectionInner>,
    configuration: Configuration,
    source: Source,
    name: CString,
    address: SocketAddr,
    /// Whether `name` is not `address`. If it is, msquic parses it itself, and nothing has to be set.
    is_named: bool,
    ticket: Option<Zeroizing<Vec<u8>>>,
}

impl Attempt {
    fn new(
        inner: Arc<ConnectionInner>,
        configuration: Configuration,
        dial: &Dial,
        address: SocketAddr,
    ) -> Self {
        inner.set_addrs(None, Some(address));
        let (source, name) = (dial.source.or(inner.source()), dial.name());
        let is_named = dial.server_name.is_some() || dial.written_address() != Some(address);
        let ticket = inner.dial(&name, address);
        Self { inner, configuration, source, name, address, is_named, ticket }
    }

    /// Returns the parameters that are set by calls that block, in this order.
    fn parameters(&self) -> impl Iterator<Item = Parameter<'_>> {
        let Source { local_addr, interface, .. } = self.source;
        let all = [
            self.configuration.key_log().map(|_| Parameter::KeyLog),
            local_addr.map(Parameter::LocalAddr),
            interface.map(Parameter::Interface),
            self.is_named.then_some(Parameter::RemoteAddr(self.address)),
            self.ticket.as_ref().map(|ticket| Parameter::Ticket(ticket)),
        ];
        all.into_iter().flatten()
    }

    /// Begins the handshake. `may_block` is `None` if there are no [parameters](Self::parameters).
    fn start(&self, may_block: Option<&MayBlock>) -> Result<(), StartError> {
        let native = self.inner.native();
        let start = || {
            if let Some(may_block) = may_block {
                let mut parameters = self.parameters();
                parameters.try_for_each(|parameter| parameter.set(native.calls(may_block)))?;
            }
            if self.source.shares_binding() {
                native.share_binding()?;
            }
            native.start(self.configuration.native(), &self.name, self.address.port())
        };
        start().map_err(|status| {
            self.inner.start_failed(status);
            StartError::Other(status)
        })
    }
}

/// A parameter of a connection that is set before its start.
enum Parameter<'a> {
    KeyLog,
    LocalAddr(SocketAddr),
    /// After the address, in whose zone libmsquic keeps it.
    Interface(u32),
    RemoteAddr(SocketAddr),
    Ticket(&'a [u8]),
}

impl Parameter<'_> {
    fn set(self, calls: Calls<'_>) -> Result<(), Status> {
        match self {
            Self::KeyLog => calls.log_keys(),
            Self::LocalAddr(address) => calls.set_local_addr(address),
            Self::Interface(index) => calls.set_interface(index),
            Self::RemoteAddr(address) => calls.set_remote_addr(address),
            // C31: if that fails, the connection cannot be started any more
            Self::Ticket(ticket) => calls.set_ticket(ticket),
        }
    }
}

/// Future of [`Connection::start`].
#[must_use = "futures do nothing unless polled"]
pub struct ConnectionStart {
    start: Pin<Box<dyn Future<Output = Result<(), StartError>> + Send>>,
}

impl ConnectionStart {
    pub(super) fn new(connection: Connection, configuration: Configuration, dial: Dial) -> Self {
        let attempt = async move {
            start(&connection, configuration, dial, None).await?;
            connection.accept().await
        };
        Self { start: Box::pin(attempt) }
    }
}

impl fmt::Debug for ConnectionStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionStart").finish_non_exhaustive()
    }
}

impl Future for ConnectionStart {
    type Output = Result<(), StartError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.start.as_mut().poll(cx)
    }
}
