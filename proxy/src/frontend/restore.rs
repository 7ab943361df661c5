//! Restore claim: a new client presents the connection token of its lost connection to get back its state.
//!
//! ```text
//!  negotiate?restore=OLD ──► sealed by this fleet? ─► of this hub? ─► same user? ──► claim in the new token
//!                                      └──────────────────┴──── no ─────┴──► nothing is restored, no refusal
//! ```
//!
//! Possession of the token is the proof. Its age is not checked, because app servers keep state for a limited time.

use tracing::debug;
use trunkline_protocol::token::{ConnectionToken, RestoreClaim, UserBinding};
use trunkline_protocol::wire::RESTORE_PARAMETER;

use crate::auth::User;
use crate::clock::unix_seconds;
use crate::frontend::endpoint::Endpoint;
use crate::frontend::hub_request::{HubRequest, NewClient};
use crate::metrics::RestoreOutcome;
use crate::shard::short;
use crate::upstream::Hub;

/// Reads the lost connection claimed by a request of this user; `None` without a claim or a right to it.
pub(super) fn claim(endpoint: &Endpoint, request: &HubRequest, client: &NewClient) -> Option<Box<RestoreClaim>> {
    let hub = &request.hub;
    let sealed = request.context.query.value(RESTORE_PARAMETER).filter(|sealed| !sealed.is_empty())?;
    match judge(endpoint, hub, sealed, client) {
        Ok(claim) => Some(Box::new(claim)),
        Err(problem) => {
            endpoint.counters.restores.of(RestoreOutcome::Refused).increment();
            debug!(hub = hub.name(), problem, "lost connection not restored");
            None
        }
    }
}

fn judge(
    endpoint: &Endpoint,
    hub: &Hub,
    sealed: &str,
    NewClient { user, binding, .. }: &NewClient,
) -> Result<RestoreClaim, &'static str> {
    if !hub.capabilities().restores_connections {
        return Err("app servers that dial in store no state");
    }
    let lost = ConnectionToken::open(sealed, &endpoint.shared.settings.keys)
        .map_err(|_| "the token is invalid, or from another fleet")?;
    if !lost.hub.eq_ignore_ascii_case(&hub.settings().path) {
        return Err("the token is for another hub");
    }
    let (claims, made_s) = (lost.user_claims(), lost.made_s());
    let ConnectionToken { user: named, expires_s, restores, .. } = lost;
    let named = named.map(|id| User { id: Some(id), claims, expires_s });
    // A connection with a restored user has none in its own token.
    let of_lost = named.or_else(|| restores.and_then(|claim| claim.user)).unwrap_or_default();
    let now_s = unix_seconds();
    let is_over = of_lost.expires_s.is_some_and(|expires_s| expires_s <= now_s);
    let is_revoked = || endpoint.admission.revocations.void_log_in(of_lost.id.as_deref(), made_s, now_s);
    let needs_access_token = lost.binding == UserBinding::AccessToken;
    let user = match &user.id {
        None if needs_access_token && *binding != UserBinding::AccessToken => {
            return Err("an access token shows its user");
        }
        shown if *shown == of_lost.id => None,
        Some(_) => return Err("the token is for another user"),
        None if needs_access_token => return Err("an access token shows its user"),
        None if is_over => return Err("the user's token has expired"),
        None if is_revoked() => return Err("the tokens of the user were revoked"),
        None => Some(of_lost),
    };
    let connection_id = lost.connection_id.unwrap_or_else(|| sealed.to_owned());
    debug!(hub = hub.name(), connection = short(&connection_id), "client requests the state of a lost connection");
    Ok(RestoreClaim { connection_id, user })
}
