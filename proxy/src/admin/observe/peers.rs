//! The other nodes, asked by their admin ports with the admin token that all share.
//!
//! They are asked for themselves alone (`scope=node`), so that questions don't go in circles. Who is late once is shown as
//! it was; who stays away is shown as unreachable.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::view::{Node, Unreachable};
use crate::config::{Address, AdminSettings, AdminToken, Resolver};
use crate::net::connector::{Connector, HttpClient};

/// How long a node may take to be shown as it is now: the page is at most a second behind.
const NEWS_TIMEOUT: Duration = Duration::from_millis(500);

/// Who has not answered for so long is unreachable.
const OLD_NEWS: Duration = Duration::from_secs(3);

/// How long a node may take for any other answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long what a name resolves to is taken for granted.
const RESOLVED_FOR: Duration = Duration::from_secs(5);

/// Nodes that are asked.
const NODES_MAX: usize = 64;

const ANSWER_MAX_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Peers {
    names: Vec<Address>,
    token: Option<AdminToken>,
    resolver: Resolver,
    client: HttpClient,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    resolved: Option<(Instant, Vec<Address>)>,
    last: HashMap<String, (Instant, Node)>,
}

/// Why a node gives no answer that helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem(pub String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a node answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Peers {
    pub(super) fn new(settings: &AdminSettings, resolver: Resolver, connector: Connector) -> Self {
        let (names, token) = (settings.peers.clone(), settings.token.clone());
        Self { names, token, resolver, client: HttpClient::new(connector, NEWS_TIMEOUT), known: Mutex::default() }
    }

    /// Those who tell of themselves now or did a moment ago, and the others.
    pub(super) async fn nodes(&self) -> (Vec<Node>, Vec<Unreachable>) {
        let addresses = self.addresses().await;
        let news = join_all(addresses.iter().map(|address| self.news(address))).await;
        let (mut nodes, mut unreachable) = (Vec::new(), Vec::new());
        let (now, mut known) = (Instant::now(), self.known());
        known.last.retain(|_, (at, _)| now - *at < OLD_NEWS);
        for (address, news) in addresses.iter().zip(news) {
            let url = address.to_string();
            match (news, known.last.get(&url)) {
                (Ok(node), _) => {
                    known.last.insert(url, (now, node.clone()));
                    nodes.push(node);
                }
                (Err(_), Some((_, node))) => nodes.push(node.clone()),
                (Err(problem), None) => unreachable.push(Unreachable { url, problem: problem.0 }),
            }
        }
        (nodes, unreachable)
    }

    /// Asks all at once; those who gave an answer.
    pub(crate) async fn ask_all(&self, method: Method, target: &str, body: &Bytes) -> Vec<Result<Answer, Problem>> {
        let addresses = self.addresses().await;
        join_all(addresses.iter().map(|address| self.ask(address, method.clone(), target, body.clone()))).await
    }

    /// The answer, whose body is still to come, of the node that knows what is asked for.
    pub(crate) async fn find(&self, target: &str) -> Option<Response<Incoming>> {
        let addresses = self.addresses().await;
        let answers = addresses.iter().map(|address| self.send(address, Method::GET, target, Bytes::new()));
        let answers = timeout(ANSWER_TIMEOUT, join_all(answers)).await.unwrap_or_default();
        let knows = |status| matches!(status, StatusCode::OK | StatusCode::TOO_MANY_REQUESTS);
        answers.into_iter().flatten().find(|answer| knows(answer.status()))
    }

    /// Where each node is asked.
    pub(super) async fn addresses(&self) -> Vec<Address> {
        let now = Instant::now();
        let fresh = self.known().resolved.clone().filter(|(at, _)| now - *at < RESOLVED_FOR);
        if let Some((_, addresses)) = fresh {
            return addresses;
        }
        let mut all: Vec<Address> =
            join_all(self.names.iter().map(|name| self.resolve(name))).await.into_iter().flatten().collect();
        all.truncate(NODES_MAX);
        self.known().resolved = Some((now, all.clone()));
        all
    }

    async fn resolve(&self, name: &Address) -> Vec<Address> {
        if name.is_loopback() || name.host().parse::<std::net::IpAddr>().is_ok() {
            return vec![name.clone()];
        }
        match timeout(NEWS_TIMEOUT, self.resolver.resolve(name)).await {
            Ok(Ok(found)) if !found.is_empty() => {
                let is_v4 = found.first().is_some_and(std::net::SocketAddr::is_ipv4);
                found.into_iter().filter(|at| at.is_ipv4() == is_v4).map(|at| name.at(at)).collect()
            }
            // Asked by its name it says what is wrong.
            _ => vec![name.clone()],
        }
    }

    async fn news(&self, address: &Address) -> Result<Node, Problem> {
        let asked = self.ask(address, Method::GET, "/api/fleet?scope=node", Bytes::new());
        let late = |_| Problem(format!("no answer within {} ms", NEWS_TIMEOUT.as_millis()));
        let answer = timeout(NEWS_TIMEOUT, asked).await.map_err(late)??;
        let fleet: super::Fleet = answer.read()?;
        fleet.nodes.into_iter().next().ok_or_else(|| Problem("it tells of no node".into()))
    }

    async fn ask(&self, address: &Address, method: Method, target: &str, body: Bytes) -> Result<Answer, Problem> {
        let asked = async {
            let answer = self.send(address, method, target, body).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
            Ok(Answer { status, body: body.map_err(|error| Problem(error.to_string()))?.to_bytes() })
        };
        let late = |_| Problem(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
        timeout(ANSWER_TIMEOUT, asked).await.map_err(late)?
    }

    async fn send(
        &self,
        address: &Address,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Problem> {
        let mut request = Request::builder().method(method).uri(target).header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request.body(Body::from(body)).map_err(|error| Problem(error.to_string()))?;
        self.client.send(address, request).await.map_err(|error| Problem(error.to_string()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    /// Reads a good answer.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if self.status == StatusCode::UNAUTHORIZED {
            return Err(Problem("it has another --admin-token than this node".into()));
        }
        if !self.status.is_success() {
            return Err(Problem(format!("it answers {}", self.status)));
        }
        serde_json::from_slice(&self.body).map_err(|error| Problem(format!("its answer can't be read: {error}")))
    }
}
