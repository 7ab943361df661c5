//! Lost clients: state of connections that ended without a close, kept until the client returns or the time expires.
//!
//! ```text
//!  ends without a close ──► ending ──on_disconnected has run──► kept ─┬─ its client returns ──► taken, once
//!                                                                     └─ timeout, limit ────► dropped
//! ```
//!
//! Pure logic: the caller does the locking, and time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytestring::ByteString;
use http::Extensions;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::cause::Cause;

/// Maximum number of lost clients per hub; the oldest are dropped first. Several large nodes may crash together.
const CLIENTS_MAX: usize = 65_536;

/// Maximum total size of their group names. Items belong to the app, and their size is unknown.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct LostClient {
    pub(crate) cause: Cause,
    /// Time from which it may have missed messages, or earlier.
    pub(crate) lost_at: Instant,
    pub(crate) user_id: Option<Box<str>>,
    pub(crate) groups: Vec<ByteString>,
    pub(crate) items: Extensions,
}

#[derive(Debug)]
pub(crate) struct LostClients {
    kept_for: Duration,
    clients: HashMap<ByteString, LostState>,
    /// Expiry times, oldest first. Some of the clients may have been taken since.
    order: VecDeque<(Instant, ByteString)>,
    group_bytes: usize,
}

#[derive(Debug)]
enum LostState {
    /// Its `on_disconnected` is still running. The token is cancelled when it has finished.
    Ending(CancellationToken, Box<LostClient>),
    Kept(Box<LostClient>),
}

#[derive(Debug)]
pub(crate) enum FoundLost {
    Taken(Box<LostClient>),
    /// Retry when this token is cancelled.
    Ending(CancellationToken),
    Nothing,
}

/// Whether a connection closed with this cause counts as lost: neither the client nor the app closed it.
pub(super) fn is_loss(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::SocketEnded
            | Cause::SocketReset
            | Cause::TlsFailed
            | Cause::PollsStopped
            | Cause::KeepAliveTimeout
            | Cause::LinkLost
            | Cause::Drained
            | Cause::Rebalanced
            | Cause::Restored
    )
}

impl LostClient {
    /// Creates an entry for a connection lost at this time. Its state is added later.
    pub(crate) fn new(cause: Cause, lost_at: Instant, user_id: Option<&str>) -> Self {
        let (groups, items) = (Vec::new(), Extensions::new());
        Self { cause, lost_at, user_id: user_id.map(Box::from), groups, items }
    }

    fn group_bytes(&self) -> usize {
        self.groups.iter().map(|group| group.len()).sum()
    }
}

impl LostClients {
    pub(crate) fn new(kept_for: Duration) -> Self {
        Self { kept_for, clients: HashMap::new(), order: VecDeque::new(), group_bytes: 0 }
    }

    pub(crate) fn begin(&mut self, id: ByteString, lost: LostClient) {
        // A connection with this ID was lost before and had been restored.
        if self.remove(&id).is_some() {
            self.order.retain(|(_, kept)| *kept != id);
        }
        self.clients.insert(id, LostState::Ending(CancellationToken::new(), Box::new(lost)));
    }

    /// Whether the end of this connection was recorded but has not been completed.
    pub(crate) fn is_ending(&self, id: &str) -> bool {
        matches!(self.clients.get(id), Some(LostState::Ending(..)))
    }

    /// Stores groups and items of a recorded client, if any. Returns how many other clients were dropped for it.
    pub(crate) fn end(&mut self, id: &str, had: Option<(Vec<ByteString>, Extensions)>, now: Instant) -> usize {
        self.drop_old(now);
        if !self.is_ending(id) {
            return 0;
        }
        let Some((id, LostState::Ending(ended, mut lost))) = self.clients.remove_entry(id) else { return 0 };
        if let Some((groups, items)) = had {
            (lost.groups, lost.items) = (groups, items);
            self.group_bytes += lost.group_bytes();
            self.order.push_back((now + self.kept_for, id.clone()));
            self.clients.insert(id, LostState::Kept(lost));
        }
        ended.cancel();
        self.drop_surplus()
    }

    /// Number of entries that have not expired, including entries already taken.
    pub(crate) fn waiting(&self) -> usize {
        self.order.len()
    }

    /// Whether state of this connection is stored, or about to be, for a client with this user.
    pub(crate) fn contains(&mut self, id: &str, user_id: Option<&str>, now: Instant) -> bool {
        self.drop_old(now);
        let lost = match self.clients.get(id) {
            Some(LostState::Ending(_, lost) | LostState::Kept(lost)) => lost,
            None => return false,
        };
        lost.user_id.as_deref() == user_id
    }

    /// Takes the state of this connection for a client with this user.
    pub(crate) fn take(&mut self, id: &str, user_id: Option<&str>, now: Instant) -> FoundLost {
        self.drop_old(now);
        match self.clients.get(id) {
            Some(LostState::Ending(ended, _)) => return FoundLost::Ending(ended.clone()),
            Some(LostState::Kept(lost)) if lost.user_id.as_deref() == user_id => {}
            Some(LostState::Kept(_)) | None => return FoundLost::Nothing,
        }
        self.remove(id).map_or(FoundLost::Nothing, FoundLost::Taken)
    }

    /// Drops expired entries. Returns when to call this again.
    pub(crate) fn drop_old(&mut self, now: Instant) -> Option<Instant> {
        while let Some((until, id)) = self.order.front() {
            if *until > now {
                return Some(*until);
            }
            let id = id.clone();
            self.order.pop_front();
            self.remove(&id);
        }
        None
    }

