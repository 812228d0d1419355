//! `Tcp`: TCP with TLS (rustls) as a contender.

use crate::streams::{Side, Writes, contender_over_streams};
use crate::tls;
use anyhow::Result;
use std::sync::Arc;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

type TlsSide = Side<ReadHalf<TlsStream<TcpStream>>, WriteHalf<TlsStream<TcpStream>>>;

pub(crate) struct Tcp {
    client: Arc<TlsSide>,
    server: Arc<TlsSide>,
}

impl Tcp {
    pub(crate) async fn new() -> Result<Self> {
        let (client, server) = tls::configs(b"bench")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let dial = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let connector = TlsConnector::from(Arc::new(client));
            anyhow::Ok(connector.connect("localhost".try_into()?, stream).await?)
        };
        let accept = async {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            anyhow::Ok(TlsAcceptor::from(Arc::new(server)).accept(stream).await?)
        };
        let (client, server) = tokio::try_join!(dial, accept)?;
        let side = |stream: TlsStream<TcpStream>| {
            let (read, write) = split(stream);
            Arc::new(Side::new(read, write, Writes::Gathered))
        };
        Ok(Self { client: side(client.into()), server: side(server.into()) })
    }
}

contender_over_streams!(Tcp, |_| "TCP+TLS, gathered", |_| {});
