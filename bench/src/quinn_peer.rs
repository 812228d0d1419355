//! `Quinn`: quinn as a contender.

use crate::contender::frame;
use crate::streams::{Side, Writes, contender_over_streams};
use crate::tls;
use anyhow::{Context, Result};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use std::sync::Arc;

type QuinnSide = Side<RecvStream, SendStream>;

pub(crate) struct Quinn {
    client: Arc<QuinnSide>,
    server: Arc<QuinnSide>,
    connection: Connection,
    writes: Writes,
    _endpoints: [Endpoint; 2],
}

impl Quinn {
    pub(crate) async fn new(writes: Writes) -> Result<Self> {
        let (client, server) = tls::configs(b"bench")?;
        let server = Arc::new(QuicServerConfig::try_from(server)?);
        let listener = Endpoint::server(ServerConfig::with_crypto(server), "127.0.0.1:0".parse()?)?;
        let mut dialler = Endpoint::client("127.0.0.1:0".parse()?)?;
        let client = Arc::new(QuicClientConfig::try_from(client)?);
        dialler.set_default_client_config(ClientConfig::new(client));
        let dial = async {
            let connection = dialler.connect(listener.local_addr()?, "localhost")?.await?;
            let (mut write, read) = connection.open_bi().await?;
            write.write_all(&frame(0)).await?; // the peer sees the stream with its first byte
            anyhow::Ok((connection, Arc::new(Side::new(read, write, writes))))
        };
        let accept = async {
            let connection = listener.accept().await.context("the endpoint is closed")?.await?;
            let (write, read) = connection.accept_bi().await?;
            let side = Arc::new(Side::new(read, write, writes));
            side.receive(0, 1).await?;
            anyhow::Ok((connection, side))
        };
        let ((connection, client), (_, server)) = tokio::try_join!(dial, accept)?;
        Ok(Self { client, server, connection, writes, _endpoints: [dialler, listener] })
    }
}

contender_over_streams!(
    Quinn,
    |quinn| match quinn.writes {
        Writes::Single => "quinn",
        Writes::Gathered => "quinn, gathered",
    },
    |quinn| quinn.connection.close(0_u32.into(), b"")
);
