//! `demo`: sends a file between two processes of `netmsg` that authenticate each other.

use crate::process::{self, Workspace};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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
    let presented_identity = identity(presented)?;

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

    let stored_file = stored.join(file.file_name().context("the file has no name")?);
    let leftovers = || Ok(std::fs::read_dir(&stored)?.count()) as Result<usize>;
    if options.untrusted {
        ensure!(!dialled.success(), "an untrusted certificate was accepted");
        listener.reported(&format!("rejected the certificate {presented_identity}"))?;
        ensure!(listener.is_running()?, "a rejected dialler ended the listener");
        ensure!(leftovers()? == 0, "the rejected dialler left a file behind");
        println!("demo: the untrusted dialler was rejected, and both sides reported it");
    } else {
        let listened = listener.wait()?;
        let leftovers = leftovers()?;
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
    output: Lines,
    errors: Lines,
}

impl Listener {
    fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run the listener")?;
        let output = Lines::new(child.stdout.take().context("the listener has no output")?);
        let errors = Lines::new(child.stderr.take().context("the listener has no errors")?);
        let _stdin = child.stdin.take();
        Ok(Self { child, _stdin, output, errors })
    }

    fn address(&self) -> Result<String> {
        let line = self.output.find("listening on ").context("the listener did not start")?;
        Ok(line.replace("listening on ", ""))
    }

    /// Waits until it has printed an error that contains `text`.
    fn reported(&self, text: &str) -> Result<()> {
        let found = self.errors.find(text).map(drop);
        found.with_context(|| format!("the listener did not report: {text}"))
    }

    fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end, and returns whether it succeeded.
    fn wait(&mut self) -> Result<bool> {
        let mut waited = Duration::ZERO;
        let pause = Duration::from_millis(20);
        while waited < TIMEOUT {
            if let Some(status) = self.child.try_wait()? {
                self.output.end();
                self.errors.end();
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

/// The lines of an output of the listener; a thread prints them.
struct Lines {
    lines: mpsc::Receiver<String>,
    printer: Option<JoinHandle<()>>,
}

impl Lines {
    fn new(output: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        let printer = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                println!("  listener: {line}");
                let _ = sender.send(line);
            }
        });
        Self { lines, printer: Some(printer) }
    }

    /// Waits for a line that contains `text`, and forgets those before it.
    fn find(&self, text: &str) -> Result<String> {
        let end = Instant::now() + TIMEOUT;
        loop {
            let line = self.lines.recv_timeout(end.saturating_duration_since(Instant::now()))?;
            if line.contains(text) {
                return Ok(line);
            }
        }
    }

    /// Waits until everything is printed.
    fn end(&mut self) {
        self.printer.take().map(JoinHandle::join);
    }
}
