//! Each option of the configuration reaches msquic.

mod common;

use common::{ALPN, credentials, has_patch, run};
use futures_util::FutureExt;
use msquic_transport::{
    CongestionControl, ExecutionProfile, KeyLog, MsQuicNetConnection, MsQuicTransport,
    MsQuicTransportConfig, Settings,
};
use net_traits::{DatagramError, NetConnection, NetIncomingRequest, NetListener, NetTransport};
use std::path::Path;
use std::time::Duration;

/// Two peers with the same configuration.
async fn pair(config: MsQuicTransportConfig) -> [MsQuicNetConnection; 2] {
    two(config.clone(), config).await
}

/// A dialler and a listener.
async fn two(
    dialler: MsQuicTransportConfig,
    listener: MsQuicTransportConfig,
) -> [MsQuicNetConnection; 2] {
    let (server, client) = credentials();
    let transport = MsQuicTransport::with_config(listener).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = transport.create_listener(address, &[ALPN], server).await.unwrap();
    let dialler = MsQuicTransport::with_config(dialler).unwrap();
    let dial = dialler.connect(listener.local_addr(), &[ALPN], client);
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial, accept);
    [dialled.unwrap(), accepted]
}

#[test]
fn each_option_is_in_effect_at_both_peers() {
    run(async {
        let (config, settings) = (MsQuicTransportConfig::new, Settings::new);
        let second = Duration::from_secs(1);
        let is_in_effect = async |expected: Settings, config| {
            let [client, server] = pair(config).await;
            let mut all = true;
            for connection in [client, server] {
                let in_effect = connection.quic_settings().await.unwrap();
                all &= expected.clone().or(in_effect.clone()) == in_effect;
            }
            all
        };
        let bbr = msquic_async::CongestionControl::Bbr;
        for (config, expected) in [
            (
                config().congestion_control(CongestionControl::Bbr),
                settings().congestion_control(bbr),
            ),
            (config().initial_rtt(second), settings().initial_rtt(second)),
            (config().initial_window_packets(77), settings().initial_window_packets(77)),
            (config().minimum_mtu(1300), settings().minimum_mtu(1300)),
            (config().maximum_mtu(1300), settings().maximum_mtu(1300)),
            (config().stream_receive_window(65_536), settings().stream_receive_window(65_536)),
            (config().connection_receive_window(100_000), settings().connection_window(100_000)),
            (config().disconnect_timeout(second), settings().disconnect_timeout(second)),
            (config().pacing(false), settings().pacing(false)),
            (config().ecn(true), settings().ecn(true)),
            (config().max_inbound_streams(3), settings().peer_uni_streams(3)),
            (config().max_inbound_requests(3), settings().peer_bidi_streams(3)),
            (config().idle_timeout(9 * second), settings().idle_timeout(9 * second)),
            (config().keep_alive_interval(second), settings().keep_alive_interval(second)),
            (config().idle_timeout(6 * second), settings().keep_alive_interval(2 * second)),
            (config().handshake_timeout(second), settings().handshake_idle_timeout(second)),
            (config().quic(settings().migration(false)), settings().migration(false)),
            // What is given there wins over the option and over the transport's own value.
            (
                config().ecn(false).quic(settings().ecn(true).peer_uni_streams(5)),
                settings().ecn(true).peer_uni_streams(5),
            ),
        ] {
            assert!(is_in_effect(expected.clone(), config.clone()).await, "{config:?}");
            let default = MsQuicTransportConfig::new();
            assert!(
                !is_in_effect(expected, default).await,
                "the default shows nothing: {config:?}"
            );
        }
    });
}

#[test]
fn a_value_that_cannot_be_used_is_refused_by_the_name_of_its_option() {
    let (config, settings) = (MsQuicTransportConfig::new, Settings::new);
    let (nanosecond, hour) = (Duration::from_nanos(1), Duration::from_secs(3600));
    for (config, option) in [
        (config().max_sent_message(0), "max_sent_message"),
        (config().max_received_message(1 << 40), "max_received_message"),
        (config().max_memory(1000), "max_memory"),
        (config().send_queue(0), "send_queue"),
        (config().max_send_queue(usize::MAX), "max_send_queue"),
        (config().receive_queue(0), "receive_queue"),
        (config().stream_op_timeout(nanosecond), "stream_op_timeout"),
        (config().disconnect_timeout(hour), "disconnect_timeout"),
        (config().handshake_timeout(Duration::MAX), "handshake_timeout"),
        (config().idle_timeout(nanosecond), "idle_timeout"),
        (config().keep_alive_interval(nanosecond), "keep_alive_interval"),
        (config().max_connections(0), "max_connections"),
        (config().max_connections_per_ip(0), "max_connections_per_ip"),
        (config().backlog(0), "backlog"),
        (config().minimum_mtu(1400).maximum_mtu(1399), "minimum_mtu"),
        (config().stream_receive_window(4095), "stream_receive_window"),
        (config().quic(settings().send_buffering(true)), "quic"),
        (config().quic(settings().initial_window_packets(0)), "quic"),
    ] {
        let error = MsQuicTransport::with_config(config).unwrap_err();
        assert_eq!(error.option, option, "{error}");
    }
}

