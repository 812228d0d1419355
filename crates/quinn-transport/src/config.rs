//! `QuinnConfig`: limits and timeouts.

use crate::congestion::Windows;
use net_kit::quic::{CongestionControl, DATAGRAM, HEADERS};
use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig};
use std::sync::Arc;

/// How much data may be sent without an acknowledgement, in bytes.
const SEND_WINDOW: u64 = 4 * 1024 * 1024;

net_kit::quic_options! {
    transport_options: stream_receive_window = 384 * 1024, "384 KiB",
        connection_receive_window = 16 * 1024 * 1024, "16 MiB";
    /// Limits and timeouts of a [`QuinnTransport`](crate::QuinnTransport).
    ///
    /// In addition to the queues of a connection, quinn buffers up to 4 MiB of sent data that the
    /// peer has not acknowledged, and received data up to the windows. It counts packets over IPv4
    /// as 20 bytes larger.
    ///
    /// ```
    /// use quinn_transport::{QuinnConfig, QuinnTransport};
    /// use std::time::Duration;
    ///
    /// let config = QuinnConfig::new().idle_timeout(Duration::from_secs(60)).send_streams(2);
    /// let transport = QuinnTransport::with_config(config)?;
    /// # Ok::<(), net_traits::ConfigError>(())
    /// ```
    pub struct QuinnConfig {
        /// The longest message, in bytes, in both directions. Default: 64 MiB.
        max_message_size: usize = 64 * 1024 * 1024, 1..=u32::MAX as usize;
    }
}

impl QuinnConfig {
    /// Datagrams of any permitted size are received, at least those of Ethernet.
    pub(crate) fn endpoint(&self) -> EndpointConfig {
        let mut endpoint = EndpointConfig::default();
        let payload = self.maximum_mtu.max(1500) - 28; // without the headers of IPv4 and UDP
        let _ = endpoint.max_udp_payload_size(payload); // it is within the limits of quinn
        endpoint
    }

