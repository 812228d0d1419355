//! `netmsg man` and `netmsg completions`.

use crate::exit::Exit;
use crate::home::create_directory;
use anyhow::{Context, Result, anyhow};
use clap::Command;
use clap_complete::Shell;
use std::io::Write;
use std::path::PathBuf;

/// Print the manual page, or write the pages of all commands
#[derive(Debug, clap::Args)]
pub(crate) struct Manual {
    /// The command whose page is printed
    #[arg(conflicts_with = "out")]
    command: Option<String>,
    /// Directory for the pages of all commands, such as ~/.local/share/man/man1
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Print the completions for a shell
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    shell: Shell,
}

pub(crate) fn man(program: Command, options: &Manual) -> Result<()> {
    if let Some(out) = &options.out {
        create_directory(out, false)?;
        let written = clap_mangen::generate_to(program, out);
        return written.with_context(|| format!("cannot write into {}", out.display()));
    }
    let command = match &options.command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name).cloned();
            let found = found.ok_or_else(|| anyhow!("there is no command {name:?}, see --help"));
            let full: &'static str = format!("netmsg-{name}").leak();
            found.context(Exit::Usage)?.name(full)
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    write(&page)
}

pub(crate) fn completions(mut program: Command, options: &Completions) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut program, "netmsg", &mut text);
    write(&text)
}

/// Prints without an error if the reader ends early.
fn write(text: &[u8]) -> Result<()> {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
