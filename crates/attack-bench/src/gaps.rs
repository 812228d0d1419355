//! A peer that sends all that it may, except for the first byte of each stream.

use crate::Target;
use anyhow::{Context, Result, bail};
use quic_attack::params::{MAX_DATA, MAX_STREAM_DATA_UNI};
use quic_attack::varint::Reader;
use quic_attack::{Frame, Identity, Parameters, Peer, Received, Space};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The data of a packet, in bytes.
const DATA: u64 = 1000;

/// How long a peer waits for the handshake, and for credit until it sends a sign of life.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long it waits for a packet after it has sent one on each stream.
const PAUSE: Duration = Duration::from_millis(1);

/// The frames that give credit (RFC 9000, sections 19.9 and 19.10).
const MAX_DATA_FRAME: u64 = 0x10;
const MAX_STREAM_DATA_FRAME: u64 = 0x11;

/// A stream: how far it was sent, and how far it may be.
#[derive(Clone, Copy)]
struct Sent {
    end: u64,
    limit: u64,
}

/// Uses one connection with so many streams until it has ended.
pub(crate) fn fill<const STREAMS: usize>(
    target: Target,
    identity: &Identity,
    sent: &AtomicU64,
) -> Result<()> {
    let mut peer = Peer::connect(target.address, identity, Parameters::generous(), PATIENCE)?;
    let parameters = peer.remote_parameters().context("the handshake is complete")?;
    let limit =
        |id| Ok::<_, anyhow::Error>(Reader::new(parameters.get(id).unwrap_or(&[0])).varint()?);
    let mut total = Sent { end: 0, limit: limit(MAX_DATA)? };
    let mut streams = [Sent { end: 1, limit: limit(MAX_STREAM_DATA_UNI)? }; STREAMS];
    total.end += streams.len() as u64;
    loop {
        let mut packets = 0;
        for (index, stream) in streams.iter_mut().enumerate() {
            if total.end + DATA <= total.limit && stream.end + DATA <= stream.limit {
                let data = vec![7; DATA as usize];
                let (offset, number) = (stream.end, id(index));
                let frame = Frame::Stream { stream: number, offset, fin: false, data };
                peer.send(Space::Data, &[frame])?;
                stream.end += DATA;
                total.end += DATA;
                packets += 1;
            }
        }
        let deadline = Instant::now() + if packets > 0 { PAUSE } else { PATIENCE };
        if packets == 0 {
            peer.send(Space::Data, &[Frame::Ping])?;
        }
        sent.fetch_add(packets.max(1), Ordering::Relaxed);
        for Received { packet, .. } in peer.receive(deadline)?.into_iter().flatten() {
            packet.frames.iter().for_each(|frame| credit(frame, &mut total, &mut streams));
        }
        if let Some(close) = peer.closed() {
            bail!("closed: {close:?}");
        }
    }
}

/// Returns the number of a stream.
fn id(index: usize) -> u64 {
    2 + 4 * index as u64
}

fn credit(frame: &Frame, total: &mut Sent, streams: &mut [Sent]) {
    match frame {
        Frame::Limit { kind: MAX_DATA_FRAME, values } => {
            total.limit = total.limit.max(values.first().copied().unwrap_or(0));
        }
        Frame::Limit { kind: MAX_STREAM_DATA_FRAME, values } => {
            let [number, limit] = values[..] else { return };
            for (index, stream) in streams.iter_mut().enumerate() {
                if id(index) == number {
                    stream.limit = stream.limit.max(limit);
                }
            }
        }
        _ => {}
    }
}
