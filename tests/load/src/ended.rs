//! Ends of connections, and their notification to the connection's task.

use std::cell::RefCell;
use std::io;

use tokio::sync::Notify;

/// End of a connection. Its text is the cause used for counting.
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
    /// The socket ended without a close message.
    pub(crate) fn without_a_word() -> Self {
        Self::ByServer("without a word".into())
    }
}

/// End of one connection, which any code can trigger and the connection's task waits for.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    cause: RefCell<Option<Ended>>,
    bell: Notify,
}

impl Ending {
    /// Ends the connection with a cause, unless one is set.
    pub(crate) fn notify(&self, cause: Ended) {
        self.cause.borrow_mut().get_or_insert(cause);
        self.ring();
    }

    pub(crate) fn told(&self) -> Option<Ended> {
        self.cause.borrow().clone()
    }

    pub(crate) async fn wait(&self) -> Ended {
        loop {
            if let Some(cause) = self.told() {
                return cause;
            }
            self.rung().await;
        }
    }

    /// Wakes the task to check for changes.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits until the task is woken.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }
}
