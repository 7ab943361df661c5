//! What a run of the app's code has to do with its connection: why it runs, its slot, its cancellation.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytestring::ByteString;
use tokio_util::sync::CancellationToken;

use super::Connection;

/// Why code of the app runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errand {
    /// `on_connected`.
    Greeting,
    /// A call of the client.
    Call(Takes),
    /// `on_disconnected`.
    Farewell,
}

/// What a call takes while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// One of the few slots, so that calls run in their order.
    Slot,
    /// No slot: calls with streams run in the background.
    Background,
    /// Nothing: it is answered with an error at once.
    Nothing,
}

/// One run of the app's code for a connection.
#[derive(Debug)]
pub(crate) struct Scope {
    connection: Arc<Connection>,
    errand: Errand,
    invocation_id: Option<ByteString>,
    has_slot: AtomicBool,
    /// Made when somebody asks for it, as that of the connection.
    cancellation: OnceLock<CancellationToken>,
}

impl Scope {
    pub(crate) fn new(connection: &Arc<Connection>, errand: Errand) -> Arc<Self> {
        Arc::new(Self::build(connection, errand, None))
    }

    pub(crate) fn call(connection: &Arc<Connection>, takes: Takes, invocation_id: Option<ByteString>) -> Arc<Self> {
        Arc::new(Self::build(connection, Errand::Call(takes), invocation_id))
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(crate) fn errand(&self) -> Errand {
        self.errand
    }

    pub(crate) fn takes(&self) -> Takes {
        match self.errand {
            Errand::Call(takes) => takes,
            Errand::Greeting | Errand::Farewell => Takes::Nothing,
        }
    }

    pub(crate) fn invocation_id(&self) -> Option<&ByteString> {
        self.invocation_id.as_ref()
    }

    /// Fires when the client cancels the call, or the connection ends.
    pub(crate) fn cancellation(&self) -> &CancellationToken {
        self.cancellation.get_or_init(|| self.connection.cancellation().child_token())
    }

    /// The client cancels the call.
    pub(crate) fn cancel(&self) {
        self.cancellation().cancel();
    }

    /// Notes that the call has its slot, under the inbox' lock.
    pub(super) fn take_slot(&self) {
        self.has_slot.store(true, Ordering::Relaxed);
    }

    /// Notes that the call gives its slot back, under the inbox' lock; `false` if it has done so already.
    pub(super) fn give_slot(&self) -> bool {
        self.has_slot.swap(false, Ordering::Relaxed)
    }

    fn build(connection: &Arc<Connection>, errand: Errand, invocation_id: Option<ByteString>) -> Self {
        Self {
            connection: Arc::clone(connection),
            errand,
            invocation_id,
            has_slot: AtomicBool::new(false),
            cancellation: OnceLock::new(),
        }
    }
}
