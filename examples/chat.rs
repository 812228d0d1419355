//! A chat with rooms that runs over any transport: `chat --demo --transport tcp`.
//!
//! One process hosts (`chat --host 0.0.0.0:4433`), others join it (`chat --join ADDRESS --trust
//! IDENTITY`) and type lines; `/join ROOM` and `/leave ROOM` change rooms. A member's name is
//! derived from its certificate, which the transport has verified.
//!
//! With `--no-default-features` it is built without msquic.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use clap::{Parser, ValueEnum};
#[cfg(feature = "msquic")]
use msquic_transport::MsQuicTransport as QuicTransport;
use net_peers::FallbackTransport;
use net_traits::{
    CertHash, DynConnection, DynListener, DynTransport, NetConnection, NetCredential, NetListener,
    NetTransport, TrustPolicy, WithCauses,
};
use net_traits_test::memory::MemoryNetwork;
use quinn_transport::QuinnTransport;
#[cfg(not(feature = "msquic"))]
use quinn_transport::QuinnTransport as QuicTransport;
use std::collections::BTreeMap;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tcp_tls_transport::TcpTlsTransport;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::timeout;

const ALPN: &str = "chat-example/1";

/// A member that is this many lines behind is removed from its rooms.
const LINES_BEHIND: usize = 64;

/// The longest line that is forwarded, in bytes.
const LONGEST_LINE: usize = 4096;

/// How many rooms a member may join.
const ROOMS: usize = 8;

/// A step of the demo that takes longer hangs.
const TIMEOUT: Duration = Duration::from_secs(20);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Debug, Parser)]
struct Options {
    /// The transport
    #[arg(long, value_enum, default_value = "quic")]
    transport: Kind,
    /// Run a host and three members in this process, and check the lines that they receive
    #[arg(long, conflicts_with_all = ["host", "join"])]
    demo: bool,
    /// Host the rooms at this address; port 0 selects a free port
    #[arg(long, value_name = "ADDRESS", conflicts_with = "join")]
    host: Option<SocketAddr>,
    /// Join the host at this address
    #[arg(long, value_name = "ADDRESS", requires = "trust")]
    join: Option<SocketAddr>,
    /// The identity of the host, which it prints
    #[arg(long, value_name = "IDENTITY")]
    trust: Option<CertHash>,
    /// Certificate and private key, PEM; generated for this run by default
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// QUIC by msquic; by quinn if built without the feature `msquic`
    Quic,
    /// QUIC by quinn, with the same wire
    Quinn,
    Tcp,
    /// QUIC, or TCP where QUIC is blocked
    Fallback,
    /// In memory, for the demo
    Memory,
}

/// Creates transports that can reach each other.
struct Transports {
    kind: Kind,
    network: MemoryNetwork,
}

