//! Queries for lost clients: which app server of a hub has the state of a lost connection?
//!
//! ```text
//!  new client with proof ──► each app server that restores, once ──► the first yes becomes its home
//!                                                              └─ no, or no answer within a second ──► the usual choice
//! ```

use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::oneshot;
use tokio::time::timeout;
use trunkline_protocol::service::{RestoreAnswer, RestoreQuery, ServiceMessage};

use super::{AppServerId, Hub};
use crate::bounded::{Lease, Leases};

/// Timeout for answers. The client waits for them, and starts without state if they are late.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of clients waiting for answers. Further clients start without state.
const WAITING_MAX: usize = 16_384;

#[derive(Debug, Default)]
pub(crate) struct RestoreQueries(Leases<WaitingQuery>);

#[derive(Debug)]
struct WaitingQuery {
    /// App servers without an answer.
    asked: Vec<AppServerId>,
    found: oneshot::Sender<AppServerId>,
}

impl RestoreQueries {
    /// Finds the app server with the state of a lost connection, for a client with this user. Queries each app server
    /// once.
    pub(crate) async fn find(&self, hub: &Hub, connection_id: &ByteString, user: Option<&str>) -> Option<AppServerId> {
        let pools = hub.pools();
        let links: Vec<_> = pools
            .iter()
            .filter(|pool| pool.restores() && !pool.app().group.is_mirror())
            .filter_map(|pool| pool.choose_home())
            .collect();
        if links.is_empty() {
            return None;
        }
        let (found, answer) = oneshot::channel();
        let query = self.open(WaitingQuery { asked: links.iter().map(|link| link.app()).collect(), found })?;
        let query_id = i64::try_from(query.number()).ok()?;
        for link in links {
            let (connection_id, user_id) = (connection_id.clone(), user.map(ByteString::from));
            link.send(&ServiceMessage::RestoreQuery(RestoreQuery { connection_id, user_id, query_id }));
        }
        timeout(ANSWER_TIMEOUT, answer).await.ok()?.ok()
    }

    fn open(&self, query: WaitingQuery) -> Option<Lease<WaitingQuery>> {
        self.0.take(WAITING_MAX, query)
    }

    /// Handles an app server's answer. Unsolicited and repeated answers are ignored.
    pub(crate) fn answer(&self, app: AppServerId, answer: &RestoreAnswer) {
        let (mut waiting, number) = (self.0.lock(), u64::try_from(answer.query_id).unwrap_or_default());
        let Some(query) = waiting.get_mut(number) else { return };
        let Some(place) = query.asked.iter().position(|asked| *asked == app) else { return };
        query.asked.swap_remove(place);
        if (answer.is_kept || query.asked.is_empty())
            && let Some(query) = waiting.revoke(number)
            && answer.is_kept
        {
            // Fails if the client is gone.
            let _ = query.found.send(app);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn ask(queries: &RestoreQueries, apps: &[u32]) -> (Lease<WaitingQuery>, oneshot::Receiver<AppServerId>) {
        let (found, answer) = oneshot::channel();
        let asked = apps.iter().map(|app| AppServerId::from(*app)).collect();
        (queries.open(WaitingQuery { asked, found }).unwrap(), answer)
    }

    fn answer(queries: &RestoreQueries, app: u32, query: u64, is_kept: bool) {
        let query_id = i64::try_from(query).unwrap();
        queries.answer(AppServerId::from(app), &RestoreAnswer { query_id, is_kept });
    }

    #[test]
    fn the_first_yes_of_an_app_server_that_was_asked_counts() {
        let queries = RestoreQueries::default();
        let (query, mut found) = ask(&queries, &[1, 2]);
        answer(&queries, 3, query.number(), true);
        answer(&queries, 1, query.number() + 1, true);
        answer(&queries, 1, query.number(), false);
        answer(&queries, 1, query.number(), true);
        assert_eq!(found.try_recv(), Err(TryRecvError::Empty));
        answer(&queries, 2, query.number(), true);
        assert_eq!(found.try_recv(), Ok(AppServerId::from(2)));
        assert_eq!(queries.0.lock().len(), 0);
    }

    #[test]
    fn the_wait_ends_when_all_app_servers_have_answered_no() {
        let queries = RestoreQueries::default();
        let (query, mut found) = ask(&queries, &[1]);
        answer(&queries, 1, query.number(), false);
        assert_eq!(found.try_recv(), Err(TryRecvError::Closed));
    }

    #[test]
    fn so_many_clients_wait_and_no_more() {
        let queries = RestoreQueries::default();
        let query = || WaitingQuery { asked: Vec::new(), found: oneshot::channel().0 };
        let open: Vec<_> = (0..WAITING_MAX).map(|_| queries.open(query()).unwrap()).collect();
        assert!(queries.open(query()).is_none());
        drop(open);
        assert!(queries.open(query()).is_some());
    }
}
