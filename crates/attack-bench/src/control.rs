//! The control of an attack: honest peers that send as many packets and use as much processor time.

use crate::Target;
use crate::attacker::{Attacker, Messages};
use crate::attacks::CONNECTIONS;
use crate::node::{self, Kind};
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

/// Sends messages that the victim discards, `packets` in a second, and uses `processors` seconds of
/// processor time in a second, or more if the messages need more.
pub(crate) async fn run(target: Target, packets: f64, processors: f64) -> Result<()> {
    let attacker = Arc::new(Attacker::new(target, &node::member()?)?);
    let size = if target.kind == Kind::Tcp { TCP_MESSAGE } else { QUIC_MESSAGE };
    let message = [&size.to_be_bytes()[..], &vec![7; size as usize]].concat();
    for _ in 0..CONNECTIONS {
        let mut connection = attacker.connect().await?;
        connection.discard();
        let messages = connection.messages().await?;
        tokio::spawn(send(messages, message.clone(), packets / CONNECTIONS as f64));
        std::mem::forget(connection); // until the process ends
    }
    std::thread::spawn(move || use_processor(processors));
    while process::parent_commands().await {
        println!("{}", attacker.packets());
    }
    Ok(())
}

async fn send(mut messages: Messages, message: Vec<u8>, rate: f64) -> Result<()> {
    let started = Instant::now();
    let mut sent = 0.0;
    loop {
        while sent < rate * started.elapsed().as_secs_f64() {
            messages.write_all(&message).await?;
            sent += 1.0;
        }
        messages.flush().await?;
        sleep(TICK).await;
    }
}

/// Keeps the processor time of this process at `processors` times the elapsed time.
fn use_processor(processors: f64) {
    let threads = processors.ceil().max(1.0);
    let share = processors / threads;
    let started = Instant::now();
    let begin = process::own_processor_time().unwrap_or_default();
    let work = move || loop {
        let used = process::own_processor_time().unwrap_or_default() - begin;
        if used.as_secs_f64() < processors * started.elapsed().as_secs_f64() {
            let until = Instant::now() + TICK.mul_f64(share.max(0.1));
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        } else {
            std::thread::sleep(TICK);
        }
    };
    for _ in 1..threads as usize {
        std::thread::spawn(work);
    }
    work()
}
