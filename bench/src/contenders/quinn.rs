//! `Quinn`: quinn with its defaults, over one stream.

use super::streams::{Side, Writes};
use crate::tls;
use crate::transport::{End, Ends, FIRST, Transport};
use anyhow::{Context, Result};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;

pub(crate) struct Quinn {
    dialler: Endpoint,
    listener: Endpoint,
    address: SocketAddr,
    writes: Writes,
}

impl Quinn {
    pub(crate) fn new(writes: Writes, is_mutual: bool) -> Result<Self> {
        let (client, server) = tls::configs(is_mutual)?;
        let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
        let client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
        let listener = Endpoint::server(server, "127.0.0.1:0".parse()?)?;
        let mut dialler = Endpoint::client("127.0.0.1:0".parse()?)?;
        dialler.set_default_client_config(client);
        Ok(Self { address: listener.local_addr()?, dialler, listener, writes })
    }
}

impl Transport for Quinn {
    type End = Side<RecvStream, SendStream, Connection>;

    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn connect(&self, address: SocketAddr) -> Result<Ends<Self>> {
        let dial = async {
            let connection = self.dialler.connect(address, "localhost")?.await?;
            let (write, read) = connection.open_bi().await?;
            let side = Side::new(read, write, self.writes, connection);
            side.send(FIRST, 1).await?;
            anyhow::Ok(side)
        };
        let accept = async {
            let incoming = self.listener.accept().await.context("the endpoint is closed")?;
            let connection = incoming.await?;
            let (write, read) = connection.accept_bi().await?;
            let side = Side::new(read, write, self.writes, connection);
            side.receive(FIRST, 1).await?;
            anyhow::Ok(side)
        };
        tokio::try_join!(dial, accept)
    }

    async fn close(&self, client: Self::End, server: Self::End) {
        // The side that has received closes, so that no message is lost.
        server.connection.close(0_u32.into(), b"");
        client.connection.closed().await;
    }
}
