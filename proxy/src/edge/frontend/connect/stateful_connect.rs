//! Connect with a stateful reconnect token: resumes an open connection, or starts one with permission of the node that
//! issued the token.
//!
//! ```text
//!  upgrade ──► open here? ── yes ──────────────────────────────────────────────────► resume
//!                 └ no ──► fresh token of another node? ─► does it release the id? ── yes ──► start
//!                                   └ no ──┐                  └ no, already used, or no answer
//!                                          ▼                  ▼
//!                                   other nodes: who has it? ── found ──► moves here, resume
//!                                          └ not found ──► our own fresh token: start; used, or its node gone: 404
//! ```
//!
//! On a 404, official clients negotiate again immediately. Without these queries, a returning client of a dead node
//! would be treated as new, but it sends no handshake and would stay silent. A new client of a node that dies right
//! after the negotiation gets a 404, too.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use trunkline_protocol::manifest::Transport;

use crate::edge::frontend::connect::may_use;
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hub_request::{ConnectingClient, HubRequest};
use crate::edge::frontend::identify::UNKNOWN_ID;
use crate::edge::frontend::plain_response::plain;
use crate::edge::frontend::request_context::RequestContext;
use crate::edge::frontend::request_limit::take_permit;
use crate::edge::frontend::reservation;
use crate::engine::shard::moving::claim;
use crate::engine::shard::{
    Location, Reachability, RouteTable, Serial, ShardSender, Slot, SoughtConnection, TakenOver,
};
use crate::engine::upstream::Hub;
use crate::ground::clock::unix_seconds;
use crate::ground::limits::ClientPermit;
use crate::ground::metrics::ReservationOutcome;

/// Timeout for the issuing node's permission, which it answers from a table. A slower live node is queried over its
/// link.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// Timeout for a late node, which may be busy but is probably frozen.
const LATE_LEAVE_TIMEOUT: Duration = Duration::from_millis(300);

pub(super) enum StatefulConnect {
    /// Resumes the client's open connection.
    Open(Claim),
    /// Starts a new connection, if permitted otherwise.
    New(NewTerms),
}

/// Permit and permission of a new connection, as far as obtained.
#[derive(Debug, Default)]
pub(super) struct NewTerms {
    /// Permit of the client. The inner `None` means that none is needed, the outer that none was taken.
    pub(super) permit: Option<Option<Box<ClientPermit>>>,
    /// Answer of the node that issued the token, if queried.
    pub(super) asked: Option<ReservationOutcome>,
}

/// Open connection claimed by its returning client.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) shard: ShardSender,
    pub(super) place: (Slot, Serial),
    pub(super) permit: Option<Box<ClientPermit>>,
}

/// Determines the kind of a connect with such a token.
pub(super) async fn find(
    endpoint: &Endpoint,
    request: &HubRequest,
    client: &ConnectingClient,
) -> Result<StatefulConnect, Response> {
    let (routes, id) = (&endpoint.shared.routes, &client.connection_id);
    let location = routes.find(id);
    if let Some(location) = location
        && let Some((shard, place)) = claim_here(endpoint, &request.hub, client, location).await
    {
        return Ok(StatefulConnect::Open(Claim { shard, place, permit: take_permit(endpoint, request, 1)? }));
    }
    if routes.find(id).is_some() {
        return Ok(StatefulConnect::New(NewTerms::default()));
    }
    find_elsewhere(endpoint, request, client).await
}

