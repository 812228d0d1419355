//! Checks that the figures in the documents match the code.

use std::fs;
use std::path::Path;

/// A figure: where the code sets it and where a document shows it. Change both together.
struct Figure {
    code: (&'static str, &'static str),
    document: (&'static str, &'static str),
}

const fn figure(
    file: &'static str,
    setting: &'static str,
    document: &'static str,
    text: &'static str,
) -> Figure {
    Figure { code: (file, setting), document: (document, text) }
}

const QUIC: &str = "crates/msquic-transport/src/config.rs";
/// The options that QUIC transports have in common.
const QUIC_OPTIONS: &str = "crates/net-kit/src/quic.rs";
const TCP: &str = "crates/tcp-tls-transport/src/config.rs";
const QUINN: &str = "crates/quinn-transport/src/config.rs";
const KIT: &str = "crates/net-kit/src/options.rs";
const POOL: &str = "crates/net-peers/src/pool/config.rs";
const ASYNC: &str = "crates/msquic-async/src/limits.rs";
const SEND_QUEUE: &str = "crates/msquic-async/src/buffer/send_queue.rs";
const ARCHITECTURE: &str = "docs/architecture.md";
const SECURITY: &str = "docs/security.md";
const FEATURES: &str = "docs/features.md";

const FIGURES: &[Figure] = &[
    figure(KIT, "max_connections: usize = 10_000,", ARCHITECTURE, "| 10 000, 1000, 16, 256, 64 |"),
    figure(
        QUIC_OPTIONS,
        "max_connections_per_ip: usize = 1_000,",
        ARCHITECTURE,
        "| 10 000, 1000, 16, 256, 64 |",
    ),
    figure(
        KIT,
        "max_connections_per_identity: usize = 16,",
        ARCHITECTURE,
        "| 10 000, 1000, 16, 256, 64 |",
    ),
    figure(KIT, "max_handshakes: usize = 256,", ARCHITECTURE, "| 10 000, 1000, 16, 256, 64 |"),
    figure(KIT, "max_connections: usize = 10_000,", SECURITY, "10 000 in total, 1000 per address"),
    figure(
        QUIC_OPTIONS,
        "max_connections_per_ip: usize = 1_000,",
        SECURITY,
        "10 000 in total, 1000 per address",
    ),
    figure(KIT, "max_connections_per_identity: usize = 16,", SECURITY, "16 per identity"),
    figure(KIT, "max_handshakes: usize = 256,", SECURITY, "256 handshakes"),
    figure(QUIC_OPTIONS, "backlog: usize = 256,", SECURITY, "256 waiting"),
    figure(
        QUIC_OPTIONS,
        "backlog: usize = 256,",
        ARCHITECTURE,
        "connections that wait to be accepted | 256 |",
    ),
    figure(QUIC_OPTIONS, "max_inbound_streams: u16 = 16,", ARCHITECTURE, "0 (transport: 16)"),
    figure(
        QUIC_OPTIONS,
        "max_inbound_requests: u16 = 16,",
        ARCHITECTURE,
        "and their size | 16, 1 MiB |",
    ),
    figure(KIT, "max_request_size: usize = 1024 * 1024,", SECURITY, "and their size | 16, 1 MiB |"),
    figure(
        QUIC,
        "DEFAULT_MESSAGE: usize = 64 * 1024 * 1024;",
        SECURITY,
        "longest message | 64 MiB |",
    ),
    figure(
        QUIC,
        "DEFAULT_MESSAGE: usize = 64 * 1024 * 1024;",
        ARCHITECTURE,
        "size of a message | 64 MiB |",
    ),
    figure(QUIC, "send_queue: usize = 1024 * 1024,", SECURITY, "| 1 MiB, growing to 16 MiB"),
    figure(
        QUIC,
        "max_send_queue: usize = 16 * 1024 * 1024,",
        SECURITY,
        "| 1 MiB, growing to 16 MiB",
    ),
    figure(KIT, "receive_queue: usize = 4 * 1024 * 1024,", SECURITY, "| 4 MiB and one message"),
    figure(
        KIT,
        "receive_queue: usize = 4 * 1024 * 1024,",
        ARCHITECTURE,
        "| 4 MiB | `receive_queue` |",
    ),
    figure(KIT, "HANDSHAKE: Duration = Duration::from_secs(10);", SECURITY, "| 10 s, 30 s, 12 s;"),
    figure(
        QUIC_OPTIONS,
        "idle_timeout: ::std::time::Duration = ::std::time::Duration::from_secs(30),",
        SECURITY,
        "| 10 s, 30 s, 12 s;",
    ),
    figure(
        KIT,
        "max_connections: usize = 10_000,",
        ARCHITECTURE,
        "10 000, 128, 16, 256 | `TcpTlsConfig` |",
    ),
    figure(
        TCP,
        "max_connections_per_ip: usize = 128,",
        ARCHITECTURE,
        "10 000, 128, 16, 256 | `TcpTlsConfig` |",
    ),
    figure(TCP, "max_connections_per_ip: usize = 128,", SECURITY, "per address (128)"),
    figure(KIT, "max_connections_per_identity: usize = 16,", SECURITY, "per identity (16)"),
    figure(KIT, "max_handshakes: usize = 256,", SECURITY, "handshake (256, of one address 64)"),
    figure(KIT, "send_queue: usize = 1024 * 1024,", ARCHITECTURE, "| 1 MiB, 4 MiB, 64 MiB; 10 000"),
    figure(
        KIT,
        "receive_queue: usize = 4 * 1024 * 1024,",
        ARCHITECTURE,
        "| 1 MiB, 4 MiB, 64 MiB; 10 000",
    ),
    figure(
        POOL,
        "max_queued_messages: usize = 1000,",
        ARCHITECTURE,
        "| 1000, 1 MiB | `PeerPoolConfig` |",
    ),
    figure(
        POOL,
        "max_queued_bytes: usize = 1024 * 1024,",
        ARCHITECTURE,
        "| 1000, 1 MiB | `PeerPoolConfig` |",
    ),
    figure(
        POOL,
        "max_unconfirmed_bytes: usize = 4 * 1024 * 1024,",
        ARCHITECTURE,
        "| 4 MiB; 64 MiB; 4 MiB | `PeerPoolConfig` |",
    ),
    figure(
        POOL,
        "max_held_bytes: usize = 64 * 1024 * 1024,",
        ARCHITECTURE,
        "| 4 MiB; 64 MiB; 4 MiB | `PeerPoolConfig` |",
    ),
    figure(
        POOL,
        "receive_queue: usize = 4 * 1024 * 1024,",
        ARCHITECTURE,
        "| 4 MiB; 64 MiB; 4 MiB | `PeerPoolConfig` |",
    ),
    figure(
        KIT,
        "MEMORY: usize = 512 * 1024 * 1024;",
        SECURITY,
        "may take of `max_memory`, 512 MiB;",
    ),
    figure(
        KIT,
        "max_unfinished: usize = 16 * 1024 * 1024,",
        SECURITY,
        "| unfinished messages | 16 MiB and one message, 64 KiB for each of 16 streams; 30 s",
    ),
    figure(
        QUIC_OPTIONS,
        "max_inbound_streams: u16 = 16,",
        SECURITY,
        "| unfinished messages | 16 MiB and one message, 64 KiB for each of 16 streams; 30 s",
    ),
    figure(
        QUIC_OPTIONS,
        "max_inbound_requests: u16 = 16,",
        SECURITY,
        "does not read (msquic) | 16 of 256 KiB;",
    ),
    figure(
        ASYNC,
        "receive_buffer: 256 * 1024,",
        SECURITY,
        "does not read (msquic) | 16 of 256 KiB;",
    ),
    figure(
        "crates/tcp-tls-transport/src/requests.rs",
        "MAX_OPEN: usize = 16;",
        SECURITY,
        "or wait (TCP) | 16 of 1 MiB;",
    ),
    figure(
        QUIC,
        "connection_receive_window = 32 * 1024 * 1024,",
        SECURITY,
        "behind gaps | msquic 32 MiB |",
    ),
    figure(
        QUINN,
        "connection_receive_window = 16 * 1024 * 1024,",
        SECURITY,
        "of paused streams 16 MiB, and",
    ),
    figure(QUINN, "stream_receive_window = 384 * 1024,", SECURITY, "behind gaps, 768 KiB of each"),
    figure(QUINN, "SEND_WINDOW: u64 = 4 * 1024 * 1024;", SECURITY, "msquic 16 MiB, quinn 5 MiB,"),
    figure(
        QUIC_OPTIONS,
        "datagram_queue: usize = 64 * 1024,",
        SECURITY,
        "not received (msquic, quinn) | 64 KiB,",
    ),
    figure(
        "crates/net-kit/src/registry/memory.rs",
        "UNREAD: Duration = Duration::from_millis(250);",
        SECURITY,
        "| yes, four times per second |",
    ),
    figure(POOL, "max_followed: usize = 1024,", ARCHITECTURE, "dialled at once | 1024; 32 |"),
    figure(POOL, "max_dials: usize = 32,", ARCHITECTURE, "dialled at once | 1024; 32 |"),
    figure(ASYNC, "send_buffer: 1024 * 1024,", ARCHITECTURE, "| 1 MiB, growing to 16 MiB"),
    figure(ASYNC, "max_send_buffer: 16 * 1024 * 1024,", ARCHITECTURE, "| 1 MiB, growing to 16 MiB"),
    figure(ASYNC, "receive_buffer: 256 * 1024,", ARCHITECTURE, "| 256 KiB | `StreamLimits"),
    figure(SEND_QUEUE, "COPY_BELOW: usize = 4 * 1024;", ARCHITECTURE, "pieces from 4 KiB"),
    figure(SEND_QUEUE, "SMALL_IN_FLIGHT: usize = 32;", ARCHITECTURE, "While 32 native sends"),
    figure(
        SEND_QUEUE,
        "SEND_AT_ONCE: usize = 64 * 1024;",
        ARCHITECTURE,
        "more than 64 KiB do not wait",
    ),
    figure("Cargo.toml", "rust-version = \"1.88\"", "README.md", "need Rust 1.88."),
    figure(
        "xtask/src/setup.rs",
        "CMAKE: (u32, u32) = (3, 20);",
        "xtask/src/setup.rs",
        "cmake 3.20 or newer",
    ),
    figure(
        "crates/msquic-async/tests/suite/teardown.rs",
        "// 357 rounds",
        FEATURES,
        "357 of them tried",
    ),
];