    fn drop_surplus(&mut self) -> usize {
        let mut dropped = 0;
        while self.order.len() > CLIENTS_MAX || self.group_bytes > GROUP_BYTES_MAX {
            let Some((_, id)) = self.order.pop_front() else { break };
            dropped += usize::from(self.remove(&id).is_some());
        }
        dropped
    }

    fn remove(&mut self, id: &str) -> Option<Box<LostClient>> {
        match self.clients.get(id) {
            Some(LostState::Kept(_)) => {}
            Some(LostState::Ending(..)) | None => return None,
        }
        let Some(LostState::Kept(lost)) = self.clients.remove(id) else { return None };
        self.group_bytes -= lost.group_bytes();
        Some(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT_FOR: Duration = Duration::from_secs(60);

    fn begin(clients: &mut LostClients, id: &str) {
        clients.begin(id.into(), LostClient::new(Cause::LinkLost, Instant::now(), None));
    }

    fn end(clients: &mut LostClients, id: &str, groups: &[&str], now: Instant) -> usize {
        let groups = groups.iter().map(|group| ByteString::from(*group)).collect();
        clients.end(id, Some((groups, Extensions::new())), now)
    }

    fn keep(clients: &mut LostClients, id: &str, groups: &[&str], now: Instant) -> usize {
        begin(clients, id);
        end(clients, id, groups, now)
    }

    #[test]
    fn a_client_that_is_lost_again_under_its_id_is_kept_once() {
        let (mut clients, now) = (LostClients::new(KEPT_FOR), Instant::now());
        for _ in 0..3 {
            keep(&mut clients, "ann", &["red", "blue"], now);
        }
        assert_eq!((clients.waiting(), clients.group_bytes), (1, 7));
        begin(&mut clients, "ann");
        assert_eq!((clients.waiting(), clients.group_bytes), (0, 0), "until it has ended");
    }

    #[test]
    fn the_state_of_a_client_is_taken_once_and_by_its_user() {
        let (mut clients, now) = (LostClients::new(KEPT_FOR), Instant::now());
        keep(&mut clients, "a", &["red"], now);
        assert!(matches!(clients.take("a", Some("ann"), now), FoundLost::Nothing));
        assert!(clients.contains("a", None, now) && !clients.contains("a", Some("ann"), now));
        let FoundLost::Taken(taken) = clients.take("a", None, now) else { panic!("it is kept") };
        assert_eq!(taken.groups, ["red"]);
        assert!(matches!(clients.take("a", None, now), FoundLost::Nothing));
        assert!(!clients.contains("a", None, now));
        assert_eq!(clients.group_bytes, 0);
    }

    #[test]
    fn a_connection_that_is_ending_is_waited_for() {
        let (mut clients, now) = (LostClients::new(KEPT_FOR), Instant::now());
        begin(&mut clients, "a");
        assert!(clients.contains("a", None, now));
        let FoundLost::Ending(ended) = clients.take("a", None, now) else { panic!("it is ending") };
        assert!(!ended.is_cancelled());
        end(&mut clients, "a", &[], now);
        assert!(ended.is_cancelled());
        assert!(matches!(clients.take("a", None, now), FoundLost::Taken(_)));
        begin(&mut clients, "b");
        clients.end("b", None, now);
        assert!(!clients.contains("b", None, now), "it never was open");
        assert_eq!(end(&mut clients, "c", &[], now), 0);
        assert!(!clients.contains("c", None, now), "it said goodbye");
    }

    #[test]
    fn the_time_of_each_client_ends() {
        let (mut clients, now) = (LostClients::new(KEPT_FOR), Instant::now());
        keep(&mut clients, "a", &["red"], now);
        keep(&mut clients, "b", &["red"], now + KEPT_FOR / 2);
        assert!(clients.contains("a", None, now + KEPT_FOR - Duration::from_millis(1)));
        assert_eq!(clients.drop_old(now + KEPT_FOR), Some(now + KEPT_FOR * 3 / 2));
        assert!(matches!(clients.take("a", None, now + KEPT_FOR), FoundLost::Nothing));
        assert!(clients.contains("b", None, now + KEPT_FOR));
        assert_eq!(clients.drop_old(now + KEPT_FOR * 2), None);
        assert!(clients.clients.is_empty() && clients.group_bytes == 0);
    }

    #[test]
    fn the_oldest_are_dropped_first_when_there_are_too_many() {
        let (mut clients, now) = (LostClients::new(KEPT_FOR), Instant::now());
        let dropped: usize = (0..CLIENTS_MAX).map(|id| keep(&mut clients, &id.to_string(), &[], now)).sum();
        assert_eq!(dropped, 0);
        assert_eq!(keep(&mut clients, "one more", &[], now), 1);
        assert!(
            !clients.contains("0", None, now)
                && clients.contains("1", None, now)
                && clients.contains("one more", None, now)
        );
    }

    #[test]
    fn the_names_of_groups_have_a_bound_together() {
        let (mut clients, now) = (LostClients::new(KEPT_FOR), Instant::now());
        let long = "x".repeat(GROUP_BYTES_MAX / 2);
        let dropped = ["a", "b", "c"].map(|id| keep(&mut clients, id, &[&long], now));
        assert_eq!(dropped, [0, 0, 1]);
        assert!(!clients.contains("a", None, now) && clients.contains("b", None, now));
    }

    #[test]
    fn a_goodbye_of_the_client_or_the_app_is_no_loss() {
        for cause in [Cause::ClientClosed, Cause::AppClosed, Cause::Operator, Cause::TokenExpired, Cause::AppError] {
            assert!(!is_loss(cause), "{cause}");
        }
    }
}
