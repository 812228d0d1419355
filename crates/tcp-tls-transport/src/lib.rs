//! Messages over **TCP and TLS 1.3**, for networks that block UDP.
//!
//! [`TcpTlsTransport`] implements the traits of [`net_traits`] with the same credentials, the same
//! identities and the same frames as the QUIC transport. The crate net-peers has a
//! transport that dials with QUIC and, after a delay, with this one, and a pool of connections.
//!
//! ```
//! use net_traits::{NetConnection, NetCredential, NetIncomingRequest};
//! use net_traits::{NetListener, NetTransport, TrustPolicy};
//! use tcp_tls_transport::TcpTlsTransport;
//!
//! # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! let transport = TcpTlsTransport::new();
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
//! All operations need a tokio runtime. Compared with QUIC, one stream carries all messages, so a
//! lost packet delays all later messages, and a change of address ends the connection.
//!
//! # Features
//!
//! - `metrics`: counts connections and messages with the facade of the crate `metrics`.
#![forbid(unsafe_code)]

mod backend;
mod config;
mod driver;
mod handshake;
mod link;
mod question;
mod record;
mod requests;

pub use config::TcpTlsConfig;
pub use link::TcpTls;
use net_kit::backend::{Connection, IncomingRequest, Listener, Question, Transport};

/// Messages over TCP and TLS 1.3. Clones share the transport.
pub type TcpTlsTransport = Transport<TcpTls>;
/// A listener of [`TcpTlsTransport`].
pub type TcpTlsListener = Listener<TcpTls>;
/// A connection attempt at a [`TcpTlsListener`].
pub type TcpTlsIncomingRequest = IncomingRequest<TcpTls>;
/// A connection of [`TcpTlsTransport`].
pub type TcpTlsConnection = Connection<TcpTls>;
/// A question of the peer. [`answer`](net_traits::NetQuestion::answer) waits until the system's
/// socket has the answer.
pub type TcpTlsQuestion = Question<TcpTls>;
