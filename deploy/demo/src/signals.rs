//! Sending and receiving signals. Without Unix signals, Ctrl-C is received and processes are killed.

use std::io;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::sleep;
#[cfg(unix)]
use {
    rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group},
    std::future::poll_fn,
    std::task::Poll,
    tokio::signal::unix::{Signal as SignalStream, SignalKind, signal},
};

/// Interval for treating a second signal as a duplicate: some senders signal a process and its group.
const ECHO: Duration = Duration::from_secs(1);

/// Signals that request a stop: Ctrl-C, `kill`, closing the terminal.
#[derive(Debug)]
pub(crate) struct StopSignals {
    #[cfg(unix)]
    streams: [SignalStream; 3],
}

impl StopSignals {
    pub(crate) fn new() -> io::Result<Self> {
        #[cfg(unix)]
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self {
            #[cfg(unix)]
            streams: [interrupt?, terminate?, hangup?],
        })
    }

    /// Waits for any of the signals. Cancel-safe.
    #[cfg(unix)]
    pub(crate) async fn received(&mut self) {
        poll_fn(|cx| {
            let is_received = self.streams.iter_mut().any(|stream| stream.poll_recv(cx).is_ready());
            if is_received { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    #[cfg(not(unix))]
    pub(crate) async fn received(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Waits until a second signal requests a stop.
pub(crate) async fn received_again() {
    sleep(ECHO).await;
    match StopSignals::new() {
        Ok(mut signals) => signals.received().await,
        Err(_) => std::future::pending().await,
    }
}

#[cfg(unix)]
pub(crate) fn terminate(child: &mut Child) {
    if let Some(pid) = pid(child) {
        // Fails only if the process is gone.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// Kills a process, because there is no graceful way.
#[cfg(not(unix))]
pub(crate) fn terminate(child: &mut Child) {
    let _ = child.start_kill();
}

#[derive(Debug)]
pub(crate) struct EndingGroup {
    #[cfg(unix)]
    leader: Pid,
}

impl EndingGroup {
    #[cfg(unix)]
    pub(crate) fn is_alive(&self) -> bool {
        test_kill_process_group(self.leader).is_ok()
    }

    /// Always `false`, because it can't be determined. The processes end on their own.
    #[cfg(not(unix))]
    pub(crate) fn is_alive(&self) -> bool {
        false
    }
}

/// Ends all processes in this leader's group. Returns `None` if the leader has ended.
#[cfg(unix)]
pub(crate) fn interrupt_group(leader: &mut Child) -> Option<EndingGroup> {
    let leader = pid(leader)?;
    let _ = kill_process_group(leader, Signal::INT);
    Some(EndingGroup { leader })
}

/// Kills a process. Its children notice its absence.
#[cfg(not(unix))]
pub(crate) fn interrupt_group(leader: &mut Child) -> Option<EndingGroup> {
    leader.start_kill().ok().map(|()| EndingGroup {})
}

/// Id of a process, or `None` once its end was observed: the id may have been reused.
#[cfg(unix)]
fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

#[cfg(all(test, unix))]
mod tests {
    use tokio::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_group_is_alive_until_its_processes_have_ended() {
        let mut leader = Command::new("cat").stdin(std::process::Stdio::piped()).process_group(0).spawn().unwrap();
        let group = interrupt_group(&mut leader).unwrap();
        leader.wait().await.unwrap();
        assert!(!group.is_alive());
        assert!(interrupt_group(&mut leader).is_none());
    }
}
