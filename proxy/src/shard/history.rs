//! History of client connections that were closed or refused: the last of each shard, for some minutes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trunkline_protocol::cause::Cause;
use trunkline_protocol::id::ID_CHARS;
use trunkline_protocol::manifest::{REMOTE_HEADER, Transport, USER_ID_CLAIM};
use trunkline_protocol::service::OpenConnection;

use crate::clock::unix_ms;
use crate::metrics::ClientProtocol;

/// Time for which a close is remembered.
pub(crate) const REMEMBERED_MS: u64 = 10 * 60 * 1000;

/// Maximum number of closes that a node remembers: some megabytes.
const REMEMBERED_MAX: usize = 16 * 1024;

/// Length to which texts of clients and app servers are cut.
const TEXT_MAX_BYTES: usize = 512;

/// Client connection that was closed, or refused.
#[derive(Debug, Clone)]
pub(crate) struct PastConnection {
    /// First part of its id; the rest may be secret.
    pub id: Box<str>,
    /// Hub; `None` when it was refused before that was known.
    pub hub: Option<Box<str>>,
    pub cause: Cause,
    /// Detail for people, such as the rule that was broken.
    pub detail: Option<Box<str>>,
    pub transport: Option<Transport>,
    /// Hub protocol; `None` before its hub handshake.
    pub speech: Option<ClientProtocol>,
    pub user: Option<Box<str>>,
    /// Address that the client connected from.
    pub remote: Option<Box<str>>,
    pub user_agent: Option<Box<str>>,
    /// Instance id of its app server.
    pub app_server: Option<Arc<str>>,
    /// Time at which it opened, in milliseconds since 1970; `None` if it never did.
    pub opened_ms: Option<u64>,
    pub closed_ms: u64,
}

/// History of one shard.
#[derive(Debug)]
pub(crate) struct History {
    most: usize,
    ring: Mutex<HistoryRing>,
}

#[derive(Debug, Default)]
struct HistoryRing {
    in_order: VecDeque<Arc<PastConnection>>,
    by_id: HashMap<Box<str>, Arc<PastConnection>>,
}

impl PastConnection {
    /// Record of a connection that closes now.
    #[must_use]
    pub(crate) fn new(id: &str, cause: Cause, detail: Option<&str>) -> Self {
        Self {
            id: short(id).into(),
            hub: None,
            cause,
            detail: detail.map(cut_text),
            transport: None,
            speech: None,
            user: None,
            remote: None,
            user_agent: None,
            app_server: None,
            opened_ms: None,
            closed_ms: unix_ms(),
        }
    }

    /// Adds what the opening frame tells of the client.
    #[must_use]
    pub(crate) fn of(self, open: &OpenConnection) -> Self {
        let header = |wanted: &str| {
            let (_, values) = open.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
            values.first().map(|value| cut_text(value))
        };
        let user = open.claims.iter().find(|(name, _)| name == USER_ID_CLAIM).map(|(_, user)| cut_text(user));
        Self { user, remote: header(REMOTE_HEADER), user_agent: header("user-agent"), ..self }
    }
}

impl History {
    /// History of one of several shards, which share the room of their node.
    #[must_use]
    pub(crate) fn new(shards: usize) -> Self {
        Self { most: (REMEMBERED_MAX / shards.max(1)).max(1), ring: Mutex::default() }
    }

    /// Remembers a close; the oldest goes.
    pub(super) fn remember(&self, past: PastConnection) {
        let mut ring = self.ring();
        ring.forget_before(past.closed_ms.saturating_sub(REMEMBERED_MS), self.most - 1);
        let past = Arc::new(past);
        ring.by_id.insert(past.id.clone(), Arc::clone(&past));
        ring.in_order.push_back(past);
    }

    /// Last close of this id, unless it is too long ago.
    pub(super) fn find(&self, id: &str) -> Option<Arc<PastConnection>> {
        let since = unix_ms().saturating_sub(REMEMBERED_MS);
        self.ring().by_id.get(short(id)).filter(|past| past.closed_ms >= since).cloned()
    }

    // An append or a look-up under the lock; no code panics there.
    fn ring(&self) -> MutexGuard<'_, HistoryRing> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HistoryRing {
    fn forget_before(&mut self, closed_ms: u64, most: usize) {
        while self.in_order.len() > most || self.in_order.front().is_some_and(|past| past.closed_ms < closed_ms) {
            let Some(oldest) = self.in_order.pop_front() else { return };
            if self.by_id.get(&oldest.id).is_some_and(|present| Arc::ptr_eq(present, &oldest)) {
                self.by_id.remove(&oldest.id);
            }
        }
    }
}

/// First part of a connection id, which may be shown: in negotiate version 0 the whole of it is a secret.
#[must_use]
pub(crate) fn short(id: &str) -> &str {
    id.get(..ID_CHARS).unwrap_or(id)
}

/// Text, cut to the length that is kept.
fn cut_text(text: &str) -> Box<str> {
    let end = text.floor_char_boundary(TEXT_MAX_BYTES);
    text.get(..end).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(id: &str, cause: Cause, closed_ms: u64) -> PastConnection {
        PastConnection { closed_ms, ..PastConnection::new(id, cause, None) }
    }

    #[test]
    fn the_last_close_of_an_id_is_remembered_and_the_oldest_are_forgotten() {
        let (ring, now) = (History { most: 2, ring: Mutex::default() }, unix_ms());
        ring.remember(past("a", Cause::Drained, now));
        ring.remember(past("a", Cause::SlowClient, now));
        assert_eq!(ring.find("a").unwrap().cause, Cause::SlowClient);
        ring.remember(past("b", Cause::Drained, now));
        assert_eq!(ring.find("a").unwrap().cause, Cause::SlowClient, "its older end has gone, and not this one");
        ring.remember(past("c", Cause::Drained, now));
        assert!(ring.find("a").is_none());
        assert!(ring.find("b").is_some() && ring.find("c").is_some());
        let cold = ring.ring();
        assert_eq!((cold.in_order.len(), cold.by_id.len()), (2, 2));
    }

    #[test]
    fn after_some_minutes_a_close_is_forgotten() {
        let (ring, now) = (History::new(1), unix_ms());
        ring.remember(past("old", Cause::Drained, now - REMEMBERED_MS - 1_000));
        assert!(ring.find("old").is_none());
        ring.remember(past("new", Cause::Drained, now));
        assert_eq!(ring.ring().by_id.len(), 1, "and its room is free");
    }

    #[test]
    fn long_ids_and_texts_are_cut_where_a_character_ends() {
        let secret = "x".repeat(ID_CHARS) + "secret";
        assert_eq!(PastConnection::new(&secret, Cause::Drained, None).id.len(), ID_CHARS);
        assert_eq!(cut_text(&"ü".repeat(TEXT_MAX_BYTES)).len(), TEXT_MAX_BYTES);
        assert_eq!(cut_text(&format!("x{}", "ü".repeat(TEXT_MAX_BYTES))).len(), TEXT_MAX_BYTES - 1);
    }
}
