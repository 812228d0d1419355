//! The relay with real sockets: what passes, which ports are used, what is counted.

use net_relay::{Direction, Faults, Relay};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// A test that takes longer hangs.
const HANG: Duration = Duration::from_secs(30);

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 2048];
    let received = timeout(HANG, socket.recv_from(&mut buffer)).await.expect("the test hangs");
    let (size, from) = received.unwrap();
    buffer.truncate(size);
    (buffer, from)
}

async fn sockets(faults: Faults) -> (UdpSocket, Relay, UdpSocket) {
    let [client, server] = ["127.0.0.1:0"; 2].map(UdpSocket::bind);
    let (client, server) = (client.await.unwrap(), server.await.unwrap());
    let relay = Relay::new(server.local_addr().unwrap(), faults, 0).unwrap();
    client.connect(relay.address()).await.unwrap();
    (client, relay, server)
}

#[tokio::test]
async fn datagrams_pass_both_ways_and_are_counted() {
    let (client, relay, server) = sockets(Faults::default()).await;
    client.send(b"question").await.unwrap();
    let (question, from) = receive(&server).await;
    assert_eq!(question, b"question");
    server.send_to(b"answer", from).await.unwrap();
    assert_eq!(receive(&client).await, (b"answer".to_vec(), relay.address()));
    for direction in [Direction::Up, Direction::Down] {
        let counts = relay.counts(direction);
        assert_eq!((counts.arrived, counts.delivered), (1, 1), "{counts:?}");
    }
}

#[tokio::test]
async fn faults_of_one_direction_change_while_it_runs() {
    let (client, relay, server) = sockets(Faults::default()).await;
    relay.change(Direction::Up, |faults| faults.duplicate = 1.0);
    client.send(b"twice").await.unwrap();
    let (_, from) = receive(&server).await;
    assert_eq!(receive(&server).await.0, b"twice");
    server.send_to(b"once", from).await.unwrap();
    assert_eq!(receive(&client).await.0, b"once");
    assert_eq!(relay.counts(Direction::Up).duplicated, 1);
    assert_eq!(relay.counts(Direction::Down).duplicated, 0);
}

#[tokio::test]
async fn after_a_rebinding_the_server_sees_another_port() {
    let (client, relay, server) = sockets(Faults::default()).await;
    client.send(b"one").await.unwrap();
    let (_, before) = receive(&server).await;
    relay.rebind().unwrap();
    let after = loop {
        client.send(b"two").await.unwrap();
        let (_, from) = receive(&server).await;
        if from != before {
            break from;
        }
    };
    // The previous port is silent: the client gets only what is sent to the new one.
    server.send_to(b"old", before).await.unwrap();
    server.send_to(b"new", after).await.unwrap();
    assert_eq!(receive(&client).await.0, b"new");
}
