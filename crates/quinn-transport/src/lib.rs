//! Messages over **QUIC** by quinn and rustls, without a C library.
//!
//! [`QuinnTransport`] implements the traits of [`net_traits`] with the same credentials, identities
//! and wire as msquic-transport; peers of both kinds interoperate.
//!
//! ```
//! use net_traits::{NetConnection, NetCredential, NetIncomingRequest};
//! use net_traits::{NetListener, NetTransport, TrustPolicy};
//! use quinn_transport::QuinnTransport;
//!
//! # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! let transport = QuinnTransport::new();
//! let credential = NetCredential::self_signed(TrustPolicy::Any)?; // for examples only
//! let listener =
//!     transport.create_listener("127.0.0.1:0".parse()?, &["chat/1"], credential.clone()).await?;
//! let accept = async { listener.accept().await?.accept().await.map_err(Box::from) };
//! let dial = transport.connect(listener.local_addr(), &["chat/1"], credential);
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
//! Data flow: `send → bounded queue of a lane → its stream`, and on the other side `stream → frame
//! decoder → bounded inbox → recv`. One task per connection does both. When the inbox is full, it
//! does not read, and QUIC's flow control throttles the sender.
//!
//! All operations need a tokio runtime. All connections that a transport dials share a socket for
//! each address family.
//!
//! # Features
//!
//! - `metrics`: counts connections and messages with the facade of the crate `metrics`.
#![forbid(unsafe_code)]

mod backend;
mod config;
mod drive;
mod handshake;
mod lane;
mod link;
mod request;

pub use config::QuinnConfig;
pub use link::Quinn;
use net_kit::backend::{Connection, IncomingRequest, Listener, Question, Transport};

/// Messages over QUIC by quinn. Clones share the transport.
pub type QuinnTransport = Transport<Quinn>;
/// A listener of [`QuinnTransport`].
pub type QuinnListener = Listener<Quinn>;
/// A connection attempt at a [`QuinnListener`].
pub type QuinnIncomingRequest = IncomingRequest<Quinn>;
/// A connection of [`QuinnTransport`].
pub type QuinnConnection = Connection<Quinn>;
/// A question of the peer. [`answer`](net_traits::NetQuestion::answer) waits until the peer's QUIC
/// has acknowledged the answer.
pub type QuinnQuestion = Question<Quinn>;
