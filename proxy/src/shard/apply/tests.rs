//! Application of commands to one shard.

use bytes::Bytes;
use trunkline_protocol::service::RawKind;

use super::*;
use crate::shard::command::MembershipChange;
use crate::shard::connection::SetName;
use crate::shard::connection::{PauseReason, Status};
use crate::shard::testbed::{Testbed, whole_id};
use crate::upstream::LinkHandle;

const OWN: u32 = 7;

fn one(bed: &Testbed, id: &str, slot: Slot, app: u32, command: ConnectionCommand) -> ShardCommand {
    let (hub, app, connection_id) = (bed.hub.index(), AppServerId::from(app), whole_id(id).into());
    ShardCommand::One { hub, app, connection_id, slot, command }
}

fn data(text: &str) -> ConnectionCommand {
    ConnectionCommand::Data { payload: Bytes::copy_from_slice(text.as_bytes()), kind: RawKind::Text }
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
    bed.state.core.connections.set_home(ann, &std::sync::Arc::new(LinkHandle::nowhere(hub)));
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
    bed.state.core.connections.get_mut(ann).unwrap().status = Status::Opening { until: 99 };
    bed.apply(vec![one(&bed, "ann", ann, OWN, data("{};"))]);
    assert!(bed.state.core.connections.get(ann).unwrap().is_open());
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
    assert!(bed.state.core.connections.get(ann).unwrap().pause_reasons().contains(PauseReason::AppServer));
    bed.apply(vec![one(&bed, "ann", ann, OWN, ConnectionCommand::Flow { operation: FlowOperation::Resume, by: None })]);
    assert!(bed.state.core.connections.get(ann).unwrap().pause_reasons().are_none());
}

#[test]
fn a_client_with_the_maximum_of_pending_calls_is_paused_until_one_is_answered() {
    let mut bed = Testbed::with(|settings| settings.rehoming.pending_calls_max = 1);
    let ann = bed.client("ann");
    bed.state.core.begin_call(ann, "1");
    assert!(bed.state.core.connections.get(ann).unwrap().pause_reasons().contains(PauseReason::PendingCalls));
    let answer = "{\"type\":3,\"invocationId\":\"1\",\"result\":2}\u{1e}";
    bed.apply(vec![one(&bed, "ann", ann, OWN, data(answer))]);
    assert!(bed.state.core.connections.get(ann).unwrap().pause_reasons().are_none());
    assert_eq!(bed.received(ann).len(), 1);
}
