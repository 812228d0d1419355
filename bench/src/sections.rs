//! The sections of the report: which contenders carry out which workloads.

use crate::contenders::{
    AGAIN, BATCHED, BBR, DRIVEN, DRIVEN_BATCHED, DRIVEN_ONE, GATHERED, JUMBO, METRICS, OVER_QUINN,
    OVER_QUINN_JUMBO, OVER_TCP, OWN_SOCKETS, POLLING, PUBLISHED, TCP_GATHERED, UNPATCHED,
    UNPATCHED_MUTUAL,
};
use crate::network::NETWORKS;
use crate::workload::Workload;

/// A section before it is measured.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// The first is what the rest are compared with.
    pub(crate) contenders: Vec<&'static str>,
    /// The name of each workload.
    pub(crate) workloads: Vec<(String, Workload)>,
    /// How many rounds a full run has.
    pub(crate) rounds: usize,
}

/// Returns all sections, in the order of the report.
pub(crate) fn all() -> Vec<Plan> {
    vec![
        Plan {
            name: "messages",
            title: "One connection",
            contenders: vec![
                "ours",
                BATCHED,
                DRIVEN,
                DRIVEN_BATCHED,
                DRIVEN_ONE,
                OVER_QUINN,
                OVER_TCP,
                "quinn",
                GATHERED,
                "s2n-quic",
                "TCP+TLS",
                TCP_GATHERED,
                "raw msquic",
                UNPATCHED,
                PUBLISHED,
            ],
            workloads: vec![
                one_way(1, 128, 300_000),
                one_way(1, 4 << 10, 40_000),
                one_way(1, 64 << 10, 4000),
                one_way(1, 1 << 20, 250),
                ping_pong(),
            ],
            rounds: 7,
        },
        Plan {
            name: "polling",
            title: "Threads that poll, and threads that wait",
            contenders: vec!["ours", POLLING, DRIVEN],
            workloads: vec![ping_pong(), one_way(1, 128, 300_000), one_way(1, 64 << 10, 4000)],
            rounds: 7,
        },
        Plan {
            name: "jumbo",
            title: "Packets of up to 9000 bytes",
            contenders: vec![JUMBO, "ours", OVER_QUINN_JUMBO, OVER_QUINN, "TCP+TLS"],
            workloads: vec![one_way(1, 64 << 10, 4000), one_way(1, 1 << 20, 250)],
            rounds: 5,
        },
        Plan {
            name: "connections",
            title: "Many connections, and slow readers",
            contenders: PEERS.to_vec(),
            workloads: vec![
                one_way(16, 128, 300_000),
                one_way(16, 64 << 10, 4000),
                one_way(256, 128, 300_000),
                one_way(256, 64 << 10, 4000),
                (
                    "128 B from one task to 16 connections".to_owned(),
                    Workload::FanOut { connections: 16, size: 128, count: 200_000 },
                ),
                (
                    "64 KiB beside a peer that does not read".to_owned(),
                    Workload::SlowReader { size: 64 << 10, count: 3000 },
                ),
            ],
            rounds: 5,
        },
        Plan {
            name: "handshakes",
            title: "Handshakes with a message and a close",
            contenders: vec![
                "ours",
                DRIVEN,
                OVER_QUINN,
                OVER_TCP,
                "quinn, client certificates",
                "s2n-quic, client certificates",
                "TCP+TLS, client certificates",
                "raw msquic, client certificates",
                UNPATCHED_MUTUAL,
                "quinn",
                "s2n-quic",
                "TCP+TLS",
                PUBLISHED,
            ],
            workloads: vec![handshakes(1), handshakes(16)],
            rounds: 5,
        },
        Plan {
            name: "memory",
            title: "Resident memory of idle connections, both ends",
            contenders: PEERS.to_vec(),
            workloads: vec![idle(1000)],
            rounds: 3,
        },
        Plan {
            name: "ten-thousand",
            title: "10,000 connections at once",
            contenders: PEERS.to_vec(),
            workloads: vec![idle(10_000)],
            rounds: 1,
        },
        Plan {
            name: "network",
            title: "A bad network",
            contenders: vec!["ours", BBR, OVER_QUINN, "quinn", "s2n-quic"],
            workloads: NETWORKS
                .iter()
                .enumerate()
                .map(|(network, (name, _))| {
                    let transfer = Workload::Transfer { network, seed: 0, milliseconds: 4000 };
                    ((*name).to_owned(), transfer)
                })
                .collect(),
            rounds: 2,
        },
        Plan {
            name: "sharing",
            title: "Shared sockets, and sockets of their own",
            contenders: vec!["ours", OWN_SOCKETS],
            workloads: vec![one_way(16, 128, 300_000), one_way(256, 128, 300_000), handshakes(16)],
            rounds: 5,
        },
        Plan {
            name: "telemetry",
            title: "With a recorder of metrics, and without one",
            contenders: vec![METRICS, DRIVEN_ONE, AGAIN],
            workloads: vec![one_way(1, 128, 300_000)],
            rounds: 9,
        },
    ]
}

/// The contenders of workloads with several connections.
const PEERS: &[&str] = &["ours", DRIVEN, OVER_QUINN, OVER_TCP, "quinn", "s2n-quic", "TCP+TLS"];

fn one_way(connections: usize, size: usize, count: usize) -> (String, Workload) {
    let shown = match size {
        small if small < 1 << 10 => format!("{small} B"),
        middle if middle < 1 << 20 => format!("{} KiB", middle >> 10),
        large => format!("{} MiB", large >> 20),
    };
    let over =
        if connections > 1 { format!(" over {connections} connections") } else { String::new() };
    (format!("{shown} one-way{over}"), Workload::OneWay { connections, size, count })
}

fn ping_pong() -> (String, Workload) {
    ("128 B ping-pong".to_owned(), Workload::PingPong { size: 128, count: 3000 })
}

fn handshakes(at_once: usize) -> (String, Workload) {
    let shown =
        if at_once == 1 { "one at a time".to_owned() } else { format!("{at_once} at once") };
    (format!("handshakes, {shown}"), Workload::Handshakes { at_once, count: 320 })
}

fn idle(connections: usize) -> (String, Workload) {
    (format!("{connections} idle connections"), Workload::Idle { connections })
}
