//! Peers: the other nodes, asked at their admin ports with the admin token that all nodes share. No peer is shown it, only a
//! seal over the one request.
//!
//! Each is asked for itself alone (`scope=node`), so that requests don't go in circles. A peer that is late once is shown
//! as it was; one that stays silent is shown as unreachable.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::snapshot::{FleetSnapshot, NodeSnapshot, UnreachablePeer};
use crate::auth::PeerKey;
use crate::config::AdminSettings;
use crate::net::address::Address;
use crate::net::connector::Connector;
use crate::net::http_client::HttpClient;
use crate::net::resolver::Resolver;

/// Timeout of a snapshot: the page is at most a second behind.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_millis(500);

/// Age up to which the last snapshot stands for a peer that does not answer.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(3);

/// Timeout of any other answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which the addresses of a name are kept.
const RESOLVED_AGE_MAX: Duration = Duration::from_secs(5);

/// Peers that are asked.
const PEERS_MAX: usize = 64;

/// Questions to all peers under way at a time; more wait. On a loopback address anybody of the machine may ask.
const QUESTIONS_MAX: usize = 8;

const ANSWER_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Client of the other nodes' admin ports.
#[derive(Debug)]
pub(super) struct Peers {
    names: Vec<Address>,
    key: Option<PeerKey>,
    resolver: Resolver,
    client: HttpClient,
    /// Questions to all peers that may be under way at a time: each is a request to every peer.
    questions: Semaphore,
    cache: Mutex<PeerCache>,
}

#[derive(Debug, Default)]
struct PeerCache {
    resolved: Option<(Instant, Vec<Address>)>,
    last: HashMap<String, (Instant, NodeSnapshot)>,
}

/// Error of a request to a peer, as a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeerError(String);

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Answer of a peer.
#[derive(Debug)]
pub(super) struct PeerAnswer {
    pub(super) status: StatusCode,
    body: Bytes,
}

impl Peers {
    pub(super) fn new(settings: &AdminSettings, resolver: Resolver, connector: Connector) -> Self {
        let (names, key) = (settings.peers.clone(), settings.token.as_ref().map(PeerKey::of));
        let (client, questions) = (HttpClient::new(connector, SNAPSHOT_TIMEOUT), Semaphore::new(QUESTIONS_MAX));
        Self { names, key, resolver, client, questions, cache: Mutex::default() }
    }

    /// Asks all peers for their snapshots; returns these, and the peers that did not answer lately.
    pub(super) async fn snapshots(&self) -> (Vec<NodeSnapshot>, Vec<UnreachablePeer>) {
        let addresses = self.addresses().await;
        let answers = join_all(addresses.iter().map(|address| self.snapshot(address))).await;
        let (mut nodes, mut unreachable) = (Vec::new(), Vec::new());
        let (now, mut cache) = (Instant::now(), self.cache());
        cache.last.retain(|_, (at, _)| now - *at < SNAPSHOT_AGE_MAX);
        for (address, answer) in addresses.iter().zip(answers) {
            let url = address.to_string();
            match (answer, cache.last.get(&url)) {
                (Ok(node), _) => {
                    cache.last.insert(url, (now, node.clone()));
                    nodes.push(node);
                }
                (Err(_), Some((_, node))) => nodes.push(node.clone()),
                (Err(error), None) => unreachable.push(UnreachablePeer { url, problem: error.0 }),
            }
        }
        (nodes, unreachable)
    }

    /// Asks all peers at once.
    pub(super) async fn ask_all(
        &self,
        method: Method,
        target: &str,
        body: &Bytes,
    ) -> Vec<Result<PeerAnswer, PeerError>> {
        // It is closed never.
        let _turn = self.questions.acquire().await;
        let addresses = self.addresses().await;
        join_all(addresses.iter().map(|address| self.ask(address, method.clone(), target, body.clone()))).await
    }

    /// Asks all peers at once; returns the answer, with its body still to come, of the one that has what is asked for.
    pub(super) async fn find(&self, target: &str) -> Option<Response<Incoming>> {
        let _turn = self.questions.acquire().await;
        let addresses = self.addresses().await;
        let answers = addresses.iter().map(async |address| {
            let request = self.request(Method::GET, target, Bytes::new()).ok()?;
            self.client.send(address, request).await.ok()
        });
        let answers = timeout(ANSWER_TIMEOUT, join_all(answers)).await.unwrap_or_default();
        let knows = |status| matches!(status, StatusCode::OK | StatusCode::TOO_MANY_REQUESTS);
        answers.into_iter().flatten().find(|answer| knows(answer.status()))
    }

    /// Resolves the addresses of all peers.
    async fn addresses(&self) -> Vec<Address> {
        let now = Instant::now();
        let fresh = self.cache().resolved.clone().filter(|(at, _)| now - *at < RESOLVED_AGE_MAX);
        if let Some((_, addresses)) = fresh {
            return addresses;
        }
        let mut all: Vec<Address> =
            join_all(self.names.iter().map(|name| self.resolve(name))).await.into_iter().flatten().collect();
        all.truncate(PEERS_MAX);
        self.cache().resolved = Some((now, all.clone()));
        all
    }

