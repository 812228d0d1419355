//! Flushes and receipts with a peer of this version, an older one, and one that does not receive.

mod common;

use common::{ALPN, listen, run, trusting};
use futures_util::FutureExt;
use net_kit::frame::encode;
use net_traits::{
    CloseReason, NetConnection, NetIncomingRequest, NetListener, NetTransport, SendError,
};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tcp_tls_transport::{TcpTlsConfig, TcpTlsConnection, TcpTlsTransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;

const MOMENT: Duration = Duration::from_millis(200);

/// Connects a bare TLS peer that offers `alpn`.
async fn raw(alpn: &str) -> (TlsStream<TcpStream>, TcpTlsConnection) {
    let (_, listener) = listen(TcpTlsConfig::default()).await;
    common::raw(&listener, alpn).await
}

async fn pair(config: TcpTlsConfig) -> (TcpTlsConnection, TcpTlsConnection) {
    let (_, listener) = listen(config.clone()).await;
    let transport = TcpTlsTransport::with_config(config).unwrap();
    let dial = transport.connect(listener.local_addr(), &[ALPN], trusting());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial, accept);
    (dialled.unwrap(), accepted)
}

fn frame(message: &'static [u8]) -> Vec<u8> {
    encode(&[message.into()]).unwrap().concat()
}

/// Returns the record of this type and number, as docs/wire-protocol.md specifies it.
fn record(kind: u8, number: [u8; 4]) -> Vec<u8> {
    [&[0xff; 4][..], &[kind], &number].concat()
}

async fn write(peer: &mut TlsStream<TcpStream>, bytes: &[u8]) {
    peer.write_all(bytes).await.unwrap();
    peer.flush().await.unwrap();
}

#[test]
fn a_flush_waits_for_the_confirmation_of_its_probe() {
    run(async {
        let (mut peer, connection) = raw(&format!("{ALPN}+requests/1+receipts/2")).await;
        connection.send(b"hello").await.unwrap();
        let (mut one, mut other) = (pin!(connection.flush()), pin!(connection.flush()));
        let (mut received, mut number) = ([0; 14], [0; 4]);
        tokio::select! {
            flushed = async { tokio::join!(one.as_mut(), other.as_mut()) } => panic!("{flushed:?}"),
            read = peer.read_exact(&mut received) => {
                read.unwrap();
            }
        }
        assert_eq!(received, [frame(b"hello"), vec![0xff, 0xff, 0xff, 0xff, 8]].concat()[..]);
        peer.read_exact(&mut number).await.unwrap();
        write(&mut peer, &record(9, [0xff; 4]).repeat(1000)).await; // of no probe
        assert!(timeout(MOMENT, one.as_mut()).await.is_err());
        write(&mut peer, &record(9, number)).await;
        assert_eq!((one.await, other.await), (Ok(()), Ok(())), "one probe is for both");
        assert_eq!(connection.flush().await, Ok(()), "nothing was sent since");
    });
}

#[test]
fn a_flush_to_an_older_peer_waits_until_messages_are_written() {
    run(async {
        for alpn in [ALPN.to_owned(), format!("{ALPN}+requests/1")] {
            let (mut peer, connection) = raw(&alpn).await;
            connection.send(b"hello").await.unwrap();
            assert_eq!(connection.flush().await, Ok(()));
            connection.send(b"again").await.unwrap();
            let mut received = [0; 18];
            peer.read_exact(&mut received).await.unwrap();
            assert_eq!(received, [frame(b"hello"), frame(b"again")].concat()[..], "no probe");
            write(&mut peer, &record(8, [0; 4])).await;
            let end = connection.watch_close().await;
            assert!(matches!(end, CloseReason::ProtocolViolation(_)), "{end:?}");
        }
    });
}

#[test]
fn a_probe_is_answered_before_the_application_receives() {
    run(async {
        let (mut peer, connection) = raw(&format!("{ALPN}+requests/1+receipts/2")).await;
        write(&mut peer, &[frame(b"hello"), record(8, [1, 2, 3, 4])].concat()).await;
        let mut received = [0; 9];
        peer.read_exact(&mut received).await.unwrap();
        assert_eq!(received, record(9, [1, 2, 3, 4])[..]);
        assert_eq!(connection.recv().await.unwrap().0, "hello");
    });
}

#[test]
fn probes_of_a_peer_that_reads_no_answers_do_not_stop_its_messages() {
    run(async {
        let (mut peer, connection) = raw(&format!("{ALPN}+requests/1+receipts/2")).await;
        for _ in 0..1000 {
            write(&mut peer, &record(8, [1, 2, 3, 4]).repeat(1000)).await;
        }
        write(&mut peer, &frame(b"hello")).await;
        assert_eq!(connection.recv().await.unwrap().0, "hello");
    });
}

