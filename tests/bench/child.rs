//! Child processes, ended on drop.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use trunkline_tests::harness::process::{Signal, stands_still};

/// Line printed by a benchmark process when it is ready.
pub const READY: &str = "ready";

/// Time limit for a process to become ready.
pub const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

const END_GUARD: Duration = Duration::from_secs(5);

/// Child process that ends on drop.
#[derive(Debug)]
pub struct ChildProcess {
    name: &'static str,
    child: Child,
}

impl ChildProcess {
    /// Starts a program, which is killed on drop.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self::spawn(name, command)
    }

    fn spawn(name: &'static str, command: &mut Command) -> Result<Self> {
        Ok(Self { name, child: command.spawn().with_context(|| format!("starting the {name}"))? })
    }

    /// Process id in the system.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process. After a freeze, waits until it has stopped.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let id = self.id();
        let status = Command::new("sh").args(signal.shell_arguments(&id.to_string())).status()?;
        ensure!(status.success(), "the {} gets no {signal:?}", self.name);
        if signal == Signal::Freeze { self.wait_until(|| stands_still(id)) } else { Ok(()) }
    }

    /// Stops the process like a supervisor and waits for its end.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::Terminate)?;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the {} ended with {status}", self.name);
                return Ok(());
            }
            sleep(LOOK_AGAIN);
        }
        bail!("the {} does not end", self.name)
    }

    /// Waits for a limited time for a stopping process to end.
    pub fn wait_for_end(&mut self) {
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < END_GUARD {
            sleep(LOOK_AGAIN);
        }
    }

    /// Waits for a state produced by this process.
    pub fn wait_until(&mut self, is_so: impl Fn() -> bool) -> Result<()> {
        let started = Instant::now();
        while !is_so() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the {} ended with {status}", self.name);
            }
            ensure!(started.elapsed() < PATIENCE, "the {} does not get ready", self.name);
            sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // Fails only if the process is already gone.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Own process that reports when it is ready, then answers line by line. It has its own time limits: it answers or
/// ends.
#[derive(Debug)]
pub struct Speaker {
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    process: ChildProcess,
}

impl Speaker {
    /// Starts this program in another role and waits until it is ready.
    pub fn start(name: &'static str, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = ChildProcess::spawn(name, &mut command)?;
        let input = process.child.stdin.take();
        let output = BufReader::new(process.child.stdout.take().context("the output is piped")?);
        let mut speaker = Self { input, output, process };
        let line = speaker.receive()?;
        ensure!(line == READY, "the {name} says {line:?} where {READY:?} was due");
        Ok(speaker)
    }

    /// Process id in the system.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a line and returns the answer.
    pub fn ask(&mut self, question: &str) -> Result<String> {
        self.send(question)?;
        self.receive()
    }

    /// Sends a line to the process.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("the input is piped")?;
        writeln!(input, "{line}").with_context(|| format!("the {} has ended", self.process.name))
    }

    /// Waits for the next output line.
    pub fn receive(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "the {} has ended and says why above", self.process.name);
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        // It ends with its input, along with its own children; killing it would leave them behind.
        drop(self.input.take());
        self.process.wait_for_end();
    }
}
