//! Requests of an HTTP transport: event streams, polls, sends and deletes. Status codes match the official server.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::Transport;

use crate::edge::frontend::InFlight;
use crate::edge::frontend::connect::http_transport_response::{
    EventStream, begin_event_stream, empty_poll, event_stream, first_poll, poll_messages,
};
use crate::edge::frontend::connect::{NewConnection, admit, changed_transport, may_use, not_supported, opening, terms};
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hub_request::{ConnectingClient, HubRequest};
use crate::edge::frontend::identify::UNKNOWN_ID;
use crate::edge::frontend::plain_response::plain;
use crate::edge::frontend::request::wants_event_stream;
use crate::edge::frontend::request_limit::{
    count_connected, refuse_slow_body, take_head_room, take_permit, take_pipe_permit,
};
use crate::edge::frontend::timed_body::is_body_timeout;
use crate::engine::shard::{ClientStream, ReserveError};
use crate::engine::transport::http_transport::{OuterHalf, PollOutcome, SendError, TransportPermits};
use crate::engine::upstream::{Hub, RouteChoice};
use crate::ground::limits::ClientPermit;
use crate::ground::net::socket::SocketHandover;

pub(crate) const ID_REQUIRED: &str = "Connection ID required";

pub(crate) async fn get(endpoint: &Endpoint, request: Box<HubRequest>, client: Box<ConnectingClient>) -> Response {
    if may_begin(endpoint, &request, &client) {
        endpoint.wait_for_link(&request.hub, request.routed.group()).await;
    }
    match attach(endpoint, request, client) {
        Ok(AttachedGet::EventStream(outer)) => event_stream(endpoint.shared.clone(), outer),
        Ok(AttachedGet::HandedOver(outer, handover, taker)) => begin_event_stream(&outer, handover, taker),
        Ok(AttachedGet::FirstPoll) => first_poll(),
        Ok(AttachedGet::Poll(outer, wait)) => poll(endpoint, outer, wait).await,
        Err(refusal) => refusal,
    }
}

enum AttachedGet {
    EventStream(Arc<OuterHalf>),
    /// A new event stream: only its head is sent here, then the client module gets the socket.
    HandedOver(Arc<OuterHalf>, SocketHandover, oneshot::Sender<TcpStream>),
    FirstPoll,
    /// A poll, which may wait this long.
    Poll(Arc<OuterHalf>, Duration),
}

fn attach(
    endpoint: &Endpoint,
    mut request: Box<HubRequest>,
    client: Box<ConnectingClient>,
) -> Result<AttachedGet, Response> {
    let hub = &request.hub;
    let wait = terms(hub, &client.user).poll_timeout;
    let wait = wait.unwrap_or(endpoint.shared.settings.http_transports.poll_timeout);
    let transport =
        if wants_event_stream(&request.parts.headers) { Transport::ServerSentEvents } else { Transport::LongPolling };
    let is_offered = may_use(hub, &client.user, transport);
    let outer = endpoint.shared.http_transports.find_or_insert(&client.connection_id, || {
        let taken = || if is_offered { changed_transport() } else { not_supported(transport) };
        let connection = begin_transport(endpoint, &request, &client, (!is_offered).then_some(transport), taken)?;
        Ok(TransportPermits { connection, pipe: None })
    })?;
    if !is_offered {
        return Err(not_supported(transport));
    }
    if !outer.bind(transport) {
        return Err(changed_transport());
    }
    let inner = outer.take_inner_half();
    let is_first = inner.is_some();
    let mut handed_over = None;
    if let Some(mut inner) = inner {
        let kept = || opening(endpoint, &request, (&client, transport));
        let refusal = endpoint.refuse_new_client(hub, &request.routed);
        let head = refusal.map_or_else(|| take_head_room(endpoint, &request, kept), Err).inspect_err(|_| {
            // A POST started it while new clients were still accepted. No shard has it yet.
            endpoint.shared.http_transports.remove(&outer);
            endpoint.shared.routes.remove(&outer.id);
        })?;
        count_connected(endpoint, request.context.source.peer);
        let handover = request.context.source.handover.take().filter(|_| transport == Transport::ServerSentEvents);
        let socket = match handover {
            Some(handover) => {
                inner.keep(EventStream::new(endpoint.shared.clone(), outer.clone()));
                let (taker, socket) = oneshot::channel();
                handed_over = Some((handover, taker));
                ClientStream::EventStream(Box::new((inner, socket)))
            }
            None => ClientStream::Pipe(inner),
        };
        let is_compressed = false;
        admit(
            endpoint,
            &request,
            NewConnection { socket, transport, client: *client, permit: None, head, is_compressed },
        );
    }
    if let Some((handover, taker)) = handed_over {
        return Ok(AttachedGet::HandedOver(outer, handover, taker));
    }
    match (transport, is_first) {
        (Transport::ServerSentEvents, true) => Ok(AttachedGet::EventStream(outer)),
        (Transport::ServerSentEvents, false) => Err(plain(StatusCode::CONFLICT, "")),
        (_, true) => Ok(AttachedGet::FirstPoll),
        (_, false) => Ok(AttachedGet::Poll(outer, wait)),
    }
}

