//! Limits and timeouts that hold.

use crate::stage::{PAUSE, Pair, Stage, credential, credentials, dial, greet, introduce, numbered};
use crate::{Harness, Limits};
use net_traits::{ConnectError, NetConnection, NetListener, SendError, TrustPolicy};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Peers beyond the limit of connections are turned away, and there is room again when others have left. Each
/// connection takes memory, and anybody can dial.
pub async fn connections_are_limited<H: Harness>(stage: Stage<H>) {
    let transport = stage.transport_with(Limits { max_connections: 2, ..Limits::default() });
    let dialler = stage.transport();
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let meet = || introduce::<H>(&dialler, &listener, credential(TrustPolicy::Any));
    let (first, second) = (meet().await, meet().await);
    let accept_all = async {
        loop {
            let request = listener.accept().await.unwrap();
            if let Ok(connection) = net_traits::NetIncomingRequest::accept(request).await {
                return connection;
            }
        }
    };
    tokio::pin!(accept_all);
    let address = listener.local_addr();
    let refused = tokio::select! {
        dialled = dial::<H>(&dialler, address, credential(TrustPolicy::Any)) => match dialled {
            Err(error) => Err(error),
            // With TLS 1.3 a dialler may be connected before it is turned away.
            Ok(connection) => {
                tokio::select! {
                    reason = connection.watch_close() => Err(ConnectError::Closed(reason)),
                    _ = &mut accept_all => Ok(()),
                }
            }
        },
        _ = &mut accept_all => Ok(()),
    };
    assert!(refused.is_err(), "the third of two is turned away");
    let (first, second) = ((first.0.unwrap(), first.1.unwrap()), second);
    greet(&first.0, &first.1).await;
    drop(second);
    let again = async {
        loop {
            match dial::<H>(&dialler, address, credential(TrustPolicy::Any)).await {
                Ok(connection) if connection.send(b"hello").await.is_ok() => return connection,
                _ => sleep(PAUSE).await, // it may take a moment until the place is free
            }
        }
    };
    let (_dialled, accepted) = tokio::join!(again, accept_all);
    assert_eq!(accepted.recv().await.unwrap().0, "hello");
}

/// A handshake that nobody finishes ends with a typed error that says after how long. Peers vanish in the middle of it,
/// or never meant to finish.
pub async fn a_handshake_ends_in_time<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let after = Duration::from_millis(400);
    let transport = stage.transport();
    let dialler = stage.transport_with(Limits { handshake_timeout: after, ..Limits::default() });
    let listener = stage.listen(&transport, for_listener).await;
    let address = listener.local_addr();
    let dial = dial::<H>(&dialler, address, for_dialler);
    let both = async { tokio::join!(dial, listener.accept()) };
    // Far more than it takes, and less than what it takes without that limit.
    let (dialled, _held) = timeout(Limits::default().handshake_timeout / 2, both)
        .await
        .expect("the handshake ends when its time is up");
    let error = dialled.expect_err("nobody finishes the handshake");
    assert_eq!(error, ConnectError::TimedOut { remote_addr: address, after });
    assert!(error.is_retryable());
}

/// Sending to a peer that takes nothing ends with a typed error that says after how long; the message was not sent, and
/// the connection goes on. A peer that takes nothing must not keep those that send to it.
pub async fn sending_to_a_stuck_peer_ends_in_time<H: Harness>(stage: Stage<H>) {
    let after = Duration::from_millis(400);
    let limits = Limits { no_progress_timeout: after, ..Limits::default() };
    let Pair { one, other, .. } = &stage.meet_with(limits).await;
    let mut sent = 0;
    let error = loop {
        match one.send_bytes(numbered(sent, 256 * 1024)).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::TimedOut { after });
    assert!(error.is_retryable());
    for expected in 0..sent {
        assert_eq!(crate::stage::number(&other.recv().await.unwrap().0), expected);
    }
    greet(one, other).await;
}
