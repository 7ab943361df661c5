//! State of one call for the tables of its connection: kind, ID, slot.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytestring::ByteString;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// The hook `on_connected` or `on_rehomed`.
    ConnectHook,
    Method(Concurrency),
    /// The hook `on_disconnected` or `on_leaving`.
    DisconnectHook,
}

/// Share of its client's concurrency that a running call uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Concurrency {
    /// A slot. There are few, so that calls run in order.
    Slot,
    /// No slot: a call with streams runs in the background.
    Background,
    /// None: the call is immediately answered with an error.
    Rejected,
}

#[derive(Debug)]
pub(crate) struct CallState {
    pub(crate) kind: CallKind,
    pub(crate) invocation_id: Option<ByteString>,
    has_slot: AtomicBool,
    /// Name of the method, set once the call waits for something.
    method: OnceLock<ByteString>,
}

impl CallState {
    pub(crate) fn new(kind: CallKind, invocation_id: Option<ByteString>) -> Self {
        Self { kind, invocation_id, has_slot: AtomicBool::new(false), method: OnceLock::new() }
    }

    pub(crate) fn concurrency(&self) -> Concurrency {
        match self.kind {
            CallKind::Method(concurrency) => concurrency,
            CallKind::ConnectHook | CallKind::DisconnectHook => Concurrency::Rejected,
        }
    }

    pub(super) fn note_method(&self, method: ByteString) {
        let _ = self.method.set(method);
    }

    pub(super) fn method(&self) -> Option<&ByteString> {
        self.method.get()
    }

    /// Marks the slot as taken. Must be called with the inbox locked.
    pub(super) fn take_slot(&self) {
        self.has_slot.store(true, Ordering::Relaxed);
    }

    /// Marks the slot as released. Must be called with the inbox locked. Returns `false` if the call has none.
    pub(super) fn give_slot(&self) -> bool {
        self.has_slot.swap(false, Ordering::Relaxed)
    }
}

impl AsRef<CallState> for CallState {
    fn as_ref(&self) -> &CallState {
        self
    }
}
