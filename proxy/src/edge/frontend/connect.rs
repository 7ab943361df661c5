//! Connect by any transport: hands a new connection to this shard.

pub(super) mod http_transport_request;
mod http_transport_response;
mod stateful_connect;
pub(super) mod websocket_upgrade;

use axum::response::Response;
use bytestring::ByteString;
use http::StatusCode;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::OpenConnection;
use trunkline_protocol::wire::PRIVATE_HEADER_PREFIX;

use crate::edge::frontend::bearer::claims;
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hub_request::{ConnectingClient, HubRequest};
use crate::edge::frontend::plain_response::{because, plain};
use crate::edge::frontend::request::{Headers, headers};
use crate::edge::frontend::request_trace;
use crate::engine::shard::{ClientStream, PendingConnection, ShardMessage};
use crate::engine::upstream::Hub;
use crate::ground::auth::{ClientTerms, User};
use crate::ground::limits::{ClientPermit, HeadWeight};

/// Header naming the client's node, for app servers that dial in.
const INSTANCE_ID_HEADER: &str = "Asrs-Instance-Id";

pub(crate) struct NewConnection {
    pub(super) socket: ClientStream,
    pub(super) transport: Transport,
    pub(super) client: ConnectingClient,
    pub(super) permit: Option<Box<ClientPermit>>,
    /// Weight of its request head, if large.
    pub(super) head: Option<HeadWeight>,
    /// Its WebSocket negotiated compression.
    pub(super) is_compressed: bool,
}

pub(crate) fn admit(endpoint: &Endpoint, request: &HubRequest, new: NewConnection) {
    let NewConnection { socket, transport, client, permit, head, is_compressed } = new;
    let (hub, traced) = (&request.hub, (&request.parts.headers, request.arrived_ns));
    let mut open = opening(endpoint, request, (&client, transport));
    let trace = request_trace::connect(endpoint, hub, traced, &client, (&mut open, transport));
    let terms = terms(hub, &client.user);
    let ends_s = terms.authentication_ends_s.or(client.user.expires_s);
    let expires_s = ends_s.filter(|_| hub.settings().close_on_token_expiry || terms.closes_on_expiry);
    let (hub, user) = (hub.clone(), client.user.id);
    let stream = Some(socket);
    let wants_stateful = client.token.as_ref().is_some_and(|token| token.is_stateful);
    let pending = PendingConnection {
        stream,
        transport,
        hub,
        open,
        is_negotiated: client.token.is_some(),
        user,
        permit,
        head,
        expires_s,
        terms,
        wants_stateful,
        is_compressed,
        verified_at: request.verified_at,
        claimed: None,
        group: request.routed.group(),
        trace: trace.map(Box::new),
    };
    request.routed.count();
    endpoint.shard.put(ShardMessage::Accept(Box::new(pending)));
}

/// Open frame of a new client connection, without its hub protocol.
fn opening(
    endpoint: &Endpoint,
    request: &HubRequest,
    (client, transport): (&ConnectingClient, Transport),
) -> OpenConnection {
    let HubRequest { hub, parts, context, .. } = request;
    OpenConnection {
        connection_id: client.connection_id.as_str().into(),
        claims: if hub.capabilities().takes_service_claims { all_claims(&client.user) } else { claims(&client.user) },
        headers: headers_for(endpoint, request, transport),
        query: context.query.for_hub(&parts.uri),
        protocol: None,
    }
}

pub(crate) fn terms(hub: &Hub, user: &User) -> ClientTerms {
    if hub.capabilities().tokens_hold_terms { ClientTerms::of(&user.claims) } else { ClientTerms::default() }
}

/// Whether a client may use a transport: the hub must offer it, and the token allow it.
pub(crate) fn may_use(hub: &Hub, user: &User, transport: Transport) -> bool {
    hub.settings().transports.contains(&transport) && terms(hub, user).allow(transport)
}

/// Headers for the hub's app server, without private ones if it does not support them.
fn headers_for(endpoint: &Endpoint, request: &HubRequest, transport: Transport) -> Headers {
    let mut headers = headers(&request.parts.headers, request.context.source.peer, transport);
    if !request.hub.capabilities().takes_private_headers {
        headers.retain(|(name, _)| !name.starts_with(PRIVATE_HEADER_PREFIX));
        let node = ByteString::from(endpoint.shared.settings.node.as_str());
        headers.push((ByteString::from_static(INSTANCE_ID_HEADER), vec![node]));
    }
    headers
}

/// All claims of a token including the service's; the app server's SDK reads and removes those.
fn all_claims(user: &User) -> Vec<(ByteString, ByteString)> {
    user.claims.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect()
}

/// Creates the refusal of a request with a different transport from the connection's.
pub(crate) fn changed_transport() -> Response {
    let answer = plain(StatusCode::BAD_REQUEST, "Cannot change transports mid-connection");
    because(Cause::TransportRefused, answer)
}

pub(crate) fn not_supported(transport: Transport) -> Response {
    let text = format!("{} transport not supported by this end point type", transport.name());
    because(Cause::TransportRefused, plain(StatusCode::NOT_FOUND, text))
}
