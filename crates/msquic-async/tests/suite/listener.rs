//! Listeners: their start and stop, ports, refused connections, and credentials.

use super::peers::{ALPN, Pair, client_configuration, credential, listen, pair, settings};
use super::skip::lacks_patch;
use crate::executors::run;
use msquic_async::{
    Configuration, Connection, ListenError, Listener, Registration, Status, StreamLimits,
    TrustPolicy,
};
use msquic_async::{ConnectionError, ConnectionStartError};
use std::net::UdpSocket;

#[test]
fn a_listener_is_started_once_and_stops() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &credential()).unwrap();
        let listener = Listener::new(&registration, configuration, credential()).unwrap();
        assert_eq!(listener.accept().await.map(|_| ()), Err(ListenError::NotStarted));
        assert_eq!(listener.stop().await, Err(ListenError::NotStarted));
        assert_eq!(listener.local_addr(), Err(ListenError::NotStarted));
        listener.start(&[ALPN], Some("127.0.0.1:0".parse().unwrap())).unwrap();
        assert_eq!(listener.start(&[ALPN], None), Err(ListenError::AlreadyStarted));
        let addr = listener.local_addr().unwrap();
        assert_ne!(addr.port(), 0);

        let (accepted, stopped) = futures::future::join(listener.accept(), listener.stop()).await;
        assert_eq!(accepted.map(|_| ()), Err(ListenError::Finished));
        stopped.unwrap();
        assert_eq!(listener.start(&[ALPN], None), Err(ListenError::Finished));

        if lacks_patch("N61") {
            return; // its workers free the port, some time later
        }
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &credential()).unwrap();
        let next = Listener::new(&registration, configuration, credential()).unwrap();
        next.start(&[ALPN], Some(addr)).unwrap();
    });
}

#[test]
fn a_port_in_use_is_a_typed_error() {
    run(async || {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let registration = Registration::new("test").unwrap();
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &credential()).unwrap();
        let listener = Listener::new(&registration, configuration, credential()).unwrap();
        let result = listener.start(&[ALPN], Some(taken.local_addr().unwrap()));
        assert_eq!(result, Err(ListenError::AddressInUse));
        // It can be tried again.
        listener.start(&[ALPN], Some("127.0.0.1:0".parse().unwrap())).unwrap();
    });
}

#[test]
fn a_refused_connection_is_a_typed_error() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let listener = listen(&registration, &settings(), credential(), StreamLimits::default());
        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default());
        let port = listener.local_addr().unwrap().port();
        let connect = || async {
            let client = Connection::new(&registration, credential()).unwrap();
            client.start(&configuration, "127.0.0.1", port).await
        };
        let refuse = async { listener.accept_incoming().await.unwrap().refuse(7) };
        let (refused, ()) = futures::future::join(connect(), refuse).await;
        assert!(matches!(refused, Err(ConnectionStartError::ConnectionLost(_))), "{refused:?}");

        listener.set_backlog(0);
        let Err(ConnectionStartError::ConnectionLost(ConnectionError::ClosedByTransport {
            status,
            ..
        })) = connect().await
        else {
            panic!("the backlog is full");
        };
        assert_eq!(status, Status::CONNECTION_REFUSED);
        assert!(listener.refused() >= 1); // an attempt may be repeated
    });
}

#[test]
fn a_listener_can_change_its_credential() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let before = credential();
        let listener = listen(&registration, &settings(), before.clone(), StreamLimits::default());
        let after = credential().with_trust(TrustPolicy::reject_all());
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &after).unwrap();
        listener.set_credential(configuration, after.clone()).unwrap();
        let other = Registration::new("other").unwrap();
        let foreign = Configuration::server(&other, &[ALPN], &settings(), &before).unwrap();
        let error = listener.set_credential(foreign, before.clone()).unwrap_err();
        assert_eq!(error, ListenError::Other(Status::INVALID_PARAMETER));
        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default());
        let client = Connection::new(&registration, credential()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let start = client.start(&configuration, "127.0.0.1", port);
        let accept = async { listener.accept().await.unwrap().accept().await };
        let (_, accepted) = futures::future::join(start, accept).await;
        let Err(ConnectionStartError::ConnectionLost(ConnectionError::Untrusted(_))) = accepted
        else {
            panic!("{accepted:?}");
        };
        assert_eq!(client.peer_identity().map(|peer| peer.hash), Some(after.identity()));
    });
}

#[test]
fn a_port_can_be_used_again_while_its_connections_live_on() {
    run(async || {
        let Pair { registration, listener, client, server } = pair().await;
        let addr = listener.local_addr().unwrap();
        listener.stop().await.unwrap();
        let credential = credential();
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &credential).unwrap();
        let next = Listener::new(&registration, configuration, credential).unwrap();
        next.start(&[ALPN], Some(addr)).unwrap();
        let mut stream = client.open_send_stream().await.unwrap();
        stream.send("still here").await.unwrap();
        server.accept_inbound_uni_stream().await.unwrap();
    });
}

#[test]
fn a_listener_that_never_started_does_not_keep_the_registration_busy() {
    run(async || {
        let Pair { registration, listener, .. } = pair().await;
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &credential()).unwrap();
        let idle = Listener::new(&registration, configuration, credential()).unwrap();
        registration.shutdown(0);
        registration.wait_idle().await;
        assert_eq!(idle.start(&[ALPN], None), Err(ListenError::Finished));
        drop(listener);
    });
}
