//! Signals that request a stop of the process.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopRequest {
    /// SIGTERM, even if repeated, or the first Ctrl-C.
    Graceful,
    /// SIGQUIT, or a second Ctrl-C.
    Immediate,
}

/// Ctrl-C and, on Unix, SIGTERM and SIGQUIT. While this exists, none of them ends the process directly.
pub(super) struct StopSignals {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
    #[cfg(unix)]
    quit: Signal,
    is_interrupted: bool,
}

impl StopSignals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt())?,
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
            #[cfg(unix)]
            quit: signal(SignalKind::quit())?,
            is_interrupted: false,
        })
    }

    pub(super) async fn next(&mut self) -> io::Result<StopRequest> {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => return Ok(StopRequest::Graceful),
            _ = self.quit.recv() => return Ok(StopRequest::Immediate),
        }
        #[cfg(not(unix))]
        tokio::signal::ctrl_c().await?;
        match std::mem::replace(&mut self.is_interrupted, true) {
            false => Ok(StopRequest::Graceful),
            true => Ok(StopRequest::Immediate),
        }
    }

    /// Waits until the process has to end immediately.
    pub(super) async fn immediate(&mut self) -> io::Result<()> {
        while self.next().await? == StopRequest::Graceful {}
        Ok(())
    }
}
