//! A transport without sockets, over a virtual network with delays and faults from a seed.
//!
//! It fulfils the contracts of the traits and uses tokio's clock only. Under a [paused
//! clock](https://docs.rs/tokio/1/tokio/time/fn.pause.html) an hour of network takes no time. On a
//! current-thread runtime the same seed gives the same run.
//!
//! ```
//! use net_traits::{NetConnection, NetCredential, NetIncomingRequest};
//! use net_traits::{NetListener, NetTransport, TrustPolicy};
//! use net_traits_test::memory::{LinkPlan, MemoryNetwork};
//! use std::time::Duration;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
//! # runtime.block_on(async {
//! let network = MemoryNetwork::new(1);
//! let (alice, bob) = (network.transport(), network.transport());
//! network.set_link(alice.ip(), bob.ip(), LinkPlan::new().latency(Duration::from_millis(5)));
//!
//! let credential = NetCredential::self_signed(TrustPolicy::Any)?;
//! let bind_addr = "0.0.0.0:0".parse()?;
//! let listener = bob.create_listener(bind_addr, &["chat/1"], credential.clone()).await?;
//! let accept = async { listener.accept().await?.accept().await.map_err(Box::from) };
//! let dial = alice.connect(listener.local_addr(), &["chat/1"], credential);
//! let (dialled, accepted) = tokio::join!(dial, accept);
//! let accepted: Result<_, Box<dyn std::error::Error>> = accepted;
//! let (dialled, accepted) = (dialled?, accepted?);
//!
//! dialled.send(b"hello").await?;
//! assert_eq!(accepted.recv().await?.0, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limits
//!
//! A host has the [`Limits`](crate::Limits), also those on connections and attempts in total and per
//! address, so that an application can be tested with diallers that are refused
//! ([`ConnectError::Refused`](net_traits::ConnectError::Refused)). They count for the IP address of a
//! host. At most 256 attempts wait to be accepted at each listener. A connection has one stream in each
//! direction, and therefore no limit on unfinished messages beyond `max_memory` and `message_timeout`.
//!
//! Loss and reordering of packets, which transports hide, and busy processors are not simulated.

mod connection;
mod datagrams;
mod host;
mod link;
mod listener;
mod network;
mod pipe;
mod requests;
mod transport;
mod wire;

pub use connection::{MemoryConnection, MemoryQuestion};
pub use link::LinkPlan;
pub use listener::{MemoryIncomingRequest, MemoryListener};
pub use network::MemoryNetwork;
pub use transport::MemoryTransport;
