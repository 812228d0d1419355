//! The shutdown of a transport, after which nothing can be opened.

use super::{Member, Registry};
use futures_util::future::join_all;
use net_traits::{CloseReason, ConnectError, close_code};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

impl<M: Member> Registry<M> {
    /// Closes all connections with [`SHUTDOWN`](close_code::SHUTDOWN): gracefully within
    /// `deadline`, then immediately. `stop` runs first and stops the listeners.
    ///
    /// # Cancel safety
    ///
    /// A dropped future immediately closes the connections that were sending queued messages.
    pub async fn shutdown(&self, deadline: Duration, reason: &str, stop: impl Future<Output = ()>) {
        self.is_shut_down.send_replace(true);
        let graceful = async {
            stop.await;
            let live = self.live();
            join_all(live.iter().map(|member| member.close(close_code::SHUTDOWN, reason))).await;
        };
        let _ = timeout(deadline, graceful).await; // the remaining connections are closed below
        self.live().iter().for_each(|member| member.abort(close_code::SHUTDOWN, reason));
    }

    /// Returns whether [`shutdown`](Self::shutdown) was called.
    pub fn is_shut_down(&self) -> bool {
        *self.is_shut_down.borrow()
    }

    /// Checks that [`shutdown`](Self::shutdown) was not called.
    ///
    /// # Errors
    ///
    /// The reason for which nothing can be opened any more.
    pub fn check_open(&self) -> Result<(), CloseReason> {
        if self.is_shut_down() { Err(shutdown_reason()) } else { Ok(()) }
    }

    /// Runs a dial, at most for the handshake timeout `after`, and until
    /// [`shutdown`](Self::shutdown) is called. Then the dial is dropped.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] of the dial, [`TimedOut`](ConnectError::TimedOut), or
    /// [`Closed`](ConnectError::Closed) after a shutdown.
    ///
    /// # Cancel safety
    ///
    /// That of the dial.
    pub async fn dial<T>(
        &self,
        remote_addr: SocketAddr,
        after: Duration,
        dial: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let dialled = self.unless_shut_down(timeout(after, dial)).await;
        dialled
            .map_err(ConnectError::Closed)?
            .map_err(|_| ConnectError::TimedOut { remote_addr, after })?
    }

    /// Waits for `operation`, which opens something, until [`shutdown`](Self::shutdown) is called. Then
    /// the operation is dropped.
    ///
    /// # Errors
    ///
    /// The reason for which nothing can be opened any more.
    ///
    /// # Cancel safety
    ///
    /// That of the operation.
    pub async fn unless_shut_down<F: Future>(
        &self,
        operation: F,
    ) -> Result<F::Output, CloseReason> {
        tokio::select! {
            biased;
            () = self.shut_down() => Err(shutdown_reason()),
            output = operation => Ok(output),
        }
    }

    /// Waits until [`shutdown`](Self::shutdown) is called.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn shut_down(&self) {
        let mut is_shut_down = self.is_shut_down.subscribe();
        let _ = is_shut_down.wait_for(|is_shut_down| *is_shut_down).await; // `self` owns the sender
    }
}

/// Returns why nothing can be opened after a shutdown.
fn shutdown_reason() -> CloseReason {
    let reason = "the transport is shut down".to_owned();
    CloseReason::Local { code: close_code::SHUTDOWN, reason }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{connect, peer, registry};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shutdown_closes_gracefully_until_the_deadline_and_then_immediately() {
        let registry = registry();
        let graceful = connect(&registry, &peer(), 0, false);
        let stuck = connect(&registry, &peer(), 0, true);
        let (waits, deadline) = (registry.shut_down(), Duration::from_secs(3));
        let ((), ()) = tokio::join!(waits, registry.shutdown(deadline, "bye", async {}));
        let end = Some((close_code::SHUTDOWN, "bye".to_owned()));
        assert_eq!((&*graceful.ended.lock(), &*stuck.ended.lock()), (&end, &end));
        assert!(connect(&registry, &peer(), 0, false).has_ended(), "the transport is shut down");
    }
}