    async fn resolve(&self, name: &Address) -> Vec<Address> {
        if name.is_loopback() || name.host().parse::<std::net::IpAddr>().is_ok() {
            return vec![name.clone()];
        }
        match timeout(SNAPSHOT_TIMEOUT, self.resolver.resolve(name)).await {
            Ok(Ok(found)) if !found.is_empty() => {
                let is_v4 = found.first().is_some_and(std::net::SocketAddr::is_ipv4);
                found.into_iter().filter(|at| at.is_ipv4() == is_v4).map(|at| name.at(at)).collect()
            }
            // A request to the name itself then says what is wrong.
            _ => vec![name.clone()],
        }
    }

    async fn snapshot(&self, address: &Address) -> Result<NodeSnapshot, PeerError> {
        let answer = self.ask(address, Method::GET, "/api/fleet?scope=node", Bytes::new());
        let late = |_| PeerError(format!("no answer within {} ms", SNAPSHOT_TIMEOUT.as_millis()));
        let answer = timeout(SNAPSHOT_TIMEOUT, answer).await.map_err(late)??;
        let fleet: FleetSnapshot = answer.read()?;
        fleet.nodes.into_iter().next().ok_or_else(|| PeerError("it tells of no node".into()))
    }

    async fn ask(&self, address: &Address, method: Method, target: &str, body: Bytes) -> Result<PeerAnswer, PeerError> {
        let request = self.request(method, target, body)?;
        let answer = self.client.fetch(address, request, ANSWER_MAX_BYTES, ANSWER_TIMEOUT).await;
        let answer = answer.map_err(|error| PeerError(error.to_string()))?;
        Ok(PeerAnswer { status: answer.status(), body: answer.into_body() })
    }

    fn request(&self, method: Method, target: &str, body: Bytes) -> Result<Request<Body>, PeerError> {
        let seal = self.key.as_ref().map(|key| key.seal(&method, target)).transpose();
        let seal = seal.map_err(|error| PeerError(error.to_string()))?;
        let mut request = Request::builder().method(method).uri(target).header(CONTENT_TYPE, "application/json");
        if let Some(seal) = seal {
            request = request.header(AUTHORIZATION, seal);
        }
        request.body(Body::from(body)).map_err(|error| PeerError(error.to_string()))
    }

    fn cache(&self) -> MutexGuard<'_, PeerCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PeerAnswer {
    /// Parses the body of a successful answer.
    ///
    /// # Errors
    /// When the peer refused, or its body is no such JSON.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, PeerError> {
        if self.status == StatusCode::UNAUTHORIZED {
            return Err(PeerError("it has another --admin-token than this node".into()));
        }
        if !self.status.is_success() {
            return Err(PeerError(format!("it answers {}", self.status)));
        }
        serde_json::from_slice(&self.body).map_err(|error| PeerError(format!("its answer can't be read: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: StatusCode, body: &'static str) -> Result<FleetSnapshot, PeerError> {
        PeerAnswer { status, body: Bytes::from_static(body.as_bytes()) }.read()
    }

    #[test]
    fn a_successful_answer_is_parsed_with_defaults_for_what_is_missing() {
        let fleet = read(StatusCode::OK, r#"{"atMs":5,"nodes":[{"name":"a","new":true}]}"#).unwrap();
        assert_eq!((fleet.at_ms, fleet.nodes[0].name.as_str(), fleet.nodes[0].clients), (5, "a", 0));
    }

    #[test]
    fn an_answer_that_does_not_help_says_why() {
        for (status, body, problem) in [
            (StatusCode::UNAUTHORIZED, "", "it has another --admin-token than this node"),
            (StatusCode::NOT_FOUND, "", "it answers 404 Not Found"),
            (StatusCode::OK, "no JSON", "its answer can't be read: expected ident at line 1 column 2"),
        ] {
            assert_eq!(read(status, body).unwrap_err(), PeerError(problem.into()));
        }
    }

    #[tokio::test]
    async fn a_peer_is_not_shown_the_token() {
        use tokio::io::AsyncReadExt;
        let stranger = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = format!("http://{}", stranger.local_addr().unwrap()).parse().unwrap();
        let token = crate::auth::AdminToken::new("the-token-of-the-fleet").ok();
        let settings = AdminSettings { token, peers: vec![peer], ..AdminSettings::default() };
        let peers = Peers::new(&settings, Resolver::default(), Connector::default());
        let nothing = Bytes::new();
        let asked = peers.ask_all(Method::GET, "/api/fleet?scope=node", &nothing);
        tokio::pin!(asked);
        let mut stream = tokio::select! {
            _ = &mut asked => panic!("nobody has answered"),
            accepted = stranger.accept() => accepted.unwrap().0,
        };
        let mut head = [0; 2048];
        let read = tokio::select! {
            _ = &mut asked => panic!("nobody has answered"),
            read = stream.read(&mut head) => read.unwrap(),
        };
        let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
        assert!(head.contains("authorization: trunkline-peer "), "{head}");
        assert!(!head.contains("the-token-of-the-fleet"), "{head}");
    }
}
