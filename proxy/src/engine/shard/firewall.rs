//! Method firewall: the operator's rules for client messages, applied before forwarding.
//!
//! ```text
//!  call ─► deny, allow, size ─► group ─► rate ─┬─ allowed ──► pending call, forwarded to the primary or a secondary
//!                                              └─ refused ─► error to the caller; its streams are dropped
//! ```
//!
//! Only kind, ids and method are parsed. A message that can't be parsed closes the connection.

use std::num::NonZeroU32;
use std::sync::Arc;

use tracing::{debug, enabled};
use trunkline_protocol::hub::{CallScan, MessageKind};

use super::assignments::secondary_clients::SecondaryChoice;
use super::connection::{REFUSED_UPLOADS_MAX, SECONDARY_UPLOADS_MAX};
use super::shard_core::ShardCore;
use super::shard_state::ShardState;
use super::slot::Slot;
use crate::engine::upstream::HomeLink;
use crate::ground::limits::{RatedCall, RatedCaller};
use crate::ground::routing::{HubRules, MethodVerdict};

#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    /// Forward to the client's primary.
    Home,
    /// Forward to a secondary.
    Secondary(HomeLink),
    /// Hold this and later messages: no app server of the group is available.
    Waits,
    /// Call of the method that follows a record.
    Follows,
    /// Drop: refused, or part of a refused call.
    Dropped,
    /// Too many open streams to calls, with the error text.
    TooMany(String),
}

/// Applies the rules to a client message: answers a refused call and tracks a forwarded one.
pub(crate) fn rule(
    state: &mut ShardState,
    slot: Slot,
    rules: &HubRules,
    message: &CallScan<'_>,
    bytes: usize,
) -> Verdict {
    if !message.kind.is_call() {
        return rule_on_rest(&mut state.core, slot, message);
    }
    let Some(target) = message.target.as_deref() else { return Verdict::Home };
    let verdict = rules.judge(target, bytes);
    if let MethodVerdict::Refused { rule, text } = verdict {
        return refuse_call(&mut state.core, slot, rules, (message, &rule), &text);
    }
    if rules.has_history() && state.core.is_follow(slot, target) {
        return Verdict::Follows;
    }
    let mut secondary = None;
    if let Some(group) = rules.group_of(target).filter(|group| state.core.is_beside_home(slot, group)) {
        match state.assignments.secondary_clients.secondary_for(
            &mut state.core,
            &mut state.assignments.reassignment,
            slot,
            group,
        ) {
            SecondaryChoice::Ready(link) => secondary = Some((group, link)),
            // Returns before the rate limit counts the call, which is checked again after the wait.
            SecondaryChoice::Waits => return Verdict::Waits,
            SecondaryChoice::Fails(text) => return answer_refused(&mut state.core, slot, message, &text),
        }
    }
    if let MethodVerdict::Limited { rule, method, per_second } = verdict
        && !is_within_rate(&state.core, slot, &rule, &method, per_second)
    {
        return refuse_call(&mut state.core, slot, rules, (message, &rule), &over_rate(&method, per_second));
    }
    if let Some(client) = state.core.connections.get_mut(slot) {
        client.cold_mut().refused_mut().allow(message);
    }
    match secondary {
        Some((group, link))
            if state.assignments.secondary_clients.begin_secondary_call(&mut state.core, slot, group, message) =>
        {
            Verdict::Secondary(link)
        }
        Some(_) => Verdict::TooMany(format!(
            "The client still sends over {SECONDARY_UPLOADS_MAX} streams to calls of methods that one app server runs."
        )),
        None => {
            if let Some(id) = &message.invocation_id {
                state.core.begin_call(slot, id, message.kind);
            }
            Verdict::Home
        }
    }
}

/// Verdict on messages other than calls: parts of a call follow that call.
fn rule_on_rest(core: &mut ShardCore, slot: Slot, message: &CallScan<'_>) -> Verdict {
    if message.kind == MessageKind::CancelInvocation
        && !core.followers.is_empty()
        && message.invocation_id.as_deref().is_some_and(|id| core.cancel_follow(slot, id))
    {
        return Verdict::Dropped;
    }
    let Some(client) = core.connections.live_mut(slot) else { return Verdict::Home };
    if client.cold_mut().refused_mut().claim(message) {
        return Verdict::Dropped;
    }
    let owner = client.assignments_mut().secondaries_mut().and_then(|secondaries| secondaries.owner_of(message));
    owner.map_or(Verdict::Home, |secondary| Verdict::Secondary(secondary.link.clone()))
}

/// Counts a call against this rate. Connections of one user are counted together across shards.
fn is_within_rate(core: &ShardCore, slot: Slot, rule: &str, method: &str, per_second: u32) -> bool {
    let (Some(per_second), Some(client)) = (NonZeroU32::new(per_second), core.connections.get(slot)) else {
        return false;
    };
    let user = core.connections.user_of(client);
    let caller = user.map_or(RatedCaller::Connection(&client.id), RatedCaller::User);
    let shared = &core.context.shared;
    let hub = client.home().hub_identity().key();
    shared.limits.methods.take(hub, RatedCall { rule, method, caller }, per_second, shared.uptime())
}

fn refuse_call(
    core: &mut ShardCore,
    slot: Slot,
    rules: &HubRules,
    (call, rule): (&CallScan<'_>, &Arc<str>),
    text: &str,
) -> Verdict {
    rules.count_refusal(rule);
    if enabled!(tracing::Level::DEBUG) && core.context.may_log() {
        debug!(slot, rule = &**rule, text, "call refused");
    }
    answer_refused(core, slot, call, text)
}

fn answer_refused(core: &mut ShardCore, slot: Slot, call: &CallScan<'_>, text: &str) -> Verdict {
    let Some(client) = core.connections.live_mut(slot) else { return Verdict::Dropped };
    let has_room = client.cold_mut().refused_mut().add_call(call);
    if let Some(id) = &call.invocation_id {
        core.answer_with_error(slot, id, text);
    }
    if has_room {
        return Verdict::Dropped;
    }
    Verdict::TooMany(format!("The client still sends over {REFUSED_UPLOADS_MAX} streams to calls that were refused."))
}

/// Error text for an exceeded rate, with the method as the rule writes it.
fn over_rate(method: &str, per_second: u32) -> String {
    format!("The method '{method}' can't be called more than {per_second} times a second: the server's rules limit it.")
}
