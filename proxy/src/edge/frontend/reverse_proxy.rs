//! Reverse proxy: forwards requests not meant for a hub to app servers, and requests of other nodes' connections to
//! their owners.
//!
//! Bodies are streamed, so a slow reader slows down the other end. Connections are pooled per shard.

pub(super) mod next_hop;
pub(super) mod owner_head;
pub(super) mod owner_hop;
pub(super) mod pass_through;
mod relayed_body;

use trunkline_protocol::id::routing_key;
use trunkline_protocol::token::ConnectionToken;

use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hub_request::ConnectingClient;
use crate::edge::frontend::request_context::RequestContext;
use crate::ground::clock::unix_seconds;
use crate::ground::limits::HopPermit;
use crate::ground::metrics::HopRefusal;
use crate::ground::net::address::Address;

/// Address of the owner of a connection token, if it is another reachable node. Specific to its process start: another
/// start at that address must not share failures and pooled connections.
pub(crate) fn reachable_owner(
    endpoint: &Endpoint,
    context: &RequestContext,
    token: &ConnectionToken,
) -> Option<Address> {
    let shared = &endpoint.shared;
    if !shared.settings.relay.forward || token.boot == shared.boot || context.is_forwarded {
        return None;
    }
    let address = Address::of_other_node(&token.address);
    // If this node now has the owner's address, the owner is gone.
    let address: Option<Address> = address.filter(|address| shared.settings.advertise.as_ref() != Some(address));
    address.map(|address| address.of_start(&token.boot))
}

/// Takes a permit for a request to the owner of a token.
///
/// # Errors
/// The reason, if it may not be sent.
pub(crate) fn take_owner_permit(endpoint: &Endpoint, client: &ConnectingClient) -> Result<HopPermit, HopRefusal> {
    let token = client.token.as_ref().filter(|token| !token.is_too_old_to_carry(unix_seconds()));
    let token = token.ok_or(HopRefusal::TooOld);
    // An invalid id was never issued, so the connection can't exist.
    let connection = routing_key(&client.connection_id).ok_or(HopRefusal::OwnerGone);
    let permit = token.and_then(|token| endpoint.shared.limits.hops.begin(&token.boot, connection?));
    permit.inspect_err(|refusal| endpoint.counters.relay.hops_refused.of(*refusal).increment())
}
