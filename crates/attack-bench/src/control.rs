//! The control of an attack: honest peers that send as many packets at the same times, and use as
//! much processor time.

use crate::Target;
use crate::attacker::{Attacker, Messages};
use crate::attacks::CONNECTIONS;
use crate::node::{self, Kind};
use crate::pace::Pace;
use crate::process;
use anyhow::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

/// Messages of a size that fills a packet.
const QUIC_MESSAGE: u32 = 1100;

/// Messages of a size that fills a TLS record.
const TCP_MESSAGE: u32 = 16_000;

/// How often the rates are compared with the goals.
const TICK: Duration = Duration::from_millis(2);

/// Sends messages that the victim discards, and uses processor time, at the pace of an attack; more
/// processor time if the messages need more.
pub(crate) async fn run(target: Target, pace: Pace) -> Result<()> {
    let attacker = Arc::new(Attacker::new(target, &node::member()?)?);
    let size = if target.kind == Kind::Tcp { TCP_MESSAGE } else { QUIC_MESSAGE };
    let message = [&size.to_be_bytes()[..], &vec![7; size as usize]].concat();
    let pace = Arc::new(pace);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = attacker.connect().await?;
        connection.discard();
        connections.push((connection.messages().await?, connection));
    }
    let started = Instant::now();
    for (messages, connection) in connections {
        tokio::spawn(send(messages, message.clone(), pace.clone(), started));
        std::mem::forget(connection); // until the process ends
    }
    std::thread::spawn(move || use_processor(&pace, started));
    while process::parent_commands().await {
        println!("{}", attacker.packets());
    }
    Ok(())
}

/// Sends the part of one connection.
async fn send(
    mut messages: Messages,
    message: Vec<u8>,
    pace: Arc<Pace>,
    started: Instant,
) -> Result<()> {
    let mut sent = 0.0;
    loop {
        while sent < pace.at(started.elapsed()).packets / CONNECTIONS as f64 {
            messages.write_all(&message).await?;
            sent += 1.0;
        }
        messages.flush().await?;
        sleep(TICK).await;
    }
}

/// Keeps the processor time of this process at that of the pace, on as many threads as there are
/// processors.
fn use_processor(pace: &Arc<Pace>, started: Instant) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = move |pace: &Pace| loop {
        let used = process::own_processor_time().unwrap_or_default();
        if used.as_secs_f64() < pace.at(started.elapsed()).processor {
            let until = Instant::now() + TICK;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        } else {
            std::thread::sleep(TICK);
        }
    };
    for _ in 1..threads {
        let pace = pace.clone();
        std::thread::spawn(move || work(&pace));
    }
    work(pace)
}
