//! The attacks. Each is a peer that the network endorsed, unless its name says otherwise.

use crate::Target;
use crate::attacker::{Attacker, AttackerConnection, own_address};
use crate::gaps;
use crate::node::{self, ALPN, Kind};
use crate::process;
use crate::victim::ECHO;
use anyhow::{Result, bail};
use clap::ValueEnum;
use quic_attack::{Attempt, Frame, Parameters, client_hello, mangle};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{interval, sleep};

/// How many connections an attack keeps open at a time.
pub(crate) const CONNECTIONS: usize = 4;

/// How many streams of messages each of them opens over QUIC: as many as the victim allows.
const STREAMS: usize = 16;

/// The largest message that the victim accepts.
const LARGEST: u32 = 64 << 20;

/// How many handshakes [`Attack::StalledHandshakes`] begins per second.
const STALLS_PER_SECOND: u32 = 150;

/// An attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// Empty messages as fast as possible
    EmptyMessages,
    /// On each stream, all but the last byte of the largest message
    PartialMessages,
    /// The lengths of messages beyond the limit, on new streams or connections
    MessagesBeyondTheLimit,
    /// Messages whose answers are not read
    UnreadAnswers,
    /// Questions without an end, as many as the victim allows
    PartialQuestions,
    /// Streams whose first byte is missing, as much as the victim allows
    Gaps,
    /// Datagrams that the application does not receive
    UnreadDatagrams,
    /// Streams that are reset after one byte
    ResetStreams,
    /// 150 handshakes per second that never complete
    StalledHandshakes,
    /// Complete handshakes of an endorsed peer that closes at once
    Reconnects,
    /// Handshakes with 16 endorsements by unknown keys
    UnknownEndorsements,
    /// Initial packets with a valid ClientHello, each of another attempt
    ClientHellos,
    /// Damaged and random packets
    Garbage,
}

impl Attack {
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value().expect("no attack is hidden");
        value.get_name().replace('-', " ")
    }

    pub(crate) fn applies_to(self, kind: Kind) -> bool {
        let needs_quic = matches!(
            self,
            Self::PartialQuestions
                | Self::Gaps
                | Self::UnreadDatagrams
                | Self::ResetStreams
                | Self::ClientHellos
                | Self::Garbage
        );
        kind.is_quic() || !needs_quic
    }
}

