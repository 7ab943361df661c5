//! Client results that are awaited: by a method here, or by another app server.
//!
//! ```text
//!  a client that is here ──── the request ───────────────────────────► its completion
//!  one that isn't ─────────── the request to every proxy ──┬─────────► 35: its completion, by way of its app server
//!                                                          └─────────► 36: from all of them: it does not exist
//!  requested by another app server ── its completion ──► 35 to the requester; its close ──► 36
//! ```

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::oneshot;
use tokio::time::Instant;
use trunkline_protocol::hub::{HubProtocol, Outcome};
use trunkline_protocol::limits::FOREIGN_QUESTION_TIMEOUT_MS;

use crate::node::Node;
use crate::sync::lock;

/// Prefix of our invocation ids, so that none is taken for a stream of the client, whose ids are numbers.
const ID_PREFIX: &str = "s";

/// The client result requests of one hub. A pure value; its lock is the caller's.
#[derive(Debug, Default)]
pub(crate) struct ClientResults {
    latest: u64,
    by_id: HashMap<ByteString, ResultRequest>,
    /// Pairs of a connection and a request to it.
    of_connections: BTreeSet<(ByteString, ByteString)>,
    /// Requests of other app servers, oldest first; some of them are answered already.
    foreign: VecDeque<(Instant, ByteString)>,
}

#[derive(Debug)]
struct ResultRequest {
    connection_id: ByteString,
    requester: Requester,
}

#[derive(Debug)]
enum Requester {
    /// A method here; with the proxies that may still have the client, if it isn't here.
    Local { sender: oneshot::Sender<ClientResult>, asked: Vec<Arc<Node>> },
    /// Another app server, by its id.
    AppServer(ByteString),
}

/// Outcome of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientResult {
    /// The client's completion, in its protocol.
    Completed(HubProtocol, Outcome),
    /// No proxy has the client.
    DoesNotExist,
    /// The connection was closed.
    Disconnected,
    /// The client's app server refuses the request, with this error.
    Refused(ByteString),
}

/// Addressee of a client's completion.
#[derive(Debug)]
pub(crate) enum Addressee {
    /// A method here that waits.
    Local(oneshot::Sender<ClientResult>),
    /// Another app server, by its id.
    AppServer(ByteString),
    /// Nobody: the completion is late, or there was no request.
    Nobody,
    /// Nobody: the request was sent to another client.
    WrongClient,
}

/// A request of another app server that will not be answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AbandonedRequest {
    pub(crate) id: ByteString,
    pub(crate) app_server: ByteString,
}

/// The limit of open requests is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyRequests;

/// A client result to come; its request is forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct ExpectedResult<'a> {
    results: &'a Mutex<ClientResults>,
    id: ByteString,
    receiver: oneshot::Receiver<ClientResult>,
}

/// A request that was registered: its id, and where its result arrives.
type Registered = (ByteString, oneshot::Receiver<ClientResult>);

impl ClientResults {
    /// Registers a request to a client that is here.
    pub(super) fn request(&mut self, connection_id: &ByteString, max: usize) -> Result<Registered, TooManyRequests> {
        let id = format!("{ID_PREFIX}{}", self.next_number());
        self.insert_local(id.into(), connection_id, Vec::new(), max)
    }

    /// Registers a request to a client that one of the asked proxies may have. Its id is unique in the fleet.
    pub(super) fn request_remote(
        &mut self,
        connection_id: &ByteString,
        instance: &str,
        asked: Vec<Arc<Node>>,
        max: usize,
    ) -> Result<Registered, TooManyRequests> {
        let id = format!("{instance}-{}", self.next_number());
        self.insert_local(id.into(), connection_id, asked, max)
    }

    /// Registers a request of another app server to a client that is here.
    pub(super) fn request_for(
        &mut self,
        app_server: ByteString,
        id: ByteString,
        connection_id: ByteString,
        max: usize,
        now: Instant,
    ) -> Result<(), TooManyRequests> {
        self.forget_expired(now);
        self.foreign.push_back((now, id.clone()));
        self.insert(id, ResultRequest { connection_id, requester: Requester::AppServer(app_server) }, max)
    }

