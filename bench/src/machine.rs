//! The machine on which a measurement runs, and what this process uses of it.

use bench_report::Machine;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::Duration;
use std::{env, fs};

/// Describes the machine.
pub(crate) fn describe() -> Machine {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        processor: model.map_or("an unknown processor", |(_, model)| model).to_owned(),
        cores: available_parallelism().map_or(0, usize::from),
        kernel: format!("{} {}", env::consts::OS, kernel.trim()).trim().to_owned(),
        toolchain: output("rustc", "--version"),
        date: output("date", "+%F"),
    }
}

/// Returns what a program prints; empty if it cannot run.
fn output(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).env("TZ", "UTC").output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Returns the processor time of all threads of this process so far.
pub(crate) fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Returns the resident memory of this process in KiB; `None` on systems that do not show it in
/// `/proc`.
pub(crate) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().split(' ').next()?.parse().ok()
}

/// Returns whether this process may have so many open files. Raises its limit if it is allowed to.
pub(crate) fn allows_descriptors(count: usize) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = count as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return true;
    }
    // Only a privileged process may raise the upper limit.
    let maximum = maximum.map(|maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).is_ok()
}