/// Attacks until standard input is closed. Each line of standard input is answered with the number
/// of packets sent.
pub(crate) async fn run(target: Target, attack: Attack) -> Result<()> {
    let credential = match attack {
        Attack::UnknownEndorsements => node::stranger()?,
        _ => node::member()?,
    };
    let attacker = Arc::new(Attacker::new(target, &credential)?);
    let raw = Arc::new(AtomicU64::new(0));
    match attack {
        Attack::ClientHellos => drop(std::thread::spawn({
            let raw = raw.clone();
            move || client_hellos(target, &raw)
        })),
        Attack::Garbage => drop(std::thread::spawn({
            let raw = raw.clone();
            move || garbage(target, &raw)
        })),
        Attack::Gaps => {
            for _ in 0..CONNECTIONS {
                let (identity, raw) = (node::identity(&credential), raw.clone());
                std::thread::spawn(move || {
                    loop {
                        let _ = gaps::fill::<STREAMS>(target, &identity, &raw); // the victim may end the connection
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            }
        }
        Attack::StalledHandshakes => {
            drop(tokio::spawn(stall(target, attacker.clone(), raw.clone())))
        }
        _ => {
            for _ in 0..CONNECTIONS {
                let attacker = attacker.clone();
                tokio::spawn(async move {
                    loop {
                        // The victim ends connections, and refuses others.
                        if once(attack, &attacker).await.is_err() {
                            sleep(Duration::from_millis(1)).await;
                        }
                    }
                });
            }
        }
    }
    while process::parent_commands().await {
        println!("{}", attacker.packets() + raw.load(Ordering::Relaxed));
    }
    Ok(())
}

/// Uses one connection until it has ended, or opens one.
async fn once(attack: Attack, attacker: &Attacker) -> Result<()> {
    let mut connection = attacker.connect().await?;
    match attack {
        Attack::EmptyMessages => {
            connection.discard();
            let mut messages = connection.messages().await?;
            loop {
                messages.write_all(&[0; 65_536]).await?;
            }
        }
        Attack::PartialMessages => {
            let streams =
                if matches!(connection, AttackerConnection::Quic(_)) { STREAMS } else { 1 };
            let mut writers = Vec::new();
            for _ in 0..streams {
                let mut messages = connection.messages().await?;
                writers.push(tokio::spawn(async move {
                    messages.write_all(&LARGEST.to_be_bytes()).await?;
                    let piece = vec![7; 65_535]; // so that the last byte is left over
                    for _ in 0..LARGEST / 65_536 {
                        messages.write_all(&piece).await?;
                    }
                    messages.flush().await?;
                    std::future::pending::<std::io::Result<()>>().await
                }));
            }
            for writer in writers {
                writer.await??;
            }
        }
        Attack::MessagesBeyondTheLimit => loop {
            let mut messages = connection.messages().await?;
            messages.write_all(&(LARGEST + 1).to_be_bytes()).await?;
            messages.shutdown().await?;
        },
        Attack::UnreadAnswers => {
            let mut messages = connection.messages().await?;
            let message = [&65_536_u32.to_be_bytes()[..], &[ECHO; 65_536]].concat();
            loop {
                messages.write_all(&message).await?;
            }
        }
        Attack::PartialQuestions => {
            let AttackerConnection::Quic(connection) = &connection else { bail!("only over QUIC") };
            let mut questions = Vec::new();
            // As many as there is credit for, then wait for more.
            loop {
                let (mut question, _) = connection.open_bi().await?;
                question.write_all(&vec![7; (1 << 20) - 1]).await?;
                questions.push(question);
            }
        }
        Attack::UnreadDatagrams => {
            let AttackerConnection::Quic(connection) = &connection else { bail!("only over QUIC") };
            loop {
                connection.send_datagram_wait(vec![0; 1000].into()).await?;
            }
        }
        Attack::ResetStreams => {
            let AttackerConnection::Quic(connection) = &connection else { bail!("only over QUIC") };
            loop {
                let mut stream = connection.open_uni().await?;
                stream.write_all(&[0]).await?;
                stream.reset(7_u8.into())?;
            }
        }
        Attack::Reconnects | Attack::UnknownEndorsements => connection.close(),
        Attack::Gaps | Attack::StalledHandshakes | Attack::ClientHellos | Attack::Garbage => {}
    }
    Ok(())
}

/// Begins handshakes at a rate, and never completes one.
async fn stall(target: Target, attacker: Arc<Attacker>, sent: Arc<AtomicU64>) {
    let mut ticks = interval(Duration::from_secs(1) / STALLS_PER_SECOND);
    let mut kept = Vec::new();
    loop {
        ticks.tick().await;
        if target.kind.is_quic() {
            let Ok(socket) = socket(target) else { continue };
            let _ = socket.send(&hello(&mut fastrand::Rng::new())); // the buffer may be full
            sent.fetch_add(1, Ordering::Relaxed);
        } else if let Ok(stream) = attacker.connect_tcp().await {
            kept.push(stream);
            if kept.len() == 10_000 {
                kept.remove(0);
            }
        }
    }
}

fn client_hellos(target: Target, sent: &AtomicU64) {
    let Ok(socket) = socket(target) else { return };
    let mut rng = fastrand::Rng::new();
    loop {
        let _ = socket.send(&hello(&mut rng)); // the buffer may be full
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

fn garbage(target: Target, sent: &AtomicU64) {
    let Ok(socket) = socket(target) else { return };
    let mut rng = fastrand::Rng::new();
    let hello = hello(&mut rng);
    loop {
        let packet = match rng.u8(..3) {
            0 => mangle::random(&mut rng, 1400),
            1 => mangle::random_long(&mut rng),
            _ => mangle::mangle(&mut rng, &hello),
        };
        let _ = socket.send(&packet); // the buffer may be full
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns the first packet of a new connection attempt.
fn hello(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut attempt = Attempt::new(rng);
    let data = client_hello(&[ALPN], &Parameters::generous(), &attempt.src);
    attempt.datagram(&[Frame::Crypto { offset: 0, data }])
}

fn socket(target: Target) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((own_address(), 0))?;
    socket.connect(target.address)?;
    Ok(socket)
}