    /// Takes the request that a client's completion answers.
    pub(super) fn complete(&mut self, id: &str, connection_id: &str) -> Addressee {
        match self.by_id.get(id) {
            None => return Addressee::Nobody,
            Some(request) if request.connection_id != connection_id => return Addressee::WrongClient,
            Some(_) => {}
        }
        match self.remove(id).map(|request| request.requester) {
            Some(Requester::Local { sender, .. }) => Addressee::Local(sender),
            Some(Requester::AppServer(app_server)) => Addressee::AppServer(app_server),
            None => Addressee::Nobody,
        }
    }

    /// Notes that a proxy does not have the client. It does not exist when all asked proxies say so.
    pub(super) fn deny(&mut self, id: &str, node: &Arc<Node>) {
        self.remove_asked(id, node, ClientResult::DoesNotExist);
    }

    /// Fails a request of a method here, because the client's app server says that there will be no result.
    pub(super) fn refuse(&mut self, id: &str, connection_id: &str, refusal: ClientResult) {
        let is_local = |request: &ResultRequest| {
            request.connection_id == connection_id && matches!(request.requester, Requester::Local { .. })
        };
        if self.by_id.get(id).is_some_and(is_local)
            && let Some(ResultRequest { requester: Requester::Local { sender, .. }, .. }) = self.remove(id)
        {
            let _ = sender.send(refusal);
        }
    }

    /// Fails the requests to a connection that is closed. Returns those of other app servers, which must be told.
    pub(super) fn fail_connection(&mut self, connection_id: &ByteString) -> Vec<AbandonedRequest> {
        let first = (connection_id.clone(), ByteString::new());
        let of_it = self.of_connections.range(first..).take_while(|(connection, _)| connection == connection_id);
        let ids: Vec<_> = of_it.map(|(_, id)| id.clone()).collect();
        let mut abandoned = Vec::new();
        for id in ids {
            match self.remove(&id).map(|request| request.requester) {
                Some(Requester::Local { sender, .. }) => drop(sender.send(ClientResult::Disconnected)),
                Some(Requester::AppServer(app_server)) => abandoned.push(AbandonedRequest { id, app_server }),
                None => {}
            }
        }
        abandoned
    }

    /// Fails the requests to a proxy that has no links any more: if it had the client, that is lost with it.
    pub(super) fn fail_node(&mut self, node: &Arc<Node>) {
        let ids: Vec<_> = self.by_id.keys().cloned().collect();
        ids.iter().for_each(|id| self.remove_asked(id, node, ClientResult::Disconnected));
    }

