//! Only `setup` installs: other commands report missing tools in one line.
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Output};

/// Runs xtask with an empty `PATH`, so that it cannot call a package manager.
fn xtask(arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask.current_dir(root).env("PATH", "/nonexistent").env("CARGO", env!("CARGO"));
    xtask.args(arguments).output().unwrap()
}

#[test]
fn commands_that_build_report_missing_tools_and_how_to_install_them() {
    let vendored =
        ["ci", "test", "demo", "bench", "readme"].map(|command| (command, "a C compiler"));
    for (command, missing) in vendored.into_iter().chain([("msquic", "cmake 3.20 or newer")]) {
        let output = xtask(&[command]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{command} continues");
        let expected = format!("xtask: missing: {missing}, ");
        assert!(said.starts_with(&expected), "{command}: {said}");
        assert!(said.ends_with("; run `cargo xtask setup`\n"), "{command}: {said}");
        assert_eq!(said.lines().count(), 1, "{command}: {said}");
        assert!(output.stdout.is_empty(), "{command} printed output before");
    }
}

#[test]
fn help_needs_no_tools() {
    for arguments in [&["--help"][..], &["help"], &["ci", "--help"]] {
        let output = xtask(arguments);
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("Usage: cargo xtask"));
    }
}
