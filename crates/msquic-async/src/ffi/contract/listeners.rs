//! Clauses about listeners.

use super::events::{Answer, Event, TIMEOUT};
use super::handles::{Object, Open, ignore, is_connected};
use super::harness::{ALPN, LOOPBACK, Occupied, Pair, Role, Server, plenty, react};
use super::roots::{Configuration, Registration};
use super::{is_driven, is_patched, lacks_patch};
use crate::ffi::address;
use crate::ffi::connection::QUIC_PARAM_CONN_SHARE_AT_START;
use crate::ffi::status::Status;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread;

const STOPPED: Event = Event::StopComplete { app_close: false };

#[test]
fn c21_listener_stop_works_inline() {
    let registration = Registration::new();
    let listener = registration.open_listener(ignore);
    assert_eq!(listener.listen(ALPN, LOOPBACK.parse().unwrap()), Status::SUCCESS);
    assert_ne!(listener.local_addr().port(), 0);
    listener.stop();
    // No packet was being received, so the event came inside the call.
    let seen = listener.next();
    assert_eq!((seen.event, seen.thread), (STOPPED, thread::current().id()));
    listener.stop(); // no effect
    listener.close();
    assert_eq!(listener.so_far(), []);
}

#[test]
fn c21_close_stops_a_listener_and_waits() {
    let registration = Registration::new();
    let listener = registration.open_listener(ignore);
    assert_eq!(listener.listen(ALPN, LOOPBACK.parse().unwrap()), Status::SUCCESS);
    listener.close();
    assert_eq!(listener.so_far(), [Event::StopComplete { app_close: true }]);
}

#[test]
fn c21_close_inside_stop_complete_does_not_wait() {
    let registration = Registration::new();
    let (sender, opened) = mpsc::channel::<Object>();
    let (done, is_done) = mpsc::channel();
    let opened = parking_lot::Mutex::new(opened);
    let listener = registration.open_listener(move |call| {
        if call.event.is_last() {
            let listener = opened.lock().recv().unwrap();
            listener.close_in(call);
            let _ = done.send(listener.so_far());
        }
        Answer::default()
    });
    assert_eq!(listener.listen(ALPN, LOOPBACK.parse().unwrap()), Status::SUCCESS);
    let handle = listener.borrow();
    sender.send(listener).unwrap();
    handle.stop();
    assert_eq!(is_done.recv_timeout(TIMEOUT).unwrap(), [STOPPED]);
    registration.close();
}

#[test]
fn c21_a_listener_that_did_not_start_has_no_event() {
    let registration = Registration::new();
    let unused = registration.open_listener(ignore);
    let server = Server::new(&registration, &plenty(), &react(ignore));
    let second = registration.open_listener(ignore);
    assert_eq!(second.listen(ALPN, server.addr()), Status::ALPN_IN_USE);
    assert_eq!(second.listen(b"", LOOPBACK.parse().unwrap()), Status::INVALID_PARAMETER);
    for listener in [unused, second] {
        listener.close();
        assert_eq!(listener.so_far(), []);
    }
}

#[test]
fn c21_names_are_copied_and_shared_addresses_are_told_apart_by_them() {
    let registration = Registration::new();
    let server = Server::new(&registration, &plenty(), &react(ignore)); // overwrites the names
    let other = registration.open_listener(ignore);
    assert_eq!(other.listen(b"another", server.addr()), Status::SUCCESS);
    let configuration = registration.configure(Role::Client, &plenty());
    let client = registration.open_connection(ignore);
    assert!(client.connect(&configuration, server.addr()).is_ok());
    server.next().until(is_connected);
    assert_eq!(other.so_far(), []);
}

#[test]
fn c21_an_address_without_a_family_takes_both_families() {
    let registration = Registration::new();
    let configuration = registration.configure(Role::Server, &plenty());
    let server = Server::with(&registration, configuration, "[::]:0", &react(ignore));
    let configuration = registration.configure(Role::Client, &plenty());
    for host in ["127.0.0.1", "::1"] {
        let addr = SocketAddr::new(host.parse().unwrap(), server.addr().port());
        if UdpSocket::bind(SocketAddr::new(addr.ip(), 0)).is_err() {
            continue; // the machine lacks the family
        }
        let client = registration.open_connection(ignore);
        assert!(client.connect(&configuration, addr).is_ok());
        server.next().until(is_connected);
        client.until(is_connected);
    }
}

#[test]
fn c21_a_listener_of_one_family_rejects_the_other() {
    let registration = Registration::new();
    let configuration = registration.configure(Role::Server, &plenty());
    let server = Server::with(&registration, configuration, "0.0.0.0:0", &react(ignore));
    let port = server.addr().port();
    let configuration = registration.configure(Role::Client, &plenty());
    let inet = registration.open_connection(ignore);
    assert!(inet.connect(&configuration, (Ipv4Addr::LOCALHOST, port).into()).is_ok());
    server.next().until(is_connected);
    if UdpSocket::bind("[::1]:0").is_ok() {
        let inet6 = registration.open_connection(ignore);
        let addr = SocketAddr::new("::1".parse().unwrap(), port);
        assert!(inet6.connect(&configuration, addr).is_ok());
        let events = inet6.all();
        assert!(!events.iter().any(|seen| is_connected(&seen.event)), "{events:?}");
    }
}

