//! One run of the app's code, as the tables of its connection see it: its kind, its id, its slot.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytestring::ByteString;

/// Kind of the app's code that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// The hook `on_connected` or `on_rehomed`.
    ConnectHook,
    /// A method that the client invoked.
    Method(Concurrency),
    /// The hook `on_disconnected` or `on_leaving`.
    DisconnectHook,
}

/// Share of its client's concurrency that a call takes while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Concurrency {
    /// One of the few slots, so that calls run in their order.
    Slot,
    /// No slot: calls with streams run in the background.
    Background,
    /// No share: the call is answered with an error at once.
    Rejected,
}

/// State of one call.
#[derive(Debug)]
pub(crate) struct CallState {
    kind: CallKind,
    invocation_id: Option<ByteString>,
    has_slot: AtomicBool,
    /// Name of the method, once the call waits for something.
    method: OnceLock<ByteString>,
}

impl CallState {
    pub(crate) fn new(kind: CallKind, invocation_id: Option<ByteString>) -> Self {
        Self { kind, invocation_id, has_slot: AtomicBool::new(false), method: OnceLock::new() }
    }

    pub(crate) fn kind(&self) -> CallKind {
        self.kind
    }

    pub(crate) fn concurrency(&self) -> Concurrency {
        match self.kind {
            CallKind::Method(concurrency) => concurrency,
            CallKind::ConnectHook | CallKind::DisconnectHook => Concurrency::Rejected,
        }
    }

    pub(crate) fn invocation_id(&self) -> Option<&ByteString> {
        self.invocation_id.as_ref()
    }

    /// Notes which method it is that waits for something.
    pub(super) fn note_method(&self, method: ByteString) {
        let _ = self.method.set(method);
    }

    /// Name of the method that waits for something.
    pub(super) fn method(&self) -> Option<&ByteString> {
        self.method.get()
    }

    /// Notes that the call has its slot; called under the inbox's lock.
    pub(super) fn take_slot(&self) {
        self.has_slot.store(true, Ordering::Relaxed);
    }

    /// Notes that the call gives its slot back; called under the inbox's lock. Returns `false` if it has none.
    pub(super) fn give_slot(&self) -> bool {
        self.has_slot.swap(false, Ordering::Relaxed)
    }
}

impl AsRef<CallState> for CallState {
    fn as_ref(&self) -> &CallState {
        self
    }
}
