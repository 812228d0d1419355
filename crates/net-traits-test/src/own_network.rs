//! Tests in a network of their own, whose settings differ from those of the system.

use std::io::{self, Write};
use std::process::Command;
use std::{env, thread};

/// Runs tests of the calling program, also ignored ones, in a network namespace with a loopback
/// interface and `settings` (`net.ipv6.bindv6only=1`, see `sysctl(8)`).
///
/// Where no such namespace can be made, it says so on standard error, and runs nothing.
///
/// # Panics
///
/// If no test of the program has `test` in its name, or one of them fails.
pub fn in_own_network(settings: &[&str], test: &str) {
    const SCRIPT: &str = r#"
        while [ "$1" != -- ]; do
            echo "${1#*=}" > "/proc/sys/$(echo "${1%%=*}" | tr . /)" || exit 1
            shift
        done
        shift
        ip link set lo up && echo "the network is ready" && exec "$@""#;
    let program = env::current_exe().expect("the program has a path");
    let mut command = Command::new("unshare");
    command.args(["-Urn", "sh", "-c", SCRIPT, "sh"]).args(settings).arg("--").arg(program);
    let output = command.args([test, "--nocapture", "--include-ignored"]).output();
    let (text, errors) = match &output {
        Ok(output) => (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ),
        Err(error) => (String::new(), format!("there is no program `unshare`: {error}")),
    };
    if !text.contains("the network is ready") {
        let name = thread::current().name().unwrap_or("a test").to_owned();
        // The output of a test that passes is captured, this is not.
        let _ = writeln!(io::stderr(), "{name} skipped: no network of its own: {errors}");
        return;
    }
    let has_passed = output.is_ok_and(|output| output.status.success());
    assert!(has_passed && !text.contains("running 0 tests"), "{settings:?}: {text}\n{errors}");
}
