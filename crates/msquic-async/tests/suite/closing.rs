//! Concurrent closes: of the application, and of the registration.

use super::peers::{client_configuration, credential, listen, settings};
use crate::executors::run;
use msquic_async::DgramSendError;
use msquic_async::StreamStartError;
use msquic_async::{Connection, ConnectionError, Registration, StreamLimits, StreamType};

#[test]
fn the_first_of_several_closes_applies_and_the_hook_is_called() {
    run(async || {
        let (limits, settings) = (StreamLimits::default(), settings().datagrams(true));
        let servers = Registration::new("servers").unwrap();
        let listener = listen(&servers, &settings, credential(), limits);
        for (first, reason) in [(7, ""), (9, "bye")] {
            let clients = Registration::new("clients").unwrap();
            let configuration = client_configuration(&clients, &settings, limits);
            let client = Connection::new(&clients, credential()).unwrap();
            let port = listener.local_addr().unwrap().port();
            let start = client.start(&configuration, "127.0.0.1", port);
            let (started, server) = futures::join!(start, listener.accept());
            started.unwrap();
            let server = server.unwrap();
            server.accept().await.unwrap();

            if first == 7 {
                clients.shutdown(7);
            }
            client.shutdown(9, "bye");
            clients.shutdown(7);
            let (hook, hooked) = std::sync::mpsc::channel();
            client.on_shutdown(move |error| hook.send(error).unwrap());
            // Each operation returns it at once, before msquic has processed the close.
            let closed = ConnectionError::ClosedLocally { code: first, reason: reason.to_owned() };
            let sent = client.send_datagram(&"late".into());
            assert_eq!(sent, Err(DgramSendError::ConnectionLost(closed.clone())));
            let open = client.open_outbound_stream(StreamType::Unidirectional, false).await;
            assert_eq!(open.map(drop), Err(StreamStartError::ConnectionLost(closed.clone())));
            assert_eq!(client.watch_shutdown().await, closed);
            assert_eq!(hooked.try_recv(), Ok(closed.clone()), "it is called before");
            let (hook, hooked) = std::sync::mpsc::channel();
            client.on_shutdown(move |error| hook.send(error).unwrap());
            assert_eq!(hooked.try_recv(), Ok(closed), "it has ended");
            let told = ConnectionError::ClosedByPeer { code: first, reason: reason.to_owned() };
            assert_eq!(server.watch_shutdown().await, told);
        }
    });
}
