//! A client whose address changes without its knowledge, as behind a NAT that rebinds.

use super::peers::{client_configuration, credential, listen, settings};
use crate::executors::run;
use msquic_async::{Connection, Registration, StreamLimits};
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Forwards datagrams between a client and a server, as a NAT does, and can change the port that the
/// server sees.
struct Nat {
    front: SocketAddr,
    moved: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Nat {
    fn new(server: SocketAddr) -> Self {
        let (moved, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            Arc::new(socket)
        };
        let (front, backs) = (socket(), [socket(), socket()]);
        let client = Arc::new(Mutex::new(None));
        let nat = Self { front: front.local_addr().unwrap(), moved, stop };
        nat.forward(front.clone(), {
            let (client, moved, backs) = (client.clone(), nat.moved.clone(), backs.clone());
            move |datagram, from| {
                *client.lock().unwrap() = Some(from);
                let back = &backs[usize::from(moved.load(Ordering::SeqCst))];
                let _ = back.send_to(datagram, server);
            }
        });
        for back in backs {
            let (client, front) = (client.clone(), front.clone());
            nat.forward(back, move |datagram, _| {
                if let Some(client) = *client.lock().unwrap() {
                    let _ = front.send_to(datagram, client);
                }
            });
        }
        nat
    }

    fn forward(
        &self,
        from: Arc<UdpSocket>,
        mut deliver: impl FnMut(&[u8], SocketAddr) + Send + 'static,
    ) {
        let stop = self.stop.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2000];
            while !stop.load(Ordering::SeqCst) {
                if let Ok((length, sender)) = from.recv_from(&mut buffer) {
                    deliver(&buffer[..length], sender);
                }
            }
        });
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_peer_whose_address_changes_is_followed() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let listener = listen(&registration, &settings(), credential(), StreamLimits::default());
        let nat = Nat::new(listener.local_addr().unwrap());
        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default());
        let client = Connection::new(&registration, credential()).unwrap();
        let start = client.start(&configuration, "127.0.0.1", nat.front.port());
        let accept = async {
            let server = listener.accept().await.unwrap();
            server.accept().await.map(|()| server)
        };
        let (started, server) = futures::join!(start, accept);
        started.unwrap();
        let server = server.unwrap();
        let send = async |text: &'static str| {
            let mut stream = client.open_send_stream().await.unwrap();
            stream.send(text).await.unwrap();
            std::future::poll_fn(|cx| stream.poll_finish(cx)).await.unwrap();
        };
        send("from here").await;
        let before = server.get_remote_addr().unwrap();
        let mut changed = pin!(server.address_changed());
        // It reports changes after its first poll, and an acknowledgement may be what brings one.
        assert!(futures::poll!(&mut changed).is_pending());
        nat.moved.store(true, Ordering::SeqCst);
        let (changed, ()) = futures::join!(changed, send("from elsewhere"));
        let (_, after) = changed.unwrap();
        assert_ne!(after, before);
        assert_eq!(server.get_remote_addr().unwrap(), after);
        for text in ["from here", "from elsewhere"] {
            let mut stream = server.accept_inbound_uni_stream().await.unwrap();
            assert_eq!(stream.read_to_end(100).await.unwrap(), text.as_bytes());
        }
    });
}
