//! App servers, their locations, and the register of their instances: the number of each, and when it became unused.
//!
//! ```text
//!  registered ──(no pool of links, no client)──► unused ──(--hold-timeout)──► removed
//!      ▲                                           │
//!      └────────────── registered again ───────────┘
//! ```
//!
//! Each start of an app server has its own instance id, so a node may register any number over months. Numbers are
//! never reused: the number of a removed instance finds no app server.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use tokio::time::Instant;

use super::number::AppServerId;
use super::{MemoryLink, ServerGroup};
use crate::ground::auth::Signer;
use crate::ground::limits::{IDLE_TIMEOUT, SignerShare, TableFull};
use crate::ground::net::address::Address;

#[derive(Debug)]
pub(crate) struct AppServer {
    pub id: AppServerId,
    /// Random id of the instance.
    pub instance: String,
    /// Name for logs and pages.
    pub name: String,
    pub target: AppTarget,
    pub group: Arc<ServerGroup>,
}

impl AppServer {
    pub(crate) fn weight(&self) -> u32 {
        match &self.target {
            AppTarget::Network(address) => self.group.weight_of(address),
            AppTarget::Memory(_) | AppTarget::DialsIn(_) => 1,
        }
    }

    /// Whether the source of its address still lists the app server. While listed ones of its group are up, an app
    /// server that has left gets no new clients and requests, and keeps the clients it has.
    pub(crate) fn is_listed(&self) -> bool {
        match &self.target {
            AppTarget::Network(address) => address.is_listed(),
            AppTarget::Memory(_) | AppTarget::DialsIn(_) => true,
        }
    }
}

/// Location of an app server: a network address, or this process.
#[derive(Debug, Clone)]
pub(crate) enum AppTarget {
    Network(Address),
    Memory(Arc<dyn MemoryDialler>),
    /// Dials in, from this address if known; this node never dials it.
    DialsIn(Option<IpAddr>),
}

impl AppTarget {
    pub(crate) fn is_webhook(&self) -> bool {
        matches!(self, Self::Memory(dialler) if dialler.back_end().is_some())
    }
}

/// Requests to a back end, and their outcomes.
#[derive(Debug, Clone, Default)]
pub struct BackEndState {
    /// Requests since the start, each attempt counted.
    pub requests: u64,
    /// Requests without a valid answer.
    pub failures: u64,
    /// Number of requests in flight.
    pub in_flight: u64,
    /// Time until the end of an answer, smoothed over the last requests.
    pub latency: Duration,
    /// Unix time of the first failure since the last valid answer, in milliseconds, and the latest problem.
    pub failing: Option<(u64, String)>,
}

/// Connector to the app that embeds this node.
pub trait MemoryDialler: std::fmt::Debug + Send + Sync {
    /// Passes the app its end of a link. The other arguments are sent as headers over the network.
    fn dial(&self, hub: &str, node: &str, boot: &str, slot: usize, link: MemoryLink);

    /// Passes the app a request for a path that it serves to proxies.
    fn ask(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

    /// Location of the app, for people.
    fn place(&self) -> String {
        "this process".into()
    }

    /// State of the back end to which the app's ends of links send requests; `None` for an app in this process.
    fn back_end(&self) -> Option<BackEndState> {
        None
    }

    /// Whether the app's ends of links report on traced messages.
    fn supports_traces(&self) -> bool {
        false
    }
}

impl std::fmt::Display for AppTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(address) => write!(f, "{address}"),
            Self::Memory(dialler) => f.write_str(&dialler.place()),
            Self::DialsIn(_) => f.write_str("dials in"),
        }
    }
}

/// Maximum number of instances registered by dial-in. A fleet has hundreds at most.
pub(crate) const APP_SERVERS_MAX: usize = 16_384;

#[derive(Debug, Default)]
pub(crate) struct AppServerRegister(Mutex<RegisterTable>);

#[derive(Debug, Default)]
struct RegisterTable {
    numbers: HashMap<Arc<str>, AppServerId>,
    entries: BTreeMap<AppServerId, RegisterEntry>,
    next: u32,
}

#[derive(Debug)]
struct RegisterEntry {
    instance: Arc<str>,
    /// Signer of the token that first named the instance.
    signer: Signer,
    unused_since: Option<Instant>,
}

impl AppServerRegister {
    /// Returns the number of an instance. A new instance gets the next number and counts towards this signer.
    pub(crate) fn number(&self, instance: &str, signer: &Signer) -> AppServerId {
        let table = &mut *self.table();
        if let Some(known) = table.numbers.get(instance).copied() {
            if let Some(entry) = table.entries.get_mut(&known) {
                entry.unused_since = None;
            }
            return known;
        }
        let (id, instance) = (AppServerId(table.next), Arc::<str>::from(instance));
        // The last two numbers are reserved.
        table.next = table.next.saturating_add(1).min(AppServerId::OTHER_NODE.0 - 1);
        table.numbers.insert(instance.clone(), id);
        table.entries.insert(id, RegisterEntry { instance, signer: signer.clone(), unused_since: None });
        id
    }

    /// Number of a known instance. An unknown instance gets none.
    pub(crate) fn known(&self, instance: &str) -> Option<AppServerId> {
        self.table().numbers.get(instance).copied()
    }

