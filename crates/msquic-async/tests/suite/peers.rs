//! A listener and a connected pair over loopback, for all tests.

use msquic_async::{
    Configuration, Connection, Listener, NetCredential, Registration, Settings, StreamLimits,
    TrustPolicy,
};
use std::time::Duration;

pub(crate) const ALPN: &str = "test/1";

/// A credential that trusts every peer.
pub(crate) fn credential() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

pub(crate) fn settings() -> Settings {
    Settings::new().peer_bidi_streams(8).peer_uni_streams(8).idle_timeout(Duration::from_secs(20))
}

/// Everything that two connected peers need.
pub(crate) struct Pair {
    pub(crate) registration: Registration,
    pub(crate) listener: Listener,
    pub(crate) client: Connection,
    pub(crate) server: Connection,
}

pub(crate) async fn pair() -> Pair {
    pair_with(settings(), StreamLimits::default()).await
}

pub(crate) async fn pair_with(settings: Settings, limits: StreamLimits) -> Pair {
    pair_of(settings, limits, |_| ()).await
}

/// A pair whose client is prepared before it starts.
pub(crate) async fn pair_of(
    settings: Settings,
    limits: StreamLimits,
    prepare: impl FnOnce(&Connection),
) -> Pair {
    let registration = Registration::new("test").unwrap();
    let listener = listen(&registration, &settings, credential(), limits);
    let client = Connection::new(&registration, credential()).unwrap();
    prepare(&client);
    let configuration = client_configuration(&registration, &settings, limits);
    let port = listener.local_addr().unwrap().port();
    let start = client.start(&configuration, "127.0.0.1", port);
    let accept = async {
        let server = listener.accept().await.unwrap();
        server.accept().await.unwrap();
        server
    };
    let (started, server) = futures::future::join(start, accept).await;
    started.unwrap();
    Pair { registration, listener, client, server }
}

pub(crate) fn client_configuration(
    registration: &Registration,
    settings: &Settings,
    limits: StreamLimits,
) -> Configuration {
    Configuration::client(registration, &[ALPN], settings, &credential())
        .unwrap()
        .with_stream_limits(limits)
}

pub(crate) fn listen(
    registration: &Registration,
    settings: &Settings,
    credential: NetCredential,
    limits: StreamLimits,
) -> Listener {
    let configuration = Configuration::server(registration, &[ALPN], settings, &credential)
        .unwrap()
        .with_stream_limits(limits);
    let listener = Listener::new(registration, configuration, credential).unwrap();
    listener.start(&[ALPN], Some("127.0.0.1:0".parse().unwrap())).unwrap();
    listener
}

/// Creates bytes with a pattern that reveals swapped and lost parts.
pub(crate) fn pattern(length: usize) -> bytes::Bytes {
    (0..length).map(|index| (index.wrapping_mul(31) >> 3) as u8).collect()
}
