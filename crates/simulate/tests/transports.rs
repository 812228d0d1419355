//! The same nodes over real transports.

use simulate::{Loopback, Network, Plan, run_real};

fn run<N: Network>(network: &N) {
    let outcome = run_real(network, &Plan::real_time(6, 0.05, 1)).unwrap();
    assert!(outcome.counts.received > 50, "{outcome:?}");
}

#[test]
fn nodes_gossip_over_msquic() {
    run(&Loopback(|| Ok(msquic_transport::MsQuicTransport::new())));
}

#[test]
fn nodes_gossip_over_quinn() {
    run(&Loopback(|| Ok(quinn_transport::QuinnTransport::new())));
}

#[test]
fn nodes_gossip_over_tcp() {
    run(&Loopback(|| Ok(tcp_tls_transport::TcpTlsTransport::new())));
}
