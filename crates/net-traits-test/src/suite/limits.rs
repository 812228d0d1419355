//! Limits and timeouts.

use crate::stage::{
    PAUSE, Pair, Stage, credential, credentials, dial, greet, introduce, numbered, pattern,
};
use crate::{Harness, Limits};
use futures_util::future::{Either, join, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use net_traits::{
    CloseOutcome, CloseReason, ConnectError, Limit, NetConnection, NetIncomingRequest, NetListener,
    NetQuestion, NetRequests, NetTransport, RecvError, RequestError, SendError, TrustPolicy,
    close_code, request_code,
};
use std::pin::pin;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Connection attempts over the limit are rejected, until other connections are closed.
///
/// Each connection takes memory, and every host can dial.
pub async fn connections_are_limited<H: Harness>(stage: Stage<H>) {
    let transport = stage.transport_with(Limits { max_connections: 2, ..Limits::default() });
    let dialler = stage.transport();
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let meet = || introduce::<H>(&dialler, &listener, credential(TrustPolicy::Any));
    let (first, second) = (meet().await, meet().await);
    let accept_all = async {
        loop {
            let request = listener.accept().await.unwrap();
            if let Ok(connection) = request.accept().await {
                return connection;
            }
        }
    };
    tokio::pin!(accept_all);
    let address = listener.local_addr();
    let refused = tokio::select! {
        dialled = dial::<H>(&dialler, address, credential(TrustPolicy::Any)) => match dialled {
            Err(error) => Err(error),
            // With TLS 1.3 a dialler may be connected before it is rejected.
            Ok(connection) => {
                tokio::select! {
                    reason = connection.watch_close() => Err(ConnectError::Closed(reason)),
                    _ = &mut accept_all => Ok(()),
                }
            }
        },
        _ = &mut accept_all => Ok(()),
    };
    assert!(refused.is_err(), "the third of two is rejected");
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

/// Over the limit of an identity, its newest connection replaces its oldest, whose peer gets the
/// code.
///
/// A peer that restarted dials again, and must not be locked out by the connections of its earlier
/// process.
pub async fn the_newest_connection_of_an_identity_replaces_the_oldest<H: Harness>(stage: Stage<H>) {
    let limits = Limits { max_connections_per_identity: 1, ..Limits::default() };
    let (transport, dialler) = (stage.transport_with(limits), stage.transport());
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let meet = |who| introduce::<H>(&dialler, &listener, who);
    let peer = credential(TrustPolicy::Any);
    let (oldest, _held) = meet(peer.clone()).await;
    let other = meet(credential(TrustPolicy::Any)).await;
    let newest = meet(peer).await;
    let reason = oldest.unwrap().watch_close().await;
    let code = Limit::PerIdentity.code();
    assert!(matches!(reason, CloseReason::Peer { code: it, .. } if it == code), "{reason}");
    assert_eq!(transport.statistics().refused_per_identity, 1);
    for (dialled, accepted) in [newest, other] {
        greet(&dialled.unwrap(), &accepted.unwrap()).await;
    }
}

/// The newest connection of an identity is the one whose handshake began last, whichever ends first.
///
/// Handshakes run side by side. A peer that dials again would be disconnected if its earlier handshake ended later
/// and replaced the later one.
pub async fn the_newest_connection_is_the_one_whose_handshake_began_last<H: Harness>(
    stage: Stage<H>,
) {
    let limits = Limits { max_connections_per_identity: 1, ..Limits::default() };
    let (transport, dialler) = (stage.transport_with(limits), stage.transport());
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let peer = credential(TrustPolicy::Any);
    let dial = || dial::<H>(&dialler, listener.local_addr(), peer.clone());
    let meet = async |dialled| match select(dialled, pin!(listener.accept())).await {
        Either::Left(_) => panic!("a dial ended before it was accepted"),
        Either::Right((request, dialled)) => (request.unwrap(), dialled),
    };
    let (earlier_request, earlier) = meet(Box::pin(dial())).await;
    let (later_request, later) = meet(Box::pin(dial())).await;
    let (later, accepted) = join(later, later_request.accept()).await;
    let (earlier, _held) = join(earlier, earlier_request.accept()).await;
    let reason = match earlier {
        Ok(earlier) => earlier.watch_close().await,
        Err(ConnectError::Closed(reason)) => reason,
        Err(error) => panic!("{error}"),
    };
    let code = Limit::PerIdentity.code();
    assert!(matches!(reason, CloseReason::Peer { code: it, .. } if it == code), "{reason}");
    assert_eq!(transport.statistics().refused_per_identity, 1);
    greet(&later.unwrap(), &accepted.unwrap()).await;
}

/// An unfinished handshake ends with a typed error that contains the timeout.
///
/// Peers may disappear during the handshake, or stall it on purpose.
pub async fn a_handshake_times_out<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let after = Duration::from_millis(400);
    let transport = stage.transport();
    let dialler = stage.transport_with(Limits { handshake_timeout: after, ..Limits::default() });
    let listener = stage.listen(&transport, for_listener).await;
    let address = listener.local_addr();
    let dial = dial::<H>(&dialler, address, for_dialler);
    let both = async { tokio::join!(dial, listener.accept()) };
    // Far longer than it takes with the limit, and shorter than without it.
    let (dialled, _held) = timeout(Limits::default().handshake_timeout / 2, both)
        .await
        .expect("the handshake ends after its timeout");
    let error = dialled.expect_err("the handshake is not finished");
    assert_eq!(error, ConnectError::TimedOut { remote_addr: address, after });
    assert!(error.is_retryable());
}

/// Sending to a peer that does not read ends with a typed error that contains the timeout.
///
/// The message was not sent, and the connection remains usable. A stuck peer must not block its
/// senders.
pub async fn sending_to_a_stuck_peer_times_out<H: Harness>(stage: Stage<H>) {
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

/// An operation ends after its total time, with a typed error that contains it, however long the
/// peer may make no progress.
///
/// A peer that takes a byte now and then makes progress, but must not block a sender forever. `close`
/// then returns how many messages the peer may not have received.
pub async fn an_operation_ends_after_its_total_time<H: Harness>(stage: Stage<H>) {
    let after = Duration::from_millis(400);
    let limits = Limits {
        no_progress_timeout: Duration::from_secs(3600),
        operation_timeout: after,
        ..Limits::default()
    };
    let Pair { one, other, .. } = &stage.meet_with(limits).await;
    let mut sent = 0;
    let error = loop {
        match one.send_bytes(numbered(sent, 256 * 1024)).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::TimedOut { after });
    match one.flush().await {
        Ok(()) => {} // the peer's transport has all
        error => assert_eq!(error, Err(SendError::TimedOut { after })),
    }
    let lost = match one.close(7, "").await {
        CloseOutcome::Undelivered { messages, .. } => messages,
        outcome => {
            assert!(outcome.is_confirmed(), "{outcome:?}");
            0
        }
    };
    assert!(matches!(one.watch_close().await, CloseReason::Local { code: 7, .. }));
    let mut received = 0;
    while other.recv().await.is_ok() {
        received += 1;
    }
    let is_complete =
        received + lost >= u64::from(sent) || !stage.harness.keeps_what_is_acknowledged();
    assert!(is_complete, "{received} of {sent} arrived, {lost} were reported");
}

/// A message whose rest does not arrive in time ends its connection with the code.
///
/// Its bytes occupy memory, and the peer may never send the rest.
pub async fn an_unfinished_message_times_out<H: Harness>(stage: Stage<H>) {
    let after = Duration::from_millis(400);
    let transport = stage.transport_with(Limits { message_timeout: after, ..Limits::default() });
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let (mut peer, connection) = stage.meet_raw(&listener).await;
    peer.write(&10_u32.to_be_bytes()).await;
    peer.write(b"half").await;
    let reason = ended(&connection).await;
    assert_eq!(reason, close_reason(Limit::MessageTimeout));
    assert_eq!(transport.statistics().refused_message_timeout, 1);
    assert_eq!(transport.statistics().held_bytes, 0);
}

/// A peer that announces one message over the limit after the other is disconnected with the code.
///
/// Each of them costs a stream or skipped data, and an error that the application has to handle.
pub async fn a_peer_that_keeps_announcing_too_much_is_disconnected<H: Harness>(stage: Stage<H>) {
    /// More than a transport should forgive.
    const FAR_TOO_MANY: usize = 1000;
    let limit = 2000;
    let (transport, dialler) = (
        stage.transport_with(Limits { max_message_size: limit, ..Limits::default() }),
        stage.transport(),
    );
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let (dialled, accepted) =
        introduce::<H>(&dialler, &listener, credential(TrustPolicy::Any)).await;
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    let announce = async {
        // The receiver may stop the stream of a message, which the sender then replaces.
        while !matches!(dialled.send_bytes(pattern(limit + 1)).await, Err(SendError::Closed(_))) {}
        std::future::pending().await
    };
    let receive = async {
        for _ in 0..FAR_TOO_MANY {
            match accepted.recv().await {
                Err(RecvError::TooLarge { .. }) => {}
                Err(RecvError::Closed(reason)) => return reason,
                received => panic!("{received:?} is over the limit"),
            }
        }
        panic!("{FAR_TOO_MANY} messages over the limit are forgiven")
    };
    let reason = tokio::select! {
        reason = announce => reason,
        reason = receive => reason,
    };
    let code = close_code::TOO_MANY_VIOLATIONS;
    assert!(matches!(reason, CloseReason::Local { code: it, .. } if it == code), "{reason}");
}

/// A question whose rest does not arrive in time is refused with the code if it has its own stream,
/// and the connection remains usable; otherwise its connection ends with the code.
///
/// Its bytes occupy memory, and the application waits for the rest.
pub async fn an_unfinished_question_times_out<H: Harness>(stage: Stage<H>) {
    let after = Duration::from_millis(400);
    let transport = stage.transport_with(Limits { message_timeout: after, ..Limits::default() });
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let (mut peer, connection) = stage.meet_raw(&listener).await;
    let read = async {
        let mut question = connection.accept_request().await?;
        question.question().await
    };
    let refused = {
        let (begin, read) = (peer.begin_question(b"wh"), pin!(read));
        match select(begin, read).await {
            Either::Left((code, read)) => (code, read.await),
            Either::Right((Err(error @ RequestError::Unsupported), _)) => (None, Err(error)),
            Either::Right((read, begin)) => (begin.await, read),
        }
    };
    match refused {
        (Some(code), Err(error)) => {
            assert_eq!((code, error), (request_code::TOO_SLOW, RequestError::TimedOut { after }));
            peer.write(&[&4_u32.to_be_bytes()[..], b"next"].concat()).await;
            assert_eq!(connection.recv().await.unwrap().0, "next", "the connection remains usable");
        }
        (None, Err(RequestError::Closed(reason))) => {
            assert_eq!(reason, close_reason(Limit::MessageTimeout));
        }
        (None, Err(RequestError::Unsupported)) => {}
        refused => panic!("{refused:?}"),
    }
    assert_eq!(transport.statistics().held_bytes, 0);
}

/// When the memory for received messages is used up, the connection that occupies most ends with
/// the code, and the others remain usable.
///
/// Otherwise a few peers could occupy all memory with messages that they do not finish.
pub async fn the_connection_that_holds_most_memory_is_ended<H: Harness>(stage: Stage<H>) {
    const KIB: usize = 1024;
    /// Even while they grow, when they are copied and count twice, the others hold less.
    const LARGEST: usize = 600 * KIB;
    const OTHER: usize = 200 * KIB;
    let limits = Limits { max_memory: 2 * KIB * KIB, ..Limits::default() };
    let (transport, dialler) = (stage.transport_with(limits), stage.transport());
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let (honest, accepted) =
        introduce::<H>(&dialler, &listener, credential(TrustPolicy::Any)).await;
    let (honest, accepted) = (honest.unwrap(), accepted.unwrap());
    let (mut hoarders, mut expected) = (FuturesUnordered::new(), 0);
    let ended = loop {
        assert!(hoarders.len() < 20, "{expected} bytes are held");
        let size = if hoarders.is_empty() { LARGEST } else { OTHER };
        let (mut peer, connection) = stage.meet_raw(&listener).await;
        hoarders.push(async move {
            let write = async {
                peer.write(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes()).await;
                peer.write(&vec![1; size - 1]).await; // the connection may end meanwhile
                std::future::pending().await
            };
            tokio::select! {
                reason = ended(&connection) => (size, reason),
                never = write => never,
            }
        });
        expected += size - 1;
        let are_held = async {
            while transport.statistics().held_bytes < expected {
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            ended = hoarders.next() => break ended,
            () = are_held => {}
        }
    };
    assert_eq!(ended, Some((LARGEST, close_reason(Limit::Memory))));
    let message = numbered(7, 64 * KIB);
    let (sent, received) = tokio::select! {
        both = join(honest.send_bytes(message.clone()), accepted.recv()) => both,
        ended = hoarders.next() => panic!("{ended:?} too"),
    };
    assert_eq!((sent, received.map(|(received, _)| received)), (Ok(()), Ok(message)));
    let statistics = transport.statistics();
    assert_eq!(statistics.refused_memory, 1);
    assert!(statistics.held_bytes <= 2 * KIB * KIB);
}

fn close_reason(limit: Limit) -> CloseReason {
    let reason = close_code::name(limit.code()).unwrap_or_default().to_owned();
    CloseReason::Local { code: limit.code(), reason }
}

/// Receives until the connection ends, and returns the reason.
async fn ended(connection: &impl NetConnection) -> CloseReason {
    while !matches!(connection.recv().await, Err(RecvError::Closed(_))) {}
    connection.watch_close().await
}
