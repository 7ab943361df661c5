//! Injects a fault into every nth message, and counts the faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Fault injected into every nth message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Drop,
    Duplicate,
    /// Swapped with the next message of the connection.
    Swap,
}

/// Fault plan, shared by all connections of a relay.
#[derive(Debug)]
pub(crate) struct Plan {
    fault: Fault,
    every: u64,
    messages: AtomicU64,
    made: AtomicU64,
}

/// Injects the faults of one connection.
#[derive(Debug)]
pub(crate) struct Spoiler {
    plan: Arc<Plan>,
    held: Option<Vec<u8>>,
}

impl Plan {
    pub(crate) fn new(fault: Fault, every: u64) -> Arc<Self> {
        Arc::new(Self { fault, every, messages: AtomicU64::new(0), made: AtomicU64::new(0) })
    }

    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }
}

impl Spoiler {
    pub(crate) fn new(plan: &Arc<Plan>) -> Self {
        Self { plan: Arc::clone(plan), held: None }
    }

    /// Creates an injector for another stream of messages.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(&self.plan)
    }

    /// Returns the messages to forward, in order, after this one.
    pub(crate) fn pass(&mut self, message: &[u8]) -> Vec<Vec<u8>> {
        let is_counted = message.windows(9).any(|window| window == b"\"Message\"");
        let number = if is_counted { self.plan.messages.fetch_add(1, Ordering::SeqCst) + 1 } else { 1 };
        let is_due = is_counted && number % self.plan.every == 0;
        let message = message.to_vec();
        match (self.plan.fault, self.held.take()) {
            (Fault::Drop, _) if is_due => {
                self.made();
                Vec::new()
            }
            (Fault::Duplicate, _) if is_due => {
                self.made();
                vec![message.clone(), message]
            }
            (Fault::Swap, None) if is_due => {
                self.held = Some(message);
                Vec::new()
            }
            (Fault::Swap, Some(held)) if is_counted => {
                self.made();
                vec![message, held]
            }
            (_, held) => {
                self.held = held;
                vec![message]
            }
        }
    }

    fn made(&self) {
        self.plan.made.fetch_add(1, Ordering::SeqCst);
    }
}
