//! Readings of a sensor as datagrams, of which only the newest matters, and the final one as a message.
//!
//! ```sh
//! cargo run --example datagrams
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use anyhow::{Result, ensure};
use bytes::Bytes;
use net_traits::{
    DatagramError, NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport,
    TrustPolicy,
};
use quinn_transport::QuinnTransport;
use std::time::Duration;
use tokio::time::interval;

const ALPN: &str = "sensor/1";
const READINGS: u32 = 200;

/// Sends readings. A datagram that does not fit into the queue is left out, because the next reading
/// replaces it.
async fn measure(connection: &impl NetConnection) -> Result<()> {
    let mut ticks = interval(Duration::from_millis(1));
    let mut left_out = 0;
    for number in 0..READINGS {
        ticks.tick().await;
        let reading = Bytes::copy_from_slice(&number.to_be_bytes());
        match connection.datagrams()?.send_datagram(reading) {
            Err(DatagramError::WouldBlock) => left_out += 1,
            result => result?,
        }
    }
    println!("sensor: {left_out} of {READINGS} readings were left out");
    // What must arrive is a message.
    connection.send_bytes(Bytes::from_static(b"end")).await?;
    Ok(())
}

/// Keeps the newest reading until the message, and returns it with the number of received ones.
async fn watch(connection: &impl NetConnection) -> Result<(u32, u32)> {
    let (mut newest, mut count) = (0, 0);
    loop {
        tokio::select! {
            reading = connection.datagrams()?.recv_datagram() => {
                // Datagrams can overtake each other.
                newest = newest.max(u32::from_be_bytes(reading?.as_ref().try_into()?));
                count += 1;
            }
            message = connection.recv() => {
                ensure!(message?.0 == "end", "another message arrived");
                return Ok((newest, count));
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let sensor = NetCredential::self_signed(TrustPolicy::reject_all())?;
    let station = NetCredential::self_signed(TrustPolicy::hashes([sensor.identity()]))?;
    let sensor = sensor.expecting(station.identity());
    let transport = QuinnTransport::new();
    let listener = transport.create_listener("127.0.0.1:0".parse()?, &[ALPN], station).await?;
    let dial = transport.connect(listener.local_addr(), &[ALPN], sensor);
    let accept = async { anyhow::Ok(listener.accept().await?.accept().await?) };
    let (at_sensor, at_station) = tokio::join!(dial, accept);
    let (at_sensor, at_station) = (at_sensor?, at_station?);

    let size = at_sensor.datagrams()?.max_datagram_size();
    println!("sensor: datagrams of up to {size:?} bytes fit");
    let (measured, watched) = tokio::join!(measure(&at_sensor), watch(&at_station));
    measured?;
    let (newest, count) = watched?;
    println!("station: {count} readings, the newest is {newest}");
    ensure!(count <= READINGS && newest < READINGS, "a reading arrived twice");
    at_sensor.close(0, "done").await;
    transport.shutdown(Duration::from_secs(5), "the program ends").await;
    Ok(())
}
