//! `Child`: the process of a contender. `answer` is its other side.
//!
//! A contender has a process of its own because msquic is driven by threads or by a runtime for the
//! whole of a process, and because its memory and processor time are then those of the process.

use crate::measure::Measure;
use crate::workload::Workload;
use anyhow::{Context, Result, anyhow};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, stdin};
use tokio::time::timeout;

/// A process that carries out workloads. It ends when this is dropped.
pub(crate) struct Child {
    name: &'static str,
    process: process::Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The figures, or the error.
type Answer = Result<Option<Vec<f64>>, String>;

impl Child {
    pub(crate) fn spawn(program: &Path, name: &'static str) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["--contender", name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let requests = process.stdin.take().context("no standard input")?;
        let answers = BufReader::new(process.stdout.take().context("no standard output")?);
        Ok(Self { name, process, requests, answers })
    }

    /// Returns the figures; `None` if the contender does not have the workload.
    pub(crate) fn measure(&mut self, workload: Workload) -> Result<Option<Vec<f64>>> {
        self.ask(workload).with_context(|| format!("{}: {workload:?}", self.name))
    }

    fn ask(&mut self, workload: Workload) -> Result<Option<Vec<f64>>> {
        writeln!(self.requests, "{}", serde_json::to_string(&workload)?)?;
        self.requests.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Answer =
            serde_json::from_str(&line).with_context(|| format!("it ended, or wrote {line:?}"))?;
        answer.map_err(|error| anyhow!(error))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Carries out the workloads that arrive at the standard input, until it is closed.
pub(crate) async fn answer(contender: impl Measure) -> Result<()> {
    let contender = Arc::new(contender);
    let mut requests = tokio::io::BufReader::new(stdin()).lines();
    while let Some(line) = requests.next_line().await? {
        let figures = timeout(LIMIT, contender.clone().measure(serde_json::from_str(&line)?)).await;
        let figures = figures.unwrap_or_else(|_| Err(anyhow!("not done after {LIMIT:?}")));
        let answer: Answer = figures.map_err(|error| format!("{error:#}"));
        let mut output = io::stdout().lock();
        writeln!(output, "{}", serde_json::to_string(&answer)?)?;
        output.flush()?;
    }
    Ok(())
}

/// How long one measurement may take.
const LIMIT: Duration = Duration::from_secs(180);
