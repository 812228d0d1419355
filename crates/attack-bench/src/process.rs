//! Child processes, the commands that they read from standard input, and what Linux reports of
//! their memory and processor time.

use anyhow::{Context, Result, ensure};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Waits until standard input is closed.
pub(crate) async fn parent_has_ended() {
    while parent_commands().await {}
}

/// Waits for a line on standard input; `false` if it is closed.
pub(crate) async fn parent_commands() -> bool {
    // A blocking read, which the runtime of an ending process does not wait for.
    let (done, read) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let length = std::io::stdin().read_line(&mut String::new());
        let _ = done.send(length.is_ok_and(|length| length > 0)); // the task may have ended
    });
    read.await.unwrap_or(false)
}

/// A process of this program in another role. Dropping it kills the process.
pub(crate) struct Role {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Role {
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let input = child.stdin.take().context("it is piped")?;
        let lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
        Ok(Self { child, input, lines })
    }

    /// Returns the next line that the process prints.
    pub(crate) async fn line(&mut self) -> Result<String> {
        self.lines.next_line().await?.context("the process has ended")
    }

    /// Sends a line, and returns the figures that the process prints.
    pub(crate) async fn ask(&mut self) -> Result<Vec<f64>> {
        self.input.write_all(b"\n").await?;
        let line = self.line().await?;
        line.split(' ').map(|word| word.parse().with_context(|| format!("`{line}`"))).collect()
    }

    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    fn proc(&self, file: &str) -> Result<String> {
        let id = self.child.id().context("the process has ended")?;
        Ok(std::fs::read_to_string(format!("/proc/{id}/{file}"))?)
    }

    /// Returns the resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = line.context("Linux has it")?.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Returns the processor time.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        processor_time(&self.proc("stat")?)
    }
}

/// Returns the processor time of this process.
pub(crate) fn own_processor_time() -> Result<Duration> {
    processor_time(&std::fs::read_to_string("/proc/self/stat")?)
}

fn processor_time(stat: &str) -> Result<Duration> {
    // Fields 14 and 15, after a name that may contain spaces (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(") ").context("it has a name")?;
    let fields: Vec<_> = fields.split(' ').collect();
    ensure!(fields.len() > 12, "it has the times");
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10)) // USER_HZ is 100 on Linux
}
