//! `serve`: one task per peer, so that none delays another.

use net_traits::{AcceptError, NetIncomingRequest, NetListener};
use std::sync::Arc;
use tokio::task::{JoinError, JoinSet};

/// Accepts peers until the listener is closed, and calls `handler` with each connection.
///
/// The handshake and the handler of each peer run in a task of their own, so that a peer that stalls
/// delays no other. How many there are is limited by the configuration of the transport. A failed
/// handshake is reported by the transport, in its events and counters. A handler that panics ends its
/// connection only, and is logged as an error.
///
/// Returns why the listener is closed, after all handlers have ended.
///
/// # Cancel safety
///
/// A dropped future ends all handshakes and handlers; the connections that no other task has are closed.
///
/// # Panics
///
/// Outside of a runtime of tokio.
///
/// # Examples
///
/// ```
/// use net_traits::{NetConnection, NetCredential, NetListener, NetTransport, TrustPolicy};
/// use net_traits_test::memory::MemoryNetwork; // or a real transport
/// use std::time::Duration;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// # runtime.block_on(async {
/// let credential = NetCredential::self_signed(TrustPolicy::Any)?; // accepts every peer
/// let network = MemoryNetwork::new(1);
/// let server = network.transport();
/// let listener =
///     server.create_listener("0.0.0.0:0".parse()?, &["echo/1"], credential.clone()).await?;
/// let address = listener.local_addr();
/// let serving = tokio::spawn(async move {
///     net_peers::serve(&listener, async |connection| {
///         while let Ok((message, _)) = connection.recv().await {
///             let _ = connection.send_bytes(message).await; // the peer may be gone
///         }
///     })
///     .await
/// });
///
/// let connection = network.transport().connect(address, &["echo/1"], credential).await?;
/// connection.send(b"hello").await?;
/// assert_eq!(connection.recv().await?.0, "hello");
/// connection.close(0, "").await;
/// server.shutdown(Duration::from_secs(1), "the program ends").await;
/// serving.await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn serve<L, F>(
    listener: &L,
    handler: impl Fn(L::Connection) -> F + Send + Sync + 'static,
) -> AcceptError
where
    L: NetListener,
    F: Future<Output = ()> + Send + 'static,
{
    let handler = Arc::new(handler);
    let mut peers = JoinSet::new();
    let end = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(request) => {
                    let handler = handler.clone();
                    peers.spawn(async move {
                        if let Ok(connection) = request.accept().await {
                            handler(connection).await;
                        }
                    });
                }
                Err(end) => break end,
            },
            Some(served) = peers.join_next() => tell(served),
        }
    };
    while let Some(served) = peers.join_next().await {
        tell(served);
    }
    end
}

fn tell(served: Result<(), JoinError>) {
    if let Err(error) = served {
        tracing::error!(%error, "the handler of a peer ended");
    }
}
