//! Who sits in which slot: one live link for each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use crate::sync::lock;

/// A place in a pool, of one start of one node, for one hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SlotKey {
    pub(crate) hub: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) boot: Arc<str>,
    pub(crate) slot: u32,
}

/// All slots of a server.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<HashMap<SlotKey, Occupant>>);

#[derive(Debug, Clone)]
struct Occupant {
    stop: CancellationToken,
    gone: CancellationToken,
}

/// The right to be the link of a slot, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    slots: Arc<Slots>,
    key: SlotKey,
    /// Fires when the link has to go.
    pub(crate) stop: CancellationToken,
    gone: CancellationToken,
}

impl Slots {
    /// Takes the slot; a link that has it is ended first, whatever that takes.
    pub(crate) async fn claim(self: &Arc<Self>, key: SlotKey, stop: CancellationToken) -> Seat {
        let gone = CancellationToken::new();
        let newcomer = Occupant { stop: stop.clone(), gone: gone.clone() };
        while let Some(before) = self.occupy(&key, &newcomer) {
            before.stop.cancel();
            before.gone.cancelled().await;
        }
        Seat { slots: Arc::clone(self), key, stop, gone }
    }

    /// Sits down, unless somebody else does.
    fn occupy(&self, key: &SlotKey, newcomer: &Occupant) -> Option<Occupant> {
        let mut slots = lock(&self.0);
        let before = slots.get(key).cloned();
        if before.is_none() {
            slots.insert(key.clone(), newcomer.clone());
        }
        before
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.slots.0).remove(&self.key);
        self.gone.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newcomer_waits_until_the_old_link_has_gone() {
        let slots = Arc::new(Slots::default());
        let key = SlotKey { hub: "chat".into(), node: "a".into(), boot: "1".into(), slot: 0 };
        let old = slots.claim(key.clone(), CancellationToken::new()).await;
        let claim = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.claim(key, CancellationToken::new()).await }
        });
        old.stop.cancelled().await;
        assert!(!claim.is_finished());
        drop(old);
        assert!(!claim.await.unwrap().stop.is_cancelled());
    }
}
