//! Long work for a shard's clients in steps: filters, and closes and group changes of many clients.
//!
//! ```text
//!  sender: addressed clients ──► step ──► other work of the shard ──► step … ──► rest of the commands
//! ```
//!
//! The sender waits for each step, so its later frames stay behind, and the steps of one app take turns.

use super::command::ShardCommand;
use super::inbox::ShardSender;
use super::shard_state::ShardState;
use super::shared::Shared;
use super::slot::Slot;
use crate::ground::auth::Signer;
use crate::ground::bounded::TurnSource;

/// Cost of a step in bytes that filters read, some hundred microseconds.
const STEP_COST: usize = 64 * 1024;

/// Cost of a client besides the filter, such as its close.
const CLIENT_COST: usize = 256;

impl ShardSender {
    /// Does the long work of a piece of commands in steps, and returns the commands that remain. Such work is at the
    /// start of a piece.
    pub(crate) async fn take_steps(&self, shared: &Shared, mut commands: Vec<ShardCommand>) -> Vec<ShardCommand> {
        if commands.first().is_none_or(|first| first.stepped().is_none()) {
            return commands;
        }
        let mut command = commands.remove(0);
        let hub = command.stepped().and_then(|(hub, _)| shared.hubs.at(hub));
        let line = shared.turn_line(&Signer::Fleet, hub.as_deref().map(|hub| &*hub.identity), TurnSource::Steps);
        let mut waiting = None;
        while waiting.as_ref().is_none_or(|waiting: &Vec<_>| !waiting.is_empty()) {
            line.note_work();
            let _turn = line.begin().await;
            let stepped = self.inspect(move |state| {
                let mut waiting = waiting.unwrap_or_else(|| addressed(state, &command));
                step(state, &command, &mut waiting);
                (command, waiting)
            });
            // A stopping shard has no clients.
            let Some((same, rest)) = stepped.await else { return Vec::new() };
            (command, waiting) = (same, Some(rest));
        }
        if !matches!(command, ShardCommand::ChangeGroups { .. } | ShardCommand::CloseMany { .. }) {
            commands.insert(0, command);
        }
        commands
    }
}

/// Addressed clients, by id because another client may get a slot between two steps.
fn addressed(state: &ShardState, command: &ShardCommand) -> Vec<(Slot, String)> {
    let Some((hub, to)) = command.stepped() else { return Vec::new() };
    let connections = &state.core.connections;
    let slots = connections.addressed(hub, to).into_iter();
    slots.filter_map(|slot| Some((slot, connections.get(slot)?.id.to_string()))).collect()
}

fn step(state: &mut ShardState, command: &ShardCommand, waiting: &mut Vec<(Slot, String)>) {
    let Some((hub, to)) = command.stepped() else { return waiting.clear() };
    let mut left = STEP_COST;
    while left > 0
        && let Some((slot, id)) = waiting.pop()
    {
        if state.core.connections.is_in(slot, hub, &id) {
            let (is_match, cost) = state.core.connections.evaluate(slot, to);
            left = left.saturating_sub(cost + CLIENT_COST);
            if is_match {
                act(state, slot, command);
            }
        }
    }
}

/// Changes a matching client. Sends are applied after the last step, to all clients together.
fn act(state: &mut ShardState, slot: Slot, command: &ShardCommand) {
    match command {
        ShardCommand::ChangeGroups { change, ack, .. } => {
            state.core.change_groups(slot, change, ack.as_deref());
        }
        ShardCommand::CloseMany { app, reason, ack, .. } => {
            ack.found();
            state.close_many(*app, &[slot], reason.as_deref());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use trunkline_protocol::hub::HubProtocol;
    use trunkline_protocol::service::{ClientFilter, Payloads};

    use super::*;
    use crate::engine::shard::command::{Audience, MembershipChange, Receivers, SteppedFilter};
    use crate::engine::shard::connection::SetName;
    use crate::engine::shard::testbed::Testbed;
    use crate::engine::shard::{Framed, SendOrigin};
    use crate::engine::upstream::AppServerId;

    fn to_matching(filter: &str) -> Receivers {
        let filter = Some(SteppedFilter::new(ClientFilter::parse(filter).unwrap()));
        Receivers { filter, ..Audience::Everyone.into() }
    }

    fn bed(clients: usize) -> (Testbed, Vec<Slot>) {
        let mut bed = Testbed::new();
        let slots = (0..clients).map(|number| bed.client(&format!("c{number}x"))).collect();
        (bed, slots)
    }

    fn join(bed: &Testbed, filter: &str) -> ShardCommand {
        let change = MembershipChange::Join("red".into());
        ShardCommand::ChangeGroups { hub: bed.hub.index(), to: to_matching(filter), change, ack: None }
    }

    #[test]
    fn an_expensive_filter_changes_few_clients_in_a_step_and_all_of_them_in_the_end() {
        let (mut bed, slots) = bed(100);
        let costly = vec!["tolower(userId) eq 'ann'"; 140].join(" or ");
        let command = join(&bed, &costly);
        let mut waiting = addressed(&bed.state, &command);
        let (mut steps, mut before) = (0, 0);
        while !waiting.is_empty() {
            step(&mut bed.state, &command, &mut waiting);
            let members = bed.state.core.connections.members(bed.hub.index(), SetName::Group("red")).len();
            assert!(members - before <= STEP_COST / costly.len() + 1, "{members} clients after {before}");
            (steps, before) = (steps + 1, members);
        }
        assert_eq!((before, slots.len()), (100, 100));
        assert!(steps > 4, "{steps} steps");
    }

    #[test]
    fn a_client_that_takes_a_slot_between_two_steps_is_left_alone() {
        let (mut bed, slots) = bed(1);
        let command = join(&bed, "userId eq 'ann'");
        let mut waiting = addressed(&bed.state, &command);
        waiting[0].1 = "a former client".into();
        step(&mut bed.state, &command, &mut waiting);
        assert!(waiting.is_empty() && slots.len() == 1);
        assert!(bed.state.core.connections.members(bed.hub.index(), SetName::Group("red")).is_empty());
    }

    #[test]
    fn a_send_uses_the_results_of_its_steps_and_evaluates_later_clients() {
        let (mut bed, slots) = bed(1);
        let (hub, origin) = (bed.hub.index(), SendOrigin::Sender(AppServerId::from(7), 0));
        let message = Framed::new(&Payloads::single(HubProtocol::Json, Bytes::from_static(b"news")));
        let to = to_matching("userId eq 'ann'");
        let filter = to.filter.clone().unwrap();
        let command = ShardCommand::Send { hub, to, message, origin };
        let mut waiting = addressed(&bed.state, &command);
        step(&mut bed.state, &command, &mut waiting);
        assert_eq!(filter.results().len(), 1);
        filter.results().values_mut().for_each(|(_, is_match)| *is_match = false);
        let late = bed.client("late");
        bed.apply(vec![command]);
        assert_eq!((bed.received(slots[0]), bed.received(late)), (vec![], vec!["news".to_owned()]));
        assert_eq!(Arc::strong_count(&filter), 1);
    }
}
