//! Supervision: a parent process that restarts the app server when it dies, as systemd or Kubernetes would.

use std::io::{self, Read};
use std::process::{Command, ExitStatus, Stdio, exit};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::runtime::Handle;
use tokio::time::sleep;
use trunkline::ServerHandle;

/// Environment variable that marks a supervised app server.
const VARIABLE: &str = "CANVAS_SUPERVISED";

/// Exit status of an app server that a client has killed.
const DIED: i32 = 70;

/// Time for the last messages to leave before the process exits.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Pause before the restart, so that users can draw while no app server is running.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether this process is a supervised app server.
pub(crate) fn is_child() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Runs the app server, and restarts it when it dies, until it stops normally or this process is stopped.
pub(crate) async fn supervise() -> anyhow::Result<()> {
    loop {
        let status = run_child().await?;
        match status.code() {
            Some(0) => return Ok(()),
            Some(DIED) | None => tracing::warn!("the app server died ({status}) and is started again"),
            Some(_) => bail!("the app server ended ({status})"),
        }
        // sleep: this pause is what the demonstration shows
        sleep(PAUSE).await;
    }
}

async fn run_child() -> anyhow::Result<ExitStatus> {
    let program = std::env::current_exe().context("this program can't be found")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env(VARIABLE, "1").stdin(Stdio::piped());
    let mut child = command.spawn().context("the app server can't be started")?;
    // The app server stops when its stdin closes, so it never outlives its supervisor.
    let lifeline = child.stdin.take();
    let mut end = tokio::task::spawn_blocking(move || child.wait());
    let ended = tokio::select! {
        ended = &mut end => ended,
        () = stop_signal() => {
            drop(lifeline);
            end.await
        }
    };
    Ok(ended??)
}

/// Stops the app server when its supervisor is gone.
pub(crate) fn end_with_the_supervisor(handle: ServerHandle) {
    let runtime = Handle::current();
    std::thread::spawn(move || {
        // Nothing is ever written to it: the read returns when the supervisor closes it.
        let _ = io::stdin().read(&mut [0]);
        runtime.block_on(handle.shutdown());
        exit(0);
    });
}

/// Ends this process as abruptly as a crash.
pub(crate) async fn die<E>() -> Result<(), E> {
    // sleep: gives only the notification time to leave
    sleep(LAST_WORDS).await;
    exit(DIED)
}

#[cfg(unix)]
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};

    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn stop_signal() {
    let _ = tokio::signal::ctrl_c().await;
}