#[test]
fn c21_a_specific_address_is_bound_alone_with_the_patch() {
    let registration = Registration::new();
    let server = Server::new(&registration, &plenty(), &react(ignore));
    assert_eq!(server.addr().ip(), Ipv4Addr::LOCALHOST);
    let neighbour = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), server.addr().port()));
    if is_patched("N8") {
        neighbour.expect("another address with the port is free");
    }
    UdpSocket::bind(server.addr()).expect_err("the address is taken");
}

#[test]
fn c21_the_port_stays_bound_while_connections_live() {
    let pair = Pair::new();
    let addr = pair.server.addr();
    pair.server.listener.stop();
    pair.server.listener.until(Event::is_last);
    UdpSocket::bind(addr).expect_err("a connection uses the socket");
    // The connection goes on without the listener.
    pair.client.send_datagram(b"still there").unwrap();
    pair.peer.until(|event| matches!(event, Event::Datagram(_)));
    pair.finish();
}

#[test]
fn c28_a_running_client_moves_to_another_socket_with_the_patch() {
    if lacks_patch("N13") {
        return; // it may use the closed socket
    }
    let (pair, streams) = Pair::with_streams(&plenty(), react(ignore));
    let stream = pair.client.open_stream(true, ignore).unwrap();
    assert!(stream.start_stream(0).is_ok());
    stream.send(b"start", false).unwrap();
    let peer_stream = streams.recv().unwrap();
    let is_received = |event: &Event| matches!(event, Event::Received { .. });
    peer_stream.until(is_received);
    let param = msquic::ffi::QUIC_PARAM_CONN_LOCAL_ADDRESS;
    let mut before = local_addr(&pair.client);
    for _ in 0..3 {
        let any = address::to_native(LOOPBACK.parse().unwrap());
        loop {
            match pair.client.set(param, any) {
                Status::INVALID_STATE => {}
                status => break assert!(status.is_ok(), "{status:?}"),
            }
            // The handshake is not confirmed yet; what the peer sends next confirms it.
            pair.peer.send_datagram(b"confirm").unwrap();
            pair.client.until(|event| matches!(event, Event::Datagram(_)));
        }
        let after = local_addr(&pair.client);
        assert_ne!(before, after); // the old socket is still open when the new one is bound
        before = after;
        stream.send(b"from there", false).unwrap();
        peer_stream.until(is_received);
    }
    drop((stream, peer_stream, streams));
    pair.finish();
}

/// A client that lets others use its socket, from `local` if that is given.
fn dial_shared(
    registration: &Registration,
    configuration: &Configuration,
    remote: SocketAddr,
    local: Option<SocketAddr>,
) -> Object {
    let client = start_shared(registration, configuration, remote, local);
    client.until(is_connected);
    client
}

fn start_shared(
    registration: &Registration,
    configuration: &Configuration,
    remote: SocketAddr,
    local: Option<SocketAddr>,
) -> Object {
    let client = registration.open_connection(ignore);
    assert!(client.set(msquic::ffi::QUIC_PARAM_CONN_SHARE_UDP_BINDING, 1_u8).is_ok());
    if let Some(local) = local {
        let local = address::to_native(local);
        assert!(client.set(msquic::ffi::QUIC_PARAM_CONN_LOCAL_ADDRESS, local).is_ok());
    }
    let _ = client.connect(configuration, remote);
    client
}

#[test]
fn c38_clients_without_a_port_share_one_with_the_patch() {
    if lacks_patch("N28") {
        return;
    }
    let registrations = [Registration::new(), Registration::new()];
    let servers = registrations.each_ref().map(|it| Server::new(it, &plenty(), &react(ignore)));
    let configurations = registrations.each_ref().map(|it| it.configure(Role::Client, &plenty()));
    let dial = |registration: usize, server: usize, local| {
        let (registration, configuration) =
            (&registrations[registration], &configurations[registration]);
        let client = dial_shared(registration, configuration, servers[server].addr(), local);
        (local_addr(&client), client, servers[server].next())
    };
    let all = [dial(0, 0, None), dial(0, 1, None), dial(1, 0, None), dial(1, 1, None)];
    assert!(all.iter().all(|(local, ..)| *local == all[0].0));
    assert!(all[0].0.ip().is_loopback(), "the address towards the peer");
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, all[0].0.port())).expect_err("the port is theirs");
    let elsewhere = SocketAddr::from(([127, 0, 0, 3], 0));
    let [one, two] = [dial(0, 0, Some(elsewhere)), dial(1, 1, Some(elsewhere))];
    assert_eq!(one.0, two.0);
    assert_eq!(one.0.ip(), elsewhere.ip());
    assert_ne!(one.0.port(), all[0].0.port());
}

