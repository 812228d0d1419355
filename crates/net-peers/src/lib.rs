//! Connections with **many peers**, over any transport of [`net_traits`].
//!
//! - [`PeerPool`]: connections by identity, dialled on demand and redialled when they break.
//!   [`PeerPool::recv`] returns the messages of all peers, and [`PeerEvents`] those that were not
//!   delivered. [`PeerPool::broadcast`] sends one payload to many peers. [`PeerPool::follow`]
//!   connects to the peers that a [`Resolver`] lists.
//! - [`serve`]: accepts connections, each in its own task.
//! - [`FallbackTransport`]: dials with a primary transport, and with a secondary one if the primary
//!   does not reach the peer.
//!
//! ```
//! use net_peers::{PeerEvent, PeerPool, PeerPoolConfig};
//! use net_traits::{NetConnection, NetCredential, NetIncomingRequest};
//! use net_traits::{NetListener, NetTransport, TrustPolicy};
//! use net_traits_test::memory::MemoryNetwork; // or a real transport
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
//! # runtime.block_on(async {
//! let network = MemoryNetwork::new(1);
//! // Accepts every peer: for examples only.
//! let peer = NetCredential::self_signed(TrustPolicy::Any)?;
//! let listener =
//!     network.transport().create_listener("0.0.0.0:0".parse()?, &["chat/1"], peer.clone()).await?;
//!
//! let credential = NetCredential::self_signed(TrustPolicy::hashes([peer.identity()]))?;
//! let (pool, mut events) =
//!     PeerPool::new(network.transport(), &["chat/1"], credential, PeerPoolConfig::new())?;
//! pool.send(peer.identity(), listener.local_addr(), "hello".into())?;
//!
//! let connection = listener.accept().await?.accept().await?;
//! assert_eq!(connection.recv().await?.0, "hello");
//! connection.send(b"welcome").await?;
//! assert_eq!(pool.recv().await, (peer.identity(), "welcome".into()));
//!
//! drop((listener, connection));
//! let absent = "10.0.0.9:1".parse()?;
//! pool.send(peer.identity(), absent, "are you there?".into())?;
//! pool.remove(peer.identity());
//! while let Some(event) = events.recv().await {
//!     if let PeerEvent::Undelivered(report) = event {
//!         assert_eq!(report.peer, peer.identity());
//!         if report.message == "are you there?" {
//!             break;
//!         }
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! All operations need a tokio runtime with timers.
//!
//! # Features
//!
//! - `dns`: `DnsResolver`, the addresses of peers from A, AAAA and SRV records.
//! - `metrics`: metrics of pools and dials, by the facade of the crate `metrics`.
#![forbid(unsafe_code)]

mod fallback;
mod pool;
mod recheck;
mod resolver;
mod serve;
mod streams;

pub use fallback::{
    FallbackConfig, FallbackConnection, FallbackIncomingRequest, FallbackListener,
    FallbackQuestion, FallbackTransport,
};
pub use pool::{
    Broadcast, DropError, Follow, PeerEvent, PeerEvents, PeerPool, PeerPoolConfig, QueueError,
    Undelivered, Unsent,
};
#[cfg(feature = "dns")]
pub use resolver::DnsResolver;
pub use resolver::{
    Endpoint, FileResolver, ParseEndpointError, ResolveError, Resolver, StaticResolver,
    WatchResolver,
};
pub use serve::serve;
pub use streams::{MessageSink, MessageStream};
