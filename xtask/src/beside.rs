//! Runs steps of `ci` beside the others, which wait much of the time or use one processor only.

use crate::process;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

/// Steps that may run beside the others. cargo waits for a build directory that another step uses.
#[derive(Default)]
pub(crate) struct Beside {
    commands: Vec<(&'static str, Command)>,
    running: Option<Running>,
}

/// The commands run one after another, with the lowest priority.
struct Running {
    results: Receiver<(&'static str, Result<()>)>,
    logs: PathBuf,
    is_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Beside {
    /// Adds a step.
    pub(crate) fn add(&mut self, name: &'static str, command: Command) {
        self.commands.push((name, command));
    }

    /// Starts the steps. Their output goes to files below `target`.
    pub(crate) fn start(&mut self, target: &Path) -> Result<()> {
        let logs = target.join("beside");
        fs::create_dir_all(&logs).context("cannot create the directory of the logs")?;
        for (name, command) in &self.commands {
            println!("\n== beside the next steps: {name}: {}", process::shown(command));
        }
        let commands: Vec<_> =
            self.commands.iter().map(|(name, command)| (*name, nice(command))).collect();
        let (ended, results) = channel();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (stopped, folder) = (is_stopped.clone(), logs.clone());
        let thread = thread::spawn(move || {
            for (name, command) in commands {
                if stopped.load(Ordering::Relaxed)
                    || ended.send((name, run(command, &log(&folder, name)))).is_err()
                {
                    return;
                }
            }
        });
        self.running = Some(Running { results, logs, is_stopped, thread: Some(thread) });
        Ok(())
    }

    /// Returns the command of a step; `None` if there is no such step.
    pub(crate) fn command(&self, name: &str) -> Option<String> {
        let (_, command) = self.commands.iter().find(|(step, _)| *step == name)?;
        Some(process::shown(command))
    }

    /// Waits for the end of a step and shows its output; runs the step if the steps were not started. Started steps
    /// must be finished in their order.
    pub(crate) fn finish(&mut self, name: &str) -> Result<()> {
        let Some(running) = &self.running else {
            let command = self.commands.iter_mut().find(|(step, _)| *step == name);
            let (_, command) = command.with_context(|| format!("there is no step {name:?}"))?;
            return process::run(command);
        };
        let (ended, result) = running.results.recv().context("all steps have ended")?;
        ensure!(ended == name, "the step {ended:?} ends before {name:?}");
        print!("{}", String::from_utf8_lossy(&fs::read(log(&running.logs, name))?));
        result
    }
}

impl Drop for Running {
    /// After another step has failed, no command is left behind.
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take().filter(|it| !it.is_finished()) {
            println!("xtask: waits for a step beside the others; see {}", self.logs.display());
            let _ = thread.join();
        }
    }
}

fn log(folder: &Path, name: &str) -> PathBuf {
    folder.join(name.replace(' ', "-")).with_extension("log")
}

fn run(mut command: Command, log: &Path) -> Result<()> {
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    process::run(command.stdout(output.try_clone()?).stderr(output))
}

/// Gives a command the lowest priority, on Unix.
fn nice(command: &Command) -> Command {
    let program = command.get_program();
    let mut nice = match cfg!(unix) {
        true => Command::new("nice"),
        false => Command::new(program),
    };
    if cfg!(unix) {
        nice.args(["-n", "19"]).arg(program);
    }
    nice.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => nice.env(name, value),
            None => nice.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        nice.current_dir(folder);
    }
    nice
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn steps(scripts: [(&'static str, &str); 2]) -> Beside {
        let mut beside = Beside::default();
        for (name, script) in scripts {
            let mut command = Command::new("sh");
            command.args(["-c", script]).env("TEXT", "hello");
            beside.add(name, command);
        }
        beside
    }

    #[test]
    fn steps_have_their_result_and_output() {
        let folder = tempfile::tempdir().unwrap();
        for is_started in [false, true] {
            let mut beside = steps([("the first", "echo $TEXT; exit 1"), ("second", "test $TEXT")]);
            if is_started {
                beside.start(folder.path()).unwrap();
            }
            assert!(beside.command("second").unwrap().ends_with("sh -c 'test $TEXT'"));
            let error = beside.finish("the first").unwrap_err().to_string();
            assert!(error.contains("exit 1"), "{error}");
            beside.finish("second").unwrap();
            assert!(beside.finish("third").is_err(), "there is no such step");
        }
        let output = fs::read_to_string(log(&folder.path().join("beside"), "the first"));
        assert_eq!(output.unwrap(), "hello\n");
    }

    #[test]
    fn after_a_failure_of_another_step_no_further_step_starts() {
        let folder = tempfile::tempdir().unwrap();
        let (started, failed) = (folder.path().join("started"), folder.path().join("failed"));
        let wait = format!(
            "touch {}; until [ -e {} ]; do sleep 0.01; done",
            started.display(),
            failed.display()
        );
        let mut beside = steps([("first", &wait), ("second", "true")]);
        beside.start(folder.path()).unwrap();
        while !started.exists() {
            thread::yield_now();
        }
        beside.running.as_ref().unwrap().is_stopped.store(true, Ordering::Relaxed);
        fs::write(failed, "").unwrap();
        drop(beside);
        let logs = folder.path().join("beside");
        assert!(log(&logs, "first").exists() && !log(&logs, "second").exists());
    }
}
