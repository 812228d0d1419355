//! `netmsg perf`: throughput, latency and loss between this machine and a listener.

mod chart;
mod message;
mod server;
mod throughput;

pub(crate) use server::answer;

use crate::exit::Exit;
use crate::peer::Peer;
use crate::ping::{Summary, micros, round_trip};
use crate::session::Session;
use crate::{close_code, protocol};
use anyhow::{Context, Result, anyhow, bail};
use message::{Ask, Counted, MAX_MESSAGE};
use net_traits::{Bytes, CertHash, DatagramError, DynConnection, NetConnection};
use serde_json::json;
use server::send_for;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use throughput::{Meter, Throughput};
use tokio::time::{sleep, timeout};

/// Measure throughput, latency and loss
///
/// The listener allows it with `netmsg listen --perf`. The parts follow one another: round trips,
/// then messages to the listener, messages from it, and datagrams, if the transport has them.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The peer as [IDENTITY@]HOST:PORT
    peer: Peer,
    /// An identity to trust besides those of the trust file; may be repeated
    #[arg(long, value_name = "IDENTITY")]
    trust: Vec<CertHash>,
    /// Seconds of each direction
    #[arg(long, short, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_MESSAGE)))]
    size: u32,
    /// How many round trips, of 64 bytes
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    round_trips: u32,
    /// How many datagrams are sent
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    datagrams: u32,
    /// Draw the figures into this file, as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Result<()> {
    let Session { home, output, transport } = session;
    let started = Instant::now();
    let connection = options.peer.dial(home, transport, protocol::PERF, &options.trust).await?;
    let handshake = started.elapsed();
    let (peer, address) = (connection.remote_identity(), connection.remote_addr());
    let text = format!("connected with {peer} at {address}");
    let fields =
        json!({ "peer": peer, "address": address.to_string(), "micros": micros(handshake) });
    output.event("connected", text, fields);

    let mut times = round_trips(&connection, options.round_trips).await?;
    let summary = Summary::of(&mut times);
    output.event("latency", format!("latency   {}", summary.text()), summary.fields());

    let time = Duration::from_secs(options.seconds.into());
    let up = upload(&connection, options.size, time).await?;
    output.event("upload", format!("upload    {}", up.text()), up.fields());
    let down = download(&connection, options.size, time).await?;
    output.event("download", format!("download  {}", down.text()), down.fields());

    let (text, fields) = match loss(&connection, options.datagrams).await? {
        None => ("not measured: no datagrams".to_owned(), json!({ "sent": null })),
        Some((sent, received)) => {
            let lost = sent.saturating_sub(received);
            let percent = lost as f64 * 100.0 / sent.max(1) as f64;
            let text = format!("{lost} of {sent} datagrams, {percent:.2} %");
            (text, json!({ "sent": sent, "received": received }))
        }
    };
    output.event("loss", format!("loss      {text}"), fields);
    connection.close(close_code::DONE, "").await;
    if let Some(file) = &options.chart {
        let peer = format!("netmsg perf with {peer} at {address}");
        let latency = Summary::of(&mut times);
        let svg = chart::draw(peer, &latency, [&up, &down], &text);
        std::fs::write(file, svg).with_context(|| format!("cannot write {}", file.display()))?;
        let fields = json!({ "file": file.display().to_string() });
        output.event("chart", format!("chart     {}", file.display()), fields);
    }
    Ok(())
}

async fn round_trips(connection: &DynConnection, count: u32) -> Result<Vec<Duration>> {
    ask(connection, Ask::Echo).await?;
    let mut times = Vec::with_capacity(count as usize);
    for number in 0..count {
        let sent = Instant::now();
        round_trip(connection, number, 64).await?;
        times.push(sent.elapsed());
    }
    connection.send_bytes(Bytes::new()).await?;
    match next(connection).await? {
        last if last.is_empty() => Ok(times),
        last => {
            let wrong = anyhow!("the peer answered with {} bytes, not with none", last.len());
            Err(wrong.context(Exit::Disconnected))
        }
    }
}

/// Receives what the peer counted. An invalid message is a fault of the peer.
async fn receive_counted(connection: &DynConnection) -> Result<Counted> {
    Counted::decode(&next(connection).await?).context(Exit::Disconnected)
}

async fn upload(connection: &DynConnection, size: u32, time: Duration) -> Result<Throughput> {
    let (started, mut meter) = (Instant::now(), Meter::start());
    ask(connection, Ask::Upload).await?;
    send_for(connection, size, time, |bytes| meter.add(bytes)).await?;
    let counted = receive_counted(connection).await?;
    Ok(Throughput { counted, time: started.elapsed(), meter })
}

async fn download(connection: &DynConnection, size: u32, time: Duration) -> Result<Throughput> {
    let millis = u32::try_from(time.as_millis())?;
    let (mut counted, started) = (Counted::default(), Instant::now());
    let mut meter = Meter::start();
    ask(connection, Ask::Download { size, millis }).await?;
    loop {
        match next(connection).await? {
            message if message.is_empty() => break,
            message => {
                counted.add(message.len());
                meter.add(message.len());
            }
        }
    }
    let time = started.elapsed();
    let sent = receive_counted(connection).await?;
    if sent != counted {
        bail!("{} messages were sent and {} arrived", sent.messages, counted.messages);
    }
    Ok(Throughput { counted, time, meter })
}

/// Returns how many datagrams were sent and received; `None` without datagrams.
async fn loss(connection: &DynConnection, count: u32) -> Result<Option<(u64, u64)>> {
    let Ok(datagrams) = connection.datagrams() else { return Ok(None) };
    ask(connection, Ask::Datagrams).await?;
    // Datagrams are not ordered with messages: wait until the listener has read the request.
    round_trips(connection, 1).await?;
    let datagram = Bytes::from(vec![0x5a; DATAGRAM]);
    let mut sent = 0;
    for _ in 0..count {
        match datagrams.send_datagram(datagram.clone()) {
            Ok(()) => sent += 1,
            Err(DatagramError::WouldBlock) => {} // not sent, so not lost
            Err(DatagramError::Unsupported) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        sleep(PACE).await;
    }
    sleep(LATE).await;
    ask(connection, Ask::Report).await?;
    let received = receive_counted(connection).await?.messages;
    Ok(Some((sent, received)))
}

async fn ask(connection: &DynConnection, ask: Ask) -> Result<()> {
    Ok(connection.send_bytes(ask.encode().into()).await?)
}

async fn next(connection: &DynConnection) -> Result<Bytes> {
    let received = timeout(STALL, connection.recv()).await;
    let received = received.with_context(|| format!("no message for {} s", STALL.as_secs()))?;
    Ok(received?.0)
}

/// Bytes of a datagram, which every path carries.
const DATAGRAM: usize = 1000;

/// Time between datagrams: 1 MB/s at most.
const PACE: Duration = Duration::from_millis(1);

/// How long datagrams may be on their way.
const LATE: Duration = Duration::from_secs(1);

/// How long the client waits for a message.
const STALL: Duration = Duration::from_secs(30);
