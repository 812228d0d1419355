//! `Relay`: a path on this host between a dialler and a listener, which can be interrupted.

use crate::harness::Path;
use parking_lot::Mutex;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Relays the bytes of TCP connections, or the datagrams of one UDP client, until it is dropped.
///
/// While it is interrupted, it forwards nothing. The system then still accepts what its buffers for
/// TCP have room for; datagrams are dropped.
///
/// ```
/// use net_traits_test::{Path, Relay};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tokio::net::{TcpListener, TcpStream};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let relay = Relay::tcp(listener.local_addr()?).await?;
/// let mut dialled = TcpStream::connect(relay.address()).await?;
/// dialled.write_all(b"hello").await?;
/// assert_eq!(listener.accept().await?.0.read_u8().await?, b'h');
/// # std::io::Result::Ok(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    is_interrupted: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Relays TCP connections to `server`.
    ///
    /// # Errors
    ///
    /// Those of binding to a port of the loopback interface.
    pub async fn tcp(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (is_interrupted, state) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((dialled, _)) = listener.accept().await {
                connections.spawn(relay_connection(dialled, server, state.clone()));
            }
        });
        Ok(Self { address, is_interrupted, task })
    }

    /// Relays the datagrams of one client to and from `server`.
    ///
    /// # Errors
    ///
    /// Those of binding to ports of the loopback interface.
    pub async fn udp(server: SocketAddr) -> io::Result<Self> {
        let at_client = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let at_server = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        at_server.connect(server).await?;
        let address = at_client.local_addr()?;
        let (is_interrupted, state) = watch::channel(false);
        let task = tokio::spawn(async move {
            let client = Mutex::new(None);
            let up = async {
                let mut datagram = vec![0; 65536];
                loop {
                    let Ok((size, from)) = at_client.recv_from(&mut datagram).await else {
                        continue;
                    };
                    *client.lock() = Some(from);
                    if !*state.borrow() {
                        let _ = at_server.send(&datagram[..size]).await; // it may be lost
                    }
                }
            };
            let down = async {
                let mut datagram = vec![0; 65536];
                loop {
                    let Ok(size) = at_server.recv(&mut datagram).await else { continue };
                    let client = *client.lock();
                    if let Some(client) = client.filter(|_| !*state.borrow()) {
                        let _ = at_client.send_to(&datagram[..size], client).await; // it may be lost
                    }
                }
            };
            tokio::join!(up, down);
        });
        Ok(Self { address, is_interrupted, task })
    }
}

impl Path for Relay {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn interrupt(&self, _dialler: SocketAddr) {
        self.is_interrupted.send_replace(true);
    }

    fn restore(&self) {
        self.is_interrupted.send_replace(false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay_connection(dialled: TcpStream, server: SocketAddr, state: watch::Receiver<bool>) {
    let Ok(accepted) = TcpStream::connect(server).await else { return };
    let _ = (dialled.set_nodelay(true), accepted.set_nodelay(true)); // only delays otherwise
    let ((from_dialler, to_dialler), (from_listener, to_listener)) =
        (split(dialled), split(accepted));
    tokio::join!(
        forward(from_dialler, to_listener, state.clone()),
        forward(from_listener, to_dialler, state)
    );
}

/// Forwards one direction until it ends, or the relay is dropped.
async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut is_interrupted: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await.unwrap_or(0);
        if is_interrupted.wait_for(|is_interrupted| !is_interrupted).await.is_err() {
            return;
        }
        let written = to.write_all(&buffer[..count]).await;
        if count == 0 || written.is_err() {
            let _ = to.shutdown().await; // the other side may have ended
            return;
        }
    }
}