    /// Checks that an instance is known or fits into the share of a signer. A full register evicts the instance that
    /// has been unused for longest.
    pub(crate) fn check_room(&self, instance: &str, share: &SignerShare) -> Result<(), TableFull> {
        let mut table = self.table();
        if table.numbers.contains_key(instance) {
            return Ok(());
        }
        let own = table.entries.values().filter(|entry| entry.signer == share.signer).count();
        match share.check(APP_SERVERS_MAX, table.numbers.len(), own) {
            Err(full) if table.evict_unused(full.key.as_ref()) => Ok(()),
            checked => checked,
        }
    }

    /// Instance id of a number; empty for removed instances and unassigned numbers.
    pub(crate) fn instance(&self, app: AppServerId) -> Arc<str> {
        self.table().entries.get(&app).map(|entry| entry.instance.clone()).unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn ids(&self) -> Vec<AppServerId> {
        self.table().entries.keys().copied().collect()
    }

    /// Records which instances are in use, and removes those unused for this time; returns their number.
    pub(super) fn sweep(&self, is_used: impl Fn(AppServerId) -> bool, limit: Duration) -> usize {
        let (table, now) = (&mut *self.table(), Instant::now());
        let unused: Vec<_> = table.entries.extract_if(.., |id, entry| entry.is_due(is_used(*id), now, limit)).collect();
        for (_, entry) in &unused {
            table.numbers.remove(&entry.instance);
        }
        unused.len()
    }

    fn table(&self) -> MutexGuard<'_, RegisterTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegisterTable {
    fn evict_unused(&mut self, signer: Option<&Signer>) -> bool {
        let entries = self.entries.iter().filter(|(_, entry)| signer.is_none_or(|signer| entry.signer == *signer));
        let unused = entries.filter_map(|(id, entry)| Some((entry.unused_since?, *id))).min();
        let Some((_, id)) = unused.filter(|(since, _)| since.elapsed() >= IDLE_TIMEOUT) else { return false };
        let evicted = self.entries.remove(&id);
        evicted.is_some_and(|entry| self.numbers.remove(&entry.instance).is_some())
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

    fn number(register: &AppServerRegister, instance: &str) -> AppServerId {
        register.number(instance, &Signer::Fleet)
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_instance_is_removed_and_gets_another_number_later() {
        let register = AppServerRegister::default();
        let [used, unused, returning] = ["used", "unused", "returning"].map(|name| number(&register, name));
        let is_used = |id| id == used;
        assert_eq!(register.sweep(is_used, LIMIT), 0);
        tokio::time::advance(LIMIT / 2).await;
        assert_eq!(number(&register, "returning"), returning);
        register.sweep(is_used, LIMIT);
        tokio::time::advance(LIMIT / 2).await;
        assert_eq!((register.sweep(is_used, LIMIT), register.ids()), (1, vec![used, returning]));
        assert_eq!((&*register.instance(unused), &*register.instance(used)), ("", "used"));
        let again = number(&register, "unused");
        assert!(![used, unused, returning].contains(&again));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_again_once_instances_are_removed() {
        let register = AppServerRegister::default();
        let has_room = |register: &AppServerRegister, instance: &str| register.check_room(instance, &FLEET).is_ok();
        for start in 0..APP_SERVERS_MAX {
            number(&register, &start.to_string());
        }
        assert!(!has_room(&register, "one more") && has_room(&register, "7"));
        register.sweep(|_| false, LIMIT);
        tokio::time::advance(LIMIT).await;
        assert_eq!(register.sweep(|_| false, LIMIT), APP_SERVERS_MAX);
        assert!(has_room(&register, "one more"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_register_evicts_unused_instances_and_keeps_the_others() {
        let register = AppServerRegister::default();
        let used = number(&register, "used");
        for start in 1..APP_SERVERS_MAX {
            number(&register, &start.to_string());
        }
        register.sweep(|id| id == used, LIMIT);
        assert!(register.check_room("too soon", &FLEET).is_err());
        tokio::time::advance(IDLE_TIMEOUT).await;
        for start in 1..2 * APP_SERVERS_MAX / 1000 {
            let instance = format!("new {start}");
            assert!(register.check_room(&instance, &FLEET).is_ok(), "{start}");
            number(&register, &instance);
        }
        assert_eq!((register.known("used"), register.ids().len()), (Some(used), APP_SERVERS_MAX));
    }

    #[test]
    fn the_key_of_an_app_has_a_half_and_leaves_the_others_room() {
        let register = AppServerRegister::default();
        let share = |app: &str| SignerShare::new(Signer::App(app.into()), true);
        let starts: Vec<_> = (0..).map(|start: u32| start.to_string()).take(APP_SERVERS_MAX).collect();
        for start in &starts {
            if register.check_room(start, &share("shop")).is_ok() {
                register.number(start, &share("shop").signer);
            }
        }
        assert_eq!(register.ids().len(), APP_SERVERS_MAX / 2);
        let refusal = register.check_room("one more", &share("shop")).unwrap_err().describe("app servers");
        assert_eq!(refusal, "8192 app servers by the key of app shop, which is the most for one key");
        assert!(register.check_room("7", &share("shop")).is_ok() && register.check_room("new", &share("news")).is_ok());
    }
}
