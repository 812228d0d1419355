//! Identity-authenticated, framed messages over QUIC.
//!
//! [`MsQuicTransport`] implements the traits of [`net_traits`] on msquic: mutual TLS 1.3 that
//! identifies a peer by the hash of its certificate, and messages of up to
//! [`max_message_size`](MsQuicTransportConfig::max_message_size) bytes with a 4-byte length in
//! front, on unidirectional streams that are opened once and used for many messages.
//!
//! ```
//! use msquic_transport::MsQuicTransport;
//! use net_traits::*;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = NetCredential::self_signed(TrustPolicy::reject_all())?;
//! let client = NetCredential::self_signed(TrustPolicy::hashes([server.identity()]))?;
//! let server = server.with_trust(TrustPolicy::hashes([client.identity()]));
//!
//! let transport = MsQuicTransport::new();
//! let listener = transport.create_listener("127.0.0.1:0".parse()?, &["echo/1"], server).await?;
//! let address = listener.local_addr();
//! // Each peer has its own task, so that a slow handshake delays no other peer.
//! let serving = tokio::spawn(async move {
//!     net_peers::serve(&listener, async |connection| {
//!         while let Ok((message, _elapsed)) = connection.recv().await {
//!             let _ = connection.send_bytes(message).await; // the peer may be gone
//!         }
//!     })
//!     .await
//! });
//!
//! let connection = transport.connect(address, &["echo/1"], client).await?;
//! connection.send(b"hello").await?;
//! assert_eq!(connection.recv().await?.0, "hello");
//! connection.close(0, "done").await;
//! # serving.abort();
//! # Ok(())
//! # }
//! ```
//!
//! Data flow: `send → bounded queue of the stream → msquic`, and on the other side `msquic's thread
//! → frame decoder → bounded inbox → recv`. When the inbox is full, streams are no longer read and
//! QUIC's flow control throttles the sender.
//!
//! It needs a tokio runtime with timers.
//!
//! # Features
//!
//! - `vendored` (default): builds libmsquic from source, with patches, and links it statically; needs
//!   a C compiler, make and perl. `src` and `static` are its former names.
//! - `system`: links an installed libmsquic instead: the prefix in `MSQUIC_DIR`, or what pkg-config
//!   finds. It takes precedence over `vendored`.
//! - `metrics`: counts connections and messages with the facade of the crate `metrics`.
//! - `driver`: `drive` runs msquic inside the application's tokio runtime, so that messages do
//!   not pass between threads. Linux only, experimental.
#![forbid(unsafe_code)]

mod address_validation;
mod certificate;
mod config;
mod connection;
mod context;
mod datagrams;
mod delivery;
#[cfg(all(feature = "driver", target_os = "linux"))]
mod drive;
mod frame_sink;
mod inbound;
mod incoming;
mod inline;
mod lane;
mod linger_thread;
mod listener;
mod probes;
mod quic_settings;
mod registration;
mod request;
mod shared;
mod stream_pool;
mod transport;

use parking_lot as lock;
use std::sync::atomic;

pub use certificate::resolve_bad_certificate;
pub use config::{MsQuicTransportConfig, STREAM_OP_TIMEOUT};
pub use connection::MsQuicNetConnection;
#[cfg(all(feature = "driver", target_os = "linux"))]
pub use drive::drive;
pub use frame_sink::STREAM_CODE_MESSAGE_TOO_LARGE;
pub use incoming::MsQuicNetIncomingRequest;
pub use inline::serve_inline;
pub use listener::MsQuicListener;
#[cfg(all(feature = "driver", target_os = "linux"))]
pub use msquic_async::ExecutionDriver;
pub use msquic_async::{
    CipherSuite, ConnectionStatistics, Dial, ExecutionProfile, KeyLog, LibraryVersion, Settings,
    library_version, set_busy_polling, set_processors,
};
pub use net_kit::quic::CongestionControl;
pub use registration::RegistrationWrapper;
pub use request::MsQuicQuestion;
pub use transport::MsQuicTransport;
