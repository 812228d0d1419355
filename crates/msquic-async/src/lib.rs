//! Event-driven QUIC over Microsoft's msquic, for any executor.
//!
//! msquic works on threads of its own and reports events by callbacks. This crate turns the
//! callbacks into futures that run under tokio, smol, `futures::executor` or any other executor;
//! only the feature `driver` has a function that needs tokio.
//!
//! In reading order:
//!
//! 1. [`Registration`]: the parent of the others. [`Configuration`]: protocols, [`Settings`], and
//!    the certificate of a [`NetCredential`], whose trust policy verifies peers.
//! 2. [`Listener`] and [`Connection`]: mutual TLS 1.3 between peers that know each other's
//!    certificates.
//! 3. [`Stream`], [`ReadStream`], [`WriteStream`]: ordered bytes; [`SendStream`]: messages that are
//!    confirmed one by one. They implement the traits of tokio and of futures-io.
//!
//! # Rules that hold everywhere
//!
//! - **Dropping never blocks and never leaks.** A dropped handle closes its connection, listener or
//!   stream in the background. Handles may be dropped in any order: streams keep their connection
//!   alive, connections and listeners their registration. At the end of the process everything that
//!   is still open is closed, within two seconds.
//! - **Nothing is unbounded**: backlogs, bytes in flight, bytes received and not read have limits.
//! - **Errors come after the data**: what has arrived is delivered before the end is reported.
//! - **Cancel safety is documented**: each function says what happens when its future is dropped.
//!
//! # Features
//!
//! - `vendored` (default): builds libmsquic from source, with patches, and links it into the program; needs a C
//!   compiler, make and perl. `src` and `static` are its former names.
//! - `system`: links an installed libmsquic instead: the prefix in `MSQUIC_DIR`, or what pkg-config finds. See the
//!   crate `libmsquic-sys`.
//! - `driver`: [`ExecutionDriver`], msquic on the application's threads. Linux only, experimental.
#![deny(unsafe_code)]

mod buffer;
mod configuration;
mod connection;
mod coop;
#[cfg(all(feature = "driver", target_os = "linux"))]
mod drive;
// The only module that may contain unsafe code; see its header for the rules.
#[allow(unsafe_code)]
mod ffi;
mod limits;
mod listener;
mod pkcs12;
mod registration;
mod resumption;
mod send_stream;
mod settings;
mod stream;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
mod waiters;
mod waker_check;

use parking_lot as lock;

pub use configuration::{Configuration, ConfigurationError};
pub use connection::{
    AcceptInboundStream, AcceptInboundUniStream, Connection, ConnectionAccept, ConnectionChange,
    ConnectionError, ConnectionStart, ConnectionStatistics, DatagramCounts, DatagramOutcome,
    DgramReceiveError, DgramSendError, Dial, ExportError, NextChange, OpenOutboundStream,
    OpenSendStream, RebindError, ReceiveDatagram, RemoteCertificateReceiver, SendDatagram,
    ShutdownError, StartError as ConnectionStartError, StreamCounts, TrackDatagram, WatchShutdown,
};
pub use ffi::configuration::CipherSuite;
#[cfg(all(feature = "driver", target_os = "linux"))]
pub use ffi::execution::ExecutionDriver;
pub use ffi::library::{
    LibraryVersion, api_table, attempts_without_protocol, library_patches, library_version,
    require_address_validation,
};
pub use ffi::processors::{set_busy_polling, set_processors};
pub use ffi::raw::{FromRaw, TrustedPeers};
pub use ffi::registration::ExecutionProfile;
pub use ffi::settings::CongestionControl;
pub use ffi::status::Status;
pub use libmsquic_sys::Patch as LibraryPatch;
pub use limits::{DatagramLimits, StreamLimits};
pub use listener::{Accept, AcceptIncoming, Incoming, ListenError, Listener, Stop};
pub use net_traits::{CertHash, KeyLog, NetCredential, TrustPolicy};
pub use registration::Registration;
pub use resumption::Resumption;
pub use send_stream::{SendData, SendStream};
pub use settings::Settings;
pub use stream::{
    Enqueue, FinishWrite, Flush, ReadChunk, ReadError, ReadStream, ReadToEndError, ReceiveEnd,
    ReceiveSink, ReceivedReset, SinkStream, StartError as StreamStartError, Stopped, Stream,
    StreamRecvBuffer, StreamType, WriteChunk, WriteChunks, WriteError, WriteStream,
};