#[test]
fn flushes_of_both_sides_with_full_queues_end_once_one_side_receives() {
    run(async {
        let (one, other) = pair(TcpTlsConfig::new().receive_queue(10_000)).await;
        let fill = async |connection: &TcpTlsConnection| {
            for _ in 0..20 {
                connection.send_bytes(vec![7; 1000].into()).await.unwrap();
            }
        };
        tokio::join!(fill(&one), fill(&other));
        let (mut of_one, mut of_other) = (pin!(one.flush()), pin!(other.flush()));
        let both = poll_fn(|context| {
            let is_pending = of_one.as_mut().poll(context).is_pending()
                && of_other.as_mut().poll(context).is_pending();
            assert!(is_pending, "the receive queues are too small");
            Poll::<()>::Pending
        });
        assert!(timeout(MOMENT, both).await.is_err());
        let receive = async |connection: &TcpTlsConnection| {
            for _ in 0..20 {
                connection.recv().await.unwrap();
            }
        };
        let received = async { tokio::join!(receive(&one), receive(&other)) };
        let (of_one, of_other, _) = tokio::join!(of_one, of_other, received);
        assert_eq!((of_one, of_other), (Ok(()), Ok(())));
    });
}

#[test]
fn a_receipt_waits_behind_the_messages_of_its_side() {
    run(async {
        let (one, other) = pair(TcpTlsConfig::new().receive_queue(10_000)).await;
        for _ in 0..20 {
            other.send_bytes(vec![7; 1000].into()).await.unwrap();
        }
        let mut acked = pin!(one.send_acked("hello".into()));
        tokio::select! {
            acked = acked.as_mut() => panic!("{acked:?}"),
            received = other.recv() => assert_eq!(received.unwrap().0, "hello"),
        }
        assert!(timeout(MOMENT, acked.as_mut()).await.is_err(), "the receive queue is full");
        for _ in 0..20 {
            one.recv().await.unwrap();
        }
        assert_eq!(acked.await, Ok(()));
    });
}

#[test]
fn a_dropped_flush_has_no_effect_on_the_messages() {
    run(async {
        let (one, other) = pair(TcpTlsConfig::new().receive_queue(1)).await;
        for _ in 0..20 {
            one.send_bytes(vec![7; 1000].into()).await.unwrap();
            assert!(pin!(one.flush()).now_or_never().is_none());
        }
        for _ in 0..20 {
            assert_eq!(other.recv().await.unwrap().0.len(), 1000);
        }
        assert_eq!(one.flush().await, Ok(()));
    });
}

#[test]
fn a_flush_ends_with_a_close_of_either_side() {
    run(async {
        for is_local in [true, false] {
            let (one, other) = pair(TcpTlsConfig::new().receive_queue(1)).await;
            for _ in 0..20 {
                one.send_bytes(vec![7; 1000].into()).await.unwrap();
            }
            let mut flushed = pin!(one.flush());
            assert!(timeout(MOMENT, flushed.as_mut()).await.is_err());
            let by = if is_local { &one } else { &other };
            by.abort(7, "enough");
            let ended = flushed.await;
            assert!(matches!(ended, Err(SendError::Closed(_))), "{ended:?}");
        }
    });
}

#[test]
fn a_flush_during_a_close_that_delivers_succeeds() {
    run(async {
        let (one, other) = pair(TcpTlsConfig::new().receive_queue(1)).await;
        for _ in 0..20 {
            one.send_bytes(vec![7; 1000].into()).await.unwrap();
        }
        let mut flushed = pin!(one.flush());
        assert!(timeout(MOMENT, flushed.as_mut()).await.is_err());
        let receive = async { while other.recv().await.is_ok() {} };
        let (flushed, outcome, ()) = tokio::join!(flushed, one.close(7, "done"), receive);
        assert!(outcome.is_confirmed(), "{outcome:?}");
        assert_eq!(flushed, Ok(()));
    });
}

#[test]
fn what_a_closing_side_drops_is_undelivered() {
    run(async {
        const COUNT: u8 = 40;
        const QUEUE: usize = 64 * 1024;
        let (receiving, listener) = listen(TcpTlsConfig::new().receive_queue(QUEUE)).await;
        let transport = TcpTlsTransport::new();
        let dial = transport.connect(listener.local_addr(), &[ALPN], trusting());
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (dialled, closer) = tokio::join!(dial, accept);
        let sender = dialled.unwrap();
        for number in 0..COUNT {
            sender.send_bytes(vec![number; 10_000].into()).await.unwrap();
        }
        while receiving.statistics().held_bytes < QUEUE {
            sleep(MOMENT / 10).await; // `run` limits the time
        }
        let (flushed, outcome) = tokio::join!(sender.flush(), closer.close(1, ""));
        assert!(matches!(flushed, Err(SendError::Closed(_))), "{flushed:?}");
        assert!(outcome.is_confirmed(), "{outcome:?}");
        let mut received = 0;
        while let Ok((message, _)) = closer.recv().await {
            assert_eq!(message, [received; 10_000][..], "without a gap");
            received += 1;
        }
        assert!((1..COUNT).contains(&received), "{received} are received");
        drop(sender);
        let undelivered = transport.statistics().undelivered_messages;
        assert!(undelivered >= u64::from(COUNT - received), "{undelivered} are counted");
    });
}
