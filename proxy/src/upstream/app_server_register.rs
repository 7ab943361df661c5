//! Register of app server instances: the number of each, by which tables find it, and since when nobody uses it.
//!
//! ```text
//!  met ──(no pool of links, no client)──► unused ──(--hold-timeout)──► forgotten
//!    ▲                                      │
//!    └───────────── met again ──────────────┘
//! ```
//!
//! Each start of an app server has an instance id of its own, so a node that runs for months meets any number of them.
//! A number is never given to another instance: whatever still holds that of a forgotten one finds nobody.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::number::AppServerId;

/// Instances that whoever dials in may add to those that a node knows. A fleet has some hundreds.
pub(crate) const APP_SERVERS_MAX: usize = 16_384;

/// Instances that a node knows.
#[derive(Debug, Default)]
pub(super) struct AppServerRegister {
    numbers: HashMap<Arc<str>, AppServerId>,
    entries: BTreeMap<AppServerId, RegisterEntry>,
    next: u32,
}

#[derive(Debug)]
struct RegisterEntry {
    instance: Arc<str>,
    unused_since: Option<Instant>,
}

impl AppServerRegister {
    /// Returns the number of an instance; one that is new gets the next number.
    pub(super) fn number(&mut self, instance: &str) -> AppServerId {
        if let Some(known) = self.numbers.get(instance) {
            if let Some(entry) = self.entries.get_mut(known) {
                entry.unused_since = None;
            }
            return *known;
        }
        let (id, instance) = (AppServerId(self.next), Arc::<str>::from(instance));
        // The last two numbers stand for nobody.
        self.next = self.next.saturating_add(1).min(AppServerId::OTHER_NODE.0 - 1);
        self.numbers.insert(instance.clone(), id);
        self.entries.insert(id, RegisterEntry { instance, unused_since: None });
        id
    }

    /// Whether an instance is known, or there is room for it.
    pub(super) fn has_room_for(&self, instance: &str) -> bool {
        self.numbers.len() < APP_SERVERS_MAX || self.numbers.contains_key(instance)
    }

    /// The instance id behind a number; `None` if it is forgotten, or was never given.
    pub(super) fn instance(&self, app: AppServerId) -> Option<Arc<str>> {
        self.entries.get(&app).map(|entry| entry.instance.clone())
    }

    /// Numbers of all instances.
    pub(super) fn ids(&self) -> Vec<AppServerId> {
        self.entries.keys().copied().collect()
    }

    /// Notes which instances are used now, and forgets those that were not for this time; returns how many.
    pub(super) fn sweep(&mut self, is_used: impl Fn(AppServerId) -> bool, limit: Duration) -> usize {
        let now = Instant::now();
        let forgotten: Vec<_> =
            self.entries.extract_if(.., |id, entry| entry.is_due(is_used(*id), now, limit)).collect();
        for (_, entry) in &forgotten {
            self.numbers.remove(&entry.instance);
        }
        forgotten.len()
    }
}

impl RegisterEntry {
    fn is_due(&mut self, is_used: bool, now: Instant, limit: Duration) -> bool {
        self.unused_since = if is_used { None } else { self.unused_since.or(Some(now)) };
        self.unused_since.is_some_and(|since| now - since >= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn whoever_is_not_used_for_the_time_is_forgotten_and_gets_another_number() {
        let mut register = AppServerRegister::default();
        let [used, unused, returning] = ["used", "unused", "returning"].map(|name| register.number(name));
        let is_used = |id| id == used;
        assert_eq!(register.sweep(is_used, LIMIT), 0);
        tokio::time::advance(LIMIT / 2).await;
        assert_eq!(register.number("returning"), returning);
        register.sweep(is_used, LIMIT);
        tokio::time::advance(LIMIT / 2).await;
        assert_eq!((register.sweep(is_used, LIMIT), register.ids()), (1, vec![used, returning]));
        assert_eq!((register.instance(unused), register.instance(used).as_deref()), (None, Some("used")));
        let again = register.number("unused");
        assert!(![used, unused, returning].contains(&again));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_again_once_some_are_forgotten() {
        let mut register = AppServerRegister::default();
        for number in 0..APP_SERVERS_MAX {
            assert!(register.has_room_for(&number.to_string()));
            register.number(&number.to_string());
        }
        assert!(!register.has_room_for("one more") && register.has_room_for("7"));
        register.sweep(|_| false, LIMIT);
        tokio::time::advance(LIMIT).await;
        assert_eq!(register.sweep(|_| false, LIMIT), APP_SERVERS_MAX);
        assert!(register.has_room_for("one more"));
    }
}
