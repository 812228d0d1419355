//! `Resolver`: the source of the addresses of peers, such as a list, a file, DNS, or the
//! application.

#[cfg(feature = "dns")]
mod dns;
mod file;

#[cfg(feature = "dns")]
pub use dns::DnsResolver;
pub use file::FileResolver;

use async_trait::async_trait;
use net_traits::{Cause, CertHash};
use std::fmt;
use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use tokio::sync::watch;

/// Supplies a pool with the addresses of its peers.
///
/// See [`PeerPool::follow`](crate::PeerPool::follow).
///
/// Implementations of this crate: [`StaticResolver`], [`FileResolver`], `DnsResolver` (feature
/// `dns`), and [`WatchResolver`] for an application that sends the list itself.
#[async_trait]
pub trait Resolver: Send + 'static {
    /// Waits for the list of all endpoints.
    ///
    /// The first call returns once the list is known. Later calls return when it may have changed,
    /// and remain pending if it cannot change. After an error the pool keeps the last list, and
    /// calls again after a backoff.
    ///
    /// # Errors
    ///
    /// [`ResolveError`] if the list is not known.
    ///
    /// # Cancel safety
    ///
    /// Need not be cancel-safe: a pool drops the future only when it stops following.
    async fn resolve(&mut self) -> Result<Vec<Endpoint>, ResolveError>;
}

/// The address of a peer, and the identity of the peer if it is known.
///
/// As text it is `ADDRESS` or `IDENTITY@ADDRESS`:
///
/// ```
/// use net_peers::Endpoint;
///
/// let endpoint: Endpoint = "[2001:db8::7]:4433".parse()?;
/// assert_eq!(endpoint.address.port(), 4433);
/// let known: Endpoint = format!("{}@10.0.0.7:4433", "ab".repeat(32)).parse()?;
/// assert!(known.identity.is_some());
/// # Ok::<(), net_peers::ParseEndpointError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Endpoint {
    /// The address.
    pub address: SocketAddr,
    /// The identity that the peer must have. Without one, the trust policy of the pool decides.
    pub identity: Option<CertHash>,
}

impl Endpoint {
    /// Creates an endpoint at which any trusted peer may answer.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, identity: None }
    }

    /// Sets the identity that the peer must have.
    #[must_use]
    pub fn with_identity(self, identity: CertHash) -> Self {
        Self { identity: Some(identity), ..self }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::new(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(identity) = self.identity {
            write!(f, "{identity}@")?;
        }
        fmt::Display::fmt(&self.address, f)
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, ParseEndpointError> {
        let (identity, address) = match text.split_once('@') {
            Some((identity, address)) => (Some(identity), address),
            None => (None, text),
        };
        let identity = identity.map(str::parse).transpose();
        let identity = identity.map_err(|cause| ParseEndpointError(Cause::new(cause)))?;
        let address = address.parse().map_err(|cause| ParseEndpointError(Cause::new(cause)))?;
        Ok(Self { address, identity })
    }
}

/// A text is not `ADDRESS` or `IDENTITY@ADDRESS`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected IP:PORT or IDENTITY@IP:PORT")]
pub struct ParseEndpointError(#[source] Cause);

/// Why the addresses of peers are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// The file is too long.
    #[error("{} is longer than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A line of the file is not an endpoint.
    #[error("line {line} of {} is not an endpoint", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Why.
        #[source]
        cause: ParseEndpointError,
    },
    /// The DNS lookup failed.
    #[error("cannot resolve {name}")]
    Dns {
        /// The name.
        name: String,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// More addresses are listed than the pool follows; those beyond the limit are ignored.
    #[error("{listed} addresses are listed, and at most {limit} are followed")]
    TooMany {
        /// Number of addresses.
        listed: usize,
        /// See [`max_followed`](crate::PeerPoolConfig::max_followed).
        limit: usize,
    },
    /// A resolver of the application failed.
    #[error("the resolver failed")]
    Other(#[source] Cause),
}

/// A list of endpoints that does not change.
#[derive(Debug, Clone, Default)]
pub struct StaticResolver {
    endpoints: Option<Vec<Endpoint>>,
}

impl StaticResolver {
    /// Creates a resolver that returns `endpoints`.
    pub fn new<E: Into<Endpoint>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self { endpoints: Some(endpoints.into_iter().map(Into::into).collect()) }
    }
}

#[async_trait]
impl Resolver for StaticResolver {
    async fn resolve(&mut self) -> Result<Vec<Endpoint>, ResolveError> {
        match self.endpoints.take() {
            Some(endpoints) => Ok(endpoints),
            None => pending().await,
        }
    }
}

/// A list of endpoints that the application sends. Once the sender is dropped, the list does not
/// change.
///
/// ```
/// use net_peers::{Endpoint, WatchResolver};
///
/// let (list, receiver) = tokio::sync::watch::channel(Vec::<Endpoint>::new());
/// let resolver = WatchResolver::new(receiver); // for `PeerPool::follow`
/// list.send_modify(|list| list.push("10.0.0.7:4433".parse().unwrap()));
/// # drop(resolver);
/// ```
#[derive(Debug, Clone)]
pub struct WatchResolver {
    receiver: watch::Receiver<Vec<Endpoint>>,
}

impl WatchResolver {
    /// Creates a resolver that returns the current list, and those that are sent later.
    pub fn new(mut receiver: watch::Receiver<Vec<Endpoint>>) -> Self {
        receiver.mark_changed();
        Self { receiver }
    }
}

#[async_trait]
impl Resolver for WatchResolver {
    async fn resolve(&mut self) -> Result<Vec<Endpoint>, ResolveError> {
        match self.receiver.changed().await {
            Ok(()) => Ok(self.receiver.borrow_and_update().clone()),
            Err(_) => pending().await,
        }
    }
}
