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
fn a_chart_shows_latency_throughput_and_loss() {
    let (listener, peer) = User::pair();
    let listen = listener.listen(&["--perf"]);
    let short = ["perf", "--seconds", "1", "--round-trips", "10", "--datagrams", "20"];
    let perf = |file: &str| peer.run(&[&short[..], &["--chart", file, &listen.address()]].concat());
    let file = peer.path("perf.svg").into_os_string().into_string().unwrap();
    let measured = perf(&file);
    assert_eq!(measured.code, exit::SUCCESS, "{measured:?}");
    assert_eq!(measured.find("chart")["file"], file.as_str());
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
    assert_eq!(svg.matches("<polyline").count(), 3, "round trips and two directions: {svg}");
    for part in [&listener.identity, "percentile", "upload, MB/s", "download, MB/s", "20 datagrams"]
    {
        assert!(svg.contains(part), "no {part}: {svg}");
    }
    for points in svg.split(" points=\"").skip(1) {
        let (points, _) = points.split_once('"').unwrap();
        assert!(points.contains(' '), "more than a point: {svg}");
    }
    let nowhere = format!("{file}/perf.svg");
    perf(&nowhere).failed(exit::FAILED, &format!("cannot write {nowhere}"));
}

#[test]
fn measurements_must_be_allowed() {
    let (listener, peer) = User::pair();
    let listen = listener.listen(&[]);
    let measured = peer.run(&["perf", &listen.address()]);
    measured.failed(exit::REJECTED, "cannot connect to");
}