#[test]
fn senders_begin_with_the_given_mtu_and_window() {
    run(async {
        let config = MsQuicTransportConfig::new()
            .minimum_mtu(1400)
            .maximum_mtu(1400)
            .initial_window_packets(100);
        for connection in pair(config).await {
            let statistics = connection.statistics().await.unwrap();
            assert_eq!(statistics.path_mtu, 1400);
            assert!(statistics.congestion_window >= 100 * 1300, "{statistics:?}");
        }
        let [client, _server] = pair(MsQuicTransportConfig::new()).await;
        let statistics = client.statistics().await.unwrap();
        assert!(statistics.congestion_window < 100 * 1300, "{statistics:?}");
    });
}

#[test]
fn jumbo_packets_are_used_if_both_peers_permit_them() {
    run(async {
        let jumbo = MsQuicTransportConfig::new().maximum_mtu(9000);
        let has_jumbo = has_patch("N62") && !cfg!(target_os = "macos");
        let peers =
            [(jumbo.clone(), if has_jumbo { 9000 } else { 1500 }), (Default::default(), 1500)];
        for (peer, expected) in peers {
            let [client, server] = two(jumbo.clone(), peer).await;
            let mtu = async || client.statistics().await.unwrap().path_mtu;
            let exchange = async || {
                client.send(&[7; 10_000]).await.unwrap();
                assert_eq!(server.recv().await.unwrap().0.len(), 10_000);
            };
            while mtu().await < expected {
                exchange().await;
            }
            for _ in 0..10 {
                exchange().await; // a larger size would be found by the next packets
            }
            assert_eq!(mtu().await, expected);
        }
    });
}

#[test]
#[cfg(target_os = "linux")]
fn ecn_is_used_if_the_path_carries_it() {
    run(async {
        let [client, server] = pair(MsQuicTransportConfig::new().ecn(true)).await;
        while !client.statistics().await.unwrap().ecn_capable {
            client.send(b"a packet with a mark").await.unwrap();
            server.recv().await.unwrap();
        }
        let [client, _server] = pair(MsQuicTransportConfig::new()).await;
        assert!(!client.statistics().await.unwrap().ecn_capable);
    });
}

#[test]
fn peers_without_datagrams_are_told_apart() {
    run(async {
        let config = MsQuicTransportConfig::new().datagram_queue(0);
        let [with, without] = two(MsQuicTransportConfig::new(), config).await;
        assert_eq!(without.datagrams().err(), Some(DatagramError::Unsupported));
        let datagrams = with.datagrams().unwrap();
        assert_eq!(datagrams.max_datagram_size(), None);
        let sent = datagrams.send_datagram("not taken".into());
        assert_eq!(sent, Err(DatagramError::Unsupported));
    });
}

#[test]
fn datagrams_that_are_not_received_are_bounded_and_counted() {
    run(async {
        let [client, server] = pair(MsQuicTransportConfig::new().datagram_queue(16 * 1024)).await;
        let (sender, receiver) = (client.datagrams().unwrap(), server.datagrams().unwrap());
        while receiver.datagram_statistics().arrived < 200 {
            match sender.send_datagram(vec![0; 1000].into()) {
                Ok(()) | Err(DatagramError::WouldBlock) => {}
                // It is not known yet that the peer takes them.
                Err(DatagramError::Unsupported) => {}
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
        let arrived = || receiver.datagram_statistics().arrived;
        let (before, mut kept) = (arrived(), 0);
        while receiver.recv_datagram().now_or_never().is_some() {
            kept += 1;
        }
        let meanwhile = arrived() - before; // what was on its way
        assert!((1..50 + meanwhile).contains(&kept), "{kept} kept, {meanwhile} arrived meanwhile");
    });
}

/// In a process of its own, whose threads nothing else starts.
#[test]
#[cfg(target_os = "linux")]
fn the_profile_decides_about_threads() {
    const NAME: &str = "the_profile_decides_about_threads";
    if std::env::var_os(NAME).is_none() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.env(NAME, "1").args(["--exact", NAME]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let open = |profile| {
        MsQuicTransport::with_config(MsQuicTransportConfig::new().execution_profile(profile))
    };
    let _first = open(ExecutionProfile::LowLatency).unwrap();
    let few = threads();
    let _second = open(ExecutionProfile::LowLatency).unwrap();
    assert_eq!(threads(), few, "the threads are shared");
    let _third = open(ExecutionProfile::MaxThroughput).unwrap();
    assert!(threads() > few, "it has threads of its own");
}

#[test]
fn both_peers_log_their_secrets_if_the_application_asks() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let logged = [directory.path().join("dialler"), directory.path().join("listener")];
        let [dialler, listener] = logged.each_ref().map(|path| {
            let key_log = KeyLog::file(path).unwrap();
            MsQuicTransportConfig::new().key_log(Some(key_log))
        });
        assert!(format!("{dialler:?}").contains("key_log: Some(KeyLog { .. })"), "{dialler:?}");
        let _connected = two(dialler, listener).await;
        // They are written in the background.
        let read = async |path: &Path| loop {
            let text = std::fs::read_to_string(path).unwrap();
            if text.lines().count() >= 4 && text.ends_with('\n') {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let [one, other] = [read(&logged[0]).await, read(&logged[1]).await];
        assert_eq!(one, other);
        let mut randoms: Vec<_> = one.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
        randoms.dedup();
        assert!(randoms.len() == 1 && randoms[0].len() == 64, "one connection: {randoms:?}");
        for label in [
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
            "SERVER_HANDSHAKE_TRAFFIC_SECRET",
            "CLIENT_TRAFFIC_SECRET_0",
            "SERVER_TRAFFIC_SECRET_0",
        ] {
            assert!(one.lines().any(|line| line.starts_with(label)), "{label} in {one}");
        }
    });
}