#[test]
fn documents_show_the_figures_of_the_code() {
    for Figure { code: (file, setting), document: (document, text) } in FIGURES {
        assert!(
            words(file).contains(setting),
            "{document} shows {text:?}, but {file} does not say `{setting}` any more: change \
             the document, and the line in xtask/src/figures.rs"
        );
        assert!(
            words(document).contains(text),
            "{document} does not show {text:?} for `{setting}`"
        );
    }
}

#[test]
fn the_number_of_behaviours_matches_the_suite() {
    let suite = words("crates/net-traits-test/src/conformance.rs");
    let (_, list) = suite.split_once("macro_rules! __behaviours {").unwrap();
    let (list, _) = list.split_once("macro_rules!").unwrap();
    let count = |of: &str| {
        list.matches(&format!("{of}] Once,")).count()
            + list.matches(&format!("{of}] Swapped,")).count()
    };
    let all = count("");
    for document in ["crates/net-traits-test/README.md", "CHANGELOG.md"] {
        let text = format!("{all} behaviours");
        assert!(words(document).contains(&text), "{document} does not show {text:?}");
    }
    let guide = words("docs/implementing-a-transport.md");
    let (_, without) = guide.split_once("without: [").unwrap();
    let (without, _) = without.split_once(']').unwrap();
    let ignored: usize =
        without.split(", ").map(|capability| count(&format!("[{capability}"))).sum();
    let text = format!("{} behaviours pass and {ignored} are ignored", all - ignored);
    assert!(guide.contains(&text), "the guide does not show {text:?}");
}

#[test]
fn troubleshooting_explains_each_close_code() {
    let source = words("crates/net-traits/src/close_code.rs");
    let (_, names) = source.split_once("Some(match code {").unwrap();
    let (names, _) = names.split_once("_ =>").unwrap();
    let page = words("docs/manual/troubleshooting.md");
    let names: Vec<_> = names.split('"').skip(1).step_by(2).collect();
    assert!(names.len() > 10, "{names:?}");
    let missing = names.iter().filter(|name| !page.contains(&format!("`{name}`")));
    assert_eq!(missing.collect::<Vec<_>>(), [&""; 0]);
}

/// Reads a file with normalized white space, so that its line breaks do not matter.
fn words(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text =
        fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
