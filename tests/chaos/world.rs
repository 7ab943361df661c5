//! State that all clients and speakers of a run share.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::ledger::{Audience, Ledger};
use crate::tally::Tally;

/// Members of a group.
const GROUP_CLIENTS: usize = 20;

/// Phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Playing,
    /// Nothing new is sent; messages under way arrive, and the fences behind them.
    Quiet,
}

/// State that all of a run share.
#[derive(Debug)]
pub(crate) struct World {
    /// Address that clients connect to.
    pub(crate) proxies: Vec<String>,
    pub(crate) clients: usize,
    /// Broadcasts behind all others, which tell a listener that nothing more can come.
    pub(crate) fences: usize,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) tally: Tally,
    pub(crate) act: watch::Sender<Act>,
    /// The connection id of each client that is here, and which of its lives that is.
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

    /// Returns when nobody says anything new.
    pub(crate) async fn quiet(&self) {
        // The sender is here: it can't be gone.
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

    /// A client is here with this connection id, or no more.
    pub(crate) fn enrol(&self, client: usize, as_whom: Option<(String, u32)>) {
        *self.roll[client].lock().unwrap_or_else(PoisonError::into_inner) = as_whom;
    }

    /// A connected client: its connection id, and its audience.
    pub(crate) fn somebody(&self, number: usize) -> Option<(String, Audience)> {
        let client = number % self.clients;
        let (id, life) = self.roll[client].lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some((id, Audience::One { client, life }))
    }
}
