//! `User`: a directory with an identity; `Program`: a process and its events.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Waiting for longer than this is a failure.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// Exit codes, which are part of the interface.
pub(crate) mod exit {
    pub(crate) const SUCCESS: i32 = 0;
    pub(crate) const FAILED: i32 = 1;
    pub(crate) const USAGE: i32 = 2;
    pub(crate) const UNREACHABLE: i32 = 3;
    pub(crate) const UNTRUSTED: i32 = 4;
    pub(crate) const REJECTED: i32 = 5;
    pub(crate) const DISCONNECTED: i32 = 6;
    pub(crate) const PARTIAL: i32 = 7;
    pub(crate) const INTERRUPTED: i32 = 130;
}

/// A user of the program, with files of its own.
pub(crate) struct User {
    directory: TempDir,
    pub(crate) identity: String,
}

impl User {
    pub(crate) fn new() -> Self {
        let mut user = Self { directory: tempfile::tempdir().unwrap(), identity: String::new() };
        let mut id = user.run(&["id"]);
        assert_eq!(id.code, exit::SUCCESS, "{id:?}");
        user.identity = id.events.remove(0)["identity"].as_str().unwrap().to_owned();
        user
    }

    /// Two users that trust each other.
    pub(crate) fn pair() -> (Self, Self) {
        let (one, other) = (Self::new(), Self::new());
        for (user, peer) in [(&one, &other), (&other, &one)] {
            assert_eq!(user.run(&["trust", "add", &peer.identity]).code, exit::SUCCESS);
        }
        (one, other)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// Writes a file of this user, with its directories.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.into_os_string().into_string().unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netmsg"));
        command.arg("--json").arg("--home").arg(self.home()).args(arguments);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let mut program = self.start(arguments);
        program.input.take();
        let status = program.wait();
        Ran {
            code: status.code().unwrap_or(-1),
            events: program.events(),
            errors: program.errors.lock().unwrap().clone(),
        }
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Program {
        Program::start(&mut self.command(arguments))
    }

    /// Starts a listener on a free port that stores files in `out`.
    pub(crate) fn listen(&self, arguments: &[&str]) -> Program {
        let out = self.path("out").into_os_string().into_string().unwrap();
        let mut all = [&["listen", "--bind", "127.0.0.1:0"][..], arguments].concat();
        if !arguments.contains(&"--out") {
            all.extend(["--out", &out]);
        }
        let mut listen = self.start(&all);
        listen.until(|listen| listen.find("listening").is_some());
        listen
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) events: Vec<Value>,
    pub(crate) errors: Vec<String>,
}

impl Ran {
    pub(crate) fn find(&self, event: &str) -> &Value {
        let found = self.events.iter().find(|it| it["event"] == event);
        found.unwrap_or_else(|| panic!("no event {event}: {self:?}"))
    }

    /// Fails unless it ended with `code` and a message that contains `part`.
    pub(crate) fn failed(&self, code: i32, part: &str) {
        assert_eq!(self.code, code, "{self:?}");
        let message = self.events.iter().rfind(|it| it["event"] == "error").unwrap();
        assert_eq!(message["exit"], code, "{self:?}");
        assert!(message["message"].as_str().unwrap().contains(part), "{self:?}");
        assert!(self.errors.iter().any(|line| line.contains(part)), "{self:?}");
    }
}

/// A process and its output. It is killed when this value is dropped.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) input: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
    pub(crate) errors: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (lines, errors) = (Arc::default(), Arc::default());
        let readers = vec![
            read(Box::new(child.stdout.take().unwrap()), &lines),
            read(Box::new(child.stderr.take().unwrap()), &errors),
        ];
        let input = child.stdin.take();
        Self { child, input, lines, errors, readers }
    }

    pub(crate) fn until(&mut self, is_right: impl Fn(&mut Self) -> bool) {
        let started = Instant::now();
        while !is_right(self) {
            let (lines, errors) = (&self.lines, &self.errors);
            assert!(started.elapsed() < HANG, "it hangs: {lines:?} {errors:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end, and for its last line.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.until(|program| program.status().is_some());
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        self.status().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.wait();
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Returns what it has printed; the last line of a killed process may be incomplete.
    pub(crate) fn events(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Returns the last event of a kind.
    pub(crate) fn find(&self, event: &str) -> Option<Value> {
        self.events().into_iter().rfind(|it| it["event"] == event)
    }

    pub(crate) fn address(&self) -> String {
        let listening = self.find("listening").expect("it is listening");
        listening["address"].as_str().unwrap().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(output: Box<dyn Read + Send>, lines: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let lines = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    })
}
