//! Server-Sent Events and long polling: the requests that carry a connection. Statuses are those of the official server.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::header::ACCEPT;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::Transport;

use super::answers::{self, Counted};
use super::authenticate::user_of;
use super::connect::{Caller, Newcomer, UNKNOWN_ID, admit, changed_transport, identify, not_supported};
use super::request::query_value;
use super::{Endpoint, limits, plain};
use crate::shard::ClientStream;
use crate::shard::ReserveError;
use crate::transport::http::{Carried, Polled, SendError};
use crate::upstream::Hub;

const ID_REQUIRED: &str = "Connection ID required";

/// `GET`: an event stream, or a poll.
pub(super) async fn get(endpoint: &Endpoint, hub: &Arc<Hub>, request: Request) -> Response {
    match attach(endpoint, hub, request) {
        Ok(Attached::Events(carried)) => answers::events(endpoint.shared.clone(), carried),
        Ok(Attached::FirstPoll) => answers::first_poll(),
        Ok(Attached::Poll(carried)) => poll(endpoint, carried).await,
        Err(refusal) => refusal,
    }
}

/// What a GET turned out to be.
enum Attached {
    /// An event stream has begun.
    Events(Arc<Carried>),
    /// Long polling has begun.
    FirstPoll,
    Poll(Arc<Carried>),
}

fn attach(endpoint: &Endpoint, hub: &Arc<Hub>, request: Request) -> Result<Attached, Response> {
    let caller = caller(endpoint, hub, &request)?;
    let transport = if wants_events(&request) { Transport::ServerSentEvents } else { Transport::LongPolling };
    let is_offered = hub.settings().transports.contains(&transport);
    let carried = endpoint.shared.carried.find_or_make(&caller.connection_id, || {
        let taken = changed_transport;
        begin(endpoint, hub, &caller, (!is_offered).then_some(transport), taken)
    })?;
    if !is_offered {
        return Err(not_supported(transport));
    }
    if !carried.bind(transport) {
        return Err(changed_transport());
    }
    let seat = if carried.has_begun() { None } else { limits::seat(endpoint, &request)? };
    let pipe = carried.begin();
    let is_first = pipe.is_some();
    if let Some(pipe) = pipe {
        if let Some(refusal) = endpoint.refuse_newcomer(hub) {
            // A POST made it while newcomers were still welcome. No shard knows of it.
            endpoint.shared.carried.remove(&carried);
            endpoint.shared.routes.remove(carried.id());
            return Err(refusal);
        }
        let (parts, _) = request.into_parts();
        let arrival = ClientStream::Pipe(pipe);
        admit(endpoint, hub, &parts, Newcomer { arrival, transport, caller, is_negotiated: true, seat });
    }
    match (transport, is_first) {
        (Transport::ServerSentEvents, true) => Ok(Attached::Events(carried)),
        (Transport::ServerSentEvents, false) => Err(plain(StatusCode::CONFLICT, "")),
        (_, true) => Ok(Attached::FirstPoll),
        (_, false) => Ok(Attached::Poll(carried)),
    }
}

async fn poll(endpoint: &Endpoint, carried: Arc<Carried>) -> Response {
    let _present = carried.attend();
    let counted = Counted::new(endpoint.shared.clone());
    match carried.poll(endpoint.shared.settings.carried.poll_timeout).await {
        Polled::Messages(messages) => answers::messages(messages, &carried, counted),
        Polled::Nothing => answers::empty_poll(StatusCode::OK),
        Polled::Replaced => answers::empty_poll(StatusCode::NO_CONTENT),
        Polled::Over => {
            forget(endpoint, &carried);
            answers::empty_poll(StatusCode::NO_CONTENT)
        }
    }
}

/// `POST`: what the client sends.
pub(super) async fn post(endpoint: &Endpoint, hub: &Arc<Hub>, request: Request) -> Response {
    let found = caller(endpoint, hub, &request).and_then(|caller| {
        endpoint.shared.carried.find_or_make(&caller.connection_id, || {
            begin(endpoint, hub, &caller, None, || {
                plain(StatusCode::METHOD_NOT_ALLOWED, "POST requests are not allowed for WebSocket connections.")
            })
        })
    });
    let carried = match found {
        Ok(carried) => carried,
        Err(refusal) => return refusal,
    };
    match carried.send(request.into_body().into_data_stream()).await {
        Ok(()) => plain(StatusCode::OK, Body::empty()),
        Err(SendError::Over) => plain(StatusCode::NOT_FOUND, ""),
        Err(SendError::Body(_)) => plain(StatusCode::BAD_REQUEST, "the body of the request broke off"),
    }
}

/// `DELETE`: the end of long polling.
pub(super) fn delete(endpoint: &Endpoint, hub: &Arc<Hub>, request: &Request) -> Response {
    let caller = match caller(endpoint, hub, request) {
        Ok(caller) => caller,
        Err(refusal) => return refusal,
    };
    let carried = endpoint.shared.carried.find(&caller.connection_id);
    let is_here = carried.is_some() || endpoint.shared.routes.find(&caller.connection_id).is_some();
    match carried.filter(|carried| carried.transport() == Some(Transport::LongPolling)) {
        Some(carried) => {
            carried.say_why(Cause::ClientClosed);
            forget(endpoint, &carried);
            plain(StatusCode::ACCEPTED, "")
        }
        None if is_here => {
            plain(StatusCode::BAD_REQUEST, "Cannot terminate this connection using the DELETE endpoint.")
        }
        None => plain(StatusCode::NOT_FOUND, UNKNOWN_ID),
    }
}

/// The connection is over for its client: no request finds it any more.
fn forget(endpoint: &Endpoint, carried: &Arc<Carried>) {
    endpoint.shared.routes.retire(carried.id());
    endpoint.shared.carried.remove(carried);
}

/// Whose connection a request names; else what to answer.
fn caller(endpoint: &Endpoint, hub: &Hub, request: &Request) -> Result<Caller, Response> {
    let user = user_of(request);
    let token = query_value(request.uri(), "id");
    let token = token.ok_or_else(|| plain(StatusCode::BAD_REQUEST, ID_REQUIRED))?;
    identify(endpoint, hub, token, user)
}

/// Keeps the id of a connection that this request would begin; else what to answer, `taken` if it is a WebSocket.
fn begin(
    endpoint: &Endpoint,
    hub: &Hub,
    caller: &Caller,
    refused: Option<Transport>,
    taken: impl FnOnce() -> Response,
) -> Result<(), Response> {
    let (routes, id) = (&endpoint.shared.routes, &caller.connection_id);
    let unknown = || plain(StatusCode::NOT_FOUND, UNKNOWN_ID);
    if routes.find(id).is_some() {
        return Err(refused.map_or_else(taken, not_supported));
    }
    if !caller.is_ours || !caller.is_fresh {
        return Err(unknown());
    }
    routes.reserve(id).map_err(|error| match error {
        ReserveError::Taken => taken(),
        ReserveError::Unknown => unknown(),
    })?;
    // Only now, because of one that is over the client shall learn that, and not that nobody can be taken in.
    let refusal = refused.map(not_supported).or_else(|| endpoint.refuse_newcomer(hub));
    refusal.map_or(Ok(()), |refusal| {
        routes.remove(id);
        Err(refusal)
    })
}

/// Whether a GET asks for an event stream; a poll accepts anything.
pub(super) fn wants_events(request: &Request) -> bool {
    let accepts = request.headers().get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    accepts.flat_map(|accept| accept.split(',')).any(|one| {
        let media_type = one.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("text/event-stream")
    })
}
