//! One process: its start, its log, its end.
//!
//! Processes of the fleet stay in the demo's own process group: whoever ends the whole group, by Ctrl-C or harder,
//! ends them too. All are killed when they are dropped, so that no way out of the demo leaves one behind.

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

/// Lines of a log that are shown again when its process ends by itself.
const LAST_LINES: usize = 10;

/// How long a process may take to end. A proxy gives clients 5 s to answer its close.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How often it is asked whether a group is gone, and for how long: its members end at once, or are stuck in the system.
const LEAVING_POLL: Duration = Duration::from_millis(10);
const LEAVING_TIMEOUT: Duration = Duration::from_secs(5);

/// Colours of the names before log lines, in the order of start.
const COLOURS: [u8; 5] = [36, 33, 35, 32, 34];

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Gives the last lines of stderr when there are no more; `None` once it has.
    log: Option<JoinHandle<VecDeque<String>>>,
}

impl Process {
    /// Starts a program; `place` picks its colour.
    pub(crate) fn start(name: &str, place: usize, program: &Path, arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // The demo is the same everywhere: no setting but that of the log comes from outside.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("TRUNKLINE_") && name != "TRUNKLINE_LOG") {
                command.env_remove(name);
            }
        }
        if !is_colourful() {
            command.env("NO_COLOR", "1");
        }
        let mut child = command.spawn().with_context(|| format!("{} can't be run", program.display()))?;
        let prefix = prefix(name, place);
        if let Some(output) = child.stdout.take() {
            tokio::spawn(pass_on(output, prefix.clone()));
        }
        let output = child.stderr.take().context("the log is not piped")?;
        Ok(Self { name: name.into(), child, log: Some(tokio::spawn(pass_on(output, prefix))) })
    }

    /// Whether it has ended; if not, the task of `cx` is woken when it does.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<ExitStatus>> {
        std::pin::pin!(self.child.wait()).poll(cx)
    }

    /// What to say of a process that has ended although nobody asked it to.
    pub(crate) async fn obituary(&mut self) -> anyhow::Error {
        let last: String = self.last_lines().await.iter().map(|line| format!("\n  {line}")).collect();
        match self.child.wait().await {
            Ok(status) => anyhow!("{} ended by itself ({status}){last}", self.name),
            Err(error) => anyhow!("{} can't be watched any more ({error}){last}", self.name),
        }
    }

    /// Asks it to end; that it has ended already is fine.
    pub(crate) fn ask_to_end(&mut self) {
        signals::terminate(&mut self.child);
    }

    /// Waits until it has ended; what takes too long is killed.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        if timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            self.kill().await;
            bail!("{} did not end within {} s and was killed", self.name, STOP_TIMEOUT.as_secs());
        }
        self.last_lines().await;
        Ok(())
    }

    /// Waits until its log is passed on to the end.
    async fn last_lines(&mut self) -> VecDeque<String> {
        match self.log.take() {
            Some(log) => log.await.unwrap_or_default(),
            None => VecDeque::new(),
        }
    }

    /// Ends it at once; that it has ended already is fine.
    pub(crate) async fn kill(&mut self) {
        let _ = self.child.start_kill();
        let _ = self.child.wait().await;
    }
}

/// A process that starts others, such as a build: a group of its own, so that all of them can be ended.
#[derive(Debug)]
pub(crate) struct Group(Child);

impl Group {
    /// Starts it.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        #[cfg(unix)]
        command.process_group(0);
        Ok(Self(command.kill_on_drop(true).spawn()?))
    }

    /// Waits until its leader has ended. Cancel-safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait().await
    }

    /// Ends all of it, and waits until nobody is left.
    pub(crate) async fn end(mut self) {
        let Some(left) = signals::interrupt_group(&mut self.0) else { return };
        let _ = self.0.wait().await;
        // The others are nobody's children any more: they can be asked after, but not waited for.
        let gone = async {
            while left.is_there() {
                sleep(LEAVING_POLL).await;
            }
        };
        drop(timeout(LEAVING_TIMEOUT, gone).await);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = signals::interrupt_group(&mut self.0);
    }
}

/// Tells whoever runs the demo something, on stderr; a terminal that is gone is no reason to stop halfway.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Says on stdout what a person or a script waits for.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Passes lines on with a prefix, and gives the last ones when there are no more.
async fn pass_on(output: impl AsyncRead + Unpin, prefix: String) -> VecDeque<String> {
    let (mut reader, mut line, mut last) = (BufReader::new(output), Vec::new(), VecDeque::new());
    while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        note(&format!("{prefix}{text}"));
        last.push_back(text);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
        line.clear();
    }
    last
}

fn prefix(name: &str, place: usize) -> String {
    match COLOURS.get(place % COLOURS.len()) {
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
