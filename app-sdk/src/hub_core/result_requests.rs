//! Pending client results, requested by a local method or by another app server.
//!
//! ```text
//!  local client ──────────────── request ──────────────────────────────► its completion
//!  remote client ─────────────── request to every proxy ──┬────────────► 35: its completion, through its app server
//!                                                         └────────────► 36: from all proxies: it does not exist
//!  requested by another app server ── its completion ──► 35 to the requester; its close ──► 36
//! ```

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::oneshot;
use tokio::time::Instant;
use trunkline_protocol::hub::{HubProtocol, Outcome};
use trunkline_protocol::limits::FOREIGN_QUESTION_TIMEOUT_MS;
use trunkline_protocol::service::ClientInvocation;

use crate::connection::Limits;
use crate::node::Node;

/// Prefix of our invocation IDs; a client's stream IDs are numbers. The app server's instance and a number follow, so
/// IDs are unique across app servers.
pub(super) const ID_PREFIX: &str = "s";

/// Client result requests of one hub. Pure logic: the caller does the locking.
#[derive(Debug)]
pub(crate) struct ClientResults {
    id_prefix: String,
    latest: u64,
    by_id: HashMap<ByteString, ResultRequest>,
    /// Open requests, as pairs of connection ID and request ID.
    of_connections: BTreeSet<(ByteString, ByteString)>,
    /// Requests of other app servers, oldest first. Some may be answered already.
    foreign: VecDeque<(Instant, ByteString)>,
    max: usize,
    timeout: Duration,
}

#[derive(Debug)]
struct ResultRequest {
    connection_id: ByteString,
    requester: Requester,
}

