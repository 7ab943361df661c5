//! Authorization by the app's negotiate handler, for a client that negotiates or connects without a token.
//!
//! The handler sees the client's headers, cookies among them, and its path and query. Its answer is a decision (the user
//! and headers, or a redirect), or a refusal that the client gets as it is. Without an answer the client is refused.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, EXPECT, HOST, HeaderMap, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use tracing::warn;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::{
    CLIENT_AUTHORIZATION_HEADER, CLIENT_URI_HEADER, NEGOTIATE_PATH, NODE_HEADER, REMOTE_HEADER,
};
use trunkline_protocol::negotiate::{ANSWER_HEADER, DECISION, Decision, REFUSAL};

use crate::frontend::endpoint::Endpoint;
use crate::frontend::forwarded_header::FORWARDED_FOR;
use crate::frontend::plain_response::{because, unavailable};
use crate::frontend::request::is_for_the_app;
use crate::frontend::request_extension::peer_address;
use crate::upstream::Hub;

/// Decision of the app, with headers for the client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grant {
    pub(super) decision: Decision,
    pub(super) headers: HeaderMap,
}

/// Asks the app about a client.
///
/// # Errors
/// The app's refusal, or ours when it can't be asked.
pub(crate) fn authorize(
    endpoint: &Endpoint,
    hub: &Hub,
    request: &Request,
) -> impl Future<Output = Result<Grant, Response>> + Send + use<> {
    let (endpoint, apps, name) = (endpoint.clone(), hub.apps_in_turn(), hub.name().to_owned());
    let question = authorize_request(&name, request);
    async move {
        let Some(first) = apps.first() else {
            return Err(unavailable(Cause::NoAppServer, "no app server serves this hub at the moment"));
        };
        let outcome = match question {
            Ok(question) => endpoint.authorizer.authorize(&apps, endpoint.shared.caller(), question).await,
            Err(error) => Err(error.into()),
        };
        let problem = match outcome.map(read_decision) {
            Ok(Some(decision)) => {
                let count =
                    if decision.is_ok() { &endpoint.counters.let_in_by_app } else { &endpoint.counters.refused_by_app };
                count.increment();
                return decision;
            }
            Ok(None) => "its answer is none of a negotiate handler".to_owned(),
            Err(error) => error.to_string(),
        };
        endpoint.counters.app_not_asked.increment();
        warn!(hub = name, app = %first.target, %problem, "a client can't be let in, because the app can't be asked");
        Err(unavailable(Cause::AppUnreachable, "the app can't be asked whether you may come in"))
    }
}

/// Reads the app's decision; `None` when the answer is not one of its handler.
fn read_decision(answer: http::Response<Bytes>) -> Option<Result<Grant, Response>> {
    let (mut parts, body) = answer.into_parts();
    let mark = parts.headers.remove(ANSWER_HEADER)?;
    // hyper writes the final length, and its own date.
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING, DATE, HeaderName::from_static(NODE_HEADER)] {
        parts.headers.remove(name);
    }
    match mark.to_str().ok()? {
        DECISION => {
            let decision = serde_json::from_slice(&body).ok()?;
            parts.headers.remove(CONTENT_TYPE);
            Some(Ok(Grant { decision, headers: parts.headers }))
        }
        REFUSAL => Some(Err(because(Cause::AppRefused, Response::from_parts(parts, Body::from(body))))),
        _ => None,
    }
}

fn authorize_request(hub: &str, request: &Request) -> Result<Parts, http::Error> {
    let hub: String = form_urlencoded::byte_serialize(hub.as_bytes()).collect();
    let question = http::Request::builder().method(Method::POST).uri(format!("{NEGOTIATE_PATH}?hub={hub}"));
    let (mut question, ()) = question.body(())?.into_parts();
    let headers = &mut question.headers;
    for (name, value) in request.headers().iter().filter(|(name, _)| is_for_the_app(name.as_str())) {
        match *name {
            AUTHORIZATION => headers.insert(HeaderName::from_static(CLIENT_AUTHORIZATION_HEADER), value.clone()),
            HOST | CONTENT_LENGTH | CONTENT_TYPE | EXPECT => None,
            _ => {
                headers.append(name, value.clone());
                None
            }
        };
    }
    let uri = request.uri().path_and_query().map_or("/", |path| path.as_str());
    headers.insert(HeaderName::from_static(CLIENT_URI_HEADER), HeaderValue::from_str(uri)?);
    if let Some(peer) = peer_address(request.extensions()) {
        headers.insert(FORWARDED_FOR, HeaderValue::from_str(&peer.ip().to_string())?);
        headers.insert(HeaderName::from_static(REMOTE_HEADER), HeaderValue::from_str(&peer.to_string())?);
    }
    Ok(question)
}
