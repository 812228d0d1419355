//! `listen` and `dial` as processes that are killed in mid transfer: the file arrives, and each
//! death costs a window at most.
//!
//! A round is made from its seed. `DEATH_ROUNDS` (10) and `DEATH_SEED` (0) choose the rounds; a
//! failure prints its seed.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Size of the file, in bytes.
const SIZE: u64 = 8 * 1024 * 1024;

/// The window of the listener, in bytes: the smallest.
const WINDOW: u64 = 1024 * 1024;

/// Processes are killed so often in a round, then the transfer ends undisturbed.
const DEATHS: u64 = 3;

/// Waiting for longer than this is a failure.
const HANG: Duration = Duration::from_secs(60);

#[test]
fn a_transfer_survives_the_death_of_either_side() {
    let number = |name: &str, default| match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")),
        Err(_) => default,
    };
    let (first, mut totals) = (number("DEATH_SEED", 0), Totals::default());
    for seed in first..first + number("DEATH_ROUNDS", 10) {
        println!("DEATH_SEED={seed} DEATH_ROUNDS=1");
        round(seed, &mut totals);
    }
    println!("{totals:?}");
}

#[test]
fn a_transfer_goes_on_after_either_side_was_stopped() {
    for stops_listener in [false, true] {
        let setup = Setup::new(7);
        let listen = setup.listen();
        let mut dial = setup.dial(&listen);
        setup.wait_for(SIZE / 4, &mut dial);
        let stopped = if stops_listener { &listen } else { &dial };
        stopped.signal(Signal::STOP);
        // How long a process stands still is the subject of this test.
        std::thread::sleep(Duration::from_secs(2));
        stopped.signal(Signal::CONT);
        assert!(dial.wait().success(), "listener stopped: {stops_listener}; {:?}", dial.lines());
        assert!(dial.has("sent      8388608 bytes"), "it was resumed: {:?}", dial.lines());
        setup.check();
    }
}

/// What happened in all rounds.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "printed")]
struct Totals {
    killed_dial: u64,
    killed_listen: u64,
    killed_both: u64,
    resumed: u64,
    told_again: u64,
}

fn round(seed: u64, totals: &mut Totals) {
    let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15);
    let setup = Setup::new(seed);
    let mut listen = setup.listen();
    // Diallers that died, or whose listener died; these would report it after a timeout.
    let mut ended: Vec<Program> = Vec::new();
    let (mut sent, mut deaths) = (0, 0);
    loop {
        let mut dial = setup.dial(&listen);
        let succeeded = if deaths < DEATHS {
            // From before the first byte to after the last.
            let stored = setup.stored();
            setup.wait_for(stored + random.below(SIZE + WINDOW - stored), &mut dial);
            let victim = random.below(3);
            match victim {
                0 => totals.killed_dial += 1,
                1 => totals.killed_listen += 1,
                _ => totals.killed_both += 1,
            }
            if victim > 0 {
                listen.kill();
                listen = setup.listen();
            }
            if victim != 1 {
                dial.kill();
            }
            deaths += 1;
            dial.has_succeeded()
        } else {
            let status = dial.wait();
            // The listener removed the receipt, since an earlier dialler confirmed the hash.
            let confirmed = ended.iter().any(|dial| dial.has("sent      "));
            let exists = dial.has("exists already") && confirmed;
            assert!(status.success() || exists, "{status}: {:?}", dial.lines());
            true
        };
        let (resumed, reached) = (dial.resumed(), dial.reached());
        totals.resumed += u64::from(resumed > 0);
        totals.told_again += u64::from(resumed == SIZE);
        if let Some(before) = ended.last().filter(|_| resumed > 0 || reached > 0) {
            let before = before.reached();
            assert!(resumed + WINDOW >= before, "{before} bytes were sent, {resumed} are left");
        }
        sent += reached.saturating_sub(resumed);
        ended.push(dial);
        if succeeded {
            break;
        }
    }
    setup.check();
    let limit = SIZE + deaths * WINDOW;
    assert!(sent <= limit, "{sent} bytes were sent, more than {limit}, with {deaths} deaths");
}

/// The identities of the two programs, the file and the directory of the listener.
struct Setup {
    directory: TempDir,
    content: Vec<u8>,
    listener: String,
    dialler: String,
}

