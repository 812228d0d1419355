//! `drive`: msquic inside the application's tokio runtime.

use msquic_async::ExecutionDriver;
use std::io;

/// Runs msquic inside the current tokio runtime, for all transports of the process, for as long as the future is
/// polled; it returns only an error. See [`ExecutionDriver::run`]. *Experimental*; Linux only, with the feature
/// `driver`.
///
/// Install the driver before the first transport is created; afterwards [`ExecutionDriver::install`] fails. Messages
/// then do not pass between threads, which makes a round trip several times faster; see `docs/performance.md`. One
/// thread at a time drives all connections.
///
/// ```no_run
/// use msquic_transport::{ExecutionDriver, MsQuicTransport, drive};
///
/// #[tokio::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     tokio::spawn(drive(ExecutionDriver::install()?));
///     let transport = MsQuicTransport::new();
///     // ...
///     Ok(())
/// }
/// ```
///
/// # Errors
///
/// The operating system cannot wait for events, or start a thread.
///
/// # Panics
///
/// Outside of a tokio runtime, and in one without I/O or time.
///
/// # Cancel safety
///
/// When the future is dropped, for instance with its runtime, a separate thread drives msquic.
pub async fn drive(driver: ExecutionDriver) -> io::Error {
    driver.run().await
}
