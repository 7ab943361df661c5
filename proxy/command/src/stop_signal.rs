//! Signals that ask the process to stop.

use std::io;

use tokio::signal;

/// Ctrl-C and, on Unix, SIGTERM. Once this exists, neither ends the process by itself.
pub(super) struct StopSignals {
    #[cfg(unix)]
    terminate: signal::unix::Signal,
}

impl StopSignals {
    /// Installs the handlers of both signals.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: signal::unix::signal(signal::unix::SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        #[cfg(unix)]
        tokio::select! {
            interrupted = signal::ctrl_c() => interrupted,
            _ = self.terminate.recv() => Ok(()),
        }
        #[cfg(not(unix))]
        signal::ctrl_c().await
    }
}
