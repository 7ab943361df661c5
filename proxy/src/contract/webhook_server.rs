//! Scripted webhook back end: passes each request to the test, which answers it or lets it hang.

use std::collections::VecDeque;
use std::convert::Infallible;

use ::http::request::Parts;
use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, spawn_local};

use crate::ground::net::address::Address;
use crate::ground::net::connector::MemoryNetwork;

pub(super) struct WebhookServer {
    requests: mpsc::UnboundedReceiver<Asked>,
    kept: VecDeque<Asked>,
    listener: AbortHandle,
}

/// Received request without a response so far.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) head: Parts,
    pub(super) body: Bytes,
    answer: oneshot::Sender<Response<Full<Bytes>>>,
}

impl WebhookServer {
    pub(super) fn listen(network: &MemoryNetwork, address: &str) -> Self {
        let address: Address = address.parse().unwrap();
        let mut accepted = network.listen(&address);
        let (sender, requests) = mpsc::unbounded_channel();
        let listener = spawn_local(async move {
            while let Some(stream) = accepted.recv().await {
                let sender = sender.clone();
                let service = service_fn(move |request: Request<Incoming>| take(sender.clone(), request));
                spawn_local(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { requests, kept: VecDeque::new(), listener: listener.abort_handle() }
    }

    pub(super) async fn next(&mut self) -> Asked {
        match self.kept.pop_front() {
            Some(asked) => asked,
            None => self.requests.recv().await.unwrap(),
        }
    }

    /// Answers requests without a result until a request for this path arrives, and returns it.
    pub(super) async fn next_at(&mut self, path: &str) -> Asked {
        loop {
            let asked = self.next().await;
            if asked.path() == path {
                return asked;
            }
            asked.answer(204, "");
        }
    }

    /// Number of received requests that the test has not read.
    pub(super) fn waiting(&mut self) -> usize {
        while let Ok(asked) = self.requests.try_recv() {
            self.kept.push_back(asked);
        }
        self.kept.len()
    }

    pub(super) fn stop(self) {
        self.listener.abort();
    }
}

async fn take(
    sender: mpsc::UnboundedSender<Asked>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (answer, answered) = oneshot::channel();
    drop(sender.send(Asked { head, body, answer }));
    // A request dropped by the test is never answered.
    match answered.await {
        Ok(answer) => Ok(answer),
        Err(_) => std::future::pending().await,
    }
}

impl Asked {
    pub(super) fn path(&self) -> String {
        self.head.uri.to_string()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.head.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn answer(self, status: u16, body: impl Into<Bytes>) {
        let mut answer = Response::new(Full::new(body.into()));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        // The node may have stopped waiting.
        drop(self.answer.send(answer));
    }
}
