//! Tests for the application of commands to one shard.

use bytes::Bytes;
use trunkline_protocol::hub::{HubProtocol, MessageKind};
use trunkline_protocol::service::{Payloads, RawKind};

use super::*;
use crate::engine::shard::command::MembershipChange;
use crate::engine::shard::command::audience::SendOrigin;
use crate::engine::shard::connection::{LifeCycle, PauseReason, SetName};
use crate::engine::shard::delivery::framed::Framed;
use crate::engine::shard::testbed::{Testbed, whole_id};
use crate::engine::upstream::LinkHandle;

const OWN: u32 = 7;

fn one(bed: &Testbed, id: &str, slot: Slot, app: u32, command: ConnectionCommand) -> ShardCommand {
    let (hub, app, connection_id) = (bed.hub.index(), AppServerId::from(app), whole_id(id).into());
    ShardCommand::One { hub, app, connection_id, slot, command }
}

fn data(text: &str) -> ConnectionCommand {
    ConnectionCommand::Data { payload: Bytes::copy_from_slice(text.as_bytes()), kind: RawKind::Text, packed: None }
}

#[test]
fn only_the_own_app_server_may_send_data() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    let commands = vec![one(&bed, "ann", ann, OWN, data("own")), one(&bed, "ann", ann, 8, data("strange"))];
    bed.apply(commands);
    assert_eq!(bed.received(ann), ["own"]);
    assert_eq!(bed.state.core.context.counters.unknown_receivers.get(), 1);
}

#[test]
fn another_node_is_not_the_app_server_of_a_client_that_has_none() {
    let mut bed = Testbed::new();
    let (ann, hub) = (bed.client("ann"), bed.hub.index());
    bed.state.core.connections.set_home(ann, &std::sync::Arc::new(LinkHandle::nowhere(bed.hub.identity.clone())));
    let (app, connection_id) = (AppServerId::OTHER_NODE, whole_id("ann").into());
    bed.apply(vec![ShardCommand::One { hub, app, connection_id, slot: ann, command: data("strange") }]);
    assert_eq!(bed.received(ann), [""; 0]);
}

#[test]
fn a_slot_that_another_connection_has_by_now_gets_nothing() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    bed.apply(vec![one(&bed, "ben", ann, OWN, data("for ben"))]);
    assert_eq!(bed.received(ann), [""; 0]);
}

#[test]
fn the_first_data_opens_a_connection() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    *bed.state.core.connections.get_mut(ann).unwrap().life_mut() = LifeCycle::default();
    bed.apply(vec![one(&bed, "ann", ann, OWN, data("{};"))]);
    assert!(bed.state.core.connections.get(ann).unwrap().life().is_open());
}

#[test]
fn groups_change_by_command_and_outlive_no_close() {
    let mut bed = Testbed::new();
    let (ann, hub) = (bed.client("ann"), bed.hub.index());
    let join = ConnectionCommand::Group { change: MembershipChange::Join("g".into()), ack: None };
    bed.apply(vec![one(&bed, "ann", ann, OWN, join)]);
    assert_eq!(bed.state.core.connections.members(hub, SetName::Group("g")).len(), 1);
    let close = ConnectionCommand::Close { error: None, cause: None, by: None };
    bed.apply(vec![one(&bed, "ann", ann, OWN, close)]);
    assert!(bed.state.core.connections.members(hub, SetName::Group("g")).is_empty());
    assert_eq!(bed.received(ann), ["close"]);
}

#[test]
fn a_close_by_another_app_server_sends_the_close_message_that_the_own_one_would() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    bed.apply(vec![one(&bed, "ann", ann, 8, ConnectionCommand::Close { error: None, cause: None, by: None })]);
    assert_eq!(bed.received(ann), [r#"{"type":7};"#, "close"]);
}

#[test]
fn an_app_server_pauses_and_resumes_a_client() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    bed.apply(vec![one(&bed, "ann", ann, OWN, ConnectionCommand::Flow { operation: FlowOperation::Pause, by: None })]);
    assert!(bed.state.core.connections.get(ann).unwrap().pauses().contains(PauseReason::AppServer));
    bed.apply(vec![one(&bed, "ann", ann, OWN, ConnectionCommand::Flow { operation: FlowOperation::Resume, by: None })]);
    assert!(bed.state.core.connections.get(ann).unwrap().pauses().is_empty());
}