async fn poll(endpoint: &Endpoint, outer: Arc<OuterHalf>, wait: Duration) -> Response {
    let _get = outer.begin_get();
    let in_flight = InFlight::new(endpoint.shared.clone());
    match outer.poll(wait).await {
        PollOutcome::Messages(messages) => poll_messages(messages, &outer, in_flight),
        PollOutcome::Empty => empty_poll(StatusCode::OK),
        PollOutcome::Replaced => empty_poll(StatusCode::NO_CONTENT),
        PollOutcome::Closed => {
            forget(endpoint, &outer);
            empty_poll(StatusCode::NO_CONTENT)
        }
    }
}

pub(crate) async fn post(
    endpoint: &Endpoint,
    (request, body): (Box<HubRequest>, Body),
    client: Box<ConnectingClient>,
) -> Response {
    if may_begin(endpoint, &request, &client) {
        endpoint.wait_for_link(&request.hub, request.routed.group()).await;
    }
    let found = endpoint.shared.http_transports.find_or_insert(&client.connection_id, || {
        let refused = (!offers_http_transports(&request.hub)).then_some(Transport::LongPolling);
        let connection = begin_transport(endpoint, &request, &client, refused, || {
            plain(StatusCode::METHOD_NOT_ALLOWED, "POST requests are not allowed for WebSocket connections.")
        })?;
        let pipe = take_pipe_permit(endpoint, &request.context.source);
        let pipe = pipe.inspect_err(|_| endpoint.shared.routes.remove(&client.connection_id))?;
        Ok(TransportPermits { connection, pipe: Some(pipe) })
    });
    let outer = match found {
        Ok(outer) => outer,
        Err(refusal) => return refusal,
    };
    // A send may wait for minutes.
    drop((request, client));
    match outer.send(body.into_data_stream()).await {
        Ok(()) => plain(StatusCode::OK, ""),
        Err(SendError::Closed) => plain(StatusCode::NOT_FOUND, ""),
        Err(SendError::Body(error)) if is_body_timeout(&error) => refuse_slow_body(endpoint),
        Err(SendError::Body(_)) => plain(StatusCode::BAD_REQUEST, "the body of the request broke off"),
    }
}

pub(crate) fn delete(endpoint: &Endpoint, client: &ConnectingClient) -> Response {
    let outer = endpoint.shared.http_transports.find(&client.connection_id);
    let is_here = outer.is_some() || endpoint.shared.routes.find(&client.connection_id).is_some();
    match outer.filter(|outer| outer.transport() == Some(Transport::LongPolling)) {
        Some(outer) => {
            outer.set_close_cause(Cause::ClientClosed);
            forget(endpoint, &outer);
            plain(StatusCode::ACCEPTED, "")
        }
        None if is_here => {
            plain(StatusCode::BAD_REQUEST, "Cannot terminate this connection using the DELETE endpoint.")
        }
        None => plain(StatusCode::NOT_FOUND, UNKNOWN_ID),
    }
}

/// Closes a connection at its client's request; later requests don't find it.
fn forget(endpoint: &Endpoint, outer: &Arc<OuterHalf>) {
    endpoint.shared.routes.retire(&outer.id);
    endpoint.shared.http_transports.remove(outer);
}

/// Whether a request would start a connection, and so should wait for an app server.
fn may_begin(endpoint: &Endpoint, request: &HubRequest, client: &ConnectingClient) -> bool {
    let found = endpoint.shared.http_transports.find(&client.connection_id);
    !request.hub.is_served_by(RouteChoice::group_name(request.routed.group().as_ref()))
        && !found.is_some_and(|outer| outer.has_begun())
}

/// Reserves the id of a new connection, and takes its permit.
///
/// # Errors
/// The refusal; `taken` if the connection is a WebSocket.
fn begin_transport(
    endpoint: &Endpoint,
    request: &HubRequest,
    client: &ConnectingClient,
    refused: Option<Transport>,
    taken: impl FnOnce() -> Response,
) -> Result<Option<Box<ClientPermit>>, Response> {
    let (routes, id) = (&endpoint.shared.routes, &client.connection_id);
    let unknown = || plain(StatusCode::NOT_FOUND, UNKNOWN_ID);
    if routes.find(id).is_some() {
        return Err(taken());
    }
    if !client.is_ours || !client.is_fresh {
        return Err(unknown());
    }
    routes.reserve(id).map_err(|error| match error {
        ReserveError::Taken => taken(),
        ReserveError::Unknown => unknown(),
    })?;
    // Checked last: a client of a closed connection should learn that, and not that new clients are refused.
    let refusal = refused.map(not_supported).or_else(|| endpoint.refuse_new_client(&request.hub, &request.routed));
    let permit = refusal.map_or_else(|| take_permit(endpoint, request, 0), Err);
    permit.inspect_err(|_| routes.remove(id))
}

fn offers_http_transports(hub: &Hub) -> bool {
    hub.settings().transports.iter().any(|transport| *transport != Transport::WebSockets)
}