impl Setup {
    fn new(seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut random = Random(seed | 1 << 63);
        let content = (0..SIZE / 8).flat_map(|_| random.next().to_le_bytes()).collect::<Vec<_>>();
        std::fs::write(directory.path().join("sent.bin"), &content).unwrap();
        let identity = |name: &str| {
            let mut command = program(name);
            command.arg("--identity").arg(directory.path().join(name)).arg("--print-identity");
            let output = command.output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let (listener, dialler) = (identity("listen"), identity("dial"));
        Self { directory, content, listener, dialler }
    }

    fn listen(&self) -> Program {
        let mut command = program("listen");
        command.arg("--identity").arg(self.directory.path().join("listen"));
        command.args(["--trust", &self.dialler, "--window", &WINDOW.to_string(), "--out"]);
        let mut listen = Program::start(command.arg(self.out()));
        listen.until(|listen| listen.address().is_some());
        listen
    }

    fn dial(&self, listen: &Program) -> Program {
        let mut command = program("dial");
        command.arg("--identity").arg(self.directory.path().join("dial"));
        command.args(["--trust", &self.listener, &listen.address().unwrap()]);
        Program::start(command.arg(self.directory.path().join("sent.bin")))
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out")
    }

    /// Returns the length of the partial file, which the dialler sends in order, or of the stored
    /// one.
    fn stored(&self) -> u64 {
        let entries = std::fs::read_dir(self.out()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let data = paths.filter(|path| path.extension().is_none_or(|it| it == "bin"));
        data.filter_map(|path| Some(path.metadata().ok()?.len())).max().unwrap_or(0)
    }

    /// Waits until so many bytes are there, or the dialler has ended.
    fn wait_for(&self, bytes: u64, dial: &mut Program) {
        dial.until(|dial| self.stored() >= bytes || dial.status().is_some());
    }

    /// The file has arrived, and no other file that is not hidden.
    fn check(&self) {
        let stored = std::fs::read(self.out().join("sent.bin")).unwrap();
        assert!(stored == self.content, "the content differs");
        let entries = std::fs::read_dir(self.out()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| !name.starts_with('.')).count(), 1);
    }
}

/// Returns the command for an example, which `cargo test` builds beside this test.
fn program(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let path = profile.join("examples").join(name);
    let missing = "does not exist: build it with `cargo build -p examples --examples`";
    assert!(path.exists(), "{} {missing}", path.display());
    Command::new(path)
}

/// A process and its output. It is killed when this value is dropped.
struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = Arc::default();
        let read = |output: Box<dyn Read + Send>| {
            let lines: Arc<Mutex<Vec<String>>> = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    lines.lock().unwrap().push(line);
                }
            })
        };
        let readers = vec![
            read(Box::new(child.stdout.take().unwrap())),
            read(Box::new(child.stderr.take().unwrap())),
        ];
        Self { child, lines, readers }
    }

    fn until(&mut self, is_right: impl Fn(&mut Self) -> bool) {
        let started = Instant::now();
        while !is_right(self) {
            assert!(started.elapsed() < HANG, "it hangs: {:?}", self.lines());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    fn has_succeeded(&mut self) -> bool {
        self.status().is_some_and(|status| status.success())
    }

    /// Waits for its end, and for its last line.
    fn wait(&mut self) -> ExitStatus {
        self.until(|program| program.status().is_some());
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        self.status().unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.wait();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn has(&self, part: &str) -> bool {
        self.lines().iter().any(|line| line.contains(part))
    }

    /// Returns the first word after `prefix` in the last line that begins with it.
    fn last(&self, prefix: &str) -> Option<String> {
        let lines = self.lines();
        let rest = lines.iter().rev().find_map(|line| line.strip_prefix(prefix))?;
        rest.split(' ').next().map(str::to_owned)
    }

    fn address(&self) -> Option<String> {
        self.last("listening on ")
    }

    /// Returns how many bytes the listener had when this dialler began.
    fn resumed(&self) -> u64 {
        self.last("resuming: ").map_or(0, |bytes| bytes.parse().unwrap())
    }

    /// Returns up to which byte this dialler has sent at least; it prints each tenth.
    fn reached(&self) -> u64 {
        self.last("sent: ").map_or(0, |bytes| bytes.parse().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
