//! The command line of xtask with an example for each command, and completions for shells.

use crate::Options;
use clap::CommandFactory;
use clap_complete::Shell;

/// Calls of each command, and what they do.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "setup",
        &[
            ("setup", "before the first build"),
            ("setup --msrv", "before `msrv`"),
            ("setup --beta", "before `msrv --beta`"),
            ("setup --nightly", "before `miri`; `ci` then uses it"),
        ],
    ),
    (
        "msquic",
        &[
            ("msquic", "the source of a default build, without patches"),
            ("msquic --source ../msquic-checkout --debug", "another source, with assertions"),
        ],
    ),
    (
        "test",
        &[
            ("test", "with the library of a default build"),
            ("test --msquic target/msquic/PREFIX", "with one that `msquic` has built"),
        ],
    ),
    ("ci", &[("ci", "before a pull request; prints the duration of each step")]),
    (
        "attack",
        &[
            ("attack --rounds 1000", "a short run"),
            ("attack --under asan", "with AddressSanitizer in the C library"),
            ("attack --measure 3", "write the table in docs/security.md"),
        ],
    ),
    (
        "fuzz",
        &[
            ("fuzz", "the kept inputs, and 5 s for each target"),
            ("fuzz --seconds 600 --keep", "longer, and keep what reached new code"),
            ("fuzz --only msquic", "one of fuzz/targets, here the parsers of the C library"),
        ],
    ),
    (
        "races",
        &[
            ("races", "builds the standard library too, and takes a quarter of an hour or more"),
            ("races --short", "a few tests, as in `ci`"),
        ],
    ),
    ("miri", &[("miri", "after `setup --nightly`; takes about four minutes")]),
    ("nightly", &[("nightly", "builds two libraries, and takes an hour or more")]),
    (
        "demo",
        &[
            ("demo", "256 MiB between two processes"),
            ("demo --file README.md", "one of your files"),
            ("demo --tour", "endorsements, hot reload and revocation"),
        ],
    ),
    (
        "bench",
        &[
            ("bench -- messages --rounds 3", "one section, shorter"),
            ("bench -- --quick --json bench.json", "whether it works; figures for programs"),
            ("bench -- network --only loss", "through a relay with delay and loss"),
            ("bench --write", "on a quiet machine: the figures and charts in the documents"),
            ("bench --render", "after a change of how figures are shown"),
        ],
    ),
    (
        "soak",
        &[
            ("soak", "a minute"),
            ("soak -- --minutes 60 --svg soak.svg --strict", "before a release"),
        ],
    ),
    (
        "simulate",
        &[
            ("simulate", "200 nodes, two virtual minutes"),
            (
                "simulate --peers 10000 --minutes 60 --seed 7",
                "what an hour does to a large network",
            ),
            ("simulate --seeds 100", "seed after seed, until one fails"),
            ("simulate --over quinn --peers 8 --minutes 0.5", "the same nodes over real sockets"),
        ],
    ),
    ("patches", &[("patches", "after a change of a patch")]),
    ("errors", &[("errors", "after a change of an error or its documentation")]),
    ("portable", &[("portable", "on any system with Rust")]),
    ("msrv", &[("msrv", "after `setup --msrv`"), ("msrv --beta", "what the next Rust rejects")]),
    ("readme", &[("readme", "after a change of the program in README.md")]),
    (
        "api",
        &[("api", "show what differs"), ("api --write", "accept the differences after a review")],
    ),
    ("package", &[("package", "before a release")]),
    ("tidy", &[("tidy", "takes seconds; builds a dictionary at first")]),
    ("deny", &[("deny", "after a change of Cargo.lock")]),
    ("doctor", &[("doctor", "paste the output into a report of a fault")]),
    (
        "completions",
        &[
            ("completions bash > ~/.local/share/bash-completion/completions/xtask", "for bash"),
            ("completions zsh > ~/.zfunc/_xtask", "for zsh, if fpath has this folder"),
        ],
    ),
];

/// Returns the command line, whose subcommands show examples in their help.
pub(crate) fn command() -> clap::Command {
    let add = |command: clap::Command, (name, examples): &(&str, &[(&str, &str)])| {
        let width = examples.iter().map(|(call, _)| call.len()).max().unwrap_or_default();
        let lines = examples
            .iter()
            .map(|(call, what)| format!("  cargo xtask {call:width$}    # {what}\n"));
        let mut text = format!("Examples:\n{}", lines.collect::<String>());
        if *name == "completions" {
            text.push_str(FUNCTION);
        }
        command.mut_subcommand(name, |it| it.after_help(text))
    };
    EXAMPLES.iter().fold(Options::command(), add)
}

/// Prints the completions of a shell.
pub(crate) fn complete(shell: Shell) {
    clap_complete::generate(shell, &mut command(), COMPLETED, &mut std::io::stdout());
}

/// How a shell gets the command that is completed.
const FUNCTION: &str =
    "\nThe command xtask is a function of your shell: xtask() { cargo xtask \"$@\"; }\n";

/// The command that is completed. A shell cannot complete the arguments of `cargo xtask`, because
/// cargo has its own completions.
const COMPLETED: &str = "xtask";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_examples_that_are_valid() {
        let mut names: Vec<_> = EXAMPLES.iter().map(|(name, _)| *name).collect();
        let command = command();
        let mut commands: Vec<_> = command.get_subcommands().map(|it| it.get_name()).collect();
        names.sort_unstable();
        commands.sort_unstable();
        assert_eq!(names, commands);
        for (name, examples) in EXAMPLES {
            for (call, _) in *examples {
                let call = call.split(" > ").next().unwrap();
                assert_eq!(call.split(' ').next(), Some(*name));
                let words = ["cargo xtask"].into_iter().chain(call.split(' '));
                assert!(command.clone().try_get_matches_from(words).is_ok(), "{call}");
            }
        }
    }

    #[test]
    fn completions_name_every_command() {
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), COMPLETED, &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(EXAMPLES.iter().all(|(name, _)| script.contains(name)), "{shell}");
        }
    }
}
