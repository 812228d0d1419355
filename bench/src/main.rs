//! Framed messages: this project's transports against quinn, s2n-quic, TCP with TLS, and msquic's
//! bare callbacks, over loopback and over bad networks. `unpatched` is a program with more contenders.
//!
//! Each contender runs in a process of its own, with both peers. Rounds are interleaved, so that all
//! contenders see the same load; the results are the ratios within a round.
//!
//! `sections` says who does what; `child` passes the workloads to the processes; `measure` carries
//! them out over any `transport`, of which `contenders` has one module each.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

mod child;
mod contenders;
mod machine;
mod measure;
mod network;
mod sections;
mod tls;
mod transport;
mod workload;

use anyhow::{Context, Result, ensure};
use bench_report::{Report, Row, Section};
use child::Child;
use clap::Parser;
use contenders::Programs;
use sections::Plan;
use std::path::PathBuf;
use workload::Workload;

/// Benchmark messages of this project's transports against other transports
#[derive(Debug, Parser)]
struct Options {
    /// Run only these sections: messages, jumbo, connections, handshakes, memory, ten-thousand, network,
    /// polling, sharing, telemetry
    sections: Vec<String>,
    /// Number of rounds; by default 1 to 9, depending on the section, and 1 with `--quick`
    #[arg(long)]
    rounds: Option<usize>,
    /// Write the figures of all rounds to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Do a tenth of the work, in one round: whether the benchmark works
    #[arg(long)]
    quick: bool,
    /// Run only workloads whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// The program of bench/unpatched; without it there is no figure of an unpatched msquic
    #[arg(long)]
    unpatched: Option<PathBuf>,
    /// Be the process of a contender
    #[arg(long, hide = true)]
    contender: Option<String>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(name) = options.contender {
        return contenders::serve(name);
    }
    let mut plans = sections::all();
    for name in &options.sections {
        let names: Vec<_> = plans.iter().map(|plan| plan.name).collect();
        ensure!(names.contains(&&**name), "there is no section {name:?}; there are {names:?}");
    }
    plans.retain(|plan| {
        options.sections.is_empty() || options.sections.iter().any(|name| name == plan.name)
    });
    let programs = Programs::new(options.unpatched.clone())?;
    let mut report = Report { machine: machine::describe(), sections: Vec::new() };
    for plan in &mut plans {
        plan.contenders.retain(|name| programs.of(name).is_some());
        if plan.contenders.len() < 2 {
            continue; // nothing to compare
        }
        eprintln!("{}", plan.title);
        report.sections.push(run(plan, &programs, &options)?);
    }
    println!("{}", report.markdown(|_| None));
    options.json.map_or(Ok(()), |path| report.write(&path))
}

/// Measures in turns.
fn run(plan: &Plan, programs: &Programs, options: &Options) -> Result<Section> {
    let contenders = &plan.contenders;
    let spawn = |name| Child::spawn(programs.of(name).context("no program")?, name);
    let children = contenders.iter().map(|name| spawn(name));
    let mut children = children.collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for (name, workload) in &plan.workloads {
        if options.only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        eprintln!("  {name}");
        let workload = if options.quick { workload.quick() } else { *workload };
        let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { plan.rounds });
        let mut all = Vec::new();
        for round in 0..rounds {
            let mut figures = vec![None; children.len()];
            for turn in 0..children.len() {
                let index = (round + turn) % children.len(); // no contender is always first
                figures[index] = match measure(
                    &mut children[index],
                    || spawn(contenders[index]),
                    workload,
                    round,
                ) {
                    // A long run is not lost because one of its measurements fails.
                    Err(error) if !options.quick => {
                        eprintln!("no figure: {error:#}");
                        children[index] = spawn(contenders[index])?;
                        None
                    }
                    result => result?,
                };
            }
            all.push(figures);
        }
        rows.extend(workload.figures().iter().enumerate().map(|(place, unit)| {
            let figure = |figures: &Option<Vec<f64>>| figures.as_ref()?.get(place).copied();
            Row {
                name: format!("{name}{}", unit.suffix),
                is_drawn: unit.is_drawn,
                less_is_better: unit.less_is_better,
                rounds: all.iter().map(|round| round.iter().map(figure).collect()).collect(),
            }
        }));
    }
    Ok(Section {
        name: plan.name.to_owned(),
        title: plan.title.to_owned(),
        contenders: contenders.iter().map(|name| (*name).to_owned()).collect(),
        rows,
    })
}

fn measure(
    child: &mut Child,
    spawn: impl FnOnce() -> Result<Child>,
    workload: Workload,
    round: usize,
) -> Result<Option<Vec<f64>>> {
    let workload = workload.of_round(round);
    if workload.needs_own_process() {
        return spawn()?.measure(workload);
    }
    child.measure(workload)
}
