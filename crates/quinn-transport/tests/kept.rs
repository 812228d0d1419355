//! A peer whose connections quinn keeps for long after their end, so that they count for its address.

mod common;

use common::{ALPN, HANG, dial_quic, listen, run, trusting};
use net_traits::{NetIncomingRequest, NetListener, NetTransport};
use parking_lot::Mutex;
use quic_attack::{Frame, Identity, Parameters, Peer, Space};
use quinn::VarInt;
use quinn_transport::{QuinnConfig, QuinnListener, QuinnTransport};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::sleep;

/// Writes a log into a vector.
struct Log(&'static Mutex<Vec<u8>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn connections_that_quinn_keeps_for_long_count_for_their_address() {
    static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log(&LINES)).init();
    run(async {
        let config = QuinnConfig::new().max_connections(20).max_connections_per_ip(15);
        let (transport, listener) = listen(config).await;
        let address = listener.local_addr();
        let dial = async {
            leave_kept(address, 21).await;
            let credential = trusting();
            while transport.statistics().refused_per_ip == 0 {
                // The address is proved by a Retry, until its limit is reached.
                if let Ok(peer) = dial_quic(address, ALPN, Some(&credential)).await {
                    peer.close(VarInt::from_u32(0), b"");
                }
            }
        };
        tokio::select! {
            () = dial => {}
            () = accept_all(&listener) => {}
        }
    });
    let log = String::from_utf8(LINES.lock().clone()).unwrap();
    let expected = ["WARN", "net::limit", "ended connections occupy memory", "connections=2"];
    let is_it = |line: &str| expected.iter().all(|part| line.contains(part));
    assert!(log.lines().any(is_it), "{log}");
}

#[test]
fn connections_of_another_listener_do_not_hide_those_that_quinn_keeps() {
    run(async {
        let (transport, listener) = listen(QuinnConfig::new().max_connections(20)).await;
        let here = "127.0.0.1:0".parse().unwrap();
        let other = transport.create_listener(here, &[ALPN], trusting()).await.unwrap();
        let (dialler, mut open) = (QuinnTransport::new(), Vec::new());
        for _ in 0..10 {
            let dial = dialler.connect(other.local_addr(), &[ALPN], trusting());
            let accept = async { other.accept().await.unwrap().accept().await };
            open.push(tokio::try_join!(dial, accept).unwrap());
        }
        let address = listener.local_addr();
        let dial = async {
            leave_kept(address, 21).await;
            // The last ones may not have ended yet.
            for _ in 0..8 {
                if gets_retry(address).await {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
            panic!("the listener does not know that too many are kept");
        };
        tokio::select! {
            () = dial => {}
            () = accept_all(&listener) => {}
            () = accept_all(&other) => {}
        }
    });
}

/// Opens and closes connections that quinn then keeps for long.
async fn leave_kept(address: SocketAddr, count: usize) {
    const MAX_ACK_DELAY: u64 = 0x0b; // RFC 9000, section 18.2
    let attack = tokio::task::spawn_blocking(move || {
        let identity = Identity::new(&[ALPN]);
        let mut parameters = Parameters::generous();
        parameters.set_integer(MAX_ACK_DELAY, 16_383);
        for _ in 0..count {
            let mut peer = Peer::connect(address, &identity, parameters.clone(), HANG).unwrap();
            peer.send(Space::Data, &[Frame::application_close(0)]).unwrap();
        }
    });
    attack.await.unwrap();
}

/// Sends the first packet of a handshake, and returns whether the listener answers with a Retry.
async fn gets_retry(address: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let credential = trusting();
    let relay = async {
        let mut packet = [0; 2048];
        let size = socket.recv(&mut packet).await.unwrap();
        socket.send_to(&packet[..size], address).await.unwrap();
        while socket.recv_from(&mut packet).await.unwrap().1 != address {}
        packet[0] & 0xf0 == 0xf0 // RFC 9000, section 17.2.5
    };
    tokio::select! {
        dialled = dial_quic(socket.local_addr().unwrap(), ALPN, Some(&credential)) => panic!("{dialled:?}"),
        is_retry = relay => is_retry,
    }
}

async fn accept_all(listener: &QuinnListener) {
    loop {
        let request = listener.accept().await.unwrap();
        tokio::spawn(request.accept());
    }
}
