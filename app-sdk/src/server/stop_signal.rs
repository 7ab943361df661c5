//! Stop signal: Ctrl-C and SIGTERM, or a future of the app.

use std::future::pending;
use std::io;
use std::pin::Pin;

pub(super) enum StopSignal {
    Future(Option<Pin<Box<dyn Future<Output = ()> + Send>>>),
    #[cfg(unix)]
    Process {
        interrupt: tokio::signal::unix::Signal,
        terminate: tokio::signal::unix::Signal,
    },
    /// Ctrl-C on systems without SIGTERM.
    #[cfg(not(unix))]
    Process,
}

impl StopSignal {
    /// Waits for the future, or without one for process signals. Fails if the system refuses a signal handler.
    pub(super) fn new(future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>) -> io::Result<Self> {
        match future {
            Some(future) => Ok(Self::Future(Some(future))),
            None => Self::process(),
        }
    }

    #[cfg(unix)]
    fn process() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self::Process { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(not(unix))]
    fn process() -> io::Result<Self> {
        Ok(Self::Process)
    }

    /// Waits for the next stop request. A future makes only one.
    pub(super) async fn next(&mut self) {
        match self {
            Self::Future(future) => match future {
                Some(signal) => {
                    signal.await;
                    *future = None;
                }
                None => pending().await,
            },
            #[cfg(unix)]
            Self::Process { interrupt, terminate } => {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
            #[cfg(not(unix))]
            Self::Process => {
                let _ = tokio::signal::ctrl_c().await;
            }
        }
    }
}
