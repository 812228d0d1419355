//! `netmsg ping` and `netmsg perf`.

use crate::program::{User, exit};

#[test]
fn pings_return_over_each_transport() {
    for transport in ["quic", "quinn", "tcp", "fallback"] {
        let (listener, peer) = User::pair();
        let listen = listener.listen(&["--transport", transport]);
        let (address, count) = (listen.address(), "3");
        let pinged = peer.run(&[
            "--transport",
            transport,
            "ping",
            "--count",
            count,
            "--interval",
            "1",
            "--size",
            "65536",
            &address,
        ]);
        assert_eq!(pinged.code, exit::SUCCESS, "{transport}: {pinged:?}");
        assert_eq!(pinged.events.iter().filter(|it| it["event"] == "pong").count(), 3);
        assert_eq!(pinged.find("connected")["peer"], listener.identity.as_str());
        assert_eq!(pinged.find("summary")["count"], 3);
    }
}

#[test]
fn throughput_latency_and_loss_are_measured_over_each_transport() {
    for transport in ["quic", "quinn", "tcp", "fallback"] {
        let (listener, peer) = User::pair();
        let listen = listener.listen(&["--transport", transport, "--perf"]);
        let measured = peer.run(&[
            "--transport",
            transport,
            "perf",
            "--seconds",
            "1",
            "--round-trips",
            "10",
            "--datagrams",
            "20",
            &listen.address(),
        ]);
        assert_eq!(measured.code, exit::SUCCESS, "{transport}: {measured:?}");
        assert_eq!(measured.find("latency")["count"], 10);
        for direction in ["upload", "download"] {
            assert!(measured.find(direction)["bytes"].as_u64().unwrap() > 0, "{transport}");
        }
        let loss = measured.find("loss");
        match transport {
            "tcp" => assert!(loss["sent"].is_null()),
            _ => assert!(loss["sent"].as_u64().unwrap() >= loss["received"].as_u64().unwrap()),
        }
    }
}

#[test]
fn measurements_must_be_allowed() {
    let (listener, peer) = User::pair();
    let listen = listener.listen(&[]);
    let measured = peer.run(&["perf", &listen.address()]);
    measured.failed(exit::REJECTED, "cannot connect to");
}