#[derive(Debug)]
enum Requester {
    /// A local method, with the proxies that may still have the client, if it is remote.
    Local { sender: oneshot::Sender<ClientResult>, asked: Vec<Arc<Node>> },
    /// Another app server, by ID.
    AppServer { id: ByteString, since: Instant },
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientResult {
    Completed(HubProtocol, Outcome),
    DoesNotExist,
    Disconnected,
    /// The client's app server is stopping and can no longer wait.
    Leaving,
    /// The client's app server refuses the request, with this error.
    Refused(ByteString),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoResultReason {
    Disconnected,
    /// This app server is stopping; the client continues elsewhere.
    Leaving,
}

impl NoResultReason {
    fn result(self) -> ClientResult {
        match self {
            Self::Disconnected => ClientResult::Disconnected,
            Self::Leaving => ClientResult::Leaving,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Addressee {
    Local(oneshot::Sender<ClientResult>),
    AppServer(ByteString),
    /// No addressee: the completion is late, or there was no request.
    Unknown,
    /// No addressee: the request was sent to a different client.
    WrongClient,
}

/// A request of another app server that will not be answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AbandonedRequest {
    pub(crate) id: ByteString,
    pub(crate) app_server: ByteString,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyRequests;

/// A registered request: its ID and the receiver of its result.
pub(super) type Registered = (ByteString, oneshot::Receiver<ClientResult>);

impl ClientResults {
    pub(super) fn new(instance: &str, limits: &Limits) -> Self {
        let id_prefix = format!("{ID_PREFIX}{instance}-");
        let (by_id, of_connections, foreign) = (HashMap::new(), BTreeSet::new(), VecDeque::new());
        let (max, timeout) = (limits.client_results_max, limits.client_result_timeout);
        Self { id_prefix, latest: 0, by_id, of_connections, foreign, max, timeout }
    }

    /// Registers a request to a local client, or to a client that the requested proxies may have. Its ID is unique in
    /// the fleet, so that the next app server of a reassigned client cannot mistake the result for its own.
    pub(super) fn request(
        &mut self,
        connection_id: &ByteString,
        asked: Vec<Arc<Node>>,
    ) -> Result<Registered, TooManyRequests> {
        self.latest += 1;
        let id = ByteString::from(format!("{}{}", self.id_prefix, self.latest));
        let (sender, receiver) = oneshot::channel();
        let requester = Requester::Local { sender, asked };
        self.insert(id.clone(), ResultRequest { connection_id: connection_id.clone(), requester })?;
        Ok((id, receiver))
    }

    /// Registers another app server's request to a local client.
    pub(super) fn request_for(&mut self, request: &ClientInvocation, now: Instant) -> Result<(), TooManyRequests> {
        let ClientInvocation { invocation_id, connection_id, caller_server_id, .. } = request;
        self.evict_expired(now);
        self.foreign.push_back((now, invocation_id.clone()));
        let requester = Requester::AppServer { id: caller_server_id.clone(), since: now };
        self.insert(invocation_id.clone(), ResultRequest { connection_id: connection_id.clone(), requester })
    }

    pub(crate) fn complete(&mut self, id: &str, connection_id: &str) -> Addressee {
        match self.by_id.get(id) {
            None => return Addressee::Unknown,
            Some(request) if request.connection_id != connection_id => return Addressee::WrongClient,
            Some(_) => {}
        }
        match self.remove(id).map(|request| request.requester) {
            Some(Requester::Local { sender, .. }) => Addressee::Local(sender),
            Some(Requester::AppServer { id, .. }) => Addressee::AppServer(id),
            None => Addressee::Unknown,
        }
    }

    /// Records that a proxy does not have the client. If none of the requested proxies does, it does not exist.
    pub(crate) fn deny(&mut self, id: &str, node: &Arc<Node>) {
        self.remove_asked(id, node, ClientResult::DoesNotExist);
    }

    /// Fails a request of a local method, because the client's app server reports that there will be no result.
    pub(crate) fn refuse(&mut self, id: &str, connection_id: &str, refusal: ClientResult) {
        let is_local = |request: &ResultRequest| {
            request.connection_id == connection_id && matches!(request.requester, Requester::Local { .. })
        };
        if self.by_id.get(id).is_some_and(is_local)
            && let Some(ResultRequest { requester: Requester::Local { sender, .. }, .. }) = self.remove(id)
        {
            let _ = sender.send(refusal);
        }
    }

    /// Fails the requests to a connection that can't send results here. Returns the requests of other app servers.
    pub(crate) fn fail_connection(&mut self, connection_id: &str, reason: NoResultReason) -> Vec<AbandonedRequest> {
        let ids: Vec<_> = self.of_connection(connection_id).cloned().collect();
        let mut abandoned = Vec::new();
        for id in ids {
            match self.remove(&id).map(|request| request.requester) {
                Some(Requester::Local { sender, .. }) => drop(sender.send(reason.result())),
                Some(Requester::AppServer { id: app_server, .. }) => {
                    abandoned.push(AbandonedRequest { id, app_server })
                }
                None => {}
            }
        }
        abandoned
    }

    /// Whether a result of this connection is pending. Requests of other app servers count for the time limit of a
    /// client result.
    pub(super) fn has_pending_result(&self, connection_id: &str, now: Instant) -> bool {
        let mut requests = self.of_connection(connection_id).filter_map(|id| self.by_id.get(id));
        requests.any(|request| match &request.requester {
            Requester::Local { .. } => true,
            Requester::AppServer { since, .. } => now.duration_since(*since) < self.timeout,
        })
    }

    /// Returns the other app server that created this request ID and waits for the result.
    pub(crate) fn requester_of<'a>(&self, id: &'a str) -> Option<&'a str> {
        let (instance, number) = id.strip_prefix(ID_PREFIX)?.rsplit_once('-')?;
        let is_number = number.parse::<u64>().is_ok();
        (is_number && !instance.is_empty() && !id.starts_with(&self.id_prefix)).then_some(instance)
    }

    fn of_connection<'a>(&'a self, connection_id: &'a str) -> impl Iterator<Item = &'a ByteString> {
        let first = (ByteString::from(connection_id), ByteString::new());
        let from = self.of_connections.range(first..);
        from.take_while(move |(connection, _)| connection == connection_id).map(|(_, id)| id)
    }

    /// Fails the requests to a proxy that has no links left: if it had the client, the client is lost.
    pub(super) fn fail_node(&mut self, node: &Arc<Node>) {
        let ids: Vec<_> = self.by_id.keys().cloned().collect();
        ids.iter().for_each(|id| self.remove_asked(id, node, ClientResult::Disconnected));
    }

    pub(super) fn forget(&mut self, id: &str) {
        self.remove(id);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert_eq!(self.by_id.len(), self.of_connections.len());
        self.by_id.len()
    }

    fn insert(&mut self, id: ByteString, request: ResultRequest) -> Result<(), TooManyRequests> {
        if self.by_id.len() >= self.max {
            return Err(TooManyRequests);
        }
        self.of_connections.insert((request.connection_id.clone(), id.clone()));
        if let Some(before) = self.by_id.insert(id.clone(), request)
            && self.by_id.get(&id).is_some_and(|now| now.connection_id != before.connection_id)
        {
            self.of_connections.remove(&(before.connection_id, id));
        }
        Ok(())
    }

    fn remove(&mut self, id: &str) -> Option<ResultRequest> {
        let (id, request) = self.by_id.remove_entry(id)?;
        let pair = (request.connection_id, id);
        self.of_connections.remove(&pair);
        Some(ResultRequest { connection_id: pair.0, requester: request.requester })
    }

    /// Removes a proxy from a request. The request fails when no proxy is left.
    fn remove_asked(&mut self, id: &str, node: &Arc<Node>, last: ClientResult) {
        let Some(ResultRequest { requester: Requester::Local { asked, .. }, .. }) = self.by_id.get_mut(id) else {
            return;
        };
        let before = asked.len();
        asked.retain(|other| !Arc::ptr_eq(other, node));
        if asked.is_empty()
            && before > 0
            && let Some(ResultRequest { requester: Requester::Local { sender, .. }, .. }) = self.remove(id)
        {
            let _ = sender.send(last);
        }
    }

    /// Removes old requests of other app servers, which have long timed out: the client may never answer.
    fn evict_expired(&mut self, now: Instant) {
        let timeout = Duration::from_millis(FOREIGN_QUESTION_TIMEOUT_MS);
        while let Some((_, id)) = self.foreign.pop_front_if(|(since, _)| now.duration_since(*since) >= timeout) {
            if let Some(ResultRequest { requester: Requester::AppServer { .. }, .. }) = self.by_id.get(&id) {
                self.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::service::Capabilities;

    use super::*;

    const MAX: usize = 3;

    fn text(text: &'static str) -> ByteString {
        ByteString::from_static(text)
    }

    fn results_of(instance: &str) -> ClientResults {
        ClientResults::new(instance, &Limits { client_results_max: MAX, ..Limits::default() })
    }

    /// Request of another app server to the client `c1`.
    fn foreign(id: &'static str) -> ClientInvocation {
        let (invocation_id, connection_id, caller_server_id) = (text(id), text("c1"), text("other"));
        ClientInvocation { invocation_id, connection_id, caller_server_id, ..ClientInvocation::default() }
    }

    fn node(name: &str) -> Arc<Node> {
        Arc::new(Node::new(crate::node::NodeName::proxy(name, "boot"), Capabilities::plain()))
    }

    fn result(receiver: &mut oneshot::Receiver<ClientResult>) -> Option<ClientResult> {
        receiver.try_recv().ok()
    }

    /// Two proxies, and a request to a client that either of them may have.
    fn remote() -> (ClientResults, [Arc<Node>; 2], Registered) {
        let (mut results, nodes) = (results_of("me"), [node("a"), node("b")]);
        let registered = results.request(&text("c1"), nodes.to_vec()).unwrap();
        (results, nodes, registered)
    }

    #[test]
    fn only_the_first_completion_reaches_the_requester() {
        let mut results = results_of("me");
        let (id, _) = results.request(&text("c1"), Vec::new()).unwrap();
        assert_eq!(id, "sme-1");
        assert!(matches!(results.complete("sme-1", "c1"), Addressee::Local(_)));
        assert!(matches!(results.complete("sme-1", "c1"), Addressee::Unknown));
        assert_eq!(results.len(), 0);
    }

    #[test]
    fn only_the_requested_client_may_answer() {
        let mut results = results_of("me");
        let (_, mut receiver) = results.request(&text("c1"), Vec::new()).unwrap();
        assert!(matches!(results.complete("sme-1", "c2"), Addressee::WrongClient));
        assert_eq!(result(&mut receiver), None);
    }

    #[test]
    fn an_id_is_unique_and_names_the_requesting_app_server() {
        let (mut mine, mut theirs) = (results_of("me"), results_of("an-other"));
        let (my_id, _) = mine.request(&text("c1"), Vec::new()).unwrap();
        let (their_id, _) = theirs.request(&text("c1"), Vec::new()).unwrap();
        assert!(matches!(mine.complete(&their_id, "c1"), Addressee::Unknown));
        assert_eq!((mine.requester_of(&their_id), theirs.requester_of(&my_id)), (Some("an-other"), Some("me")));
        for own_or_of_a_stream in [&*my_id, "sme-99", "1", "s1", "s-1", "sother-x", ""] {
            assert_eq!(mine.requester_of(own_or_of_a_stream), None, "{own_or_of_a_stream}");
        }
    }

    #[test]
    fn a_result_is_pending_until_the_last_request_ends_or_expires() {
        let (mut results, start) = (results_of("me"), Instant::now());
        let timeout = results.timeout;
        let (id, _) = results.request(&text("c1"), Vec::new()).unwrap();
        results.request_for(&foreign("sother-7"), start).unwrap();
        assert!(results.has_pending_result("c1", start + timeout) && !results.has_pending_result("c", start));
        results.forget(&id);
        assert!(results.has_pending_result("c1", start) && !results.has_pending_result("c1", start + timeout));
        let (_, mut receiver) = results.request(&text("c1"), Vec::new()).unwrap();
        assert_eq!(results.fail_connection("c1", NoResultReason::Leaving).len(), 1);
        assert_eq!(result(&mut receiver), Some(ClientResult::Leaving));
        assert!(!results.has_pending_result("c1", start));
    }

    #[test]
    fn a_client_does_not_exist_if_every_proxy_denies_it() {
        let (mut results, [a, b], (id, mut receiver)) = remote();
        assert_eq!(id, "sme-1");
        results.deny(&id, &a);
        results.deny(&id, &a);
        assert_eq!(result(&mut receiver), None);
        results.deny(&id, &b);
        assert_eq!(result(&mut receiver), Some(ClientResult::DoesNotExist));
    }

    #[test]
    fn a_proxy_that_is_lost_may_have_had_the_client() {
        let (mut results, [a, b], (id, mut receiver)) = remote();
        results.deny(&id, &a);
        results.fail_node(&b);
        assert_eq!(result(&mut receiver), Some(ClientResult::Disconnected));
    }

    #[test]
    fn a_closed_connection_fails_its_requests_and_no_others() {
        let mut results = results_of("me");
        let (_, mut of_it) = results.request(&text("c1"), Vec::new()).unwrap();
        let (_, mut of_another) = results.request(&text("c10"), Vec::new()).unwrap();
        results.request_for(&foreign("other-7"), Instant::now()).unwrap();
        let abandoned = results.fail_connection("c1", NoResultReason::Disconnected);
        assert_eq!(abandoned, [AbandonedRequest { id: text("other-7"), app_server: text("other") }]);
        assert_eq!(result(&mut of_it), Some(ClientResult::Disconnected));
        assert_eq!(result(&mut of_another), None);
    }

    #[test]
    fn a_completion_goes_to_the_app_server_that_requested_it() {
        let mut results = results_of("me");
        results.request_for(&foreign("other-7"), Instant::now()).unwrap();
        assert!(matches!(results.complete("other-7", "c1"), Addressee::AppServer(server) if server == "other"));
        assert_eq!(results.len(), 0);
    }

    #[test]
    fn old_requests_of_other_app_servers_are_evicted() {
        let (mut results, start) = (results_of("me"), Instant::now());
        let mut request = |id, now| results.request_for(&foreign(id), now);
        for id in ["other-1", "other-4", "other-5"] {
            request(id, start).unwrap();
        }
        assert_eq!(request("other-2", start), Err(TooManyRequests));
        request("other-3", start + Duration::from_millis(FOREIGN_QUESTION_TIMEOUT_MS)).unwrap();
        assert_eq!(results.len(), 1);
    }

    #[test]
    fn open_requests_are_bounded() {
        let mut results = results_of("me");
        let ids: Vec<_> = (0..MAX).map(|_| results.request(&text("c1"), Vec::new()).unwrap().0).collect();
        assert_eq!(results.request(&text("c1"), Vec::new()).unwrap_err(), TooManyRequests);
        results.forget(&ids[0]);
        assert!(results.request(&text("c1"), Vec::new()).is_ok());
    }
}
