//! `netmsg listen` and `netmsg send` as processes that are killed in mid transfer, and a listener whose machine
//! loses its power: the file arrives, and each death costs a window at most.
//!
//! A round is made from its seed. `DEATH_ROUNDS` (10) and `DEATH_SEED` (0) choose the rounds; a
//! failure prints its seed.

use crate::disk::Disk;
use crate::program::{Program, User};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::time::Duration;

/// Size of the file, in bytes.
const SIZE: u64 = 8 * 1024 * 1024;

/// The window of the listener, in bytes: the smallest.
const WINDOW: u64 = 1024 * 1024;

/// Processes are killed so often in a round, then the transfer ends undisturbed.
const DEATHS: u64 = 3;

#[test]
fn a_transfer_survives_the_death_of_either_side() {
    rounds(|seed| Some(Setup::new(seed)));
}

#[test]
fn a_transfer_survives_the_loss_of_power() {
    rounds(|seed| {
        let setup = Setup::new(seed);
        match Disk::mount(setup.listener.path("disk.img"), setup.out()) {
            Ok(disk) => Some(Setup { disk: Some(disk), ..setup }),
            Err(missing) => {
                println!("skipped, no file system can be mounted here: {missing}");
                None
            }
        }
    });
}

fn rounds(setup: impl Fn(u64) -> Option<Setup>) {
    let number = |name: &str, default| match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")),
        Err(_) => default,
    };
    let (first, mut totals) = (number("DEATH_SEED", 0), Totals::default());
    for seed in first..first + number("DEATH_ROUNDS", 10) {
        println!("DEATH_SEED={seed} DEATH_ROUNDS=1");
        let Some(setup) = setup(seed) else { return };
        round(&setup, seed, &mut totals);
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
        signal(stopped, Signal::STOP);
        // How long a process stands still is the subject of this test.
        std::thread::sleep(Duration::from_secs(2));
        signal(stopped, Signal::CONT);
        assert!(dial.wait().success(), "listener stopped: {stops_listener}; {:?}", dial.events());
        let stored = dial.find("stored").unwrap();
        assert_eq!(stored["sent"], SIZE, "it was resumed: {:?}", dial.events());
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
    lost_power: u64,
    resumed: u64,
    told_again: u64,
}

fn round(setup: &Setup, seed: u64, totals: &mut Totals) {
    let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15);
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
            let victim = if setup.disk.is_some() { 3 } else { random.below(3) };
            match victim {
                0 => totals.killed_dial += 1,
                1 => totals.killed_listen += 1,
                2 => totals.killed_both += 1,
                _ => totals.lost_power += 1,
            }
            if victim > 0 {
                setup.kill(&mut listen);
                listen = setup.listen();
            }
            if victim != 1 {
                dial.kill();
            }
            deaths += 1;
            dial.status().is_some_and(|status| status.success())
        } else {
            assert!(dial.wait().success(), "{:?}", dial.events());
            true
        };
        let (resumed, reached) = (resumed(&dial), reached(&dial));
        totals.resumed += u64::from(resumed > 0);
        totals.told_again += u64::from(resumed == SIZE);
        if let Some(before) = ended.last().filter(|_| resumed > 0 || reached > 0) {
            let before = self::reached(before);
            assert!(resumed + WINDOW >= before, "{before} bytes were sent, {resumed} are left");
        }
        sent += reached.saturating_sub(resumed);
        ended.push(dial);
        if succeeded {
            break;
        }
    }
    setup.kill(&mut listen);
    setup.check();
    let limit = SIZE + deaths * WINDOW;
    assert!(sent <= limit, "{sent} bytes were sent, more than {limit}, with {deaths} deaths");
}

/// The two users, and the file.
struct Setup {
    /// That of the listener, to cut its power instead of killing it.
    disk: Option<Disk>,
    listener: User,
    dialler: User,
    content: Vec<u8>,
    file: String,
}

impl Setup {
    fn new(seed: u64) -> Self {
        let (listener, dialler) = User::pair();
        let mut random = Random(seed | 1 << 63);
        let content = (0..SIZE / 8).flat_map(|_| random.next().to_le_bytes()).collect::<Vec<_>>();
        let file = dialler.file("sent.bin", &content);
        Self { disk: None, listener, dialler, content, file }
    }

    fn listen(&self) -> Program {
        self.listener.listen(&["--window", &WINDOW.to_string()])
    }

    fn dial(&self, listen: &Program) -> Program {
        self.dialler.start(&["send", "--to", &listen.address(), &self.file])
    }

    /// Ends the listener, and with a disk, its machine.
    fn kill(&self, listen: &mut Program) {
        self.disk.iter().for_each(Disk::cut);
        listen.kill();
        self.disk.iter().for_each(Disk::restore);
    }

    fn out(&self) -> PathBuf {
        self.listener.path("out")
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

fn signal(program: &Program, signal: Signal) {
    kill_process(Pid::from_child(&program.child), signal).unwrap();
}

/// Returns how many bytes the listener had when this dialler began.
fn resumed(dial: &Program) -> u64 {
    dial.find("resuming").map_or(0, |event| event["stored"].as_u64().unwrap())
}

/// Returns up to which byte this dialler has sent at least; it prints each tenth.
fn reached(dial: &Program) -> u64 {
    dial.find("sent").map_or(0, |event| event["bytes"].as_u64().unwrap())
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
