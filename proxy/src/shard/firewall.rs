//! Method firewall: the operator's rules about single messages of clients, before they go up.
//!
//! ```text
//!  call ─► deny, allow, size ─► rate ─┬─ within ──► pending call, goes up
//!                                     └─ refused ─► error to its caller; what belongs to the call is dropped
//! ```
//!
//! Only kind, ids and method are read. What can't be read goes up: no app server finds a method in it.

use std::num::NonZeroU32;

use tracing::{debug, enabled};
use trunkline_protocol::hub::CallScan;

use super::connection::REFUSED_UPLOADS_MAX;
use super::slot::Slot;
use super::state::ShardState;
use crate::limits::{RatedCall, RatedCaller};
use crate::routing::{HubRules, MethodVerdict};

/// Ruling about a message of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// It goes up.
    Up,
    /// It does not go up: it is refused, or belongs to a refused call.
    Dropped,
    /// The client goes on sending to too many refused calls.
    TooManyUploads,
}

/// Error of a client that sends to too many refused calls at a time.
#[must_use]
pub(crate) fn too_many_uploads() -> String {
    format!("The client still sends over {REFUSED_UPLOADS_MAX} streams to calls that the server's rules have refused.")
}

impl ShardState {
    /// Rules on a message of a client, and answers a call that it refuses.
    pub(crate) fn rule(&mut self, slot: Slot, rules: &HubRules, message: &CallScan<'_>, bytes: usize) -> Ruling {
        let Some(client) = self.connections.live_mut(slot) else { return Ruling::Up };
        if !message.kind.is_call() {
            return if client.cold.refused.take(message) { Ruling::Dropped } else { Ruling::Up };
        }
        let Some(target) = message.target.as_deref() else { return Ruling::Up };
        let refusal = match rules.judge(target, bytes) {
            MethodVerdict::Allowed => None,
            MethodVerdict::Refused { rule, text } => Some((rule, text)),
            MethodVerdict::Limited { rule, method, per_second } => {
                let is_within = self.is_within_rate(slot, &rule, &method, per_second);
                (!is_within).then(|| (rule, over_rate(&method, per_second)))
            }
        };
        let Some((rule, text)) = refusal else {
            if let Some(client) = self.connections.get_mut(slot) {
                client.cold.refused.allow(message);
            }
            return Ruling::Up;
        };
        rules.count_refusal(&rule);
        self.refuse_call(slot, message, &rule, &text)
    }

    /// Takes a call of a client at this rate. Connections of one user count together, on whatever shard they are.
    fn is_within_rate(&self, slot: Slot, rule: &str, method: &str, per_second: u32) -> bool {
        let (Some(per_second), Some(client)) = (NonZeroU32::new(per_second), self.connections.get(slot)) else {
            return false;
        };
        let user = self.connections.user_of(client);
        let caller = user.map_or(RatedCaller::Connection(&client.id), RatedCaller::User);
        let shared = &self.context.shared;
        let hubs = shared.hubs.all();
        let hub = hubs.get(client.home.hub().get()).map_or("", |hub| hub.key());
        shared.limits.methods.take(hub, RatedCall { rule, method, caller }, per_second, shared.uptime())
    }

    fn refuse_call(&mut self, slot: Slot, call: &CallScan<'_>, rule: &str, text: &str) -> Ruling {
        let Some(client) = self.connections.get_mut(slot) else { return Ruling::Dropped };
        let has_room = client.cold.refused.add(call);
        if enabled!(tracing::Level::DEBUG) && self.context.may_log() {
            debug!(slot, rule, text, "a call is refused");
        }
        if let Some(id) = &call.invocation_id {
            self.answer_with_error(slot, id, text);
        }
        if has_room { Ruling::Dropped } else { Ruling::TooManyUploads }
    }
}

/// Text for a client over a rate; it names the method as the rule does.
fn over_rate(method: &str, per_second: u32) -> String {
    format!("The method '{method}' can't be called more than {per_second} times a second: the server's rules limit it.")
}