#[test]
fn c47_sharing_is_set_without_waiting_with_the_patch() {
    if lacks_patch("N28") {
        return;
    }
    let registration = Registration::new();
    let server = Server::new(&registration, &plenty(), &react(ignore));
    let configuration = registration.configure(Role::Client, &plenty());
    let [one, two] = [(); 2].map(|()| {
        let client = registration.open_connection(ignore);
        // Driven, no call waits for a worker.
        let occupied = (!is_driven()).then(|| Occupied::new(&client));
        assert!(client.set(QUIC_PARAM_CONN_SHARE_AT_START, 1_u8).is_ok());
        drop(occupied);
        let _ = client.connect(&configuration, server.addr());
        client.until(is_connected);
        client
    });
    assert_eq!(local_addr(&one), local_addr(&two));
    let late = one.set(QUIC_PARAM_CONN_SHARE_AT_START, 1_u8);
    assert_eq!(late, Status::INVALID_STATE);
}

#[test]
fn c38_clients_use_the_port_of_a_listener_with_the_patch() {
    if lacks_patch("N28") {
        return;
    }
    let registration = Registration::new();
    let servers = [(); 2].map(|()| Server::new(&registration, &plenty(), &react(ignore)));
    let configuration = registration.configure(Role::Client, &plenty());
    let [one, two] = servers.each_ref().map(Server::addr);
    let crossed = [(one, two), (two, one)].map(|(local, remote)| {
        let client = dial_shared(&registration, &configuration, remote, Some(local));
        assert_eq!(local_addr(&client), local);
        client
    });
    for (client, server) in crossed.iter().zip(servers.iter().rev()) {
        let peer = server.next();
        peer.until(is_connected);
        client.send_datagram(b"from the listener's port").unwrap();
        peer.until(|event| matches!(event, Event::Datagram(_)));
    }
    // The listeners go on.
    for server in &servers {
        let client = dial_shared(&registration, &configuration, server.addr(), None);
        server.next().until(is_connected);
        client.shutdown(0);
    }
    let alone = UdpSocket::bind(LOOPBACK).unwrap();
    let refused = start_shared(&registration, &configuration, one, alone.local_addr().ok());
    let events = refused.all();
    assert!(!events.iter().any(|seen| is_connected(&seen.event)), "{events:?}");
}

#[test]
fn c38_a_shared_socket_stays_until_its_last_connection_with_the_patch() {
    if lacks_patch("N28") {
        return;
    }
    let registration = Registration::new();
    let server = Server::new(&registration, &plenty(), &react(ignore));
    let configuration = registration.configure(Role::Client, &plenty());
    let local = SocketAddr::from(([127, 0, 0, 9], 0)); // of this test alone
    let dial = || {
        let client = dial_shared(&registration, &configuration, server.addr(), Some(local));
        (client, server.next())
    };
    let ((first, first_peer), (second, second_peer)) = (dial(), dial());
    let addr = local_addr(&first);
    first.shutdown(0);
    first.until(Event::is_last);
    first_peer.until(Event::is_last);
    first.close();
    UdpSocket::bind(addr).expect_err("another connection uses the socket");
    second.send_datagram(b"still there").unwrap();
    second_peer.until(|event| matches!(event, Event::Datagram(_)));
    let (third, _third_peer) = dial();
    assert_eq!(local_addr(&third), addr);
    assert_eq!(local_addr(&second), addr);
}

#[test]
fn c6_addresses_are_socket_addresses() {
    let registration = Registration::new();
    let server = Server::new(&registration, &plenty(), &react(ignore));
    let configuration = registration.configure(Role::Client, &plenty());
    let client = registration.open_connection(ignore);
    assert!(client.connect(&configuration, server.addr()).is_ok());
    let peer = server.next();
    let seen = server.listener.until(|event| matches!(event, Event::NewConnection { .. })).event;
    let Event::NewConnection { local, remote, .. } = seen else { unreachable!() };
    client.until(is_connected);
    peer.until(is_connected);
    assert_eq!(local, Some(server.addr()));
    assert_eq!(remote, Some(local_addr(&client)));
    let param = msquic::ffi::QUIC_PARAM_CONN_REMOTE_ADDRESS;
    for (connection, expected) in [(&client, local), (&peer, remote)] {
        let addr = connection.get::<msquic::Addr>(param).unwrap();
        assert_eq!(address::from_native(&addr), expected);
    }
}

/// The address that a connection sends from.
fn local_addr(connection: &Object) -> SocketAddr {
    let addr = connection.get::<msquic::Addr>(msquic::ffi::QUIC_PARAM_CONN_LOCAL_ADDRESS);
    address::from_native(&addr.unwrap()).unwrap()
}
