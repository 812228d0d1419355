//! `soak`: a mixed load over all transports for a long time, while memory, handles and threads are measured.
//!
//! For each transport, random schedules ([`net_traits_test::random`]) connect, send, ask and end in all ways, and
//! one connection that lives as long as the program exchanges messages. Every second the process is measured. At
//! the end a line is fitted to what was measured after the first third: its slope is zero within its error if
//! nothing leaks.
#![allow(clippy::print_stdout, reason = "a program")]

mod chart;
mod load;
mod sample;
mod slope;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use load::Counters;
use sample::Sample;
use slope::Slope;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Put a mixed load on all transports, and measure what the process holds
#[derive(Debug, Parser)]
struct Options {
    /// How long to run, in minutes
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Write a chart to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The first seed of the random schedules
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Fail if memory, descriptors or threads grow by more than twice their error; 64 KiB of memory a minute
    /// are tolerated
    #[arg(long)]
    strict: bool,
}

/// The part of the samples that is warm-up.
const WARM_UP: f64 = 1.0 / 3.0;

/// The growth per minute that is tolerated with `--strict`, in the units of the series.
const TOLERATED: f64 = 1.0 / 16.0;

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    let samples = runtime.block_on(run(&options))?;
    drop(runtime);
    report(&options, &samples)
}

/// Runs the load, and returns a sample for each second.
async fn run(options: &Options) -> Result<Vec<Sample>> {
    let (is_over, counters) = (Arc::new(AtomicBool::new(false)), Arc::new(Counters::default()));
    let mut load = JoinSet::new();
    load::start(&mut load, options.seed, &is_over, &counters);
    let started = Instant::now();
    let duration = Duration::from_secs_f64(options.minutes * 60.0);
    let mut samples = Vec::new();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.tick().await; // the first one is immediate
    while started.elapsed() < duration {
        tokio::select! {
            _ = second.tick() => samples.push(Sample::take(started.elapsed(), &counters)?),
            Some(ended) = load.join_next() => ended??, // it ends only with an error
        }
    }
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended??;
    }
    Ok(samples)
}

fn report(options: &Options, samples: &[Sample]) -> Result<()> {
    let last = samples.last().context("it was too short for a sample")?;
    let seconds = last.at.as_secs_f64();
    println!(
        "{:.1} min: {} schedules, {} round trips ({:.0} per second), p99 {:.1} ms in the last second",
        seconds / 60.0,
        last.schedules,
        last.round_trips,
        last.round_trips as f64 / seconds,
        last.p99.as_secs_f64() * 1e3,
    );
    println!("| what | first | last | slope per minute | its error |");
    println!("|---|---|---|---|---|");
    let measured = &samples[(samples.len() as f64 * WARM_UP) as usize..];
    let mut grows = false;
    for series in sample::SERIES {
        let points =
            measured.iter().map(|sample| (sample.at.as_secs_f64() / 60.0, (series.value)(sample)));
        let Some(Slope { slope, error }) = slope::fit(points) else { continue };
        let first = (series.value)(&samples[0]);
        println!(
            "| {} | {first:.1} | {:.1} | {slope:+.3} | {error:.3} |",
            series.name,
            (series.value)(last)
        );
        grows |= series.may_not_grow && slope > 2.0 * error + TOLERATED;
    }
    if let Some(path) = &options.svg {
        let chart = chart::draw(samples);
        std::fs::write(path, chart).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(!(options.strict && grows), "something grows, see the table");
    Ok(())
}
