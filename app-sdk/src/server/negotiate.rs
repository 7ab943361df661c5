//! Has an app's handler decide about a client that negotiates: asked by proxies over HTTP, by an embedded node in memory.
//!
//! The handler shall see the client's request, so what the proxy put around it is taken off first; and the proxy shall
//! see which answers are the handler's own, so these are marked.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tower::ServiceExt;
use trunkline_protocol::manifest::{CLIENT_AUTHORIZATION_HEADER, CLIENT_URI_HEADER, REMOTE_HEADER};
use trunkline_protocol::negotiate::{ANSWER_HEADER, DECISION, REFUSAL};

use super::Core;
use super::routes::{Refusal, ready};
use crate::negotiation::Negotiation;

/// Headers between proxy and app server that are none of the handler's business.
const OWN_PREFIX: &str = "x-trunkline-";

#[derive(Debug, Deserialize)]
pub(super) struct NegotiateQuery {
    hub: String,
}

/// `POST /.trunkline/negotiate?hub=NAME`
pub(super) async fn negotiate(
    State(core): State<Arc<Core>>,
    Query(query): Query<NegotiateQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    ready(&core, request.headers(), request.extensions())?;
    core.negotiate(&query.hub, request).await.ok_or(Refusal::Hub(query.hub))
}

impl Core {
    /// The same for a node in this process, which needs no credential.
    #[cfg(feature = "embedded")]
    pub(super) async fn negotiate_in_memory(&self, request: Request) -> Option<Response> {
        let Query(query) = Query::<NegotiateQuery>::try_from_uri(request.uri()).ok()?;
        self.negotiate(&query.hub, request).await
    }

    /// The handler's answer, marked; `None` when the hub has no handler.
    pub(super) async fn negotiate(&self, hub: &str, mut request: Request) -> Option<Response> {
        let handler = self.ready.get()?.negotiators.get(hub)?.clone();
        restore(&mut request);
        let mut answer = handler.oneshot(request).await.into_response();
        let mark = if answer.extensions_mut().remove::<Negotiation>().is_some() { DECISION } else { REFUSAL };
        answer.headers_mut().insert(HeaderName::from_static(ANSWER_HEADER), HeaderValue::from_static(mark));
        Some(answer)
    }
}

/// Makes it the client's request again.
fn restore(request: &mut Request) {
    let headers = request.headers_mut();
    let uri = take(headers, CLIENT_URI_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    let authorization = take(headers, CLIENT_AUTHORIZATION_HEADER);
    let remote = take(headers, REMOTE_HEADER).and_then(|value| value.to_str().ok()?.parse::<SocketAddr>().ok());
    let own: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(OWN_PREFIX)).cloned().collect();
    own.iter().for_each(|name| drop(headers.remove(name)));
    headers.remove(AUTHORIZATION);
    if let Some(value) = authorization {
        headers.insert(AUTHORIZATION, value);
    }
    if let Some(uri) = uri {
        *request.uri_mut() = uri;
    }
    request.extensions_mut().remove::<ConnectInfo<SocketAddr>>();
    if let Some(remote) = remote {
        request.extensions_mut().insert(ConnectInfo(remote));
    }
}

fn take(headers: &mut HeaderMap, name: &'static str) -> Option<HeaderValue> {
    headers.remove(HeaderName::from_static(name))
}
