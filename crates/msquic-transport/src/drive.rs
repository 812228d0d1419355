//! `drive`: msquic inside the application's tokio runtime.

use msquic_async::ExecutionDriver;
use std::io;

/// Runs msquic inside the current tokio runtime, for all transports of the process, as long as the future is
/// polled; it ends with an error only. See [`ExecutionDriver::run`]. *Experimental*; Linux only, with the
/// feature `driver`.
///
/// Install the driver before the first transport: later [`ExecutionDriver::install`] is an error. A message
/// then needs no hop to another thread, which makes a round trip several times faster; see
/// `docs/performance.md`. All connections share the one thread that is in a turn.
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
/// When the future is dropped, for instance with its runtime, a thread of its own drives msquic.
pub async fn drive(driver: ExecutionDriver) -> io::Error {
    driver.run().await
}
