//! Datagrams: what the suite of the traits cannot see.

mod common;

use common::{HANG, listen, raw, run, trusting};
use net_traits::{
    DatagramError, NetConnection, NetDatagrams, NetIncomingRequest, NetListener, NetTransport,
};
use quinn_transport::{QuinnConfig, QuinnConnection, QuinnTransport};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Connects two transports with these configurations.
async fn pair(dialler: QuinnConfig, listener: QuinnConfig) -> (QuinnConnection, QuinnConnection) {
    let (_, listener) = listen(listener).await;
    let dialler = QuinnTransport::with_config(dialler).unwrap();
    let dial = dialler.connect(listener.local_addr(), &[common::ALPN], trusting());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial, accept);
    (dialled.unwrap(), accepted)
}

/// Receives what waits, until `last` arrives.
async fn drain(datagrams: &dyn NetDatagrams, last: &[u8]) -> usize {
    let mut count = 0;
    while datagrams.recv_datagram().await.unwrap() != last {
        count += 1;
    }
    count
}

#[test]
fn what_is_not_received_is_bounded_in_bytes_and_in_number() {
    run(async {
        let (peer, connection) = raw(QuinnConfig::new().datagram_queue(10_000)).await;
        let datagrams = connection.datagrams().unwrap();
        for size in [1, 2, 100, 1000] {
            let before = datagrams.datagram_statistics().arrived;
            while datagrams.datagram_statistics().arrived < before + 1000 {
                for _ in 0..20 {
                    // The first byte is that of the application.
                    peer.send_datagram(vec![0; size].into()).unwrap();
                }
                sleep(Duration::from_millis(1)).await;
            }
            let left = async {
                loop {
                    let _ = peer.send_datagram(b"\0last".as_slice().into());
                    sleep(Duration::from_millis(1)).await;
                }
            };
            let count = tokio::select! {
                count = drain(datagrams, b"last") => count,
                () = left => unreachable!(),
            };
            assert!(count <= 10_000 / size, "{count} of {size} bytes");
            assert!(count <= 10_000 / 8, "{count} of {size} bytes");
        }
        connection.close(0, "").await;
    });
}

#[test]
fn what_is_not_of_the_application_is_ignored() {
    run(async {
        let (peer, connection) = raw(QuinnConfig::new()).await;
        let datagrams = connection.datagrams().unwrap();
        let send = async {
            loop {
                for datagram in [&b""[..], b"\x01other", b"\xff", b"\0mine"] {
                    peer.send_datagram(datagram.into()).unwrap();
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            received = datagrams.recv_datagram() => assert_eq!(received.unwrap(), "mine"),
            () = send => unreachable!(),
        }
        let counted = datagrams.datagram_statistics();
        assert!(counted.received == 1 && counted.arrived >= 1, "{counted:?}");
    });
}

#[test]
fn a_full_queue_is_an_error_and_drops_nothing() {
    // On one thread, nothing is sent meanwhile.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let config = |queue| QuinnConfig::new().datagram_queue(queue);
        let (one, other) = pair(config(10_000), config(1_000_000)).await;
        let (sender, receiver) = (one.datagrams().unwrap(), other.datagrams().unwrap());
        let mut sent: u64 = 0;
        let full = loop {
            match sender.send_datagram(sent.to_be_bytes().to_vec().into()) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full, DatagramError::WouldBlock);
        assert!((10..1000).contains(&sent), "{sent}");
        assert_eq!(sender.datagram_statistics().sent, sent);
        assert_eq!(receiver.recv_datagram().await.unwrap(), &0_u64.to_be_bytes()[..]);
        one.send(b"goes on").await.unwrap();
        assert_eq!(other.recv().await.unwrap().0, "goes on");
    };
    runtime.block_on(async { timeout(HANG, test).await.expect("the test hangs") });
}

#[test]
fn without_a_queue_there_are_no_datagrams() {
    run(async {
        let (one, other) = pair(QuinnConfig::new(), QuinnConfig::new().datagram_queue(0)).await;
        assert_eq!(other.datagrams().err(), Some(DatagramError::Unsupported));
        let datagrams = one.datagrams().unwrap();
        assert_eq!(datagrams.max_datagram_size(), None);
        let refused = datagrams.send_datagram("no".into());
        assert_eq!(refused, Err(DatagramError::Unsupported));
        one.send(b"hello").await.unwrap();
        assert_eq!(other.recv().await.unwrap().0, "hello");
    });
}

#[test]
fn a_datagram_fits_into_the_smallest_queue() {
    run(async {
        let config = || QuinnConfig::new().datagram_queue(1);
        let (one, other) = pair(config(), config()).await;
        let (sender, receiver) = (one.datagrams().unwrap(), other.datagrams().unwrap());
        let largest = sender.max_datagram_size().unwrap();
        let send = async {
            loop {
                match sender.send_datagram(vec![7; largest].into()) {
                    Ok(()) | Err(DatagramError::WouldBlock) => {} // earlier ones are not sent yet
                    Err(error) => panic!("{error}"),
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            received = receiver.recv_datagram() => assert_eq!(received.unwrap().len(), largest),
            () = send => unreachable!(),
        }
    });
}