impl Transports {
    fn make(&self) -> DynTransport {
        match self.kind {
            Kind::Quic => DynTransport::new(QuicTransport::new()),
            Kind::Quinn => DynTransport::new(QuinnTransport::new()),
            Kind::Tcp => DynTransport::new(TcpTlsTransport::new()),
            Kind::Fallback => DynTransport::new(FallbackTransport::new(
                QuicTransport::new(),
                TcpTlsTransport::new(),
            )),
            Kind::Memory => DynTransport::new(self.network.transport()),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {}", WithCauses(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let transports = Transports { kind: options.transport, network: MemoryNetwork::new(0) };
    if options.demo {
        return demo(&transports).await;
    }
    if matches!(options.transport, Kind::Memory) {
        return Err("the memory transport works within one process only: use --demo".into());
    }
    let credential = |trust| match &options.identity {
        Some(file) => NetCredential::from_pem_file(file, trust),
        None => NetCredential::self_signed(trust),
    };
    match (options.host, options.join, options.trust) {
        (Some(address), None, _) => {
            // Every peer may chat; its lines carry the name derived from its certificate.
            let credential = credential(TrustPolicy::Any)?;
            let identity = credential.identity();
            let listener = transports.make().create_listener(address, &[ALPN], credential).await?;
            println!("--join {} --trust {identity}", listener.local_addr());
            host(listener).await
        }
        (None, Some(address), Some(host)) => {
            let credential = credential(TrustPolicy::hashes([host]))?;
            println!("you are {}", name(&credential.identity()));
            member(transports.make().connect(address, &[ALPN], credential).await?).await
        }
        _ => Err("give --demo, --host ADDRESS, or --join ADDRESS".into()),
    }
}

/// Derives a pronounceable name from the identity. Different identities can share a name; programs
/// must compare the identities.
fn name(identity: &CertHash) -> String {
    const HOW: [&str; 8] = ["brave", "calm", "eager", "fair", "kind", "merry", "quick", "wise"];
    const WHO: [&str; 8] = ["badger", "crane", "fox", "heron", "lynx", "otter", "owl", "seal"];
    let bytes = identity.as_bytes();
    let (how, who) = (HOW[usize::from(bytes[0]) % 8], WHO[usize::from(bytes[1]) % 8]);
    format!("{how}-{who}-{:02x}{:02x}", bytes[2], bytes[3])
}

/// The members of a room. A peer with several connections occurs several times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    identity: CertHash,
    connection: u64,
}

/// The members of each room, with the queues of their lines.
#[derive(Default)]
struct Rooms(Mutex<BTreeMap<String, BTreeMap<Member, mpsc::Sender<String>>>>);

impl Rooms {
    /// Sends a line to all members of a room. A member that is too far behind is removed.
    fn tell(&self, room: &str, line: &str) {
        let mut rooms = self.0.lock().expect("no code panics with the lock held");
        let Some(members) = rooms.get_mut(room) else { return };
        members.retain(|_, lines| lines.try_send(format!("{room}: {line}")).is_ok());
        if members.is_empty() {
            rooms.remove(room);
        }
    }

    fn enter(&self, room: &str, member: Member, lines: &mpsc::Sender<String>) {
        let mut rooms = self.0.lock().expect("no code panics with the lock held");
        rooms.entry(room.to_owned()).or_default().insert(member, lines.clone());
    }

    /// Whether the member was there.
    fn leave(&self, room: &str, member: Member) -> bool {
        let mut rooms = self.0.lock().expect("no code panics with the lock held");
        let Some(members) = rooms.get_mut(room) else { return false };
        let was_there = members.remove(&member).is_some();
        if members.is_empty() {
            rooms.remove(room);
        }
        was_there
    }

    fn of(&self, member: Member) -> Vec<String> {
        let rooms = self.0.lock().expect("no code panics with the lock held");
        let with = rooms.iter().filter(|(_, members)| members.contains_key(&member));
        with.map(|(room, _)| room.clone()).collect()
    }
}

/// Hosts until the listener is closed.
async fn host(listener: DynListener) -> Result<()> {
    let rooms = Arc::new(Rooms::default());
    let connections = AtomicU64::new(0);
    let handler = move |connection| {
        serve(connection, connections.fetch_add(1, Ordering::Relaxed), rooms.clone())
    };
    Err(net_peers::serve(&listener, handler).await.into())
}

/// Serves one member until it leaves.
async fn serve(connection: DynConnection, number: u64, rooms: Arc<Rooms>) {
    let member = Member { identity: connection.peer_identity().hash, connection: number };
    let name = name(&member.identity);
    let (lines, mut queued) = mpsc::channel::<String>(LINES_BEHIND);
    let writer = connection.clone();
    let write = tokio::spawn(async move {
        while let Some(line) = queued.recv().await {
            if writer.send(line.as_bytes()).await.is_err() {
                break;
            }
        }
    });
    while let Ok((message, _)) = connection.recv().await {
        if message.len() > LONGEST_LINE {
            continue;
        }
        // A line break would let a member forge a line of another member.
        let text = String::from_utf8_lossy(&message).replace(char::is_control, " ");
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            ["/join", room] if rooms.of(member).len() < ROOMS => {
                rooms.enter(room, member, &lines);
                rooms.tell(room, &format!("{name} is here"));
            }
            ["/leave", room] => {
                if rooms.leave(room, member) {
                    rooms.tell(room, &format!("{name} left"));
                }
            }
            [] => {}
            // A line goes to all rooms of its sender.
            _ => rooms
                .of(member)
                .iter()
                .for_each(|room| rooms.tell(room, &format!("{name}: {text}"))),
        }
    }
    for room in rooms.of(member) {
        rooms.leave(&room, member);
        rooms.tell(&room, &format!("{name} left"));
    }
    write.abort();
}

