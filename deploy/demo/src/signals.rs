//! Signals, given and taken. Where there is none, Ctrl-C is taken and processes are killed.

use std::time::Duration;

use tokio::time::sleep;

/// A second signal within this time is the first one again: some senders give it to a process and to its group.
const ECHO: Duration = Duration::from_secs(1);

#[cfg(unix)]
mod system {
    use std::future::poll_fn;
    use std::io;
    use std::task::Poll;

    use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
    use tokio::process::Child;
    use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

    /// The signals that ask to stop: Ctrl-C, `kill`, a terminal that is closed.
    #[derive(Debug)]
    pub(crate) struct StopSignals([Listener; 3]);

    impl StopSignals {
        /// Listens from now on.
        pub(crate) fn new() -> io::Result<Self> {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [interrupt, terminate, hangup] = kinds.map(signal);
            Ok(Self([interrupt?, terminate?, hangup?]))
        }

        /// Waits for any of them. Cancel-safe.
        pub(crate) async fn told(&mut self) {
            poll_fn(|cx| {
                let is_told = self.0.iter_mut().any(|listener| listener.poll_recv(cx).is_ready());
                if is_told { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }

    /// Asks a process to end.
    pub(crate) fn terminate(child: &mut Child) {
        if let Some(pid) = pid(child) {
            // It fails only for a process that is gone.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// A process group that was told to end.
    #[derive(Debug)]
    pub(crate) struct EndingGroup(Pid);

    impl EndingGroup {
        /// Whether any of it is left.
        pub(crate) fn is_there(&self) -> bool {
            test_kill_process_group(self.0).is_ok()
        }
    }

    /// Ends all processes of the group that this one leads; `None` if it has ended.
    pub(crate) fn interrupt_group(leader: &mut Child) -> Option<EndingGroup> {
        let pid = pid(leader)?;
        let _ = kill_process_group(pid, Signal::INT);
        Some(EndingGroup(pid))
    }

    /// `None` once its end was seen: the number may be another's by then.
    fn pid(child: &Child) -> Option<Pid> {
        Pid::from_raw(i32::try_from(child.id()?).ok()?)
    }
}

#[cfg(not(unix))]
mod system {
    use std::io;

    use tokio::process::Child;

    /// Ctrl-C.
    #[derive(Debug)]
    pub(crate) struct StopSignals;

    impl StopSignals {
        /// Nothing can fail here.
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        /// Waits for it. Cancel-safe.
        pub(crate) async fn told(&mut self) {
            let _ = tokio::signal::ctrl_c().await;
        }
    }

    /// Kills a process: there is no gentler way.
    pub(crate) fn terminate(child: &mut Child) {
        let _ = child.start_kill();
    }

    /// A process that was killed, and perhaps others that it started.
    #[derive(Debug)]
    pub(crate) struct EndingGroup;

    impl EndingGroup {
        /// There is no way to know; they end by themselves.
        pub(crate) fn is_there(&self) -> bool {
            false
        }
    }

    /// Kills a process; those that it started notice that it is gone.
    pub(crate) fn interrupt_group(leader: &mut Child) -> Option<EndingGroup> {
        leader.start_kill().ok().map(|()| EndingGroup)
    }
}

pub(crate) use system::{StopSignals, interrupt_group, terminate};

/// Waits until whoever asked to stop asks again.
pub(crate) async fn told_again() {
    sleep(ECHO).await;
    match StopSignals::new() {
        Ok(mut signals) => signals.told().await,
        Err(_) => std::future::pending().await,
    }
}
