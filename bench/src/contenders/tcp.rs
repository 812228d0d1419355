//! `Tcp`: TCP with TLS (rustls).

use super::streams::{Side, Writes};
use crate::tls;
use crate::transport::{End, Ends, FIRST, Transport};
use anyhow::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

pub(crate) struct Tcp {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    listener: TcpListener,
    address: SocketAddr,
    writes: Writes,
}

impl Tcp {
    pub(crate) async fn new(writes: Writes, is_mutual: bool) -> Result<Self> {
        let (client, server) = tls::configs(is_mutual)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        Ok(Self {
            connector: Arc::new(client).into(),
            acceptor: Arc::new(server).into(),
            address: listener.local_addr()?,
            listener,
            writes,
        })
    }

    fn side(&self, stream: impl Into<TlsStream<TcpStream>>) -> TlsSide {
        let (read, write) = split(stream.into());
        Side::new(read, write, self.writes, ())
    }
}

type TlsSide = Side<ReadHalf<TlsStream<TcpStream>>, WriteHalf<TlsStream<TcpStream>>, ()>;

impl Transport for Tcp {
    type End = TlsSide;

    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn connect(&self, address: SocketAddr) -> Result<Ends<Self>> {
        let dial = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let side = self.side(self.connector.connect("localhost".try_into()?, stream).await?);
            side.send(FIRST, 1).await?;
            anyhow::Ok(side)
        };
        let accept = async {
            let (stream, _) = self.listener.accept().await?;
            stream.set_nodelay(true)?;
            let side = self.side(self.acceptor.accept(stream).await?);
            side.receive(FIRST, 1).await?;
            anyhow::Ok(side)
        };
        tokio::try_join!(dial, accept)
    }

    fn descriptors(&self) -> usize {
        2
    }

    async fn close(&self, client: Self::End, server: Self::End) {
        drop((server, client)); // closes the sockets
    }
}
