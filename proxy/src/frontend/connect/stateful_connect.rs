//! Connect with a token for stateful reconnect: goes on with an open connection, or begins one by leave of the node
//! that made the token.
//!
//! ```text
//!  upgrade ──► open here? ── yes ──────────────────────────────────────────────────► goes on
//!                 └ no ──► fresh token of another node? ─► that one gives the id away? ── yes ──► begins
//!                                   └ no ──┐                   └ no, it was used, or no answer
//!                                          ▼                   ▼
//!                                   other nodes: who has it? ── one ──► moves here, goes on
//!                                          └ nobody ──► its own fresh token begins; a used one, and one whose node is gone: 404
//! ```
//!
//! After 404 official clients negotiate anew at once. Without the question a client whose node has just died would be
//! taken for a new one: it sends no handshake, and is mute. A new client that has negotiated with a node in the moment
//! before that dies gets 404, too.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use trunkline_protocol::manifest::Transport;

use crate::clock::unix_seconds;
use crate::frontend::connect::may_use;
use crate::frontend::endpoint::Endpoint;
use crate::frontend::identify::{ConnectingClient, UNKNOWN_ID};
use crate::frontend::plain_response::plain;
use crate::frontend::request_limit::{take_permit, take_permit_again};
use crate::frontend::reservation;
use crate::frontend::visitor::ComesBack;
use crate::limits::AddressPermit;
use crate::metrics::ReservationOutcome;
use crate::shard::moving::claim;
use crate::shard::{Location, Reachability, RouteTable, Serial, ShardSender, Slot, SoughtConnection, TakenOver};
use crate::upstream::Hub;

/// Time in which the node that made a token says whether it opens a connection: it answers from a table. One that is
/// alive and takes longer is asked by its link.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// Time in which a late node says so: it may be busy, and is frozen more likely.
const LATE_LEAVE_TIMEOUT: Duration = Duration::from_millis(300);

/// How a connect with a token for stateful reconnect goes on.
pub(super) enum StatefulConnect {
    /// With the open connection of its client.
    Open(Claim),
    /// With a new connection, if nothing else is against it.
    New(NewTerms),
}

/// Permit and leave of a new connection, as far as it has got them.
#[derive(Debug, Default)]
pub(super) struct NewTerms {
    /// Permit of its client's address; `None` if none was taken, or none is needed. The outer one tells which.
    pub(super) permit: Option<Option<Box<AddressPermit>>>,
    /// Answer of the node that made its token, if that was asked.
    pub(super) asked: Option<ReservationOutcome>,
}

/// Open connection of a client that comes back to it.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) shard: ShardSender,
    pub(super) place: (Slot, Serial),
    pub(super) permit: Option<Box<AddressPermit>>,
}

/// Finds out what a connect with such a token is.
///
/// # Errors
/// The refusal of a client whose connection is not to be had, and that has to negotiate anew.
pub(super) async fn find(
    endpoint: &Endpoint,
    hub: &Arc<Hub>,
    request: &mut Request,
    client: &ConnectingClient,
) -> Result<StatefulConnect, Response> {
    let (routes, id) = (&endpoint.shared.routes, &client.connection_id);
    let location = routes.find(id);
    if let Some(location) = location
        && let Some((shard, place)) = claim_here(endpoint, hub, client, location).await
    {
        return Ok(StatefulConnect::Open(Claim { shard, place, permit: take_permit_again(endpoint, request)? }));
    }
    if routes.find(id).is_some() {
        return Ok(StatefulConnect::New(NewTerms::default()));
    }
    find_elsewhere(endpoint, hub, request, client).await
}

/// Finds out what a connect is whose connection is not here.
async fn find_elsewhere(
    endpoint: &Endpoint,
    hub: &Arc<Hub>,
    request: &mut Request,
    client: &ConnectingClient,
) -> Result<StatefulConnect, Response> {
    let (others, token) = (endpoint.shared.other_nodes(), client.token.as_deref());
    let is_sought = others.are_any() && token.is_some_and(|token| !token.is_too_old_to_carry(unix_seconds()));
    let needs_leave = reservation::has_owner_elsewhere(endpoint, client) && may_begin(endpoint, hub, request, client);
    if !is_sought && !needs_leave {
        return Ok(StatefulConnect::New(NewTerms::default()));
    }
    // A permit first of all: others are asked for it.
    let permit = take_permit(endpoint, request)?;
    let boot = token.map(|token| token.boot.as_str()).unwrap_or_default();
    let asked = match needs_leave {
        true => Some(ask_for_leave(endpoint, request, client, others.reachability(boot)).await),
        false => None,
    };
    if asked == Some(ReservationOutcome::Granted) {
        return Ok(StatefulConnect::New(NewTerms { permit: Some(permit), asked }));
    }
    // One that this node has made and does not know has not begun, but where a node has opened it without being asked.
    let is_new = client.is_ours && client.is_fresh && !endpoint.shared.routes.knows(&client.connection_id);
    let sought = if is_new { SoughtConnection::New } else { SoughtConnection::Return };
    let taken = if is_sought { take_over(endpoint, hub, client, sought).await } else { TakenOver::Unclear };
    let unknown = || plain(StatusCode::NOT_FOUND, UNKNOWN_ID);
    match (taken, asked) {
        (TakenOver::Here(slot, serial), _) => {
            Ok(StatefulConnect::Open(Claim { shard: endpoint.shard.clone(), place: (slot, serial), permit }))
        }
        (TakenOver::Nowhere | TakenOver::Unclear, None) => {
            Ok(StatefulConnect::New(NewTerms { permit: Some(permit), asked }))
        }
        // Its node can't be asked at its port for clients, but is there, and has said by its link that it does not have
        // it.
        (TakenOver::Nowhere, Some(ReservationOutcome::Unanswered))
            if others.reachability(boot) == Reachability::Alive =>
        {
            Ok(StatefulConnect::New(NewTerms { permit: Some(permit), asked }))
        }
        (TakenOver::Failed | TakenOver::Nowhere | TakenOver::Unclear, _) => Err(unknown()),
    }
}

/// Whether a client may begin a connection here, as far as that is known without its node.
fn may_begin(endpoint: &Endpoint, hub: &Hub, request: &Request, client: &ConnectingClient) -> bool {
    client.is_fresh
        && request.extensions().get::<ComesBack>().is_none()
        && may_use(hub, &client.user, Transport::WebSockets)
        && endpoint.refuse_new_client(hub, request.extensions()).is_none()
}

/// Asks the node that made a token whether it opens a connection, unless that node is known to be dead.
async fn ask_for_leave(
    endpoint: &Endpoint,
    request: &mut Request,
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
    reservation::ask(endpoint, request, client, limit.min(endpoint.shared.settings.relay.hop_timeout)).await
}

/// Claims the connection of a client that comes back, at the shard that has it.
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

/// Id that is reserved while other nodes are asked for it, and no longer: whoever asks may give up.
struct ReservedId<'a> {
    routes: &'a RouteTable,
    id: &'a str,
}

impl Drop for ReservedId<'_> {
    fn drop(&mut self) {
        self.routes.remove_reserved(self.id);
    }
}

/// Takes an open connection over that another node has.
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
