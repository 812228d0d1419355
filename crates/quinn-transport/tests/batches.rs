//! A peer that sends batches of datagrams of which only one is for a connection that does not read. Alone in its
//! process, because it measures resident memory.
#![cfg(target_os = "linux")]

mod common;

use common::{ALPN, HANG, listen, resident, run};
use net_traits::{NetIncomingRequest, NetListener, NetTransport};
use quic_attack::{Frame, Identity, Parameters, Peer, Space};
use quinn_transport::QuinnConfig;
use std::thread::sleep;
use std::time::Duration;

const KIB: usize = 1024;

/// The data of a packet, in bytes.
const DATA: usize = 1100;

/// How many packets carry data of each stream: less than its window.
const PACKETS: usize = 250;

const STREAMS: usize = 4;

/// How many other datagrams are in the batch of each of them.
const OTHERS: usize = 50;

/// Sends the data of streams, each packet in a batch with others that are for no connection.
fn send(peer: &mut Peer) {
    let message = [&996_u32.to_be_bytes()[..], &[7; 996]].concat();
    let content = message.repeat(PACKETS * DATA / message.len() + 1);
    for packet in 0..PACKETS {
        for stream in 0..STREAMS {
            let offset = packet * DATA;
            let data = content[offset..][..DATA].to_vec();
            let (stream, offset) = (2 + 4 * stream as u64, offset as u64);
            let frame = Frame::Stream { stream, offset, fin: false, data };
            let real = peer.seal(Space::Data, &[frame]);
            let mut other = real.clone();
            other[1] ^= 1; // in the connection ID
            let mut batch = vec![other; OTHERS + 1];
            batch[packet % OTHERS] = real;
            peer.transmit_batch(0, &batch).unwrap();
            sleep(Duration::from_millis(1)); // or the socket of the victim overflows
        }
    }
}

#[test]
fn batches_of_many_connections_are_not_kept_for_one() {
    run(async {
        let (transport, listener) = listen(QuinnConfig::new().receive_queue(16 * KIB)).await;
        let address = listener.local_addr();
        let dial = tokio::task::spawn_blocking(move || {
            let identity = Identity::new(&[ALPN]);
            Peer::connect(address, &identity, Parameters::generous(), HANG).unwrap()
        });
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (peer, _connection) = tokio::join!(dial, accept);
        let mut peer = peer.unwrap();
        let before = resident();
        tokio::task::spawn_blocking(move || send(&mut peer)).await.unwrap();
        let grown = resident().saturating_sub(before);
        let held = transport.statistics().held_bytes;
        assert!(held >= STREAMS * PACKETS * DATA / 2, "{held} bytes are held");
        assert!(grown < 16 * KIB, "{grown} KiB");
    });
}
