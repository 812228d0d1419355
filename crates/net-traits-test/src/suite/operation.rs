//! Operation of a running transport: statistics, closing connections, and shutdown.

use crate::stage::{
    ALPN, Connected, MOMENT, PAUSE, Pair, Stage, credential, dial, greet, introduce, numbered,
};
use crate::{Harness, Limits};
use futures_util::future::{Either, select};
use net_traits::{
    AcceptError, CloseOutcome, CloseReason, ConnectError, ListenError, NetConnection, NetListener,
    NetTransport, RecvError, SendError, TrustPolicy, close_code,
};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// A transport lists and counts exactly its open connections. The handles are usable.
///
/// Listing a connection does not keep it open.
pub async fn open_connections_are_listed<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, listener: _listener, transports } = stage.meet().await;
    for (transport, peer) in [(&transports[0], &transports[1]), (&transports[1], &transports[0])] {
        let (listed, at_peer) = (transport.connections(), peer.connections());
        assert_eq!((listed.len(), at_peer.len()), (1, 1));
        let identity = listed[0].peer_identity().hash.to_string();
        assert_eq!(identity, at_peer[0].local_identity());
        greet(&listed[0], &at_peer[0]).await;
    }
    one.close(0, "").await;
    other.watch_close().await;
    assert!(transports.iter().all(|transport| transport.connections().is_empty()));
    // Their handles are still held.
    assert!(transports.iter().all(|transport| transport.statistics().connections == 0));

    let Pair { one, other, listener: _listener, transports } = stage.meet().await;
    drop(one);
    assert!(matches!(other.watch_close().await, CloseReason::Peer { code: 0, .. }));
    assert!(transports.iter().all(|transport| transport.connections().is_empty()));
}

/// Closing a peer ends all its connections with the given code and reason, and no other.
pub async fn closing_a_peer_closes_its_connections<H: Harness>(stage: Stage<H>) {
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let (bad, good) = (credential(TrustPolicy::Any), credential(TrustPolicy::Any));
    let meet = |who| introduce::<H>(&dialler, &listener, who);
    let (first, second) = (meet(bad.clone()).await, meet(bad.clone()).await);
    let (good_dialled, good_accepted) = meet(good).await;
    assert_eq!(transport.close_peer(&bad.identity(), 4242, "too noisy"), 2);
    for (dialled, accepted) in [first, second] {
        let reason = "too noisy".to_owned();
        let by_us = CloseReason::Local { code: 4242, reason: reason.clone() };
        assert_eq!(accepted.unwrap().watch_close().await, by_us);
        let by_peer = CloseReason::Peer { code: 4242, reason };
        assert_eq!(dialled.unwrap().watch_close().await, by_peer);
    }
    greet(&good_dialled.unwrap(), &good_accepted.unwrap()).await;
    assert_eq!(transport.close_peer(&bad.identity(), 4242, "too noisy"), 0);
}

/// A transport counts its messages and their bytes, and its open connections.
pub async fn messages_are_counted<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, transports: [dialler, transport], .. } = &stage.meet().await;
    let (sender, receiver) =
        if stage.is_swapped { (transport, dialler) } else { (dialler, transport) };
    for size in [1_000, 20_000] {
        one.send_bytes(numbered(0, size)).await.unwrap();
        other.recv().await.unwrap();
    }
    one.try_send(numbered(0, 100)).unwrap();
    other.recv().await.unwrap();
    let (sent, received) = (sender.statistics(), receiver.statistics());
    assert_eq!((sent.connections, received.connections), (1, 1));
    assert_eq!((sent.messages.messages_sent, sent.messages.bytes_sent), (3, 21_100));
    assert_eq!((sent.messages.messages_received, sent.messages.bytes_received), (0, 0));
    let messages = received.messages;
    assert_eq!((messages.messages_received, messages.bytes_received), (3, 21_100));
    assert_eq!((messages.messages_sent, messages.bytes_sent), (0, 0));
}

