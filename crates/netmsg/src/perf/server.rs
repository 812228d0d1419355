//! The side of a measurement that listens.

use super::message::{Ask, Counted, MAX_MESSAGE, MAX_MILLIS};
use crate::close_code;
use crate::output::one_line;
use anyhow::{Context, Result, bail, ensure};
use net_traits::{Bytes, CloseReason, DynConnection, NetConnection, RecvError};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Answers what the peer asks for, until it closes the connection.
pub(crate) async fn answer(connection: &DynConnection) -> Result<()> {
    let answered = timeout(LONGEST, answer_all(connection)).await;
    let answered = answered.unwrap_or_else(|_| bail!("longer than {} s", LONGEST.as_secs()));
    if let Err(error) = &answered {
        connection.close(close_code::FAILED, &one_line(error)).await;
    }
    answered
}

async fn answer_all(connection: &DynConnection) -> Result<()> {
    let mut datagrams = Counted::default();
    loop {
        let asked = tokio::select! {
            asked = next(connection) => asked?,
            size = datagram(connection) => {
                datagrams.add(size);
                continue;
            }
        };
        let Some(asked) = asked else { return Ok(()) };
        match Ask::decode(&asked)? {
            Ask::Upload => {
                let counted = upload(connection).await?;
                connection.send_bytes(counted.encode().into()).await?;
            }
            Ask::Download { size, millis } => {
                let counted =
                    send_for(connection, size, Duration::from_millis(millis.into()), |_| {})
                        .await?;
                connection.send_bytes(counted.encode().into()).await?;
            }
            Ask::Echo => echo(connection).await?,
            Ask::Datagrams => datagrams = Counted::default(),
            Ask::Report => connection.send_bytes(datagrams.encode().into()).await?,
        }
    }
}

/// Counts messages until an empty one arrives.
async fn upload(connection: &DynConnection) -> Result<Counted> {
    let mut counted = Counted::default();
    loop {
        match next(connection).await?.context("the peer closed within a measurement")? {
            message if message.is_empty() => return Ok(counted),
            message => {
                ensure!(
                    message.len() <= MAX_MESSAGE as usize,
                    "a message of {} bytes, more than {MAX_MESSAGE}",
                    message.len()
                );
                counted.add(message.len());
            }
        }
    }
}

/// Sends messages for a while, then an empty one. Calls `sent` with the bytes of each.
pub(super) async fn send_for(
    connection: &DynConnection,
    size: u32,
    time: Duration,
    mut sent: impl FnMut(usize),
) -> Result<Counted> {
    let message = Bytes::from(vec![0x5a; size as usize]);
    let (mut counted, started) = (Counted::default(), Instant::now());
    while started.elapsed() < time {
        connection.send_bytes(message.clone()).await?;
        counted.add(message.len());
        sent(message.len());
    }
    connection.send_bytes(Bytes::new()).await?;
    Ok(counted)
}

/// Returns each message, up to an empty one.
async fn echo(connection: &DynConnection) -> Result<()> {
    loop {
        let message = next(connection).await?.context("the peer closed within a measurement")?;
        let is_last = message.is_empty();
        connection.send_bytes(message).await?;
        if is_last {
            return Ok(());
        }
    }
}

/// Waits for the next message; `None` if the peer has closed the connection without an error.
async fn next(connection: &DynConnection) -> Result<Option<Bytes>> {
    match timeout(STALL, connection.recv()).await {
        Ok(Ok((message, _))) => Ok(Some(message)),
        Ok(Err(RecvError::Closed(CloseReason::Peer { code: close_code::DONE, .. }))) => Ok(None),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => bail!("no message arrived for {} s", STALL.as_secs()),
    }
}

/// Waits for the next datagram, and returns its size. Waits forever where the transport has none, and
/// after the end of the connection, which `next` reports.
async fn datagram(connection: &DynConnection) -> usize {
    if let Ok(datagrams) = connection.datagrams()
        && let Ok(datagram) = datagrams.recv_datagram().await
    {
        return datagram.len();
    }
    std::future::pending().await
}

/// How long the listener waits for a message.
const STALL: Duration = Duration::from_secs(30);

/// How long all measurements of a connection may take: a few of the longest parts.
const LONGEST: Duration = Duration::from_millis(6 * MAX_MILLIS as u64);