    pub(crate) fn transport(&self) -> TransportConfig {
        let (least, largest) = (self.minimum_mtu - HEADERS, self.maximum_mtu - HEADERS);
        let window = u64::from(self.initial_window_packets) * u64::from(least);
        let datagrams = (self.datagram_queue > 0).then_some(self.datagram_queue.max(DATAGRAM));
        let mut transport = TransportConfig::default();
        let controller: Arc<dyn ControllerFactory + Send + Sync> = match self.congestion_control {
            CongestionControl::Bbr => Arc::new(BbrConfig::default().initial_window(window).clone()),
            _ => Arc::new(CubicConfig::default().initial_window(window).clone()),
        };
        transport
            .congestion_controller_factory(Arc::new(Windows(controller)))
            .initial_rtt(self.initial_rtt)
            .min_mtu(least)
            .initial_mtu(least)
            .mtu_discovery_config(Some(MtuDiscoveryConfig::default().upper_bound(largest).clone()))
            .stream_receive_window(self.stream_window().into())
            .receive_window(self.connection_receive_window.into())
            .send_window(SEND_WINDOW)
            .max_concurrent_uni_streams(self.max_inbound_streams.into())
            .max_concurrent_bidi_streams(self.max_inbound_requests.into())
            .datagram_receive_buffer_size(datagrams)
            .datagram_send_buffer_size(datagrams.unwrap_or(0))
            .max_idle_timeout(IdleTimeout::try_from(self.idle_timeout).ok())
            .keep_alive_interval(self.keep_alive());
        transport
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QuinnTransport;
    use crate::congestion::Window;
    use crate::native::{Native, Quinn};
    use net_kit::backend::Backend;
    use net_kit::handshake::Handshake;
    use net_kit::tls::TlsIdentity;
    use net_traits::{
        NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
    };
    use quinn::Connection;
    use quinn::congestion::{Bbr, Controller, Cubic};
    use std::time::Duration;

    /// Connects with these configurations, and returns quinn's connection of the dialler.
    async fn dial(dialler: QuinnConfig, listener: QuinnConfig) -> Connection {
        let trusting = || NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let transport = QuinnTransport::with_config(listener).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = transport.create_listener(address, &["test/1"], trusting()).await.unwrap();
        let credential = trusting();
        let handshake = Handshake::new(
            credential.identity(),
            listener.local_addr(),
            vec!["test/1".to_owned()],
            Duration::from_secs(10),
        );
        dialler.validate().unwrap();
        let quinn = Quinn::new(&dialler);
        let identity = TlsIdentity::new(credential).unwrap();
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (dialled, accepted) = tokio::join!(quinn.dial(&identity, &handshake), accept);
        tokio::spawn(async move { (accepted.watch_close().await, listener) });
        dialled.unwrap().native.connection
    }

    fn controller(connection: &Connection) -> Box<dyn Controller> {
        let window = connection.congestion_state().into_any().downcast::<Window>();
        window.expect("each path has one").controller
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let hang = Duration::from_secs(60);
        runtime.block_on(async { tokio::time::timeout(hang, test).await.expect("the test hangs") });
    }

    #[test]
    fn options_of_the_sender_are_passed_to_quinn() {
        run(async {
            let default = dial(QuinnConfig::new(), QuinnConfig::new()).await;
            assert!(controller(&default).into_any().is::<Cubic>());
            assert_eq!(default.congestion_state().initial_window(), 10 * 1200);
            let config = QuinnConfig::new()
                .congestion_control(CongestionControl::Bbr)
                .initial_window_packets(100)
                .minimum_mtu(1348)
                .maximum_mtu(1348);
            let connection = dial(config, QuinnConfig::new()).await;
            assert!(controller(&connection).into_any().is::<Bbr>());
            assert_eq!(connection.congestion_state().initial_window(), 100 * 1300);
            assert_eq!(connection.stats().path.current_mtu, 1300);
        });
    }

    #[test]
    fn the_path_is_measured() {
        run(async {
            let connection = dial(QuinnConfig::new(), QuinnConfig::new()).await;
            let native = Native::new(connection, &Arc::default());
            let sample = Quinn::path(&native);
            assert!(sample.rtt.unwrap() > Duration::ZERO, "{sample:?}");
            assert!(sample.packets_sent > sample.packets_lost, "{sample:?}");
        });
    }

    #[test]
    fn path_mtu_discovery_stops_at_the_maximum() {
        run(async {
            let config = QuinnConfig::new().maximum_mtu(1348);
            let connection = dial(config, QuinnConfig::new()).await;
            while connection.stats().path.current_mtu < 1300 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(connection.stats().path.current_mtu, 1300);
        });
    }

    #[test]
    fn jumbo_packets_are_used_if_both_peers_permit_them() {
        run(async {
            let jumbo = || QuinnConfig::new().maximum_mtu(9000);
            let connection = dial(jumbo(), jumbo()).await;
            while connection.stats().path.current_mtu < 8900 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }

    #[test]
    fn the_receive_windows_limit_the_peer() {
        run(async {
            for (config, window) in [
                (QuinnConfig::new().stream_receive_window(5000), 5000),
                (QuinnConfig::new().connection_receive_window(1024 * 1024), 24 * 1024),
                (QuinnConfig::new().connection_receive_window(5000), 4096),
            ] {
                let connection = dial(QuinnConfig::new(), config).await;
                let (mut write, _) = connection.open_bi().await.unwrap();
                assert_eq!(write.write(&[0; 100_000]).await.unwrap(), window);
            }
        });
    }

    #[test]
    fn the_initial_rtt_is_passed_to_quinn() {
        let config = QuinnConfig::new().initial_rtt(Duration::from_millis(77)).transport();
        assert!(format!("{config:?}").contains("initial_rtt: 77ms"));
    }

    #[test]
    fn keep_alives_follow_a_shorter_idle_timeout() {
        let seconds = Duration::from_secs;
        let default = QuinnConfig::new().keep_alive_interval(seconds(10));
        for (config, interval) in [
            (default.clone(), "Some(10s)"),
            (default.clone().idle_timeout(seconds(6)), "Some(2s)"),
            (default.idle_timeout(seconds(6)).keep_alive_interval(seconds(1)), "Some(1s)"),
            (QuinnConfig::new().keep_alive_interval(Duration::ZERO), "None"),
        ] {
            let shown = format!("{:?}", config.transport());
            assert!(shown.contains(&format!("keep_alive_interval: {interval}")), "{shown}");
        }
    }

    #[test]
    fn values_that_cannot_be_used_are_named() {
        let config = QuinnConfig::new;
        for (config, option) in [
            (config().max_message_size(1 << 40), "max_message_size"),
            (config().max_message_size(0), "max_message_size"),
            (config().send_streams(0), "send_streams"),
            (config().send_streams(1025), "send_streams"),
            (config().idle_timeout(Duration::from_nanos(1)), "idle_timeout"),
            (config().keep_alive_interval(Duration::from_nanos(1)), "keep_alive_interval"),
            (config().keep_alive_interval(Duration::MAX), "keep_alive_interval"),
            (config().max_inbound_streams(0), "max_inbound_streams"),
            (config().max_connections_per_ip(0), "max_connections_per_ip"),
            (config().backlog(0), "backlog"),
            (config().idle_timeout(Duration::MAX), "idle_timeout"),
            (config().datagram_queue(usize::MAX), "datagram_queue"),
            (config().initial_rtt(Duration::ZERO), "initial_rtt"),
            (config().initial_window_packets(1), "initial_window_packets"),
            (config().minimum_mtu(1247), "minimum_mtu"),
            (config().minimum_mtu(1400).maximum_mtu(1399), "minimum_mtu"),
            (config().maximum_mtu(9001), "maximum_mtu"),
            (config().stream_receive_window(4095), "stream_receive_window"),
            (config().connection_receive_window(1 << 31), "connection_receive_window"),
        ] {
            assert_eq!(config.validate().unwrap_err().option, option);
        }
        assert_eq!(config().validate(), Ok(()));
    }
}
