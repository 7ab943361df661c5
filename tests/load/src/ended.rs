//! Ends of connections, and how a task learns of its own.

use std::cell::RefCell;
use std::io;

use tokio::sync::Notify;

/// End of a connection; the text is the cause under which it is counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ended {
    /// Closed by this client, as planned.
    #[error("closed by us")]
    Closed,
    #[error("closed by the server: {0}")]
    ByServer(String),
    #[error("socket: {0}")]
    Socket(io::ErrorKind),
    #[error("the server sent what is no SignalR: {0}")]
    Protocol(String),
    #[error("the server was silent for too long")]
    Silent,
    #[error("the server reads too slowly")]
    Slow,
}

impl Ended {
    /// The socket is at its end, and nothing was said before.
    pub(crate) fn without_a_word() -> Self {
        Self::ByServer("without a word".into())
    }
}

/// The end of one connection: anybody may tell it, its task hears it.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    cause: RefCell<Option<Ended>>,
    bell: Notify,
}

impl Ending {
    /// Ends the connection with a cause, unless it has one.
    pub(crate) fn tell(&self, cause: Ended) {
        self.cause.borrow_mut().get_or_insert(cause);
        self.ring();
    }

    pub(crate) fn told(&self) -> Option<Ended> {
        self.cause.borrow().clone()
    }

    /// Waits until it is told.
    pub(crate) async fn wait(&self) -> Ended {
        loop {
            if let Some(cause) = self.told() {
                return cause;
            }
            self.rung().await;
        }
    }

    /// Makes the task look around.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits until the task shall look around.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }
}
