//! The named futures of connections.

use super::{Connection, ConnectionError, StartError};
use crate::waiters::wait_future;
use rustls_pki_types::CertificateDer;

wait_future! {
    /// Future of [`Connection::accept`].
    ConnectionAccept(connection: &Connection) -> Result<(), StartError>,
    on connection.inner().changed, until connection.connected()
}

wait_future! {
    /// Future of [`Connection::watch_shutdown`].
    WatchShutdown(connection: &Connection) -> ConnectionError,
    on connection.inner().changed, until connection.shut_down()
}

wait_future! {
    /// Future of [`Connection::receive_remote_certificate`].
    RemoteCertificateReceiver(connection: &Connection)
        -> Result<CertificateDer<'static>, StartError>,
    on connection.inner().inbound.certificate, until connection.certificate()
}