/// Attempts beyond a limit are counted.
pub async fn refused_attempts_are_counted<H: Harness>(stage: Stage<H>) {
    let transport = stage.transport_with(Limits { max_connections: 1, ..Limits::default() });
    let dialler = stage.transport();
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let _pair = introduce::<H>(&dialler, &listener, credential(TrustPolicy::Any)).await;
    assert_eq!(transport.statistics().refused_connections, 0);
    let dial = dial::<H>(&dialler, listener.local_addr(), credential(TrustPolicy::Any));
    let counted = async {
        while transport.statistics().refused_connections == 0 {
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        ((), _) = async { tokio::join!(counted, dial) } => {}
        // Some transports refuse when they accept.
        _ = listener.accept() => panic!("the second of one is refused"),
    }
}

/// A receiver counts the announced messages that exceed its limit.
pub async fn messages_over_the_limit_are_counted<H: Harness>(stage: Stage<H>) {
    let transport = stage.transport_with(Limits { max_message_size: 1000, ..Limits::default() });
    let dialler = stage.transport();
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let (dialled, accepted) =
        introduce::<H>(&dialler, &listener, credential(TrustPolicy::Any)).await;
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    dialled.send_bytes(numbered(0, 1001)).await.unwrap();
    accepted.recv().await.unwrap_err();
    assert_eq!(transport.statistics().refused_messages, 1);
    assert_eq!(dialler.statistics().refused_messages, 0);
}

/// Shutdown delivers what was sent, closes with its code and the given reason, and stops the
/// listeners. Nothing can be opened afterwards.
pub async fn shutdown_closes_gracefully<H: Harness>(stage: Stage<H>) {
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let (dialled, accepted) =
        introduce::<H>(&dialler, &listener, credential(TrustPolicy::Any)).await;
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    for number in 0..3 {
        accepted.send_bytes(numbered(number, 10_000)).await.unwrap();
    }
    let accept = async { listener.accept().await.err() };
    let receive = async {
        for expected in 0..3 {
            assert_eq!(crate::stage::number(&dialled.recv().await.unwrap().0), expected);
        }
    };
    let shutdown = transport.shutdown(Duration::from_secs(60), "maintenance");
    let (refused, (), ()) = tokio::join!(accept, receive, shutdown);
    assert_eq!(refused, Some(AcceptError::Closed), "a pending accept ends");
    assert_eq!(listener.accept().await.err(), Some(AcceptError::Closed));
    let (code, reason) = (close_code::SHUTDOWN, "maintenance".to_owned());
    let by_peer = CloseReason::Peer { code, reason: reason.clone() };
    assert_eq!(dialled.recv().await, Err(RecvError::Closed(by_peer)));
    assert_eq!(accepted.watch_close().await, CloseReason::Local { code, reason });

    let address = listener.local_addr();
    assert!(dial::<H>(&dialler, address, credential(TrustPolicy::Any)).await.is_err());
    let elsewhere = stage.transport();
    let listener = stage.listen(&elsewhere, credential(TrustPolicy::Any)).await;
    let dialled = dial::<H>(&transport, listener.local_addr(), credential(TrustPolicy::Any));
    assert!(dialled.await.is_err(), "the transport is shut down");
    let bind_addr = stage.harness.bind_addr();
    let listened = transport.create_listener(bind_addr, &[ALPN], credential(TrustPolicy::Any));
    assert!(listened.await.is_err(), "the transport is shut down");
}

/// Shutdown does not wait beyond its deadline for a peer that accepts no data.
pub async fn shutdown_keeps_its_deadline<H: Harness>(stage: Stage<H>) {
    let limits = Limits { no_progress_timeout: Duration::from_secs(3600), ..Limits::default() };
    let Pair { one, transports, .. } = &stage.meet_with(limits).await;
    fill(one).await;
    transports[usize::from(stage.is_swapped)].shutdown(MOMENT, "now").await;
    let reason = CloseReason::Local { code: close_code::SHUTDOWN, reason: "now".to_owned() };
    assert_eq!(one.watch_close().await, reason);
}

/// Shutdown does not wait beyond its deadline for a handshake in progress, and ends the dial.
///
/// A peer that does not answer must not delay the end of a program.
pub async fn shutdown_does_not_wait_for_handshakes<H: Harness>(stage: Stage<H>) {
    /// Enough that a delay of a few seconds each takes longer than `ROUND_TRIPS`.
    const ROUNDS: usize = 5;
    /// Of another connection, which are as slow as the rounds on a busy machine. All rounds take far fewer.
    const ROUND_TRIPS: usize = 10_000;
    let Pair { one, other, .. } = &stage.meet().await;
    let limits = Limits { handshake_timeout: Duration::from_secs(3600), ..Limits::default() };
    let rounds = async {
        for _ in 0..ROUNDS {
            let transport = stage.transport_with(limits.clone());
            let dialler = stage.transport_with(limits.clone());
            let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
            let dial = dial::<H>(&dialler, listener.local_addr(), credential(TrustPolicy::Any));
            let shutdown = async {
                let request = listener.accept().await.unwrap(); // the application does not accept it
                dialler.shutdown(Duration::ZERO, "dialling").await;
                transport.shutdown(Duration::ZERO, "dialled").await;
                request
            };
            let (dialled, _request) = tokio::join!(dial, shutdown);
            assert!(dialled.is_err(), "the transport is shut down");
        }
    };
    let round_trips = async {
        for _ in 0..ROUND_TRIPS {
            greet(one, other).await;
        }
    };
    tokio::select! {
        () = rounds => {}
        () = round_trips => panic!("the handshakes end with their transports"),
    }
}

/// A shutdown ends the dials in progress at once, and nothing can be opened while it waits for a
/// connection.
pub async fn shutdown_ends_dials_before_it_has_closed<H: Harness>(stage: Stage<H>) {
    const LONG: Duration = Duration::from_secs(3600);
    let (Pair { one, transports: [transport, _], .. }, path) = &stage.meet_over_path().await;
    let elsewhere = stage.transport();
    let listener = stage.listen(&elsewhere, credential(TrustPolicy::Any)).await;
    let dial = || dial::<H>(transport, listener.local_addr(), credential(TrustPolicy::Any));
    let check = |dialled: Connected<H>| match dialled {
        Err(ConnectError::Closed(CloseReason::Local { code: close_code::SHUTDOWN, .. })) => {}
        dialled => panic!("{:?}, but the transport shuts down", dialled.err()),
    };
    let mut dialling = pin!(dial());
    let _request = tokio::select! {
        request = listener.accept() => request.unwrap(), // the application does not accept it
        dialled = &mut dialling => panic!("{:?}, but the listener does not answer", dialled.err()),
    };
    path.interrupt(one.local_addr());
    one.send(b"it is not confirmed").await.unwrap();
    let opened = async {
        check(dialling.await);
        check(dial().await);
        let bind_addr = stage.harness.bind_addr();
        let listened = transport.create_listener(bind_addr, &[ALPN], credential(TrustPolicy::Any));
        let listened = listened.await.map(drop);
        assert!(matches!(listened, Err(ListenError::Transport(_))), "{listened:?}");
    };
    tokio::select! {
        () = opened => {}
        () = transport.shutdown(LONG, "later") => panic!("the shutdown did not wait for the peer"),
    }
}

/// Sends until the peer, which does not read, accepts no more. Returns how many messages were sent.
pub(super) async fn fill(connection: &impl NetConnection) -> u64 {
    let (mut idle, mut sent) = (0, 0);
    for _ in 0..2_000 {
        if idle == 100 {
            break;
        }
        match connection.try_send(numbered(0, 256 * 1024)) {
            Ok(()) => (idle, sent) = (0, sent + 1),
            Err(SendError::WouldBlock) => {
                idle += 1;
                sleep(PAUSE).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    sent
}

/// Handles whose runtime has ended work in another one, or report that their connection has ended,
/// also to pending operations.
///
/// A program may stop a part of itself and keep a handle.
pub async fn handles_outlive_their_runtime<H: Harness>(stage: Stage<H>) {
    let Stage { harness, is_swapped } = &stage;
    let inner = Stage { harness: harness.clone(), is_swapped: *is_swapped };
    let ((made, pair), (stop, stopped)) = (oneshot::channel(), oneshot::channel::<()>());
    let ended = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be started").block_on(async {
            assert!(made.send(inner.meet().await).is_ok());
            let _ = stopped.await;
        });
    });
    let Pair { one, other, listener, .. } = &pair.await.expect("peers connect");
    let waiting = pin!(async {
        let (received, by_one, by_other) =
            tokio::join!(one.recv(), one.watch_close(), other.watch_close());
        let is_same = matches!(&received, Err(RecvError::Closed(reason)) if *reason == by_one);
        assert!(is_same, "{received:?}, {by_one}, {by_other}");
    });
    let works = pin!(async {
        let _ = stop.send(());
        ended.await.expect("the runtime ends");
        one.send(b"hello").await.is_ok() && other.recv().await.is_ok()
    });
    let works = match select(waiting, works).await {
        Either::Left(((), works)) => works.await,
        Either::Right((works, waiting)) => {
            if !works {
                waiting.await;
            }
            works
        }
    };
    if !works {
        for connection in [one, other] {
            let expected = CloseOutcome::AlreadyClosed(connection.watch_close().await);
            let closed = |result| matches!(result, Err(SendError::Closed(_)));
            assert!(
                closed(connection.send(b"more").await) && closed(connection.try_send("".into()))
            );
            assert!(matches!(connection.recv().await, Err(RecvError::Closed(_))));
            let _ = connection.flush().await;
            assert_eq!(connection.close(1, "late").await, expected);
        }
    }
    let dialler = stage.transport();
    let dial = async {
        let dialled = dial::<H>(&dialler, listener.local_addr(), credential(TrustPolicy::Any));
        let _ = dialled.await; // a listener without a runtime may leave it waiting
        std::future::pending().await
    };
    tokio::select! {
        // A request shows that it listens.
        request = listener.accept() => drop(request),
        () = dial => {}
    }
}