async fn find_elsewhere(
    endpoint: &Endpoint,
    request: &HubRequest,
    client: &ConnectingClient,
) -> Result<StatefulConnect, Response> {
    let (others, token) = (endpoint.shared.other_nodes(), client.token.as_deref());
    let is_sought = others.is_linked() && token.is_some_and(|token| !token.is_too_old_to_carry(unix_seconds()));
    let needs_leave = reservation::has_owner_elsewhere(endpoint, client) && may_begin(endpoint, request, client);
    if !is_sought && !needs_leave {
        return Ok(StatefulConnect::New(NewTerms::default()));
    }
    // Takes the permit first, before other nodes are queried.
    let permit = take_permit(endpoint, request, 0)?;
    let boot = token.map(|token| token.boot.as_str()).unwrap_or_default();
    let asked = match needs_leave {
        true => Some(ask_for_leave(endpoint, &request.context, client, others.reachability(boot)).await),
        false => None,
    };
    if asked == Some(ReservationOutcome::Granted) {
        return Ok(StatefulConnect::New(NewTerms { permit: Some(permit), asked }));
    }
    // A token of this node with an unknown id is unused, unless a node opened the connection without permission.
    let is_new = client.is_ours && client.is_fresh && !endpoint.shared.routes.knows(&client.connection_id);
    let sought = if is_new { SoughtConnection::New } else { SoughtConnection::Return };
    let taken = if is_sought { take_over(endpoint, &request.hub, client, sought).await } else { TakenOver::Unclear };
    let unknown = || plain(StatusCode::NOT_FOUND, UNKNOWN_ID);
    match (taken, asked) {
        (TakenOver::Here(slot, serial), _) => {
            Ok(StatefulConnect::Open(Claim { shard: endpoint.shard.clone(), place: (slot, serial), permit }))
        }
        (TakenOver::Nowhere | TakenOver::Unclear, None) => {
            Ok(StatefulConnect::New(NewTerms { permit: Some(permit), asked }))
        }
        // The issuing node is alive, though not at its client port, and has reported over its link that it does not
        // have the connection.
        (TakenOver::Nowhere, Some(ReservationOutcome::Unanswered))
            if others.reachability(boot) == Reachability::Alive =>
        {
            Ok(StatefulConnect::New(NewTerms { permit: Some(permit), asked }))
        }
        (TakenOver::Failed | TakenOver::Nowhere | TakenOver::Unclear, _) => Err(unknown()),
    }
}

/// Whether a client may start a connection here, as far as this node can decide.
fn may_begin(endpoint: &Endpoint, request: &HubRequest, client: &ConnectingClient) -> bool {
    client.is_fresh
        && !request.dial_in.as_ref().is_some_and(|client| client.comes_back)
        && may_use(&request.hub, &client.user, Transport::WebSockets)
        && endpoint.refuse_new_client(&request.hub, &request.routed).is_none()
}

/// Queries the issuing node's permission, unless the node is known to be dead.
async fn ask_for_leave(
    endpoint: &Endpoint,
    context: &RequestContext,
    client: &ConnectingClient,
    reachability: Reachability,
) -> ReservationOutcome {
    let limit = match reachability {
        Reachability::Refused => {
            endpoint.counters.relay.reservations.of(ReservationOutcome::Unanswered).increment();
            return ReservationOutcome::Unanswered;
        }
        Reachability::Late => LATE_LEAVE_TIMEOUT,
        Reachability::Alive | Reachability::Unknown | Reachability::Alone => LEAVE_TIMEOUT,
    };
    reservation::ask(endpoint, context, client, limit.min(endpoint.shared.settings.relay.hop_timeout)).await
}

async fn claim_here(
    endpoint: &Endpoint,
    hub: &Hub,
    client: &ConnectingClient,
    location: Location,
) -> Option<(ShardSender, (Slot, Serial))> {
    let shard = endpoint.shared.shards().get(usize::from(location.shard))?.clone();
    let (hub, id) = (hub.index(), client.connection_id.clone());
    let place = shard.inspect(move |state| claim(state, hub, &id)).await.flatten()?;
    Some((shard, place))
}

/// Id reserved while other nodes are queried. Released if the caller gives up.
struct ReservedId<'a> {
    routes: &'a RouteTable,
    id: &'a str,
}

impl Drop for ReservedId<'_> {
    fn drop(&mut self) {
        self.routes.remove_reserved(self.id);
    }
}

async fn take_over(
    endpoint: &Endpoint,
    hub: &Arc<Hub>,
    client: &ConnectingClient,
    sought: SoughtConnection,
) -> TakenOver {
    let (shared, shard, id) = (&endpoint.shared, &endpoint.shard, &client.connection_id);
    if shared.routes.reserve_return(id).is_err() {
        return TakenOver::Unclear;
    }
    let _reserved = ReservedId { routes: &shared.routes, id };
    shared.other_nodes().take_over(hub, id, shard, sought).await
}
