//! A peer whose connections are kept for long after their end, with data that it did not acknowledge. Alone in its
//! process, because it measures resident memory.
#![cfg(target_os = "linux")]

mod common;

use common::{ALPN, HANG, listen, resident, run};
use net_traits::{NetConnection, NetIncomingRequest, NetListener};
use quic_attack::{Frame, Identity, Parameters, Peer, Space};
use quinn_transport::QuinnConfig;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

const CONNECTIONS: usize = 20;

const MAX_ACK_DELAY: u64 = 0x0b; // RFC 9000, section 18.2

#[test]
fn data_is_not_kept_for_connections_that_have_ended() {
    run(async {
        let (_transport, listener) = listen(QuinnConfig::new()).await;
        let address = listener.local_addr();
        let before = resident();
        for _ in 0..CONNECTIONS {
            let dial = tokio::task::spawn_blocking(move || {
                let mut parameters = Parameters::generous();
                parameters.set_integer(MAX_ACK_DELAY, 16_383);
                Peer::connect(address, &Identity::new(&[ALPN]), parameters, HANG).unwrap()
            });
            let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
            let (peer, connection) = tokio::join!(dial, accept);
            connection.send(&vec![7; 4 * MIB]).await.unwrap();
            peer.unwrap().send(Space::Data, &[Frame::application_close(0)]).unwrap();
            connection.watch_close().await;
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < CONNECTIONS * 2 * KIB, "{grown} KiB");
    });
}
