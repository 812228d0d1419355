//! Attackers that make an endpoint hold as much as they can: its resident memory stays below what
//! `docs/security.md` states.

#![allow(clippy::print_stdout, reason = "the figures of a test that fails")]

use net_kit::options::TransportOptions;
use quinn_transport::QuinnConfig;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};
use tcp_tls_transport::TcpTlsConfig;

/// Each process of an attacker has so many connections, see `src/attacks.rs`.
const CONNECTIONS: f64 = 4.0;

const ATTACKERS: usize = 3;

/// How long an attack lasts at most.
const ATTACK: Duration = Duration::from_secs(20);

/// An attack ends when memory has not grown for so long.
const STILL: Duration = Duration::from_secs(2);

/// What a process needs that holds nothing, and what an allocator keeps of memory that was freed.
const PROCESS: f64 = 100.0;

/// What a connection that was just ended still holds: its message.
const ENDED: f64 = 64.0;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/security.md");

/// The attacks on memory over QUIC.
const QUIC: &[&str] = &[
    "partial-messages",
    "partial-questions",
    "unread-answers",
    "gaps",
    "unread-datagrams",
    "stalled-handshakes",
];

struct Process(Child);

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attack-bench"));
        Self(
            command
                .args(arguments)
                .stdin(Stdio::piped()) // a process ends when it is closed
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// Returns the first line that the process prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Returns the resident memory in MiB.
    fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the figures that the document states for a transport, in MiB.
fn figures(kind: &str) -> Vec<f64> {
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let (_, table) = document.split_once("<!-- stated memory -->").unwrap();
    let (table, _) = table.split_once("<!-- end of stated memory -->").unwrap();
    let row = table.lines().find(|line| line.starts_with(&format!("| {kind} |"))).unwrap();
    let cells: Vec<_> = row.split('|').map(|cell| cell.replace(' ', "")).collect();
    cells[2..cells.len() - 1].iter().map(|cell| cell.parse().unwrap()).collect()
}

/// Attacks an endpoint and returns its largest resident memory, and what is stated for it.
fn attack(kind: &str, attack: &str) -> (f64, f64) {
    let mut victim = Process::start(&["victim", kind]);
    let address = victim.line();
    let arguments = ["attack", kind, &address, attack];
    let _attackers: Vec<_> = (0..ATTACKERS).map(|_| Process::start(&arguments)).collect();
    let begin = Instant::now();
    let (mut most, mut grown) = (0.0, begin);
    while begin.elapsed() < ATTACK && grown.elapsed() < STILL {
        let resident = victim.resident();
        if resident > most {
            (most, grown) = (resident, Instant::now());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let figures = figures(kind);
    let stated = PROCESS + ENDED + figures[0] + ATTACKERS as f64 * CONNECTIONS * figures[1];
    println!("{kind}, {attack}: {most:.0} MiB of {stated:.0} MiB");
    (most, stated)
}

fn stays_below(kind: &str, attacks: &[&str]) {
    if !cfg!(target_os = "linux") {
        return;
    }
    for name in attacks {
        let (most, stated) = attack(kind, name);
        assert!(most <= stated, "{kind}, {name}: {most:.0} MiB, but {stated:.0} MiB are stated");
    }
}

#[test]
fn memory_over_msquic_stays_below_what_is_stated() {
    stays_below("msquic", QUIC);
}

#[test]
fn memory_over_quinn_stays_below_what_is_stated() {
    stays_below("quinn", QUIC);
}

#[test]
fn memory_over_tcp_stays_below_what_is_stated() {
    stays_below("tcp", &["partial-messages", "unread-answers", "stalled-handshakes"]);
}

#[test]
fn what_is_stated_follows_from_the_options() {
    const MIB: f64 = 1024.0 * 1024.0;
    let quic = QuinnConfig::new().common(); // that of msquic has the same defaults
    let tcp = TcpTlsConfig::new().common();
    for (kind, options) in [("msquic", quic), ("quinn", quic), ("tcp", tcp)] {
        let [together, each, _sent, identity, address, all] = figures(kind)[..] else {
            panic!("the table has other columns");
        };
        assert_eq!(together, options.memory.total as f64 / MIB, "{kind}");
        let of = |connections: usize| together + connections as f64 * each;
        let limits = options.connections;
        assert_eq!(identity, of(limits.per_identity), "{kind}");
        assert_eq!(address, of(limits.per_ip), "{kind}");
        assert_eq!(all, of(limits.connections), "{kind}");
    }
}
