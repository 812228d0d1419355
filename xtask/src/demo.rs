//! `demo`: sends a file between two processes of `netmsg` that authenticate each other.

use crate::process::{self, Workspace};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Size of the generated file, in bytes.
const DEFAULT_SIZE: u64 = 256 * 1024 * 1024;

/// How long the listener may take to start, and to end after the dialler.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The user interrupted the demo.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The file to send [default: 256 MiB of generated data]
    #[arg(long)]
    file: Option<PathBuf>,
    /// Present a certificate that the listener does not trust
    #[arg(long)]
    pub(crate) untrusted: bool,
    /// Show identity and trust instead: endorsements, hot reload, revocation
    #[arg(long, conflicts_with_all = ["file", "untrusted"])]
    tour: bool,
}

impl Options {
    pub(crate) fn new(untrusted: bool) -> Self {
        Self { file: None, untrusted, tour: false }
    }

    pub(crate) fn tour() -> Self {
        Self { file: None, untrusted: false, tour: true }
    }
}

/// The program `netmsg`.
pub(crate) enum Program<'a> {
    /// Run by cargo, which sets the path of libmsquic.
    Cargo(&'a Workspace),
    /// A self-contained binary, run with an empty environment.
    Copied(&'a Path),
}

impl Program<'_> {
    fn command(&self) -> Command {
        match self {
            Self::Cargo(workspace) => {
                let mut command = workspace.cargo_linked(["run", "--quiet", "--release"]);
                command.args(package_args(workspace, "netmsg")).arg("--");
                command
            }
            Self::Copied(path) => {
                let mut command = Command::new(path);
                command.env_clear();
                command
            }
        }
    }
}

/// Returns the arguments for an unpublished package, with the workspace's library.
pub(crate) fn package_args<'a>(workspace: &Workspace, package: &'a str) -> Vec<&'a str> {
    let library: &[_] = if workspace.is_bundled() { &[] } else { &["--features", "system"] };
    [&["--package", package], library].concat()
}

/// Builds the program and runs the demo with it.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if options.tour {
        return example(workspace, "tour");
    }
    if let Some(file) = &options.file {
        ensure!(file.is_file(), "{} does not exist or is not a file", file.display());
    }
    let mut build = workspace.cargo_linked(["build"]);
    build.arg("--release").args(package_args(workspace, "netmsg"));
    process::run(&mut build)?;
    // The two processes get the signal too, and end; this one then cleans up.
    let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::SeqCst));
    transfer(&Program::Cargo(workspace), options, &workspace.target)
}

/// Runs an example that needs no arguments and ends by itself.
pub(crate) fn example(workspace: &Workspace, name: &str) -> Result<()> {
    let mut run = workspace.cargo_linked(["run", "--quiet", "--release"]);
    run.args(package_args(workspace, "examples")).args(["--example", name]);
    process::run(&mut run)
}

/// Runs the demo of the chat over a transport.
pub(crate) fn chat(workspace: &Workspace, transport: &str) -> Result<()> {
    let mut chat = Program::Cargo(workspace).command();
    process::run(chat.args(["chat", "--demo", "--transport", transport]))
}

/// Runs the demo, with large files below `scratch`.
pub(crate) fn transfer(program: &Program<'_>, options: &Options, scratch: &Path) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("demo-").tempdir_in(scratch)?;
    let directory = directory.path();
    let file = match &options.file {
        Some(file) => file.canonicalize()?,
        None => make_file(directory)?,
    };
    let stored = directory.join("received");
    std::fs::create_dir(&stored)?;

    let of = |name: &str| {
        let mut command = program.command();
        command.arg("--home").arg(directory.join(name));
        command
    };
    let identity =
        |name: &str| Ok(process::output(of(name).arg("id"))?.trim().to_owned()) as Result<String>;
    let listener_identity = identity("listener")?;
    let dialler_identity = identity("dialler")?;
    let presented = if options.untrusted { "untrusted" } else { "dialler" };
    identity(presented)?;

    ensure!(!INTERRUPTED.load(Ordering::SeqCst), "interrupted");
    let mut listen = of("listener");
    listen.args(["listen", "--bind", "127.0.0.1:0", "--once", "--exit-with-parent"]);
    listen.args(["--trust", &dialler_identity]).arg("--out").arg(&stored);
    listen.args(["--max-size", &file.metadata()?.len().to_string()]);
    if std::io::stderr().is_terminal() {
        listen.arg("--quiet"); // the dialler shows a progress bar
    }
    let mut listener = Listener::start(listen)?;
    let address = listener.address()?;

    let mut send = of(presented);
    send.args(["send", "--to", &format!("{listener_identity}@{address}")]);
    let dialled = send.arg(&file).status().context("cannot run the dialler")?;
    ensure!(!INTERRUPTED.load(Ordering::SeqCst), "interrupted");
    let listened = listener.wait()?;

    let stored_file = stored.join(file.file_name().context("the file has no name")?);
    let leftovers = std::fs::read_dir(&stored)?.count();
    if options.untrusted {
        ensure!(!dialled.success() && !listened, "an untrusted certificate was accepted");
        ensure!(leftovers == 0, "the rejected dialler left a file behind");
        println!("demo: the untrusted dialler was rejected, and both sides reported it");
    } else {
        ensure!(dialled.success() && listened, "the transfer failed");
        ensure!(leftovers == 1 && stored_file.is_file(), "the file was not stored");
        let sizes = [file.metadata()?.len(), stored_file.metadata()?.len()];
        ensure!(sizes[0] == sizes[1], "{} bytes were sent, but {} stored", sizes[0], sizes[1]);
        println!("demo: the file was transferred, and both sides agree on its SHA-256");
    }
    Ok(())
}

/// Writes a file whose content does not repeat.
fn make_file(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("demo.bin");
    let mut file = std::io::BufWriter::new(File::create(&path)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..DEFAULT_SIZE / 8 {
        // Marsaglia's xorshift64: enough to detect swapped or repeated blocks.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    file.flush().context("cannot write the file to send")?;
    Ok(path)
}

/// The listening process; it is killed when this value is dropped.
struct Listener {
    child: Child,
    _stdin: Option<ChildStdin>,
    address: mpsc::Receiver<String>,
    printer: Option<JoinHandle<()>>,
}

impl Listener {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run the listener")?;
        let stdout = child.stdout.take().context("the listener has no output")?;
        let (found, address) = mpsc::channel();
        let printer = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening on ") {
                    let _ = found.send(address.to_owned());
                }
                println!("  listener: {line}");
            }
        });
        let _stdin = child.stdin.take();
        Ok(Self { child, _stdin, address, printer: Some(printer) })
    }

    fn address(&mut self) -> Result<String> {
        self.address.recv_timeout(TIMEOUT).context("the listener did not start")
    }

    /// Waits for its end, and returns whether it succeeded.
    fn wait(&mut self) -> Result<bool> {
        let mut waited = Duration::ZERO;
        let pause = Duration::from_millis(20);
        while waited < TIMEOUT {
            if let Some(status) = self.child.try_wait()? {
                self.printer.take().map(JoinHandle::join);
                return Ok(status.success());
            }
            std::thread::sleep(pause);
            waited += pause;
        }
        bail!("the listener did not end")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
