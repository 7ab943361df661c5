//! Child process: its log, signals and end. Killed by id on drop.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;

use crate::harness::scenario::{Fixture, named, tail, until};

/// Time limit for a process to finish its work and end, with a large margin.
const END_GUARD: Duration = Duration::from_secs(240);

/// Signal from a person or supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Interrupt, as sent by Ctrl-C.
    Interrupt,
    /// Planned stop, as sent by supervisors.
    Terminate,
    /// Immediate kill of the process.
    Kill,
    /// Request to reload files.
    Hangup,
    /// Stop without a drain.
    Quit,
    /// Request to reopen log files, as sent by some log rotation tools.
    User,
    /// Freeze, like a machine snapshot.
    Freeze,
    /// Resumption of a frozen process.
    Thaw,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Signal::Interrupt => "INT",
            Signal::Terminate => "TERM",
            Signal::Kill => "KILL",
            Signal::Hangup => "HUP",
            Signal::Quit => "QUIT",
            Signal::User => "USR1",
            Signal::Freeze => "STOP",
            Signal::Thaw => "CONT",
        }
    }

    /// Arguments of `sh` that send the signal to a process, or with `-` before its id to its group. The shell's
    /// built-in `kill` requires no other program and no unsafe call.
    #[must_use]
    pub fn shell_arguments(self, target: &str) -> [String; 2] {
        ["-c".to_owned(), format!("kill -s {} -- {target}", self.name())]
    }
}

/// Running child process of a test.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    lines: watch::Receiver<Vec<String>>,
}

impl Process {
    /// Starts a program with its output logged line by line.
    pub fn start(fixture: &Fixture, name: &str, command: Command) -> Result<Self> {
        let (mut process, stdout, _) = Self::spawn(fixture, name, command, Stdio::null())?;
        let (tell, lines) = watch::channel(Vec::new());
        tokio::spawn(keep_lines(stdout, process.log.clone(), tell));
        process.lines = lines;
        Ok(process)
    }

    /// Starts a program controlled over standard input and output. Only its errors are logged.
    pub fn start_driven(fixture: &Fixture, name: &str, command: Command) -> Result<(Self, ChildStdin, ChildStdout)> {
        let (process, stdout, stdin) = Self::spawn(fixture, name, command, Stdio::piped())?;
        Ok((process, stdin.context("the input is piped")?, stdout))
    }

    fn spawn(
        fixture: &Fixture,
        name: &str,
        mut command: Command,
        stdin: Stdio,
    ) -> Result<(Self, ChildStdout, Option<ChildStdin>)> {
        let log = fixture.log_path(name);
        // The test appends output, the process itself errors.
        let errors = File::options().create(true).append(true).open(&log);
        let errors = errors.with_context(|| format!("making {}", log.display()))?;
        let mut child =
            command.stdin(stdin).stdout(Stdio::piped()).stderr(errors).kill_on_drop(true).spawn().with_context(
                || format!("starting {name}: {:?} (tests/run builds and installs it)", command.as_std().get_program()),
            )?;
        let stdout = child.stdout.take().context("the output is piped")?;
        let stdin = child.stdin.take();
        let (_, lines) = watch::channel(Vec::new());
        Ok((Self { name: name.into(), child, log, lines }, stdout, stdin))
    }

    /// Waits for an output line that contains `text`, and returns it.
    pub async fn wait_for_line(&mut self, text: &str) -> Result<String> {
        let has = |lines: &Vec<String>| lines.iter().any(|line| line.contains(text));
        let found = match named(format!("the line {text:?} of {}", self.name), self.lines.wait_for(has)).await {
            Ok(lines) => lines.iter().find(|line| line.contains(text)).cloned(),
            Err(_) => None,
        };
        match found {
            Some(line) => Ok(line),
            None => bail!("{} ended without printing {text:?}\n{}", self.name, tail(&self.log)),
        }
    }

    /// Output lines so far that begin with `start`, without this prefix.
    #[must_use]
    pub fn lines_after(&self, start: &str) -> Vec<String> {
        self.lines.borrow().iter().filter_map(|line| line.strip_prefix(start)).map(str::to_owned).collect()
    }

    /// Waits until it has printed `count` lines that begin with `start`.
    pub async fn wait_for_lines(&mut self, start: &str, count: usize) -> Result<()> {
        let has = |lines: &Vec<String>| lines.iter().filter(|line| line.starts_with(start)).count() >= count;
        let name = format!("{count} lines {start:?} of {}", self.name);
        let Err(_) = named(name, self.lines.wait_for(has)).await else { return Ok(()) };
        bail!("{} ended before it printed {count} lines of {start:?}\n{}", self.name, tail(&self.log))
    }

    /// Waits until it has logged a line with this text, and returns the line.
    pub async fn wait_for_log(&mut self, text: &str) -> Result<String> {
        until(async || {
            let found = self.log().lines().find(|line| line.contains(text)).map(str::to_owned);
            ensure!(found.is_some() || self.is_running(), "{} ended without logging {text:?}", self.name);
            Ok(found)
        })
        .await
    }

    /// Sends a signal only to the process. After a freeze, waits until it has stopped.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.id()?;
        send_signal(signal, &id.to_string()).await?;
        if signal == Signal::Freeze {
            until(async || Ok(stands_still(id).then_some(()))).await?;
        }
        Ok(())
    }

    /// Sends a signal to the process and its children, like a terminal. It must lead its own group.
    pub async fn signal_group(&self, signal: Signal) -> Result<()> {
        send_signal(signal, &format!("-{}", self.id()?)).await
    }

    /// Kills the process (`kill -9`) and waits for its end.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("killing {}", self.name))
    }

    /// Waits until the process ends.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        match tokio::time::timeout(END_GUARD, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} does not end\n{}", self.name, tail(&self.log)),
        }
    }

    /// Whether the process is running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Id of the process.
    pub fn id(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} is gone", self.name))
    }

    /// Name of the process in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Output and errors of the process so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Path of the log.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }
}

async fn send_signal(signal: Signal, target: &str) -> Result<()> {
    let status = Command::new("sh").args(signal.shell_arguments(target)).status().await?;
    ensure!(status.success(), "{target} gets no {}", signal.name());
    Ok(())
}

/// Whether all threads of a process are stopped, which takes some time after the signal.
#[must_use]
pub fn stands_still(id: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let mut states = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    // The state follows the name in parentheses.
    states.all(|state| state.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T")))
}

async fn keep_lines(stdout: ChildStdout, log: PathBuf, tell: watch::Sender<Vec<String>>) -> Result<()> {
    let mut file = tokio::fs::OpenOptions::new().append(true).open(log).await?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        file.write_all(format!("{line}\n").as_bytes()).await?;
        tell.send_modify(|kept| kept.push(line));
    }
    file.flush().await?;
    Ok(())
}
