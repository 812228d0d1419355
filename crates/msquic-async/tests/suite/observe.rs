//! What can be observed of a connection: statistics and changes.

use super::peers::{Pair, credential, pair_with, settings};
use crate::executors::run;
use bytes::Bytes;
use msquic_async::{
    CongestionControl, Connection, LibraryVersion, Registration, StreamLimits, library_patches,
    library_version,
};
use msquic_async::{ConnectionChange, ConnectionError, DatagramOutcome};
use std::time::Duration;

async fn datagram_pair() -> Pair {
    pair_with(settings().datagrams(true), StreamLimits::default()).await
}

#[test]
fn nothing_is_made_up_before_the_first_sample() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let connection = Connection::new(&registration, credential()).unwrap();
        let statistics = connection.statistics().await.unwrap();
        assert_eq!((statistics.min_rtt, statistics.max_rtt), (None, None));
        assert!(statistics.rtt > Duration::ZERO, "the initial estimate");
        assert!(statistics.rtt < Duration::from_secs(10), "{:?}", statistics.rtt);
    });
}

#[test]
fn statistics_count_packets_streams_and_datagrams() {
    run(async || {
        let Pair { client, server, .. } = datagram_pair().await;
        for size in [1, 100, 1000] {
            let outcome = client.send_datagram_tracked(&Bytes::from(vec![0; size])).unwrap();
            assert_eq!(outcome.await, DatagramOutcome::Acknowledged);
            server.receive_datagram().await.unwrap();
        }
        for _ in 0..2 {
            let mut stream = client.open_send_stream().await.unwrap();
            stream.send("news").await.unwrap();
            server.accept_inbound_uni_stream().await.unwrap();
        }
        let (ours, theirs) =
            (client.statistics().await.unwrap(), server.statistics().await.unwrap());
        let (min, max) = (ours.min_rtt.unwrap(), ours.max_rtt.unwrap());
        assert!(min <= ours.rtt && ours.rtt <= max && max < Duration::from_secs(10), "{ours:?}");
        assert!(ours.rtt_variance.is_some() && ours.ecn_congestion_events == Some(0), "{ours:?}");
        assert!(ours.congestion_window > 0 && ours.path_mtu >= 1200, "{ours:?}");
        assert!(0 < ours.ack_eliciting_packets && ours.ack_eliciting_packets <= ours.sent_packets);
        let is_told = library_version().unwrap() >= SINCE_BYTES_IN_FLIGHT;
        assert_eq!(ours.bytes_in_flight.is_some(), is_told);
        assert_eq!((ours.datagrams.sent, ours.datagrams.acknowledged), (3, 3));
        assert_eq!((ours.datagrams.lost, ours.datagrams.canceled), (0, 0));
        assert_eq!((theirs.datagrams.received, theirs.datagrams.dropped), (3, 0));
        assert_eq!((ours.opened_streams.unidirectional, ours.opened_streams.bidirectional), (2, 0));
        assert_eq!(theirs.inbound_streams, ours.opened_streams);
        assert_eq!(theirs.opened_streams, ours.inbound_streams);
    });
}

#[test]
fn changes_wait_until_they_are_read() {
    run(async || {
        let Pair { client, server, .. } = datagram_pair().await;
        let (mut size, mut streams) = (None, None);
        while size.is_none() || streams.is_none() {
            match client.next_change().await.unwrap() {
                ConnectionChange::DatagramSize(told) => size = told,
                ConnectionChange::StreamsAvailable { bidirectional, unidirectional } => {
                    streams = Some((bidirectional, unidirectional));
                }
                change => panic!("{change:?}"),
            }
        }
        assert!(size.unwrap() > 1000);
        assert_eq!(streams, Some((8, 8)), "what the peer's settings allow");

        // The peer allows more; sizes may change besides while the MTU is being found.
        server.set_settings(&msquic_async::Settings::new().peer_uni_streams(20)).await.unwrap();
        loop {
            if let ConnectionChange::StreamsAvailable { bidirectional, unidirectional } =
                client.next_change().await.unwrap()
            {
                assert_eq!((bidirectional, unidirectional), (8, 20));
                break;
            }
        }
        client.shutdown(3, "");
        let end = loop {
            match server.next_change().await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(end, ConnectionError::ClosedByPeer { code: 3, .. }), "{end:?}");
    });
}

const SINCE_BYTES_IN_FLIGHT: LibraryVersion =
    LibraryVersion { major: 2, minor: 6, patch: 0, build: 0 };

#[test]
fn the_settings_in_effect_are_those_given_and_the_defaults() {
    run(async || {
        let second = Duration::from_secs(1);
        let given = settings()
            .congestion_control(CongestionControl::Bbr)
            .initial_window_packets(100)
            .initial_rtt(second)
            .disconnect_timeout(5 * second)
            .mtu_discovery_interval(second)
            .stream_receive_window(1 << 20)
            .ecn(true)
            .hystart(library_patches().iter().any(|patch| patch.fault == "N42"))
            .pacing(false);
        let Pair { client, server, .. } = pair_with(given.clone(), StreamLimits::default()).await;
        for connection in [client, server] {
            let in_effect = connection.settings().await.unwrap();
            assert_eq!(given.clone().or(in_effect.clone()), in_effect);
            assert_eq!(in_effect, in_effect.clone().max_ack_delay(Duration::from_millis(25)));
        }
    });
}
