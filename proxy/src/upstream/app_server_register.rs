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
use crate::auth::Signer;
use crate::limits::{IDLE_TIMEOUT, SignerShare, TableFull};

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
    /// Signer of the token with which it was named first.
    signer: Signer,
    unused_since: Option<Instant>,
}

impl AppServerRegister {
    /// Returns the number of an instance; one that is new gets the next number, and counts for this signer.
    pub(super) fn number(&mut self, instance: &str, signer: &Signer) -> AppServerId {
        if let Some(known) = self.known(instance) {
            if let Some(entry) = self.entries.get_mut(&known) {
                entry.unused_since = None;
            }
            return known;
        }
        let (id, instance) = (AppServerId(self.next), Arc::<str>::from(instance));
        // The last two numbers stand for nobody.
        self.next = self.next.saturating_add(1).min(AppServerId::OTHER_NODE.0 - 1);
        self.numbers.insert(instance.clone(), id);
        self.entries.insert(id, RegisterEntry { instance, signer: signer.clone(), unused_since: None });
        id
    }

    /// The number of an instance, if that is known.
    pub(super) fn known(&self, instance: &str) -> Option<AppServerId> {
        self.numbers.get(instance).copied()
    }

    /// Checks that an instance is known, or there is room for it in the share of a signer.
    /// A full register evicts the instance that was not used for the longest time first.
    pub(super) fn check_room(&mut self, instance: &str, share: &SignerShare) -> Result<(), TableFull> {
        if self.known(instance).is_some() {
            return Ok(());
        }
        let own = self.entries.values().filter(|entry| entry.signer == *share.signer()).count();
        match share.check(APP_SERVERS_MAX, self.numbers.len(), own) {
            Err(full) if self.evict_unused(full.key.as_ref()) => Ok(()),
            checked => checked,
        }
    }

    fn evict_unused(&mut self, signer: Option<&Signer>) -> bool {
        let entries = self.entries.iter().filter(|(_, entry)| signer.is_none_or(|signer| entry.signer == *signer));
        let unused = entries.filter_map(|(id, entry)| Some((entry.unused_since?, *id))).min();
        let Some((_, id)) = unused.filter(|(since, _)| since.elapsed() >= IDLE_TIMEOUT) else { return false };
        let evicted = self.entries.remove(&id);
        evicted.is_some_and(|entry| self.numbers.remove(&entry.instance).is_some())
    }

    /// The instance id behind a number; `None` if it is forgotten, or was never given.
    pub(super) fn instance(&self, app: AppServerId) -> Option<Arc<str>> {
        self.entries.get(&app).map(|entry| entry.instance.clone())
    }

    /// Numbers of all instances.
    #[cfg(test)]
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

    const FLEET: SignerShare = SignerShare::new(Signer::Fleet, false);

    fn number(register: &mut AppServerRegister, instance: &str) -> AppServerId {
        register.number(instance, &Signer::Fleet)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_not_used_for_the_time_is_forgotten_and_gets_another_number() {
        let mut register = AppServerRegister::default();
        let [used, unused, returning] = ["used", "unused", "returning"].map(|name| number(&mut register, name));
        let is_used = |id| id == used;
        assert_eq!(register.sweep(is_used, LIMIT), 0);
        tokio::time::advance(LIMIT / 2).await;
        assert_eq!(number(&mut register, "returning"), returning);
        register.sweep(is_used, LIMIT);
        tokio::time::advance(LIMIT / 2).await;
        assert_eq!((register.sweep(is_used, LIMIT), register.ids()), (1, vec![used, returning]));
        assert_eq!((register.instance(unused), register.instance(used).as_deref()), (None, Some("used")));
        let again = number(&mut register, "unused");
        assert!(![used, unused, returning].contains(&again));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_again_once_some_are_forgotten() {
        let mut register = AppServerRegister::default();
        let has_room = |register: &mut AppServerRegister, instance: &str| register.check_room(instance, &FLEET).is_ok();
        for start in 0..APP_SERVERS_MAX {
            number(&mut register, &start.to_string());
        }
        assert!(!has_room(&mut register, "one more") && has_room(&mut register, "7"));
        register.sweep(|_| false, LIMIT);
        tokio::time::advance(LIMIT).await;
        assert_eq!(register.sweep(|_| false, LIMIT), APP_SERVERS_MAX);
        assert!(has_room(&mut register, "one more"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_register_evicts_whoever_is_unused_and_keeps_the_others() {
        let mut register = AppServerRegister::default();
        let used = number(&mut register, "used");
        for start in 1..APP_SERVERS_MAX {
            number(&mut register, &start.to_string());
        }
        register.sweep(|id| id == used, LIMIT);
        assert!(register.check_room("too soon", &FLEET).is_err());
        tokio::time::advance(IDLE_TIMEOUT).await;
        for start in 1..2 * APP_SERVERS_MAX / 1000 {
            let instance = format!("new {start}");
            assert!(register.check_room(&instance, &FLEET).is_ok(), "{start}");
            number(&mut register, &instance);
        }
        assert_eq!((register.known("used"), register.ids().len()), (Some(used), APP_SERVERS_MAX));
    }

    #[test]
    fn the_key_of_an_app_has_a_half_and_leaves_the_others_room() {
        let mut register = AppServerRegister::default();
        let share = |app: &str| SignerShare::new(Signer::App(app.into()), true);
        let starts: Vec<_> = (0..).map(|start: u32| start.to_string()).take(APP_SERVERS_MAX).collect();
        for start in &starts {
            if register.check_room(start, &share("shop")).is_ok() {
                register.number(start, share("shop").signer());
            }
        }
        assert_eq!(register.ids().len(), APP_SERVERS_MAX / 2);
        let refusal = register.check_room("one more", &share("shop")).unwrap_err().describe("app servers");
        assert_eq!(refusal, "8192 app servers by the key of app shop, which is the most for one key");
        assert!(register.check_room("7", &share("shop")).is_ok() && register.check_room("new", &share("news")).is_ok());
    }
}
