//! `Attacker` and `AttackerConnection`: connections that use the wire format without keeping to the
//! protocol.

use crate::Target;
use crate::node::{self, IDLE};
use anyhow::{Context as _, Result};
use net_traits::NetCredential;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, TransportConfig};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf, split};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Returns the address of this attacker. It is not that of honest peers, so that limits per address tell them
/// apart, and not that of an earlier attacker, whose closed connections occupy ports for a minute.
pub(crate) fn own_address() -> IpAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 1, high, low).into()
}

/// The largest TLS record (RFC 8446, section 5.1).
const RECORD: usize = 1 << 14;

/// A stream of messages to the victim.
pub(crate) type Messages = Pin<Box<dyn AsyncWrite + Send>>;

/// Creates connections of one identity, and counts what they send.
pub(crate) struct Attacker {
    target: Target,
    tls: Arc<tokio_rustls::rustls::ClientConfig>,
    endpoint: Endpoint,
    /// Datagrams of closed connections, and records over TCP.
    sent: Arc<AtomicU64>,
    open: Mutex<Vec<quinn::Connection>>,
}

impl Attacker {
    pub(crate) fn new(target: Target, credential: &NetCredential) -> Result<Self> {
        let tls = node::identity(credential).client_config();
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls.clone())?));
        let mut quic = TransportConfig::default();
        quic.keep_alive_interval(Some(IDLE / 4));
        config.transport_config(Arc::new(quic));
        let mut endpoint = Endpoint::client((own_address(), 0).into())?;
        endpoint.set_default_client_config(config);
        Ok(Self { target, tls, endpoint, sent: Arc::default(), open: Mutex::default() })
    }

    /// Returns how many datagrams were sent, or how many TLS records and connects over TCP.
    pub(crate) fn packets(&self) -> u64 {
        let datagrams = |connection: &quinn::Connection| connection.stats().udp_tx.datagrams;
        let mut open = self.open.lock().expect("no task panics");
        for ended in open.extract_if(.., |connection| connection.close_reason().is_some()) {
            self.sent.fetch_add(datagrams(&ended), Ordering::Relaxed);
        }
        self.sent.load(Ordering::Relaxed) + open.iter().map(datagrams).sum::<u64>()
    }

    /// Completes a handshake. The connection stays open until it is closed.
    pub(crate) async fn connect(&self) -> Result<AttackerConnection> {
        if self.target.kind.is_quic() {
            let connection = self.endpoint.connect(self.target.address, "victim")?.await?;
            self.open.lock().expect("no task panics").push(connection.clone());
            return Ok(AttackerConnection::Quic(connection));
        }
        let stream = self.connect_tcp().await?;
        let name = self.target.address.ip().into();
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
        let (read, write) = split(stream);
        Ok(AttackerConnection::Tcp(Some(read), Some(Counted { write, sent: self.sent.clone() })))
    }

    pub(crate) async fn connect_tcp(&self) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((own_address(), 0).into())?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(socket.connect(self.target.address).await?)
    }
}

/// A connection to the victim.
pub(crate) enum AttackerConnection {
    Quic(quinn::Connection),
    Tcp(Option<ReadHalf<TlsStream<TcpStream>>>, Option<Counted>),
}

impl AttackerConnection {
    /// Opens a stream of messages. A connection over TCP has one.
    pub(crate) async fn messages(&mut self) -> Result<Messages> {
        Ok(match self {
            Self::Quic(connection) => Box::pin(connection.open_uni().await?),
            Self::Tcp(_, write) => Box::pin(write.take().context("TCP has one stream")?),
        })
    }

    /// Reads and discards what the victim sends.
    pub(crate) fn discard(&mut self) {
        match self {
            Self::Quic(connection) => {
                let connection = connection.clone();
                tokio::spawn(async move {
                    while let Ok(mut stream) = connection.accept_uni().await {
                        tokio::spawn(async move {
                            let mut buffer = vec![0; 65_536];
                            while let Ok(Some(_)) = stream.read(&mut buffer).await {}
                        });
                    }
                });
            }
            Self::Tcp(read, _) => {
                let Some(mut read) = read.take() else { return };
                tokio::spawn(async move {
                    let mut buffer = vec![0; 65_536];
                    while read.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
                });
            }
        }
    }

    /// Ends the connection without waiting.
    pub(crate) fn close(self) {
        if let Self::Quic(connection) = self {
            connection.close(0_u8.into(), b"");
        }
    }
}

/// The writing half of a connection over TCP, which counts its TLS records.
pub(crate) struct Counted {
    write: WriteHalf<TlsStream<TcpStream>>,
    sent: Arc<AtomicU64>,
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.write).poll_write(cx, bytes);
        if let Poll::Ready(Ok(length)) = written {
            self.sent.fetch_add(length.div_ceil(RECORD) as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }
}
