//! Method firewall: the operator's rules about single messages of clients, before they go up.
//!
//! ```text
//!  call ─► deny, allow, size ─► group ─► rate ─┬─ within ──► pending call, goes up to the home or a side home
//!                                              └─ refused ─► error to its caller; what belongs to the call is dropped
//! ```
//!
//! Only kind, ids and method are read. What can't be read ends the connection.

use std::num::NonZeroU32;
use std::sync::Arc;

use tracing::{debug, enabled};
use trunkline_protocol::hub::CallScan;

use super::connection::{REFUSED_UPLOADS_MAX, SIDE_UPLOADS_MAX};
use super::side_assignment::SideChoice;
use super::slot::Slot;
use super::state::ShardState;
use crate::limits::{RatedCall, RatedCaller};
use crate::routing::{HubRules, MethodVerdict};
use crate::upstream::HomeLink;

/// Ruling about a message of a client.
#[derive(Debug, Clone)]
pub(crate) enum Ruling {
    /// It goes up to the client's home.
    Home,
    /// It goes up to a side home.
    Side(HomeLink),
    /// It waits, with all that is behind it: no app server of its group is there.
    Waits,
    /// It does not go up: it is refused, or belongs to a refused call.
    Dropped,
    /// The client has too many open streams to calls, for this reason.
    TooMany(String),
}

impl ShardState {
    /// Rules on a message of a client: answers a call that is refused, and takes note of one that goes up.
    pub(crate) fn rule(&mut self, slot: Slot, rules: &HubRules, message: &CallScan<'_>, bytes: usize) -> Ruling {
        if !message.kind.is_call() {
            return self.rule_on_rest(slot, message);
        }
        let Some(target) = message.target.as_deref() else { return Ruling::Home };
        let verdict = rules.judge(target, bytes);
        if let MethodVerdict::Refused { rule, text } = verdict {
            return self.refuse_call(slot, rules, (message, &rule), &text);
        }
        let mut side = None;
        if let Some(group) = rules.group_of(target).filter(|group| self.is_beside_home(slot, group)) {
            match self.side_for(slot, group) {
                SideChoice::Ready(link) => side = Some((group, link)),
                // Before its rate: it comes again.
                SideChoice::Waits => return Ruling::Waits,
                SideChoice::Fails(text) => return self.answer_refused(slot, message, &text),
            }
        }
        if let MethodVerdict::Limited { rule, method, per_second } = verdict
            && !self.is_within_rate(slot, &rule, &method, per_second)
        {
            return self.refuse_call(slot, rules, (message, &rule), &over_rate(&method, per_second));
        }
        if let Some(client) = self.connections.get_mut(slot) {
            client.cold.refused.allow(message);
        }
        match side {
            Some((group, link)) if self.begin_side_call(slot, group, message) => Ruling::Side(link),
            Some(_) => Ruling::TooMany(format!(
                "The client still sends over {SIDE_UPLOADS_MAX} streams to calls of methods that one app server runs."
            )),
            None => {
                if let Some(id) = &message.invocation_id {
                    self.begin_call(slot, id);
                }
                Ruling::Home
            }
        }
    }

    /// Rules on a message that is no call: what belongs to a call goes where that went.
    fn rule_on_rest(&mut self, slot: Slot, message: &CallScan<'_>) -> Ruling {
        let Some(client) = self.connections.live_mut(slot) else { return Ruling::Home };
        if client.cold.refused.take(message) {
            return Ruling::Dropped;
        }
        let owner = client.cold.sides.as_mut().and_then(|sides| sides.owner_of(message));
        owner.map_or(Ruling::Home, |side| Ruling::Side(side.link.clone()))
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

    fn refuse_call(
        &mut self,
        slot: Slot,
        rules: &HubRules,
        (call, rule): (&CallScan<'_>, &Arc<str>),
        text: &str,
    ) -> Ruling {
        rules.count_refusal(rule);
        if enabled!(tracing::Level::DEBUG) && self.context.may_log() {
            debug!(slot, rule = &**rule, text, "a call is refused");
        }
        self.answer_refused(slot, call, text)
    }

    /// Answers a call that does not go up; what belongs to it is dropped.
    fn answer_refused(&mut self, slot: Slot, call: &CallScan<'_>, text: &str) -> Ruling {
        let Some(client) = self.connections.live_mut(slot) else { return Ruling::Dropped };
        let has_room = client.cold.refused.add(call);
        if let Some(id) = &call.invocation_id {
            self.answer_with_error(slot, id, text);
        }
        if has_room {
            return Ruling::Dropped;
        }
        Ruling::TooMany(format!(
            "The client still sends over {REFUSED_UPLOADS_MAX} streams to calls that were refused."
        ))
    }
}

/// Text for a client over a rate; it names the method as the rule does.
fn over_rate(method: &str, per_second: u32) -> String {
    format!("The method '{method}' can't be called more than {per_second} times a second: the server's rules limit it.")
}
