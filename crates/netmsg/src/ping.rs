//! `netmsg ping`: round trips of messages.

use crate::exit::Exit;
use crate::peer::Peer;
use crate::session::Session;
use crate::{close_code, protocol};
use anyhow::{Context, Result, anyhow, bail};
use net_traits::{Bytes, CertHash, CloseReason, DynConnection, NetConnection, RecvError};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Measure round trips of messages to a listener
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The peer as [IDENTITY@]HOST:PORT
    peer: Peer,
    /// An identity to trust besides those of the trust file; may be repeated
    #[arg(long, value_name = "IDENTITY")]
    trust: Vec<CertHash>,
    /// How many messages are sent
    #[arg(long, short, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Milliseconds from one answer to the next message
    #[arg(long, short, value_name = "MS", default_value_t = 1000)]
    interval: u64,
    /// Bytes of a message
    #[arg(long, short, value_name = "BYTES", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(8..=protocol::MAX_PING as i64))]
    size: u32,
}

pub(crate) async fn run(session: &Session, options: &Options) -> Result<()> {
    let Session { home, output, transport } = session;
    let started = Instant::now();
    let connection = options.peer.dial(home, transport, protocol::PING, &options.trust).await?;
    let handshake = started.elapsed();
    let (peer, address) = (connection.remote_identity(), connection.remote_addr());
    let text = format!("connected with {peer} at {address} in {}", shown(handshake));
    let fields =
        json!({ "peer": peer, "address": address.to_string(), "micros": micros(handshake) });
    output.event("connected", text, fields);
    let mut times = Vec::new();
    for number in 1..=options.count {
        let sent = Instant::now();
        let time = round_trip(&connection, number, options.size).await;
        let time = time.map(|()| sent.elapsed())?;
        let text = format!("{} bytes from {address}: {number}, {}", options.size, shown(time));
        let fields = json!({ "number": number, "size": options.size, "micros": micros(time) });
        output.note("pong", text, fields);
        times.push(time);
        if number < options.count {
            sleep(Duration::from_millis(options.interval)).await;
        }
    }
    connection.close(close_code::DONE, "").await;
    let summary = Summary::of(&mut times);
    output.event("summary", format!("round trips: {}", summary.text()), summary.fields());
    Ok(())
}

/// Sends a message and waits until it returns.
pub(crate) async fn round_trip(connection: &DynConnection, number: u32, size: u32) -> Result<()> {
    let mut message = vec![0; size as usize];
    message[..4].copy_from_slice(&number.to_be_bytes());
    let message = Bytes::from(message);
    connection.send_bytes(message.clone()).await?;
    let answer = timeout(ANSWER, connection.recv()).await;
    let (answer, _) = answer.with_context(|| format!("no answer in {} s", ANSWER.as_secs()))??;
    if answer != message {
        let wrong = anyhow!("the peer answered with another message");
        return Err(wrong.context(Exit::Disconnected));
    }
    Ok(())
}

/// Returns each message, until the peer closes the connection.
pub(crate) async fn answer(connection: &DynConnection) -> Result<()> {
    loop {
        match timeout(IDLE, connection.recv()).await {
            Ok(Ok((message, _))) if message.len() <= protocol::MAX_PING => {
                connection.send_bytes(message).await?;
            }
            Ok(Ok((message, _))) => {
                let why =
                    format!("a ping of {} bytes exceeds {}", message.len(), protocol::MAX_PING);
                connection.close(close_code::FAILED, &why).await;
                bail!(why);
            }
            Ok(Err(RecvError::Closed(CloseReason::Peer { code: close_code::DONE, .. }))) => {
                return Ok(());
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {
                connection.close(close_code::FAILED, "no ping for a long time").await;
                bail!("no ping for {} s", IDLE.as_secs());
            }
        }
    }
}

/// The distribution of some times.
pub(crate) struct Summary<'a>(&'a [Duration]);

impl<'a> Summary<'a> {
    /// `times` must not be empty.
    pub(crate) fn of(times: &'a mut [Duration]) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The times in ascending order.
    pub(crate) fn times(&self) -> &[Duration] {
        self.0
    }

    /// The time that `percent` of all do not exceed.
    fn quantile(&self, percent: usize) -> Duration {
        let Self(times) = self;
        times[(times.len() * percent).div_ceil(100).max(1) - 1]
    }

    pub(crate) fn text(&self) -> String {
        let all = [("min", 0), ("median", 50), ("99 %", 99), ("max", 100)];
        all.map(|(name, percent)| format!("{name} {}", shown(self.quantile(percent)))).join(", ")
    }

    pub(crate) fn fields(&self) -> serde_json::Value {
        let micros = |percent| micros(self.quantile(percent));
        json!({
            "count": self.0.len(), "min_micros": micros(0), "median_micros": micros(50),
            "p99_micros": micros(99), "max_micros": micros(100),
        })
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn shown(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

/// How long a ping waits for its answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a listener waits for the next ping.
const IDLE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let mut times = [5, 1, 4, 2, 3].map(Duration::from_millis);
        let summary = Summary::of(&mut times);
        let expected = [(0, 1), (20, 1), (21, 2), (50, 3), (99, 5), (100, 5)];
        for (percent, milliseconds) in expected {
            assert_eq!(summary.quantile(percent), Duration::from_millis(milliseconds), "{percent}");
        }
        let mut one = [Duration::from_micros(7)];
        assert_eq!(Summary::of(&mut one).fields()["p99_micros"], 7);
    }
}
