//! Log of linked and unlinked proxies: one line per proxy, not per hub or link.
//!
//! ```text
//!  first link ──► Settling ──after 500 ms──► Linked: logged ──last socket──► closed: logged
//!                     ▲                         ▲                     └────► lost: logged ──► over: logged
//!                     └── first link again ─────┴──────────────────────────────┘
//! ```
//!
//! A link lost while others remain open is logged only at level `debug`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;
use trunkline_link::LinkEnd;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::Role;

use super::app_socket::SlotKey;
use crate::connection::ConnectionClose;
use crate::sync::lock;

/// Delay between a proxy's first link and its log line. Meanwhile its other links open.
const SETTLING: Duration = Duration::from_millis(500);

/// Maximum number of hubs in a log line.
const HUBS_SHOWN_MAX: usize = 20;

/// Name and boot ID of a proxy, or the name of a service.
type ProxyName = (Arc<str>, Arc<str>);

/// Proxies with a session, and the last logged state of each.
#[derive(Debug, Default)]
pub(super) struct ProxyLog(Mutex<HashMap<ProxyName, ProxyLinks>>);

/// Links of one proxy. Pure logic.
#[derive(Debug, Default)]
struct ProxyLinks {
    sessions: usize,
    open: BTreeMap<Arc<str>, usize>,
    logged: LoggedState,
    /// A link was closed gracefully since the last one opened.
    is_leaving: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum LoggedState {
    #[default]
    Nothing,
    Settling,
    Linked,
    Lost,
    /// Sessions have ended without a graceful close.
    Missed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkEnding {
    Closed,
    Lost,
}

impl ProxyLog {
    pub(super) fn session_begun(&self, key: &SlotKey, service: Option<&Arc<str>>) {
        lock(&self.0).entry(name_of(key, service)).or_default().sessions += 1;
    }

    /// Records an open link. The first link of a proxy is logged after a delay.
    pub(super) fn opened(self: &Arc<Self>, key: &SlotKey, service: Option<&Arc<str>>) {
        let name = name_of(key, service);
        let is_first = lock(&self.0).get_mut(&name).is_some_and(|links| links.opened(&key.hub));
        if is_first {
            let log = Arc::clone(self);
            tokio::spawn(async move {
                sleep(SETTLING).await;
                log.settled(&name);
            });
        }
    }

    fn settled(&self, name: &ProxyName) {
        let settled = lock(&self.0).get_mut(name).and_then(ProxyLinks::settled);
        if let Some((hubs, links)) = settled {
            tracing::info!(node = %name.0, hubs, links, "proxy linked");
        }
    }

    pub(super) fn ended(&self, key: &SlotKey, service: Option<&Arc<str>>, end: &LinkEnd) {
        let name = name_of(key, service);
        let ending = if is_planned(end) { LinkEnding::Closed } else { LinkEnding::Lost };
        let last = lock(&self.0).get_mut(&name).and_then(|links| links.ended(&key.hub, ending));
        let (node, reason) = (&name.0, end.reason(Role::AppServer));
        match last {
            None => {}
            Some(LinkEnding::Closed) => tracing::info!(%node, reason, "proxy unlinked"),
            Some(LinkEnding::Lost) => {
                tracing::warn!(%node, reason, "all links to a proxy lost: its connections wait until it reconnects");
            }
        }
    }

    /// Records the end of a session and how its connections are closed.
    pub(super) fn session_over(&self, key: &SlotKey, service: Option<&Arc<str>>, close: &ConnectionClose) {
        let name = name_of(key, service);
        let ending = if close.cause == Cause::LinkLost { LinkEnding::Lost } else { LinkEnding::Closed };
        let is_news = {
            let mut proxies = lock(&self.0);
            let Some(links) = proxies.get_mut(&name) else { return };
            let is_news = links.session_over(ending);
            if links.sessions == 0 {
                proxies.remove(&name);
            }
            is_news
        };
        if is_news {
            tracing::warn!(node = %name.0, "lost link to a proxy not resumed: its connections are closed");
        }
    }
}

impl ProxyLinks {
    /// Records an open link. Returns `true` if a log line about the proxy is to follow after the delay.
    fn opened(&mut self, hub: &Arc<str>) -> bool {
        *self.open.entry(Arc::clone(hub)).or_default() += 1;
        self.is_leaving = false;
        match self.logged {
            LoggedState::Settling | LoggedState::Linked => false,
            LoggedState::Nothing | LoggedState::Lost | LoggedState::Missed => {
                self.logged = LoggedState::Settling;
                true
            }
        }
    }

    /// Returns hubs and number of links of a proxy that is to be logged.
    fn settled(&mut self) -> Option<(String, usize)> {
        if self.logged != LoggedState::Settling || self.open.is_empty() {
            return None;
        }
        self.logged = LoggedState::Linked;
        let shown: Vec<_> = self.open.keys().take(HUBS_SHOWN_MAX).map(|hub| &**hub).collect();
        let more = self.open.len() - shown.len();
        let shown = shown.join(", ");
        let hubs = if more == 0 { shown } else { format!("{shown} and {more} more") };
        Some((hubs, self.open.values().sum()))
    }

    /// Records the end of a link. For the last link, returns how it ended if this is to be logged.
    fn ended(&mut self, hub: &Arc<str>, ending: LinkEnding) -> Option<LinkEnding> {
        if let Some(count) = self.open.get_mut(hub) {
            *count = count.saturating_sub(1);
        }
        self.open.retain(|_, count| *count > 0);
        self.is_leaving |= ending == LinkEnding::Closed;
        if !self.open.is_empty() {
            return None;
        }
        let before =
            std::mem::replace(&mut self.logged, if self.is_leaving { LoggedState::Nothing } else { LoggedState::Lost });
        let last = if self.is_leaving { LinkEnding::Closed } else { LinkEnding::Lost };
        (before == LoggedState::Linked || last == LinkEnding::Lost).then_some(last)
    }

    /// Records the end of a session. Returns `true` for the first one that has lost connections since the link.
    fn session_over(&mut self, ending: LinkEnding) -> bool {
        self.sessions = self.sessions.saturating_sub(1);
        let is_news = ending == LinkEnding::Lost && self.logged != LoggedState::Missed;
        if is_news {
            self.logged = LoggedState::Missed;
        }
        is_news
    }
}

fn name_of(key: &SlotKey, service: Option<&Arc<str>>) -> ProxyName {
    service.map_or_else(|| (Arc::clone(&key.node), Arc::clone(&key.boot)), |service| (Arc::clone(service), "".into()))
}

/// Error text for the app when connections are lost with their link.
const LOST: &str = "The link to the proxy was lost.";

pub(super) fn is_planned(end: &LinkEnd) -> bool {
    matches!(end, LinkEnd::Closed | LinkEnd::Goodbye(_) | LinkEnd::Shutdown)
}

/// Returns the close for `on_disconnected` if the session ends with this link. A planned stop is no error.
pub(super) fn end_of_connections(end: &LinkEnd) -> ConnectionClose {
    match end {
        LinkEnd::Shutdown => ConnectionClose::new(Cause::AppStopped),
        LinkEnd::Goodbye(_) => ConnectionClose::with_error(Cause::Drained, LOST),
        _ => ConnectionClose::with_error(Cause::LinkLost, LOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linked(hubs: &[&str], links: usize) -> ProxyLinks {
        let mut proxy = ProxyLinks::default();
        let opened = |hub: &&str| {
            let hub = (*hub).into();
            (0..links).filter(|_| proxy.opened(&hub)).count()
        };
        assert_eq!(hubs.iter().map(opened).sum::<usize>(), 1, "one line for all links");
        proxy.sessions = hubs.len() * links;
        assert_eq!(proxy.settled(), Some((hubs.join(", "), hubs.len() * links)));
        assert_eq!(proxy.settled(), None);
        proxy
    }

    /// Ends `links` links of a hub. Returns what is logged.
    fn end(proxy: &mut ProxyLinks, hub: &str, links: usize, ending: LinkEnding) -> Vec<LinkEnding> {
        (0..links).filter_map(|_| proxy.ended(&hub.into(), ending)).collect()
    }

    #[test]
    fn a_goodbye_is_one_line() {
        let mut proxy = linked(&["auction", "chat"], 5);
        assert_eq!(end(&mut proxy, "auction", 5, LinkEnding::Closed), []);
        assert_eq!(end(&mut proxy, "chat", 5, LinkEnding::Closed), [LinkEnding::Closed]);
        assert_eq!((0..10).filter(|_| proxy.session_over(LinkEnding::Closed)).count(), 0);
        assert_eq!(proxy.sessions, 0);
    }

    #[test]
    fn the_last_lost_link_is_logged_and_so_is_its_end_once() {
        let mut proxy = linked(&["chat"], 5);
        assert_eq!(end(&mut proxy, "chat", 4, LinkEnding::Lost), []);
        assert_eq!(end(&mut proxy, "chat", 1, LinkEnding::Lost), [LinkEnding::Lost]);
        assert_eq!((0..5).filter(|_| proxy.session_over(LinkEnding::Lost)).count(), 1);
        assert!(proxy.opened(&"chat".into()), "it is back");
        assert!(proxy.settled().is_some());
    }

    #[test]
    fn a_link_lost_among_others_is_logged_only_when_it_ends() {
        let mut proxy = linked(&["chat"], 5);
        for _ in 0..100 {
            assert_eq!(end(&mut proxy, "chat", 1, LinkEnding::Lost), []);
            assert!(!proxy.opened(&"chat".into()));
        }
        assert_eq!(end(&mut proxy, "chat", 1, LinkEnding::Lost), []);
        assert!(proxy.session_over(LinkEnding::Lost));
        assert!(!proxy.session_over(LinkEnding::Lost));
    }
}
