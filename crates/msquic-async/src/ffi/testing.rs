//! Two peers over loopback, for tests of this module.

use crate::{
    Configuration, Connection, Listener, NetCredential, Registration, Settings, TrustPolicy,
};

pub(super) const ALPN: &str = "raw/1";

/// Two connected peers over loopback.
pub(super) struct Pair {
    pub(super) registration: Registration,
    pub(super) listener: Listener,
    pub(super) client: Connection,
    pub(super) server: Connection,
}

pub(super) async fn pair(settings: &Settings) -> Pair {
    let registration = Registration::new("test").unwrap();
    let (listener, port) = listener(&registration, settings);
    let configuration =
        Configuration::client(&registration, &[ALPN], settings, &credential()).unwrap();
    let client = Connection::new(&registration, credential()).unwrap();
    let server = establish(&client, &configuration, &listener, port).await;
    Pair { registration, listener, client, server }
}

/// Completes the handshake of `client` with the listener at `port`, and returns the accepted
/// connection.
pub(super) async fn establish(
    client: &Connection,
    configuration: &Configuration,
    listener: &Listener,
    port: u16,
) -> Connection {
    let start = client.start(configuration, "127.0.0.1", port);
    let accept = async {
        let server = listener.accept().await.unwrap();
        server.accept().await.unwrap();
        server
    };
    let (started, server) = futures::join!(start, accept);
    started.unwrap();
    server
}

pub(super) fn credential() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

pub(super) fn listener(registration: &Registration, settings: &Settings) -> (Listener, u16) {
    let configuration =
        Configuration::server(registration, &[ALPN], settings, &credential()).unwrap();
    let listener = Listener::new(registration, configuration, credential()).unwrap();
    listener.start(&[ALPN], Some("127.0.0.1:0".parse().unwrap())).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}
