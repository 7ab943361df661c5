//! Stateless load balancer: routes each request by a rule, over a new connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result};
use axum::body::Body;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Rule that selects the server of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Round robin by request.
    InTurn,
    /// Negotiates go to the first server, everything else to the second.
    Apart,
}

/// Running balancer, stopped on drop.
#[derive(Debug)]
pub struct Balancer {
    address: String,
    requests: Arc<AtomicUsize>,
    servers: Arc<RwLock<Vec<String>>>,
    accepting: AbortHandle,
}

impl Balancer {
    /// Starts a balancer in front of these servers (`host:port`).
    pub async fn start(rule: Rule, servers: &[&str]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let servers = Arc::new(RwLock::new(servers.iter().map(ToString::to_string).collect()));
        let accepting = tokio::spawn(accept(listener, rule, servers.clone(), requests.clone())).abort_handle();
        Ok(Self { address, requests, servers, accepting })
    }

    /// Listen address as `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// URL of a path for clients.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Stops routing to a server, as after a failed health check.
    pub fn take_out(&self, server: &str) {
        self.servers.write().unwrap_or_else(PoisonError::into_inner).retain(|one| one != server);
    }

    /// Number of requests so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, rule: Rule, servers: Arc<RwLock<Vec<String>>>, requests: Arc<AtomicUsize>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (servers, requests) = (servers.clone(), requests.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let number = requests.fetch_add(1, Ordering::Relaxed);
            let servers = servers.read().unwrap_or_else(PoisonError::into_inner);
            let place = match rule {
                Rule::InTurn => number.checked_rem(servers.len()).unwrap_or_default(),
                Rule::Apart => usize::from(!request.uri().path().ends_with("/negotiate")),
            };
            let server = servers.get(place).cloned().unwrap_or_default();
            drop(servers);
            async move { Ok::<_, hyper::Error>(pass(request, &server).await.unwrap_or_else(|_| bad_gateway())) }
        });
        tokio::spawn(server::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
    }
}

pub(crate) fn bad_gateway() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}

async fn pass(request: Request<Incoming>, server: &str) -> Result<Response<Body>> {
    let stream = TcpStream::connect(server).await.with_context(|| format!("connecting to {server}"))?;
    stream.set_nodelay(true)?;
    carry(request.map(Body::new), stream).await
}

/// Forwards a request over a connection to its server, including all further bytes of an upgrade.
pub(crate) async fn carry(
    mut request: Request<Body>,
    server: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Response<Body>> {
    let (mut sender, connection) = client::handshake(TokioIo::new(server)).await?;
    tokio::spawn(connection.with_upgrades());
    let near = hyper::upgrade::on(&mut request);
    let mut answer = sender.send_request(request).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let far = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            if let Ok((near, far)) = tokio::try_join!(near, far) {
                drop(copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await);
            }
        });
    }
    Ok(answer.map(Body::new))
}
