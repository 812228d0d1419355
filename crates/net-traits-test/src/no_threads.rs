//! Tests in a process that has no memory for further threads. Linux only.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::Command;
use std::{env, fs, thread};

/// Returns whether this is the process of the test, whose limits it may lower. The first call starts that and
/// returns false after its end. `test` is the name of the calling test.
///
/// # Panics
///
/// If the test fails there, or has another name.
pub fn is_in_own_process(test: &str) -> bool {
    if env::var_os(test).is_some() {
        return true;
    }
    let mut child = Command::new(env::current_exe().expect("the program has a path"));
    let child = child.env(test, "1").args(["--exact", test, "--nocapture"]);
    let output = child.output().expect("the program can be started");
    let has_run = !String::from_utf8_lossy(&output.stdout).contains("running 0 tests");
    assert!(has_run && output.status.success(), "{output:?}");
    false
}

/// Runs `operations` without memory for another thread. Only for a [process of its own](is_in_own_process).
///
/// # Panics
///
/// If memory cannot be limited.
pub async fn without_threads(operations: impl AsyncFnOnce()) {
    let limit = getrlimit(Resource::As);
    let pages = fs::read_to_string("/proc/self/statm").expect("the memory in use");
    let pages: u64 = pages.split(' ').next().and_then(|it| it.parse().ok()).expect("its pages");
    // Each thread has a stack of 2 MiB or more.
    let current = Some(pages * rustix::param::page_size() as u64 + 1024 * 1024);
    setrlimit(Resource::As, Rlimit { current, ..limit }).expect("a lower limit");
    // The stack of a thread that has ended may be used again, by a smaller one.
    assert!(thread::Builder::new().stack_size(64 << 20).spawn(|| ()).is_err());
    operations().await;
    setrlimit(Resource::As, limit).expect("the former limit");
}