    /// Forgets a request that nobody waits for any more.
    fn forget(&mut self, id: &str) {
        self.remove(id);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.by_id.len(), self.of_connections.len());
        self.by_id.len()
    }

    fn next_number(&mut self) -> u64 {
        self.latest += 1;
        self.latest
    }

    fn insert_local(
        &mut self,
        id: ByteString,
        connection_id: &ByteString,
        asked: Vec<Arc<Node>>,
        max: usize,
    ) -> Result<Registered, TooManyRequests> {
        let (sender, receiver) = oneshot::channel();
        let requester = Requester::Local { sender, asked };
        self.insert(id.clone(), ResultRequest { connection_id: connection_id.clone(), requester }, max)?;
        Ok((id, receiver))
    }

    fn insert(&mut self, id: ByteString, request: ResultRequest, max: usize) -> Result<(), TooManyRequests> {
        if self.by_id.len() >= max {
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

    /// Removes a proxy from the asked ones of a request, which ends with the last of them.
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

    /// Forgets old requests of other app servers: a client may never answer, and its requester has given up long ago.
    fn forget_expired(&mut self, now: Instant) {
        let timeout = Duration::from_millis(FOREIGN_QUESTION_TIMEOUT_MS);
        while let Some((_, id)) = self.foreign.pop_front_if(|(since, _)| now.duration_since(*since) >= timeout) {
            if let Some(ResultRequest { requester: Requester::AppServer(_), .. }) = self.by_id.get(&id) {
                self.remove(&id);
            }
        }
    }
}

impl<'a> ExpectedResult<'a> {
    pub(super) fn new(results: &'a Mutex<ClientResults>, (id, receiver): Registered) -> Self {
        Self { results, id, receiver }
    }

    /// The id to ask with.
    pub(crate) fn id(&self) -> &ByteString {
        &self.id
    }

    /// Waits for the result.
    pub(crate) async fn received(&mut self) -> ClientResult {
        // The sender is dropped only with the whole hub.
        (&mut self.receiver).await.unwrap_or(ClientResult::Disconnected)
    }
}

impl Drop for ExpectedResult<'_> {
    fn drop(&mut self) {
        lock(self.results).forget(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 3;

    fn text(text: &'static str) -> ByteString {
        ByteString::from_static(text)
    }

    fn node(name: &str) -> Arc<Node> {
        Arc::new(Node::new(name, "boot", crate::node::CAPABLE))
    }

    fn result(receiver: &mut oneshot::Receiver<ClientResult>) -> Option<ClientResult> {
        receiver.try_recv().ok()
    }

    /// Two proxies, and a request to a client that either of them may have.
    fn remote() -> (ClientResults, [Arc<Node>; 2], Registered) {
        let (mut results, nodes) = (ClientResults::default(), [node("a"), node("b")]);
        let registered = results.request_remote(&text("c1"), "me", nodes.to_vec(), MAX).unwrap();
        (results, nodes, registered)
    }

    #[test]
    fn a_completion_goes_to_the_requester_and_a_second_one_to_nobody() {
        let mut results = ClientResults::default();
        let (id, _) = results.request(&text("c1"), MAX).unwrap();
        assert_eq!(id, "s1");
        assert!(matches!(results.complete("s1", "c1"), Addressee::Local(_)));
        assert!(matches!(results.complete("s1", "c1"), Addressee::Nobody));
        assert_eq!(results.len(), 0);
    }

    #[test]
    fn only_the_client_that_was_asked_may_answer() {
        let mut results = ClientResults::default();
        let (_, mut receiver) = results.request(&text("c1"), MAX).unwrap();
        assert!(matches!(results.complete("s1", "c2"), Addressee::WrongClient));
        assert_eq!(result(&mut receiver), None);
    }

    #[test]
    fn a_dropped_expectation_is_forgotten() {
        let results = Mutex::new(ClientResults::default());
        let registered = lock(&results).request(&text("c1"), MAX).unwrap();
        drop(ExpectedResult::new(&results, registered));
        assert_eq!(lock(&results).len(), 0);
        assert!(matches!(lock(&results).complete("s1", "c1"), Addressee::Nobody));
    }

    #[test]
    fn a_client_does_not_exist_when_every_proxy_says_so() {
        let (mut results, [a, b], (id, mut receiver)) = remote();
        assert_eq!(id, "me-1");
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
        let mut results = ClientResults::default();
        let (_, mut of_it) = results.request(&text("c1"), MAX).unwrap();
        let (_, mut of_another) = results.request(&text("c10"), MAX).unwrap();
        results.request_for(text("other"), text("other-7"), text("c1"), MAX, Instant::now()).unwrap();
        let abandoned = results.fail_connection(&text("c1"));
        assert_eq!(abandoned, [AbandonedRequest { id: text("other-7"), app_server: text("other") }]);
        assert_eq!(result(&mut of_it), Some(ClientResult::Disconnected));
        assert_eq!(result(&mut of_another), None);
    }

    #[test]
    fn a_completion_goes_to_the_app_server_that_requested_it() {
        let mut results = ClientResults::default();
        results.request_for(text("other"), text("other-7"), text("c1"), MAX, Instant::now()).unwrap();
        assert!(matches!(results.complete("other-7", "c1"), Addressee::AppServer(server) if server == "other"));
        assert_eq!(results.len(), 0);
    }

    #[test]
    fn old_requests_of_other_app_servers_are_forgotten() {
        let (mut results, start) = (ClientResults::default(), Instant::now());
        let mut request = |id, now| results.request_for(text("other"), text(id), text("c1"), 1, now);
        request("other-1", start).unwrap();
        assert_eq!(request("other-2", start), Err(TooManyRequests));
        request("other-3", start + Duration::from_millis(FOREIGN_QUESTION_TIMEOUT_MS)).unwrap();
        assert_eq!(results.len(), 1);
    }

    #[test]
    fn open_requests_are_bounded() {
        let mut results = ClientResults::default();
        let ids: Vec<_> = (0..MAX).map(|_| results.request(&text("c1"), MAX).unwrap().0).collect();
        assert_eq!(results.request(&text("c1"), MAX).unwrap_err(), TooManyRequests);
        results.forget(&ids[0]);
        assert!(results.request(&text("c1"), MAX).is_ok());
    }
}
