//! Peers that make this side hold datagrams and answers.

mod common;

use common::{ALPN, HANG, dial_quic, listen, run, trusting};
use net_traits::{NetConnection, NetIncomingRequest, NetListener, NetRequests, NetTransport};
use quinn_transport::{QuinnConfig, QuinnConnection, QuinnListener, QuinnTransport};
use std::time::Duration;
use tokio::time::sleep;

const KIB: usize = 1024;

const PAUSE: Duration = Duration::from_millis(1);

struct Hostile {
    transport: QuinnTransport,
    _listener: QuinnListener,
    connection: QuinnConnection,
    peer: quinn::Connection,
}

/// Connects a bare QUIC peer.
async fn hostile_to(config: QuinnConfig) -> Hostile {
    let (transport, listener) = listen(config).await;
    let credential = trusting();
    let dial = dial_quic(listener.local_addr(), ALPN, Some(&credential));
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (peer, connection) = tokio::join!(dial, accept);
    Hostile { transport, _listener: listener, connection, peer: peer.unwrap() }
}

impl Hostile {
    /// Waits until the transport holds so many bytes.
    async fn held(&self, expected: impl Fn(usize) -> bool) {
        while !expected(self.transport.statistics().held_bytes) {
            sleep(PAUSE).await;
        }
    }
}

#[test]
fn datagrams_that_are_not_received_are_charged() {
    run(async {
        let hostile = &hostile_to(QuinnConfig::new()).await;
        let flood = async {
            loop {
                // It fails while the queue of the peer is full.
                let _ = hostile.peer.send_datagram(vec![0; 1000].into());
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = hostile.held(|bytes| bytes >= 60 * KIB) => {}
            () = flood => unreachable!(),
        }
        let datagrams = hostile.connection.datagrams().unwrap();
        let drain = async { while datagrams.recv_datagram().await.is_ok() {} };
        tokio::select! {
            () = hostile.held(|bytes| bytes == 0) => {}
            () = drain => unreachable!("the connection stays"),
        }
    });
}

#[test]
fn an_answer_is_charged_while_it_is_read() {
    run(async {
        let hostile = &hostile_to(QuinnConfig::new()).await;
        let ask = hostile.connection.request("how much?".into(), HANG);
        let answer = async {
            let (mut write, _read) = hostile.peer.accept_bi().await.unwrap();
            write.write_all(&[7; 500 * KIB]).await.unwrap();
            hostile.held(|bytes| bytes >= 500 * KIB).await;
            write.finish().unwrap();
            write.stopped().await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask, answer);
        assert_eq!(answer.unwrap().len(), 500 * KIB);
        assert_eq!(hostile.transport.statistics().held_bytes, 0);
    });
}