/// Sends typed lines and prints received ones, until either ends.
async fn member(connection: DynConnection) -> Result<()> {
    let mut typed = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = typed.next_line() => match line? {
                Some(line) => connection.send(line.as_bytes()).await?,
                None => return { connection.close(0, "bye").await; Ok(()) },
            },
            heard = connection.recv() => {
                println!("{}", String::from_utf8_lossy(&heard?.0).replace(char::is_control, " "));
            }
        }
    }
}

/// A scripted member.
struct Player {
    connection: DynConnection,
    name: String,
}

impl Player {
    async fn join(transports: &Transports, host: SocketAddr, trust: CertHash) -> Result<Self> {
        let credential = NetCredential::self_signed(TrustPolicy::hashes([trust]))?;
        let name = name(&credential.identity());
        let connection = transports.make().connect(host, &[ALPN], credential).await?;
        Ok(Self { connection, name })
    }

    async fn say(&self, line: &str) -> Result<()> {
        Ok(self.connection.send(line.as_bytes()).await?)
    }

    /// Waits for a line and checks it.
    async fn hears(&self, expected: &str) -> Result<()> {
        let (message, _) = timeout(TIMEOUT, self.connection.recv()).await??;
        let heard = String::from_utf8_lossy(&message);
        if heard != expected {
            return Err(format!("{} heard {heard:?} instead of {expected:?}", self.name).into());
        }
        println!("  {} hears  {heard}", self.name);
        Ok(())
    }
}

/// A host, three members, two rooms.
async fn demo(transports: &Transports) -> Result<()> {
    let credential = NetCredential::self_signed(TrustPolicy::Any)?;
    let trust = credential.identity();
    let bind_addr = match transports.kind {
        Kind::Memory => (Ipv4Addr::UNSPECIFIED, 0).into(),
        _ => (Ipv4Addr::LOCALHOST, 0).into(),
    };
    let listener = transports.make().create_listener(bind_addr, &[ALPN], credential).await?;
    let address = listener.local_addr();
    println!("over {:?}, at {address}", transports.kind);
    let hosting = tokio::spawn(host(listener));

    let one = Player::join(transports, address, trust).await?;
    let two = Player::join(transports, address, trust).await?;
    let three = Player::join(transports, address, trust).await?;
    one.say("/join rust").await?;
    one.hears(&format!("rust: {} is here", one.name)).await?;
    two.say("/join rust").await?;
    one.hears(&format!("rust: {} is here", two.name)).await?;
    two.hears(&format!("rust: {} is here", two.name)).await?;
    three.say("/join tea").await?;
    three.hears(&format!("tea: {} is here", three.name)).await?;

    one.say("does it borrow?").await?;
    let line = format!("rust: {}: does it borrow?", one.name);
    one.hears(&line).await?;
    two.hears(&line).await?;
    one.say("it does\nrust: crane: it does not").await?;
    let line = format!("rust: {}: it does rust: crane: it does not", one.name);
    one.hears(&line).await?;
    two.hears(&line).await?;
    three.say("milk for all?").await?;
    three.hears(&format!("tea: {}: milk for all?", three.name)).await?; // no other member

    two.say("/join tea").await?;
    let line = format!("tea: {} is here", two.name);
    two.hears(&line).await?;
    three.hears(&line).await?;
    two.connection.close(0, "bye").await;
    one.hears(&format!("rust: {} left", two.name)).await?;
    three.hears(&format!("tea: {} left", two.name)).await?;
    hosting.abort();
    println!("every member received the lines of its rooms, and no others");
    Ok(())
}
