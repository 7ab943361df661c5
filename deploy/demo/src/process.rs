//! One process: start, log, end.
//!
//! Processes of the fleet stay in the demo's process group, so a signal to the group, such as Ctrl-C, also ends them.
//! All are killed when dropped.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::signals;

/// Number of log lines repeated when a process ends unexpectedly.
const LAST_LINES: usize = 10;

/// Time limit for stopping a process. A proxy gives clients 5 s to answer its close.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Interval for checking whether a process group is gone.
const GROUP_POLL: Duration = Duration::from_millis(10);

/// Time limit for ending a process group: members end immediately or hang in the kernel.
const GROUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Colours of the names before log lines, in the order of start.
const COLOURS: [u8; 5] = [36, 33, 35, 32, 34];

#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Task that returns the last stderr lines; `None` once awaited.
    log: Option<JoinHandle<VecDeque<String>>>,
}

impl Process {
    pub(crate) fn start(name: &str, index: usize, program: &Path, arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // For reproducibility, only the log level is taken from the environment.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("TRUNKLINE_") && name != "TRUNKLINE_LOG") {
                command.env_remove(name);
            }
        }
        if !is_colourful() {
            command.env("NO_COLOR", "1");
        }
        let mut child = command.spawn().with_context(|| format!("{} can't be run", program.display()))?;
        let prefix = prefix(name, index);
        if let Some(output) = child.stdout.take() {
            tokio::spawn(pass_on(output, prefix.clone()));
        }
        let output = child.stderr.take().context("the log is not piped")?;
        Ok(Self { name: name.into(), child, log: Some(tokio::spawn(pass_on(output, prefix))) })
    }

    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<ExitStatus>> {
        std::pin::pin!(self.child.wait()).poll(cx)
    }

    pub(crate) async fn unexpected_end(&mut self) -> anyhow::Error {
        let last: String = self.last_lines().await.iter().map(|line| format!("\n  {line}")).collect();
        match self.child.wait().await {
            Ok(status) => anyhow!("{} exited unexpectedly ({status}){last}", self.name),
            Err(error) => anyhow!("lost track of {} ({error}){last}", self.name),
        }
    }

    pub(crate) fn ask_to_end(&mut self) {
        signals::terminate(&mut self.child);
    }

    /// Waits until the process has ended, and kills it if that takes too long.
    pub(crate) async fn end_process(&mut self) -> anyhow::Result<()> {
        if timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            self.kill().await;
            bail!("{} did not end within {} s and was killed", self.name, STOP_TIMEOUT.as_secs());
        }
        self.last_lines().await;
        Ok(())
    }

    /// Waits until the whole log is forwarded, and returns its last lines.
    async fn last_lines(&mut self) -> VecDeque<String> {
        match self.log.take() {
            Some(log) => log.await.unwrap_or_default(),
            None => VecDeque::new(),
        }
    }

    pub(crate) async fn kill(&mut self) {
        let _ = self.child.start_kill();
        let _ = self.child.wait().await;
    }
}

/// Process group of a process with children, such as a build, so that all of them can be ended.
#[derive(Debug)]
pub(crate) struct Group(Child);

impl Group {
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        #[cfg(unix)]
        command.process_group(0);
        Ok(Self(command.kill_on_drop(true).spawn()?))
    }

    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait().await
    }

    pub(crate) async fn end_group(mut self) {
        let Some(left) = signals::interrupt_group(&mut self.0) else { return };
        let _ = self.0.wait().await;
        // The remaining processes are not children of this one, so the group is polled.
        let gone = async {
            while left.is_alive() {
                sleep(GROUP_POLL).await;
            }
        };
        drop(timeout(GROUP_TIMEOUT, gone).await);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = signals::interrupt_group(&mut self.0);
    }
}

/// Prints a note on stderr. A closed terminal is not an error.
pub(crate) fn print_note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints output for a person or script on stdout.
pub(crate) fn print_line(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Forwards lines with a prefix. Returns the last ones at the end.
async fn pass_on(output: impl AsyncRead + Unpin, prefix: String) -> VecDeque<String> {
    let (mut reader, mut line, mut last) = (BufReader::new(output), Vec::new(), VecDeque::new());
    while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        print_note(&format!("{prefix}{text}"));
        last.push_back(text);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
        line.clear();
    }
    last
}

fn prefix(name: &str, index: usize) -> String {
    match COLOURS.get(index % COLOURS.len()) {
        Some(colour) if is_colourful() => format!("\x1b[{colour}m{name:<7}\x1b[0m "),
        _ => format!("{name:<7} "),
    }
}

fn is_colourful() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_of_a_log_are_kept() {
        let log = (1..=20).map(|number| format!("line {number}\n")).collect::<String>() + "the end";
        let last = pass_on(log.as_bytes(), String::new()).await;
        assert_eq!(last.len(), LAST_LINES);
        assert_eq!((last.front().unwrap().as_str(), last.back().unwrap().as_str()), ("line 12", "the end"));
    }
}
