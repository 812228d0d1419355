//! A failed run prints its seed and the command that repeats it.

use std::process::Command;

/// Runs the program, which must fail, and returns what it prints last: the violation and the command.
fn failure(arguments: &str) -> (String, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_simulate"));
    let output = program.args(arguments.split(' ')).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    let mut lines = errors.lines().rev();
    let command = lines.next().unwrap().strip_prefix("repeat it with: ");
    let violation = lines.next().unwrap().strip_prefix("simulate: ");
    (violation.unwrap().to_owned(), command.unwrap().to_owned())
}

/// Checks that the printed command repeats the failure, and returns the failure.
fn assert_repeatable(arguments: &str) -> String {
    let (violation, command) = failure(arguments);
    let (seed, _) = violation.strip_prefix("seed ").unwrap().split_once(':').unwrap();
    assert!(command.contains(&format!("--seed {seed} ")), "{command}");
    let repeated = command.strip_prefix("cargo xtask simulate ").unwrap();
    assert_eq!(failure(repeated), (violation.clone(), command.clone()));
    violation
}

#[test]
fn the_command_repeats_a_violation() {
    let violation = assert_repeatable("--peers 20 --minutes 2.5 --seed 7 --mutant loses-messages");
    assert!(violation.starts_with("seed 7: message "), "{violation}");
}

#[test]
fn the_command_names_the_seed_that_failed() {
    // No key is stolen with seed 2.
    let many = "--peers 10 --minutes 0.5 --seed 2 --seeds 1000 --mutant accepts-revoked";
    let violation = assert_repeatable(many);
    assert!(violation.contains("a revoked key"), "{violation}");
    assert!(!violation.starts_with("seed 2:"), "{violation}");
}

#[test]
fn a_panic_is_repeated_too() {
    let violation = assert_repeatable("--peers 5 --minutes 2 --mutant panics");
    assert!(violation.starts_with("seed 0: node "), "{violation}");
}

#[test]
fn a_run_that_needs_too_much_memory_fails() {
    let (violation, _) = failure("--peers 20 --minutes 2 --mutant leaks-memory");
    assert!(violation.contains("KiB are expected at most"), "{violation}");
}
