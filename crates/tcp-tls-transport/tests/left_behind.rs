//! What the system keeps of connections that have ended.
#![cfg(target_os = "linux")]

mod common;

use common::{ALPN, listen, raw, run};
use net_traits::{NetConnection, NetListener};
use std::net::SocketAddr;
use std::time::Duration;
use tcp_tls_transport::TcpTlsConfig;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

const PAUSE: Duration = Duration::from_millis(100);

#[test]
fn data_that_a_peer_does_not_take_does_not_outlive_its_connection_for_long() {
    run(async {
        let config = TcpTlsConfig::new().no_progress_timeout(Duration::from_secs(1));
        let (_transport, listener) = listen(config).await;
        let address = listener.local_addr();
        let (mut peer, connection) = raw(&listener, ALPN).await;
        let fill = async { while connection.send(&[7; 60_000]).await.is_ok() {} };
        let _ = timeout(PAUSE, fill).await; // the peer does not read
        let close = [&[0xff; 4][..], &[0], &7_u64.to_be_bytes(), &3_u16.to_be_bytes(), b"bye"];
        peer.write_all(&close.concat()).await.unwrap();
        peer.flush().await.unwrap();
        connection.watch_close().await;
        assert!(unsent(address) > 0, "the test is to leave data behind");
        while unsent(address) > 0 {
            sleep(PAUSE).await;
        }
        drop(peer);
    });
}

/// Returns how many bytes the system has to deliver from the sockets at an address.
fn unsent(address: SocketAddr) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{:04X}", address.port());
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_address = lines.filter(|cells| cells[1] == local);
    of_address.map(|cells| u64::from_str_radix(&cells[4][..8], 16).unwrap()).sum()
}
