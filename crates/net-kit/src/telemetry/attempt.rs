//! `Attempt`: reports exactly one outcome of each connection attempt.

use super::{Origin, Telemetry, cause};
use crate::admission::eviction::Eviction;
use net_traits::{ConnectError, WithCauses};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// A connection attempt. A failure is reported and counted. Dropping the attempt counts as
/// cancelled.
///
/// ```
/// use net_kit::telemetry::{Origin, Telemetry};
/// use net_traits::ConnectError;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let remote_addr = "192.0.2.1:443".parse().unwrap();
/// let attempt = Telemetry::new("example").attempt(remote_addr, Origin::Dialled);
/// let refused = async { Err::<(), _>(ConnectError::Refused(remote_addr)) };
/// assert!(attempt.watch(refused).await.is_err());
/// # });
/// ```
#[derive(Debug)]
pub struct Attempt {
    telemetry: Telemetry,
    remote: Option<SocketAddr>,
    origin: Origin,
    is_decided: bool,
    /// Its eviction was reported and counted as a refusal.
    eviction: Option<Arc<Eviction>>,
}

impl Attempt {
    pub(super) fn new(telemetry: Telemetry, remote: Option<SocketAddr>, origin: Origin) -> Self {
        Self { telemetry, remote, origin, is_decided: false, eviction: None }
    }

    pub(crate) fn with_eviction(mut self, eviction: Arc<Eviction>) -> Self {
        self.eviction = Some(eviction);
        self
    }

    /// Runs the handshake, and reports and counts its outcome.
    ///
    /// # Cancel safety
    ///
    /// A dropped future drops the handshake, which counts as cancelled.
    pub async fn watch<T>(
        mut self,
        handshake: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let since = Instant::now();
        let done = handshake.await;
        self.is_decided = true;
        match &done {
            Ok(_) => self.telemetry.handshake_took(self.origin, since.elapsed()),
            // The limit was reported and counted as a refusal.
            Err(error) if self.origin == Origin::Accepted && cause::is_limit(error) => {}
            Err(error) => self.failed(&WithCauses(error), cause::of_failure(error)),
        }
        done
    }

    /// Reports that the application rejected the attempt.
    pub fn refused(mut self) {
        self.is_decided = true;
        self.failed(&"rejected by the application", ("refused_by_us", ""));
    }

    fn failed(&self, error: &dyn std::fmt::Display, cause: (&'static str, &'static str)) {
        if self.eviction.as_ref().is_some_and(|eviction| eviction.is_evicted()) {
            return;
        }
        self.telemetry.handshake_failed(self.remote, self.origin, error, cause);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.is_decided {
            self.failed(&"canceled", (cause::CANCELED, ""));
        }
    }
}