#[test]
fn a_client_with_the_maximum_of_pending_calls_is_paused_until_one_is_answered() {
    let mut bed = Testbed::with(|settings| settings.rehoming.pending_calls_max = 1);
    let ann = bed.client("ann");
    bed.state.core.begin_call(ann, "1", MessageKind::Invocation);
    assert!(bed.state.core.connections.get(ann).unwrap().pauses().contains(PauseReason::PendingCalls));
    let answer = "{\"type\":3,\"invocationId\":\"1\",\"result\":2}\u{1e}";
    bed.apply(vec![one(&bed, "ann", ann, OWN, data(answer))]);
    assert!(bed.state.core.connections.get(ann).unwrap().pauses().is_empty());
    assert_eq!(bed.received(ann).len(), 1);
}

fn to_all(bed: &Testbed, to: Audience, text: &str) -> ShardCommand {
    let payloads = Payloads::single(HubProtocol::Json, Bytes::copy_from_slice(text.as_bytes()));
    let origin = SendOrigin::Sender(AppServerId::from(OWN), 0);
    ShardCommand::Send { hub: bed.hub.index(), to: to.into(), message: Framed::new(&payloads), origin }
}

#[test]
fn runs_of_sends_come_in_the_order_of_the_batch_and_each_message_counts() {
    let group = || Audience::Groups(vec!["room".into()]);
    let everyone = || Audience::Everyone;
    let two_groups = || Audience::Groups(vec!["room".into(), "room".into()]);
    let mut bed = Testbed::new();
    let (ann, ben) = (bed.client("ann"), bed.client("ben"));
    let join = ConnectionCommand::Group { change: MembershipChange::Join("room".into()), ack: None };
    bed.apply(vec![one(&bed, "ann", ann, OWN, join)]);
    let sends = [
        (everyone(), "1"),
        (everyone(), "2"),
        (group(), "3"),
        (group(), "4"),
        (everyone(), "5"),
        (two_groups(), "6"),
        (two_groups(), "7"),
    ];
    bed.apply(sends.map(|(to, text)| to_all(&bed, to, text)).into());
    assert_eq!(bed.received(ann), ["1", "2", "3", "4", "5", "6", "6", "7", "7"]);
    assert_eq!(bed.received(ben), ["1", "2", "5"]);
    let counters = bed.state.core.context.counters.hub(bed.hub.index().get());
    assert_eq!((counters.deliveries.get(), counters.bytes_down.get()), (12, 12));
}

#[test]
fn a_run_ends_where_it_would_grow_too_long_and_one_that_is_a_whole_batch_leaves_at_once() {
    let bed = Testbed::new();
    let send = |to: Audience, text: &str| to_all(&bed, to, text);
    let (everyone, large) = (|| Audience::Everyone, "x".repeat(10_000));
    let run_of = |mut commands: Vec<ShardCommand>| {
        let mode = BatchMode { flush: Flush::Deferred, now: 0 };
        let mut batch = AppliedBatch { length: commands.len(), rest: commands.drain(..), mode };
        let Some(ShardCommand::Send { hub, to, message, origin }) = batch.rest.next() else { panic!("it is a send") };
        let (run, mode) = batch.take_run(hub, &to, (message, origin));
        (run.len(), batch.rest.len(), mode.flush)
    };
    assert_eq!(run_of(vec![send(everyone(), "a"), send(everyone(), "b")]), (2, 0, Flush::Now));
    assert_eq!(run_of(vec![send(everyone(), &large), send(everyone(), &large)]), (1, 1, Flush::Deferred));
    let user = send(Audience::Users(vec!["ann".into()]), "c");
    assert_eq!(run_of(vec![send(everyone(), "a"), send(everyone(), "b"), user]), (2, 1, Flush::Deferred));
    let connection = || send(Audience::Connections(vec![whole_id("ann").into()]), "d");
    assert_eq!(run_of(vec![connection(), connection()]), (1, 1, Flush::Deferred), "answers are noted one by one");
}
