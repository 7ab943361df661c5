//! Signals, sent and received. On systems without Unix signals, Ctrl-C is received and processes are killed.

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

/// Time within which a second signal counts as the first one again: some senders signal a process and also its group.
const ECHO: Duration = Duration::from_secs(1);

/// The signals that ask to stop: Ctrl-C, `kill`, a terminal that is closed.
#[derive(Debug)]
pub(crate) struct StopSignals {
    #[cfg(unix)]
    streams: [SignalStream; 3],
}

impl StopSignals {
    /// Installs the handlers of both signals.
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

    /// Waits for Ctrl-C. Cancel-safe.
    #[cfg(not(unix))]
    pub(crate) async fn received(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Waits until a second signal asks to stop.
pub(crate) async fn received_again() {
    sleep(ECHO).await;
    match StopSignals::new() {
        Ok(mut signals) => signals.received().await,
        Err(_) => std::future::pending().await,
    }
}

/// Asks a process to end.
#[cfg(unix)]
pub(crate) fn terminate(child: &mut Child) {
    if let Some(pid) = pid(child) {
        // It fails only for a process that is gone.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// Kills a process: there is no gentler way.
#[cfg(not(unix))]
pub(crate) fn terminate(child: &mut Child) {
    let _ = child.start_kill();
}

/// Process group that was asked to end.
#[derive(Debug)]
pub(crate) struct EndingGroup {
    #[cfg(unix)]
    leader: Pid,
}

impl EndingGroup {
    /// Tells whether any process of the group is left.
    #[cfg(unix)]
    pub(crate) fn is_alive(&self) -> bool {
        test_kill_process_group(self.leader).is_ok()
    }

    /// Returns false, as there is no way to know; the processes end by themselves.
    #[cfg(not(unix))]
    pub(crate) fn is_alive(&self) -> bool {
        false
    }
}

/// Ends all processes of the group that this one leads; returns `None` if the leader has ended.
#[cfg(unix)]
pub(crate) fn interrupt_group(leader: &mut Child) -> Option<EndingGroup> {
    let leader = pid(leader)?;
    let _ = kill_process_group(leader, Signal::INT);
    Some(EndingGroup { leader })
}

/// Kills a process; those that it started notice that it is gone.
#[cfg(not(unix))]
pub(crate) fn interrupt_group(leader: &mut Child) -> Option<EndingGroup> {
    leader.start_kill().ok().map(|()| EndingGroup {})
}

/// Returns the id of a process, or `None` once its end was seen: the number may be another's by then.
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
