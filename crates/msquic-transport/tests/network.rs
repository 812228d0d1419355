//! A hostile network: losses, disturbances and events between two transports.
#![allow(clippy::print_stdout, reason = "the outcomes, with `--nocapture`")]

mod common;

use msquic_transport::{MsQuicTransport, MsQuicTransportConfig};
use std::time::Duration;

#[test]
fn transfers_survive_a_hostile_network_or_report_it() {
    common::drive_if_wanted();
    let outcomes = net_relay::matrix::run(|| {
        let config = MsQuicTransportConfig::new()
            .handshake_timeout(Duration::from_secs(30))
            .idle_timeout(Duration::from_secs(20));
        MsQuicTransport::with_config(config).unwrap()
    });
    for (combination, outcome) in outcomes {
        println!("{combination}: {outcome:?}");
    }
}
