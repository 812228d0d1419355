//! `serve`: accepts connections, each in its own task.

use net_traits::{AcceptError, NetIncomingRequest, NetListener};
use std::sync::Arc;
use tokio::task::{JoinError, JoinSet};

/// Accepts peers until the listener is closed, and calls `handler` with each connection.
///
/// The handshake and the handler of each peer run in their own task, so that a peer that stalls
/// does not delay others. The configuration of the transport limits their number. The transport
/// reports failed handshakes in its events and metrics. A handler that panics ends its own
/// connection only, and is logged as an error.
///
/// Returns the error of the closed listener, after all handlers have ended.
///
/// # Cancel safety
///
/// Dropping the future aborts all handshakes and handlers, which closes the connections that only
/// they use.
///
/// # Panics
///
/// If called outside a tokio runtime.
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
            biased;
            // Each task ends once, so that this does not delay accepting.
            Some(served) = peers.join_next() => log_panic(served),
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
        }
    };
    while let Some(served) = peers.join_next().await {
        log_panic(served);
    }
    end
}

fn log_panic(served: Result<(), JoinError>) {
    if let Err(error) = served {
        tracing::error!(%error, "the handler of a connection panicked");
    }
}
