//! State shared by all clients and speakers of a run.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::ledger::{Audience, Ledger};
use crate::tally::Tally;

const GROUP_CLIENTS: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Playing,
    /// No new messages are sent. Messages in flight arrive, then the fences.
    Quiet,
}

#[derive(Debug)]
pub(crate) struct World {
    /// Addresses that clients dial.
    pub(crate) proxies: Vec<String>,
    pub(crate) clients: usize,
    /// Number of fences. A listener with all of them has received everything.
    pub(crate) fences: usize,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) tally: Tally,
    pub(crate) act: watch::Sender<Act>,
    /// Connection id of each connected client, with the number of its current connection.
    roll: Vec<Mutex<Option<(String, u32)>>>,
}

impl World {
    pub(crate) fn new(proxies: Vec<String>, clients: usize, fences: usize) -> Self {
        Self {
            proxies,
            clients,
            fences,
            ledger: Arc::default(),
            tally: Tally::new(),
            act: watch::Sender::new(Act::Playing),
            roll: (0..clients).map(|_| Mutex::default()).collect(),
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        *self.act.borrow() == Act::Quiet
    }

    /// Waits until no new messages are sent.
    pub(crate) async fn quiet(&self) {
        // Can't fail, because this value holds the sender.
        drop(self.act.subscribe().wait_for(|act| *act == Act::Quiet).await);
    }

    pub(crate) fn proxy(&self, number: usize) -> &str {
        &self.proxies[number % self.proxies.len()]
    }

    pub(crate) fn group_of(&self, client: usize) -> usize {
        client % self.groups()
    }

    pub(crate) fn groups(&self) -> usize {
        self.clients.div_ceil(GROUP_CLIENTS)
    }

    /// Records the connection id of a client that has connected, or that a client has disconnected.
    pub(crate) fn enrol(&self, client: usize, as_whom: Option<(String, u32)>) {
        *self.roll[client].lock().unwrap_or_else(PoisonError::into_inner) = as_whom;
    }

    /// Connected client: its connection id and audience.
    pub(crate) fn somebody(&self, number: usize) -> Option<(String, Audience)> {
        let client = number % self.clients;
        let (id, life) = self.roll[client].lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some((id, Audience::One { client, life }))
    }
}
