//! Authorization by the app's negotiate handler, for a client that negotiates or connects without a token.
//!
//! The handler gets the client's headers including cookies, path, query, and the user of a verified access token. It
//! returns user and headers, a redirect, or a refusal, which is forwarded unchanged. Without a response, the client is
//! refused.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, EXPECT, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tracing::warn;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::{
    CLIENT_AUTHORIZATION_HEADER, CLIENT_URI_HEADER, NEGOTIATE_PATH, NODE_HEADER, REMOTE_HEADER, USER_HEADER,
};
use trunkline_protocol::negotiate::{ANSWER_HEADER, DECISION, REFUSAL};

use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::forwarded_header::FORWARDED_FOR;
use crate::edge::frontend::hub_request::{Grant, HubRequest};
use crate::edge::frontend::plain_response::{because, unavailable};
use crate::edge::frontend::refusal::{MIDDLEWARE_HINT, RefusalSource};
use crate::edge::frontend::request::is_for_the_app;
use crate::ground::auth::User;
use crate::ground::metrics::Limit;

/// Queries app servers of a group about a client; `user` is from the client's access token.
///
/// # Errors
/// The app's refusal, or ours if the app is unreachable.
pub(crate) fn authorize<'a>(
    endpoint: &'a Endpoint,
    request: &HubRequest,
    group: &str,
    user: Option<&User>,
) -> impl Future<Output = Result<Grant, Response>> + Send + use<'a> {
    let (apps, name) = (request.hub.apps_in_turn(group), request.hub.name().to_owned());
    let (hub, app) = (request.hub.index(), endpoint.shared.share_of_hub(request.hub.name()));
    let question = authorize_request(request, user);
    async move {
        let Some(first) = apps.first() else {
            return Err(unavailable(Cause::NoAppServer, "no app server serves this hub at the moment"));
        };
        let outcome = match question {
            Ok(question) => {
                let node = &endpoint.shared.settings.node;
                endpoint.authorizer.authorize((hub, &app), &apps, node, question).await
            }
            Err(error) => Err(error.into()),
        };
        let problem = match outcome.map(read_decision) {
            Ok(Ok(decision)) => {
                let count =
                    if decision.is_ok() { &endpoint.counters.let_in_by_app } else { &endpoint.counters.refused_by_app };
                count.increment();
                return decision;
            }
            Ok(Err(problem)) => problem,
            Err(error) => error.to_string(),
        };
        endpoint.counters.app_not_asked.increment();
        if endpoint.shared.limits.may_log(endpoint.shared.uptime()) {
            warn!(hub = name, app = %first.target, %problem, "client refused: the app's decision is not available");
        } else {
            endpoint.counters.limit(Limit::LogLines).increment();
        }
        Err(unavailable(Cause::AppUnreachable, "the app can't be asked whether to accept this client"))
    }
}

/// Reads the app's decision. Fails if the response is not from the handler; the text identifies its source.
fn read_decision(answer: http::Response<Bytes>) -> Result<Result<Grant, Response>, String> {
    let (mut parts, body) = answer.into_parts();
    let Some(mark) = parts.headers.remove(ANSWER_HEADER) else {
        return Err(match RefusalSource::from_answer(parts.status, &parts.headers) {
            RefusalSource::AccessKey => "it refuses this node's access key".into(),
            RefusalSource::DevelopmentKey => "it has only the development key of its machine".into(),
            // Of a webhook that gave no answer, and of an app server that stops.
            RefusalSource::Sdk if parts.status == StatusCode::SERVICE_UNAVAILABLE => {
                String::from_utf8_lossy(&body).into_owned()
            }
            RefusalSource::Sdk => format!("it answers {}: {}", parts.status, String::from_utf8_lossy(&body)),
            RefusalSource::Middleware => format!("it answers {}, {MIDDLEWARE_HINT}", parts.status),
            RefusalSource::Stranger => format!("it answers {} without a negotiate handler", parts.status),
        });
    };
    // hyper sets the final length and its own date.
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING, DATE, HeaderName::from_static(NODE_HEADER)] {
        parts.headers.remove(name);
    }
    match mark.to_str() {
        Ok(DECISION) => {
            let decision =
                serde_json::from_slice(&body).map_err(|error| format!("its decision is malformed: {error}"))?;
            parts.headers.remove(CONTENT_TYPE);
            Ok(Ok(Grant { decision, headers: parts.headers }))
        }
        Ok(REFUSAL) => Ok(Err(because(Cause::AppRefused, Response::from_parts(parts, Body::from(body))))),
        _ => Err("its answer has an unknown type".into()),
    }
}

fn authorize_request(request: &HubRequest, user: Option<&User>) -> Result<Parts, http::Error> {
    let HubRequest { hub, parts, context, .. } = request;
    let hub: String = form_urlencoded::byte_serialize(hub.name().as_bytes()).collect();
    let question = http::Request::builder().method(Method::POST).uri(format!("{NEGOTIATE_PATH}?hub={hub}"));
    let (mut question, ()) = question.body(())?.into_parts();
    let headers = &mut question.headers;
    for (name, value) in parts.headers.iter().filter(|(name, _)| is_for_the_app(name.as_str())) {
        match *name {
            AUTHORIZATION => headers.insert(HeaderName::from_static(CLIENT_AUTHORIZATION_HEADER), value.clone()),
            HOST | CONTENT_LENGTH | CONTENT_TYPE | EXPECT => None,
            _ => {
                headers.append(name, value.clone());
                None
            }
        };
    }
    let uri = parts.uri.path_and_query().map_or(parts.uri.path(), PathAndQuery::as_str);
    headers.insert(HeaderName::from_static(CLIENT_URI_HEADER), HeaderValue::from_str(uri)?);
    if let Some(user) = user {
        headers.insert(HeaderName::from_static(USER_HEADER), HeaderValue::from_str(&user.to_header())?);
    }
    if let Some(peer) = context.source.peer {
        headers.insert(FORWARDED_FOR, HeaderValue::from_str(&peer.ip().to_string())?);
        headers.insert(HeaderName::from_static(REMOTE_HEADER), HeaderValue::from_str(&peer.to_string())?);
    }
    Ok(question)
}
