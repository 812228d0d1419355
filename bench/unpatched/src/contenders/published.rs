//! `Published`: the `msquic-async` of the public registry with msquic's defaults, over one stream.

use super::streams::{Side, Writes};
use crate::transport::{End, Ends, FIRST, Transport};
use anyhow::{Context, Result};
use msquic::{
    BufferRef, CertificateFile, Configuration, Credential, CredentialConfig, CredentialFlags,
    Registration, RegistrationConfig, Settings,
};
use msquic_async::{Connection, Listener, ReadStream, StreamType, WriteStream};
use net_traits::SelfSigned;
use std::future::poll_fn;
use std::net::SocketAddr;

pub(crate) struct Published {
    address: SocketAddr,
    // Closed in this order.
    listener: Listener,
    client: Configuration,
    registration: Registration,
}

impl Published {
    pub(crate) fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let pem = directory.path().join("pem");
        std::fs::write(&pem, SelfSigned::generate(&["localhost"])?.to_pem())?;
        let pem = pem.display().to_string();

        let registration = Registration::new(&RegistrationConfig::default())?;
        let alpn = [BufferRef::from("bench")];
        let settings = Settings::new().set_PeerBidiStreamCount(1).set_IdleTimeoutMs(0);
        let server = Configuration::open(&registration, &alpn, Some(&settings))?;
        let file = CertificateFile::new(pem.clone(), pem);
        server.load_credential(
            &CredentialConfig::new()
                .set_credential_flags(CredentialFlags::NO_CERTIFICATE_VALIDATION)
                .set_credential(Credential::CertificateFile(file)),
        )?;
        let client = Configuration::open(&registration, &alpn, Some(&settings))?;
        client.load_credential(
            &CredentialConfig::new_client()
                .set_credential_flags(CredentialFlags::NO_CERTIFICATE_VALIDATION),
        )?;
        let listener = Listener::new(&registration, server)?;
        listener.start(&alpn, Some(SocketAddr::from(([127, 0, 0, 1], 0))))?;
        let address = listener.local_addr()?;
        Ok(Self { address, listener, client, registration })
    }
}

impl Transport for Published {
    type End = Side<ReadStream, WriteStream, Connection>;

    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn connect(&self, address: SocketAddr) -> Result<Ends<Self>> {
        let dial = async {
            let connection = Connection::new(&self.registration)?;
            connection.start(&self.client, &address.ip().to_string(), address.port()).await?;
            let stream = connection.open_outbound_stream(StreamType::Bidirectional, false).await?;
            let side = side(stream.split(), connection)?;
            side.send(FIRST, 1).await?;
            side.receive(FIRST, 1).await?; // a close would discard what has not arrived
            anyhow::Ok(side)
        };
        let accept = async {
            let connection = self.listener.accept().await?;
            let stream = connection.accept_inbound_stream().await?;
            let side = side(stream.split(), connection)?;
            side.receive(FIRST, 1).await?;
            side.send(FIRST, 1).await?;
            anyhow::Ok(side)
        };
        tokio::try_join!(dial, accept)
    }

    async fn close(&self, client: Self::End, server: Self::End) {
        let _ = poll_fn(|cx| client.connection.poll_shutdown(cx, 0)).await;
        // Its peer may be another client, which closes it. There is no second stream.
        let _ = server.connection.accept_inbound_stream().await;
    }
}

fn side(
    (read, write): (Option<ReadStream>, Option<WriteStream>),
    connection: Connection,
) -> Result<Side<ReadStream, WriteStream, Connection>> {
    let read = read.context("the stream cannot receive")?;
    let write = write.context("the stream cannot send")?;
    Ok(Side::new(read, write, Writes::Single, connection))
}
