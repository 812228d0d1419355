//! A hostile network: losses, disturbances and events between two transports.
#![allow(clippy::print_stdout, reason = "the outcomes, with `--nocapture`")]

use quinn_transport::{QuinnConfig, QuinnTransport};
use std::time::Duration;

#[test]
fn transfers_survive_a_hostile_network_or_report_it() {
    let outcomes = net_relay::matrix::run(|| {
        let config = QuinnConfig::new()
            .handshake_timeout(Duration::from_secs(30))
            .idle_timeout(Duration::from_secs(20));
        QuinnTransport::with_config(config).unwrap()
    });
    for (combination, outcome) in outcomes {
        println!("{combination}: {outcome:?}");
    }
}
