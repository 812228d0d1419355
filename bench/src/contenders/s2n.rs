//! `S2n`: s2n-quic with its defaults and rustls, over one stream.

use super::streams::{Side, Writes};
use crate::tls;
use crate::transport::{End, Ends, FIRST, Transport};
use anyhow::{Context, Result, anyhow};
use rustls::crypto::aws_lc_rs;
use s2n_quic::client::{Client, Connect};
use s2n_quic::provider::tls::rustls::{Client as ClientTls, Server as ServerTls};
use s2n_quic::stream::{ReceiveStream, SendStream};
use s2n_quic::{Connection, Server};
use std::net::SocketAddr;
use tokio::sync::Mutex;

pub(crate) struct S2n {
    dialler: Client,
    listener: Mutex<Server>,
    address: SocketAddr,
}

impl S2n {
    /// Needs a runtime, in which its endpoints then run.
    pub(crate) fn new(is_mutual: bool) -> Result<Self> {
        // The cryptography that s2n-quic is made for.
        let (client, server) = tls::with_provider(is_mutual, aws_lc_rs::default_provider())?;
        let listener = Server::builder()
            .with_tls(ServerTls::from(server))?
            .with_io("127.0.0.1:0")?
            .start()
            .map_err(|error| anyhow!("s2n-quic does not start: {error}"))?;
        let dialler = Client::builder()
            .with_tls(ClientTls::from(client))?
            .with_io("127.0.0.1:0")?
            .start()
            .map_err(|error| anyhow!("s2n-quic does not start: {error}"))?;
        Ok(Self { address: listener.local_addr()?, dialler, listener: Mutex::new(listener) })
    }
}

impl Transport for S2n {
    type End = Side<ReceiveStream, SendStream, Mutex<Connection>>;

    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn connect(&self, address: SocketAddr) -> Result<Ends<Self>> {
        let dial = async {
            let connect = Connect::new(address).with_server_name("localhost");
            let mut connection = self.dialler.connect(connect).await?;
            let (read, write) = connection.open_bidirectional_stream().await?.split();
            let side = Side::new(read, write, Writes::Single, Mutex::new(connection));
            side.send(FIRST, 1).await?;
            anyhow::Ok(side)
        };
        let accept = async {
            let accepted = self.listener.lock().await.accept().await;
            let mut connection = accepted.context("the endpoint is closed")?;
            let stream = connection.accept_bidirectional_stream().await?;
            let (read, write) = stream.context("the connection is closed")?.split();
            let side = Side::new(read, write, Writes::Single, Mutex::new(connection));
            side.receive(FIRST, 1).await?;
            anyhow::Ok(side)
        };
        tokio::try_join!(dial, accept)
    }

    async fn close(&self, client: Self::End, server: Self::End) {
        // The side that has received closes, so that no message is lost.
        server.connection.into_inner().close(0_u32.into());
        // No stream follows; the result is how the connection ended.
        let _ = client.connection.into_inner().accept_receive_stream().await;
    }
}
