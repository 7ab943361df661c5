//! Hubs of the last hour: a hub that had app servers or clients keeps its series after its removal.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Maximum number of known hubs; beyond it the hub that has been absent for longest is removed.
const KNOWN_HUBS_MAX: usize = 1000;

/// Time for which a hub is known after its last app server or client.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

/// Time without an app server after which remaining clients were left alone: nothing took them over.
const LEFT_ALONE_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HubSight {
    pub is_served: bool,
    /// Whether all its app servers have announced their shutdown.
    pub is_stopping: bool,
    pub clients: u64,
}

/// Hub that had an app server in the last hour, or is expected to have one.
#[derive(Debug, Clone)]
pub(crate) struct KnownHub {
    first_served: Option<Instant>,
    used: Instant,
    unserved_since: Option<Instant>,
    /// Whether the last app server has stopped gracefully, and has left no clients alone.
    pub has_stopped: bool,
    pub had_clients: bool,
    /// Whether the last sight found the hub.
    pub is_present: bool,
}

impl KnownHub {
    fn new(now: Instant) -> Self {
        Self {
            first_served: None,
            used: now,
            unserved_since: None,
            has_stopped: false,
            had_clients: false,
            is_present: true,
        }
    }

    /// Time without an app server; `None` while served.
    pub(crate) fn unserved(&self, now: Instant) -> Option<Duration> {
        self.unserved_since.map(|since| now.saturating_duration_since(since))
    }

    /// Time between its first app server and the loss of its last one.
    #[must_use]
    pub(crate) fn served_for(&self) -> Option<Duration> {
        Some(self.unserved_since?.saturating_duration_since(self.first_served?))
    }

    fn note(&mut self, sight: HubSight, now: Instant) {
        self.is_present = true;
        self.had_clients |= sight.clients > 0;
        if sight.is_served || sight.clients > 0 {
            self.used = now;
        }
        if sight.is_served {
            self.first_served.get_or_insert(now);
            (self.unserved_since, self.has_stopped) = (None, false);
        } else {
            let since = *self.unserved_since.get_or_insert(now);
            self.has_stopped |= sight.is_stopping;
            let has_left_clients = sight.clients > 0 && now.saturating_duration_since(since) >= LEFT_ALONE_AFTER;
            self.has_stopped &= !has_left_clients;
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct KnownHubs(Mutex<BTreeMap<String, KnownHub>>);

impl KnownHubs {
    /// Records the present hubs, and removes hubs without use for an hour.
    pub(crate) fn note(&self, sights: BTreeMap<String, HubSight>, now: Instant) {
        let mut hubs = self.lock();
        hubs.values_mut().for_each(|hub| hub.is_present = false);
        let mut new = Vec::new();
        for (name, sight) in sights {
            match hubs.get_mut(&name) {
                Some(hub) => hub.note(sight, now),
                None => new.push((name, sight)),
            }
        }
        for (name, sight) in new {
            if hubs.len() < KNOWN_HUBS_MAX || remove_absent(&mut hubs) {
                hubs.entry(name).or_insert_with(|| KnownHub::new(now)).note(sight, now);
            }
        }
        let is_recent = |hub: &KnownHub| now.saturating_duration_since(hub.used) < KNOWN_FOR;
        hubs.retain(|_, hub| hub.is_present || (is_recent(hub) && hub.first_served.is_some()));
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    pub(crate) fn list(&self) -> Vec<(String, KnownHub)> {
        self.lock().iter().map(|(name, hub)| (name.clone(), hub.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, KnownHub>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the hub that has been absent for longest, if any is absent.
fn remove_absent(hubs: &mut BTreeMap<String, KnownHub>) -> bool {
    let absent = hubs.iter().filter(|(_, hub)| !hub.is_present).min_by_key(|(_, hub)| hub.used);
    let Some(name) = absent.map(|(name, _)| name.clone()) else { return false };
    hubs.remove(&name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_hub_takes_the_place_of_the_one_that_is_absent_for_longest() {
        let (hubs, start) = (KnownHubs::default(), Instant::now());
        let note = |name: &str, second| {
            let sight = HubSight { is_served: true, ..HubSight::default() };
            hubs.note([(name.to_owned(), sight)].into(), start + Duration::from_secs(second));
        };
        (0..KNOWN_HUBS_MAX).zip(0..).for_each(|(number, second)| note(&format!("old-{number}"), second));
        assert!(hubs.has("old-0"));
        note("new", 2_000);
        assert!(hubs.has("new") && !hubs.has("old-0") && hubs.has("old-1"));
        assert_eq!(hubs.list().len(), KNOWN_HUBS_MAX);
    }

    #[test]
    fn a_removed_hub_that_was_served_is_known_for_an_hour() {
        let (hubs, start) = (KnownHubs::default(), Instant::now());
        let note = |is_served: Option<bool>, second| {
            let sight = is_served.map(|is_served| ("chat".to_owned(), HubSight { is_served, ..HubSight::default() }));
            hubs.note(sight.into_iter().collect(), start + Duration::from_secs(second));
            hubs.list().len()
        };
        assert_eq!((note(Some(false), 0), note(None, 1)), (1, 0), "it was never served");
        assert_eq!(note(Some(true), 10), 1);
        assert_eq!((note(Some(false), 20), note(None, 3600), note(None, 3611)), (1, 1, 0));
    }
}
