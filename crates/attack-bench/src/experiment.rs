//! The processes of an attack and of its control, and what is measured.

use crate::Run;
use crate::attacks::Attack;
use crate::node::{IDLE, Kind};
use crate::pace::{Pace, Sent};
use crate::process::Role;
use anyhow::{Result, ensure};
use clap::ValueEnum;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long honest peers connect and the victim's memory settles before an attack.
const WARM_UP: Duration = Duration::from_secs(3);

/// How often memory, and what the attacker has sent, are read.
const SAMPLE: Duration = Duration::from_millis(50);

/// What honest peers measured. Times are in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Honest {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) lost_pings: f64,
    pub(crate) dials: f64,
    pub(crate) failed_dials: f64,
}

/// The figures of one experiment.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) honest: Honest,
    /// Resident memory of the victim in MiB, before, at most, and after.
    pub(crate) memory: [f64; 3],
    /// When the attacker sent its packets and used the processor.
    pub(crate) pace: Pace,
}

/// An attack with its control, measured in turn.
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) attack: Attack,
    /// At least one.
    pub(crate) rounds: Vec<Round>,
}

pub(crate) struct Round {
    pub(crate) attacked: Figures,
    pub(crate) control: Figures,
}

pub(crate) async fn run_all(options: &Run) -> Result<Vec<Row>> {
    let duration = Duration::from_secs(options.seconds);
    let mut rows = Vec::new();
    for &attack in Attack::value_variants() {
        if options.only.as_ref().is_some_and(|only| !attack.name().contains(only)) {
            continue;
        }
        for kind in Kind::ALL {
            if attack.applies_to(kind) && options.kind.is_none_or(|only| only == kind) {
                rows.push(row(kind, attack, duration, options.rounds.max(1)).await?);
            }
        }
    }
    Ok(rows)
}

async fn row(kind: Kind, attack: Attack, duration: Duration, rounds: usize) -> Result<Row> {
    let value = attack.to_possible_value().expect("no attack is hidden");
    let mut row = Row { kind, attack, rounds: Vec::new() };
    for round in 0..rounds {
        let settles = round == 0;
        let attacked = experiment(kind, duration, "attack", &[value.get_name()], settles).await?;
        let pace = attacked.pace.to_string();
        let control = experiment(kind, duration, "control", &[&pace], false).await?;
        for Figures { honest, memory, pace } in [&attacked, &control] {
            let (packets, processors) = pace.rates();
            let name = attack.name();
            eprintln!(
                "{name} {}: {honest:?}, {memory:.0?}, {packets:.0}/s, {processors:.1}",
                kind.name()
            );
        }
        row.rounds.push(Round { attacked, control });
    }
    Ok(row)
}

/// Measures with an attacker or its control; `settles` waits for the victim's memory after it.
async fn experiment(
    kind: Kind,
    duration: Duration,
    role: &str,
    arguments: &[&str],
    settles: bool,
) -> Result<Figures> {
    let mut victim = Role::start(&["victim", kind.name()])?;
    let address = victim.line().await?;
    let mut honest = Role::start(&["honest", kind.name(), &address])?;
    sleep(WARM_UP).await;
    let calm = honest.ask().await?;
    ensure!(calm[0] > 0.0, "honest peers are not served: {calm:?}");
    let before = victim.resident_mib()?;
    let mut attacker = Role::start(&[&[role, kind.name(), &address], arguments].concat())?;
    let begin = Instant::now();
    let (mut peak, mut pace) = (before, Pace::default());
    while begin.elapsed() < duration {
        sleep(SAMPLE).await;
        peak = peak.max(victim.resident_mib()?);
        let packets = attacker.ask().await?[0];
        let processor = attacker.processor_time()?.as_secs_f64();
        pace.push(Sent { time: begin.elapsed().as_secs_f64(), packets, processor });
    }
    let measured = honest.ask().await?;
    attacker.kill().await?;
    if settles {
        sleep(IDLE + WARM_UP).await;
    }
    let after = victim.resident_mib()?;
    honest.kill().await?;
    victim.kill().await?;
    let [_, p50, p99, _, lost_pings, dials, _, _, failed_dials] = measured[..] else {
        anyhow::bail!("unexpected figures of the honest peers: {measured:?}");
    };
    let honest = Honest { p50, p99, lost_pings, dials, failed_dials };
    Ok(Figures { honest, memory: [before, peak, after], pace })
}
