//! Authentication refresh: an open client connection receives the claims and expiry of a newer authentication
//! of its user.
//!
//! ```text
//!  app server, or the client itself ── connection token, claims, expiry ──► any node ──► node with the connection
//!     claims are stored for the next app server, the expiry is updated, current app servers receive the claims
//! ```

use bytestring::ByteString;
use trunkline_protocol::dial_in::long_claims;
use trunkline_protocol::fleet::RefreshedLogIn;
use trunkline_protocol::service::{
    AckStatus, ConnectionClaims, OpenConnection, RefreshAuth, ServiceMessage, claims_to_payload,
};
use trunkline_protocol::wire::SET_AT_CLAIM;

use crate::engine::shard::command::PendingAck;
use crate::engine::shard::shard_core::ShardCore;
use crate::engine::shard::shard_state::ShardState;
use crate::engine::shard::shared::seams::RefreshRefused;
use crate::engine::shard::slot::Slot;
use crate::ground::auth::ClientTerms;
use crate::ground::metrics::RefreshOutcome;

/// Applies the claims and expiry of a newer authentication, if it is for the same user.
pub(crate) fn refresh_auth(state: &mut ShardState, slot: Slot, refresh: RefreshAuth, ack: &PendingAck) {
    let Some(client) = state.core.connections.live(slot) else { return };
    // Another node has the connection and replies.
    if client.cold().resumption().is_some_and(|resumption| resumption.ownership().is_given()) {
        return;
    }
    let Some(hub) = state.core.hub_of(client) else { return };
    let (id, user) = (ByteString::from(&*client.id), state.core.connections.user_of(client));
    let counters = &state.core.context.counters.refreshes;
    let in_force = client.cold().read_opening().map(|open| open.claims).unwrap_or_default();
    let checked = state.core.context.shared.access.check_refresh(user, &refresh.claims);
    let checked =
        checked.and_then(|()| if is_older(&refresh.claims, &in_force) { Err(RefreshRefused::Older) } else { Ok(()) });
    if let Err(refused) = checked {
        let (outcome, status) = match refused {
            RefreshRefused::TooLarge { .. } => (RefreshOutcome::TooLarge, AckStatus::InternalServerError),
            RefreshRefused::OtherUser => (RefreshOutcome::OtherUser, AckStatus::Forbidden),
            RefreshRefused::Older => (RefreshOutcome::Older, AckStatus::Forbidden),
            RefreshRefused::Revoked => (RefreshOutcome::Revoked, AckStatus::Forbidden),
        };
        counters.of(outcome).increment();
        return ack.refused(status, refused.to_string());
    }
    counters.of(RefreshOutcome::Refreshed).increment();
    let terms = ClientTerms::of(&refresh.claims);
    let closes = state.assignments.token_expiries.expiry_of(slot).is_some()
        || terms.closes_on_expiry && hub.capabilities().tokens_hold_terms
        || hub.settings().close_on_token_expiry;
    let is_end = closes && refresh.expires_s < RefreshAuth::NO_END_S;
    let ends_s = u64::try_from(refresh.expires_s).ok().filter(|_| is_end);
    ack.found_with(claims_to_payload(&refresh.claims));
    let mut kept = refresh.claims.clone();
    if hub.capabilities().takes_service_claims {
        let long = long_claims(&refresh.claims).map(|(name, value)| (ByteString::from(name), value));
        kept.extend(long.filter(|claim| !refresh.claims.contains(claim)));
    }
    let log_in = RefreshedLogIn { claims: kept, expires_s: ends_s };
    let Some(client) = state.core.connections.live_mut(slot) else { return };
    if let Some(resumption) = client.cold_mut().resumption_mut() {
        resumption.refresh(&log_in);
    }
    let update = ConnectionClaims { connection_id: id, claims: refresh.claims };
    let update = ServiceMessage::UpdateConnectionClaims(update);
    client.home().send(&update);
    client
        .assignments()
        .secondaries()
        .into_iter()
        .flat_map(|secondaries| secondaries.iter())
        .for_each(|secondary| secondary.link.send(&update));
    keep_log_in(state, slot, log_in);
}

/// Whether claims are of a log-in issued before the one in force. Claims that REST has set hold until a token issued
/// after them; times of tokens are in whole seconds, so one of the same second may have been issued earlier.
fn is_older(newer: &[(ByteString, ByteString)], in_force: &[(ByteString, ByteString)]) -> bool {
    let time = |claims: &[(ByteString, ByteString)], wanted: &str| {
        claims.iter().find(|(name, _)| name == wanted).and_then(|(_, time)| time.parse::<f64>().ok())
    };
    let issued = |claims: &_| time(claims, "asrs.u.iat").or_else(|| time(claims, "iat"));
    match (time(newer, SET_AT_CLAIM), time(in_force, SET_AT_CLAIM)) {
        (Some(_), _) => false,
        (None, Some(set_s)) => issued(newer).is_none_or(|issued_s| issued_s <= set_s),
        (None, None) => issued(newer).zip(issued(in_force)).is_some_and(|(newer_s, former_s)| newer_s < former_s),
    }
}

/// Stores the claims for the next app server, and sets the expiry, if any.
pub(crate) fn keep_log_in(state: &mut ShardState, slot: Slot, log_in: RefreshedLogIn) {
    let RefreshedLogIn { claims, expires_s } = log_in;
    if let Some(expires_s) = expires_s {
        state.assignments.token_expiries.set(slot, expires_s);
    }
    let Some(client) = state.core.connections.live(slot) else { return };
    let weight = client.cold().head();
    let Some(open) = client.cold().read_opening() else { return };
    let opening = state.core.intern_opening(&OpenConnection { claims, ..open }, weight.clone());
    if let Some(client) = state.core.connections.live_mut(slot) {
        client.cold_mut().keep_opening(Some(opening), weight);
    }
}

/// Replies with a client's claims.
pub(crate) fn report_claims(core: &ShardCore, slot: Slot, ack: &PendingAck) {
    let opening = core.connections.live(slot).and_then(|client| client.cold().read_opening());
    opening.iter().for_each(|opening| ack.found_with(claims_to_payload(&opening.claims)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_token_is_refused_and_claims_of_rest_hold_until_a_token_issued_after_them() {
        let of = |list: &[(&'static str, u32)]| -> Vec<_> {
            list.iter().map(|(name, time)| (ByteString::from(*name), ByteString::from(time.to_string()))).collect()
        };
        let (first, second, by_rest) = (of(&[("iat", 100)]), of(&[("iat", 200)]), of(&[(SET_AT_CLAIM, 150)]));
        let (unknown, of_app) = (of(&[("role", 1)]), of(&[("iat", 300), ("asrs.u.iat", 100)]));
        for (newer, in_force) in [(&first, &second), (&of_app, &second), (&first, &by_rest), (&unknown, &by_rest)] {
            assert!(is_older(newer, in_force), "{newer:?} {in_force:?}");
        }
        assert!(is_older(&of(&[("iat", 150)]), &by_rest), "perhaps issued earlier in the same second");
        for (newer, in_force) in [(&second, &first), (&first, &first), (&second, &by_rest), (&unknown, &second)] {
            assert!(!is_older(newer, in_force), "{newer:?} {in_force:?}");
        }
        for in_force in [&first, &second, &by_rest, &of(&[(SET_AT_CLAIM, 900)])] {
            assert!(!is_older(&by_rest, in_force), "REST itself always counts: {in_force:?}");
        }
    }
}
